//! A measurement as one HTML file that needs nothing else: no script, font, style or picture from elsewhere.

mod batches;
mod page;
mod percentiles;
mod summary;
mod sweep;
mod time_parts;
mod timeline;

use maud::html;

pub(crate) use self::page::document;
pub(crate) use self::percentiles::{curves, draw as draw_percentiles};
pub(crate) use self::summary::facts;
use super::loads::by_load;
use super::{remarks, units};
use crate::measurement::Measurement;

/// The whole page.
pub(crate) fn render(measurement: &Measurement) -> String {
    let loads = by_load(&measurement.runs);
    let models: Vec<&str> = measurement.target.models.keys().map(String::as_str).collect();
    let title = format!("Load on {}", units::plain(&models.join(", "), 80));
    let body = html! {
        header {
            h1 { (title) }
            (facts(measurement))
        }
        main {
            @if let Some(found) = &measurement.found { p.found { (remarks::found(found)) } }
            @for remark in remarks::of(measurement) { p.remark { (remark) } }
            (summary::table(measurement))
            (summary::errors(measurement))
            (sweep::figure(&loads))
            (percentiles::figure(&loads))
            (timeline::figures(&loads))
            (time_parts::figure(&loads))
            (batches::figure(&loads))
        }
    };
    document(&title, &body)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::measurement::{Arrivals, FoundRate, Load, ModelSide};
    use crate::report::sample;

    /// `<script>` and what ends an attribute, where a name from outside may stand.
    const EVIL: &str = "\"'><script>alert(1)</script>&";

    fn evil() -> Measurement {
        let mut measurement = sample::sweep(&[1, 2]);
        for text in [
            &mut measurement.started,
            &mut measurement.machine.cpu,
            &mut measurement.machine.system,
            &mut measurement.machine.generator,
            &mut measurement.target.url,
            &mut measurement.target.protocol,
        ] {
            *text = EVIL.to_owned();
        }
        measurement.command.push(EVIL.to_owned());
        measurement.target.server = Some(EVIL.to_owned());
        measurement.target.models = [(EVIL.to_owned(), 1.0)].into();
        measurement.interrupted = Some(EVIL.to_owned());
        measurement.found = Some(FoundRate {
            objective: EVIL.to_owned(),
            rate: None,
            missed_at: Some(1.0),
            repeats: 1,
            cut_off: true,
        });
        let run = &mut measurement.runs[0];
        run.errors.insert(EVIL.to_owned(), 7);
        let side = run.server.as_mut().unwrap().models.remove("digits").unwrap();
        run.server.as_mut().unwrap().models.insert(EVIL.to_owned(), side);
        measurement
    }

    #[test]
    fn text_from_outside_stays_text() {
        let page = render(&evil());
        assert!(!page.contains("<script"), "a script got into the page");
        let escaped = "&quot;'&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;";
        assert!(page.matches(escaped).count() >= 9, "only {} places", page.matches(escaped).count());
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = render(&sample::sweep(&[1, 2, 4])).replace("http://localhost:8000", "");
        for outside in ["http:", "https:", "url(", "@import", "<link", "<script", " src="] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn every_kind_of_measurement_makes_a_page_of_numbers() {
        for (name, measurement) in kinds() {
            let page = render(&measurement);
            let size = page.len();
            assert!(size < 1_000_000, "{name} has {size} bytes");
            // What a division by nothing would leave in a coordinate or a cell.
            for broken in ["NaN", "inf ", "inf\"", "-0\""] {
                assert!(!page.contains(broken), "{name} contains {broken:?}");
            }
            assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count(), "{name}");
        }
    }

    #[test]
    fn charts_without_values_are_left_out() {
        let page = render(&sample::errors_only());
        assert!(page.contains("No request was answered well"));
        assert!(!page.contains("Where the time goes"));
        assert!(!page.contains("Latency against throughput"));
        let mut nothing = sample::sweep(&[1]);
        nothing.runs.clear();
        assert!(!render(&nothing).contains("<svg"));
    }

    fn kinds() -> Vec<(&'static str, Measurement)> {
        let mut overload = sample::sweep(&[8, 64]);
        overload.runs[1].errors.insert("status 503: Exceeds maximum queue size".to_owned(), 5_321);
        overload.runs[1].send_lag.p99 = 9_000.0;
        overload.runs[1].unanswered = 4;
        for second in &mut overload.runs[1].timeline {
            second.errors = 260;
        }
        let mut nothing = sample::sweep(&[1]);
        nothing.runs.clear();
        nothing.interrupted = Some("no server is listening".to_owned());
        let rates = [250.0, 1000.0, 2000.0, 4000.0, 8000.0];
        let open = |rate: &f64| Load::Open { rate: *rate, arrivals: Arrivals::Poisson };
        let mut found = sample::of(&rates.iter().map(open).collect::<Vec<_>>(), 1);
        found.found = Some(FoundRate {
            objective: "p99 < 10ms".to_owned(),
            rate: Some(4000.0),
            missed_at: Some(8000.0),
            repeats: 1,
            cut_off: false,
        });
        let loads = [1, 2, 4, 8].map(sample::closed);
        vec![
            ("one", sample::sweep(&[8])),
            ("sweep", sample::sweep(&[1, 2, 4, 8, 16, 32])),
            ("twelve", sample::sweep(&[1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 256])),
            ("repeats", sample::of(&loads, 3)),
            ("overload", overload),
            ("errors", sample::errors_only()),
            ("nothing", nothing),
            ("found", found),
            ("two_models", two_models()),
            ("evil", evil()),
        ]
    }

    fn two_models() -> Measurement {
        let mut measurement = sample::sweep(&[16]);
        let models = &mut measurement.runs[0].server.as_mut().unwrap().models;
        let single = ModelSide { batches: [(1, 900), (100, 3)].into(), ..models["digits"].clone() };
        models.insert("a_model_with_quite_a_long_name_as_people_give_them".to_owned(), single);
        measurement
    }

    /// Pages to look at: `VOLLEY_LOAD_PAGES=/tmp/pages cargo test -p volley-load pages_to_look_at`.
    #[test]
    fn pages_to_look_at() {
        let Some(folder) = std::env::var_os("VOLLEY_LOAD_PAGES") else { return };
        fs::create_dir_all(&folder).unwrap();
        for (name, measurement) in kinds() {
            fs::write(Path::new(&folder).join(name).with_extension("html"), render(&measurement)).unwrap();
        }
    }
}
