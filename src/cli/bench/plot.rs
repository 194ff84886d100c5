//! Throughput against p99 latency, one point a step, as SVG.

use std::path::Path;

use plotters::prelude::*;

use super::super::exit::{Exit, Failure};
use super::report::Report;

const SIZE: (u32, u32) = (800, 500);

/// Draws the verifications of all steps.
pub(super) fn draw(path: &Path, report: &Report) -> Result<(), Failure> {
    let points: Vec<(f64, f64)> = report
        .steps
        .iter()
        .filter_map(|step| step.kinds.get("verify"))
        .map(|verify| (verify.per_second, verify.latency_ms.p99))
        .collect();
    drawn(path, &points).map_err(|fault| Failure::new(Exit::Usage, fault.to_string()).about(path))
}

fn drawn(path: &Path, points: &[(f64, f64)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let most = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&root)
        .caption("Verify: throughput against p99", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..most(|p| p.0), 0.0..most(|p| p.1))?;
    chart.configure_mesh().x_desc("answered a second").y_desc("p99, ms").draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), &BLUE))?;
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, BLUE.filled())))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_axes_and_has_a_point_a_step() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("plot.svg");
        drawn(&path, &[(100.0, 5.0), (200.0, 9.0), (250.0, 80.0)]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("p99, ms"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(drawn(&place.path().join("no/such/folder.svg"), &[]).is_err());
    }
}
