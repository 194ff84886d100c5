//! What a count says about a rate: exact bounds; and the scale on which error rates are drawn.

use serde::Serialize;

/// Probability that a bound is on the wrong side, each.
const TAIL: f64 = 0.025;
/// Halvings of an interval: more than a double has bits.
const HALVINGS: usize = 80;
/// Terms of a continued fraction; it needs about the square root of the number of pairs.
const TERMS: usize = 200_000;

/// How often something happened, of how many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Share {
    pub(super) hits: u64,
    pub(super) of: u64,
}

impl Share {
    /// 0 of nothing.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
    pub(super) fn rate(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.hits as f64 / self.of as f64 }
    }

    /// The exact bounds between which the rate lies with a confidence of 95 % (Clopper and Pearson,
    /// 1934), for independent trials: low = B(0.025; k, n-k+1), high = B(0.975; k+1, n-k), where B
    /// is the quantile of the beta distribution.
    #[expect(clippy::cast_precision_loss, reason = "a bound needs no more than 53 bits")]
    pub(super) fn bounds(self) -> (f64, f64) {
        let (k, n) = (self.hits as f64, self.of as f64);
        let low = if self.hits == 0 { 0.0 } else { beta_quantile(TAIL, k, n - k + 1.0) };
        let high =
            if self.hits >= self.of { 1.0 } else { beta_quantile(1.0 - TAIL, k + 1.0, n - k) };
        (low, high)
    }
}

fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if beta_share(middle, a, b) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The regularised incomplete beta function I_x(a, b) (DLMF 8.17.22).
fn beta_share(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p();
    if x < (a + 1.0) / (a + b + 2.0) {
        front.exp() * beta_fraction(x, a, b) / a
    } else {
        1.0 - front.exp() * beta_fraction(1.0 - x, b, a) / b
    }
}

/// The continued fraction of [`beta_share`], by Lentz's method.
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let away = |v: f64| if v.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { v };
    let (mut above, mut below) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut value = below;
    let mut term = 0.0;
    for _ in 0..TERMS {
        term += 1.0;
        let at = a + 2.0 * term;
        let even = term * (b - term) * x / ((at - 1.0) * at);
        let odd = -(a + term) * (a + b + term) * x / (at * (at + 1.0));
        let mut step = 1.0;
        for part in [even, odd] {
            below = 1.0 / away(1.0 + part * below);
            above = away(1.0 + part / above);
            step = below * above;
            value *= step;
        }
        if (step - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    value
}

/// ln of the gamma function for x > 0.5 (Lanczos, 1964; g = 7).
fn ln_gamma(x: f64) -> f64 {
    const FIRST: f64 = 0.999_999_999_999_809_9;
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let t = x + 7.5;
    let (mut sum, mut at) = (FIRST, x);
    for term in TERMS {
        at += 1.0;
        sum += term / at;
    }
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// The normal deviate of a rate, on which errors of normally distributed scores are straight lines
/// (Martin and others, 1997). Acklam's rational approximation; its relative error of 1.2e-9 is far
/// less than a pixel.
pub(super) fn deviate(rate: f64) -> f64 {
    const A: [f64; 6] = [
        -39.696_830_286_653_76,
        220.946_098_424_520_5,
        -275.928_510_446_968_7,
        138.357_751_867_269,
        -30.664_798_066_147_16,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -54.476_098_798_224_06,
        161.585_836_858_040_9,
        -155.698_979_859_886_6,
        66.801_311_887_719_72,
        -13.280_681_552_885_72,
        1.0,
    ];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_293,
        -0.322_396_458_041_136_5,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        0.007_784_695_709_041_462,
        0.322_467_129_070_039_8,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    const LOW: f64 = 0.024_25;
    let at = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        at(&C, q) / at(&D, q)
    };
    if rate < LOW {
        tail(rate)
    } else if rate > 1.0 - LOW {
        -tail(1.0 - rate)
    } else {
        let q = rate - 0.5;
        q * at(&A, q * q) / at(&B, q * q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(hits: u64, of: u64) -> (f64, f64) {
        Share { hits, of }.bounds()
    }

    #[test]
    fn bounds_are_those_of_the_tables() {
        for (hits, of, low, high) in [
            (5, 100, 0.016_432, 0.112_835),
            (10, 100, 0.049_005, 0.176_223),
            (1, 10, 0.002_529, 0.445_016),
            (50, 100, 0.398_321, 0.601_679),
        ] {
            let found = bounds(hits, of);
            assert!((found.0 - low).abs() < 2e-6, "{hits}/{of}: {found:?}");
            assert!((found.1 - high).abs() < 2e-6, "{hits}/{of}: {found:?}");
        }
    }

    #[test]
    fn nothing_seen_is_bounded_by_what_could_have_been_missed() {
        let (low, high) = bounds(0, 1_000);
        assert!(low <= 0.0);
        assert!((high - (1.0 - TAIL.powf(1e-3))).abs() < 1e-9);
        assert!(bounds(7, 7).1 >= 1.0);
        assert_eq!(bounds(0, 0), (0.0, 1.0));
    }

    #[test]
    fn bounds_of_many_pairs_are_those_of_the_normal_distribution() {
        let (hits, of) = (8_731_u64, 87_307_271_u64);
        let (low, high) = bounds(hits, of);
        let (rate, count) = (Share { hits, of }.rate(), 8_731.0_f64);
        let away = 1.959_964 / count.sqrt();
        assert!((low / rate - (1.0 - away)).abs() < 3e-4, "{low}");
        assert!((high / rate - (1.0 + away)).abs() < 3e-4, "{high}");
    }

    #[test]
    fn deviates_are_those_of_the_tables() {
        for (rate, deviate_of_it) in [
            (0.5, 0.0),
            (0.975, 1.959_964),
            (0.025, -1.959_964),
            (1e-4, -3.719_016),
            (1e-6, -4.753_424),
        ] {
            assert!((deviate(rate) - deviate_of_it).abs() < 1e-5, "{rate}: {}", deviate(rate));
        }
    }
}
