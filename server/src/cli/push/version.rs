//! Which numbers the versions of a model have, and which is next.

use std::fs;
use std::io;
use std::path::Path;

use model::ModelVersion;
use proto::ModelConfig;
use proto::v2::model_version_policy::PolicyChoice;

/// The numbers that are taken in the model's `directory`, whatever has them: a link that leads nowhere may lead somewhere
/// later.
pub(super) fn taken(directory: &Path) -> io::Result<Vec<ModelVersion>> {
    let mut taken = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        taken.extend(name.to_str().and_then(number));
    }
    Ok(taken)
}

/// The number that `name` takes. A directory `01` is no version, but who made it may have meant one.
pub(super) fn number(name: &str) -> Option<ModelVersion> {
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    if digits { ModelVersion::new(name.parse().ok()?) } else { None }
}

/// The number after the highest of those that are `taken`; none after the last there is.
pub(super) fn next(taken: &[ModelVersion]) -> Option<ModelVersion> {
    let highest = taken.iter().max().map_or(0, |version| version.get());
    ModelVersion::new(highest.checked_add(1)?)
}

/// Why a server with `config` would not serve `version` beside those that are `taken`; none when it would.
pub(super) fn not_served(
    config: &ModelConfig,
    taken: &[ModelVersion],
    version: ModelVersion,
) -> Option<String> {
    let higher = taken.iter().filter(|other| **other > version).count();
    let latest = match config.version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref()) {
        Some(PolicyChoice::All(_)) => return None,
        Some(PolicyChoice::Specific(specific)) => {
            let named = specific.versions.iter().any(|named| u64::try_from(*named) == Ok(version.get()));
            return (!named).then(|| {
                format!("version_policy does not name version {version}, so it will not be served")
            });
        }
        Some(PolicyChoice::Latest(latest)) => latest.num_versions.max(1),
        None => 1,
    };
    let is_among_them = higher < usize::try_from(latest).unwrap_or(usize::MAX);
    (!is_among_them)
        .then(|| format!("{higher} higher versions are there, so version_policy (latest {latest}) will not serve version {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(numbers: &[u64]) -> Vec<ModelVersion> {
        numbers.iter().map(|number| ModelVersion::new(*number).unwrap()).collect()
    }

    #[test]
    fn whatever_has_a_number_has_taken_it() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["1", "3", "warmup", "0", ".volley-push-9", "007"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("4"), "a file").unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("12")).unwrap();
        let mut taken = taken(directory.path()).unwrap();
        taken.sort_unstable();
        assert_eq!(taken, versions(&[1, 3, 4, 7, 12]));
        assert_eq!(next(&taken), ModelVersion::new(13));
    }

    #[test]
    fn the_first_is_one_and_after_the_last_there_is_none() {
        assert_eq!(next(&[]), ModelVersion::new(1));
        assert_eq!(next(&versions(&[u64::MAX])), None);
    }

    #[track_caller]
    fn check(policy: &str, taken: &[u64], version: u64, words: Option<&str>) {
        let config = proto::config_text::parse(policy, "config.pbtxt").unwrap();
        let said = not_served(&config, &versions(taken), ModelVersion::new(version).unwrap());
        assert_eq!(said.is_some(), words.is_some(), "{said:?}");
        assert!(said.unwrap_or_default().contains(words.unwrap_or_default()));
    }

    #[test]
    fn a_version_that_the_policy_passes_over_is_told() {
        check("", &[], 1, None);
        check("", &[1, 2], 3, None);
        check("", &[1, 3], 2, Some("1 higher versions are there, so version_policy (latest 1)"));
        check("version_policy: { latest: { num_versions: 2 } }", &[1, 3], 2, None);
        check("version_policy: { latest: { num_versions: 2 } }", &[3, 4], 2, Some("(latest 2)"));
        check("version_policy: { all: {} }", &[3, 4], 2, None);
        check("version_policy: { specific: { versions: [1, 2] } }", &[1], 2, None);
        check(
            "version_policy: { specific: { versions: [1, 2] } }",
            &[1, 2],
            3,
            Some("does not name version 3"),
        );
    }
}
