//! How the traffic of one model is divided.

use model::ModelVersion;
use smol_str::SmolStr;

use crate::caller::{Caller, KeySource};
use crate::matching::Match;
use crate::slot::{SLOTS, Salt, Slot};

/// As whom a caller is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arm {
    /// The version that is known to be good.
    Stable,
    /// As many callers of the stable version as the canary has: what it is compared with.
    Baseline,
    /// The version that is tried.
    Canary,
}

/// Where a request goes, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The version that answers.
    pub version: ModelVersion,
    /// As whom the caller is counted.
    pub arm: Arm,
    /// What sent it there.
    pub by: RoutedBy,
    /// Which version also runs it, without anyone waiting for that.
    pub mirror: Option<ModelVersion>,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutedBy {
    /// A rule, counted from 0.
    Rule(usize),
    /// The slot of the caller's key or of the request's id.
    Slot(Slot),
    /// A slot that was drawn, since nothing is known of the caller.
    Chance(Slot),
}

/// Sends requests that fit all of its conditions to one version, whatever their slot.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it is called, for people and to replace it.
    pub name: SmolStr,
    /// All must fit.
    pub all: Vec<Match>,
    /// Where they go.
    pub version: ModelVersion,
}

/// Requests that another version runs too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The version that runs them.
    pub version: ModelVersion,
    /// How many of [`SLOTS`] of them.
    pub share: u16,
}

/// What a [`Split`] is made of.
#[derive(Clone, Debug)]
pub struct SplitParts {
    /// Answers all that nobody else does.
    pub stable: ModelVersion,
    /// The version that is tried, and its share in [`SLOTS`].
    pub canary: Option<(ModelVersion, u16)>,
    /// Whether as many callers of the stable version are counted apart.
    pub baseline: bool,
    /// Asked in this order.
    pub rules: Vec<Rule>,
    /// Where a caller's key is looked for, in this order; then the request's id serves, then chance.
    pub keys: Vec<KeySource>,
    /// What makes a slot of it.
    pub salt: Salt,
    /// What is run twice.
    pub mirror: Option<Mirror>,
}

/// Traffic that cannot be divided so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSplit {
    /// More than all.
    #[error("the share of {what} is {share} of {SLOTS} slots: at most all of them")]
    Share {
        /// The canary or the mirror.
        what: &'static str,
        /// In slots.
        share: u16,
    },
    /// Nothing to compare.
    #[error("version {0} cannot be both the stable version and the {1}")]
    Same(ModelVersion, &'static str),
    /// A rule without conditions would take everything.
    #[error("the rule {0:?} has no condition")]
    Unconditional(SmolStr),
}

/// How the traffic of one model is divided.
///
/// The canary has the last slots, so that a larger share only adds to them; the baseline has as many of the first.
#[derive(Clone, Debug)]
pub struct Split {
    parts: SplitParts,
    /// The first slot of the canary.
    canary_from: u16,
    /// The first slot that is not the baseline's.
    baseline_to: u16,
}

impl Split {
    /// # Errors
    /// When the parts contradict each other.
    pub fn new(parts: SplitParts) -> Result<Split, InvalidSplit> {
        let share = match parts.canary {
            Some((version, _)) if version == parts.stable => {
                return Err(InvalidSplit::Same(version, "canary"));
            }
            Some((_, share)) if share > SLOTS => {
                return Err(InvalidSplit::Share { what: "the canary", share });
            }
            Some((_, share)) => share,
            None => 0,
        };
        match parts.mirror {
            Some(Mirror { version, .. }) if version == parts.stable => {
                return Err(InvalidSplit::Same(version, "mirror"));
            }
            Some(Mirror { share, .. }) if share > SLOTS => {
                return Err(InvalidSplit::Share { what: "the mirror", share });
            }
            _ => {}
        }
        if let Some(rule) = parts.rules.iter().find(|rule| rule.all.is_empty()) {
            return Err(InvalidSplit::Unconditional(rule.name.clone()));
        }
        let canary_from = SLOTS - share;
        let baseline_to = if parts.baseline { share.min(canary_from) } else { 0 };
        Ok(Split { parts, canary_from, baseline_to })
    }

    /// Where the request of `caller` goes.
    pub fn choose(&self, caller: &impl Caller) -> Choice {
        let ruled = self.parts.rules.iter().position(|rule| rule.all.iter().all(|each| each.fits(caller)));
        if let Some(index) = ruled {
            let version = self.parts.rules[index].version;
            let is_canary = self.parts.canary.is_some_and(|(canary, _)| canary == version);
            let arm = if is_canary { Arm::Canary } else { Arm::Stable };
            return Choice { version, arm, by: RoutedBy::Rule(index), mirror: self.mirror(version, caller) };
        }
        let (slot, by) = self.slot(caller);
        let (version, arm) = self.at(slot);
        Choice { version, arm, by, mirror: self.mirror(version, caller) }
    }

    /// Who answers the callers of `slot`.
    pub fn at(&self, slot: Slot) -> (ModelVersion, Arm) {
        match self.parts.canary {
            Some((canary, _)) if slot.number() >= self.canary_from => (canary, Arm::Canary),
            _ if slot.number() < self.baseline_to => (self.parts.stable, Arm::Baseline),
            _ => (self.parts.stable, Arm::Stable),
        }
    }

    /// What it was made of.
    pub fn parts(&self) -> &SplitParts {
        &self.parts
    }

    /// The share of the callers that are counted as `arm`, of 1.
    pub fn share(&self, arm: Arm) -> f64 {
        let slots = match arm {
            Arm::Canary => SLOTS - self.canary_from,
            Arm::Baseline => self.baseline_to,
            Arm::Stable => self.canary_from - self.baseline_to,
        };
        f64::from(slots) / f64::from(SLOTS)
    }

    fn slot(&self, caller: &impl Caller) -> (Slot, RoutedBy) {
        let key = self.parts.keys.iter().find_map(|source| source.read(caller));
        match key.as_deref().unwrap_or_else(|| caller.id()) {
            "" => {
                let slot = Slot::of(caller.random());
                (slot, RoutedBy::Chance(slot))
            }
            key => {
                let slot = self.parts.salt.slot(key);
                (slot, RoutedBy::Slot(slot))
            }
        }
    }

    /// Which version also runs a request that `version` answers. By chance: the same few callers would not stand for all.
    fn mirror(&self, version: ModelVersion, caller: &impl Caller) -> Option<ModelVersion> {
        let mirror = self.parts.mirror.filter(|mirror| mirror.version != version && mirror.share > 0)?;
        // Other bits than those of a slot that was drawn.
        let drawn = Slot::of(caller.random() >> 32);
        (drawn.number() < mirror.share).then_some(mirror.version)
    }
}
