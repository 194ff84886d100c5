//! The sessions of one model, and which worker uses which.
//!
//! On cores each worker finds one of its own free at all times. A device has fewer than there are
//! workers: it computes one thing at a time, and each session takes seconds to get ready.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::joined;

/// Sessions of one model.
pub(super) struct Pool<S>(Vec<Mutex<S>>);

impl<S> Pool<S> {
    pub(super) fn new(sessions: Vec<S>) -> Self {
        Self(sessions.into_iter().map(Mutex::new).collect())
    }

    /// `count` sessions that are loaded side by side.
    pub(super) fn load<E: Send>(
        count: usize,
        load: impl Fn() -> Result<S, E> + Sync,
    ) -> Result<Self, E>
    where
        S: Send,
    {
        std::thread::scope(|scope| {
            let loading: Vec<_> = (0..count).map(|_| scope.spawn(&load)).collect();
            loading.into_iter().map(joined).collect::<Result<_, _>>().map(Self::new)
        })
    }

    /// What `work` makes of each session, all at once.
    pub(super) fn each<T: Send, E: Send>(
        &self,
        work: impl Fn(&mut S) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E>
    where
        S: Send,
    {
        let work = |worker| work(&mut self.take(worker));
        std::thread::scope(|scope| {
            let spawn = |worker| scope.spawn(move || work(worker));
            let working: Vec<_> = (0..self.0.len()).map(spawn).collect();
            working.into_iter().map(joined).collect()
        })
    }

    /// A session for `worker`: its own, else one that is free, else its own as soon as it is free.
    pub(super) fn take(&self, worker: usize) -> MutexGuard<'_, S> {
        let (before, from_own) = self.0.split_at(worker % self.0.len());
        let free = from_own.iter().chain(before).find_map(unused);
        free.unwrap_or_else(|| from_own[0].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those that `worker`, one of so many, may have used and that nobody uses just now: its own
    /// where each has one, else all. Who uses one now will come for it.
    pub(super) fn left_by(
        &self,
        worker: usize,
        workers: usize,
    ) -> impl Iterator<Item = MutexGuard<'_, S>> {
        let one_each = self.0.len() == workers;
        let may = move |(at, _): &(usize, _)| !one_each || *at == worker;
        self.0.iter().enumerate().filter(may).filter_map(|(_, session)| unused(session))
    }

    /// Those that nobody uses just now, one after the other.
    pub(super) fn unused(&self) -> impl Iterator<Item = MutexGuard<'_, S>> {
        self.0.iter().filter_map(unused)
    }
}

/// A worker that panicked has closed the pipeline: what its session holds matters to nobody.
fn unused<S>(session: &Mutex<S>) -> Option<MutexGuard<'_, S>> {
    match session.try_lock() {
        Ok(session) => Some(session),
        Err(TryLockError::Poisoned(session)) => Some(session.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_its_own_and_borrows_another_when_it_is_taken() {
        let pool = Pool::new(vec!['a', 'b']);
        let names = [0, 1, 3].map(|worker| *pool.take(worker));
        assert_eq!(names, ['a', 'b', 'b']);
        let own = pool.take(1);
        assert_eq!(*pool.take(3), 'a');
        assert_eq!(pool.unused().map(|session| *session).collect::<Vec<_>>(), ['a']);
        drop(own);
        assert_eq!(pool.unused().count(), 2);
        let left_by =
            |worker, workers| pool.left_by(worker, workers).map(|s| *s).collect::<String>();
        assert_eq!([left_by(1, 2), left_by(1, 4)], ["b", "ab"]);
    }

    #[test]
    fn a_worker_waits_when_all_are_taken() {
        let pool = Pool::new(vec![0]);
        let mut held = pool.take(0);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| *pool.take(7));
            *held = 5;
            drop(held);
            assert_eq!(joined(waiting), 5);
        });
    }

    #[test]
    fn a_session_that_does_not_load_is_told() {
        assert!(Pool::<u8>::load(2, || Err("no")).is_err_and(|fault| fault == "no"));
    }
}
