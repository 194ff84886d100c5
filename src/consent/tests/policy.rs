//! Applying documents: differences, idempotence, immutable notices, random histories.

use proptest::prelude::*;

use super::*;

fn apply(policy: &Policy, toml: &str) -> Result<(Policy, Vec<Change>), PolicyError> {
    policy.apply(&PolicyDocument::parse(toml)?)
}

fn kinds(changes: &[Change]) -> Vec<ChangeKind> {
    changes.iter().map(|change| change.kind).collect()
}

#[test]
fn changes_come_in_the_document_s_order_and_name_each_object() {
    let (_, changes) = apply(&Policy::under(cn()), EXAMPLE).unwrap();
    let named: Vec<_> = changes.iter().map(|c| (c.object.as_str(), c.id.as_str())).collect();
    let expected = [
        ("controller", "maple-property"),
        ("notice", "maple-property/face-entry@2026-01"),
        ("assessment", "maple-property@2026-01"),
        ("gate", "north-gate-1"),
        ("gate", "lobby-1"),
    ];
    assert_eq!(named, expected);
    assert_eq!(kinds(&changes), [ChangeKind::Added; 5]);
}

#[test]
fn applying_the_same_document_again_changes_nothing() {
    let (again, changes) = apply(&example(), EXAMPLE).unwrap();
    assert_eq!(kinds(&changes), [ChangeKind::Unchanged; 5]);
    assert_eq!(again.to_toml(), example().to_toml());
}

#[test]
fn a_file_saved_with_other_line_breaks_changes_nothing() {
    let (_, changes) = apply(&example(), &EXAMPLE.replace('\n', "\r\n")).unwrap();
    assert_eq!(kinds(&changes), [ChangeKind::Unchanged; 5]);
}

#[test]
fn a_change_says_what_was_and_what_will_be() {
    let toml = edited("fpir = 0.01", "fpir = 0.001").replacen("duplicates = \"refuse\"\n", "", 1);
    let (_, changes) = apply(&example(), &toml).unwrap();
    assert_eq!(changes[0].fields, ["duplicates: \"refuse\" -> unset"]);
    assert_eq!(changes[3].fields, ["fpir: 0.01 -> 0.001"]);
}

#[test]
fn objects_that_a_document_does_not_name_stay() {
    let only = "[[controllers]]\nid = 'oak'\nname = 'Oak'\ncontact = 'desk'\n";
    let (policy, _) = apply(&example(), only).unwrap();
    assert!(policy.controller(&maple()).is_some());
    assert_eq!(policy.gates().count(), 2);
}

#[test]
fn the_applied_policy_is_written_as_a_document_that_applies_unchanged() {
    let (policy, _) = apply(&example(), &newer_notice("2026-06-01T00:00:00Z")).unwrap();
    let written = policy.to_toml();
    let (again, changes) = apply(&policy, &written).unwrap();
    assert!(changes.iter().all(|c| c.kind == ChangeKind::Unchanged), "{changes:?}");
    assert_eq!(again.to_toml(), written);
    assert_eq!(policy_of(&written, cn()).unwrap().to_toml(), written);
}

#[test]
fn an_empty_policy_is_written_and_read() {
    let written = Policy::under(cn()).to_toml();
    assert_eq!(policy_of(&written, cn()).unwrap().to_toml(), written);
}

#[test]
fn c6_an_applied_notice_never_changes() {
    for (old, new) in [
        ("effective_from = 2026-01-01", "effective_from = 2026-01-02"),
        ("within 60 seconds", "within 61 seconds"),
        ("purposes = [\"resident-entry\"]", "purposes = [\"resident-entry\", \"attendance\"]"),
    ] {
        let refusal = apply(&example(), &edited(old, new)).unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::State);
        assert!(refusal.to_string().contains("publish a new version"), "{refusal}");
    }
}

#[test]
fn o2_an_applied_assessment_never_changes() {
    for (old, new) in [
        ("assessed_at = 2026-01-01", "assessed_at = 2026-01-02"),
        ("cannot be changed like a code", "can be changed like a code"),
    ] {
        let refusal = apply(&example(), &edited(old, new)).unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::State);
        assert!(refusal.to_string().contains("conclude a new version"), "{refusal}");
    }
}

#[test]
fn c6_the_current_notice_is_the_latest_that_is_effective() {
    let (policy, _) = apply(&example(), &newer_notice("2026-06-01T00:00:00Z")).unwrap();
    let current = |at: &str| {
        let notice = policy.current_notice(&maple(), &face_entry(), at.parse().unwrap());
        notice.map(|notice| notice.version.to_string())
    };
    assert_eq!(current("2025-12-31T15:59:59Z"), None);
    assert_eq!(current("2025-12-31T16:00:00Z").as_deref(), Some("2026-01"));
    assert_eq!(current("2026-05-31T23:59:59Z").as_deref(), Some("2026-01"));
    assert_eq!(current("2026-06-01T00:00:00Z").as_deref(), Some("2026-02"));
}

#[test]
fn c6_no_two_versions_of_a_notice_become_effective_at_once() {
    let refusal = apply(&example(), &newer_notice("2025-12-31T16:00:00Z")).unwrap_err();
    assert!(refusal.to_string().contains("at the same instant"), "{refusal}");
}

#[test]
fn a_document_is_refused_as_a_whole() {
    let before = example();
    let toml = edited("front desk", "new desk").replace("2026-01-01T", "2026-01-02T");
    assert!(apply(&before, &toml).is_err());
    assert_eq!(before.to_toml(), example().to_toml());
}

#[test]
fn notices_and_gates_need_an_applied_controller() {
    let start = EXAMPLE.find("[[notices]]").unwrap();
    let orphan = &EXAMPLE[start..];
    let refusal = apply(&Policy::under(cn()), orphan).unwrap_err();
    assert!(refusal.to_string().contains("controller: there is no such controller"), "{refusal}");
    assert!(apply(&example(), orphan).is_ok());
}

/// What a random gate is made of; small alphabets, so that gates meet and are refused.
#[derive(Debug, Clone)]
struct RandomGate {
    id: u8,
    place: usize,
    purposes: Vec<u8>,
    scopes: Vec<u8>,
    accessible: Vec<bool>,
    fmr: f64,
}

impl RandomGate {
    fn toml(&self) -> String {
        let list = |prefix: &str, items: &[u8]| {
            let items: Vec<_> = items.iter().map(|i| format!("'{prefix}{i}'")).collect();
            items.join(", ")
        };
        let ways = self.accessible.iter().map(|accessible| {
            format!("{{ method = 'card', hint = 'card', accessible = {accessible} }}")
        });
        format!(
            "[[gates]]\nid = 'g{}'\ncontroller = 'maple'\nlabel = 'gate'\nplace_type = {}\n\
             purposes = [{}]\nscopes = [{}]\ncomparison = 'both'\nfmr = {}\nalternatives = [{}]\n",
            self.id,
            serde_json::to_string(&PlaceType::ALL[self.place]).unwrap(),
            list("p", &self.purposes),
            list("s", &self.scopes),
            self.fmr,
            ways.collect::<Vec<_>>().join(", "),
        )
    }
}

prop_compose! {
    fn random_gate()(
        id in 0_u8..6,
        place in 0..PlaceType::ALL.len(),
        purposes in prop::collection::vec(0_u8..4, 0..4),
        scopes in prop::collection::vec(0_u8..4, 0..4),
        accessible in prop::collection::vec(any::<bool>(), 0..3),
        fmr in 1e-9..1.1_f64,
    ) -> RandomGate {
        RandomGate { id, place, purposes, scopes, accessible, fmr }
    }
}

/// Documents of one gate each, so that one refusal does not hide the others.
fn documents(gates: &[RandomGate]) -> Vec<String> {
    let controller = "[[controllers]]\nid = 'maple'\nname = 'Maple'\ncontact = 'desk'\n";
    gates.iter().map(|gate| format!("{controller}{}", gate.toml())).collect()
}

proptest! {
    #[test]
    fn applying_is_idempotent_and_survives_being_written(
        gates in prop::collection::vec(random_gate(), 0..8),
    ) {
        let mut policy = Policy::under(cn());
        for toml in documents(&gates) {
            let Ok((next, _)) = apply(&policy, &toml) else { continue };
            let (again, changes) = apply(&next, &toml).unwrap();
            prop_assert!(changes.iter().all(|c| c.kind == ChangeKind::Unchanged));
            prop_assert_eq!(again.to_toml(), next.to_toml());
            prop_assert_eq!(policy_of(&next.to_toml(), cn()).unwrap().to_toml(), next.to_toml());
            policy = next;
        }
    }

    #[test]
    fn g1_no_document_yields_a_gate_without_alternatives(
        gates in prop::collection::vec(random_gate(), 0..8),
    ) {
        let mut policy = Policy::under(cn());
        for toml in documents(&gates) {
            policy = apply(&policy, &toml).map_or(policy, |(next, _)| next);
        }
        for pass in policy.gates() {
            prop_assert!(!pass.alternatives().is_empty());
            prop_assert!(pass.gate().alternatives.any_accessible());
            prop_assert_eq!(pass.gate().place_type.rule(), PlaceRule::Ordinary);
        }
    }

    #[test]
    fn c3_a_grant_names_the_classes_that_the_gate_s_policy_lists_and_no_other(
        gates in prop::collection::vec(random_gate(), 0..8),
    ) {
        let mut policy = Policy::under(cn());
        for toml in documents(&gates) {
            policy = apply(&policy, &toml).map_or(policy, |(next, _)| next);
        }
        for pass in policy.gates() {
            let gate = pass.gate();
            for class in pass.grant().classes() {
                prop_assert_eq!(&class.controller, &gate.controller);
                prop_assert!(gate.purposes.contains(&class.purpose));
                prop_assert!(gate.scopes.contains(&class.scope));
                prop_assert!(pass.grant().covers(class));
            }
            for (purpose, scope) in
                gate.purposes.iter().flat_map(|p| gate.scopes.iter().map(move |s| (p, s)))
            {
                let class = ClassKey {
                    controller: gate.controller.clone(),
                    purpose: purpose.clone(),
                    scope: scope.clone(),
                };
                prop_assert!(pass.grant().covers(&class));
            }
        }
    }
}
