//! Whose turn it is to run. Pure: nothing waits here, and who may run now is what each change answers.
//!
//! Those that want to run stand in the order of how much they have run, `executions × priority`, then of how long they
//! wait. One runs once all that it takes is free and nobody before it waits for any of that: so who takes much is
//! not starved by those who take little, and nobody waits for one it shares nothing with.
//!
//! Invariants, after every change:
//! - nothing was handed out that was not there;
//! - nobody waits whose turn it is.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::resource::{Claim, Resource, ResourceTotal, Totals};

/// Names an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InstanceId(u64);

/// Whose turn has come.
pub(super) type Come = SmallVec<[InstanceId; 4]>;

/// What instances do, and what they hold.
#[derive(Debug, Default)]
pub(super) struct Turns {
    given: Totals,
    /// Of every resource that an instance takes.
    stocks: BTreeMap<Resource, Stock>,
    instances: BTreeMap<InstanceId, Contender>,
    /// What the next instance is called.
    next_id: u64,
    /// The place of the next that waits, behind those that have run as much.
    next_place: u64,
}

/// How much of a resource there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stock {
    /// In all: what was given, else the most that an instance takes.
    pub(super) total: u64,
    /// What the instances that run hold. More than the total for a while after that has fallen.
    pub(super) used: u64,
}

/// What an instance does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does not want to run.
    Idle,
    /// It wants to run.
    Waits {
        /// Since when: less is longer ago.
        place: u64,
    },
    /// It holds what it takes.
    Runs,
}

#[derive(Debug)]
struct Contender {
    /// The model, for messages.
    model: SmolStr,
    claim: Claim,
    /// Executions times the priority; it has no more turns to catch up on than those that it waited for.
    has_run: u64,
    standing: Standing,
}

impl Turns {
    /// Nobody is there yet; of what `given` names, there is so much.
    pub(super) fn new(given: Vec<ResourceTotal>) -> Turns {
        Turns { given: Totals(given), ..Turns::default() }
    }

    /// Takes in instances of `model`, one with each of `claims`.
    ///
    /// # Errors
    /// A sentence that names the field and both values, when one could never run, or a resource would be both global
    /// and of a device.
    pub(super) fn admit(
        &mut self,
        model: &str,
        claims: Vec<Claim>,
    ) -> Result<(Vec<InstanceId>, Come), String> {
        claims.iter().try_for_each(|claim| {
            self.is_enough_for(claim)?;
            let there = self.instances.values().map(|there| (there.model.as_str(), &there.claim));
            there
                .chain(claims.iter().map(|own| (model, own)))
                .try_for_each(|(other, their)| contradiction(claim, other, their).map_or(Ok(()), Err))
        })?;
        let admit = |claim| {
            let id = InstanceId(self.next_id);
            self.next_id += 1;
            let contender = Contender { model: model.into(), claim, has_run: 0, standing: Standing::Idle };
            self.instances.insert(id, contender);
            id
        };
        let ids = claims.into_iter().map(admit).collect();
        self.take_stock();
        Ok((ids, self.next()))
    }

    /// Forgets an instance, and takes back what it holds.
    pub(super) fn dismiss(&mut self, id: InstanceId) -> Come {
        self.stop(id);
        self.instances.remove(&id);
        self.take_stock();
        self.next()
    }

    /// An instance wants to run. While it was idle others may have run more often: it does not catch up on that.
    pub(super) fn ask(&mut self, id: InstanceId) -> Come {
        let Some(asking) = self.instances.get(&id) else { return Come::new() };
        let rivals = self.instances.iter().filter(|(other, rival)| {
            **other != id && rival.standing != Standing::Idle && rival.claim.meets(&asking.claim)
        });
        let least = rivals.map(|(_, rival)| rival.has_run).min().unwrap_or(0);
        self.wait(id, least);
        self.next()
    }

    /// An instance does not run, or want to, any more; `ran` when it has.
    pub(super) fn leave(&mut self, id: InstanceId, ran: bool) -> Come {
        self.count(id, ran);
        self.stop(id);
        self.next()
    }

    /// An instance has run, if `ran`, and wants to again. It may have to wait for one that wanted to before.
    pub(super) fn ask_again(&mut self, id: InstanceId, ran: bool) -> Come {
        self.count(id, ran);
        self.stop(id);
        self.wait(id, 0);
        self.next()
    }

    /// Instances that wait need not; of `ids`, those that have left the queue.
    pub(super) fn withdraw(&mut self, ids: &[InstanceId]) -> (Vec<InstanceId>, Come) {
        let waits = |id: &&InstanceId| matches!(self.standing(**id), Standing::Waits { .. });
        let left: Vec<_> = ids.iter().filter(waits).copied().collect();
        left.iter().for_each(|id| self.stop(*id));
        (left, self.next())
    }

    /// What an instance does.
    pub(super) fn standing(&self, id: InstanceId) -> Standing {
        self.instances.get(&id).map_or(Standing::Idle, |contender| contender.standing)
    }

    /// How much of each resource there is.
    pub(super) fn stocks(&self) -> impl Iterator<Item = (&Resource, Stock)> {
        self.stocks.iter().map(|(resource, stock)| (resource, *stock))
    }

    /// What was given of resources that nobody takes.
    pub(super) fn unasked(&self) -> impl Iterator<Item = &ResourceTotal> {
        let asked =
            |total: &ResourceTotal| self.stocks.keys().any(|resource| total.is_called(&resource.name));
        self.given.0.iter().filter(move |total| !asked(total))
    }

    /// # Errors
    /// When `claim` takes more of something than there is.
    fn is_enough_for(&self, claim: &Claim) -> Result<(), String> {
        for (resource, count) in &claim.resources {
            if let Some(total) = self.given.of(resource).filter(|total| total < count) {
                return Err(format!(
                    "instance_group {:?} asks in rate_limiter.resources for {count} of the {resource}, but \
                     --rate-limit-resource gives {total}; give at least {}:{count}, or ask for less",
                    claim.group, resource.name
                ));
            }
        }
        Ok(())
    }

    /// Counts an execution of an instance that runs, if it `ran`.
    fn count(&mut self, id: InstanceId, ran: bool) {
        if let Some(contender) = self.instances.get_mut(&id).filter(|_| ran) {
            contender.has_run = contender.has_run.saturating_add(contender.claim.priority);
        }
    }

    /// Makes an idle instance wait, as one that has run as much as `least`.
    fn wait(&mut self, id: InstanceId, least: u64) {
        let place = self.next_place;
        self.next_place += 1;
        if let Some(contender) = self.instances.get_mut(&id) {
            contender.has_run = contender.has_run.max(least);
            contender.standing = Standing::Waits { place };
        }
    }

    /// Makes an instance idle, and takes back what it holds.
    fn stop(&mut self, id: InstanceId) {
        let Some(contender) = self.instances.get_mut(&id) else { return };
        if contender.standing == Standing::Runs {
            for (resource, count) in &contender.claim.resources {
                if let Some(stock) = self.stocks.get_mut(resource) {
                    stock.used -= count;
                }
            }
        }
        contender.standing = Standing::Idle;
    }

    /// How much there is now that other instances are there.
    fn take_stock(&mut self) {
        let mut stocks: BTreeMap<Resource, Stock> = BTreeMap::new();
        for (resource, count) in self.instances.values().flat_map(|there| &there.claim.resources) {
            let used = self.stocks.get(resource).map_or(0, |stock| stock.used);
            let stock = stocks.entry(resource.clone()).or_insert(Stock { total: 0, used });
            stock.total = self.given.of(resource).unwrap_or(stock.total.max(*count));
        }
        self.stocks = stocks;
    }

    /// Hands out what is free, to those whose turn it is.
    fn next(&mut self) -> Come {
        let mut waiting: Vec<_> = self
            .instances
            .iter()
            .filter_map(|(id, there)| match there.standing {
                Standing::Waits { place } => Some((there.has_run, place, *id)),
                Standing::Idle | Standing::Runs => None,
            })
            .collect();
        waiting.sort_unstable();
        let (mut come, mut awaited) = (Come::new(), BTreeSet::new());
        for (_, _, id) in waiting {
            let Some(contender) = self.instances.get_mut(&id) else { continue };
            let resources = &contender.claim.resources;
            let is_free = |(resource, count): &(Resource, u64)| {
                let stock = self.stocks.get(resource).copied().unwrap_or_default();
                !awaited.contains(resource) && stock.used.saturating_add(*count) <= stock.total
            };
            if !resources.iter().all(is_free) {
                awaited.extend(resources.iter().map(|(resource, _)| resource.clone()));
                continue;
            }
            for (resource, count) in resources {
                self.stocks.entry(resource.clone()).or_default().used += count;
            }
            contender.standing = Standing::Runs;
            come.push(id);
        }
        come
    }
}

/// What is wrong when `claim`, and `their` one of the model `other`, take a resource in two ways.
fn contradiction(claim: &Claim, other: &str, their: &Claim) -> Option<String> {
    let way = |resource: &Resource| if resource.device.is_none() { "global" } else { "of each device" };
    claim.resources.iter().find_map(|(own, _)| {
        let is_another = |theirs: &&(Resource, u64)| {
            theirs.0.name == own.name && theirs.0.device.is_none() != own.device.is_none()
        };
        let (theirs, _) = their.resources.iter().find(is_another)?;
        Some(format!(
            "instance_group {:?} asks in rate_limiter.resources for {:?} as a resource that is {}, but instance_group \
             {:?} of model {other:?} for one that is {}; set global alike in both, or give one another name",
            claim.group, own.name, way(own), their.group, way(theirs)
        ))
    })
}

#[cfg(test)]
mod tests;
