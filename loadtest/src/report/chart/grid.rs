//! A grid of shares: a row for each thing, a column for each class, darker where more lies.

use maud::{Markup, html};

use super::{Size, px, svg, text_width};

/// One row; its shares are those of the columns, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) shares: Vec<f64>,
}

const ROW: f64 = 26.0;

/// Draws `rows` under `columns`; `names` says what the columns are.
pub(crate) fn draw(width: f64, names: &str, columns: &[String], rows: &[Row]) -> Markup {
    let left = 12.0 + rows.iter().map(|row| text_width(&row.name)).fold(0.0, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "there are few rows and columns")]
    let (height, count) = (ROW * rows.len() as f64 + 44.0, columns.len().max(1) as f64);
    let step = ((width - left - 8.0) / count).min(110.0);
    let starts = |index: usize| {
        std::iter::successors(Some(left), move |at| Some(at + step)).nth(index).unwrap_or(left)
    };
    let mut top = -ROW + 2.0;
    let content = html! {
        @for row in rows {
            @let top = { top += ROW; top };
            text.tick x=(px(left - 8.0)) y=(px(top + 16.0)) text-anchor="end" { (row.name) }
            @for (index, share) in row.shares.iter().enumerate() {
                @let start = starts(index);
                rect.cell x=(px(start)) y=(px(top)) width=(px(step - 2.0)) height=(px(ROW - 2.0))
                    style=(format!("--share:{:.0}%", 100.0 * share.sqrt())) {
                    title { (row.name) ", " (names) " " (columns[index]) ": " (format!("{:.1} %", 100.0 * share)) }
                }
                @if *share >= 0.005 && step >= 34.0 {
                    text.celltext.strong[*share > 0.5] x=(px(start + step / 2.0 - 1.0)) y=(px(top + 16.0)) text-anchor="middle" {
                        (format!("{:.0}%", 100.0 * share))
                    }
                }
            }
        }
        @for (index, column) in columns.iter().enumerate() {
            text.tick x=(px(starts(index) + step / 2.0 - 1.0)) y=(px(height - 26.0)) text-anchor="middle" { (column) }
        }
        text.name x=(px(left)) y=(px(height - 6.0)) { (names) }
    };
    svg(Size { width, height }, names, &content)
}
