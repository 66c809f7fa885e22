//! Charts as inline SVG: drawn from plain values, coloured by the page's style sheet.
//!
//! A library would paint fixed colours, and the page has a light and a dark form; a chart is a few lines, labels
//! and titles, so it is drawn here. Every text goes through `maud`, which escapes it.

pub(crate) mod bars;
pub(crate) mod columns;
pub(crate) mod grid;
pub(crate) mod lines;
pub(crate) mod scale;

use maud::{Markup, html};

use self::scale::Scale;

/// The plane that a chart is drawn on, in the units of its `viewBox`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// Across the whole page.
pub(crate) const WIDE: Size = Size { width: 1080.0, height: 360.0 };
/// Beside another one.
pub(crate) const HALF: Size = Size { width: 530.0, height: 290.0 };

/// An axis: its name with the unit, its scale, and how a value is written beside it.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) scale: Scale,
    pub(crate) write: fn(f64) -> String,
}

/// A colour, as a hue of the style sheet: lightness and strength follow from light or dark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Hue(f64);

impl Hue {
    /// The colour of the `index`-th of `count` things in order: from blue over green to red, so that neighbours
    /// look alike and a trend is seen.
    pub(crate) fn of(index: usize, count: usize) -> Hue {
        const LAST: f64 = 25.0;
        // Many need more of the circle, so they begin with violet.
        let first = if count > 6 { 295.0 } else { 258.0 };
        #[expect(clippy::cast_precision_loss, reason = "there are few runs")]
        let place = if count < 2 { 0.0 } else { index as f64 / (count - 1) as f64 };
        Hue(first + (LAST - first) * place)
    }

    /// For `style`.
    pub(crate) fn style(self) -> String {
        format!("--h:{:.0}", self.0)
    }
}

/// What a colour means.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) hue: Hue,
}

/// The names of the colours, above a chart: text that wraps, so it is never cut.
pub(crate) fn legend(keys: &[Key]) -> Markup {
    html! {
        ul.legend {
            @for key in keys {
                li { span.key style=(key.hue.style()) {} (key.name) }
            }
        }
    }
}

/// A chart's frame: the title, what the reader should see in it, its keys, and the drawing.
pub(crate) fn figure(title: &str, note: &str, keys: &[Key], drawing: &Markup) -> Markup {
    html! {
        figure {
            figcaption {
                strong { (title) }
                @if !note.is_empty() { span.note { (note) } }
            }
            @if !keys.is_empty() { (legend(keys)) }
            (drawing)
        }
    }
}

/// The area between the axes, in the units of the `viewBox`.
#[derive(Clone, Copy, Debug)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    /// Leaves room for the labels of `y`, and on the right for half a label of the other axis.
    fn inside(size: Size, y: &Axis) -> Area {
        let labels = y.scale.ticks().into_iter().map(y.write);
        let left = 14.0 + labels.map(|label| text_width(&label)).fold(20.0, f64::max);
        Area { left, right: size.width - 30.0, top: 26.0, bottom: size.height - 44.0 }
    }

    fn x(&self, part: f64) -> f64 {
        self.left + part * (self.right - self.left)
    }

    fn y(&self, part: f64) -> f64 {
        self.bottom - part * (self.bottom - self.top)
    }
}

/// How wide a label is: digits and most letters are narrower than this in all common fonts.
fn text_width(text: &str) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "labels are short")]
    let chars = text.chars().count() as f64;
    7.0 * chars
}

/// A coordinate: a tenth of a pixel is finer than any screen.
fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Grid lines, labels and names of two axes.
fn axes(area: &Area, x: &Axis, y: &Axis) -> Markup {
    html! {
        @for tick in y.scale.ticks() {
            @let at = area.y(y.scale.part(tick));
            line.gridline x1=(px(area.left)) x2=(px(area.right)) y1=(px(at)) y2=(px(at)) {}
            text.tick x=(px(area.left - 8.0)) y=(px(at + 4.0)) text-anchor="end" { ((y.write)(tick)) }
        }
        @for tick in spaced(area, x) {
            @let at = area.x(x.scale.part(tick));
            line.gridline x1=(px(at)) x2=(px(at)) y1=(px(area.top)) y2=(px(area.bottom)) {}
            text.tick x=(px(at)) y=(px(area.bottom + 17.0)) text-anchor="middle" { ((x.write)(tick)) }
        }
        line.axis x1=(px(area.left)) x2=(px(area.right)) y1=(px(area.bottom)) y2=(px(area.bottom)) {}
        text.name x=(px(4.0)) y="12" { (y.name) }
        text.name x=(px(area.right)) y=(px(area.bottom + 36.0)) text-anchor="end" { (x.name) }
    }
}

/// The ticks of a horizontal axis whose labels do not touch each other.
fn spaced(area: &Area, x: &Axis) -> Vec<f64> {
    let mut end = f64::NEG_INFINITY;
    let mut ticks = x.scale.ticks();
    ticks.retain(|tick| {
        let (at, half) = (area.x(x.scale.part(*tick)), text_width(&(x.write)(*tick)) / 2.0);
        let free = at - half > end + 6.0;
        if free {
            end = at + half;
        }
        free
    });
    ticks
}

/// How small a drawing is made where the page is narrow: labels of 12 units stay 8 pixels high, one that stands beside
/// another fits a phone, and a wide one scrolls.
const SMALLEST: f64 = 0.68;

/// The `svg` element; `name` is read out by screen readers.
fn svg(size: Size, name: &str, content: &Markup) -> Markup {
    html! {
        div.scroll {
            svg viewBox=(format!("0 0 {} {}", size.width, size.height)) role="img" aria-label=(name)
                style=(format!("min-width:{:.0}px", SMALLEST * size.width)) { (content) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_keep_their_order_and_never_meet() {
        let hues: Vec<Hue> = (0..12).map(|index| Hue::of(index, 12)).collect();
        assert!(hues.windows(2).all(|pair| pair[0].0 - pair[1].0 > 20.0), "{hues:?}");
        assert_eq!(Hue::of(0, 1), Hue::of(0, 2));
    }

    #[test]
    fn labels_that_would_touch_are_left_out() {
        let scale = Scale::Linear { from: 0.0, to: 10.0 };
        let x = Axis { name: String::new(), scale, write: |value| format!("{value} and a long label") };
        let area = Area { left: 0.0, right: 200.0, top: 0.0, bottom: 10.0 };
        assert!(x.scale.ticks().len() > 2);
        assert_eq!(spaced(&area, &x).len(), 2, "{:?}", spaced(&area, &x));
    }
}
