//! What is to be sent, and when.

use std::time::Duration;

use super::super::exit::{Exit, Failure};

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Load {
    /// By the clock, as independent people come: exponential pauses (a Poisson process).
    Open {
        /// Mean arrivals a second.
        per_second: f64,
    },
    /// By callers that wait for their answers.
    Closed {
        /// How many.
        callers: usize,
    },
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Verify,
    Enrol,
    Revoke,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Verify, Self::Enrol, Self::Revoke];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Enrol => "enrol",
            Self::Revoke => "revoke",
        }
    }
}

/// Shares of the kinds; what is left verifies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mix {
    enrol: f64,
    revoke: f64,
}

impl Mix {
    pub(super) fn new(enrol: f64, revoke: f64) -> Result<Self, Failure> {
        let good = |share: f64| (0.0..=1.0).contains(&share);
        if good(enrol) && good(revoke) && good(enrol + revoke) {
            Ok(Self { enrol, revoke })
        } else {
            let message = "--enrol and --revoke are shares: 0 to 1, together at most 1";
            Err(Failure::new(Exit::Usage, message))
        }
    }

    pub(super) fn kind(self, random: &mut Random) -> Kind {
        let at = random.next();
        if at < self.revoke {
            Kind::Revoke
        } else if at < self.revoke + self.enrol {
            Kind::Enrol
        } else {
            Kind::Verify
        }
    }
}

/// SplitMix64 (Steele et al., 2014): the plan is the same for the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// 0 up to, but not, 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(super) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normally distributed (Box and Muller, 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.next(), self.next());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// The pause before the next of `per_second` arrivals.
    pub(super) fn pause(&mut self, per_second: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.next()).ln() / per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_rate_and_the_mix_its_shares() {
        let mut random = Random(7);
        let time: Duration = (0..20_000).map(|_| random.pause(100.0)).sum();
        assert!((190.0..210.0).contains(&time.as_secs_f64()), "{time:?}");
        let mix = Mix::new(0.2, 0.1).unwrap();
        let kinds: Vec<Kind> = (0..20_000).map(|_| mix.kind(&mut random)).collect();
        let count = |kind| kinds.iter().filter(|k| **k == kind).count();
        assert!((3_700..4_300).contains(&count(Kind::Enrol)), "{}", count(Kind::Enrol));
        assert!((1_800..2_200).contains(&count(Kind::Revoke)), "{}", count(Kind::Revoke));
        for (enrol, revoke) in [(0.6, 0.6), (-0.1, 0.0), (f64::NAN, 0.0)] {
            assert!(Mix::new(enrol, revoke).is_err(), "{enrol} {revoke}");
        }
    }
}
