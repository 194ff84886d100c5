//! How far a row may look from a probe and still be looked at: the bounds of the sketch scan.
//!
//! A search wants every row whose cosine with the probe is at least a floor `c`. After a random
//! rotation the two vectors are a random pair at the angle `acos c`, and two estimates of the
//! cosine are known in distribution:
//!
//! - **Signs against signs.** The signs of a coordinate differ with probability
//!   `p = acos(c) / pi` (Goemans and Williamson 1995), so `n` of them differ in `Bin(n, p)`
//!   places. Coordinates of one rotation are orthogonal, which only narrows the distribution
//!   (Choromanski et al. 2017). A cut at the `1 - e` quantile loses a mate at the floor with
//!   probability `e`, and one above it with less: the quantile falls as `c` rises.
//! - **Signs against coordinates.** With `x` the row, `q = c x + s v` the probe, `s^2 = 1 - c^2`
//!   and `v` uniform among the unit vectors orthogonal to `x`, the sum of `q_i sign(x_i)` over `n`
//!   coordinates is `c sum |x_i| + s sum v_i sign(x_i)`. The `n` are whole rotations of `d` and a
//!   part `f` of another; each gives, with `f = 1` for a whole one:
//!
//! ```text
//! mean      c f sqrt(2 d / pi)
//! variance  s^2 f (1 - 2 f / pi)  +  c^2 f (1 - 2 / pi - f / pi)
//!           v off the signs' way     the length of x's part
//! ```
//!
//!   A linear function on a sphere has lighter tails than the normal distribution of its variance,
//!   so the normal quantile is a bound (this is RaBitQ's estimator: Gao and Long 2024).
//!
//! By the union bound a mate at the floor is lost with a probability of at most 9e-4, and one above
//! it with less: at 0.05 above, with less than 1e-5. The tests below check all three cuts together
//! on pairs exactly at the floor, and benches measure the whole index on templates' real
//! distribution.
//!
//! # Invariants
//! - A lower floor never gives a narrower cut.

use std::f64::consts::{FRAC_2_PI, PI};

use super::super::kernel::SKETCH_BITS;

/// Bits of a sketch's front.
const FRONT_BITS: u16 = 256;
/// Most that each cut loses of mates at the floor. The first gets the largest part because it costs
/// the most: every row that passes it is a line of memory.
const FRONT_MISS: f64 = 5e-4;
const FULL_MISS: f64 = 3e-4;
#[cfg(test)]
const LEAN_MISS: f64 = 1e-4;
/// Normal quantile of what the last cut loses, 1e-4.
const LEAN_DEVIATIONS: f64 = 3.719;
/// Most that the three cuts lose together of mates at the floor.
#[cfg(test)]
const MISS_PROBABILITY: f64 = FRONT_MISS + FULL_MISS + LEAN_MISS;
/// Steps of the table a unit of cosine. Floors between two steps take the lower one.
const STEPS: u16 = 128;
/// Standard deviation of strangers' cosines, for estimating costs: the population's is 0.067.
const STRANGER_DEVIATION: f64 = 0.07;

/// What a row must not exceed or fall short of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::index) struct Cut {
    /// Most differing signs in the front 256.
    pub(in crate::index) front: u32,
    /// Most differing signs in all 512.
    pub(in crate::index) full: u32,
    /// Least sum of the probe's coordinates by the row's signs.
    pub(in crate::index) lean: f32,
    /// Share of strangers that pass the front's cut; an estimate.
    pub(in crate::index) front_share: f32,
    /// Share of strangers that pass the cut over all signs; an estimate.
    pub(in crate::index) full_share: f32,
}

/// The cuts for every floor.
pub(in crate::index) struct Cuts(Box<[Cut]>);

impl Cuts {
    /// The cuts for embeddings of `width` dimensions.
    pub(in crate::index) fn new(width: usize) -> Self {
        let floor = |step: u16| f64::from(step) / f64::from(STEPS) - 1.0;
        Self((0..=2 * STEPS).map(|step| Cut::at(floor(step), width)).collect())
    }

    /// The cuts for a floor.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 256")]
    pub(in crate::index) fn at(&self, floor: f32) -> Cut {
        self.0[((floor.clamp(-1.0, 1.0) + 1.0) * f32::from(STEPS)) as usize]
    }
}

impl Cut {
    fn at(cosine: f64, width: usize) -> Self {
        let differ = cosine.clamp(-1.0, 1.0).acos() / PI;
        let all = u16::try_from(SKETCH_BITS).expect("512 bits");
        let front = binomial_quantile(FRONT_BITS, differ, FRONT_MISS);
        let full = binomial_quantile(all, differ, FULL_MISS);
        #[expect(clippy::cast_possible_truncation, reason = "estimates and sums of f32")]
        let narrow = |value: f64| value as f32;
        Self {
            front: front.into(),
            full: full.into(),
            lean: narrow(lean_cut(cosine, f64::from(all), width)),
            front_share: narrow(strangers_below(FRONT_BITS, front)),
            full_share: narrow(strangers_below(all, full)),
        }
    }
}

/// The least `h` with `P(Bin(n, p) > h) <= e`.
fn binomial_quantile(n: u16, p: f64, e: f64) -> u16 {
    if p >= 1.0 {
        return n;
    }
    if p <= 0.0 {
        return 0;
    }
    // From the top down; logarithms because the first terms are below the range of f64.
    let (mut log_term, mut tail) = (f64::from(n) * p.ln(), 0.0);
    for h in (0..n).rev() {
        tail += log_term.exp(); // P(Bin > h)
        if tail > e {
            return h + 1;
        }
        let k = f64::from(h) + 1.0;
        log_term += (k / (f64::from(n) - k + 1.0) * (1.0 - p) / p).ln();
    }
    0
}

fn lean_cut(c: f64, n: f64, width: usize) -> f64 {
    let d = f64::from(u32::try_from(width).unwrap_or(u32::MAX));
    let mean = c * n * (FRAC_2_PI / d).sqrt();
    let (maps, part) = ((n / d).floor(), (n / d).fract());
    let off = |f: f64| f * (1.0 - FRAC_2_PI * f);
    let along = |f: f64| f * (1.0 - FRAC_2_PI - f / PI);
    let sum = |of: &dyn Fn(f64) -> f64| maps * of(1.0) + of(part);
    let variance = (1.0 - c * c) * sum(&off) + c * c * sum(&along).max(0.0);
    mean - LEAN_DEVIATIONS * variance.sqrt()
}

/// The share of strangers that differ in at most `cut` of `n` signs, by the normal approximation.
fn strangers_below(n: u16, cut: u16) -> f64 {
    let n = f64::from(n);
    let spread = n * STRANGER_DEVIATION / PI;
    let deviation = (n / 4.0 + spread * spread).sqrt();
    normal_below((f64::from(cut) + 0.5 - n / 2.0) / deviation)
}

/// The normal distribution function; Zelen and Severo's formula (Abramowitz and Stegun 26.2.17),
/// error below 1e-7.
fn normal_below(z: f64) -> f64 {
    const COEFFICIENTS: [f64; 5] =
        [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = COEFFICIENTS.iter().rev().fold(0.0, |sum, coefficient| t * (coefficient + sum));
    let above = (-z * z / 2.0).exp() / (2.0 * PI).sqrt() * series;
    if z < 0.0 { above } else { 1.0 - above }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::kernel::Kernel;
    use crate::index::testkit::{Random, quantiser};

    #[test]
    fn the_quantile_is_the_least_that_keeps_the_promise() {
        // Bin(4, 1/2): P(> 3) = 1/16, P(> 2) = 5/16.
        assert_eq!(binomial_quantile(4, 0.5, 1.0 / 16.0), 3);
        assert_eq!(binomial_quantile(4, 0.5, 0.06), 4);
        assert_eq!(binomial_quantile(4, 0.5, 0.32), 2);
        assert_eq!(binomial_quantile(512, 0.0, 1e-4), 0);
        assert_eq!(binomial_quantile(512, 1.0, 1e-4), 512);
        // Mean 170.7, deviation 10.67: 3.89 deviations above are 212.2.
        assert!((211..=214).contains(&binomial_quantile(512, 1.0 / 3.0, 5e-5)));
    }

    #[test]
    fn a_lower_floor_never_narrows_a_cut() {
        for width in [128, 512, 1024] {
            let cuts = Cuts::new(width);
            for pair in cuts.0.windows(2) {
                assert!(pair[0].front >= pair[1].front && pair[0].full >= pair[1].full);
                assert!(pair[0].lean <= pair[1].lean);
            }
            assert_eq!(cuts.at(-1.0).full, 512);
            assert_eq!(cuts.at(f32::NAN.max(-1.0)), cuts.at(-1.0));
        }
    }

    #[test]
    fn the_normal_distribution_is_the_known_one() {
        for (z, below) in [(0.0, 0.5), (-1.0, 0.158_655), (1.959_964, 0.975), (-3.891, 5e-5)] {
            assert!((normal_below(z) - below).abs() < 1e-5, "{z}");
        }
    }

    /// Pairs exactly at the floor, the worst that the bound speaks of, at every kind of width.
    #[test]
    fn a_mate_at_the_floor_is_lost_no_more_often_than_promised() {
        for (width, pairs) in [
            (128, 20_000),
            (200, 10_000),
            (320, 10_000),
            (384, 10_000),
            (512, 20_000),
            (1024, 10_000),
        ] {
            let (quantiser, mut random) = (quantiser(width), Random::new(60));
            let cuts = Cuts::new(width);
            let kernels = Kernel::best();
            let mut lost = 0;
            for n in 0..pairs {
                let floor = [0.3, 0.42, 0.5, 0.6][n % 4];
                let cut = cuts.at(floor);
                let a = random.embedding(width);
                // Just above, so that rounding does not decide.
                let b = random.near(&a, floor + 0.002);
                let (row, probe) = (quantiser.row(&a), quantiser.probe(&b));
                let differ = |words: usize| -> u32 {
                    let pairs = row.sketch().as_chunks().0.iter().zip(probe.sketch()).take(words);
                    pairs.map(|(x, y)| (u64::from_le_bytes(*x) ^ y).count_ones()).sum()
                };
                let bits = row.sketch().try_into().unwrap();
                #[expect(clippy::cast_precision_loss, reason = "below 2^24")]
                let lean = kernels.lean(bits, probe.lean_codes()) as f32 * probe.lean_scale();
                let passes = differ(4) <= cut.front && differ(8) <= cut.full && lean >= cut.lean;
                lost += i32::from(!passes);
            }
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            let allowed = MISS_PROBABILITY * pairs as f64;
            // Five deviations more than the promise, were it just kept.
            assert!(
                f64::from(lost) <= allowed + 5.0 * allowed.sqrt(),
                "{width}: {lost} of {pairs}"
            );
        }
    }

    /// The cuts do cut: strangers fall.
    #[test]
    fn strangers_are_sifted_out_as_estimated() {
        let (quantiser, mut random) = (quantiser(512), Random::new(61));
        let cut = Cuts::new(512).at(0.5);
        let probe = quantiser.probe(&random.embedding(512));
        let mut passed = 0;
        for _ in 0..20_000 {
            let row = quantiser.row(&random.embedding(512));
            let pairs = row.sketch().as_chunks().0.iter().zip(probe.sketch()).take(4);
            let differ: u32 = pairs.map(|(x, y)| (u64::from_le_bytes(*x) ^ y).count_ones()).sum();
            passed += u16::from(differ <= cut.front);
        }
        let share = f32::from(passed) / 20_000.0;
        assert!(share < 1.5 * cut.front_share && share > 0.2 * cut.front_share, "{share} {cut:?}");
    }
}
