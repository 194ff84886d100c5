//! Random histories against a plain model: no path leads to a match without a live consent.

use std::collections::BTreeMap;

use assent::service::{WireTime, proto};
use assent::types::Timestamp;

use crate::harness::{
    CONTROLLER, Place, Service, embedded, enrolment_under, revoke_subject, shared_gates,
    verify_face,
};

const STEPS: u32 = 4_000;
const PEOPLE: u64 = 12;
const SCOPES: [&str; 2] = ["north-gate", "lobby"];
const GATES: [&str; 2] = ["north-gate-1", "lobby-1"];
/// Consents that end while the history runs, ms.
const SHORT_MS: u32 = 3_000;
/// Around the end of a consent nobody can say which clock a request was read by, ms.
const BLURRED_MS: i64 = 50;

/// Dice that fall alike for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u32) -> u32 {
        // xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        u32::try_from(high % u64::from(sides)).unwrap()
    }
}

/// One live consent of the model.
struct Held {
    consent: String,
    record: String,
    expires_at: Timestamp,
}

/// What ought to be: (person, scope) -> consents, and which scope each gate serves.
#[derive(Default)]
struct Model {
    held: BTreeMap<(u64, usize), Vec<Held>>,
    swapped: bool,
}

impl Model {
    fn scope_of(&self, gate: usize) -> usize {
        if self.swapped { 1 - gate } else { gate }
    }

    /// Whether the person should match in that scope at `at`; none where it is about to change.
    fn should_match(&self, person: u64, scope: usize, at: Timestamp) -> Option<bool> {
        let held = self.held.get(&(person, scope)).into_iter().flatten();
        let left: Vec<i64> = held.map(|held| held.expires_at.ms_since(at)).collect();
        if left.iter().any(|left| *left > BLURRED_MS) {
            return Some(true);
        }
        left.iter().all(|left| *left < -BLURRED_MS).then_some(false)
    }
}

fn seed() -> u64 {
    let given = std::env::var("ASSENT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| Timestamp::now().unix_ms().unsigned_abs() | 1);
    println!("ASSENT_SEED={seed}");
    seed
}

/// The example policy, its two gates serving each other's scope or their own.
fn policy(swapped: bool) -> String {
    let policy = shared_gates();
    if !swapped {
        return policy;
    }
    let policy = policy.replace("scopes = [\"north-gate\"]", "scopes = [\"-\"]");
    let policy = policy.replace("scopes = [\"lobby\"]", "scopes = [\"north-gate\"]");
    policy.replace("scopes = [\"-\"]", "scopes = [\"lobby\"]")
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_c3_c4_c7_no_random_history_leads_to_a_match_without_a_live_consent() {
    let service = Service::start_in(Place::new()).await;
    service.apply(&policy(false)).await;
    let notice = service.notice().await;
    let (client, mut dice, mut model) = (&service.client, Dice(seed()), Model::default());
    let (mut matches, mut misses, mut gone) = (0_u32, 0_u32, 0_u32);
    for step in 0..STEPS {
        let person = u64::from(dice.below(u32::try_from(PEOPLE).unwrap()));
        let scope = dice.below(2) as usize;
        let subject = format!("resident-{person}");
        match dice.below(20) {
            0..=2 => {
                let mut request =
                    enrolment_under(&notice, &subject, SCOPES[scope], vec![embedded(person)]);
                let id = format!("consent-{step}");
                request.idempotency_key = format!("key-{step}");
                let short = dice.below(2) == 0;
                let left = if short { 200 + dice.below(SHORT_MS) } else { 86_400_000 };
                let expires_at = Timestamp::now().plus_ms(i64::from(left));
                let consent = request.consent.as_mut().unwrap();
                consent.consent_id.clone_from(&id);
                consent.expires_at = Some(WireTime::from(expires_at));
                let record = client.enroll(request).await.unwrap().record_id;
                let held = Held { consent: id, record, expires_at };
                model.held.entry((person, scope)).or_default().push(held);
            }
            3 => {
                use proto::revoke_request::Target;
                let own = model.held.get_mut(&(person, scope));
                let one = own.and_then(Vec::pop);
                let request = match (one, dice.below(3)) {
                    (None, _) | (_, 0) => {
                        for scope in 0..2 {
                            model.held.remove(&(person, scope));
                        }
                        revoke_subject(&subject)
                    }
                    (Some(one), 1) => proto::RevokeRequest {
                        controller_id: CONTROLLER.to_owned(),
                        target: Some(Target::ConsentId(one.consent)),
                    },
                    (Some(one), _) => proto::RevokeRequest {
                        controller_id: CONTROLLER.to_owned(),
                        target: Some(Target::RecordId(one.record)),
                    },
                };
                client.revoke(request).await.unwrap();
                gone += 1;
            }
            4 if dice.below(8) == 0 => {
                model.swapped = !model.swapped;
                service.apply(&policy(model.swapped)).await;
            }
            _ => {
                let gate = dice.below(2) as usize;
                let scope = model.scope_of(gate);
                let before = model.should_match(person, scope, Timestamp::now());
                let answer = client.verify(verify_face(GATES[gate], person)).await.unwrap();
                let after = model.should_match(person, scope, Timestamp::now());
                if before != after || before.is_none() {
                    continue;
                }
                let found = answer.r#match.as_ref();
                assert_eq!(Some(found.is_some()), before, "step {step}: {subject} at gate {gate}");
                let Some(found) = found else {
                    misses += 1;
                    continue;
                };
                let tag = found.consent_tag.as_ref().unwrap();
                assert_eq!((&*found.subject_ref, &*tag.scope), (&*subject, SCOPES[scope]));
                let covered = model.held[&(person, scope)]
                    .iter()
                    .any(|held| held.consent == tag.consent_id && held.record == found.record_id);
                assert!(covered, "step {step}: {} is not live", tag.consent_id);
                matches += 1;
            }
        }
    }
    println!("{STEPS} steps: {matches} matches, {misses} without, {gone} withdrawals");
    assert!(matches > 300 && misses > 300 && gone > 50, "all of it was tried");
    service.stop().await;
}
