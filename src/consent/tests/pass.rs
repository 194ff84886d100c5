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

#[test]
fn d7_no_gate_allows_more_failed_attempts_than_profile_and_standard() {
    let lobby = "comparison = \"both\"\n";
    let limit = |lines: &str, profile: &str| {
        let toml = edited(lobby, &format!("{lobby}{lines}"));
        let policy = policy_of(&toml, Profile::named(profile).unwrap())?;
        Ok::<u32, PolicyError>(
            policy.open_gate(&"lobby-1".parse().unwrap()).unwrap().lockout_after(),
        )
    };
    assert_eq!(limit("", "cn"), Ok(50));
    assert_eq!(limit("", "us-il"), Ok(50), "nobody looks for attacks");
    assert_eq!(limit("pad = \"gate\"\n", "us-il"), Ok(100));
    assert_eq!(limit("pad = \"gate\"\n", "cn"), Ok(50));
    assert_eq!(limit("lockout_after = 3\n", "cn"), Ok(3));
    for lax in ["lockout_after = 0\n", "lockout_after = 51\n"] {
        assert!(limit(lax, "us-il").unwrap_err().to_string().contains("lockout_after"), "{lax}");
    }
}

#[test]
fn g1_a_face_waits_for_an_alternative_only_where_the_policy_says_so() {
    let card = "method = \"card\"\n";
    let north = "comparison = \"one_to_many\"\n";
    let watched = edited(card, "method = \"card\"\nheartbeat_s = 60\n");
    let strict = watched.replacen(north, &format!("{north}require_alternative = true\n"), 1);
    let all_down = Down::default().with(0);
    for (toml, waits) in [(watched, false), (strict, true)] {
        let pass = policy_of(&toml, cn()).unwrap().open_gate(&"north-gate-1".parse().unwrap());
        let pass = pass.unwrap();
        assert!(pass.is_watched());
        assert_eq!(pass.check_alternatives(Down::default()), Ok(()));
        assert_eq!(pass.check_alternatives(all_down).is_err(), waits);
    }
    let unwatched = edited(north, &format!("{north}require_alternative = true\n"));
    assert!(policy_of(&unwatched, cn()).is_err());
}

#[test]
fn alternatives_of_one_kind_are_told_apart_by_number() {
    let way = |method| Alternative {
        method,
        hint: "there".parse().unwrap(),
        accessible: true,
        heartbeat_s: None,
    };
    let (card, staff) = (AlternativeMethod::Card, AlternativeMethod::Staff);
    let ways = Alternatives::new([card, staff, card].map(way).into()).unwrap();
    let names: Vec<String> = (0..4).map(|place| ways.name(place)).collect();
    assert_eq!(names, ["card", "staff", "card-2", ""]);
    assert_eq!(ways.place(card, 1), Some(2));
    assert_eq!((ways.place(card, 2), ways.place(staff, 1)), (None, None));
}
