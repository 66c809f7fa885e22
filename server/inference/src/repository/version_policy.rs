//! Which of a model's versions should be loaded.

use model::ModelVersion;
use proto::v2::{ModelVersionPolicy, model_version_policy::PolicyChoice};

/// The versions that should be loaded and those that the policy names but are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// To be loaded, lowest first.
    pub(super) versions: Vec<ModelVersion>,
    /// Named by the policy, but without a directory.
    pub(super) missing: Vec<i64>,
}

/// Applies `policy` (latest 1 when there is none) to the versions that have a directory.
pub(super) fn choose(policy: Option<&ModelVersionPolicy>, available: &[ModelVersion]) -> Chosen {
    let mut available = available.to_vec();
    available.sort_unstable();
    let newest = |count: u32| {
        let skipped = available.len().saturating_sub(count as usize);
        Chosen { versions: available[skipped..].to_vec(), missing: Vec::new() }
    };
    match policy.and_then(|policy| policy.policy_choice.as_ref()) {
        None => newest(1),
        Some(PolicyChoice::Latest(latest)) => newest(latest.num_versions.max(1)),
        Some(PolicyChoice::All(_)) => Chosen { versions: available, missing: Vec::new() },
        Some(PolicyChoice::Specific(specific)) => {
            let mut chosen = Chosen::default();
            for &number in &specific.versions {
                let version = u64::try_from(number).ok().and_then(ModelVersion::new);
                match version.filter(|version| available.contains(version)) {
                    Some(version) => chosen.versions.push(version),
                    None => chosen.missing.push(number),
                }
            }
            chosen.versions.sort_unstable();
            chosen.versions.dedup();
            chosen
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(policy: &str, available: &[u64], versions: &[u64], missing: &[i64]) {
        let config = proto::config_text::parse(policy, "config.pbtxt").unwrap();
        let available: Vec<_> = available.iter().map(|number| ModelVersion::new(*number).unwrap()).collect();
        let chosen = choose(config.version_policy.as_ref(), &available);
        assert_eq!(
            chosen.versions.iter().map(|version| version.get()).collect::<Vec<_>>(),
            versions,
            "{policy}"
        );
        assert_eq!(chosen.missing, missing, "{policy}");
    }

    #[test]
    fn policies_choose_as_triton_documents() {
        check("", &[2, 10, 9], &[10], &[]);
        check("version_policy { latest { } }", &[1, 2], &[2], &[]);
        check("version_policy { latest { num_versions: 2 } }", &[2, 10, 9], &[9, 10], &[]);
        check("version_policy { latest { num_versions: 9 } }", &[2, 1], &[1, 2], &[]);
        check("version_policy { all { } }", &[3, 1, 2], &[1, 2, 3], &[]);
        check("version_policy { specific { versions: [3, 1, 7, 3, -1] } }", &[1, 2, 3], &[1, 3], &[7, -1]);
        check("version_policy { all { } }", &[], &[], &[]);
    }
}
