//! What the value of a setting may be, and how its text becomes that value.

use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use inference::rate_limiter::ResourceTotal;

use super::{BackendSetting, CacheSetting, CompressionLevel, ControlMode, OnDemand, RateLimit};
use crate::logging::LogFormat;

/// A kind of value.
pub(super) struct Kind<T> {
    /// What the value is called in the help.
    pub(super) placeholder: &'static str,
    /// What the value must be, as the end of a sentence.
    pub(super) accepts: &'static str,
    /// True when a flag without a value means `true`.
    pub(super) switch: bool,
    pub(super) parse: fn(&str) -> Option<T>,
}

impl<T> Kind<T> {
    const fn new(placeholder: &'static str, accepts: &'static str, parse: fn(&str) -> Option<T>) -> Kind<T> {
        Kind { placeholder, accepts, switch: false, parse }
    }
}

pub(super) const SWITCH: Kind<bool> =
    Kind { switch: true, ..Kind::new("BOOL", "true, on, yes or 1, or false, off, no or 0", switch) };

pub(super) const TEXT: Kind<String> =
    Kind::new("TEXT", "some text", |text| (!text.is_empty()).then(|| text.to_owned()));

pub(super) const PATH: Kind<PathBuf> =
    Kind::new("PATH", "a path", |text| (!text.is_empty()).then(|| PathBuf::from(text)));

pub(super) const PATH_OR_EMPTY: Kind<PathBuf> =
    Kind::new("PATH", "a path, or empty for stderr", |text| Some(PathBuf::from(text)));

pub(super) const ADDRESS: Kind<IpAddr> =
    Kind::new("ADDRESS", "an IPv4 or IPv6 address, or localhost", address);

pub(super) const PORT: Kind<u16> =
    Kind::new("PORT", "an integer from 0 to 65535, where 0 picks a free port", |text| text.parse().ok());

pub(super) const THREADS: Kind<NonZeroUsize> = Kind::new("COUNT", "an integer from 1 to 1024", |text| {
    text.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= 1024)
});

pub(super) const COUNT: Kind<NonZeroUsize> =
    Kind::new("COUNT", "an integer of at least 1", |text| text.parse().ok());

pub(super) const COUNT_OR_ZERO: Kind<usize> =
    Kind::new("COUNT", "an integer of at least 0", |text| text.parse().ok());

pub(super) const BYTES: Kind<NonZeroUsize> =
    Kind::new("BYTES", "a number of bytes, an integer of at least 1", |text| text.parse().ok());

pub(super) const MANY_BYTES: Kind<NonZeroU64> =
    Kind::new("BYTES", "a number of bytes, an integer of at least 1", |text| text.parse().ok());

pub(super) const BYTES_OR_ZERO: Kind<Option<NonZeroU64>> =
    Kind::new("BYTES", "a number of bytes, an integer of at least 0", |text| {
        text.parse().ok().map(NonZeroU64::new)
    });

pub(super) const CACHE_SETTING: Kind<CacheSetting> = Kind::new(
    "SETTING",
    "local,size=BYTES, where BYTES is an integer of at least 1; size is the only key known",
    cache_setting,
);

/// In any case, as with Triton.
pub(super) const RATE_LIMIT_MODE: Kind<RateLimit> = Kind::new("MODE", "off or execution_count", |text| {
    let is = |mode: &str| text.eq_ignore_ascii_case(mode);
    is("off").then_some(RateLimit::Off).or_else(|| is("execution_count").then_some(RateLimit::ExecutionCount))
});

pub(super) const RESOURCE_TOTAL: Kind<ResourceTotal> = Kind::new(
    "RESOURCE",
    "NAME:COUNT for each device or NAME:COUNT:DEVICE for one, where COUNT and DEVICE are integers from 0 to 4294967295",
    resource_total,
);

pub(super) const VERBOSITY: Kind<u32> =
    Kind::new("LEVEL", "an integer from 0 to 4294967295, or true (1) or false (0)", |text| match text {
        // Triton once took a switch here, and still takes these two.
        "true" => Some(1),
        "false" => Some(0),
        number => number.parse().ok(),
    });

pub(super) const SECONDS: Kind<Duration> =
    Kind::new("SECONDS", "from 0 s to one year, as seconds (1.5) or with a unit (5s, 500ms, 2m)", |text| {
        duration(text, Duration::from_secs(1))
    });

pub(super) const SECONDS_ABOVE_ZERO: Kind<Duration> = Kind::new(
    "SECONDS",
    "more than 0 s and at most one year, as seconds (1.5) or with a unit (5s, 500ms, 2m)",
    |text| duration(text, Duration::from_secs(1)).filter(|duration| !duration.is_zero()),
);

pub(super) const MILLISECONDS: Kind<Duration> =
    Kind::new("MS", "from 0 ms to one year, as milliseconds (250) or with a unit (5s, 500ms, 2m)", |text| {
        duration(text, Duration::from_millis(1))
    });

pub(super) const MILLISECONDS_ABOVE_ZERO: Kind<Duration> = Kind::new(
    "MS",
    "more than 0 ms and at most one year, as milliseconds (250) or with a unit (5s, 500ms, 2m)",
    |text| duration(text, Duration::from_millis(1)).filter(|duration| !duration.is_zero()),
);

pub(super) const COMPRESSION: Kind<CompressionLevel> =
    Kind::new("LEVEL", "none, low, medium or high", |text| match text {
        "none" => Some(CompressionLevel::None),
        "low" => Some(CompressionLevel::Low),
        "medium" => Some(CompressionLevel::Medium),
        "high" => Some(CompressionLevel::High),
        _ => None,
    });

pub(super) const CONTROL_MODE: Kind<ControlMode> =
    Kind::new("MODE", "none, poll or explicit", |text| match text {
        "none" => Some(ControlMode::None),
        "poll" => Some(ControlMode::Poll),
        "explicit" => Some(ControlMode::Explicit),
        _ => None,
    });

pub(super) const ON_DEMAND: Kind<OnDemand> =
    Kind::new("WHEN_COLD", "off, wait or refuse", |text| match text {
        "off" => Some(OnDemand::Off),
        "wait" => Some(OnDemand::Wait),
        "refuse" => Some(OnDemand::Refuse),
        _ => None,
    });

pub(super) const LOG_FORMAT: Kind<LogFormat> =
    Kind::new("FORMAT", "default, ISO8601 or json", LogFormat::parse);

pub(super) const BACKEND_SETTING: Kind<BackendSetting> = Kind::new(
    "SETTING",
    "onnxruntime,default-max-batch-size=N, where N is an integer from 0 to 2147483647; \
     default-max-batch-size is the only key known",
    backend_setting,
);

fn switch(text: &str) -> Option<bool> {
    let is = |word: &&str| text.eq_ignore_ascii_case(word);
    if ["true", "on", "yes", "1"].iter().any(is) {
        Some(true)
    } else if ["false", "off", "no", "0"].iter().any(is) {
        Some(false)
    } else {
        None
    }
}

fn address(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// A year: long enough for anyone, short enough to be added to any clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn duration(text: &str, unit_when_bare: Duration) -> Option<Duration> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" => unit_when_bare,
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * unit.as_secs_f64();
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= LONGEST)
}

fn backend_setting(text: &str) -> Option<BackendSetting> {
    let (backend, setting) = text.split_once(',').unwrap_or(("", text));
    let (key, value) = setting.split_once('=')?;
    match (backend, key) {
        // Without a backend's name, Triton applies the setting to every backend.
        ("" | "onnxruntime", "default-max-batch-size") => {
            let rows = value.parse().ok().filter(|rows| i32::try_from(*rows).is_ok())?;
            Some(BackendSetting::DefaultMaxBatchSize(rows))
        }
        ("" | "onnxruntime", _) => None,
        (other, _) => Some(BackendSetting::OtherBackend(other.to_owned())),
    }
}

/// As with Triton, the name of a cache, a comma, and one of its settings.
fn cache_setting(text: &str) -> Option<CacheSetting> {
    let (cache, setting) = text.split_once(',').unwrap_or((text, ""));
    match (cache, setting.split_once('=')) {
        ("local", Some(("size", bytes))) => Some(CacheSetting::LocalSize(bytes.parse().ok()?)),
        ("" | "local", _) => None,
        _ => Some(CacheSetting::OtherCache),
    }
}

fn resource_total(text: &str) -> Option<ResourceTotal> {
    let mut parts = text.split(':');
    let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
    let count = number(parts.next()?)?;
    let device = parts.next().map(number);
    match (device, parts.next()) {
        (None, _) => Some(ResourceTotal { name, count, device: None }),
        (Some(device), None) => Some(ResourceTotal { name, count, device: Some(device?) }),
        (Some(_), Some(_)) => None,
    }
}

/// Digits only: the standard library takes a plus sign, too.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_switch() {
        for on in ["true", "TRUE", "True", "on", "On", "ON", "yes", "YES", "Yes", "1"] {
            assert_eq!(switch(on), Some(true), "{on}");
        }
        for off in ["false", "FALSE", "False", "off", "Off", "OFF", "no", "NO", "No", "0"] {
            assert_eq!(switch(off), Some(false), "{off}");
        }
        for wrong in ["", "2", "t", "y", "enable", " true", "00"] {
            assert_eq!(switch(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_duration_takes_fractions_and_units() {
        let seconds = |text| duration(text, Duration::from_secs(1));
        for (text, milliseconds) in [
            ("0", 0),
            ("5", 5_000),
            ("5s", 5_000),
            ("1.5", 1_500),
            (".5", 500),
            ("500ms", 500),
            ("2m", 120_000),
        ] {
            assert_eq!(seconds(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "s", "-1", "+1", "1e3", "inf", "NaN", "1h", "1 s", "1.2.3", ".", "31536001"] {
            assert_eq!(seconds(wrong), None, "{wrong:?}");
        }
        assert_eq!((MILLISECONDS.parse)("7200000"), Some(Duration::from_secs(7200)));
        assert_eq!((MILLISECONDS.parse)("2s"), Some(Duration::from_secs(2)));
        assert_eq!((SECONDS_ABOVE_ZERO.parse)("0"), None);
        assert_eq!((MILLISECONDS_ABOVE_ZERO.parse)("0.0"), None);
    }

    #[test]
    fn an_address_is_an_ip_address_or_localhost() {
        for (text, ip) in [
            ("0.0.0.0", "0.0.0.0"),
            ("localhost", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("::", "::"),
        ] {
            assert_eq!(address(text), Some(ip.parse().unwrap()), "{text}");
        }
        for wrong in ["", "example.org", "1.2.3", "[::1", "127.0.0.1:8000"] {
            assert_eq!(address(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn verbosity_is_a_number_or_tritons_switch() {
        for (text, level) in [("0", 0), ("3", 3), ("true", 1), ("false", 0)] {
            assert_eq!((VERBOSITY.parse)(text), Some(level), "{text}");
        }
        for wrong in ["", "-1", "yes", "TRUE"] {
            assert_eq!((VERBOSITY.parse)(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        assert_eq!((PORT.parse)("65535"), Some(65535));
        assert_eq!((PORT.parse)("0"), Some(0));
        for wrong in ["65536", "-1", "", "80a", "tcp://10.0.0.1:80"] {
            assert_eq!((PORT.parse)(wrong), None, "{wrong:?}");
        }
        assert_eq!((THREADS.parse)("1024"), NonZeroUsize::new(1024));
        assert_eq!((THREADS.parse)("1025"), None);
        assert_eq!((THREADS.parse)("0"), None);
        assert_eq!((BYTES.parse)("0"), None);
    }

    #[test]
    fn a_cache_is_local_and_has_a_size_or_is_another() {
        let local = |bytes| Some(CacheSetting::LocalSize(NonZeroU64::new(bytes).unwrap()));
        assert_eq!(cache_setting("local,size=1048576"), local(1 << 20));
        assert_eq!(cache_setting("local,size=18446744073709551615"), local(u64::MAX));
        for other in ["redis,host=localhost", "redis", "mine,size=1"] {
            assert_eq!(cache_setting(other), Some(CacheSetting::OtherCache), "{other}");
        }
        for wrong in [
            "",
            "local",
            "local,",
            "local,size",
            "local,size=",
            "local,size=0",
            "local,size=1MB",
            "local,bytes=1",
            ",size=1",
        ] {
            assert_eq!(cache_setting(wrong), None, "{wrong:?}");
        }
        assert_eq!((BYTES_OR_ZERO.parse)("0"), Some(None));
    }

    #[test]
    fn a_resource_has_a_count_and_perhaps_a_device() {
        let total = |name: &str, count, device| Some(ResourceTotal { name: name.to_owned(), count, device });
        assert_eq!(resource_total("R1:10"), total("R1", 10, None));
        assert_eq!(resource_total("gpu memory:0:1"), total("gpu memory", 0, Some(1)));
        for wrong in [
            "",
            "R1",
            "R1:",
            ":1",
            "R1:-1",
            "R1:+1",
            "R1:x",
            "R1:1.5",
            "R1:1:",
            "R1:1:-1",
            "R1:1:x",
            "R1:1:0:0",
            "R1:4294967296",
            "R1: 1",
            "R1=1",
        ] {
            assert_eq!(resource_total(wrong), None, "{wrong:?}");
        }
        assert_eq!((RATE_LIMIT_MODE.parse)("Execution_Count"), Some(RateLimit::ExecutionCount));
        assert_eq!((RATE_LIMIT_MODE.parse)("OFF"), Some(RateLimit::Off));
        assert_eq!((RATE_LIMIT_MODE.parse)("on"), None);
    }

    #[test]
    fn only_known_backend_settings_pass() {
        for good in ["onnxruntime,default-max-batch-size=8", "default-max-batch-size=8"] {
            assert_eq!(backend_setting(good), Some(BackendSetting::DefaultMaxBatchSize(8)), "{good}");
        }
        assert_eq!(
            backend_setting("python,shm-default-byte-size=1048576"),
            Some(BackendSetting::OtherBackend("python".into()))
        );
        for wrong in [
            "",
            "onnxruntime",
            "onnxruntime,default-max-batch-size",
            "onnxruntime,default-max-batch-size=x",
            "onnxruntime,default-max-batch-size=-1",
            "onnxruntime,default-max-batch-size=2147483648",
            "onnxruntime,max-batch=8",
        ] {
            assert_eq!(backend_setting(wrong), None, "{wrong:?}");
        }
    }
}
