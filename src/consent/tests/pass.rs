//! Gate passes: grants, intents and comparisons (C3, G6, G7).

use super::*;
use crate::types::GateId;

fn pass(gate: &str) -> GatePass {
    example().open_gate(&GateId::parse(gate).unwrap()).unwrap()
}

#[test]
fn a_pass_says_what_the_policy_says() {
    let lobby = pass("lobby-1");
    assert_eq!(lobby.gate().fmr, ErrorRate::DEFAULT_FMR);
    assert_eq!(lobby.gate().fpir, ErrorRate::DEFAULT_FPIR);
    assert_eq!(lobby.gate().min_eye_distance_px, DEFAULT_MIN_EYE_DISTANCE_PX);
    assert!(lobby.gate().single_face);
    assert!(!lobby.gate().expose_similarity);
    assert_eq!(lobby.alternatives().len(), 3);
    assert_eq!(lobby.grant().classes().len(), 1);
}

#[test]
fn an_unknown_gate_has_no_pass() {
    let refusal = example().open_gate(&GateId::parse("west-gate").unwrap()).unwrap_err();
    assert_eq!(refusal, GateRefusal::UnknownGate);
}

#[test]
fn c3_a_gate_s_grant_does_not_cover_another_scope() {
    let admitted = admit(draft()).unwrap();
    assert!(pass("north-gate-1").grant().covers(&admitted.consent().class()));
    assert!(!pass("lobby-1").grant().covers(&admitted.consent().class()));
}

#[test]
fn g6_the_profile_demands_an_intent() {
    let gate = pass("north-gate-1");
    assert_eq!(gate.check_intent(None), Err(GateRefusal::IntentMissing));
    assert_eq!(gate.check_intent(Some(Intent::Button)), Ok(()));
    let open = policy_of(EXAMPLE, Profile::named("open").unwrap()).unwrap();
    let gate = open.open_gate(&GateId::parse("north-gate-1").unwrap()).unwrap();
    assert_eq!(gate.check_intent(None), Ok(()));
}

#[test]
fn g7_a_gate_compares_only_as_its_policy_allows() {
    use Comparison::{OneToMany, OneToOne};
    for (allowed, one_to_one, one_to_many) in [
        (AllowedComparison::OneToOne, true, false),
        (AllowedComparison::OneToMany, false, true),
        (AllowedComparison::Both, true, true),
    ] {
        assert_eq!(allowed.allows(OneToOne), one_to_one);
        assert_eq!(allowed.allows(OneToMany), one_to_many);
    }
    let refusal = pass("north-gate-1").check_comparison(OneToOne);
    assert_eq!(refusal, Err(GateRefusal::Comparison(OneToOne)));
    assert_eq!(pass("lobby-1").check_comparison(OneToOne), Ok(()));
}

#[test]
fn a_pass_that_is_held_outlives_a_change_of_policy_unchanged() {
    let policy = example();
    let held = pass("north-gate-1");
    let toml = edited("scopes = [\"north-gate\"]", "scopes = [\"garage\"]");
    let (next, _) = policy.apply(&PolicyDocument::parse(&toml).unwrap()).unwrap();
    let fresh = next.open_gate(&held.gate().id).unwrap();
    assert_eq!(held.grant().classes()[0].scope.as_str(), "north-gate");
    assert!(!fresh.grant().covers(&held.grant().classes()[0]));
}
