//! Whose turn it is, case by case, and what holds whatever instances do.

use proptest::prelude::*;

use super::*;

/// How much of which resource, by device.
type Takes<'a> = &'a [(&'a str, Option<u32>, u64)];

fn claim(takes: Takes<'_>, priority: u64) -> Claim {
    let resource = |(name, device, count): &(&str, Option<u32>, u64)| {
        (Resource { name: (*name).into(), device: *device }, *count)
    };
    Claim { group: "g".into(), resources: takes.iter().map(resource).collect(), priority }
}

/// The CPU's.
const CPU: Option<u32> = Some(0);

fn admit(turns: &mut Turns, takes: Takes<'_>, priority: u64) -> InstanceId {
    let (ids, _) = turns.admit("m", vec![claim(takes, priority)]).unwrap();
    ids[0]
}

fn total(name: &str, count: u32) -> ResourceTotal {
    ResourceTotal { name: name.to_owned(), count, device: None }
}

fn stock(turns: &Turns, name: &str) -> Option<(u64, u64)> {
    turns.stocks().find(|(resource, _)| resource.name == name).map(|(_, stock)| (stock.total, stock.used))
}

/// Runs `wanting`, one after the other and each again and again, and says who ran.
fn run(turns: &mut Turns, mut running: InstanceId, count: usize) -> Vec<InstanceId> {
    let mut ran = Vec::new();
    while ran.len() < count {
        ran.push(running);
        let come = turns.ask_again(running, true);
        assert_eq!(come.len(), 1, "one at a time");
        running = come[0];
    }
    ran
}

#[test]
fn what_is_free_is_taken_at_once_and_what_is_not_when_it_is_given_back() {
    let mut turns = Turns::default();
    let [a, b] = [0; 2].map(|_| admit(&mut turns, &[("r", CPU, 1)], 1));
    assert_eq!((turns.ask(a).as_slice(), turns.ask(b).as_slice()), (&[a][..], &[][..]));
    assert_eq!((turns.standing(a), stock(&turns, "r")), (Standing::Runs, Some((1, 1))));
    assert!(matches!(turns.standing(b), Standing::Waits { .. }));
    assert_eq!(turns.leave(a, true).as_slice(), [b]);
    assert_eq!(turns.leave(b, true).as_slice(), []);
    assert_eq!(stock(&turns, "r"), Some((1, 0)));
}

#[test]
fn who_takes_nothing_runs_whoever_waits() {
    let mut turns = Turns::default();
    let [a, b] = [0; 2].map(|_| admit(&mut turns, &[("r", CPU, 1)], 1));
    let free = admit(&mut turns, &[], 1);
    turns.ask(a);
    turns.ask(b);
    assert_eq!(turns.ask(free).as_slice(), [free]);
}

#[test]
fn a_device_has_its_own_and_a_global_resource_is_one() {
    let mut turns = Turns::default();
    let [zero, one] = [0, 1].map(|device| admit(&mut turns, &[("r", Some(device), 3)], 1));
    assert_eq!((turns.ask(zero).as_slice(), turns.ask(one).as_slice()), (&[zero][..], &[one][..]));
    let [a, b] = [0, 1].map(|device| admit(&mut turns, &[("g", None, 1), ("s", Some(device), 1)], 1));
    assert_eq!((turns.ask(a).as_slice(), turns.ask(b).as_slice()), (&[a][..], &[][..]));
}

/// Triton's order: the least `executions × priority` first.
#[test]
fn one_of_priority_2_has_half_the_turns_of_one_of_priority_1() {
    let mut turns = Turns::default();
    let [a, b, c] = [1, 2, 4].map(|priority| admit(&mut turns, &[("r", CPU, 1)], priority));
    assert_eq!(turns.ask(a).as_slice(), [a]);
    turns.ask(b);
    turns.ask(c);
    let ran = run(&mut turns, a, 700);
    assert_eq!(ran[..7], [a, b, c, a, b, a, a], "equals run in the order in which they began to wait");
    let count = |id| ran.iter().filter(|ran| **ran == id).count();
    assert_eq!([count(a), count(b), count(c)], [400, 200, 100]);
}

/// A model that is loaded late, or was idle, had all the turns until it had run as often as the others: for hours.
#[test]
fn who_was_idle_does_not_catch_up() {
    let mut turns = Turns::default();
    let [a, b] = [0; 2].map(|_| admit(&mut turns, &[("r", CPU, 1)], 1));
    for _ in 0..1000 {
        assert_eq!(turns.ask(a).as_slice(), [a]);
        turns.leave(a, true);
    }
    turns.ask(a);
    turns.ask(b);
    assert_eq!(run(&mut turns, a, 6), [a, b, a, b, a, b]);
    let elsewhere = admit(&mut turns, &[("s", CPU, 1)], 1);
    assert_eq!(turns.ask(elsewhere).as_slice(), [elsewhere]);
    assert_eq!(turns.instances[&elsewhere].has_run, 0, "it shares nothing with them");
}

/// The other way round, too: who asks again at once keeps its turns, although others wait that have run more.
#[test]
fn who_goes_on_keeps_the_turns_it_has() {
    let mut turns = Turns::default();
    let [a, b] = [1, 10].map(|priority| admit(&mut turns, &[("r", CPU, 1)], priority));
    turns.ask(a);
    turns.ask(b);
    let ran = run(&mut turns, a, 22);
    assert_eq!(ran.iter().filter(|ran| **ran == a).count(), 20, "{ran:?}");
}

/// What takes little would go on for ever, and never leave enough.
#[test]
fn who_takes_much_is_not_starved_by_those_who_take_little() {
    let mut turns = Turns::default();
    let [a, b] = [0; 2].map(|_| admit(&mut turns, &[("r", CPU, 1)], 1));
    let all = admit(&mut turns, &[("r", CPU, 2), ("s", CPU, 1)], 1);
    let other = admit(&mut turns, &[("s", CPU, 1)], 1);
    let apart = admit(&mut turns, &[("t", CPU, 1)], 1);
    assert_eq!((turns.ask(a).as_slice(), turns.ask(b).as_slice()), (&[a][..], &[b][..]));
    assert_eq!(turns.ask(all).as_slice(), []);
    assert_eq!(turns.ask_again(a, true).as_slice(), [], "one is free, but another waits for it");
    assert_eq!(turns.ask(other).as_slice(), [], "s is free, but another waits for it");
    assert_eq!(turns.ask(apart).as_slice(), [apart], "nobody waits for what it takes");
    assert_eq!(turns.ask_again(b, true).as_slice(), [all]);
    assert_eq!(turns.leave(all, true).as_slice(), [other, a, b]);
}

#[test]
fn who_leaves_the_queue_makes_way() {
    let mut turns = Turns::default();
    let a = admit(&mut turns, &[("r", CPU, 1)], 1);
    let all = admit(&mut turns, &[("r", CPU, 2)], 1);
    let b = admit(&mut turns, &[("r", CPU, 1)], 1);
    [a, all, b].iter().for_each(|id| drop(turns.ask(*id)));
    let (left, come) = turns.withdraw(&[a, all]);
    assert_eq!((left.as_slice(), come.as_slice()), (&[all][..], &[b][..]), "who runs goes on");
    assert_eq!((turns.standing(a), turns.standing(all)), (Standing::Runs, Standing::Idle));
}

#[test]
fn a_turn_without_a_run_is_not_counted() {
    let mut turns = Turns::default();
    let a = admit(&mut turns, &[("r", CPU, 1)], 3);
    turns.ask(a);
    turns.leave(a, false);
    assert_eq!(turns.instances[&a].has_run, 0);
    turns.ask(a);
    turns.leave(a, true);
    assert_eq!(turns.instances[&a].has_run, 3);
}

#[test]
fn there_is_as_much_as_one_takes_at_most_and_less_when_that_one_is_gone() {
    let mut turns = Turns::default();
    let [a, b] = [3, 4].map(|count| admit(&mut turns, &[("r", CPU, count)], 1));
    assert_eq!(stock(&turns, "r"), Some((4, 0)));
    assert_eq!((turns.ask(a).as_slice(), turns.ask(b).as_slice()), (&[a][..], &[][..]));
    // With the third there is enough for both.
    let (ids, come) = turns.admit("late", vec![claim(&[("r", CPU, 7)], 1)]).unwrap();
    assert_eq!((come.as_slice(), stock(&turns, "r")), (&[b][..], Some((7, 7))));
    turns.dismiss(ids[0]);
    assert_eq!(stock(&turns, "r"), Some((4, 7)), "what is held is given back when it is");
    assert_eq!(turns.ask_again(a, true).as_slice(), []);
    assert_eq!(turns.dismiss(b).as_slice(), [a], "what one held that is gone is free");
    assert_eq!((turns.dismiss(a).as_slice(), stock(&turns, "r")), (&[][..], None));
    assert_eq!((turns.ask(a).as_slice(), turns.standing(a)), (&[][..], Standing::Idle), "it is gone");
}

#[test]
fn what_was_given_holds_whatever_instances_take() {
    let mut turns = Turns::new(vec![total("R", 6), total("spare", 1)]);
    let [a, b, c] = [2, 4, 1].map(|count| admit(&mut turns, &[("r", CPU, count), ("s", CPU, 1)], 1));
    assert_eq!((stock(&turns, "r"), stock(&turns, "s")), (Some((6, 0)), Some((1, 0))));
    assert_eq!(turns.unasked().collect::<Vec<_>>(), [&total("spare", 1)]);
    [a, b, c].iter().for_each(|id| drop(turns.dismiss(*id)));
    assert_eq!(turns.unasked().count(), 2);
}

#[test]
fn who_could_never_run_is_not_admitted() {
    let mut turns =
        Turns::new(vec![total("r", 3), ResourceTotal { name: "gpu".to_owned(), count: 9, device: Some(1) }]);
    let mut refused = |takes: Takes<'_>| turns.admit("m", vec![claim(&[], 1), claim(takes, 1)]).unwrap_err();
    assert_eq!(
        refused(&[("r", CPU, 4)]),
        "instance_group \"g\" asks in rate_limiter.resources for 4 of the resource \"r\" of device 0, but \
         --rate-limit-resource gives 3; give at least r:4, or ask for less"
    );
    assert!(refused(&[("r", None, 4)]).contains("for 4 of the global resource \"r\", but"));
    assert!(refused(&[("gpu", CPU, 1)]).contains("gives 0; give at least gpu:1"));
    assert_eq!((turns.instances.len(), turns.stocks().count()), (0, 0), "nothing is left of it");
    assert!(turns.admit("m", vec![claim(&[("r", CPU, 3)], 1)]).is_ok());
}

#[test]
fn a_resource_is_global_for_all_or_for_none() {
    let mut turns = Turns::default();
    let global = admit(&mut turns, &[("r", None, 1)], 1);
    assert_eq!(
        turns.admit("late", vec![claim(&[("r", CPU, 1)], 1)]).unwrap_err(),
        "instance_group \"g\" asks in rate_limiter.resources for \"r\" as a resource that is of each device, but \
         instance_group \"g\" of model \"m\" for one that is global; set global alike in both, or give one another name"
    );
    turns.dismiss(global);
    assert!(turns.admit("late", vec![claim(&[("r", CPU, 1)], 1), claim(&[("r", None, 1)], 1)]).is_err());
    assert!(turns.admit("late", vec![claim(&[("r", CPU, 1)], 1), claim(&[("r", Some(1), 1)], 1)]).is_ok());
}

/// Something that an instance does.
#[derive(Clone, Debug)]
enum Step {
    Admit {
        resources: Vec<(usize, u64)>,
        priority: u64,
    },
    Dismiss(usize),
    /// Asks, or, when it runs, goes on.
    Ask(usize),
    Leave {
        instance: usize,
        ran: bool,
    },
    Withdraw(usize, usize),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn step() -> impl Strategy<Value = Step> {
    let instance = 0..12_usize;
    prop_oneof![
        2 => (prop::collection::btree_map(0..NAMES.len(), 1..5_u64, 0..=3), 1..4_u64).prop_map(
            |(resources, priority)| Step::Admit { resources: resources.into_iter().collect(), priority }
        ),
        1 => instance.clone().prop_map(Step::Dismiss),
        8 => instance.clone().prop_map(Step::Ask),
        6 => (instance.clone(), any::<bool>()).prop_map(|(instance, ran)| Step::Leave { instance, ran }),
        1 => (instance.clone(), instance).prop_map(|(one, other)| Step::Withdraw(one, other)),
    ]
}

/// Where a waiting instance stands, least first.
fn place(turns: &Turns, id: InstanceId) -> Option<(u64, u64)> {
    match turns.standing(id) {
        Standing::Waits { place } => Some((turns.instances[&id].has_run, place)),
        Standing::Idle | Standing::Runs => None,
    }
}

/// Does one step; whose turn has come.
fn take(turns: &mut Turns, ids: &mut Vec<InstanceId>, step: &Step) -> Come {
    let named = |ids: &[InstanceId], index: usize| ids.get(index).copied();
    match step {
        Step::Admit { resources, priority } => {
            let takes: Vec<_> = resources
                .iter()
                .map(|(name, count)| (NAMES[*name], CPU.filter(|_| *name > 0), *count))
                .collect();
            let Ok((new, come)) = turns.admit("m", vec![claim(&takes, *priority)]) else {
                return Come::new();
            };
            ids.extend(new);
            come
        }
        Step::Dismiss(index) if *index < ids.len() => turns.dismiss(ids.remove(*index)),
        Step::Ask(index) => match named(ids, *index) {
            Some(id) if turns.standing(id) == Standing::Idle => turns.ask(id),
            Some(id) if turns.standing(id) == Standing::Runs => turns.ask_again(id, true),
            _ => Come::new(),
        },
        Step::Leave { instance, ran } => match named(ids, *instance) {
            Some(id) => turns.leave(id, *ran && turns.standing(id) == Standing::Runs),
            None => Come::new(),
        },
        Step::Withdraw(one, other) => {
            let left: Vec<_> = [*one, *other].iter().filter_map(|index| named(ids, *index)).collect();
            turns.withdraw(&left).1
        }
        Step::Dismiss(_) => Come::new(),
    }
}

/// What holds after every change. `before` is where those waited whose turn has `come`, as far as they did.
fn check(turns: &Turns, come: &Come) -> Result<(), TestCaseError> {
    for (resource, stock) in turns.stocks() {
        let running = turns.instances.values().filter(|there| there.standing == Standing::Runs);
        let taken = |there: &Contender| {
            let takes = there.claim.resources.iter().filter(|(taken, _)| taken == resource);
            takes.map(|(_, count)| *count).sum::<u64>()
        };
        prop_assert_eq!(running.map(taken).sum::<u64>(), stock.used, "{:?}", resource);
    }
    for id in come {
        prop_assert_eq!(turns.standing(*id), Standing::Runs);
        for (resource, _) in &turns.instances[id].claim.resources {
            prop_assert!(turns.stocks[resource].used <= turns.stocks[resource].total, "{:?}", resource);
        }
    }
    // Who waits lacks something, or stands behind one that waits for the same.
    for (id, there) in &turns.instances {
        let Some(own) = place(turns, *id) else { continue };
        let is_before = |(other, rival): (&InstanceId, &Contender)| {
            place(turns, *other).is_some_and(|place| place < own) && rival.claim.meets(&there.claim)
        };
        let lacks = |(resource, count): &(Resource, u64)| {
            turns.stocks[resource].used + count > turns.stocks[resource].total
        };
        prop_assert!(
            there.claim.resources.iter().any(lacks) || turns.instances.iter().any(is_before),
            "{id:?} waits although it is its turn: {turns:?}"
        );
        // Nobody was let past it: what it shares with those whose turn came was theirs before.
        for passed in come {
            let passer = &turns.instances[passed];
            prop_assert!(
                !passer.claim.meets(&there.claim) || passer.has_run <= own.0,
                "{passed:?} went past {id:?}: {turns:?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn never_more_than_there_is_and_nobody_waits_in_vain(
        given in prop::collection::vec((0..NAMES.len(), 1..7_u32), 0..2),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut turns = Turns::new(given.iter().map(|(name, count)| total(NAMES[*name], *count)).collect());
        let mut ids = Vec::new();
        for step in &steps {
            let come = take(&mut turns, &mut ids, step);
            check(&turns, &come)?;
        }
        // When each that runs ends, the turn of all that wait comes, and then all is given back.
        for _ in 0..=ids.len() {
            let running = ids.iter().copied().filter(|id| turns.standing(*id) == Standing::Runs);
            for id in running.collect::<Vec<_>>() {
                let come = turns.leave(id, true);
                check(&turns, &come)?;
            }
        }
        prop_assert!(ids.iter().all(|id| turns.standing(*id) == Standing::Idle), "{:?}", turns);
        prop_assert!(turns.stocks().all(|(_, stock)| stock.used == 0), "{:?}", turns);
    }

    /// Of those that go on and on over one resource, each has its share.
    #[test]
    fn turns_are_shared_by_priority(priorities in prop::collection::vec(1..5_u64, 2..6)) {
        let mut turns = Turns::default();
        let ids: Vec<_> = priorities.iter().map(|it| admit(&mut turns, &[("r", CPU, 1)], *it)).collect();
        ids.iter().for_each(|id| drop(turns.ask(*id)));
        let ran = run(&mut turns, ids[0], 1000);
        let weight = |id: InstanceId, priority: u64| {
            priority * ran.iter().filter(|ran| **ran == id).count() as u64
        };
        let weights: Vec<_> = ids.iter().zip(&priorities).map(|(id, priority)| weight(*id, *priority)).collect();
        let (least, most) = (weights.iter().min().unwrap(), weights.iter().max().unwrap());
        prop_assert!(most - least <= 4, "{:?} of {:?}", weights, priorities);
    }
}
