//! Searches that meet are carried out together.
//!
//! A scan is bound by memory: sixteen probes go through a gallery in little more time than one.
//! So a search that finds another one running waits, and whoever finishes takes all that has
//! gathered meanwhile into the next batch. Nobody waits for company: an idle index serves a lone
//! probe at once.
//!
//! ```text
//!   caller 1   |== batch: 1 ==|  hands the lead to 2
//!   caller 2      | waits ... |== batch: 2, 3, 4 ==|
//!   caller 3         | waits  |                    | answered
//!   caller 4           | waits|                    | answered
//! ```
//!
//! # Invariants
//! - At most one batch runs; its leader is a thread that a caller lends, so there is none to own.
//! - Every caller gets an answer, or hears that the batch failed: a panic of the leader fails its
//!   batch alone, and the lead goes on to the next in the queue.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

/// Where calls meet. `Q` is what they ask, `A` what they get.
pub(super) struct Gather<Q, A> {
    most: usize,
    meeting: Mutex<Meeting<Q, A>>,
}

struct Meeting<Q, A> {
    led: bool,
    queue: VecDeque<Call<Q, A>>,
}

struct Call<Q, A> {
    query: Q,
    caller: Caller<A>,
}

/// Hears what becomes of a call: its fate once, and perhaps before that it has to lead. It is told
/// under the lock of the meeting, so it must not call back.
pub(super) type Caller<A> = Box<dyn FnMut(Told<A>) + Send>;

/// What a caller hears.
pub(super) enum Told<A> {
    /// To call [`Gather::lead`].
    Leads,
    Fate(Result<A, BatchFailed>),
}

/// The batch that this call was part of failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchFailed;

/// How long a caller leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Term {
    /// One batch: the leader waits for an answer of its own.
    Batch,
    /// Until nobody waits: the leader is a thread that has nothing else to do.
    Open,
}

impl<Q, A> Gather<Q, A> {
    /// Batches hold at most `most` calls.
    pub(super) fn new(most: usize) -> Self {
        Self { most, meeting: Mutex::new(Meeting { led: false, queue: VecDeque::new() }) }
    }

    /// Has the query answered in a batch by `answer`, which gives one answer a query, in their
    /// order. Blocks until it is.
    ///
    /// # Errors
    /// The batch panicked.
    pub(super) fn call(&self, query: Q, answer: impl Fn(&[&Q]) -> Vec<A>) -> Result<A, BatchFailed>
    where
        A: Send + 'static,
    {
        let (tell, told) = mpsc::channel();
        if self.join(query, Box::new(move |what| drop(tell.send(what)))) {
            self.lead(Term::Batch, &answer);
        }
        loop {
            match told.recv() {
                Ok(Told::Leads) => self.lead(Term::Batch, &answer),
                Ok(Told::Fate(fate)) => return fate,
                Err(_gone) => return Err(BatchFailed),
            }
        }
    }

    /// Joins the queue. Where this says so nobody leads, and whoever joined has to, on any thread.
    #[must_use]
    pub(super) fn join(&self, query: Q, caller: Caller<A>) -> bool {
        let mut meeting = self.meeting();
        meeting.queue.push_back(Call { query, caller });
        !std::mem::replace(&mut meeting.led, true)
    }

    /// Answers who waits at the front of the queue, then hands the lead on.
    pub(super) fn lead(&self, term: Term, answer: impl Fn(&[&Q]) -> Vec<A>) {
        let _lead = Lead(self);
        loop {
            self.next_batch().answer(&answer);
            if term == Term::Batch || self.meeting().queue.is_empty() {
                return;
            }
        }
    }

    fn next_batch(&self) -> Batch<Q, A> {
        let mut meeting = self.meeting();
        let count = meeting.queue.len().min(self.most);
        Batch(meeting.queue.drain(..count).collect())
    }

    fn meeting(&self) -> MutexGuard<'_, Meeting<Q, A>> {
        // Nothing that can panic runs while it is held.
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lead. However it ends, somebody else has it, or nobody waits.
struct Lead<'a, Q, A>(&'a Gather<Q, A>);

impl<Q, A> Drop for Lead<'_, Q, A> {
    fn drop(&mut self) {
        let mut meeting = self.0.meeting();
        match meeting.queue.front_mut() {
            Some(next) => (next.caller)(Told::Leads),
            None => meeting.led = false,
        }
    }
}

/// Calls at work. However it ends, each of them is told.
struct Batch<Q, A>(VecDeque<Call<Q, A>>);

impl<Q, A> Batch<Q, A> {
    fn answer(mut self, answer: impl Fn(&[&Q]) -> Vec<A>) {
        let queries: Vec<&Q> = self.0.iter().map(|call| &call.query).collect();
        for answer in answer(&queries) {
            let Some(mut call) = self.0.pop_front() else { return };
            (call.caller)(Told::Fate(Ok(answer)));
        }
    }
}

impl<Q, A> Drop for Batch<Q, A> {
    fn drop(&mut self) {
        for mut call in self.0.drain(..) {
            (call.caller)(Told::Fate(Err(BatchFailed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn every_caller_gets_its_own_answer() {
        let gather = Gather::new(4);
        let largest = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for caller in 0..12_u64 {
                let (gather, largest) = (&gather, &largest);
                threads.spawn(move || {
                    for round in 0..500 {
                        let doubled = |batch: &[&u64]| {
                            largest.fetch_max(batch.len(), Ordering::Relaxed);
                            batch.iter().map(|n| **n * 2).collect()
                        };
                        let query = caller * 1_000 + round;
                        assert_eq!(gather.call(query, doubled), Ok(query * 2));
                    }
                });
            }
        });
        assert!(largest.into_inner() <= 4);
    }

    #[test]
    fn calls_that_arrive_during_a_batch_share_the_next_one() {
        let gather = Gather::new(16);
        let (begun, gate) = (Barrier::new(2), Mutex::new(()));
        let batches = Mutex::new(Vec::new());
        let slow = |batch: &[&u8]| {
            if *batch[0] == 0 {
                begun.wait();
                drop(gate.lock());
            }
            batches.lock().unwrap().push(batch.len());
            batch.iter().map(|n| **n).collect()
        };
        std::thread::scope(|threads| {
            let held = gate.lock().unwrap();
            threads.spawn(|| gather.call(0, slow));
            begun.wait();
            let callers: Vec<_> = (1..6).map(|_| threads.spawn(|| gather.call(1, slow))).collect();
            while gather.meeting().queue.len() < 5 {
                std::thread::yield_now();
            }
            drop(held);
            for caller in callers {
                assert!(caller.join().unwrap().is_ok());
            }
        });
        assert_eq!(batches.into_inner().unwrap(), [1, 5]);
    }

    #[test]
    fn a_panic_fails_its_batch_and_no_other() {
        let gather: Gather<u8, u8> = Gather::new(4);
        let failed = std::thread::scope(|threads| {
            let call = threads.spawn(|| gather.call(1, |_batch| panic!("on purpose")));
            call.join().is_err()
        });
        assert!(failed);
        assert_eq!(gather.call(2, |batch| batch.iter().map(|n| **n).collect()), Ok(2));
    }

    /// Who waits on no thread is answered all the same, and a lead that is handed to one finds a
    /// thread.
    #[test]
    fn callers_without_a_thread_are_answered_by_those_who_lead() {
        let gather = Arc::new(Gather::new(2));
        let doubled = |batch: &[&u8]| batch.iter().map(|n| **n * 2).collect::<Vec<u8>>();
        let (tell, told) = mpsc::channel();
        let caller = || -> Caller<u8> {
            let (tell, gather) = (tell.clone(), Arc::clone(&gather));
            Box::new(move |what| match what {
                Told::Fate(fate) => tell.send(fate).unwrap(),
                Told::Leads => {
                    let gather = Arc::clone(&gather);
                    std::thread::spawn(move || gather.lead(Term::Open, doubled));
                }
            })
        };
        assert!(gather.join(1, caller()));
        assert!((2..8).all(|n| !gather.join(n, caller())));
        gather.lead(Term::Batch, doubled);
        let mut answers: Vec<u8> = (1..8).map(|_| told.recv().unwrap().unwrap()).collect();
        answers.sort_unstable();
        assert_eq!(answers, [2, 4, 6, 8, 10, 12, 14]);
    }

    #[test]
    fn too_few_answers_fail_those_without() {
        let gather: Gather<u8, u8> = Gather::new(4);
        assert_eq!(gather.call(2, |_batch| Vec::new()), Err(BatchFailed));
    }
}
