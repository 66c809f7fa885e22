//! A plan as it is written: TOML beside `config.pbtxt`, or JSON in a request.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// See [`super::Plan`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPlan {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) steps: Option<Vec<RawStep>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gates: Option<Vec<RawGate>>,
    pub(super) routing: RawRouting,
    /// How long the version before stays loaded once another took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollback_window: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extend_for: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry_on_canary_error: Option<bool>,
}

/// Each is a table of one key, as in Argo Rollouts, whose spelling is understood too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawStep {
    #[serde(alias = "setWeight")]
    SetWeight(f64),
    Pause(RawPause),
    Analysis(RawAnalysis),
    #[serde(alias = "setHeaderRoute")]
    HeaderRoute(RawHeaderRoute),
    #[serde(alias = "setMirrorRoute")]
    Mirror(RawMirror),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPause {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration: Option<Span>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAnalysis {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHeaderRoute {
    pub(super) name: String,
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub(super) all: Vec<RawMatch>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMatch {
    #[serde(alias = "headerName", skip_serializing_if = "Option::is_none")]
    pub(super) header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exact: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) regex: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMirror {
    #[serde(alias = "percentage")]
    pub(super) percent: f64,
}

/// Each is a table of one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawGate {
    ErrorRate(RawErrorRate),
    Latency(RawLatency),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawErrorRate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) below: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) against: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) margin: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alpha: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLatency {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quantile: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) below: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) against: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tolerance: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alpha: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRouting {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) key: Vec<RawKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawKey {
    Header(String),
    Parameter(String),
}

/// A time as people write it, such as `90s` or `1h 30m`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Seconds(u64),
        }
        let text = match Written::deserialize(deserializer) {
            Ok(Written::Seconds(seconds)) => return Ok(Span(Duration::from_secs(seconds))),
            Ok(Written::Text(text)) => text,
            Err(_) => {
                return Err(D::Error::custom(
                    "a time is text such as \"90s\" or \"1h 30m\", or whole seconds",
                ));
            }
        };
        // Argo Rollouts also writes seconds as text.
        match text.parse().map(Duration::from_secs).or_else(|_| humantime::parse_duration(&text)) {
            Ok(duration) => Ok(Span(duration)),
            Err(error) => Err(D::Error::custom(format_args!(
                "{text:?} is no time ({error}); write \"90s\", \"10m\" or \"1h 30m\""
            ))),
        }
    }
}
