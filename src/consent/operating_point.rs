//! From error rates, which policies state, to cosine thresholds, which searches need.
//!
//! A calibration table gives the cosine at which the recogniser reaches a false match rate (FMR,
//! ISO/IEC 19795-1) on impostor pairs. Between rows the threshold is linear in log10(FMR): the
//! upper tail of impostor cosines is close to exponential.
//!
//! # Invariants
//! - A threshold never promises more than the table covers: what lies outside is refused (1:1) or
//!   said so in the threshold's basis (1:N).
//! - A stricter rate or a larger gallery never gives a lower threshold.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::Similarity;

/// An error rate, more than 0 and less than 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct ErrorRate(f64);

impl ErrorRate {
    /// One false match in 10,000 comparisons: NIST SP 800-63B-4, 3.2.3.
    pub const DEFAULT_FMR: Self = Self(1e-4);
    /// One stranger in 100 is taken for somebody.
    pub const DEFAULT_FPIR: Self = Self(0.01);

    /// Checks the rate.
    ///
    /// # Errors
    /// Not more than 0 and less than 1.
    pub fn new(rate: f64) -> Result<Self, InvalidRate> {
        if rate > 0.0 && rate < 1.0 { Ok(Self(rate)) } else { Err(InvalidRate) }
    }

    /// The rate, 0 to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// The FMR at which a search among `templates` reaches this FPIR.
    ///
    /// FPIR = 1 - (1 - FMR)^N, so FMR = 1 - (1 - FPIR)^(1/N) (ISO/IEC 19795-1, independent
    /// comparisons). No templates count as one.
    #[must_use]
    pub fn fmr_for_templates(self, templates: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits of N")]
        let n = templates.max(1) as f64;
        Self(-((-self.0).ln_1p() / n).exp_m1())
    }
}

impl TryFrom<f64> for ErrorRate {
    type Error = InvalidRate;

    fn try_from(rate: f64) -> Result<Self, InvalidRate> {
        Self::new(rate)
    }
}

impl From<ErrorRate> for f64 {
    fn from(rate: ErrorRate) -> Self {
        rate.0
    }
}

/// Not an error rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not an error rate: more than 0 and less than 1")]
pub struct InvalidRate;

/// What a threshold rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThresholdBasis {
    /// Counted on impostor pairs.
    Measured,
    /// Extrapolated from the measured tail.
    Extrapolated,
    /// Stricter than the table's last row: the threshold is that row's and the rate is not met.
    BeyondTable,
}

/// The least similarity that counts as a match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// The cosine.
    pub similarity: Similarity,
    /// What it rests on.
    pub basis: ThresholdBasis,
}

/// How many templates a search may go through for its FPIR to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// By rows that were measured.
    pub measured: u64,
    /// By all rows, extrapolated ones included.
    pub calibrated: u64,
}

/// A model's calibration table.
///
/// ```
/// use assent::consent::{Calibration, ErrorRate};
/// let table = r#"{"table": [
///     {"fmr": 0.01, "threshold": 0.2, "fnmr": 0.001, "basis": "measured"},
///     {"fmr": 0.0001, "threshold": 0.4, "fnmr": 0.01, "basis": "measured"}]}"#;
/// let threshold = Calibration::parse(table)?.threshold_for_fmr(ErrorRate::new(0.001)?)?;
/// assert!((threshold.similarity.get() - 0.3).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    rows: Box<[Row]>,
}

/// One row as `assent calibrate` writes it; its FNMR is for people.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
struct Row {
    fmr: ErrorRate,
    threshold: f64,
    basis: RowBasis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RowBasis {
    Measured,
    Extrapolated,
}

#[derive(Deserialize)]
struct CalibrationFile {
    table: Vec<Row>,
}

impl Calibration {
    /// Parses a calibration file; members other than `table` are for people.
    ///
    /// # Errors
    /// Not JSON of that form, fewer than two rows, or rows that are not in the order of falling FMR
    /// and rising threshold.
    pub fn parse(json: &str) -> Result<Self, CalibrationError> {
        let CalibrationFile { table } = serde_json::from_str(json)?;
        if table.len() < 2 {
            return Err(CalibrationError::TooFewRows);
        }
        let ordered = |pair: &[Row]| {
            pair[0].fmr > pair[1].fmr
                && pair[0].threshold < pair[1].threshold
                && pair[0].basis <= pair[1].basis
        };
        if let Some(row) = table.windows(2).position(|pair| !ordered(pair)) {
            return Err(CalibrationError::Order { row: row + 2 });
        }
        if let Some(row) = table.iter().position(|row| !(-1.0..=1.0).contains(&row.threshold)) {
            return Err(CalibrationError::NotACosine { row: row + 1 });
        }
        Ok(Self { rows: table.into_boxed_slice() })
    }

    /// The threshold at which 1:1 comparisons reach `fmr`.
    ///
    /// # Errors
    /// The rate lies outside the table.
    pub fn threshold_for_fmr(&self, fmr: ErrorRate) -> Result<Threshold, RateOutsideTable> {
        self.interpolate(fmr).ok_or_else(|| RateOutsideTable {
            fmr: fmr.get(),
            laxest: self.rows[0].fmr.get(),
            strictest: self.strictest().fmr.get(),
        })
    }

    /// The threshold at which a search among `templates` reaches `fpir`.
    ///
    /// Where the FMR that this takes lies outside the table the nearest row is used: a laxer one
    /// than the first row is then met with room to spare, a stricter one than the last is not met
    /// and the basis says [`ThresholdBasis::BeyondTable`].
    #[must_use]
    pub fn threshold_for_fpir(&self, fpir: ErrorRate, templates: u64) -> Threshold {
        let fmr = fpir.fmr_for_templates(templates);
        self.interpolate(fmr).unwrap_or_else(|| {
            if fmr > self.rows[0].fmr {
                self.rows[0].threshold()
            } else {
                let basis = ThresholdBasis::BeyondTable;
                Threshold { basis, ..self.strictest().threshold() }
            }
        })
    }

    /// The largest galleries in which a search keeps `fpir`; 0 where not even one template can be
    /// searched so.
    #[must_use]
    pub fn reach(&self, fpir: ErrorRate) -> Reach {
        let measured = self.rows.iter().rfind(|row| row.basis == RowBasis::Measured);
        let among = |row: Row| most_templates(fpir, row.fmr);
        Reach { measured: measured.copied().map_or(0, among), calibrated: among(self.strictest()) }
    }

    /// `None` outside the table.
    fn interpolate(&self, fmr: ErrorRate) -> Option<Threshold> {
        let pair = self.rows.windows(2).find(|p| p[0].fmr >= fmr && fmr >= p[1].fmr)?;
        let (lax, strict) = (pair[0], pair[1]);
        let log = |rate: ErrorRate| rate.get().log10();
        let part = (log(lax.fmr) - log(fmr)) / (log(lax.fmr) - log(strict.fmr));
        let threshold = lax.threshold + part * (strict.threshold - lax.threshold);
        // On the laxer row itself nothing of the stricter row is used.
        let basis = if fmr == lax.fmr { lax.basis } else { strict.basis };
        Some(Row { fmr, threshold, basis }.threshold())
    }

    fn strictest(&self) -> Row {
        self.rows[self.rows.len() - 1]
    }
}

/// The most templates among which an FMR of `fmr` keeps `fpir`: N = ln(1 - FPIR) / ln(1 - FMR).
fn most_templates(fpir: ErrorRate, fmr: ErrorRate) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "both logarithms are negative; what is more than 64 bits is all of them"
    )]
    let most = ((-fpir.0).ln_1p() / (-fmr.0).ln_1p()) as u64;
    // Rounding may have moved the quotient over an integer.
    let keeps = |templates: u64| templates > 0 && fpir.fmr_for_templates(templates) >= fmr;
    if keeps(most.saturating_add(1)) {
        most.saturating_add(1)
    } else if keeps(most) {
        most
    } else {
        most.saturating_sub(1)
    }
}

impl Row {
    fn threshold(self) -> Threshold {
        #[expect(clippy::cast_possible_truncation, reason = "cosines are compared as f32")]
        let similarity = Similarity::new(self.threshold as f32);
        let basis = match self.basis {
            RowBasis::Measured => ThresholdBasis::Measured,
            RowBasis::Extrapolated => ThresholdBasis::Extrapolated,
        };
        Threshold { similarity, basis }
    }
}

/// Why a calibration file is refused.
#[derive(Debug, Error)]
pub enum CalibrationError {
    /// Not JSON of the form that `assent calibrate` writes.
    #[error("not a calibration table: {0}")]
    Form(#[from] serde_json::Error),
    /// Nothing to interpolate between.
    #[error("a calibration table needs at least two rows")]
    TooFewRows,
    /// FMR must fall, threshold must rise, measured rows come before extrapolated ones.
    #[error("row {row} of the calibration table is out of order")]
    Order {
        /// The row, from 1.
        row: usize,
    },
    /// A threshold outside -1 to 1.
    #[error("the threshold in row {row} of the calibration table is no cosine")]
    NotACosine {
        /// The row, from 1.
        row: usize,
    },
}

/// The calibration table does not reach this rate.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("FMR {fmr:e} lies outside the model's calibration, {strictest:e} to {laxest:e}")]
pub struct RateOutsideTable {
    /// The rate asked for.
    pub fmr: f64,
    /// The table's highest.
    pub laxest: f64,
    /// The table's lowest.
    pub strictest: f64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = r#"{"model": "m", "table": [
        {"fmr": 0.1,    "threshold": 0.0926, "fnmr": 0.00024, "basis": "measured"},
        {"fmr": 0.0001, "threshold": 0.2959, "fnmr": 0.00154, "basis": "measured"},
        {"fmr": 1e-05,  "threshold": 0.359,  "fnmr": 0.00473, "basis": "measured"},
        {"fmr": 1e-09,  "threshold": 0.6103, "fnmr": 0.44574, "basis": "extrapolated"}]}"#;

    fn table() -> Calibration {
        Calibration::parse(TABLE).unwrap()
    }

    fn rate(rate: f64) -> ErrorRate {
        ErrorRate::new(rate).unwrap()
    }

    #[test]
    fn a_row_of_the_table_gives_its_own_threshold_and_basis() {
        for row in &table().rows {
            let threshold = table().threshold_for_fmr(row.fmr).unwrap();
            assert!((f64::from(threshold.similarity.get()) - row.threshold).abs() < 1e-6);
            assert_eq!(threshold.basis, row.threshold().basis);
        }
    }

    #[test]
    fn between_a_measured_and_an_extrapolated_row_the_basis_is_extrapolated() {
        let threshold = table().threshold_for_fmr(rate(1e-7)).unwrap();
        assert!((threshold.similarity.get() - f32::midpoint(0.359, 0.6103)).abs() < 1e-6);
        assert_eq!(threshold.basis, ThresholdBasis::Extrapolated);
    }

    #[test]
    fn an_fmr_outside_the_table_is_refused() {
        for fmr in [0.2, 1e-10] {
            assert!(table().threshold_for_fmr(rate(fmr)).is_err(), "{fmr}");
        }
    }

    #[test]
    fn a_gallery_too_large_for_the_table_says_so() {
        let within = table().threshold_for_fpir(rate(0.01), 1_000_000);
        assert_eq!(within.basis, ThresholdBasis::Extrapolated);
        let beyond = table().threshold_for_fpir(rate(0.01), 1_000_000_000);
        assert_eq!(beyond.basis, ThresholdBasis::BeyondTable);
        assert!(beyond.similarity > within.similarity);
    }

    #[test]
    fn the_reach_of_measured_rows_is_shorter_than_that_of_all() {
        let reach = table().reach(rate(0.01));
        assert_eq!(reach, Reach { measured: 1_005, calibrated: 10_050_335 });
        // Not even one stranger in a billion may pass.
        assert_eq!(table().reach(rate(1e-12)), Reach { measured: 0, calibrated: 0 });
    }

    #[test]
    fn an_empty_gallery_counts_as_one_template() {
        let of = |n| table().threshold_for_fpir(rate(0.01), n);
        assert_eq!(of(0), of(1));
        assert_eq!(of(1), table().threshold_for_fmr(rate(0.01).fmr_for_templates(1)).unwrap());
    }

    /// The formula against the draw it stands for: a stranger against N templates, each of which
    /// matches falsely with probability FMR.
    #[test]
    fn fpir_follows_from_fmr_as_brute_force_finds_it() {
        const STRANGERS: u32 = 200_000;
        let (fpir, templates) = (0.05, 20);
        let fmr = rate(fpir).fmr_for_templates(templates).get();
        let mut state = 7_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f64::from((state >> 32) as u32) / f64::from(u32::MAX)
        };
        let mut taken_for_somebody = 0;
        for _ in 0..STRANGERS {
            let hits = (0..templates).filter(|_| uniform() < fmr).count();
            taken_for_somebody += u32::from(hits > 0);
        }
        let found = f64::from(taken_for_somebody) / f64::from(STRANGERS);
        assert!((found - fpir).abs() < 0.002, "{found}");
    }

    #[test]
    fn tables_that_cannot_be_trusted_are_refused() {
        let row = |fmr: f64, threshold: f64, basis: &str| {
            format!(r#"{{"fmr":{fmr},"threshold":{threshold},"basis":"{basis}"}}"#)
        };
        let first = row(0.01, 0.2, "extrapolated");
        for second in [
            String::new(),
            row(0.01, 0.3, "extrapolated"),
            row(0.001, 0.1, "extrapolated"),
            row(0.001, 0.3, "measured"),
            row(0.001, 1.3, "extrapolated"),
            row(0.0, 0.3, "extrapolated"),
        ] {
            let rows = [first.clone(), second].into_iter().filter(|r| !r.is_empty());
            let json = format!(r#"{{"table":[{}]}}"#, rows.collect::<Vec<_>>().join(","));
            assert!(Calibration::parse(&json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_rate_is_more_than_nothing_and_less_than_everything() {
        for bad in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            assert!(ErrorRate::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn fmr_and_fpir_are_each_other_s_inverse(fpir in 1e-6..0.5_f64, n in 1_u32..100_000_000) {
            let fmr = rate(fpir).fmr_for_templates(u64::from(n)).get();
            let back = -(f64::from(n) * (-fmr).ln_1p()).exp_m1();
            prop_assert!((back - fpir).abs() < 1e-9 * fpir.max(1e-3), "{back} {fpir}");
        }

        #[test]
        fn a_gallery_is_outgrown_by_one_template_more_than_its_reach(fpir in 1e-8..0.9_f64) {
            let beyond = |templates| {
                let threshold = table().threshold_for_fpir(rate(fpir), templates);
                threshold.basis == ThresholdBasis::BeyondTable
            };
            let reach = table().reach(rate(fpir)).calibrated;
            prop_assert!(!beyond(reach), "{reach}");
            prop_assert!(beyond(reach + 1), "{reach}");
        }

        #[test]
        fn a_larger_gallery_never_lowers_the_threshold(
            fpir in 1e-6..0.9_f64, n in 0_u64..1 << 40, more in 0_u64..1 << 40,
        ) {
            let of = |n| table().threshold_for_fpir(rate(fpir), n).similarity;
            prop_assert!(of(n) <= of(n + more));
        }

        #[test]
        fn a_stricter_rate_never_lowers_the_threshold(a in -8.99..-1.01_f64, b in -8.99..-1.01_f64) {
            let of = |log: f64| table().threshold_for_fmr(rate(10_f64.powf(log))).unwrap();
            let (strict, lax) = (a.min(b), a.max(b));
            prop_assert!(of(strict).similarity >= of(lax).similarity);
        }
    }
}
