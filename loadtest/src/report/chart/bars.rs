//! Horizontal bars of parts that make a whole.

use maud::{Markup, html};

use super::{Size, px, svg, text_width};

/// One bar: a name, its parts, and the whole in words.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    /// In the order of the classes given to [`draw`].
    pub(crate) parts: Vec<Part>,
    /// Written after the bar.
    pub(crate) whole: String,
}

/// A part of a bar.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// In any unit: a bar is as long as the sum of its parts is of the longest.
    pub(crate) value: f64,
    pub(crate) title: String,
}

const ROW: f64 = 30.0;

/// Draws each bar over the full width, divided as its parts divide the whole. The style sheet colours the parts
/// by the classes `part0`, `part1` and so on.
pub(crate) fn draw(width: f64, name: &str, bars: &[Bar]) -> Markup {
    let widest = |text: fn(&Bar) -> &str| bars.iter().map(|bar| text_width(text(bar))).fold(0.0, f64::max);
    let left = 12.0 + widest(|bar| &bar.name);
    let right = width - 12.0 - widest(|bar| &bar.whole);
    #[expect(clippy::cast_precision_loss, reason = "there are few bars")]
    let size = Size { width, height: ROW * bars.len() as f64 + 6.0 };
    let mut top = 4.0;
    let rows: Vec<Markup> = bars
        .iter()
        .map(|bar| {
            let row = draw_bar(bar, (left, right), top);
            top += ROW;
            row
        })
        .collect();
    svg(size, name, &html! { @for row in rows { (row) } })
}

fn draw_bar(bar: &Bar, (left, right): (f64, f64), top: f64) -> Markup {
    let sum: f64 = bar.parts.iter().map(|part| part.value).sum();
    let mut start = left;
    let mut pieces = Vec::with_capacity(bar.parts.len());
    for (index, part) in bar.parts.iter().enumerate() {
        let width = if sum > 0.0 { (right - left) * part.value / sum } else { 0.0 };
        pieces.push((index, start, width, part));
        start += width;
    }
    let middle = top + 15.0;
    html! {
        text.tick x=(px(left - 8.0)) y=(px(middle)) text-anchor="end" { (bar.name) }
        @for (index, start, width, part) in pieces {
            @if width > 0.05 {
                rect class=(format!("part part{index}")) x=(px(start)) y=(px(top)) width=(px(width)) height="22" {
                    title { (part.title) }
                }
                @if width > 44.0 {
                    text class=(format!("inside inside{index}")) x=(px(start + width / 2.0)) y=(px(middle)) text-anchor="middle" {
                        (format!("{:.0} %", 100.0 * part.value / sum))
                    }
                }
            }
        }
        text.tick x=(px(right + 8.0)) y=(px(middle)) { (bar.whole) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_the_bar_and_nothing_of_nothing_is_no_bar() {
        let part = |value| Part { value, title: "t".to_owned() };
        let bar = |parts| Bar { name: "n".to_owned(), parts, whole: "w".to_owned() };
        let text = draw(500.0, "n", &[bar(vec![part(1.0), part(3.0)])]).into_string();
        assert!(text.contains("25 %") && text.contains("75 %"), "{text}");
        let text = draw(500.0, "n", &[bar(vec![part(0.0), part(0.0)])]).into_string();
        assert!(!text.contains("rect") && !text.contains("NaN"), "{text}");
    }
}
