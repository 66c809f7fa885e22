//! What has to be done so that a model serves what its files say: pure, from what serves and what is wanted.

use model::ModelVersion;

/// The versions of one model, by what becomes of them; each lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Serve and go on.
    pub(super) keep: Vec<ModelVersion>,
    /// To be loaded, beside one of the same number where that serves.
    pub(super) load: Vec<ModelVersion>,
    /// Serve, and are not wanted any more.
    pub(super) drop: Vec<ModelVersion>,
}

impl Change {
    /// From the versions that are `serving` to those that are `wanted`; `same` says which of them are as they were
    /// when they were loaded.
    pub(super) fn between(
        serving: &[ModelVersion],
        wanted: &[ModelVersion],
        same: impl Fn(ModelVersion) -> bool,
    ) -> Change {
        let mut change = Change::default();
        for &version in wanted {
            let goes_on = serving.contains(&version) && same(version);
            if goes_on { &mut change.keep } else { &mut change.load }.push(version);
        }
        change.drop = serving.iter().copied().filter(|version| !wanted.contains(version)).collect();
        change
    }

    /// True when all stays as it is.
    pub(super) fn is_nothing(&self) -> bool {
        self.load.is_empty() && self.drop.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(numbers: &[u64]) -> Vec<ModelVersion> {
        numbers.iter().map(|number| ModelVersion::new(*number).unwrap()).collect()
    }

    /// Every set of three versions that serve, are wanted, and are as they were.
    #[test]
    fn each_version_is_kept_loaded_or_dropped_by_what_it_is_and_by_nothing_else() {
        let set =
            |bits: u64| versions(&(1..=3).filter(|number| bits >> (number - 1) & 1 == 1).collect::<Vec<_>>());
        for (serving, wanted, same) in
            (0..512_u64).map(|case| (set(case & 7), set(case >> 3 & 7), set(case >> 6 & 7)))
        {
            let change = Change::between(&serving, &wanted, |version| same.contains(&version));
            for version in versions(&[1, 2, 3]) {
                let (serves, is_wanted) = (serving.contains(&version), wanted.contains(&version));
                let stays = serves && is_wanted && same.contains(&version);
                assert_eq!(change.keep.contains(&version), stays);
                assert_eq!(change.load.contains(&version), is_wanted && !stays);
                assert_eq!(change.drop.contains(&version), serves && !is_wanted);
            }
            assert_eq!(
                change.is_nothing(),
                serving == wanted && serving.iter().all(|version| same.contains(version))
            );
        }
    }
}
