//! What instances hold while they run, and how much of it there is.

use std::fmt;

use smol_str::SmolStr;

/// Something that instances hold while they run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// Its name.
    pub name: SmolStr,
    /// The device that has it, 0 for the CPU; `None` for one that all devices have together.
    pub device: Option<u32>,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            None => write!(f, "global resource {:?}", self.name),
            Some(device) => write!(f, "resource {:?} of device {device}", self.name),
        }
    }
}

/// What one instance holds while it runs, and how it is weighed against others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The instance's group, for messages.
    pub group: SmolStr,
    /// How much of each, above 0; each once.
    pub resources: Vec<(Resource, u64)>,
    /// At least 1. An instance of priority 2 has half the turns of one of priority 1.
    pub priority: u64,
}

impl Claim {
    /// Whether both take of the same.
    pub(super) fn meets(&self, other: &Claim) -> bool {
        let in_other = |name: &Resource| other.resources.iter().any(|(resource, _)| resource == name);
        self.resources.iter().any(|(resource, _)| in_other(resource))
    }
}

/// That there is so much of a resource, whatever the models ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceTotal {
    /// The resource, in any case, as with Triton.
    pub name: String,
    /// How much.
    pub count: u32,
    /// Where; `None` for each device. Says nothing where models ask for a global resource.
    pub device: Option<u32>,
}

/// What was said of all resources.
#[derive(Debug, Default)]
pub(super) struct Totals(pub(super) Vec<ResourceTotal>);

impl Totals {
    /// How much there is of `resource`; `None` when nothing was said of it. The rules are Triton's: the most that was
    /// said holds, and there is nothing on a device that was left out.
    pub(super) fn of(&self, resource: &Resource) -> Option<u64> {
        let named = || self.0.iter().filter(|total| total.is_called(&resource.name));
        named().next()?;
        let is_there = |total: &&ResourceTotal| {
            resource.device.is_none() || total.device.is_none() || total.device == resource.device
        };
        Some(named().filter(is_there).map(|total| u64::from(total.count)).max().unwrap_or(0))
    }
}

impl ResourceTotal {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(name: &str, count: u32, device: Option<u32>) -> ResourceTotal {
        ResourceTotal { name: name.to_owned(), count, device }
    }

    fn of(totals: &Totals, name: &str, device: Option<u32>) -> Option<u64> {
        totals.of(&Resource { name: name.into(), device })
    }

    /// The example of Triton's documentation.
    #[test]
    fn a_total_is_of_each_device_of_one_or_of_all_together() {
        let totals = Totals(vec![
            total("R1", 10, None),
            total("R2", 5, Some(0)),
            total("R2", 8, Some(1)),
            total("R3", 2, None),
        ]);
        assert_eq!((of(&totals, "R1", Some(0)), of(&totals, "R1", Some(1))), (Some(10), Some(10)));
        assert_eq!((of(&totals, "R2", Some(0)), of(&totals, "R2", Some(1))), (Some(5), Some(8)));
        assert_eq!(of(&totals, "R3", None), Some(2));
        assert_eq!(of(&totals, "R4", Some(0)), None, "nothing was said of it");
        assert_eq!(of(&totals, "R2", Some(2)), Some(0), "it was left out");
    }

    #[test]
    fn the_most_that_was_said_holds_and_case_does_not_matter() {
        let totals = Totals(vec![total("r", 3, None), total("R", 7, Some(1))]);
        assert_eq!((of(&totals, "R", Some(0)), of(&totals, "r", Some(1))), (Some(3), Some(7)));
        assert_eq!(of(&totals, "R", None), Some(7), "a global one takes no notice of devices");
    }

    #[test]
    fn claims_meet_where_both_take_of_the_same() {
        let claim = |resources: &[(&str, Option<u32>)]| Claim {
            group: "g".into(),
            resources: resources
                .iter()
                .map(|(name, device)| (Resource { name: (*name).into(), device: *device }, 1))
                .collect(),
            priority: 1,
        };
        let both = claim(&[("a", Some(0)), ("b", None)]);
        assert!(both.meets(&claim(&[("b", None)])) && claim(&[("a", Some(0))]).meets(&both));
        assert!(!both.meets(&claim(&[("a", Some(1)), ("c", None)])) && !both.meets(&claim(&[])));
    }
}
