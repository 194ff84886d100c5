//! Policy profiles: which rules a jurisdiction enforces, as data.
//!
//! # Invariants
//! - A profile is one TOML file under `profiles/`; no code asks for a profile's name.
//! - What holds everywhere (C1, C2, C5, G1, G3, D1 of REQUIREMENTS) is no field here: it cannot be
//!   switched off.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::gate::{AllowedComparison, PadPolicy};
use super::operating_point::ErrorRate;
use crate::types::Purpose;

/// The profiles that ship with the program, by name.
const SHIPPED: [(&str, &str); 5] = [
    ("cn", include_str!("profiles/cn.toml")),
    ("eu", include_str!("profiles/eu.toml")),
    ("us-il", include_str!("profiles/us-il.toml")),
    ("us-tx", include_str!("profiles/us-tx.toml")),
    ("open", include_str!("profiles/open.toml")),
];

/// Most consecutive failed attempts where nobody looks for presentation attacks.
const ATTEMPTS_WITHOUT_PAD: u32 = 50;

/// The file of a shipped profile.
pub(super) fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| *text)
}

/// What to do when an enrolled face looks like another subject's in the same class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicatePolicy {
    /// Refuse the enrolment.
    Refuse,
    /// Enrol, and name the other subject in the answer.
    Flag,
}

/// The rules that differ between jurisdictions.
///
/// ```
/// use assent::consent::Profile;
/// let cn = Profile::named("cn")?;
/// assert_eq!(cn.max_retention_days, 365);
/// # Ok::<(), assent::consent::UnknownProfile>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each rule is on or off by itself")]
pub struct Profile {
    /// The name, such as "cn".
    pub name: String,
    /// Longest time from consent to expiry, days (M8, BIPA 15(a)).
    pub max_retention_days: u32,
    /// Longest time without use before erasure, calendar months; the least is two (C7).
    pub max_inactive_months: Option<u32>,
    /// Longest time from expiry to erasure, seconds (PIPL 47, GDPR 17).
    pub erase_within_seconds: u32,
    /// How long a superseded notice may still be consented to, days.
    pub notice_grace_days: u32,
    /// Whether a gate must say how the person asked to be recognised (G6).
    pub intent_required: bool,
    /// Whether each gate needs an alternative that suits disabled and elderly people (G5, M5).
    pub accessible_alternative_required: bool,
    /// Whether gates may stand in public places (G4, M13).
    pub public_places_allowed: bool,
    /// The only purposes of gates in public places; empty for any (G4, M13).
    pub public_place_purposes: Vec<Purpose>,
    /// Whether gates in public places need a sign, a capture area and a necessity (G4, M13).
    pub public_place_conditions: bool,
    /// Whether a basis other than consent is accepted (C9, SPC 5).
    pub other_lawful_bases_allowed: bool,
    /// Whether children under 14 may be enrolled, with their guardian's consent (C5, M7).
    pub children_allowed: bool,
    /// Whether each consent must cover processing away from the device where the deployment is
    /// reached over the Internet (C8, M8).
    pub internet_needs_consent: bool,
    /// Whether enrolment needs a current impact assessment (O2, M9, GDPR 35).
    pub impact_assessment_required: bool,
    /// What a gate compares that does not say; `None`: each has to (G7).
    pub default_comparison: Option<AllowedComparison>,
    /// What happens to duplicates where the controller's policy does not say.
    pub duplicates: DuplicatePolicy,
    /// Share of honest enrolments that the duplicate search may suspect wrongly.
    pub duplicate_fpir: ErrorRate,
    /// From how many persons on a controller has to file with the authority; `None`: never (O1, M15).
    pub filing_threshold: Option<u32>,
    /// From which share of the threshold on it is warned, more than 0 and at most 1 (O1).
    pub filing_warn_share: Option<f64>,
    /// How many working days it has to file (O1, M15).
    pub filing_working_days: Option<u32>,
    /// Consecutive failed 1:1 attempts at one subject after which its face waits.
    pub lockout_attempts: u32,
    /// The article of law behind each rule, by field.
    pub sources: BTreeMap<String, String>,
}

impl Profile {
    /// The shipped profile of that name.
    ///
    /// # Errors
    /// No profile has that name.
    ///
    /// # Panics
    /// Never: a test parses every shipped profile.
    pub fn named(name: &str) -> Result<Self, UnknownProfile> {
        let text = shipped(name).ok_or_else(|| UnknownProfile(name.to_owned()))?;
        // The text is a constant of this program; `every_shipped_profile_parses` covers each.
        Ok(toml::from_str(text).expect("a shipped profile parses"))
    }

    /// Most consecutive failed attempts at a gate where `pad` looks for attacks, 1 at least: without
    /// that the standard halves what it allows (NIST SP 800-63B-4 3.2.3).
    #[must_use]
    pub fn lockout_limit(&self, pad: PadPolicy) -> u32 {
        let most = match pad {
            PadPolicy::None => self.lockout_attempts.min(ATTEMPTS_WITHOUT_PAD),
            PadPolicy::Gate | PadPolicy::Model => self.lockout_attempts,
        };
        most.max(1)
    }

    /// The names of the shipped profiles.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }
}

/// No profile has this name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no profile {0:?}; there are: {known}", known = SHIPPED.map(|(name, _)| name).join(", "))]
pub struct UnknownProfile(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_parses_and_bears_its_name() {
        for (name, text) in SHIPPED {
            let profile: Profile = toml::from_str(text).unwrap();
            assert_eq!(profile.name, name);
            // NIST SP 800-63B-4 3.2.3: at most 100 even with attacks detected.
            assert!((1..=100).contains(&profile.lockout_attempts), "{name}");
            assert_eq!(Profile::named(name), Ok(profile));
        }
    }

    #[test]
    fn an_unknown_profile_is_refused_and_the_known_ones_are_named() {
        let refusal = Profile::named("mars").unwrap_err().to_string();
        for name in Profile::names() {
            assert!(refusal.contains(name), "{refusal}");
        }
    }

    #[test]
    fn a_profile_with_an_unknown_field_is_refused() {
        let text = format!("moon_phase = 3\n{}", SHIPPED[0].1);
        assert!(toml::from_str::<Profile>(&text).is_err());
    }
}
