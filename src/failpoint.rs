//! Named points at which a test has the process killed, as a power cut or `kill -9` would.
//!
//! `ASSENT_FAILPOINT=name:n` kills the process when it reaches the point `name` for the `n`th
//! time. Builds without debug assertions have none of this: there [`reach`] is empty and the
//! variable is not read.
//!
//! # Invariants
//! - The environment is read once, when the first point is reached.

/// Kills the process if a test asked for that, here and now.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn reach(_name: &'static str) {}

#[cfg(debug_assertions)]
pub(crate) use armed::reach;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    const VARIABLE: &str = "ASSENT_FAILPOINT";

    /// The one point that kills, and how often it is still passed.
    struct Armed {
        name: String,
        left: AtomicU32,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    /// Kills the process if a test asked for that, here and now.
    pub(crate) fn reach(name: &'static str) {
        let Some(armed) = ARMED.get_or_init(read) else { return };
        if armed.name == name && armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _killed = kill_process(getpid(), Signal::KILL);
            // Nothing goes on while the signal is on its way.
            loop {
                std::thread::park();
            }
        }
    }

    fn read() -> Option<Armed> {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, count) = text.split_once(':')?;
        Some(Armed { name: name.to_owned(), left: AtomicU32::new(count.parse().ok()?) })
    }
}
