//! Whether what is held may be held under the rules in force: profile and kind of deployment may
//! have changed while the service was down.
//!
//! # Invariants
//! - A service that opens holds no record that it would refuse today for its basis, its subject's
//!   class, its retention, or where it is processed.

use serde::{Deserialize, Serialize};

use super::OpenError;
use crate::consent::{DeploymentMode, Policy};
use crate::index::Index;
use crate::store::{Fact, FactKind, Facts, Store};

const NAME: &str = "rules";

/// The rules under which all that is held was looked at.
#[derive(PartialEq, Serialize, Deserialize)]
struct Rules {
    profile: String,
    deployment: DeploymentMode,
    program: String,
}

/// Looks at every record where the rules are others than the last time.
///
/// # Errors
/// [`OpenError::Rules`] names how many may not be held, and one of them.
pub(super) async fn check(
    store: &Store,
    index: &Index,
    policy: &Policy,
    facts: &mut Facts,
) -> Result<(), OpenError> {
    let rules = Rules {
        profile: policy.profile().name.clone(),
        deployment: policy.deployment().mode,
        program: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let before = facts.take::<Rules>(FactKind::Rules)?;
    if before.iter().any(|(_, before)| *before == rules) {
        return Ok(());
    }
    let (mut records, mut first) = (0_u64, None);
    for controller in index.controllers() {
        for (record, _) in index.records_of_controller(&controller.controller) {
            let Some(held) = store.describe(record).await? else { continue };
            if let Err(refusal) = policy.check_held(&held.consent) {
                records += 1;
                first.get_or_insert((record, refusal));
            }
        }
    }
    if let Some((record, refusal)) = first {
        return Err(OpenError::Rules { profile: rules.profile, records, record, refusal });
    }
    let kept = store.remember(vec![Fact::new(FactKind::Rules, NAME, &rules)?], None).await;
    if let Err(fault) = kept {
        tracing::warn!(%fault, "the next start looks at every record again");
    }
    Ok(())
}
