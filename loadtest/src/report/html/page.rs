//! The frame of every page: its style and nothing from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Our own file, the only text of a page that is not escaped.
const STYLE: &str = include_str!("style.css");

/// A page with a `title` that holds `body`.
pub(crate) fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}
