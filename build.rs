//! Compiles `proto/` without protoc, and lists every RPC as an enum so that the access policy can
//! match on it exhaustively: an RPC without a policy line does not build.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::FileDescriptorSet;

const FILES: [&str; 4] = [
    "assent/v1/gate.proto",
    "assent/v1/enrollment.proto",
    "assent/v1/operator.proto",
    "assent/v1/notices.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("assent.v1.bin"), descriptors.encode_to_vec())?;
    write_rpcs(&out.join("rpc.rs"), &descriptors)?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

fn write_rpcs(path: &Path, descriptors: &FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let mut variants = String::new();
    let mut paths = String::new();
    let mut all = String::new();
    for file in descriptors.file.iter().filter(|f| f.package() == "assent.v1") {
        for service in &file.service {
            for method in &service.method {
                let (service, method) = (service.name(), method.name());
                let variant = format!("{service}{method}");
                writeln!(variants, "    /// `{service}.{method}`.\n    {variant},")?;
                writeln!(paths, "            Self::{variant} => \"{service}.{method}\",")?;
                write!(all, "Self::{variant}, ")?;
            }
        }
    }
    let code = format!(
        "/// Every RPC of package assent.v1.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]\n\
         pub enum Rpc {{\n{variants}}}\n\n\
         impl Rpc {{\n    /// All of them.\n    pub const ALL: &[Self] = &[{all}];\n\n\
         \x20   /// `Service.Method`.\n    #[must_use]\n    pub fn name(self) -> &'static str {{\n\
         \x20       match self {{\n{paths}        }}\n    }}\n}}\n"
    );
    fs::write(path, code)?;
    Ok(())
}
