//! Where a gate of the default operating point draws the line in a gallery of some size.

use serde::Deserialize;

use crate::Outcome;

/// The model's measured error rates.
const CALIBRATION: &str = include_str!("../../../models/research/calibration.json");
/// False positive identifications among strangers that a gate accepts: with N templates, one
/// comparison may go wrong so often divided by N.
const FPIR: f64 = 0.01;

#[derive(Deserialize)]
struct Calibration {
    table: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    fmr: f64,
    threshold: f64,
}

/// The cosine at FMR = 0.01 / `templates`, straight between the calibration's points over the
/// logarithm of FMR, and no further than these go.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a cosine")]
pub(crate) fn at(templates: usize) -> Outcome<f32> {
    let calibration: Calibration = serde_json::from_str(CALIBRATION)?;
    let mut points: Vec<_> =
        calibration.table.iter().map(|point| (-point.fmr.log10(), point.threshold)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = -(FPIR / templates as f64).log10();
    let above = points.iter().position(|point| point.0 >= wanted).unwrap_or(points.len() - 1);
    let (low, high) = (points[above.saturating_sub(1)], points[above]);
    let share = if high.0 > low.0 { (wanted - low.0) / (high.0 - low.0) } else { 0.0 };
    Ok((low.1 + share.clamp(0.0, 1.0) * (high.1 - low.1)) as f32)
}

#[cfg(test)]
mod tests {
    use super::at;

    #[test]
    fn the_line_is_the_calibrations() {
        for (templates, cosine) in [(10_000, 0.4218), (100_000, 0.4846), (1_000_000, 0.5475)] {
            assert!((at(templates).unwrap() - cosine).abs() < 1e-4, "{templates}");
        }
        assert!((0.4218..0.4846).contains(&at(50_000).unwrap()));
    }
}
