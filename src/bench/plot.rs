//! The plot of a run: latency by percentile, and throughput and latency over time.
//!
//! Latencies are on a logarithmic axis, so that one outlier does not flatten the rest.

use super::plan::Plan;
use super::record::Times;
use super::report::{Report, described, grouped, short, unit};
use crate::os::clock::unix_time;
use crate::time::calendar::Utc;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::time::Duration;

const SIZE: (u32, u32) = (960, 1000);
const HEAD_HEIGHT: u32 = 78;
/// Percentiles are placed by how rarely they are exceeded: 1 in 1, 1 in 10, up to 1 in 100,000.
const MOST_NINES: f64 = 5.0;
const STEPS: usize = 200;
/// Most labels on an axis.
const MOST_LABELS: usize = 8;
/// Characters that fit into the first line and into the others.
const TITLE_CHARACTERS: usize = 80;
const LINE_CHARACTERS: usize = 125;

const GREY: RGBColor = RGBColor(90, 96, 110);
// Distinct with every kind of colour vision (Okabe and Ito).
const FIRST: RGBColor = RGBColor(0, 114, 178);
const SECOND: RGBColor = RGBColor(213, 94, 0);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// Draws the plot, as the text of an SVG file.
///
/// # Errors
/// When the plot cannot be drawn.
pub fn plotted(report: &Report) -> Result<String, String> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn draw(report: &Report, svg: &mut String) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (head, panels) = area.split_vertically(HEAD_HEIGHT);
    draw_head(&head, report)?;
    let panels = panels.split_evenly((3, 1));
    draw_percentiles(&panels[0], &report.record.latency)?;
    draw_throughput(&panels[1], report)?;
    draw_latency(&panels[2], report)?;
    area.present()?;
    Ok(())
}

/// Draws what was run, with which version and when, and whether there were errors.
fn draw_head(area: &Area<'_>, report: &Report) -> Drawn {
    let Plan { workload, url, .. } = &*report.plan;
    let centred = |size: u32, colour: RGBColor| {
        ("sans-serif", size).into_font().color(&colour).pos(Pos::new(HPos::Center, VPos::Top))
    };
    let date = Utc::from_unix(unix_time().as_secs()).seconds().replace('T', " ");
    let about = format!("{}, percore {}, {date} UTC", described(&report.plan), env!("CARGO_PKG_VERSION"));
    let (result, colour) = match report.errors() {
        0 => ("no errors".to_owned(), GREY),
        errors => (format!("{} errors", grouped(errors as f64)), RED),
    };
    let middle = SIZE.0 as i32 / 2;
    let title = format!("{} {}", workload.name(), url.text);
    area.draw(&Text::new(fitted(&title, TITLE_CHARACTERS), (middle, 12), centred(21, BLACK)))?;
    area.draw(&Text::new(fitted(&about, LINE_CHARACTERS), (middle, 38), centred(14, GREY)))?;
    area.draw(&Text::new(result, (middle, 57), centred(14, colour)))?;
    Ok(())
}

/// Shortens a text that does not fit, and marks that.
fn fitted(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A logarithmic axis for times: logarithms of its ends and of its labels.
struct LogAxis {
    ends: (f64, f64),
    labels: Vec<f64>,
}

impl LogAxis {
    /// Makes an axis for all of these times; zero counts as the shortest measurable time.
    fn of(times: impl Iterator<Item = Duration>) -> LogAxis {
        let logs: Vec<f64> = times.map(log).collect();
        let least = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = if least <= most { (least, most) } else { (log(Duration::ZERO), 0.0) };
        let steps = |of: &[f64]| -> Vec<f64> {
            let decades = least.floor() as i32 - 1..=most.ceil() as i32 + 1;
            decades.flat_map(|decade| of.iter().map(move |digit| f64::from(decade) + digit.log10())).collect()
        };
        // From the last round time below to the first above.
        let within = |all: Vec<f64>| -> Vec<f64> {
            let start = all.iter().rposition(|at| *at <= least + 1e-9).unwrap_or(0);
            let end = all.iter().position(|at| *at >= most - 1e-9 && *at > all[start]).unwrap_or(all.len() - 1);
            all[start..=end].to_vec()
        };
        let fine = within(steps(&[1.0, 2.0, 5.0]));
        let labels = if fine.len() > MOST_LABELS { within(steps(&[1.0])) } else { fine };
        let ends = (labels.first().copied().unwrap_or(least), labels.last().copied().unwrap_or(most));
        LogAxis { ends, labels }
    }
}

impl Ranged for LogAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (value - self.ends.0) / (self.ends.1 - self.ends.0);
        start + (share * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.labels.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.ends.0..self.ends.1
    }
}

/// The logarithm of a time in seconds.
fn log(time: Duration) -> f64 {
    time.max(Duration::from_nanos(1)).as_secs_f64().log10()
}

/// A round time: `10 µs`.
fn time_label(log: &f64) -> String {
    short(Duration::from_secs_f64(10f64.powf(*log))).replace(".00 ", " ").replace(".0 ", " ")
}

fn seconds_label(seconds: &f64) -> String {
    ((seconds * 10.0).round() / 10.0).to_string()
}

fn builder<'a, 'b>(area: &'a Area<'b>, caption: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.caption(caption, ("sans-serif", 15)).margin(10).margin_right(44);
    chart.x_label_area_size(42).y_label_area_size(92);
    chart
}

fn draw_percentiles(area: &Area<'_>, times: &Times) -> Drawn {
    let points = (0..=STEPS).map(|step| {
        let nines = MOST_NINES * step as f64 / STEPS as f64;
        (nines, times.percentile(100.0 * (1.0 - 10f64.powf(-nines))))
    });
    let points: Vec<(f64, Duration)> = if times.count() > 0 { points.collect() } else { Vec::new() };
    let axis = LogAxis::of(points.iter().map(|(_, time)| *time));
    let mut chart = builder(area, "Latency by percentile, logarithmic").build_cartesian_2d(0.0..MOST_NINES, axis)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_labels(6).x_label_formatter(&|nines| match nines.round() as i32 {
        0 => "0 %".into(),
        1 => "90 %".into(),
        more => format!("99{}{} %", if more > 2 { "." } else { "" }, "9".repeat((more - 2).max(0) as usize)),
    });
    mesh.x_desc("of all are at most this slow").y_label_formatter(&time_label).max_light_lines(0).draw()?;
    chart.draw_series(LineSeries::new(points.into_iter().map(|(at, time)| (at, log(time))), FIRST.stroke_width(2)))?;
    Ok(())
}

/// The length of the measurement, in seconds.
fn end_of(report: &Report) -> f64 {
    report.record.intervals.last().map_or(1.0, |interval| interval.end.as_secs_f64()).max(0.001)
}

fn draw_throughput(area: &Area<'_>, report: &Report) -> Drawn {
    let (intervals, unit) = (&report.record.intervals, unit(report.plan.workload));
    let points = intervals.iter().filter(|interval| !interval.length.is_zero());
    let points = points.map(|at| (at.end.as_secs_f64(), at.count as f64 / at.length.as_secs_f64()));
    let points: Vec<(f64, f64)> = points.collect();
    let asked = report.plan.rate;
    let most = points.iter().map(|point| point.1).chain(asked).fold(1.0, f64::max);
    let mut chart = builder(area, &format!("Throughput over time, {unit} per second"))
        .build_cartesian_2d(0.0..end_of(report), 0.0..most * 1.15)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("seconds")
        .x_label_formatter(&seconds_label)
        .y_labels(6)
        .y_label_formatter(&|number| grouped(*number))
        .max_light_lines(0)
        .draw()?;
    let line = LineSeries::new(points, FIRST.stroke_width(2)).point_size(3);
    chart.draw_series(line)?.label(unit).legend(|(x, y)| legend_line(x, y, FIRST));
    if let Some(asked) = asked {
        let ends = [(0.0, asked), (end_of(report), asked)];
        chart
            .draw_series(DashedLineSeries::new(ends, 6, 4, GREY.stroke_width(2)))?
            .label("asked for")
            .legend(|(x, y)| legend_line(x, y, GREY));
    }
    draw_legend(&mut chart, SeriesLabelPosition::LowerRight)
}

fn draw_latency(area: &Area<'_>, report: &Report) -> Drawn {
    let intervals = || report.record.intervals.iter().filter(|interval| interval.count > 0);
    let mut axis = LogAxis::of(intervals().flat_map(|interval| [interval.p50, interval.p99]));
    // Room for the legend.
    axis.ends.1 += 0.3 * (axis.ends.1 - axis.ends.0);
    let mut chart =
        builder(area, "Latency over time, per second, logarithmic").build_cartesian_2d(0.0..end_of(report), axis)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .x_label_formatter(&seconds_label)
        .y_label_formatter(&time_label)
        .max_light_lines(0)
        .draw()?;
    let p50 = intervals().map(|interval| (interval.end.as_secs_f64(), log(interval.p50)));
    let p99 = intervals().map(|interval| (interval.end.as_secs_f64(), log(interval.p99)));
    let p99 = LineSeries::new(p99, SECOND.stroke_width(2)).point_size(3);
    chart.draw_series(p99)?.label("p99").legend(|(x, y)| legend_line(x, y, SECOND));
    let p50 = LineSeries::new(p50, FIRST.stroke_width(2)).point_size(3);
    chart.draw_series(p50)?.label("p50").legend(|(x, y)| legend_line(x, y, FIRST));
    draw_legend(&mut chart, SeriesLabelPosition::UpperRight)
}

type Chart<'a, 'b, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>;

/// Draws the legend in a corner.
fn draw_legend<'a, 'b: 'a, Y: Ranged<ValueType = f64>>(
    chart: &mut Chart<'a, 'b, Y>,
    place: SeriesLabelPosition,
) -> Drawn {
    let mut labels = chart.configure_series_labels();
    labels.position(place).background_style(WHITE.mix(0.85)).border_style(GREY.mix(0.4)).draw()?;
    Ok(())
}

fn legend_line(x: i32, y: i32, colour: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3))
}
