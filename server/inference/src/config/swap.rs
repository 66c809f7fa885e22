//! How versions take the place of others.

use proto::ModelConfig;

/// A key of `parameters`: how a version that is loaded takes the place of the one that serves.
pub(super) const PARAMETER: &str = "swap_policy";

/// How versions take the place of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SwapPolicy {
    /// The next is loaded beside the one that serves, so that nothing is missed; both are in memory for a while.
    #[default]
    Availability,
    /// The one that serves is unloaded before the next is loaded; the model does not answer meanwhile.
    Resource,
}

/// The policy that `config` asks for.
///
/// # Errors
/// When it asks for one that is not known.
pub fn swap_policy(config: &ModelConfig) -> Result<SwapPolicy, String> {
    match config.parameters.get(PARAMETER).map(|value| value.string_value.as_str()) {
        None | Some("availability") => Ok(SwapPolicy::Availability),
        Some("resource") => Ok(SwapPolicy::Resource),
        Some(other) => Err(format!(
            "parameters.{PARAMETER} is {other:?}, but must be \"availability\" (load beside the version that serves) or \
             \"resource\" (unload it first)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_one_of_two_and_others_are_named() {
        let policy = |value: &str| {
            let text = format!(r#"parameters {{ key: "swap_policy" value {{ string_value: "{value}" }} }}"#);
            swap_policy(&proto::config_text::parse(&text, "config.pbtxt").unwrap())
        };
        assert_eq!(swap_policy(&ModelConfig::default()), Ok(SwapPolicy::Availability));
        assert_eq!(policy("availability"), Ok(SwapPolicy::Availability));
        assert_eq!(policy("resource"), Ok(SwapPolicy::Resource));
        let error = policy("resources").unwrap_err();
        assert!(error.contains("parameters.swap_policy is \"resources\""), "{error}");
    }
}
