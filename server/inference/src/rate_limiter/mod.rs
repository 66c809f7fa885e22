//! Which instances may run at the same time: those that find free what their `rate_limiter` says they take.
//!
//! One for the process, across all models: Triton's `--rate-limit=execution_count`. Whose turn it is `turns`
//! decides, which is pure; here are the lock around it and the instances that sleep until their turn comes. Without
//! a rate limiter none of this is there.

mod resource;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

pub use resource::{Claim, Resource, ResourceTotal};
use turns::{InstanceId, Standing, Turns};

use crate::scheduler::Scheduler;

/// The instances of all models that wait for each other.
#[derive(Debug)]
pub struct RateLimiter {
    /// Held to say what an instance does, never while one runs.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    turns: Turns,
    /// Where each instance sleeps until it waits no more.
    beds: BTreeMap<InstanceId, Arc<Condvar>>,
}

/// How much of a resource there is, and how much of it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceUse {
    /// What it is.
    pub resource: Resource,
    /// In all.
    pub total: u64,
    /// By instances that run.
    pub used: u64,
}

impl State {
    fn wake(&self, ids: &[InstanceId]) {
        ids.iter().filter_map(|id| self.beds.get(id)).for_each(|bed| {
            bed.notify_one();
        });
    }
}

impl RateLimiter {
    /// Nobody waits yet. There is as much of each resource as `totals` says, else what the instance takes that takes
    /// most of it.
    pub fn new(totals: Vec<ResourceTotal>) -> RateLimiter {
        RateLimiter { state: Mutex::new(State { turns: Turns::new(totals), beds: BTreeMap::new() }) }
    }

    /// Takes in the instances of a version of `model`, one with each of `claims`. They are gone when what this
    /// returns is dropped; `None` when they take nothing, and so wait for nobody.
    ///
    /// # Errors
    /// A sentence that names the field and both values, when one could never run, or a resource would be both global
    /// and of a device.
    pub fn admit(self: &Arc<Self>, model: &str, claims: Vec<Claim>) -> Result<Option<Contenders>, String> {
        if claims.iter().all(|claim| claim.resources.is_empty()) {
            return Ok(None);
        }
        let mut state = self.state.lock();
        let (ids, come) = state.turns.admit(model, claims)?;
        let beds: Vec<_> = ids.iter().map(|_| Arc::new(Condvar::new())).collect();
        state.beds.extend(ids.iter().copied().zip(beds.iter().cloned()));
        state.wake(&come);
        Ok(Some(Contenders { limiter: Arc::clone(self), ids, beds }))
    }

    /// Every resource that a loaded model takes.
    pub fn resources(&self) -> Vec<ResourceUse> {
        let state = self.state.lock();
        let stocks = state.turns.stocks();
        stocks
            .map(|(resource, stock)| ResourceUse {
                resource: resource.clone(),
                total: stock.total,
                used: stock.used,
            })
            .collect()
    }

    /// What totals were given of resources that no loaded model takes.
    pub fn unasked(&self) -> Vec<ResourceTotal> {
        self.state.lock().turns.unasked().cloned().collect()
    }
}

/// The instances of one version, which wait for those of others and for each other.
#[derive(Debug)]
pub struct Contenders {
    limiter: Arc<RateLimiter>,
    /// By index of the instance.
    ids: Vec<InstanceId>,
    beds: Vec<Arc<Condvar>>,
}

impl Contenders {
    /// Says that the instance `index` wants to run.
    pub fn ask(&self, index: usize) -> Turn<'_> {
        let mut state = self.limiter.state.lock();
        let come = state.turns.ask(self.ids[index]);
        state.wake(&come);
        Turn { contenders: self, index, ran: false }
    }

    /// Serves `scheduler` as the instance `index`, which runs only while it holds what it takes, until it is closed and
    /// empty. What is to be run is taken by `run`, once the turn has come: so batches grow meanwhile, and nothing
    /// waits for this instance that another could run.
    pub fn serve<R>(&self, index: usize, scheduler: &Scheduler<R>, mut run: impl FnMut() -> Took) {
        while scheduler.wait() {
            let mut turn = self.ask(index);
            while turn.comes(scheduler) {
                match run() {
                    Took::Nothing => break,
                    Took::ToRun => turn.ran = true,
                    Took::AndEnded => {
                        drop(turn);
                        self.retire(index);
                        return scheduler.tell(); // the wake was meant for one that can run
                    }
                }
                if !scheduler.is_due() {
                    break;
                }
                turn.again();
            }
        }
    }

    /// Ends the wait of those that wait for their turn to serve `scheduler` when nothing is left there. To be called by
    /// all who take requests out of it, afterwards: whoever leaves none behind sees that there is none.
    pub fn recall<R>(&self, scheduler: &Scheduler<R>) {
        if scheduler.is_empty() {
            self.withdraw();
        }
    }

    fn withdraw(&self) {
        let mut state = self.limiter.state.lock();
        let (left, come) = state.turns.withdraw(&self.ids);
        state.wake(&left);
        state.wake(&come);
    }

    /// Forgets the instance `index`, which will not run again.
    fn retire(&self, index: usize) {
        let mut state = self.limiter.state.lock();
        let come = state.turns.dismiss(self.ids[index]);
        state.beds.remove(&self.ids[index]);
        state.wake(&come);
    }

    /// Instances that have something to do and wait for their turn.
    pub fn waiting(&self) -> usize {
        let state = self.limiter.state.lock();
        let waits = |id: &&InstanceId| matches!(state.turns.standing(**id), Standing::Waits { .. });
        self.ids.iter().filter(waits).count()
    }
}

impl Drop for Contenders {
    fn drop(&mut self) {
        (0..self.ids.len()).for_each(|index| self.retire(index));
    }
}

/// What an instance did when its turn had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// It found nothing to run.
    Nothing,
    /// It ran what it found.
    ToRun,
    /// It ran what it found, and cannot run again.
    AndEnded,
}

/// One run of an instance: it is waited for, then it holds what the instance takes until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    contenders: &'a Contenders,
    index: usize,
    /// To be counted.
    ran: bool,
}

impl Turn<'_> {
    /// True when the instance may run now.
    fn has_come(&self) -> bool {
        self.contenders.limiter.state.lock().turns.standing(self.id()) == Standing::Runs
    }

    /// Waits until the instance may run; false when it need not any more.
    fn wait(&self) -> bool {
        let mut state = self.contenders.limiter.state.lock();
        loop {
            match state.turns.standing(self.id()) {
                Standing::Runs => return true,
                Standing::Idle => return false,
                Standing::Waits { .. } => self.contenders.beds[self.index].wait(&mut state),
            }
        }
    }

    /// Waits until the instance may run what waits in `scheduler`; false when nothing is left there.
    fn comes<R>(&self, scheduler: &Scheduler<R>) -> bool {
        if self.has_come() {
            return true;
        }
        scheduler.tell(); // another instance may find free what it takes
        // Whoever took the last request out before this turn was asked for has not ended the wait for it.
        !scheduler.is_empty() && self.wait()
    }

    /// Gives back what the instance held while it ran, and says that it wants to run again, at once: else one that has
    /// run more would take its place meanwhile.
    fn again(&mut self) {
        let mut state = self.contenders.limiter.state.lock();
        let come = state.turns.ask_again(self.id(), std::mem::take(&mut self.ran));
        state.wake(&come);
    }

    fn id(&self) -> InstanceId {
        self.contenders.ids[self.index]
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.contenders.limiter.state.lock();
        let come = state.turns.leave(self.id(), self.ran);
        state.wake(&come);
    }
}

#[cfg(test)]
mod tests;
