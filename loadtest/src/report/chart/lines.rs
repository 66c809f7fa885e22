//! Lines over two axes.

use maud::{Markup, html};

use super::{Area, Axis, Hue, Size, axes, px, svg};

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Shown when the pointer is on the line.
    pub(crate) title: String,
    pub(crate) hue: Hue,
    pub(crate) dashed: bool,
    pub(crate) points: Vec<(f64, f64)>,
    /// Points with a word of their own.
    pub(crate) marks: Vec<Mark>,
}

/// A point that tells more when the pointer is on it.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) at: (f64, f64),
    pub(crate) title: String,
    /// Written beside the point; the point itself is then drawn, too.
    pub(crate) label: Option<String>,
}

/// Draws `lines` over the axes `x` and `y`.
pub(crate) fn draw(size: Size, name: &str, [x, y]: [&Axis; 2], lines: &[Line]) -> Markup {
    let area = Area::inside(size, y);
    let place = |(at_x, at_y): (f64, f64)| (area.x(x.scale.part(at_x)), area.y(y.scale.part(at_y)));
    let content = html! {
        (axes(&area, x, y))
        @for line in lines {
            g.series style=(line.hue.style()) {
                path.dashed[line.dashed] d=(path(line.points.iter().map(|point| place(*point)))) {
                    title { (line.title) }
                }
                @if let [only] = line.points.as_slice() {
                    @let (cx, cy) = place(*only);
                    circle.dot cx=(px(cx)) cy=(px(cy)) r="3.5" { title { (line.title) } }
                }
            }
        }
        // After all lines, so that no line hides a point from the pointer.
        @for line in lines {
            g.series style=(line.hue.style()) {
                @for mark in &line.marks { (draw_mark(place(mark.at), mark, &area)) }
            }
        }
    };
    svg(size, name, &content)
}

fn draw_mark((cx, cy): (f64, f64), mark: &Mark, area: &Area) -> Markup {
    let class = if mark.label.is_some() { "dot" } else { "hover" };
    let radius = if mark.label.is_some() { "4" } else { "8" };
    // A line that rises leaves room to the left of its points; beside the left border there is none.
    let at_start = cx < area.left + 40.0;
    let (anchor, shift) = if at_start { ("start", 8.0) } else { ("end", -6.0) };
    html! {
        circle class=(class) cx=(px(cx)) cy=(px(cy)) r=(radius) { title { (mark.title) } }
        @if let Some(label) = &mark.label {
            text.label x=(px(cx + shift)) y=(px((cy - 7.0).max(area.top + 4.0))) text-anchor=(anchor) { (label) }
        }
    }
}

/// The `d` of a path through `points`, without those that move it less than half a pixel.
fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    let mut last: Option<(f64, f64)> = None;
    for (x, y) in points {
        if last.is_some_and(|(last_x, last_y)| (x - last_x).abs() < 0.5 && (y - last_y).abs() < 0.5) {
            continue;
        }
        path.push(if last.is_none() { 'M' } else { 'L' });
        path.push_str(&format!("{} {}", px(x), px(y)));
        last = Some((x, y));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::HALF;
    use crate::report::chart::scale::Scale;

    #[test]
    fn a_path_leaves_out_points_that_nobody_sees() {
        let points = [(0.0, 0.0), (0.1, 0.1), (10.0, 5.25), (10.0, 9.0)];
        assert_eq!(path(points.into_iter()), "M0 0L10 5.2L10 9");
        assert_eq!(path([].into_iter()), "");
    }

    #[test]
    fn values_outside_the_axes_stay_inside_the_frame() {
        let axis = |to| Axis {
            name: "n".to_owned(),
            scale: Scale::Linear { from: 0.0, to },
            write: |value| value.to_string(),
        };
        let points = vec![(0.0, 1.0), (99.0, f64::INFINITY), (f64::NAN, -5.0)];
        let line =
            Line { title: "<t>".to_owned(), hue: Hue::of(0, 1), dashed: false, points, marks: Vec::new() };
        let text = draw(HALF, "n", [&axis(10.0), &axis(2.0)], &[line]).into_string();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert!(text.contains("&lt;t&gt;"), "{text}");
    }
}
