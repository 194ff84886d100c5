//! Messages as proto3 JSON, with the names of the proto.

use std::sync::LazyLock;

pub use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use super::proto;

/// The descriptors were written by the same build that reads them.
static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).ok());

/// `message` of package assent.v1 as JSON; `name` without the package, such as "VerifyResponse".
/// `None` where there is no such message.
///
/// ```
/// use assent::service::{json, proto};
/// let status = proto::StatusResponse { state: "serving".into(), ..Default::default() };
/// assert_eq!(json::to_json("StatusResponse", &status).unwrap()["state"], "serving");
/// ```
#[must_use]
pub fn to_json(name: &str, message: &impl Message) -> Option<serde_json::Value> {
    let descriptor = POOL.as_ref()?.get_message_by_name(&format!("assent.v1.{name}"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()?;
    let options =
        SerializeOptions::new().use_proto_field_name(false).stringify_64_bit_integers(true);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).ok()
}
