//! The DET plot: false matches against false non-matches, both on the scale of normal deviates
//! (ISO/IEC 19795-1), as SVG.

use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use super::super::exit::{Exit, Failure};
use super::bounds::{Share, deviate};
use super::rates::Curve;

const SIZE: (u32, u32) = (900, 640);
/// Where the axes have lines.
const TICKS: [f64; 12] = [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 2e-1, 4e-1];
/// The axes' other end.
const MOST: f64 = 0.5;
/// The best that the axes show.
const LEAST: f64 = 1e-7;
/// Points of a curve that are nearer to each other look like one.
const STEP: f64 = 0.01;

/// A curve and its name.
pub(super) type Named<'a> = (&'a str, &'a Curve);

/// Draws the whole and its groups.
pub(super) fn draw(path: &Path, curves: &[Named<'_>]) -> Result<(), Failure> {
    drawn(path, curves).map_err(|fault| Failure::new(Exit::Usage, fault.to_string()).about(path))
}

fn drawn(path: &Path, curves: &[Named<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let across = Axis::for_pairs(curves.iter().map(|(_, curve)| curve.impostors()));
    let upwards = Axis::for_pairs(curves.iter().map(|(_, curve)| curve.genuine()));
    let mut chart = ChartBuilder::on(&root)
        .caption("Detection error trade-off", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(across, upwards)?;
    chart
        .configure_mesh()
        .x_desc("false match rate")
        .y_desc("false non-match rate")
        .x_labels(TICKS.len())
        .y_labels(TICKS.len())
        .draw()?;
    for (place, (name, curve)) in curves.iter().enumerate() {
        let colour = if place == 0 { BLACK.to_rgba() } else { Palette99::pick(place).to_rgba() };
        let style = colour.stroke_width(if place == 0 { 2 } else { 1 });
        chart
            .draw_series(LineSeries::new(points(curve), style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

/// Normal deviates, from that of the least rate that the pairs can show.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    #[expect(clippy::cast_precision_loss, reason = "counts of pairs")]
    fn for_pairs(pairs: impl Iterator<Item = u64>) -> Self {
        let least = pairs.max().map_or(LEAST, |most| 1.0 / most.max(4) as f64);
        Self { from: deviate(least.max(LEAST)), to: deviate(MOST) }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    #[expect(clippy::cast_possible_truncation, reason = "pixels")]
    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let part = (value - self.from) / (self.to - self.from);
        first + (part * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        let within = |tick: &f64| self.range().contains(tick);
        TICKS.into_iter().map(deviate).filter(within).collect()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        rate_at(*value)
    }
}

/// The tick's rate, as people write it.
fn rate_at(at: f64) -> String {
    let near = TICKS.into_iter().find(|rate| (deviate(*rate) - at).abs() < 1e-9);
    near.map_or_else(String::new, |rate| {
        if rate < 1e-3 { format!("{rate:e}") } else { format!("{} %", 100.0 * rate) }
    })
}

/// The curve, without points that nobody can tell apart and without rates of nothing, which are
/// infinitely far away.
fn points(curve: &Curve) -> Vec<(f64, f64)> {
    let shown = |share: Share| share.hits > 0 && share.rate() >= LEAST && share.rate() <= MOST;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for edge in curve.edges() {
        let (matches, misses) = (curve.fmr(edge), curve.fnmr(edge));
        if !(shown(matches) && shown(misses)) {
            continue;
        }
        let point = (deviate(matches.rate()), deviate(misses.rate()));
        let far = |last: &(f64, f64)| {
            (last.0 - point.0).abs() >= STEP || (last.1 - point.1).abs() >= STEP
        };
        if points.last().is_none_or(far) {
            points.push(point);
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{Face, compare};
    use super::*;
    use crate::types::Embedding;

    #[test]
    fn a_plot_has_both_axes_on_the_deviate_scale_and_names_its_curves() {
        let face = |place: u16| {
            let mut values = vec![0.1; 128];
            for (at, value) in (0_u16..).zip(values.iter_mut()) {
                *value += f32::from((at * 31 + place * 17 + at * place) % 97) / 50.0 - 1.0;
            }
            let person = usize::from(place / 2);
            Face { embedding: Embedding::normalise(values).unwrap(), person, group: Some(0) }
        };
        let pairs = compare(&(0..60).map(face).collect::<Vec<_>>(), 1, 1);
        let (whole, group) = (Curve::of(&pairs.whole), Curve::of(&pairs.groups[0]));
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("det.svg");
        drawn(&path, &[("all", &whole), ("one & two", &group)]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for words in ["false match rate", "false non-match rate", "10 %", "all", "one &amp; two"] {
            assert!(svg.contains(words), "{words}: {svg}");
        }
        assert!(svg.matches("<polyline").count() >= 2);
        assert!(points(&whole).windows(2).all(|two| two[0].0 >= two[1].0 && two[0].1 <= two[1].1));
    }
}
