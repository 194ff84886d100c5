//! Gates: where faces are compared, for what, and the ways in that need no face.
//!
//! # Invariants
//! - [`Alternatives`] is never empty: a face is never the only way in (G1, SPC 10, M10).
//! - A gate in a private room does not exist (G3, M13): the policy's document refuses it.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::operating_point::ErrorRate;
use super::record::AlternativeMethod;
use crate::types::{ControllerId, GateId, Purpose, Scope, ShortText};

/// How often a watched alternative may be told to be heard of, seconds.
pub const HEARTBEAT_S: RangeInclusive<u32> = 10..=86_400;

/// Least distance between the eyes where a gate does not say, pixels.
pub const DEFAULT_MIN_EYE_DISTANCE_PX: u32 = 20;

/// The kind of place where a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceType {
    /// Nobody said: refused.
    Unspecified,
    /// The entrance of a community or building that is not open to everybody.
    Entrance,
    /// The entrance of a place that is open to everybody.
    PublicEntrance,
    /// A turnstile behind an entrance.
    Turnstile,
    /// The door of an office.
    OfficeDoor,
    /// A lift.
    Lift,
    /// A car park.
    Parking,
    /// A hotel room: refused.
    HotelRoom,
    /// A bathroom: refused.
    Bathroom,
    /// A changing room: refused.
    ChangingRoom,
    /// A toilet: refused.
    Toilet,
}

/// How the law sees a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlaceRule {
    /// Gates may stand there.
    Ordinary,
    /// Open to everybody: only under conditions (M13).
    Public,
    /// Private, or not said: never (M13).
    Never,
}

impl PlaceType {
    /// Every kind of place.
    pub const ALL: [Self; 11] = [
        Self::Unspecified,
        Self::Entrance,
        Self::PublicEntrance,
        Self::Turnstile,
        Self::OfficeDoor,
        Self::Lift,
        Self::Parking,
        Self::HotelRoom,
        Self::Bathroom,
        Self::ChangingRoom,
        Self::Toilet,
    ];

    /// How the law sees it.
    #[must_use]
    pub fn rule(self) -> PlaceRule {
        match self {
            Self::Entrance | Self::Turnstile | Self::OfficeDoor | Self::Lift | Self::Parking => {
                PlaceRule::Ordinary
            }
            Self::PublicEntrance => PlaceRule::Public,
            Self::Unspecified
            | Self::HotelRoom
            | Self::Bathroom
            | Self::ChangingRoom
            | Self::Toilet => PlaceRule::Never,
        }
    }
}

/// A way past a gate that does not use the face.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// The kind of way.
    pub method: AlternativeMethod,
    /// What to tell the person, at most 256 bytes.
    pub hint: ShortText,
    /// Whether it suits disabled and elderly people (G5, M5).
    #[serde(default)]
    pub accessible: bool,
    /// How often it must be heard of, seconds ([`HEARTBEAT_S`]); without it nobody watches (G2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_s: Option<u32>,
}

/// Which of a gate's alternatives are known to be down, by place in [`Alternatives`].
///
/// ```
/// use assent::consent::Down;
/// let card = Down::default().with(1);
/// assert!(card.is_down(1) && !card.is_down(0));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Down(u64);

impl Down {
    /// The same with the alternative at `place`; a policy has no more places than there are bits.
    #[must_use]
    pub fn with(self, place: usize) -> Self {
        Self(self.0 | Self::bit(place))
    }

    /// Whether the alternative at `place` is known to be down.
    #[must_use]
    pub fn is_down(self, place: usize) -> bool {
        self.0 & Self::bit(place) != 0
    }

    fn bit(place: usize) -> u64 {
        u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place)).unwrap_or(0)
    }
}

/// Who looks for presentation attacks: photos, screens, masks (ISO/IEC 30107).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PadPolicy {
    /// Nobody has to; a gate that reports an attack is believed all the same.
    #[default]
    None,
    /// The gate: each request carries its verdict, and only LIVE lets the face be compared.
    Gate,
    /// The model pack's liveness model, on the frame; and the gate, where it reports an attack.
    Model,
}

/// The ways past a gate that do not use the face: at least one.
///
/// ```
/// use assent::consent::Alternatives;
/// assert!(Alternatives::new(vec![]).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Alternative>", into = "Vec<Alternative>")]
pub struct Alternatives(Box<[Alternative]>);

impl Alternatives {
    /// The ways, in the order in which they are offered.
    ///
    /// # Errors
    /// None given.
    pub fn new(ways: Vec<Alternative>) -> Result<Self, NoAlternative> {
        if ways.is_empty() { Err(NoAlternative) } else { Ok(Self(ways.into_boxed_slice())) }
    }

    /// What a deployment tells a person where the gate itself is not known.
    #[must_use]
    pub fn fallback() -> Self {
        let hint = ShortText::parse("请联系现场工作人员 / Please ask the staff");
        let staff = AlternativeMethod::Staff;
        let way = hint.map(|hint| Alternative {
            method: staff,
            hint,
            accessible: true,
            heartbeat_s: None,
        });
        Self(way.into_iter().collect())
    }

    /// The ways; never empty.
    #[must_use]
    pub fn as_slice(&self) -> &[Alternative] {
        &self.0
    }

    /// Whether one of them suits disabled and elderly people.
    #[must_use]
    pub fn any_accessible(&self) -> bool {
        self.0.iter().any(|way| way.accessible)
    }

    /// Whether one of them has to be heard of now and then (G2).
    #[must_use]
    pub fn any_watched(&self) -> bool {
        self.watched().next().is_some()
    }

    /// Those that have to be heard of, with their places.
    pub fn watched(&self) -> impl Iterator<Item = (usize, &Alternative)> {
        self.0.iter().enumerate().filter(|(_, way)| way.heartbeat_s.is_some())
    }

    /// The place of the `index`th way of this kind, from 0.
    #[must_use]
    pub fn place(&self, method: AlternativeMethod, index: usize) -> Option<usize> {
        let alike = self.0.iter().enumerate().filter(|(_, way)| way.method == method);
        alike.map(|(place, _)| place).nth(index)
    }

    /// What the way at `place` is called in metrics and status: its kind, and from the second of a
    /// kind on its number, such as "card" and "card-2".
    #[must_use]
    pub fn name(&self, place: usize) -> String {
        let Some(method) = self.0.get(place).map(|way| way.method) else { return String::new() };
        let before = self.0.iter().take(place).filter(|way| way.method == method).count();
        match before {
            0 => method.name().to_owned(),
            _ => format!("{}-{}", method.name(), before + 1),
        }
    }
}

impl TryFrom<Vec<Alternative>> for Alternatives {
    type Error = NoAlternative;

    fn try_from(ways: Vec<Alternative>) -> Result<Self, NoAlternative> {
        Self::new(ways)
    }
}

impl From<Alternatives> for Vec<Alternative> {
    fn from(ways: Alternatives) -> Self {
        ways.0.into()
    }
}

/// A face would be the only way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a gate needs at least one way in that is not the face (SPC 10, M10)")]
pub struct NoAlternative;

/// What one probe is compared with (G7, M19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// Verification: with the template of one claimed subject.
    OneToOne,
    /// Identification: with every template of the gate's classes.
    OneToMany,
}

/// What a gate may compare (G7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllowedComparison {
    /// Verification only.
    OneToOne,
    /// Identification only.
    OneToMany,
    /// Either.
    Both,
}

impl AllowedComparison {
    /// "one_to_one", "one_to_many" or "both".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "one_to_one",
            Self::OneToMany => "one_to_many",
            Self::Both => "both",
        }
    }

    /// Whether `comparison` is allowed.
    #[must_use]
    pub fn allows(self, comparison: Comparison) -> bool {
        match self {
            Self::OneToOne => comparison == Comparison::OneToOne,
            Self::OneToMany => comparison == Comparison::OneToMany,
            Self::Both => true,
        }
    }
}

/// How the gate knows that the person wants to be recognised (G6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// The person pressed a button.
    Button,
    /// The person presented a card.
    Card,
    /// The person presented a QR code.
    Qr,
    /// The person stopped at a marked place and presence was confirmed.
    PresenceConfirmed,
}

/// What a gate in a public place has to show (G4, M13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicPlace {
    /// Where the sign hangs, or its number in the operator's list.
    pub signage: ShortText,
    /// The area that the camera takes in, and what keeps it there.
    pub capture_area: ShortText,
    /// Why public safety needs it.
    pub necessity: ShortText,
}

/// How much more the probe must resemble the best subject than the second one for a 1:N match: a
/// difference of cosines, more than 0 and at most 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Margin(f64);

impl Margin {
    /// The difference.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Margin {
    type Error = InvalidMargin;

    fn try_from(margin: f64) -> Result<Self, InvalidMargin> {
        if margin > 0.0 && margin <= 1.0 { Ok(Self(margin)) } else { Err(InvalidMargin) }
    }
}

impl From<Margin> for f64 {
    fn from(margin: Margin) -> Self {
        margin.0
    }
}

/// Not a margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not a margin: more than 0 and at most 1")]
pub struct InvalidMargin;

/// What becomes of 1:N searches in a gallery that is larger than the model's calibration can keep
/// the gate's FPIR in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenOutgrown {
    /// They go on at the strictest calibrated threshold, and the FPIR is higher than it should be.
    #[default]
    Warn,
    /// They are refused.
    Refuse,
}

impl WhenOutgrown {
    /// "warn" or "refuse".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Refuse => "refuse",
        }
    }
}

/// A door or turnstile, as the policy describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each rule is on or off by itself")]
pub struct Gate {
    /// Its id, unique in the deployment.
    pub id: GateId,
    /// Who runs it.
    pub controller: ControllerId,
    /// What people call it.
    pub label: ShortText,
    /// Where it stands.
    pub place_type: PlaceType,
    /// For public places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_place: Option<PublicPlace>,
    /// Why faces are compared there; at least one.
    pub purposes: Vec<Purpose>,
    /// The scopes whose templates are compared; at least one.
    pub scopes: Vec<Scope>,
    /// 1:1, 1:N or both; an applied gate always says.
    pub comparison: Option<AllowedComparison>,
    /// False match rate of 1:1 comparisons.
    pub fmr: ErrorRate,
    /// False positive identification rate of 1:N searches.
    pub fpir: ErrorRate,
    /// Least distance to the second subject in 1:N searches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<Margin>,
    /// When the gallery outgrows the calibration.
    pub outgrown: WhenOutgrown,
    /// Whether faces are looked at; while not, people are told the other ways in.
    #[serde(skip_serializing_if = "is_true")]
    pub face_enabled: bool,
    /// Least distance between the eyes, pixels of the frame.
    pub min_eye_distance_px: u32,
    /// Whether a frame with several faces is refused.
    pub single_face: bool,
    /// Whether a frame that waits is given up for a newer one of the same gate.
    pub newest_frame_wins: bool,
    /// Whether replies carry similarity scores; they help an attacker to climb.
    pub expose_similarity: bool,
    /// Who looks for presentation attacks.
    pub pad: PadPolicy,
    /// Consecutive failed attempts at one subject after which its face waits; never more than the
    /// profile's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lockout_after: Option<u32>,
    /// Whether faces wait while every watched alternative is down (G1).
    pub require_alternative: bool,
    /// The other ways in.
    pub alternatives: Alternatives,
}

/// What most gates say is left out, so that a policy of before compares equal.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(value: &bool) -> bool {
    *value
}
