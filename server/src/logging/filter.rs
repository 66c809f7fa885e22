//! Which events are written: a pure function of the switches.

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};

use super::LogConfig;
use super::access::ACCESS_TARGET;

/// The crates of this server, by the first part of their targets. The lines of all others are a dependency's.
const OWN: [&str; 9] = [
    "volley",
    "model",
    "traffic",
    "inference",
    "ort_backend",
    "proto",
    "manifest",
    "storage",
    "volley_client",
];

/// The field by which a span says which request it is about; other spans are not recorded.
pub(super) const REQUEST_ID: &str = "request_id";

/// The switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) info: bool,
    pub(super) warning: bool,
    pub(super) error: bool,
    pub(super) verbose: u32,
    pub(super) access: bool,
}

impl Filter {
    pub(super) fn new(config: &LogConfig) -> Filter {
        let LogConfig { info, warning, error, verbose, access, .. } = *config;
        Filter { info, warning, error, verbose, access }
    }

    /// Whether an event or span is of interest.
    pub(super) fn enables(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return metadata.fields().field(REQUEST_ID).is_some();
        }
        self.shows(*metadata.level(), metadata.target())
    }

    fn shows(&self, level: Level, target: &str) -> bool {
        if target == ACCESS_TARGET {
            return self.access && level <= Level::INFO;
        }
        match level {
            Level::ERROR => self.error,
            Level::WARN => self.warning,
            level => self.verbose >= self.verbosity(level, target),
        }
    }

    /// The verbosity from which on an event below a warning is shown; a dependency's needs one more than ours.
    fn verbosity(&self, level: Level, target: &str) -> u32 {
        let own = OWN.contains(&target.split("::").next().unwrap_or(target));
        let base = match level {
            Level::INFO if own && !self.info => u32::MAX,
            Level::INFO => 0,
            Level::DEBUG => 1,
            _ => 2,
        };
        if own { base } else { base + 1 }
    }

    /// The most detailed level of any event that may be shown.
    pub(super) fn max_level(&self) -> LevelFilter {
        match self.verbose {
            2.. => LevelFilter::TRACE,
            1 => LevelFilter::DEBUG,
            0 if self.info || self.access => LevelFilter::INFO,
            0 if self.warning => LevelFilter::WARN,
            0 if self.error => LevelFilter::ERROR,
            0 => LevelFilter::OFF,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Filter = Filter { info: false, warning: false, error: false, verbose: 0, access: false };
    const USUAL: Filter = Filter { info: true, warning: true, error: true, verbose: 0, access: false };
    const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

    /// Which of the levels, from ERROR to TRACE, `filter` shows of `target`.
    #[track_caller]
    fn check(filter: Filter, target: &str, expected: &str) {
        let shown: String =
            LEVELS.iter().map(|level| if filter.shows(*level, target) { 'x' } else { '-' }).collect();
        assert_eq!(shown, expected, "{filter:?} {target}");
    }

    #[test]
    fn each_switch_is_its_own() {
        check(QUIET, "volley::http", "-----");
        check(Filter { error: true, ..QUIET }, "volley", "x----");
        check(Filter { warning: true, ..QUIET }, "volley", "-x---");
        check(Filter { info: true, ..QUIET }, "inference::queue", "--x--");
        check(Filter { verbose: 1, ..QUIET }, "ort_backend", "---x-");
        check(Filter { verbose: 2, ..QUIET }, "volley", "---xx");
        check(Filter { access: true, ..QUIET }, "volley", "-----");
    }

    #[test]
    fn dependencies_are_heard_one_level_later() {
        check(USUAL, "volley", "xxx--");
        check(USUAL, "hyper::proto", "xx---");
        check(Filter { verbose: 1, ..USUAL }, "h2", "xxx--");
        check(Filter { verbose: 2, ..USUAL }, "tonic::transport", "xxxx-");
        check(Filter { verbose: 3, ..USUAL }, "ort", "xxxxx");
        check(USUAL, "volley_clients_of_others", "xx---");
    }

    #[test]
    fn access_lines_have_a_switch_of_their_own() {
        assert!(!USUAL.shows(Level::INFO, ACCESS_TARGET));
        assert!(Filter { access: true, ..QUIET }.shows(Level::INFO, ACCESS_TARGET));
    }

    #[test]
    fn the_max_level_hides_nothing_that_is_shown() {
        for bits in 0..16_u32 {
            for verbose in 0..5 {
                let on = |bit: u32| bits & (1 << bit) != 0;
                let filter = Filter { info: on(0), warning: on(1), error: on(2), access: on(3), verbose };
                for target in ["volley", "hyper", ACCESS_TARGET] {
                    for level in LEVELS {
                        let hidden = level > filter.max_level();
                        assert!(!(hidden && filter.shows(level, target)), "{filter:?} {target} {level}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_crate_of_the_server_is_known() {
        let here = env!("CARGO_MANIFEST_DIR");
        for entry in std::fs::read_dir(here).unwrap() {
            let manifest = entry.unwrap().path().join("Cargo.toml");
            if let Ok(text) = std::fs::read_to_string(&manifest) {
                let manifest: toml::Table = text.parse().unwrap();
                let name = manifest["package"]["name"].as_str().unwrap().replace('-', "_");
                assert!(OWN.contains(&name.as_str()), "{name} is not in OWN");
            }
        }
    }
}
