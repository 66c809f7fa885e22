//! Which requests of different size run together, each padded to the size of the largest.
//!
//! The request that is next to run is always among them, so each request that comes runs after as many batches as
//! there were requests before it, at most. Around it are taken the neighbours in size that make the batch run the
//! most times faster than they would run one by one.

use std::ops::Range;

use super::Ticket;

/// A batch has at most so many times the elements of its requests, whatever the cost says. It bounds the memory that a
/// batch takes while the cost is still poorly known.
const MOST_TIMES: u64 = 4;

/// What a run of `rows` items of `size` takes: `base + work · rows · size + square · rows · size²` seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunCost {
    /// However small the run is.
    pub base: f64,
    /// For each item times its size.
    pub work: f64,
    /// For each item times the square of its size.
    pub square: f64,
    /// A run takes this at least.
    pub least: f64,
}

impl RunCost {
    /// Seconds that a run takes.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn seconds(&self, rows: u64, size: u64) -> f64 {
        let (rows, size) = (rows as f64, size as f64);
        (self.base + rows * size * (self.work + self.square * size)).max(self.least)
    }
}

/// A request that may join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its place among those that wait, from 0 for the next to run.
    pub(super) place: usize,
    pub(super) ticket: Ticket,
    pub(super) rows: u64,
    pub(super) size: u64,
}

/// What a batch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) rows: u64,
    /// Rows times the size of the largest.
    pub(super) work: u64,
}

impl Room {
    fn holds(&self, rows: u64, size: u64) -> bool {
        rows <= self.rows && rows.saturating_mul(size) <= self.work
    }
}

/// Leaves in `candidates` those that run together, in the order of their places. The first of them is the next to
/// run. While `cost` is not known only what has its size joins it.
pub(super) fn choose(candidates: &mut Vec<Candidate>, cost: Option<&RunCost>, room: Room) {
    let Some(next) = candidates.first().copied() else { return };
    // Nearest to the next one stands, on either side, the one of its size that came first.
    candidates.sort_unstable_by_key(|candidate| {
        let smaller = candidate.size < next.size;
        let place = if smaller { usize::MAX - candidate.place } else { candidate.place };
        (candidate.size, place)
    });
    let position = candidates.iter().position(|candidate| candidate.place == next.place).unwrap_or_default();
    let equal = position..position + equal(&candidates[position..], room);
    let chosen = match cost {
        None => equal,
        Some(cost) => fastest(candidates, equal, cost, room),
    };
    candidates.truncate(chosen.end);
    candidates.drain(..chosen.start);
    candidates.sort_unstable_by_key(|candidate| candidate.place);
}

/// How many of `candidates` have the size of the first and fit into one batch with it.
fn equal(candidates: &[Candidate], room: Room) -> usize {
    let (first, others) = (candidates[0], &candidates[1..]);
    let mut rows = first.rows;
    let fits = |candidate: &&Candidate| {
        rows = rows.saturating_add(candidate.rows);
        candidate.size == first.size && room.holds(rows, first.size)
    };
    1 + others.iter().take_while(fits).count()
}

/// Adds to `chosen`, which have been chosen, those of `others` that need no more padding, fit, and let the batch run no
/// fewer times faster than one by one.
pub(super) fn fill(chosen: &mut Vec<Candidate>, others: &[Candidate], cost: Option<&RunCost>, room: Room) {
    let Some(size) = chosen.iter().map(|each| each.size).max() else { return };
    let mut rows = chosen.iter().map(|each| each.rows).fold(0, u64::saturating_add);
    let smallest = if cost.is_some() { size.div_ceil(MOST_TIMES) } else { size };
    let one_by_one = |each: &Candidate| cost.map_or(0.0, |cost| cost.seconds(each.rows, each.size));
    let mut alone: f64 = chosen.iter().map(one_by_one).sum();
    for other in others.iter().filter(|other| (smallest..=size).contains(&other.size)) {
        let (more, alone_more) = (rows.saturating_add(other.rows), alone + one_by_one(other));
        let pays = |cost: &RunCost| alone_more / cost.seconds(more, size) >= alone / cost.seconds(rows, size);
        if !room.holds(more, size) || !cost.is_none_or(pays) {
            break; // nobody overtakes one of his own size
        }
        (rows, alone) = (more, alone_more);
        chosen.push(*other);
    }
}

/// The neighbours around the first of `equal` that run the most times faster together than one by one; `equal` when
/// none do better than they. `candidates` are in the order of their size.
fn fastest(candidates: &[Candidate], equal: Range<usize>, cost: &RunCost, room: Room) -> Range<usize> {
    let position = equal.start;
    let together = |chosen: &[Candidate]| {
        let alone: f64 = chosen.iter().map(|each| cost.seconds(each.rows, each.size)).sum();
        let rows = chosen.iter().map(|each| each.rows).sum();
        alone / cost.seconds(rows, chosen[0].size)
    };
    // Those of one size run together in any case, as they do where nothing is padded.
    let mut best_speedup = together(&candidates[equal.clone()]).max(1.0);
    let mut best = equal;
    let alone_of: Vec<f64> = candidates.iter().map(|each| cost.seconds(each.rows, each.size)).collect();
    for last in position..candidates.len() {
        let size = candidates[last].size;
        let (mut rows, mut useful, mut alone) = (0_u64, 0_u128, 0.0);
        for first in (0..=last).rev() {
            let candidate = candidates[first];
            rows = rows.saturating_add(candidate.rows);
            if !room.holds(rows, size) {
                if first >= position {
                    return best; // nor do those that are larger, with all between
                }
                break;
            }
            useful += u128::from(candidate.rows) * u128::from(candidate.size);
            alone += alone_of[first];
            let all = u128::from(rows) * u128::from(size);
            if first > position || all > useful.saturating_mul(u128::from(MOST_TIMES)) {
                continue;
            }
            let speedup = alone / cost.seconds(rows, size);
            if speedup > best_speedup {
                (best, best_speedup) = (first..last + 1, speedup);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As measured of a small language model on two threads.
    const TEXT: RunCost = RunCost { base: 2e-3, work: 70e-6, square: 0.2e-6, least: 1e-3 };
    const WIDE: Room = Room { rows: 32, work: u64::MAX };

    fn candidates(sizes: &[u64]) -> Vec<Candidate> {
        let one = |(place, size): (usize, &u64)| Candidate {
            place,
            ticket: Ticket { level: 0, number: place as u64 },
            rows: 1,
            size: *size,
        };
        sizes.iter().enumerate().map(one).collect()
    }

    fn chosen(sizes: &[u64], cost: Option<&RunCost>, room: Room) -> Vec<usize> {
        let mut all = candidates(sizes);
        choose(&mut all, cost, room);
        all.iter().map(|candidate| candidate.place).collect()
    }

    #[test]
    fn what_is_similar_to_the_next_joins_it() {
        assert_eq!(chosen(&[10, 128, 11, 12, 120, 10], Some(&TEXT), WIDE), [0, 2, 3, 5]);
        assert_eq!(chosen(&[128, 10, 11, 12, 120, 10], Some(&TEXT), WIDE), [0, 4]);
        assert_eq!(chosen(&[10, 128], Some(&TEXT), WIDE), [0], "it would wait for the padding of the other");
        assert_eq!(chosen(&[128, 4], Some(&TEXT), WIDE), [0], "it would be padded to 32 times its size");
        assert_eq!(chosen(&[7], Some(&TEXT), WIDE), [0]);
        assert_eq!(chosen(&[], Some(&TEXT), WIDE), [0_usize; 0]);
    }

    #[test]
    fn what_came_first_joins_first() {
        let room = Room { rows: 3, work: u64::MAX };
        assert_eq!(chosen(&[10; 5], Some(&TEXT), room), [0, 1, 2]);
        assert_eq!(chosen(&[10, 9, 9, 9, 9], Some(&TEXT), room), [0, 1, 2]);
        assert_eq!(chosen(&[10, 11, 11, 11, 11], Some(&TEXT), room), [0, 1, 2]);
    }

    #[test]
    fn before_the_cost_is_known_only_the_same_size_joins() {
        assert_eq!(chosen(&[10, 11, 10, 9, 10], None, WIDE), [0, 2, 4]);
        assert_eq!(chosen(&[10, 11, 10, 9, 10], None, Room { rows: 2, work: 100 }), [0, 2]);
        assert_eq!(chosen(&[10, 10], None, Room { rows: 2, work: 19 }), [0]);
    }

    /// As without padding, whatever the estimate says.
    #[test]
    fn the_same_size_joins_although_nothing_is_gained() {
        let linear = RunCost { base: 0.0, work: 1e-3, square: 0.0, least: 0.0 };
        assert_eq!(chosen(&[10, 11, 10], Some(&linear), WIDE), [0, 2]);
        let worse = RunCost { base: -1e-3, ..linear };
        assert_eq!(chosen(&[10, 11, 10], Some(&worse), WIDE), [0, 2]);
    }

    #[test]
    fn one_that_is_larger_than_a_batch_runs_alone() {
        let mut all = candidates(&[10, 10]);
        all[0].rows = 40;
        choose(&mut all, Some(&TEXT), WIDE);
        assert_eq!(all.len(), 1);
        let mut all = candidates(&[10, 10]);
        all[1].rows = u64::MAX;
        choose(&mut all, Some(&TEXT), WIDE);
        assert_eq!(all.iter().map(|candidate| candidate.rows).sum::<u64>(), 1);
    }

    #[test]
    fn others_fill_the_room_that_is_left_and_lengthen_nothing() {
        let filled = |sizes: &[u64], cost: Option<&RunCost>, room| {
            let all = candidates(sizes);
            let mut chosen = all[..1].to_vec();
            fill(&mut chosen, &all[1..], cost, room);
            chosen.iter().map(|candidate| candidate.place).collect::<Vec<_>>()
        };
        assert_eq!(filled(&[10, 10, 11, 9, 2], Some(&TEXT), WIDE), [0, 1, 3]);
        assert_eq!(filled(&[128, 100, 2], Some(&TEXT), WIDE), [0], "it pays for none");
        assert_eq!(filled(&[10, 10, 9, 10], None, WIDE), [0, 1, 3]);
        assert_eq!(filled(&[10, 10, 10], Some(&TEXT), Room { rows: 2, work: u64::MAX }), [0, 1]);
    }

    proptest! {
        /// The next to run is in; nothing is over the bounds; it takes no longer than one by one; and no other
        /// neighbours in size would be faster.
        #[test]
        fn a_batch_is_within_its_bounds_and_the_fastest(
            sizes in proptest::collection::vec((1..5_u64, 1..200_u64), 1..14),
            base in 0.0..5e-3_f64, work in 0.0..2e-4_f64, square in 0.0..1e-6_f64,
            rows in 1..20_u64, most_work in 1..4000_u64,
        ) {
            let cost = RunCost { base, work, square, least: 1e-6 };
            let room = Room { rows, work: most_work };
            let mut all = candidates(&sizes.iter().map(|(_, size)| *size).collect::<Vec<_>>());
            all.iter_mut().zip(&sizes).for_each(|(one, (rows, _))| one.rows = *rows);
            let sorted = { let mut sorted = all.clone(); sorted.sort_by_key(|one| one.size); sorted };
            let mut chosen = all.clone();
            choose(&mut chosen, Some(&cost), room);
            prop_assert_eq!(chosen[0].place, 0);
            prop_assert!(chosen.windows(2).all(|pair| pair[0].place < pair[1].place));
            let speedup = |chosen: &[Candidate]| {
                let size = chosen.iter().map(|one| one.size).max().unwrap();
                let rows: u64 = chosen.iter().map(|one| one.rows).sum();
                let useful: u64 = chosen.iter().map(|one| one.rows * one.size).sum();
                let fits = chosen.len() == 1 || room.holds(rows, size) && rows * size <= 4 * useful;
                let alone: f64 = chosen.iter().map(|one| cost.seconds(one.rows, one.size)).sum();
                (fits, alone / cost.seconds(rows, size))
            };
            let (fits, gained) = speedup(&chosen);
            prop_assert!(fits && gained > 1.0 - 1e-9, "{gained}");
            for first in 0..sorted.len() {
                for last in first..sorted.len() {
                    let other = &sorted[first..=last];
                    let (fits, would_gain) = speedup(other);
                    let distinct = sizes.iter().map(|(_, size)| size).collect::<std::collections::HashSet<_>>().len() == sizes.len();
                    if distinct && fits && other.iter().any(|one| one.place == 0) {
                        prop_assert!(would_gain <= gained + 1e-9, "{would_gain} instead of {gained}");
                    }
                }
            }
        }
    }
}
