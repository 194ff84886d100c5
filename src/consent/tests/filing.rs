//! O1: who has to file, from when, until when, and what undoes it.

use proptest::prelude::*;

use super::*;
use crate::consent::filing::material;

const DAY: i64 = 86_400_000;

fn rules() -> FilingRules {
    FilingRules::of(&cn()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn day(text: &str) -> BeijingDay {
    text.parse().unwrap()
}

fn number(text: &str) -> FilingNumber {
    FilingNumber::parse(text).unwrap()
}

fn doing(what: &str) -> Sha256 {
    Sha256::of(what.as_bytes())
}

fn holding(persons: u64, now: &str) -> Holding {
    Holding { persons, material: doing("a"), now: at(now) }
}

/// What is remembered after looks that find nothing new any more.
fn looked(record: &FilingRecord, holding: Holding) -> FilingRecord {
    let mut record = record.clone();
    for _ in 0..3 {
        let Some((next, _duty)) = record.look(&rules(), holding) else { return record };
        record = next;
    }
    panic!("looks find something for ever: {record:?}");
}

fn state(record: &FilingRecord, persons: u64) -> FilingState {
    record.state(&rules(), persons, &Calendar::shipped())
}

/// Where somebody stands who never filed and holds `persons` on the first of June 2025.
fn fresh(persons: u64) -> FilingState {
    let record = looked(&FilingRecord::default(), holding(persons, "2025-06-01T00:00:00+08:00"));
    state(&record, persons)
}

#[test]
fn o1_99999_persons_are_no_duty_and_100000_are() {
    assert_eq!(fresh(0), FilingState::Quiet);
    assert_eq!(fresh(79_999), FilingState::Quiet);
    assert_eq!(fresh(80_000), FilingState::Warned);
    assert_eq!(fresh(99_999), FilingState::Warned);
    let due = FilingState::Due {
        since: at("2025-06-01T00:00:00+08:00"),
        deadline: Ok(day("2025-07-14")),
    };
    assert_eq!(fresh(100_000), due);
    assert_eq!(fresh(5_000_000), due);
}

#[test]
fn o1_the_last_day_is_over_at_midnight_in_beijing() {
    let due = fresh(100_000);
    assert!(!due.is_overdue(at("2025-07-14T23:59:59+08:00")));
    assert!(due.is_overdue(at("2025-07-15T00:00:00+08:00")));
    assert_eq!(due.alarm_at(), Some(at("2025-07-15T00:00:00+08:00")));
    assert_eq!(FilingState::Filed.alarm_at(), None);
}

#[test]
fn o1_a_duty_that_arose_stays_though_people_leave() {
    let record = looked(&FilingRecord::default(), holding(100_000, "2025-06-01T00:00:00Z"));
    let due = state(&record, 100_000);
    for persons in [99_999, 80_000, 3, 0] {
        let later = looked(&record, holding(persons, "2025-06-20T00:00:00Z"));
        assert_eq!(state(&later, persons), due, "{persons}");
    }
}

#[test]
fn o1_where_the_calendar_ends_the_duty_stands_and_the_alarm_comes_early() {
    let record = looked(&FilingRecord::default(), holding(100_000, "2026-12-01T00:00:00Z"));
    let due = state(&record, 100_000);
    let (_since, deadline) = due.duty().unwrap();
    assert!(deadline.as_ref().unwrap_err().to_string().contains("2025 to 2026"));
    assert_eq!(due.alarm_at(), Some(at("2027-01-01T00:00:00+08:00")));
    assert!(!due.is_overdue(at("2030-01-01T00:00:00Z")), "nothing is claimed that is not known");
}

#[test]
fn o1_filing_then_a_change_then_its_end() {
    let due = looked(&FilingRecord::default(), holding(100_000, "2025-06-01T00:00:00Z"));
    let now = holding(100_000, "2025-07-01T08:00:00+08:00");
    let filed = due.mark(FilingMark::Filed, number("N-1"), day("2025-07-01"), now).unwrap();
    assert_eq!(state(&filed, 100_000), FilingState::Filed);
    let filed = looked(&filed, now);
    assert_eq!((filed.used, filed.changed_since), (true, None), "the same material");
    assert_eq!(state(&filed, 5), FilingState::Filed, "a filing stays in force");

    let since = at("2025-09-29T10:00:00+08:00");
    let other = Holding { persons: 100_000, material: doing("b"), now: since };
    let changed = looked(&filed, other);
    // 30 September, 9 to 11 October (a worked Saturday), and twenty-six weekdays more.
    let deadline = Ok(day("2025-11-17"));
    assert_eq!(state(&changed, 100_000), FilingState::ChangeDue { since, deadline });
    // Back to what was filed: the change was, and has to be told.
    assert_eq!(looked(&changed, now), changed);

    let on = day("2025-10-10");
    let later = Holding { now: at("2025-10-11T00:00:00Z"), ..other };
    let told = changed.mark(FilingMark::Changed, number("N-2"), on, later).unwrap();
    assert_eq!(state(&told, 100_000), FilingState::Filed);
    assert_eq!(told.filed.as_ref().unwrap().number.as_str(), "N-2");

    let nobody = Holding { persons: 0, ..later };
    let told = looked(&told, nobody);
    let deadline = Ok(day("2025-11-21"));
    assert_eq!(state(&told, 0), FilingState::CancelDue { since: later.now, deadline });
    let ended = told.mark(FilingMark::Cancelled, number("N-2"), on, nobody).unwrap();
    assert_eq!(state(&ended, 0), FilingState::Cancelled);
    assert_eq!(state(&ended, 80_000), FilingState::Warned);
    let anew = looked(&ended, Holding { persons: 100_000, ..later });
    assert!(matches!(state(&anew, 100_000), FilingState::Due { .. }), "who begins anew files anew");
    let again = anew.mark(FilingMark::Filed, number("N-3"), day("2025-10-11"), later).unwrap();
    assert_eq!((again.cancelled, again.due_since), (None, Some(later.now)));
}

#[test]
fn o1_what_cannot_have_been_done_is_not_marked() {
    let now = holding(5, "2025-07-01T23:00:00Z");
    let none = FilingRecord::default();
    let mark = |record: &FilingRecord, mark, on: &str| {
        record.mark(mark, number("N"), day(on), now).map_err(|refusal| refusal.to_string())
    };
    // 23:00 in London is the next day in Beijing.
    let filed = mark(&none, FilingMark::Filed, "2025-07-02").unwrap();
    let future = mark(&none, FilingMark::Filed, "2025-07-03").unwrap_err();
    assert!(future.contains("has not come"), "{future}");
    for kind in [FilingMark::Changed, FilingMark::Cancelled] {
        assert!(mark(&none, kind, "2025-07-01").unwrap_err().contains("mark it as filed first"));
        assert!(mark(&filed, kind, "2025-07-01").unwrap_err().contains("is before 2025-07-02"));
    }
    let twice = mark(&filed, FilingMark::Filed, "2025-07-02").unwrap_err();
    assert!(twice.contains("was filed under N on 2025-07-02"), "{twice}");
    let held = mark(&filed, FilingMark::Cancelled, "2025-07-02").unwrap_err();
    assert!(held.contains("still holds 5 persons"), "{held}");
    assert!(mark(&filed, FilingMark::Changed, "2025-07-02").is_ok(), "the control");
}

#[test]
fn o1_an_empty_gallery_is_an_end_only_after_a_beginning_and_until_somebody_comes() {
    let nobody = holding(0, "2025-06-01T00:00:00Z");
    let filed =
        FilingRecord::default().mark(FilingMark::Filed, number("N"), day("2025-06-01"), nobody);
    let filed = looked(&filed.unwrap(), nobody);
    assert_eq!(state(&filed, 0), FilingState::Filed, "filed in advance");
    let used = looked(&filed, holding(1, "2025-06-02T00:00:00Z"));
    let empty = looked(&used, holding(0, "2025-06-03T00:00:00Z"));
    let (since, deadline) = (at("2025-06-03T00:00:00Z"), Ok(day("2025-07-15")));
    assert_eq!(state(&empty, 0), FilingState::CancelDue { since, deadline });
    // Of two duties the one that is due first is shown.
    let also = Holding { material: doing("b"), ..holding(0, "2025-06-05T00:00:00Z") };
    assert_eq!(state(&looked(&empty, also), 0).as_str(), "cancel_due");
    let changed = Holding { persons: 1, ..also };
    let then_empty =
        looked(&looked(&used, changed), Holding { now: at("2025-06-06T00:00:00Z"), ..also });
    assert_eq!(state(&then_empty, 0).as_str(), "change_due");
    let goes_on = looked(&empty, holding(1, "2025-06-04T00:00:00Z"));
    assert_eq!(state(&goes_on, 1), FilingState::Filed);
    let again = looked(&goes_on, holding(0, "2025-09-01T00:00:00Z"));
    assert_eq!(state(&again, 0).duty().unwrap().0, at("2025-09-01T00:00:00Z"), "counted anew");
}

#[test]
fn o1_a_mark_made_by_mistake_is_taken_back_once_with_its_deadline() {
    let due = looked(&FilingRecord::default(), holding(100_000, "2025-06-01T00:00:00Z"));
    let now = holding(100_000, "2025-06-20T00:00:00Z");
    let mark =
        |record: &FilingRecord, mark, name| record.mark(mark, number(name), day("2025-06-20"), now);
    assert_eq!(mark(&due, FilingMark::Mistaken, "N"), Err(MarkRefusal::NoMark));
    let filed = looked(&mark(&due, FilingMark::Filed, "N").unwrap(), now);
    let other = mark(&filed, FilingMark::Mistaken, "M").unwrap_err();
    assert!(other.to_string().contains("name that number"), "{other}");
    let back = mark(&filed, FilingMark::Mistaken, "N").unwrap();
    assert_eq!(back, due);
    assert_eq!(state(&back, 100_000), state(&due, 100_000), "the last day did not move");
    assert_eq!(mark(&back, FilingMark::Mistaken, "N"), Err(MarkRefusal::NoMark), "once");
    // What came to pass under the mark came to pass.
    let few = holding(5, "2025-06-01T00:00:00Z");
    let early = mark(&looked(&FilingRecord::default(), few), FilingMark::Filed, "N").unwrap();
    let reached = looked(&early, holding(100_000, "2025-06-21T00:00:00Z"));
    let left = looked(&reached, holding(5, "2025-07-01T00:00:00Z"));
    let back = mark(&left, FilingMark::Mistaken, "N").unwrap();
    assert_eq!(state(&back, 5).duty().unwrap().0, at("2025-06-21T00:00:00Z"));
    let other = Holding { material: doing("b"), ..now };
    let hidden = looked(&mark(&filed, FilingMark::Changed, "N-2").unwrap(), other);
    let back = mark(&hidden, FilingMark::Mistaken, "N-2").unwrap();
    assert_eq!(back.changed_since, Some(now.now));
    // A change that was marked too early leaves the filing as it was.
    let changed = mark(&filed, FilingMark::Changed, "N-2").unwrap();
    let back = mark(&changed, FilingMark::Mistaken, "N-2").unwrap();
    assert_eq!(back, filed.without_before());
}

#[test]
fn o1_a_number_is_one_line() {
    for bad in ["", "  ", "a\nb", "a\u{0}", &"9".repeat(129)] {
        assert_eq!(FilingNumber::parse(bad), Err(InvalidNumber), "{bad:?}");
    }
    assert_eq!(number(" 浙网信备〔2025〕12号 ").as_str(), "浙网信备〔2025〕12号");
}

#[test]
fn o1_profiles_say_all_about_filing_or_nothing() {
    for name in Profile::names() {
        let profile = Profile::named(name).unwrap();
        let said = [
            profile.filing_threshold.is_some(),
            profile.filing_warn_share.is_some(),
            profile.filing_working_days.is_some(),
        ];
        assert!(said.iter().all(|word| *word == said[0]), "{name}");
        assert!(profile.filing_warn_share.is_none_or(|s| 0.0 < s && s <= 1.0), "{name}");
        assert_eq!(FilingRules::of(&profile).is_some(), name == "cn");
    }
    let five = Profile { filing_threshold: Some(5), ..cn() };
    assert_eq!(FilingRules::of(&five).unwrap().warn_from, 4);
}

#[test]
fn o1_what_is_filed_is_the_controller_its_purposes_and_its_assessments() {
    let digest = |toml: &str| material(&policy_of(toml, cn()).unwrap(), &maple());
    let filed = digest(EXAMPLE);
    assert_eq!(filed, digest(EXAMPLE));
    for (old, new) in [
        ("name = \"Maple Court", "name = \"Oak Court"),
        ("privacy@maple-court.example\"\n", "other@maple-court.example\"\n"),
        ("comparison = \"", "comparison = \"one_to_one\" #"),
        (
            "document_sha256 = \"",
            "document_sha256 = \"00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff\" #",
        ),
    ] {
        assert_ne!(digest(&edited(old, new)), filed, "{old}");
    }
    // How a gate is called, and what a camera sees at least, are not.
    assert_eq!(digest(&edited("duplicates = \"refuse\"", "duplicates = \"flag\"")), filed);
    let label = EXAMPLE.find("\nlabel = ").unwrap();
    let (head, tail) = EXAMPLE.split_at(label + 1);
    let tail = tail.split_once('\n').unwrap().1;
    assert_eq!(digest(&format!("{head}label = \"another\"\n{tail}")), filed);
}

/// What happens to a controller.
#[derive(Debug, Clone)]
enum Event {
    Holds(u64),
    Does(u8),
    Marks(FilingMark),
    Waits(u16),
    Restarts,
}

fn event() -> impl Strategy<Value = Event> {
    let persons =
        prop_oneof![Just(0), Just(79_999), Just(80_000), Just(99_999), 100_000..200_000_u64];
    let mark = prop_oneof![
        3 => Just(FilingMark::Filed),
        2 => Just(FilingMark::Changed),
        2 => Just(FilingMark::Cancelled),
        1 => Just(FilingMark::Mistaken),
    ];
    prop_oneof![
        4 => persons.prop_map(Event::Holds),
        1 => (0..3_u8).prop_map(Event::Does),
        2 => mark.prop_map(Event::Marks),
        2 => (0..60_u16).prop_map(Event::Waits),
        1 => Just(Event::Restarts),
    ]
}

proptest! {
    /// Whatever happens in whatever order: a duty arises when it must, does not go away by itself,
    /// and counts from the instant at which it arose, by a model that knows no record.
    #[test]
    fn o1_no_history_loses_a_duty_or_moves_its_deadline(
        history in proptest::collection::vec(event(), 1..60)
    ) {
        let mut record = FilingRecord::default();
        let mut now = Holding { persons: 0, material: doing("0"), now: at("2025-06-01T00:00:00Z") };
        let mut model = Model::default();
        for event in history {
            match event {
                Event::Holds(persons) => now.persons = persons,
                Event::Does(what) => now.material = doing(&what.to_string()),
                Event::Waits(days) => now.now = now.now.plus_ms(i64::from(days) * DAY),
                Event::Restarts => {
                    let kept = serde_json::to_vec(&record).unwrap();
                    let back: FilingRecord = serde_json::from_slice(&kept).unwrap();
                    prop_assert_eq!(&back, &record);
                    record = back;
                }
                Event::Marks(mark) => {
                    let marked = record.mark(mark, number("N"), BeijingDay::of(now.now), now);
                    prop_assert_eq!(marked.is_ok(), model.mark(mark, now), "{:?}", mark);
                    record = marked.unwrap_or(record);
                }
            }
            record = looked(&record, now);
            model.look(now);
            prop_assert_eq!(record.look(&rules(), now), None, "a second look finds nothing");
            let after = state(&record, now.persons);
            prop_assert!(FilingState::NAMES.contains(&after.as_str()));
            let duty = after.duty().map(|(since, _)| since);
            prop_assert_eq!(duty, model.duty(now.persons), "{:?}", after);
            prop_assert_eq!(record.filed.is_some(), model.standing.filed.is_some());
        }
    }
}

/// What ought to be, from the events alone.
#[derive(Clone, Default)]
struct Standing {
    /// What was filed.
    filed: Option<Sha256>,
    reached: Option<Timestamp>,
    changed: Option<Timestamp>,
    used: bool,
}

#[derive(Default)]
struct Model {
    standing: Standing,
    /// Before the last mark.
    before: Option<Standing>,
    emptied: Option<Timestamp>,
}

impl Model {
    fn mark(&mut self, mark: FilingMark, now: Holding) -> bool {
        let possible = match mark {
            FilingMark::Filed => self.standing.filed.is_none(),
            FilingMark::Changed => self.standing.filed.is_some(),
            FilingMark::Cancelled => self.standing.filed.is_some() && now.persons == 0,
            FilingMark::Mistaken => self.before.is_some(),
        };
        if !possible {
            return false;
        }
        let was = self.standing.clone();
        match mark {
            FilingMark::Filed | FilingMark::Changed => {
                (self.standing.filed, self.standing.changed) = (Some(now.material), None);
                self.standing.used &= mark == FilingMark::Changed;
            }
            FilingMark::Cancelled => {
                self.standing = Standing { used: was.used, ..Standing::default() };
            }
            FilingMark::Mistaken => {
                let before = self.before.take().unwrap();
                // What came to pass under the mark came to pass.
                self.standing.reached = before.reached.or(was.reached);
                let changed = before.changed.or(was.changed);
                self.standing.changed = changed.filter(|_| before.filed.is_some());
                self.standing.used = before.used || was.used;
                self.standing.filed = before.filed;
                return true;
            }
        }
        self.before = Some(was);
        true
    }

    fn look(&mut self, now: Holding) {
        let standing = &mut self.standing;
        if now.persons >= rules().threshold {
            standing.reached.get_or_insert(now.now);
        }
        if standing.filed.is_some_and(|filed| filed != now.material) {
            standing.changed.get_or_insert(now.now);
        }
        standing.used |= now.persons > 0;
        if now.persons > 0 {
            self.emptied = None;
        } else {
            self.emptied.get_or_insert(now.now);
        }
    }

    /// When the duty that is due first arose.
    fn duty(&self, persons: u64) -> Option<Timestamp> {
        let Standing { filed, reached, changed, used } = &self.standing;
        if filed.is_none() {
            return *reached;
        }
        let ended = self.emptied.filter(|_| persons == 0 && *used);
        changed.iter().copied().chain(ended).min()
    }
}
