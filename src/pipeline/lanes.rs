//! Who comes next among the frames that wait.
//!
//! ```text
//! Gate       feed a: f f      feeds take turns, so that a camera that sends much
//!            feed b: f        waits behind itself and not in front of others
//! Enrolment  feed c: f f f
//! Bulk       feed d: f f f f f f f
//! ```
//!
//! # Invariants
//! - A ring lists exactly the feeds that have something waiting, each once.
//! - A less urgent frame goes before a more urgent one only after [`PATIENCE`] of those went
//!   before it.

use std::collections::{HashMap, VecDeque};

/// How soon an answer is wanted; the most urgent first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Somebody stands at a gate.
    #[default]
    Gate,
    /// Somebody is being enrolled.
    Enrolment,
    /// Many are being enrolled; nobody waits for the single one.
    Bulk,
}

const URGENCIES: usize = 3;

/// How many more urgent frames go before one that waits.
const PATIENCE: usize = 16;

/// Frames (or anything else) that wait, by urgency and feed.
pub(super) struct Lanes<T> {
    rings: [Ring<T>; URGENCIES],
    /// How often each ring was passed over while something waited in it.
    passed_over: [usize; URGENCIES],
}

/// The feeds of one urgency.
struct Ring<T> {
    /// Whose turn it is: the front's.
    turns: VecDeque<u64>,
    /// Never an empty lane.
    lanes: HashMap<u64, VecDeque<T>>,
    len: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), lanes: HashMap::new(), len: 0 }
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { rings: Default::default(), passed_over: [0; URGENCIES] }
    }
}

impl<T> Lanes<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.rings.iter().map(|ring| ring.len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait that nobody stands at a gate for.
    pub(super) fn unhurried(&self) -> usize {
        self.rings[Urgency::Enrolment as usize..].iter().map(|ring| ring.len).sum()
    }

    /// How many would go before one more of `feed`, by the turns that feeds take.
    pub(super) fn ahead_of(&self, urgency: Urgency, feed: u64) -> usize {
        let (more_urgent, rest) = self.rings.split_at(urgency as usize);
        let ring = &rest[0];
        let own = ring.lanes.get(&feed).map_or(0, VecDeque::len);
        let others = ring.lanes.values().map(|lane| lane.len().min(own + 1));
        more_urgent.iter().map(|ring| ring.len).chain(others).sum()
    }

    /// The last one of `feed` that waits.
    pub(super) fn last_of(&mut self, urgency: Urgency, feed: u64) -> Option<&mut T> {
        self.rings[urgency as usize].lanes.get_mut(&feed)?.back_mut()
    }

    pub(super) fn push(&mut self, urgency: Urgency, feed: u64, item: T) {
        let ring = &mut self.rings[urgency as usize];
        let lane = ring.lanes.entry(feed).or_default();
        if lane.is_empty() {
            ring.turns.push_back(feed);
        }
        lane.push_back(item);
        ring.len += 1;
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<T> {
        let waits = |at: &usize| self.rings[*at].len > 0;
        let out_of_patience = |at: &usize| waits(at) && self.passed_over[*at] >= PATIENCE;
        let first = (0..URGENCIES).find(waits)?;
        let chosen = (first + 1..URGENCIES).rfind(out_of_patience).unwrap_or(first);
        for at in chosen + 1..URGENCIES {
            self.passed_over[at] += usize::from(self.rings[at].len > 0);
        }
        self.passed_over[chosen] = 0;
        self.rings[chosen].pop()
    }

    /// Takes out the last one of whoever has most waiting, if that is fair to it: it is less urgent
    /// than `urgency`, or its feed would still have as many waiting as `feed` with one more.
    pub(super) fn make_room(&mut self, urgency: Urgency, feed: u64) -> Option<T> {
        let less_urgent = (urgency as usize + 1..URGENCIES).rev();
        for at in less_urgent {
            if let Some((longest, _)) = self.rings[at].longest() {
                return self.rings[at].take_last(longest);
            }
        }
        let ring = &mut self.rings[urgency as usize];
        let own = ring.lanes.get(&feed).map_or(0, VecDeque::len);
        let (longest, len) = ring.longest()?;
        if len > own + 1 { ring.take_last(longest) } else { None }
    }

    /// Takes out all that are not to be kept; the order of the others stays.
    pub(super) fn sift(&mut self, mut keep: impl FnMut(&T) -> bool, mut out: impl FnMut(T)) {
        for ring in &mut self.rings {
            ring.sift(&mut keep, &mut out);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<T> Ring<T> {
    fn pop(&mut self) -> Option<T> {
        let feed = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&feed)?;
        let item = lane.pop_front()?;
        self.len -= 1;
        if lane.is_empty() {
            self.lanes.remove(&feed);
        } else {
            self.turns.push_back(feed);
        }
        Some(item)
    }

    /// The feed with most waiting, and how many.
    fn longest(&self) -> Option<(u64, usize)> {
        let lanes = self.lanes.iter().map(|(feed, lane)| (*feed, lane.len()));
        lanes.max_by_key(|(_, len)| *len)
    }

    fn take_last(&mut self, feed: u64) -> Option<T> {
        let lane = self.lanes.get_mut(&feed)?;
        let item = lane.pop_back()?;
        self.len -= 1;
        if lane.is_empty() {
            self.forget(feed);
        }
        Some(item)
    }

    fn forget(&mut self, feed: u64) {
        self.lanes.remove(&feed);
        self.turns.retain(|turn| *turn != feed);
    }

    /// Each lane is turned round once, which keeps its order and allocates only for feeds that end.
    fn sift(&mut self, keep: &mut impl FnMut(&T) -> bool, out: &mut impl FnMut(T)) {
        let mut ended = Vec::new();
        for (feed, lane) in &mut self.lanes {
            for _ in 0..lane.len() {
                let Some(item) = lane.pop_front() else { break };
                if keep(&item) {
                    lane.push_back(item);
                } else {
                    self.len -= 1;
                    out(item);
                }
            }
            if lane.is_empty() {
                ended.push(*feed);
            }
        }
        for feed in ended {
            self.forget(feed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(lanes: &mut Lanes<u32>) -> Vec<u32> {
        std::iter::from_fn(|| lanes.pop()).collect()
    }

    #[test]
    fn feeds_take_turns() {
        let mut lanes = Lanes::default();
        for (feed, item) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30)] {
            lanes.push(Urgency::Gate, feed, item);
        }
        assert_eq!(lanes.ahead_of(Urgency::Gate, 4), 3);
        assert_eq!(lanes.ahead_of(Urgency::Gate, 1), 5);
        assert_eq!(drain(&mut lanes), [10, 20, 30, 11, 12]);
    }

    #[test]
    fn the_urgent_go_first_and_the_others_are_not_forgotten() {
        let mut lanes = Lanes::default();
        for item in 0..40 {
            lanes.push(Urgency::Gate, 1, item);
        }
        lanes.push(Urgency::Bulk, 2, 100);
        lanes.push(Urgency::Bulk, 2, 101);
        let order = drain(&mut lanes);
        let at = |item| order.iter().position(|found| *found == item).unwrap();
        assert_eq!((at(100), at(101)), (PATIENCE, 2 * PATIENCE + 1));
    }

    #[test]
    fn room_is_made_by_the_least_urgent_then_by_the_longest() {
        let mut lanes = Lanes::default();
        lanes.push(Urgency::Bulk, 9, 90);
        for item in 10..14 {
            lanes.push(Urgency::Gate, 1, item);
        }
        assert_eq!(lanes.make_room(Urgency::Gate, 2), Some(90));
        assert_eq!(lanes.make_room(Urgency::Gate, 2), Some(13));
        assert_eq!(lanes.make_room(Urgency::Gate, 1), None, "its own frames make no room");
        assert_eq!(lanes.make_room(Urgency::Bulk, 9), None, "the urgent are not sent away");
        assert_eq!(drain(&mut lanes), [10, 11, 12]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize, u64),
        Pop,
        MakeRoom(usize, u64),
        Sift(u32),
    }

    const ALL: [Urgency; URGENCIES] = [Urgency::Gate, Urgency::Enrolment, Urgency::Bulk];

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..URGENCIES, 0_u64..4).prop_map(|(urgency, feed)| Step::Push(urgency, feed)),
            3 => Just(Step::Pop),
            1 => (0..URGENCIES, 0_u64..4).prop_map(|(urgency, feed)| Step::MakeRoom(urgency, feed)),
            1 => (2_u32..5).prop_map(Step::Sift),
        ]
    }

    proptest! {
        /// Nothing is lost, nothing comes twice, and each feed's order stays.
        #[test]
        fn all_that_goes_in_comes_out_once_and_in_order(steps in prop::collection::vec(step(), 1..200)) {
            let mut lanes = Lanes::default();
            let (mut next, mut inside, mut taken) = (0, 0, Vec::new());
            for step in steps {
                match step {
                    Step::Push(urgency, feed) => {
                        lanes.push(ALL[urgency], feed, (urgency, feed, next));
                        (next, inside) = (next + 1, inside + 1);
                    }
                    Step::Pop => {
                        let item = lanes.pop();
                        prop_assert_eq!(item.is_some(), inside > 0);
                        inside -= usize::from(item.is_some());
                        taken.extend(item);
                    }
                    Step::MakeRoom(urgency, feed) => {
                        let out = lanes.make_room(ALL[urgency], feed);
                        prop_assert!(out.is_none_or(|(its, _, _)| its >= urgency));
                        inside -= usize::from(out.is_some());
                    }
                    Step::Sift(n) => {
                        lanes.sift(|(_, _, item)| item % n != 0, |_| inside -= 1);
                    }
                }
                prop_assert_eq!(lanes.len(), inside);
                for ring in &lanes.rings {
                    prop_assert_eq!(ring.turns.len(), ring.lanes.len());
                    prop_assert!(ring.turns.iter().all(|feed| !ring.lanes[feed].is_empty()));
                }
            }
            taken.extend(std::iter::from_fn(|| lanes.pop()));
            for (urgency, feed) in ALL.iter().flat_map(|u| (0..4).map(move |feed| (*u as usize, feed))) {
                let of_feed: Vec<u32> =
                    taken.iter().filter(|t| (t.0, t.1) == (urgency, feed)).map(|t| t.2).collect();
                prop_assert!(of_feed.is_sorted());
            }
        }
    }
}
