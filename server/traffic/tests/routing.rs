//! Where requests go: the order of what decides, and what a share does to callers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, HashMap};

use model::{ModelName, ModelVersion, Parameter, Parameters};
use proptest::prelude::*;
use traffic::{
    Arm, Caller, Choice, Hash, InvalidSplit, KeySource, Match, Mirror, Pattern, Route, RoutedBy, Rule, SLOTS,
    Salt, Slot, Split, SplitParts, TrafficTable,
};

const STABLE: u64 = 1;
const CANARY: u64 = 2;

#[derive(Clone, Default)]
struct Request {
    headers: HashMap<&'static str, String>,
    parameters: Parameters,
    id: String,
    random: u64,
}

impl Request {
    fn of(user: impl ToString) -> Request {
        Request::default().with("x-user", user)
    }

    fn with(mut self, header: &'static str, value: impl ToString) -> Request {
        self.headers.insert(header, value.to_string());
        self
    }

    fn parameter(mut self, name: &str, value: Parameter) -> Request {
        self.parameters.insert(name, value);
        self
    }
}

impl Caller for Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.get(name)
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn random(&self) -> u64 {
        self.random
    }
}

fn version(number: u64) -> ModelVersion {
    ModelVersion::new(number).unwrap()
}

fn parts(share: u16) -> SplitParts {
    SplitParts {
        stable: version(STABLE),
        canary: Some((version(CANARY), share)),
        baseline: false,
        rules: Vec::new(),
        keys: vec![KeySource::Header("x-user".into()), KeySource::Parameter("user".into())],
        salt: Salt::new(Hash::Xxh3, "digits/2"),
        mirror: None,
    }
}

fn split(share: u16) -> Split {
    Split::new(parts(share)).unwrap()
}

fn number(choice: Choice) -> u64 {
    choice.version.get()
}

fn only(source: KeySource, pattern: Pattern) -> Vec<Match> {
    vec![Match { source, pattern }]
}

fn rule(name: &str, all: Vec<Match>, to: u64) -> Rule {
    Rule { name: name.into(), all, version: version(to) }
}

#[test]
fn the_request_decides_then_rules_then_slots_then_what_is_latest() {
    let name = ModelName::parse("digits").unwrap();
    let other = ModelName::parse("other").unwrap();
    let header = KeySource::Header("x-tester".into());
    let rules = vec![rule("testers", only(header, Pattern::Exact("yes".into())), CANARY)];
    let table =
        TrafficTable::default().with(&name, Some(Split::new(SplitParts { rules, ..parts(0) }).unwrap()));
    let caller = Request::of(7).with("x-tester", "yes");
    assert_eq!(table.route(&name, Some(version(9)), &caller), Route::Explicit(version(9)));
    let Route::Divided(ruled) = table.route(&name, None, &caller) else { panic!() };
    assert_eq!((number(ruled), ruled.arm, ruled.by), (CANARY, Arm::Canary, RoutedBy::Rule(0)));
    let Route::Divided(by_slot) = table.route(&name, None, &Request::of(7)) else { panic!() };
    assert_eq!((number(by_slot), by_slot.arm), (STABLE, Arm::Stable));
    assert!(matches!(by_slot.by, RoutedBy::Slot(_)));
    assert_eq!(table.route(&other, None, &caller), Route::Latest);
    assert_eq!(table.with(&name, None).route(&name, None, &caller), Route::Latest);
    assert_eq!(table.divided().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["digits"]);
}

#[test]
fn a_key_is_looked_for_in_order_then_the_id_serves_then_chance() {
    let split = split(5_000);
    let salt = Salt::new(Hash::Xxh3, "digits/2");
    let by = |request: &Request| split.choose(request).by;
    let slot = |key: &str| RoutedBy::Slot(salt.slot(key));
    let mut request = Request::of("ann").parameter("user", Parameter::Int(42));
    request.id = "the id".to_owned();
    assert_eq!(by(&request), slot("ann"));
    request.headers.insert("x-user", String::new());
    assert_eq!(by(&request), slot("42"), "what is empty is not there");
    request.parameters.remove("user");
    assert_eq!(by(&request), slot("the id"));
    request.id.clear();
    request.random = 12_345;
    assert_eq!(by(&request), RoutedBy::Chance(Slot::new(2_345).unwrap()));
    for (value, text) in [
        (Parameter::Bool(true), "true"),
        (Parameter::Uint(u64::MAX), "18446744073709551615"),
        (Parameter::Double(0.5), "0.5"),
        (Parameter::String("ann".to_owned()), "ann"),
    ] {
        assert_eq!(by(&Request::default().parameter("user", value)), slot(text));
    }
}

#[test]
fn rules_fit_whole_values_beginnings_and_expressions() {
    let header = || KeySource::Header("x-team".into());
    let fits = |pattern: Pattern, value: &str| {
        Match { source: header(), pattern }.fits(&Request::default().with("x-team", value))
    };
    assert!(fits(Pattern::Exact("search".into()), "search"));
    assert!(!fits(Pattern::Exact("search".into()), "search-2"));
    assert!(fits(Pattern::Prefix("search".into()), "search-2"));
    assert!(!fits(Pattern::Prefix("search".into()), "re-search"));
    let regex = || Pattern::regex("search-[0-9]|ads").unwrap();
    assert!(fits(regex(), "search-2") && fits(regex(), "ads"));
    assert!(!fits(regex(), "search-22") && !fits(regex(), "ads-1") && !fits(regex(), "my ads"));
    assert!(!Match { source: header(), pattern: Pattern::Prefix("".into()) }.fits(&Request::default()));
    assert!(Pattern::regex("(").unwrap_err().to_string().starts_with("\"(\" is no regular expression"));
    assert!(Pattern::regex("a{1000}{1000}").is_err(), "a huge one");
}

#[test]
fn a_rule_wants_all_of_its_conditions_and_the_first_that_fits_decides() {
    let condition = |header: &'static str, value: &str| Match {
        source: KeySource::Header(header.into()),
        pattern: Pattern::Exact(value.into()),
    };
    let rules = vec![
        rule("both", vec![condition("x-a", "1"), condition("x-b", "1")], CANARY),
        rule("one", vec![condition("x-a", "1")], STABLE),
    ];
    let split = Split::new(SplitParts { rules, ..parts(SLOTS) }).unwrap();
    assert_eq!(split.choose(&Request::of(1).with("x-a", 1).with("x-b", 1)).by, RoutedBy::Rule(0));
    let one = split.choose(&Request::of(1).with("x-a", 1));
    assert_eq!((number(one), one.arm, one.by), (STABLE, Arm::Stable, RoutedBy::Rule(1)));
    assert_eq!(number(split.choose(&Request::of(1).with("x-b", 1))), CANARY);
}

#[test]
fn shares_are_kept_to_a_hundredth_of_a_percent() {
    for share in [0, 1, 50, 500, 5_000, 9_999, SLOTS] {
        let split = Split::new(SplitParts { baseline: true, ..parts(share) }).unwrap();
        let mut counts = BTreeMap::new();
        for slot in (0..SLOTS).filter_map(Slot::new) {
            *counts.entry(split.at(slot).1).or_insert(0_u16) += 1;
        }
        let count = |arm| counts.get(&arm).copied().unwrap_or(0);
        assert_eq!(count(Arm::Canary), share);
        assert_eq!(count(Arm::Baseline), share.min(SLOTS - share));
        for arm in [Arm::Canary, Arm::Baseline, Arm::Stable] {
            assert!((split.share(arm) - f64::from(count(arm)) / f64::from(SLOTS)).abs() < 1e-12);
        }
    }
}

/// What Python's `get_variant` (md5 % 100, `bucket < control_pct` is control) says of 20,000 users: how many are
/// treated at each share, and xxh3 of all its answers, a letter each.
#[test]
fn the_md5_split_is_that_of_the_pattern() {
    for (share, treated, digest) in [
        (10000, 20000, 0x042d4f2decbc3c7b),
        (9500, 18993, 0xede9fc2f0e9fcca4),
        (7100, 14225, 0xc8ffa16df27a3425),
        (5000, 10017, 0x734ece546b07235f),
        (4300, 8626, 0x6900b7039b9860dd),
        (500, 1009, 0x2625b5a366adec8d),
        (100, 217, 0x0e6d0f2ea4c92954),
        (0, 0, 0x99302d54c72d11aa),
    ] {
        let salt = Salt::new(Hash::Md5Percent, "exp1");
        let split = Split::new(SplitParts { salt, ..parts(share) }).unwrap();
        let letter = |user: usize| {
            let choice = split.choose(&Request::of(format!("user_{user}")));
            if choice.arm == Arm::Canary { 't' } else { 'c' }
        };
        let answers: String = (0..20_000).map(letter).collect();
        assert_eq!(answers.matches('t').count(), treated);
        assert_eq!(xxhash_rust::xxh3::xxh3_64(answers.as_bytes()), digest, "{share}");
    }
}

#[test]
fn a_mirror_takes_its_share_of_what_others_answer() {
    let mirror = Some(Mirror { version: version(CANARY), share: 2_500 });
    let split = Split::new(SplitParts { mirror, ..parts(0) }).unwrap();
    let mirrored = |random| split.choose(&Request { random, ..Request::of(1) }).mirror;
    let taken = (0..u64::from(SLOTS)).filter(|drawn| mirrored(drawn << 32).is_some()).count();
    assert_eq!(taken, 2_500);
    let all = Some(Mirror { version: version(CANARY), share: SLOTS });
    let split = Split::new(SplitParts { mirror: all, ..parts(SLOTS) }).unwrap();
    assert_eq!(split.choose(&Request::of(1)).mirror, None, "it answers itself");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let refused = |parts| Split::new(parts).unwrap_err();
    let same = Some((version(STABLE), 5));
    assert_eq!(
        refused(SplitParts { canary: same, ..parts(0) }),
        InvalidSplit::Same(version(STABLE), "canary")
    );
    let over = refused(parts(SLOTS + 1));
    assert_eq!(over, InvalidSplit::Share { what: "the canary", share: SLOTS + 1 });
    assert_eq!(over.to_string(), "the share of the canary is 10001 of 10000 slots: at most all of them");
    let mirror = Some(Mirror { version: version(STABLE), share: 1 });
    assert!(matches!(refused(SplitParts { mirror, ..parts(0) }), InvalidSplit::Same(_, "mirror")));
    let mirror = Some(Mirror { version: version(CANARY), share: SLOTS + 1 });
    assert!(matches!(refused(SplitParts { mirror, ..parts(0) }), InvalidSplit::Share { .. }));
    let rules = vec![rule("all", Vec::new(), CANARY)];
    assert_eq!(refused(SplitParts { rules, ..parts(0) }), InvalidSplit::Unconditional("all".into()));
}

proptest! {
    #[test]
    fn a_larger_share_only_adds_callers(
        user in ".{0,40}", salt in ".{0,20}", low in 0..=SLOTS, more in 0..=SLOTS, md5: bool, baseline: bool,
        random: u64,
    ) {
        let high = low.saturating_add(more).min(SLOTS);
        let hash = if md5 { Hash::Md5Percent } else { Hash::Xxh3 };
        let arm = |share| {
            let parts = SplitParts { baseline, salt: Salt::new(hash, &salt), ..parts(share) };
            let choice = Split::new(parts).unwrap().choose(&Request { random, ..Request::of(&user) });
            assert_eq!(choice.arm == Arm::Canary, choice.version == version(CANARY));
            choice.arm
        };
        if arm(low) == Arm::Canary {
            prop_assert_eq!(arm(high), Arm::Canary);
        }
    }

    #[test]
    fn a_caller_always_has_the_same_slot(user in ".{1,40}", one: u64, another: u64) {
        let split = split(5_000);
        let ask = |random| split.choose(&Request { random, ..Request::of(&user) });
        prop_assert_eq!(ask(one), ask(another));
    }
}
