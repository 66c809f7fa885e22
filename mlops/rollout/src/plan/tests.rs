//! What is written, what it means, and what is refused.

use super::*;

#[test]
fn an_empty_plan_is_the_usual_flow() {
    let plan = Plan::from_toml("").unwrap();
    assert!(matches!(
        plan.steps[..],
        [Step::SetWeight(500), Step::Pause(Some(pause)), Step::Analysis] if pause == Duration::from_secs(3600)
    ));
    let gates: Vec<_> = plan.gates.iter().map(|gate| gate.measure.to_string()).collect();
    assert_eq!(gates, ["error rate below 0.1 %", "p95 below 100ms"]);
    assert_eq!(plan.rollback_window, Duration::from_secs(1800));
    assert!(!plan.retry_on_canary_error && !plan.has_baseline());
}

#[test]
fn every_field_is_understood_also_as_argo_rollouts_spells_it() {
    let plan = Plan::from_toml(
        r#"
        rollback_window = "10m"
        extend_for = 7200
        retry_on_canary_error = true

        [routing]
        key = [{ header = "X-User-Id" }, { parameter = "user" }]
        salt = "spring"
        hash = "md5-100"

        [[steps]]
        setHeaderRoute = { name = "t", match = [{ headerName = "X-A", regex = "a+" }, { parameter = "b", prefix = "c" }] }
        [[steps]]
        setMirrorRoute = { percentage = 20 }
        [[steps]]
        setWeight = 0.01
        [[steps]]
        pause = { duration = "1h 30m" }
        [[steps]]
        pause = { duration = "90" }
        [[steps]]
        analysis = {}
        [[steps]]
        set_weight = 100

        [[gates]]
        error_rate = { below = 0.01, alpha = 0.01 }
        [[gates]]
        latency = { quantile = 0.99, below = "250ms" }
        [[gates]]
        error_rate = { against = "stable", margin = 0.002 }
        [[gates]]
        latency = { against = "baseline" }
        "#,
    )
    .unwrap();
    assert_eq!(plan.rollback_window, Duration::from_secs(600));
    assert_eq!(plan.extend_for, Duration::from_secs(7200));
    assert!(plan.retry_on_canary_error && plan.has_baseline());
    assert_eq!(
        plan.routing.keys,
        [KeySource::Header("x-user-id".into()), KeySource::Parameter("user".into())]
    );
    assert_eq!((plan.routing.salt.as_deref(), plan.routing.hash), (Some("spring"), Hash::Md5Percent));
    let Step::HeaderRoute(route) = &plan.steps[0] else { panic!() };
    assert_eq!((route.name.as_str(), route.all.len()), ("t", 2));
    assert!(matches!(plan.steps[1], Step::Mirror(2_000)));
    assert!(matches!(plan.steps[2], Step::SetWeight(1)));
    assert!(matches!(plan.steps[3], Step::Pause(Some(pause)) if pause == Duration::from_secs(5400)));
    assert!(matches!(plan.steps[4], Step::Pause(Some(pause)) if pause == Duration::from_secs(90)));
    assert!(matches!(plan.steps[7], Step::Analysis), "what nobody judged is not promoted");
    let gates: Vec<_> = plan.gates.iter().map(|gate| gate.measure.to_string()).collect();
    assert_eq!(
        gates,
        [
            "error rate below 1 %",
            "p99 below 250ms",
            "error rate at most 0.2 points above the stable version's",
            "p95 at most 10 % above the baseline's",
        ]
    );
    assert_eq!(Plan::from_toml(&plan.to_toml()).unwrap().to_toml(), plan.to_toml());
}

#[test]
fn what_means_nothing_is_refused_with_its_place() {
    for (text, words) in [
        ("steps = [{ set_weight = 101 }]", "steps[0].set_weight: 101 is no percentage from 0 to 100"),
        ("steps = [{ set_weight = -1 }]", "steps[0].set_weight: -1 is no percentage"),
        ("steps = [{ set_weight = nan }]", "steps[0].set_weight: NaN is no percentage"),
        ("steps = [{ mirror = { percent = 200 } }]", "steps[0].mirror.percent: 200 is no percentage"),
        ("steps = [{ set_wait = 5 }]", "unknown variant `set_wait`"),
        ("steps = [{ pause = { duration = \"soon\" } }]", "\"soon\" is no time"),
        ("steps = [{ pause = { for = 5 } }]", "unknown field `for`"),
        ("stepps = []", "unknown field `stepps`"),
        (
            "gates = [{ error_rate = {} }]",
            "gates[0].error_rate.below: there is either below, such as 0.001, or against",
        ),
        ("gates = [{ error_rate = { below = 0 } }]", "gates[0].error_rate.below: 0 is no"),
        (
            "gates = [{ error_rate = { below = 0.1, against = \"stable\" } }]",
            "gates[0].error_rate.below: there is either",
        ),
        ("gates = [{ error_rate = { against = \"friends\" } }]", "\"friends\" is nobody to compare with"),
        ("gates = [{ latency = { below = \"0s\" } }]", "gates[0].latency.below: there is either below"),
        (
            "gates = [{ latency = { quantile = 1.5, below = \"1s\" } }]",
            "gates[0].latency.quantile: 1.5 is no",
        ),
        (
            "gates = [{ latency = { against = \"stable\", tolerance = -1 } }]",
            "gates[0].latency.tolerance: it is a share",
        ),
        ("gates = [{ error_rate = { below = 0.1, alpha = 2 } }]", "gates[0].error_rate.alpha: 2 is no"),
        ("routing = { hash = \"md5\" }", "routing.hash: \"md5\" is no hash; there are xxh3 and md5-100"),
        ("routing = { key = [\"user\"] }", "unknown variant"),
        (
            "steps = [{ header_route = { name = \"t\", match = [{ header = \"a\" }] } }]",
            "steps[0].header_route.match[0]: it has one of exact, prefix and regex",
        ),
        (
            "steps = [{ header_route = { name = \"t\", match = [{ exact = \"a\" }] } }]",
            "steps[0].header_route.match[0]: it names either a header or a parameter",
        ),
        (
            "steps = [{ header_route = { name = \"t\", match = [{ header = \"a\", regex = \"(\" }] } }]",
            "steps[0].header_route.match[0]: \"(\" is no regular expression",
        ),
        ("steps = 5", "cannot be read as a rollout"),
    ] {
        let error = Plan::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
    let many = format!("gates = [{}]", "{ error_rate = { below = 0.1 } },".repeat(17));
    assert!(Plan::from_toml(&many).unwrap_err().to_string().contains("at most 16 are looked at"));
}
