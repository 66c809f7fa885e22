//! The report as a picture: requests each second and p99 latency over the requests in flight.

use std::ops::Range;

use anyhow::{Context as _, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::{Loaded, Report, Row};

const SIZE: (u32, u32) = (960, 440);
/// Pixels at the bottom for the names of the servers, three to a line.
const LEGEND: u32 = 90;
const NAMES_IN_A_LINE: usize = 3;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(55, 65, 81);
const GRID: RGBColor = RGBColor(225, 228, 232);
/// The floors, which are no servers of models.
const FLOOR: RGBColor = RGBColor(140, 146, 156);
/// The product, then its peers: colours that people who see few of them can tell apart (Okabe and Ito).
const VOLLEY: RGBColor = RGBColor(213, 94, 0);
const OTHERS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(181, 148, 0),
    RGBColor(90, 60, 150),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One of the two diagrams.
struct Diagram {
    title: &'static str,
    figure: fn(&Loaded) -> f64,
    label: fn(f64) -> String,
}

/// A server's line.
struct Line<'a> {
    row: &'a Row,
    color: RGBColor,
    width: u32,
}

/// Draws `report` as SVG.
pub(super) fn svg(report: &Report) -> Result<String> {
    let mut text = String::new();
    draw(report, &mut text).context("cannot draw the plot")?;
    Ok(text)
}

fn draw(report: &Report, text: &mut String) -> Result<()> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let (diagrams, legend) = area.split_vertically(SIZE.1 - LEGEND);
    let (left, right) = diagrams.split_horizontally(SIZE.0 / 2);
    let lines = lines(report);
    let throughput = Diagram {
        title: "Requests per second",
        figure: |load| load.requests_per_second,
        label: |value| short(value),
    };
    let latency = Diagram {
        title: "p99 latency, ms",
        figure: |load| load.p99_micros / 1e3,
        label: |value| format!("{value}"),
    };
    diagram(&left, &lines, &throughput)?;
    diagram(&right, &lines, &latency)?;
    names(&legend, &lines)?;
    area.present().map_err(failed)
}

/// Those that were measured over HTTP; gRPC is in the tables.
fn lines(report: &Report) -> Vec<Line<'_>> {
    let mut others = OTHERS.iter().cycle();
    let drawn = report.rows.iter().filter(|row| row.is_measured() && row.protocol == "http-json");
    drawn
        .map(|row| match row.name {
            "volley" => Line { row, color: VOLLEY, width: 4 },
            "floor" => Line { row, color: FLOOR, width: 2 },
            _ => Line { row, color: *others.next().unwrap_or(&INK), width: 2 },
        })
        .collect()
}

/// Both axes are logarithmic: servers differ by factors.
fn diagram(area: &Area<'_>, lines: &[Line<'_>], diagram: &Diagram) -> Result<()> {
    let points = |line: &Line<'_>| points(line.row, diagram.figure);
    let all: Vec<(f64, f64)> = lines.iter().flat_map(points).collect();
    let (x, y) = (span(all.iter().map(|point| point.0)), span(all.iter().map(|point| point.1)));
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .caption(diagram.title, (FONT, 18).into_font().color(&INK))
        .x_label_area_size(38)
        .y_label_area_size(52)
        .build_cartesian_2d(x.log_scale().base(2.0), y.log_scale())
        .map_err(failed)?;
    let text = (FONT, 13).into_font().color(&INK);
    chart
        .configure_mesh()
        .x_desc("requests in flight")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| (diagram.label)(*value))
        .label_style(text.clone())
        .axis_desc_style(text)
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(failed)?;
    for line in lines {
        let style = line.color.stroke_width(line.width);
        chart.draw_series(LineSeries::new(points(line), style)).map_err(failed)?;
        let dots = points(line).into_iter().map(|point| Circle::new(point, 4, line.color.filled()));
        chart.draw_series(dots).map_err(failed)?;
    }
    Ok(())
}

/// What was measured and can stand on a logarithmic axis.
#[expect(clippy::cast_precision_loss, reason = "a number of requests in flight is small")]
fn points(row: &Row, figure: fn(&Loaded) -> f64) -> Vec<(f64, f64)> {
    let loads = row.figures().map_or(&[][..], |figures| &figures.loads);
    let points = loads.iter().map(|load| (load.concurrency as f64, figure(load)));
    points.filter(|point| point.1 > 0.0).collect()
}

/// From below the least to above the greatest, with a little air.
fn span(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let greatest = values.fold(0.0, f64::max);
    if least > greatest { 0.9..1.1 } else { least * 0.85..greatest * 1.25 }
}

fn names(area: &Area<'_>, lines: &[Line<'_>]) -> Result<()> {
    let width = SIZE.0 / u32::try_from(NAMES_IN_A_LINE)?;
    for (index, line) in lines.iter().enumerate() {
        let (across, down) = (index % NAMES_IN_A_LINE, index / NAMES_IN_A_LINE);
        let x = i32::try_from(width * u32::try_from(across)?)? + 66;
        let y = i32::try_from(down)? * 24 + 14;
        let sample = PathElement::new([(x, y), (x + 28, y)], line.color.stroke_width(line.width));
        area.draw(&sample).map_err(failed)?;
        area.draw(&Circle::new((x + 14, y), 4, line.color.filled())).map_err(failed)?;
        let style = (FONT, 15).into_font().color(&INK);
        area.draw(&Text::new(line.row.title, (x + 38, y - 6), style)).map_err(failed)?;
    }
    Ok(())
}

/// 20k for 20,000.
fn short(value: f64) -> String {
    if value >= 1e3 { format!("{}k", value / 1e3) } else { format!("{value}") }
}

/// The errors of plotters borrow what they are about.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::report;
    use super::*;

    #[test]
    fn each_measured_server_has_a_line_and_a_name() {
        let text = svg(&report()).unwrap();
        assert!(text.starts_with("<svg") && text.contains("Volley") && text.contains("mosec"), "{text}");
        assert!(!text.contains("Ray Serve"), "it was not measured");
        assert!(text.contains("Requests per second") && text.len() < 100_000, "{} bytes", text.len());
    }

    #[test]
    fn nothing_measured_is_no_reason_to_fail() {
        let mut report = report();
        report.rows.clear();
        svg(&report).unwrap();
    }

    #[test]
    fn what_cannot_be_drawn_on_a_logarithmic_axis_is_left_out() {
        let mut report = report();
        if let super::super::report::Outcome::Measured(figures) = &mut report.rows[0].outcome {
            figures.loads[0].requests_per_second = 0.0;
        }
        assert_eq!(points(&report.rows[0], |load| load.requests_per_second).len(), 1);
    }

    #[test]
    fn thousands_are_short() {
        assert_eq!((short(20_000.0), short(500.0)), ("20k".to_owned(), "500".to_owned()));
    }
}
