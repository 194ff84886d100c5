//! Enrolments between their commit and their place in the index.
//!
//! Committing and indexing are two steps. Whoever looks for a record between them, to revoke it or
//! to repeat the answer of its enrolment, would find it half there: so it waits until the arrival
//! is over. One arrival takes one commit, and only those that are asked for are waited for.
//!
//! # Invariants
//! - An enrolment is announced before its commit begins and until its template is in the index or
//!   its commit is taken back, whatever way its task ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::revoke::{Owner, RevokeTarget};
use crate::types::{ConsentId, ControllerId, RecordId};

/// The enrolments that are arriving now.
#[derive(Default)]
pub(super) struct Arrivals(Mutex<HashMap<RecordId, Arrival>>);

struct Arrival {
    owner: Owner,
    /// Closed when the arrival is over.
    over: watch::Receiver<()>,
}

/// Announces one arrival while it lives.
pub(super) struct Arriving {
    arrivals: Arc<Arrivals>,
    record: RecordId,
    _over: watch::Sender<()>,
}

impl Arrivals {
    /// Announces `record`.
    pub(super) fn announce(self: &Arc<Self>, record: RecordId, owner: Owner) -> Arriving {
        let (sender, over) = watch::channel(());
        let arrival = Arrival { owner, over };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(record, arrival);
        Arriving { arrivals: Arc::clone(self), record, _over: sender }
    }

    /// Waits until no enrolment that `target` names, and that is arriving now, is under way.
    pub(super) async fn settled(&self, controller: &ControllerId, target: &RevokeTarget) {
        self.over(|record, owner| target.names(controller, record, owner)).await;
    }

    /// The same for the enrolment under one consent.
    pub(super) async fn settled_consent(&self, controller: &ControllerId, consent: &ConsentId) {
        self.over(|_, owner| owner.controller == *controller && owner.consent == *consent).await;
    }

    async fn over(&self, wanted: impl Fn(RecordId, &Owner) -> bool) {
        let receivers: Vec<watch::Receiver<()>> = {
            let arriving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let named =
                arriving.iter().filter(|(record, arrival)| wanted(**record, &arrival.owner));
            named.map(|(_record, arrival)| arrival.over.clone()).collect()
        };
        for mut over in receivers {
            // Nothing is ever sent: this returns when the sender is dropped.
            while over.changed().await.is_ok() {}
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.arrivals.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.record);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn owner(subject: &str) -> Owner {
        Owner {
            controller: "c".parse().unwrap(),
            subject: subject.parse().unwrap(),
            consent: format!("consent-{subject}").parse().unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_waits_for_the_arrival_that_it_names_and_for_no_other() {
        let arrivals = Arc::new(Arrivals::default());
        let arriving = arrivals.announce(RecordId::random(), owner("a"));
        let controller: ControllerId = "c".parse().unwrap();
        let named = RevokeTarget::Subject("a".parse().unwrap());
        let other = RevokeTarget::Subject("b".parse().unwrap());
        arrivals.settled(&controller, &other).await;
        let waiting = arrivals.settled(&controller, &named);
        let early = tokio::time::timeout(Duration::from_secs(1), waiting).await;
        assert!(early.is_err(), "it returned while the enrolment was arriving");
        drop(arriving);
        arrivals.settled(&controller, &named).await;
    }
}
