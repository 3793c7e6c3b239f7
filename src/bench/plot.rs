//! The plot of a run: latency by percentile, and over time.

use super::record::Times;
use super::report::Report;
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 760);
/// Percentiles are drawn by how rare what exceeds them is: 1 in 1, 1 in 10, to 1 in 100,000.
const MOST_NINES: f64 = 5.0;
const STEPS: usize = 200;

/// Draws it, as the text of an SVG file.
///
/// # Errors
/// What is not possible to draw.
pub fn plotted(report: &Report) -> Result<String, String> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn draw(report: &Report, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title =
        format!("{} {}, {} connections", report.plan.workload.name(), report.plan.url.text, report.plan.connections);
    let area = area.titled(&title, ("sans-serif", 20))?;
    let (upper, lower) = area.split_vertically(SIZE.1 as i32 / 2 - 20);
    draw_percentiles(&upper, &report.record.latency)?;
    draw_over_time(&lower, report)?;
    area.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn milliseconds(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn draw_percentiles(area: &Area<'_>, times: &Times) -> Result<(), Box<dyn std::error::Error>> {
    let points = (0..=STEPS).map(|step| {
        let nines = MOST_NINES * step as f64 / STEPS as f64;
        (nines, milliseconds(times.percentile(100.0 * (1.0 - 10f64.powf(-nines)))))
    });
    let points: Vec<(f64, f64)> = points.collect();
    let top = points.last().map_or(0.0, |point| point.1).max(0.001) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption("latency by percentile", ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..MOST_NINES, 0.0..top)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .x_label_formatter(&|nines| match nines.round() as i32 {
            0 => "0 %".into(),
            1 => "90 %".into(),
            more => format!("99{}{} %", if more > 2 { "." } else { "" }, "9".repeat((more - 2).max(0) as usize)),
        })
        .y_desc("ms")
        .light_line_style(WHITE)
        .draw()?;
    chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
    Ok(())
}

fn draw_over_time(area: &Area<'_>, report: &Report) -> Result<(), Box<dyn std::error::Error>> {
    let intervals = &report.record.intervals;
    let end = intervals.last().map_or(1.0, |interval| interval.end.as_secs_f64()).max(0.001);
    let top = intervals.iter().map(|interval| milliseconds(interval.p99)).fold(0.001, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption("latency over time: p50 (blue) and p99 (red) of each second", ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart.configure_mesh().x_desc("s").y_desc("ms").light_line_style(WHITE).draw()?;
    let p50 = intervals.iter().map(|interval| (interval.end.as_secs_f64(), milliseconds(interval.p50)));
    let p99 = intervals.iter().map(|interval| (interval.end.as_secs_f64(), milliseconds(interval.p99)));
    chart.draw_series(LineSeries::new(p50, BLUE.stroke_width(2)).point_size(3))?;
    chart.draw_series(LineSeries::new(p99, RED.stroke_width(2)).point_size(3))?;
    Ok(())
}
