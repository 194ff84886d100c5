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
//! - At most one batch runs; its leader is one of the callers, so there is no thread to own.
//! - Every caller gets an answer, or hears that the batch failed: a panic of the leader fails its
//!   batch alone, and the lead goes on to the next in the queue.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Where calls meet. `Q` is what they ask, `A` what they get.
pub(super) struct Gather<Q, A> {
    most: usize,
    meeting: Mutex<Meeting<Q, A>>,
}

struct Meeting<Q, A> {
    led: bool,
    queue: VecDeque<Arc<Call<Q, A>>>,
}

struct Call<Q, A> {
    query: Q,
    fate: Mutex<Fate<A>>,
    changed: Condvar,
}

enum Fate<A> {
    Waiting,
    Leads,
    Answered(A),
    Failed,
    Taken,
}

/// The batch that this call was part of failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchFailed;

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
    pub(super) fn call(
        &self,
        query: Q,
        answer: impl Fn(&[&Q]) -> Vec<A>,
    ) -> Result<A, BatchFailed> {
        let call =
            Arc::new(Call { query, fate: Mutex::new(Fate::Waiting), changed: Condvar::new() });
        let mut meeting = self.meeting();
        meeting.queue.push_back(Arc::clone(&call));
        let idle = !std::mem::replace(&mut meeting.led, true);
        drop(meeting);
        if idle || call.wait_until_told() {
            self.lead(&answer);
        }
        call.take()
    }

    /// Answers the front of the queue, the leader among it, and hands the lead on.
    fn lead(&self, answer: impl Fn(&[&Q]) -> Vec<A>) {
        let mut meeting = self.meeting();
        let count = meeting.queue.len().min(self.most);
        let batch = Batch { gather: self, calls: meeting.queue.drain(..count).collect() };
        drop(meeting);
        let queries: Vec<&Q> = batch.calls.iter().map(|call| &call.query).collect();
        for (call, answer) in batch.calls.iter().zip(answer(&queries)) {
            call.tell(Fate::Answered(answer));
        }
    }

    fn meeting(&self) -> MutexGuard<'_, Meeting<Q, A>> {
        // Nothing that can panic runs while it is held.
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch at work. However it ends, nobody is left waiting.
struct Batch<'a, Q, A> {
    gather: &'a Gather<Q, A>,
    calls: Vec<Arc<Call<Q, A>>>,
}

impl<Q, A> Drop for Batch<'_, Q, A> {
    fn drop(&mut self) {
        for call in &self.calls {
            call.fail_unless_answered();
        }
        let mut meeting = self.gather.meeting();
        match meeting.queue.front() {
            Some(next) => next.tell(Fate::Leads),
            None => meeting.led = false,
        }
    }
}

impl<Q, A> Call<Q, A> {
    /// Whether the call is to lead; otherwise its fate is decided.
    fn wait_until_told(&self) -> bool {
        let waiting = |fate: &mut Fate<A>| matches!(fate, Fate::Waiting);
        let told = self.changed.wait_while(self.fate(), waiting);
        matches!(*told.unwrap_or_else(PoisonError::into_inner), Fate::Leads)
    }

    fn tell(&self, fate: Fate<A>) {
        *self.fate() = fate;
        self.changed.notify_one();
    }

    fn fail_unless_answered(&self) {
        let answered = matches!(*self.fate(), Fate::Answered(_) | Fate::Taken);
        if !answered {
            self.tell(Fate::Failed);
        }
    }

    fn take(&self) -> Result<A, BatchFailed> {
        match std::mem::replace(&mut *self.fate(), Fate::Taken) {
            Fate::Answered(answer) => Ok(answer),
            Fate::Waiting | Fate::Leads | Fate::Failed | Fate::Taken => Err(BatchFailed),
        }
    }

    fn fate(&self) -> MutexGuard<'_, Fate<A>> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    #[test]
    fn too_few_answers_fail_those_without() {
        let gather: Gather<u8, u8> = Gather::new(4);
        assert_eq!(gather.call(2, |_batch| Vec::new()), Err(BatchFailed));
    }
}
