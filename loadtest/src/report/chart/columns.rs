//! Columns over names.

use maud::{Markup, html};

use super::{Area, Axis, Hue, Size, px, svg};

/// One column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) title: String,
}

/// Draws `columns` in their order; `names` says what their names are.
pub(crate) fn draw(size: Size, names: &str, y: &Axis, columns: &[Column]) -> Markup {
    let area = Area::inside(size, y);
    #[expect(clippy::cast_precision_loss, reason = "there are few columns")]
    let step = (area.right - area.left) / columns.len().max(1) as f64;
    let width = (0.72 * step).min(64.0);
    let mut middle = area.left - step / 2.0;
    let content = html! {
        @for tick in y.scale.ticks() {
            @let at = area.y(y.scale.part(tick));
            line.gridline x1=(px(area.left)) x2=(px(area.right)) y1=(px(at)) y2=(px(at)) {}
            text.tick x=(px(area.left - 8.0)) y=(px(at + 4.0)) text-anchor="end" { ((y.write)(tick)) }
        }
        g.series style=(Hue::of(0, 1).style()) {
            @for column in columns {
                @let top = area.y(y.scale.part(column.value));
                @let at = { middle += step; middle };
                rect.column x=(px(at - width / 2.0)) y=(px(top)) width=(px(width)) height=(px(area.bottom - top)) {
                    title { (column.title) }
                }
                text.tick x=(px(at)) y=(px(area.bottom + 17.0)) text-anchor="middle" { (column.name) }
            }
        }
        line.axis x1=(px(area.left)) x2=(px(area.right)) y1=(px(area.bottom)) y2=(px(area.bottom)) {}
        text.name x="4" y="12" { (y.name) }
        text.name x=(px(area.right)) y=(px(area.bottom + 36.0)) text-anchor="end" { (names) }
    };
    svg(size, names, &content)
}
