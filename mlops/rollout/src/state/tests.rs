//! What a rollout becomes: by time, by what is counted, by operators.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn version(number: u64) -> ModelVersion {
    ModelVersion::new(number).unwrap()
}

/// A rollout, and what was counted for it.
struct Bench {
    plan: Plan,
    state: State,
    arms: Arms,
}

impl Bench {
    fn new(plan: &str) -> Bench {
        let plan = Plan::from_toml(plan).unwrap();
        let (state, arms) = (State::begin(&plan, version(1), version(2)), Arms::new(plan.gates.len()));
        Bench { plan, state, arms }
    }

    /// The new version is ready, and its steps begin.
    fn started(plan: &str) -> Bench {
        let mut bench = Bench::new(plan);
        assert!(bench.pass(Duration::ZERO).is_some());
        bench
    }

    /// The canary answers `total` requests, of which `failed` fail, and none is slow.
    fn answers(&mut self, failed: u64, total: u64) -> &mut Bench {
        let canary = &mut self.arms.canary;
        (canary.answered, canary.failed) = (canary.answered + total, canary.failed + failed);
        (canary.drawn, canary.drawn_failed) = (canary.drawn + total, canary.drawn_failed + failed);
        self
    }

    fn tick(&mut self, tick: &Tick) -> Option<Analysis> {
        let change = self.state.advance(&self.plan, &self.arms, tick)?;
        assert_eq!(change.state.revision, self.state.revision + 1);
        self.state = change.state;
        Some(change.analysis.unwrap_or_default())
    }

    /// Time passes; what the gates say if that changes anything.
    fn pass(&mut self, elapsed: Duration) -> Option<Analysis> {
        self.tick(&Tick { elapsed, canary_ready: true, canary_failed: false })
    }

    fn command(&mut self, command: Command) -> Result<(), Refused> {
        self.state = self.state.command(&self.plan, &self.arms, command, self.state.revision)?;
        Ok(())
    }

    fn at(&self) -> (Phase, usize, u16) {
        (self.state.phase, self.state.step, self.state.weight)
    }
}

#[test]
fn the_usual_flow_promotes_a_healthy_version_after_an_hour() {
    let mut bench = Bench::new("");
    let waits = Tick { elapsed: 90 * MINUTE, canary_ready: false, canary_failed: false };
    assert!(bench.tick(&waits).is_none() && bench.state.phase == Phase::Waiting, "time does not pass for it");
    assert!(bench.pass(MINUTE).is_some());
    assert_eq!(bench.at(), (Phase::Progressing, 1, 500));
    bench.answers(2, 18_000);
    assert!(bench.pass(59 * MINUTE).is_none());
    assert!(bench.pass(MINUTE).is_some(), "the pause is over");
    assert_eq!(bench.at(), (Phase::Progressing, 2, 500));
    let analysis = bench.pass(Duration::from_millis(1)).unwrap();
    assert_eq!(analysis.ruling(), Ruling::Pass);
    assert_eq!(bench.at(), (Phase::Promoted, 3, SLOTS));
    assert_eq!(bench.state.reason, "all gates pass");
    assert!(bench.pass(MINUTE).is_none(), "it is over");
}

#[test]
fn one_that_always_fails_is_rolled_back_at_its_third_request() {
    let mut bench = Bench::started("");
    assert!(bench.answers(2, 2).pass(Duration::ZERO).is_none());
    let analysis = bench.answers(1, 1).pass(Duration::ZERO).unwrap();
    assert_eq!((bench.at(), analysis.ruling()), ((Phase::RolledBack, 1, 0), Ruling::Fail));
    assert!(
        bench.state.reason.starts_with("error rate below 0.1 %: 3 of 3 failed"),
        "{}",
        bench.state.reason
    );
}

#[test]
fn one_that_is_slow_is_rolled_back() {
    let mut bench = Bench::started("");
    bench.answers(0, 100);
    bench.arms.canary.slow[1] = 40;
    assert!(bench.pass(Duration::ZERO).is_some());
    assert!(
        bench.state.reason.starts_with("p95 below 100ms: 40 of 100 took longer"),
        "{}",
        bench.state.reason
    );
}

#[test]
fn without_traffic_nothing_passes_and_an_operator_is_asked_in_the_end() {
    let mut bench = Bench::started("extend_for = \"2h\"");
    bench.pass(60 * MINUTE);
    let analysis = bench.pass(MINUTE).unwrap();
    assert_eq!(analysis.ruling(), Ruling::Inconclusive { more: Some(3_688) });
    assert_eq!(bench.at(), (Phase::Progressing, 2, 500));
    assert!(bench.pass(60 * MINUTE).is_none());
    bench.pass(60 * MINUTE).unwrap();
    assert_eq!(bench.at(), (Phase::Paused, 2, 500));
    assert!(bench.state.reason.starts_with("still inconclusive"), "{}", bench.state.reason);
    bench.command(Command::Promote { full: false }).unwrap();
    assert_eq!(bench.at(), (Phase::Promoted, 3, SLOTS));
}

#[test]
fn an_analysis_looks_again_when_what_it_lacked_has_come_and_asks_for_more_each_time() {
    let mut bench = Bench::started("steps = [{ set_weight = 10 }]");
    assert_eq!(bench.at(), (Phase::Progressing, 1, 1_000));
    let lacking = |analysis: Analysis| match analysis.ruling() {
        Ruling::Inconclusive { more } => more.unwrap(),
        other => panic!("{other:?}"),
    };
    // Half of the level is left for the second look: ln(0.05 / 2) / ln(0.999).
    let first = lacking(bench.answers(0, 1_000).pass(MINUTE).unwrap());
    assert_eq!(first, 3_688 - 1_000);
    assert!(bench.answers(0, first - 1).pass(MINUTE).is_none());
    // The last one fails: a quarter is left for the third.
    let second = lacking(bench.answers(1, 1).pass(MINUTE).unwrap());
    assert!((4_500..5_500).contains(&second), "{second}: it reckons with more failures");
    assert!(bench.answers(0, second - 1).pass(MINUTE).is_none());
    bench.answers(0, 1).pass(MINUTE).unwrap();
    assert_eq!(bench.state.phase, Phase::Promoted);
}

#[test]
fn steps_without_gates_need_no_evidence_and_a_pause_without_time_waits_for_a_word() {
    let steps = "gates = []\nsteps = [{ set_weight = 0.5 }, { pause = {} }, { set_weight = 50 }, { pause = { duration = 60 } }]";
    let mut bench = Bench::started(steps);
    assert_eq!(bench.at(), (Phase::Progressing, 1, 50));
    assert!(bench.pass(1000 * MINUTE).is_none());
    bench.command(Command::Promote { full: false }).unwrap();
    assert_eq!(bench.at(), (Phase::Progressing, 3, 5_000));
    bench.pass(MINUTE).unwrap();
    assert_eq!(bench.at(), (Phase::Promoted, 4, SLOTS));
}

#[test]
fn a_version_that_cannot_be_loaded_is_rolled_back() {
    let mut bench = Bench::new("");
    bench.tick(&Tick { elapsed: MINUTE, canary_ready: false, canary_failed: true }).unwrap();
    assert_eq!(bench.at(), (Phase::RolledBack, 0, 0));
}

#[test]
fn operators_pause_resume_skip_abort_retry_and_promote() {
    let mut bench = Bench::started("");
    bench.command(Command::Pause).unwrap();
    assert!(bench.pass(600 * MINUTE).is_none(), "no time passes");
    assert_eq!(bench.at(), (Phase::Paused, 1, 500));
    bench.command(Command::Resume).unwrap();
    assert!(bench.pass(30 * MINUTE).is_none());
    bench.command(Command::Skip).unwrap();
    assert_eq!(bench.at(), (Phase::Progressing, 2, 500));
    bench.command(Command::Abort).unwrap();
    assert_eq!(bench.at(), (Phase::RolledBack, 2, 0));
    bench.command(Command::Retry).unwrap();
    assert_eq!(bench.at(), (Phase::Waiting, 0, 0));
    bench.pass(Duration::ZERO).unwrap();
    bench.command(Command::Promote { full: true }).unwrap();
    assert_eq!(bench.at(), (Phase::Promoted, 1, SLOTS));
    let refused = bench.command(Command::Abort).unwrap_err();
    assert_eq!(refused.to_string(), "abort means nothing while the rollout is promoted");
}

#[test]
fn a_paused_version_that_fails_is_rolled_back_all_the_same() {
    let mut bench = Bench::started("");
    bench.command(Command::Pause).unwrap();
    bench.answers(5, 5).pass(Duration::ZERO).unwrap();
    assert_eq!(bench.state.phase, Phase::RolledBack);
}

#[test]
fn of_two_operators_one_is_told_that_he_was_late() {
    let mut bench = Bench::started("");
    let seen = bench.state.revision;
    bench.command(Command::Pause).unwrap();
    let late = bench.state.command(&bench.plan, &bench.arms, Command::Abort, seen).unwrap_err();
    assert_eq!(late, Refused::Outdated { now: seen + 1, asked: seen });
    assert!(late.to_string().contains("look again"));
}

#[test]
fn rules_and_the_mirror_hold_from_their_step_on_until_they_are_replaced() {
    let plan = r#"
        gates = []
        steps = [
            { header_route = { name = "testers", match = [{ header = "X-Tester", exact = "yes" }] } },
            { mirror = { percent = 10 } },
            { pause = {} },
            { header_route = { name = "testers", match = [{ parameter = "team", prefix = "search" }] } },
            { pause = {} },
            { header_route = { name = "testers" } },
            { mirror = { percent = 0 } },
            { pause = {} },
        ]
    "#;
    let mut bench = Bench::started(plan);
    let shape = |bench: &Bench| {
        let split = bench.state.split(&bench.plan, "digits").unwrap();
        let parts = split.parts();
        let rules: Vec<_> = parts.rules.iter().map(|rule| format!("{:?}", rule.all[0].source)).collect();
        (rules.join(" "), parts.mirror.map(|mirror| mirror.share), parts.salt.text().to_owned())
    };
    let salt = || "digits/2".to_owned();
    assert_eq!(shape(&bench), ("Header(\"x-tester\")".to_owned(), Some(1_000), salt()));
    bench.command(Command::Promote { full: false }).unwrap();
    assert_eq!(shape(&bench), ("Parameter(\"team\")".to_owned(), Some(1_000), salt()));
    bench.command(Command::Promote { full: false }).unwrap();
    assert_eq!(shape(&bench), (String::new(), None, salt()));
    bench.command(Command::Promote { full: false }).unwrap();
    let split = bench.state.split(&bench.plan, "digits").unwrap();
    assert_eq!((split.parts().stable, split.parts().canary), (version(2), None));
}

#[test]
fn errors_are_compared_with_those_of_the_baseline_across_steps() {
    let plan = r#"
        steps = [{ set_weight = 10 }, { pause = {} }, { set_weight = 80 }, { pause = {} }]
        gates = [{ error_rate = { against = "baseline" } }]
    "#;
    let mut bench = Bench::started(plan);
    assert!(bench.plan.has_baseline());
    let baseline = |bench: &mut Bench, failed, total| {
        let sums = &mut bench.arms.baseline;
        (sums.drawn, sums.drawn_failed) = (sums.drawn + total, sums.drawn_failed + failed);
    };
    // Both fail alike: that is not the new version's fault.
    baseline(&mut bench, 200, 1_000);
    assert!(bench.answers(200, 1_000).pass(MINUTE).is_none());
    bench.command(Command::Promote { full: false }).unwrap();
    assert_eq!(bench.at(), (Phase::Progressing, 3, 8_000));
    // Four times the requests and four times the errors, as the shares are.
    baseline(&mut bench, 50, 250);
    assert!(bench.answers(200, 1_000).pass(MINUTE).is_none());
    assert!(bench.answers(300, 300).pass(MINUTE).is_some());
    assert_eq!(bench.state.phase, Phase::RolledBack);
    assert!(bench.state.reason.contains("of the baseline"), "{}", bench.state.reason);
}

#[test]
fn a_canary_as_good_as_its_baseline_passes() {
    let plan = r#"
        steps = [{ set_weight = 10 }]
        gates = [{ error_rate = { against = "baseline" } }, { latency = { against = "baseline", tolerance = 0.2 } }]
    "#;
    let mut bench = Bench::started(plan);
    for sums in [&mut bench.arms.canary, &mut bench.arms.baseline] {
        (sums.answered, sums.drawn) = (100_000, 100_000);
        (0..100_000).for_each(|each| sums.latencies.saturating_record(5_000 + each % 1_000));
    }
    bench.pass(MINUTE).unwrap();
    assert_eq!(bench.state.phase, Phase::Promoted, "{}", bench.state.reason);
}

#[test]
fn what_is_stored_is_taken_up_where_it_was() {
    let mut bench = Bench::started("");
    bench.pass(10 * MINUTE);
    let stored = serde_json::to_string(&bench.state).unwrap();
    let again: State = serde_json::from_str(&stored).unwrap();
    assert_eq!(again, bench.state);
    assert_eq!(again.in_step_ms, 600_000);
    assert!(serde_json::from_str::<State>(&stored.replace("\"canary\":2", "\"canary\":0")).is_err());
    let plan = Plan::from_toml(&bench.plan.to_toml()).unwrap();
    assert_eq!(plan.steps.len(), bench.plan.steps.len());
}
