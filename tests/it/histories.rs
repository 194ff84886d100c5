//! Random histories against a plain model: no path leads to a match without a live consent.
//!
//! Two controllers know the same people by the same references, grown-ups and children; gates
//! exchange their scopes or rest, and the service starts again now and then.

use std::collections::BTreeMap;

use assent::service::client::Client;
use assent::service::{WireTime, proto};
use assent::types::Timestamp;

use crate::harness::{
    CONTROLLER, Place, Service, embedded, enrolment_under, shared_gates, verify_face,
};

const STEPS: u32 = 4_000;
const PEOPLE: u64 = 12;
const OTHER_CONTROLLER: &str = "oak-property";
/// Controller and scope of each class of templates.
const CLASSES: [(&str, &str); 3] =
    [(CONTROLLER, "north-gate"), (CONTROLLER, "lobby"), (OTHER_CONTROLLER, "north-gate")];
/// A gate for each class; the first two may exchange theirs, the last may rest.
const GATES: [&str; 3] = ["north-gate-1", "lobby-1", "oak-gate-1"];
const RESTING: usize = 2;
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
    ends_at: Timestamp,
}

/// What ought to be: (person, class) -> consents, and which class each gate serves.
#[derive(Default)]
struct Model {
    held: BTreeMap<(u64, usize), Vec<Held>>,
    swapped: bool,
    resting: bool,
}

impl Model {
    fn class_of(&self, gate: usize) -> usize {
        if self.swapped && gate < 2 { 1 - gate } else { gate }
    }

    /// Whether the person should match in that class at `at`; none where it is about to change.
    fn should_match(&self, person: u64, class: usize, at: Timestamp) -> Option<bool> {
        let held = self.held.get(&(person, class)).into_iter().flatten();
        let left: Vec<i64> = held.map(|held| held.ends_at.ms_since(at)).collect();
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

/// The example policy, its two gates serving each other's scope or their own, and the same of
/// another controller with one gate.
fn policy(model: &Model) -> String {
    let mut policy = shared_gates();
    let first_gate = policy.find("[[gates]]").unwrap();
    let second_gate = first_gate + policy[first_gate + 1..].find("[[gates]]").unwrap() + 1;
    let other = policy[..second_gate].replace(CONTROLLER, OTHER_CONTROLLER);
    let mut other = other.replace("north-gate-1", GATES[RESTING]);
    if model.resting {
        other = other.replace("\ncomparison = ", "\nface_enabled = false\ncomparison = ");
    }
    if model.swapped {
        policy = policy.replace("scopes = [\"north-gate\"]", "scopes = [\"-\"]");
        policy = policy.replace("scopes = [\"lobby\"]", "scopes = [\"north-gate\"]");
        policy = policy.replace("scopes = [\"-\"]", "scopes = [\"lobby\"]");
    }
    format!("{policy}\n{other}")
}

async fn notice_of(client: &Client, controller: &str) -> proto::Notice {
    let request = proto::GetNoticeRequest {
        controller_id: controller.to_owned(),
        notice_id: "face-entry".to_owned(),
        version: String::new(),
    };
    client.get_notice(request).await.unwrap().notice.unwrap()
}

/// An enrolment that matches until `ends_at`: a child's until its consent has to be renewed.
fn enrolment(
    notice: &proto::Notice,
    (step, person, class): (u32, u64, usize),
    ends_at: Timestamp,
    is_child: bool,
) -> proto::EnrollRequest {
    let (controller, scope) = CLASSES[class];
    let subject = format!("resident-{person}");
    let mut request = enrolment_under(notice, &subject, scope, vec![embedded(person)]);
    request.controller_id = controller.to_owned();
    request.idempotency_key = format!("key-{step}");
    let consent = request.consent.as_mut().unwrap();
    consent.consent_id = format!("consent-{step}");
    if is_child {
        consent.subject_class = proto::SubjectClass::Under14.into();
        consent.reconsent_by = Some(WireTime::from(ends_at));
        consent.guardian = Some(proto::Guardian {
            guardian_ref: "guardian-1".to_owned(),
            relation: "mother".to_owned(),
            evidence_sha256: vec![8; 32],
            minor_rules_version: "2026-01".to_owned(),
        });
    } else {
        consent.expires_at = Some(WireTime::from(ends_at));
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_c3_c4_c5_c7_no_random_history_leads_to_a_match_without_a_live_consent() {
    let mut service = Service::start_in(Place::new()).await;
    let (mut dice, mut model) = (Dice(seed()), Model::default());
    service.apply(&policy(&model)).await;
    let mut notices = Vec::new();
    for (controller, _) in CLASSES {
        notices.push(notice_of(&service.client, controller).await);
    }
    let (mut matches, mut misses, mut gone, mut rests, mut starts) = (0, 0, 0, 0, 1);
    for step in 0..STEPS {
        let person = u64::from(dice.below(u32::try_from(PEOPLE).unwrap()));
        let class = dice.below(3) as usize;
        let subject = format!("resident-{person}");
        match dice.below(20) {
            0..=2 => {
                let short = dice.below(2) == 0;
                let left = if short { 200 + dice.below(SHORT_MS) } else { 86_400_000 };
                let ends_at = Timestamp::now().plus_ms(i64::from(left));
                let about = (step, person, class);
                let request = enrolment(&notices[class], about, ends_at, dice.below(3) == 0);
                let record = service.client.enroll(request).await.unwrap().record_id;
                let held = Held { consent: format!("consent-{step}"), record, ends_at };
                model.held.entry((person, class)).or_default().push(held);
            }
            3 => {
                service
                    .client
                    .revoke(withdrawal(&mut model, &mut dice, person, class))
                    .await
                    .unwrap();
                gone += 1;
            }
            4 => match dice.below(40) {
                0..=4 => {
                    model.swapped = !model.swapped;
                    service.apply(&policy(&model)).await;
                }
                5..=9 => {
                    model.resting = !model.resting;
                    service.apply(&policy(&model)).await;
                }
                10 => {
                    service = Service::start_in(service.stop().await).await;
                    starts += 1;
                }
                _ => {}
            },
            _ => {
                let gate = dice.below(3) as usize;
                let class = model.class_of(gate);
                let before = model.should_match(person, class, Timestamp::now());
                let answer = service.client.verify(verify_face(GATES[gate], person)).await.unwrap();
                let after = model.should_match(person, class, Timestamp::now());
                assert!(!answer.alternatives.is_empty());
                if model.resting && gate == RESTING {
                    assert_eq!(answer.decision(), proto::Decision::FaceDisabled, "step {step}");
                    assert_eq!(answer.r#match, None);
                    rests += 1;
                    continue;
                }
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
                let said = (&*tag.controller_id, &*tag.scope);
                assert_eq!((&*found.subject_ref, said), (&*subject, CLASSES[class]));
                let covered = model.held[&(person, class)]
                    .iter()
                    .any(|held| held.consent == tag.consent_id && held.record == found.record_id);
                assert!(covered, "step {step}: {} is not live", tag.consent_id);
                matches += 1;
            }
        }
    }
    println!(
        "{STEPS} steps: {matches} matches, {misses} without, {gone} withdrawals, {rests} at a \
         resting gate, {starts} starts"
    );
    assert!(matches > 300 && misses > 300 && gone > 50, "all of it was tried");
    service.stop().await;
}

/// Withdraws one consent in one of the ways, or all of the person's with that controller.
fn withdrawal(
    model: &mut Model,
    dice: &mut Dice,
    person: u64,
    class: usize,
) -> proto::RevokeRequest {
    use proto::revoke_request::Target;
    let (controller, _) = CLASSES[class];
    let one = model.held.get_mut(&(person, class)).and_then(Vec::pop);
    let target = match (one, dice.below(3)) {
        (None, _) | (_, 0) => {
            model.held.retain(|(held, of), _| *held != person || CLASSES[*of].0 != controller);
            Target::SubjectRef(format!("resident-{person}"))
        }
        (Some(one), 1) => Target::ConsentId(one.consent),
        (Some(one), _) => Target::RecordId(one.record),
    };
    proto::RevokeRequest { controller_id: controller.to_owned(), target: Some(target) }
}
