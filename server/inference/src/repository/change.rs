//! What has to be done so that a model serves what its files say: pure, from what serves and what is wanted.

use model::ModelVersion;

/// The versions of one model, by what becomes of them; each lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Serve and go on.
    pub(super) keep: Vec<ModelVersion>,
    /// To be loaded, beside one of the same number where that serves.
    pub(super) load: Vec<ModelVersion>,
    /// Serve, and get other instances over what is loaded.
    pub(super) resize: Vec<ModelVersion>,
    /// Serve, and are not wanted any more.
    pub(super) drop: Vec<ModelVersion>,
}

/// What a version that serves is to what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// As it was when it was loaded.
    Same,
    /// The same but for its instances.
    OtherInstances,
    /// Another.
    Different,
}

impl Change {
    /// From the versions that are `serving` to those that are `wanted`; `likeness` says how much of each is as it was
    /// when it was loaded.
    pub(super) fn between(
        serving: &[ModelVersion],
        wanted: &[ModelVersion],
        likeness: impl Fn(ModelVersion) -> Likeness,
    ) -> Change {
        let mut change = Change::default();
        for &version in wanted {
            let becomes = match serving.contains(&version).then(|| likeness(version)) {
                Some(Likeness::Same) => &mut change.keep,
                Some(Likeness::OtherInstances) => &mut change.resize,
                Some(Likeness::Different) | None => &mut change.load,
            };
            becomes.push(version);
        }
        change.drop = serving.iter().copied().filter(|version| !wanted.contains(version)).collect();
        change
    }

    /// True when all stays as it is.
    pub(super) fn is_nothing(&self) -> bool {
        self.load.is_empty() && self.resize.is_empty() && self.drop.is_empty()
    }

    /// Whether what is loaded of `version` is used on.
    pub(super) fn stays_loaded(&self, version: ModelVersion) -> bool {
        self.keep.contains(&version) || self.resize.contains(&version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(numbers: &[u64]) -> Vec<ModelVersion> {
        numbers.iter().map(|number| ModelVersion::new(*number).unwrap()).collect()
    }

    /// Every set of three versions that serve, are wanted, are as they were, and are so but for their instances.
    #[test]
    fn each_version_is_kept_resized_loaded_or_dropped_by_what_it_is_and_by_nothing_else() {
        let set =
            |bits: u64| versions(&(1..=3).filter(|number| bits >> (number - 1) & 1 == 1).collect::<Vec<_>>());
        for (serving, wanted, same, resized) in (0..4096_u64)
            .map(|case| (set(case & 7), set(case >> 3 & 7), set(case >> 6 & 7), set(case >> 9 & 7)))
        {
            let likeness = |version| match (same.contains(&version), resized.contains(&version)) {
                (true, _) => Likeness::Same,
                (false, true) => Likeness::OtherInstances,
                (false, false) => Likeness::Different,
            };
            let change = Change::between(&serving, &wanted, likeness);
            for version in versions(&[1, 2, 3]) {
                let (serves, is_wanted) = (serving.contains(&version), wanted.contains(&version));
                let goes_on = serves && is_wanted;
                let keeps = goes_on && likeness(version) == Likeness::Same;
                let resizes = goes_on && likeness(version) == Likeness::OtherInstances;
                assert_eq!(change.keep.contains(&version), keeps);
                assert_eq!(change.resize.contains(&version), resizes);
                assert_eq!(change.stays_loaded(version), keeps || resizes);
                assert_eq!(change.load.contains(&version), is_wanted && !keeps && !resizes);
                assert_eq!(change.drop.contains(&version), serves && !is_wanted);
            }
            assert_eq!(
                change.is_nothing(),
                serving == wanted && serving.iter().all(|version| same.contains(version))
            );
        }
    }
}
