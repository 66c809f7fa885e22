//! How often and how soon each rule rolls back, over the true error rate.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::page::rules;
use crate::rules::LIMIT;
use crate::trial::Trial;

const SIZE: (u32, u32) = (960, 470);
/// Pixels at the bottom for the names of the rules.
const LEGEND: u32 = 70;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(55, 65, 81);
const GRID: RGBColor = RGBColor(225, 228, 232);
/// Colours that people who see few of them can tell apart (Okabe and Ito); the gate's is the last.
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(0, 158, 115), RGBColor(204, 121, 167), RGBColor(213, 94, 0)];
/// True error rates, from a tenth of the limit to a hundred times it, ten for each factor of ten.
const STEPS: i32 = 30;
const RATES: Range<f64> = 0.000_09..0.11;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What became of canaries under a rule.
struct Curve {
    name: &'static str,
    color: RGBColor,
    width: u32,
    trials: Vec<(f64, Trial)>,
}

/// One of the two diagrams.
struct Diagram {
    title: &'static str,
    bottom: f64,
    top: f64,
    figure: fn(&Trial) -> Option<f64>,
}

/// The plot.
pub(crate) fn svg() -> String {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).unwrap();
        let curves = curves();
        let (diagrams, legend) = area.split_vertically(SIZE.1 - LEGEND);
        let (left, right) = diagrams.split_horizontally(SIZE.0 / 2);
        let often = Diagram {
            title: "Rolled back within the hour, %",
            bottom: 0.0,
            top: 102.0,
            figure: |trial| Some(100.0 * trial.rolled_back()),
        };
        let soon = Diagram {
            title: "Seconds until half are rolled back",
            bottom: 3.0,
            top: 4000.0,
            figure: Trial::median,
        };
        diagram(&left, &curves, &often, often.bottom..often.top);
        diagram(&right, &curves, &soon, (soon.bottom..soon.top).log_scale());
        names(&legend, &curves);
        area.present().unwrap();
    }
    text
}

fn curves() -> Vec<Curve> {
    let rates: Vec<f64> = (0..=STEPS).map(|step| 1e-4 * 10_f64.powf(f64::from(step) / 10.0)).collect();
    let with_colors = rules().into_iter().zip(COLORS);
    with_colors
        .map(|((name, rule), color)| Curve {
            name,
            color,
            width: if color == COLORS[3] { 4 } else { 2 },
            trials: rates.iter().map(|rate| (*rate, Trial::of(*rate, &rule))).collect(),
        })
        .collect()
}

/// A diagram over the true error rate, with a line at the limit.
fn diagram<C, Y>(area: &Area<'_>, curves: &[Curve], diagram: &Diagram, axis: C)
where
    C: AsRangedCoord<CoordDescType = Y, Value = f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .caption(diagram.title, (FONT, 18).into_font().color(&INK))
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(RATES.log_scale(), axis)
        .unwrap();
    let text = (FONT, 13).into_font().color(&INK);
    chart
        .configure_mesh()
        .x_desc("true error rate (the limit is 0.1 %)")
        .x_label_formatter(&|rate| percent(*rate))
        .y_label_formatter(&|value| format!("{value}"))
        .label_style(text.clone())
        .axis_desc_style(text)
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .draw()
        .unwrap();
    let ends = [(LIMIT, diagram.bottom), (LIMIT, diagram.top)];
    chart.draw_series(LineSeries::new(ends, INK.stroke_width(1))).unwrap();
    for curve in curves {
        let figure = |(rate, trial): &(f64, Trial)| Some((*rate, (diagram.figure)(trial)?));
        let points = curve.trials.iter().filter_map(figure);
        chart.draw_series(LineSeries::new(points, curve.color.stroke_width(curve.width))).unwrap();
    }
}

/// Two in a line.
fn names(area: &Area<'_>, curves: &[Curve]) {
    for (index, curve) in (0..).zip(curves) {
        let (x, y) = (66 + index % 2 * 450, 14 + index / 2 * 26);
        let line = PathElement::new([(x, y), (x + 28, y)], curve.color.stroke_width(curve.width));
        area.draw(&line).unwrap();
        let style = (FONT, 15).into_font().color(&INK);
        area.draw(&Text::new(curve.name, (x + 38, y - 6), style)).unwrap();
    }
}

/// 0.1 % for 0.001.
fn percent(rate: f64) -> String {
    format!("{} %", (rate * 1e6).round() / 1e4)
}
