//! The reference of settings, `docs/settings.md`, written from the declarations.

use std::fmt::Write;

use super::setting::{Declaration, DefaultValue, Group};
use super::{settings, triton};

const INTRODUCTION: &str = "\
<!-- Written from server/src/config/settings.rs: VOLLEY_UPDATE_DOCS=1 cargo test -p volley config::reference -->
# Settings

Each setting is a flag (`--http-port 9000` or `--http-port=9000`), an environment variable
(`VOLLEY_HTTP_PORT=9000`) and a key of the TOML file that `--config` names (`http-port = 9000`; underscores do as
well). When several give it, the flag wins, then the environment, then the file. A wrong value stops the start
with a sentence that names the setting, the value and where it was given.

- A boolean is `true`, `on`, `yes` or `1`, or `false`, `off`, `no` or `0`, in any case; the flag alone is `true`.
- A duration is a number in the unit its row names, or carries its own: `500ms`, `5s`, `2m`.
- A setting that may be repeated takes an array in the file (`model-repository = [\"a\", \"b\"]`) and semicolons in
  the environment (`VOLLEY_MODEL_REPOSITORY=\"a;b\"`). The values of the strongest source replace those of others.
- An environment variable that is empty counts as not set.
- Names that Triton has mean what they mean there. Other defaults than Triton's: `--exit-on-error` (there `true`),
  `--http-thread-count` (8) and `--id` (`triton`).
";

/// The whole page.
fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for group in Group::ALL {
        let _ = write!(page, "\n## {}\n\n", group.title());
        page.push_str("| Setting | Default | Value | Meaning |\n|---|---|---|---|\n");
        let rows = settings::ALL.iter().filter(|declaration| declaration.group == group);
        for declaration in rows {
            let _ = writeln!(page, "{}", row(declaration));
        }
    }
    page.push_str(
        "\n## Options of Triton without effect\n\nAccepted, so that command lines made for Triton start Volley \
         unchanged, and named once in the log:\n\n",
    );
    for option in triton::OPTIONS.iter().filter(|option| option.refusal.is_none()) {
        let _ = writeln!(page, "- `--{}`", option.name);
    }
    page.push_str(
        "\n## Options of Triton that are refused\n\nIgnoring these would leave open what was meant to be closed, \
         so the server does not start with them:\n\n",
    );
    for option in triton::OPTIONS {
        if let Some(reason) = option.refusal {
            let _ = writeln!(page, "- `--{}`: {reason}", option.name);
        }
    }
    page
}

fn row(declaration: &Declaration) -> String {
    let default = match declaration.default {
        DefaultValue::Value(value) => format!("`{value}`"),
        DefaultValue::Derived(words) => words.to_owned(),
        DefaultValue::Absent => "none".to_owned(),
    };
    let also: String = declaration.aliases.iter().map(|alias| format!(", `--{alias}`")).collect();
    let value = if declaration.switch { "a boolean" } else { declaration.accepts };
    format!("| `--{}`{also} | {default} | {value} | {} |", declaration.name, declaration.help)
}

#[test]
fn the_page_in_the_repository_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    if std::env::var_os("VOLLEY_UPDATE_DOCS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page(), "docs/settings.md is not current; run this test with VOLLEY_UPDATE_DOCS=1");
}
