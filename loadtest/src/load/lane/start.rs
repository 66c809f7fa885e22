//! The begin of a lane, from what all threads share, and its end, when it tells what it saw.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use anyhow::anyhow;
use tokio::sync::Notify;

use super::Lane;
use crate::arrivals::{Arrivals, Pattern, Schedule, Share};
use crate::clock::Clock;
use crate::load::connect::Ready;
use crate::load::{Mode, Setting, closed, open, part};
use crate::recorder::{Piece, Recorder, Tally};
use crate::transport::Connection;
use crate::workload::Picker;

/// A lane about to begin.
#[derive(Debug)]
pub(in crate::load) struct LaneStart {
    pub(in crate::load) setting: Setting,
    pub(in crate::load) share: Share,
    pub(in crate::load) clock: Clock,
    pub(in crate::load) out: Sender<Piece>,
}

impl LaneStart {
    /// Sends until the end, and gives what was seen.
    pub(in crate::load) async fn run(self, ready: Ready) -> anyhow::Result<Tally> {
        let (lane, connections) = self.lane(ready);
        let lane = Rc::new(lane);
        let watchdog = {
            let lane = Rc::clone(&lane);
            tokio::task::spawn_local(async move { lane.watch().await })
        };
        match lane.spec.mode {
            Mode::Closed { .. } => closed::begin(&lane, connections),
            Mode::Open { .. } => open::dispatch(&lane, connections).await?,
        }
        lane.finished().await?;
        watchdog.abort();
        // Ends when the aborted task has let go of the lane.
        let _ = watchdog.await;
        let lane = Rc::into_inner(lane).ok_or_else(|| anyhow!("a task outlives its lane"))?;
        Ok(lane.ended())
    }

    fn lane(self, ready: Ready) -> (Lane, Vec<Connection>) {
        let LaneStart { setting, share, clock, out } = self;
        let Setting { spec, workload, stop, .. } = setting;
        let window = spec.window();
        let (schedule, capacity) = match &spec.mode {
            Mode::Closed { concurrency } => (None, part(*concurrency, share)),
            Mode::Open { pattern, max_connections } => (Some(pattern), part(*max_connections, share).max(1)),
        };
        let scheduled = schedule.is_some();
        let pattern = schedule.cloned().unwrap_or(Pattern::Trace([].into()));
        let budget = spec
            .requests
            .map_or(u64::MAX, |requests| part(usize::try_from(requests).unwrap_or(usize::MAX), share) as u64);
        let lane = Lane {
            clock,
            window,
            opener: ready.opener,
            capacity,
            recorder: RefCell::new(Recorder::new(window, scheduled, out)),
            schedule: RefCell::new(Schedule::new(Arrivals::new(pattern, share, window.close))),
            slots: RefCell::default(),
            idle: RefCell::default(),
            freed: Notify::new(),
            over: Cell::new(false),
            picker: RefCell::new(Picker::new(Arc::clone(&workload), share, spec.seed)),
            workload,
            tasks: RefCell::default(),
            budget: Cell::new(budget),
            unreachable_since: Cell::new(None),
            stop,
            spec,
        };
        (lane, ready.connections)
    }
}

impl Lane {
    /// Counts what was due and never sent, unless the measurement ended early.
    fn ended(self) -> Tally {
        let now = self.clock.now();
        let mut recorder = self.recorder.into_inner();
        let mut schedule = self.schedule.into_inner();
        if !self.stop.is_set() && self.budget.get() > 0 {
            // There may be a thousand million, at a rate that nobody can send.
            let mut left = 0_u32;
            while let Some(due) = schedule.take_due(u64::MAX) {
                recorder.unanswered(due, now);
                left = left.wrapping_add(1);
                if left.is_multiple_of(4096) && self.stop.is_set() {
                    break;
                }
            }
        }
        recorder.finish()
    }
}
