//! Policy documents: what is refused, and where the refusal points (C6, G1, G3, G5, D1).

use super::*;

#[track_caller]
fn refusal(toml: &str) -> PolicyError {
    policy_of(toml, cn()).unwrap_err()
}

/// The line of the first `needle` in `toml`, from 1.
fn line_of(toml: &str, needle: &str) -> usize {
    toml[..toml.find(needle).unwrap()].lines().count() + 1
}

/// `EXAMPLE` without the first assignment of `field` after `table`, multi-line strings included.
fn without(table: &str, field: &str) -> String {
    let section = EXAMPLE.find(table).unwrap();
    let start = section + EXAMPLE[section..].find(&format!("\n{field} =")).unwrap() + 1;
    let line = EXAMPLE[start..].lines().next().unwrap();
    let length = if line.ends_with("\"\"\"") {
        let open = start + line.len();
        line.len() + EXAMPLE[open..].find("\"\"\"\n").unwrap() + 4
    } else {
        line.len() + 1
    };
    format!("{}{}", &EXAMPLE[..start], &EXAMPLE[start + length..])
}

#[test]
fn the_example_is_applied_under_every_profile() {
    for name in Profile::names() {
        let policy = policy_of(EXAMPLE, Profile::named(name).unwrap()).unwrap();
        assert_eq!(policy.gates().count(), 2);
    }
}

#[test]
fn c6_each_missing_part_of_a_notice_is_named_and_refused() {
    for field in ["controller", "id", "version", "effective_from", "purposes"] {
        let toml = without("[[notices]]", field);
        let refusal = refusal(&toml);
        let PolicyError::Object { line, table, field: at, fault, .. } = refusal else {
            panic!("{refusal}")
        };
        assert_eq!((table, at.as_str(), fault), ("notices", field, PolicyFault::Missing));
        assert_eq!(line, line_of(&toml, "[[notices]]"));
    }
    for field in [
        "language",
        "controller_contact",
        "purpose_and_method",
        "retention",
        "necessity_and_impact",
        "rights",
    ] {
        let toml = without("[[notices.texts]]", field);
        let refusal = refusal(&toml);
        let PolicyError::Object { line, id, field: at, fault, .. } = refusal else {
            panic!("{refusal}")
        };
        assert_eq!((at, fault), (format!("texts[0].{field}"), PolicyFault::Missing));
        assert_eq!((line, id.as_str()), (line_of(&toml, "[[notices.texts]]"), "face-entry"));
    }
}

#[test]
fn c6_a_blank_part_of_a_notice_is_refused() {
    let refusal = refusal(&edited("language = \"en\"", "language = \" \""));
    let line = line_of(EXAMPLE, "language = \"en\"");
    let said = format!("line {line}: notices \"face-entry\": texts[1].language: text is missing");
    assert_eq!(refusal.to_string(), said);
}

#[test]
fn g1_a_gate_without_an_alternative_is_refused() {
    let gate = EXAMPLE.find("[[gates]]").unwrap();
    let end = gate + EXAMPLE[gate..].find("[[gates.alternatives]]").unwrap();
    for toml in [EXAMPLE[..end].to_owned(), format!("{}alternatives = []\n", &EXAMPLE[..end])] {
        let refusal = refusal(&toml);
        assert_eq!(refusal.kind(), RefusalKind::State);
        let said = refusal.to_string();
        assert!(
            said.contains("\"north-gate-1\": alternatives: a gate needs at least one"),
            "{said}"
        );
    }
}

#[test]
fn g3_private_rooms_are_always_refused() {
    for name in Profile::names() {
        for place in PlaceType::ALL {
            let word = serde_json::to_string(&place).unwrap();
            let toml = edited("\"entrance\"", &word);
            let applied = policy_of(&toml, Profile::named(name).unwrap());
            match place.rule() {
                PlaceRule::Ordinary => assert!(applied.is_ok(), "{word}"),
                PlaceRule::Public => {
                    let free = !["cn", "eu"].contains(&name);
                    assert_eq!(applied.is_ok(), free, "{name}: {word}");
                }
                PlaceRule::Never => {
                    let refusal = applied.unwrap_err();
                    assert_eq!(refusal.kind(), RefusalKind::State, "{word}");
                    assert_eq!(refusal.line(), line_of(&toml, "place_type"));
                }
            }
        }
    }
    for room in [
        PlaceType::Unspecified,
        PlaceType::HotelRoom,
        PlaceType::Bathroom,
        PlaceType::ChangingRoom,
        PlaceType::Toilet,
    ] {
        assert_eq!(room.rule(), PlaceRule::Never);
    }
}

#[test]
fn g3_a_gate_that_does_not_say_where_it_stands_is_refused() {
    let refusal = refusal(&edited("place_type = \"entrance\"\n", ""));
    assert!(refusal.to_string().contains("place_type: is missing"), "{refusal}");
}

#[test]
fn g4_public_places_need_their_purpose_and_their_conditions() {
    const CONDITIONS: &str = "place_type = \"public_entrance\"\npublic_place = \
        { signage = \"S-1\", capture_area = \"2 m before the gate\", necessity = \"crowds\" }";
    let public = |place: &str, purpose: &str| {
        edited("place_type = \"entrance\"", place)
            .replacen("comparison = \"one_to_many\"", "comparison = \"both\"", 1)
            .replace("\"resident-entry\"", &format!("\"{purpose}\""))
    };
    let bare = "place_type = \"public_entrance\"";
    for (toml, field) in [
        (public(CONDITIONS, "public-safety"), None),
        (public(bare, "public-safety"), Some("public_place")),
        (public(CONDITIONS, "resident-entry"), Some("purposes")),
        (public(bare, "resident-entry"), Some("purposes")),
        (
            public(&CONDITIONS.replace("signage = \"S-1\",", ""), "public-safety"),
            Some("public_place"),
        ),
        (
            public(&CONDITIONS.replace("\"2 m before the gate\"", "\" \""), "public-safety"),
            Some("public_place"),
        ),
        (
            public(&CONDITIONS.replace(", necessity = \"crowds\"", ""), "public-safety"),
            Some("public_place"),
        ),
    ] {
        let applied = policy_of(&toml, cn());
        match field {
            None => assert!(applied.is_ok(), "{applied:?}"),
            Some(field) => {
                let refusal = applied.unwrap_err().to_string();
                assert!(refusal.contains(&format!("\"north-gate-1\": {field}: ")), "{refusal}");
            }
        }
        // Nothing helps where the law leaves public places to the police.
        let eu = policy_of(&toml, Profile::named("eu").unwrap());
        assert!(eu.is_err(), "{toml}");
    }
}

#[test]
fn g7_a_gate_that_does_not_say_compares_as_the_profile_says() {
    let silent = edited("comparison = \"one_to_many\"\n", "");
    let eu = policy_of(&silent, Profile::named("eu").unwrap()).unwrap();
    let gate = eu.open_gate(&"north-gate-1".parse().unwrap()).unwrap();
    assert!(gate.compares(Comparison::OneToOne) && !gate.compares(Comparison::OneToMany));
    let refusal = refusal(&silent);
    assert!(refusal.to_string().contains("comparison: is missing"), "{refusal}");
}

#[test]
fn o2_each_missing_part_of_an_assessment_is_named_and_refused() {
    for field in [
        "controller",
        "version",
        "assessed_at",
        "purposes",
        "model",
        "document_sha256",
        "lawfulness",
        "impact",
        "risks",
        "safeguards",
    ] {
        let refusal = refusal(&without("[[assessments]]", field)).to_string();
        assert!(refusal.contains(&format!(": {field}: is missing")), "{field}: {refusal}");
    }
}

#[test]
fn every_kind_of_place_is_in_the_list_once() {
    for (i, place) in PlaceType::ALL.into_iter().enumerate() {
        assert_eq!(place as usize, i);
    }
}

#[test]
fn g5_the_profile_demands_an_accessible_alternative() {
    let toml = edited("accessible = true\n", "");
    let refusal = refusal(&toml);
    assert_eq!(refusal.kind(), RefusalKind::State);
    assert_eq!(refusal.line(), line_of(&toml, "[[gates.alternatives]]"));
    assert!(policy_of(&toml, Profile::named("open").unwrap()).is_ok());
}

#[test]
fn d1_the_free_strings_of_gates_refuse_personal_identifiers() {
    for old in ["North gate, pedestrian door", "\"north-gate\"", "门禁卡：贴近读卡器"] {
        let new = if old.starts_with('"') { "\"13812345678\"" } else { "call 13812345678" };
        let refusal = refusal(&edited(old, new)).to_string();
        assert!(refusal.contains("looks like a mobile telephone number"), "{refusal}");
    }
}

#[test]
fn a_misspelt_field_is_refused_wherever_it_stands() {
    for (old, new, said) in [
        ("contact =", "kontact = 1\ncontact =", "controllers \"maple-property\": kontact"),
        ("version =", "verzion = 1\nversion =", "notices \"face-entry\": verzion"),
        ("language =", "lnguage = 1\nlanguage =", "notices \"face-entry\": texts[0].lnguage"),
        ("label =", "labl = 1\nlabel =", "gates \"north-gate-1\": labl"),
        ("method =", "metod = 1\nmethod =", "gates \"north-gate-1\": alternatives[0].metod"),
    ] {
        let toml = edited(&format!("\n{old}"), &format!("\n{new}"));
        let wrong = new.split(' ').next().unwrap();
        let line = line_of(&toml, wrong);
        let said = format!("line {line}: {said}: is not a field here");
        assert_eq!(refusal(&toml).to_string(), said);
    }
    let refusal = refusal(&edited("[[controllers]]", "[[doors]]\n[[controllers]]"));
    assert!(refusal.to_string().contains("\"doors\" is none of"), "{refusal}");
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    for (old, new, said) in [
        ("comparison = \"one_to_many\"", "comparison = \"all\"", "comparison: unknown variant"),
        ("fpir = 0.01", "fpir = 1.5", "fpir: is not an error rate"),
        ("fpir = 0.01", "margin = 0.0", "margin: is not a margin"),
        ("fpir = 0.01", "margin = 1.5", "margin: is not a margin"),
        ("fpir = 0.01", "outgrown = \"ignore\"", "outgrown: unknown variant"),
        ("fpir = 0.01", "min_eye_distance_px = -1", "min_eye_distance_px: invalid value"),
        ("scopes = [\"north-gate\"]", "scopes = []", "scopes: needs at least one entry"),
        ("scopes = [\"north-gate\"]", "scopes = \"x\"", "scopes: invalid type"),
        (
            "effective_from = 2026-01-01T00:00:00+08:00",
            "effective_from = 2026-01-01",
            "effective_from: not an RFC 3339 time",
        ),
        ("duplicates = \"refuse\"", "duplicates = 3", "duplicates:"),
    ] {
        let toml = edited(old, new);
        let refusal = refusal(&toml);
        assert!(refusal.to_string().contains(said), "{refusal}");
        assert_eq!(refusal.line(), line_of(&toml, new), "{refusal}");
        assert_eq!(refusal.kind(), RefusalKind::Field);
    }
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let refusal = refusal("\n\n[[controllers]\n");
    assert!(matches!(refusal, PolicyError::Syntax { line: 3, .. }), "{refusal:?}");
    for table in ["controllers = 3", "gates = [1]", "notices = {}"] {
        assert!(PolicyDocument::parse(table).is_err(), "{table}");
    }
}

#[test]
fn an_object_that_appears_twice_is_refused() {
    let refusal = refusal(&edited("\"lobby-1\"", "\"north-gate-1\""));
    assert!(refusal.to_string().contains("appears twice"), "{refusal}");
}

#[test]
fn lists_are_bounded() {
    let scopes: Vec<String> = (0..65).map(|i| format!("\"s{i}\"")).collect();
    let refusal = refusal(&edited("\"north-gate\"", &scopes.join(",")));
    assert!(refusal.to_string().contains("has more than 64 entries"), "{refusal}");
}
