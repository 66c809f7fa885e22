//! What does it cost to find out what a request asks for, and which version answers it?

use http::Method;
use model::{ModelName, ModelVersion, Parameter};
use traffic::{
    Caller, Hash, KeySource, Match, Mirror, Pattern, Rule, SLOTS, Salt, Split, SplitParts, TrafficTable,
};
use volley::http::routes;

use crate::HotPath;
use crate::tensor::MODEL;

/// The route of a path, found and not found, and the version of a model.
pub fn paths() -> Vec<HotPath> {
    vec![
        find("routing/infer", format!("/v2/models/{MODEL}/infer")),
        find("routing/infer_version", format!("/v2/models/{MODEL}/versions/12/infer")),
        find("routing/not_found", format!("/v2/models/{MODEL}/inference")),
        HotPath::new("routing/traffic", || {
            let (table, model) = (TrafficTable::default(), ModelName::parse(MODEL).expect("a name"));
            move || table.route(&model, None, &User)
        }),
        HotPath::new("routing/canary", || {
            let model = ModelName::parse(MODEL).expect("a name");
            let table = TrafficTable::default().with(&model, Some(canary(Vec::new())));
            move || table.route(&model, None, &User)
        }),
        HotPath::new("routing/canary_and_rules", || {
            let model = ModelName::parse(MODEL).expect("a name");
            let testers = |number: u8| Rule {
                name: "testers".into(),
                all: vec![Match {
                    source: KeySource::Header("x-team".into()),
                    pattern: Pattern::regex(&format!("team-{number}-.*")).expect("an expression"),
                }],
                version: version(2),
            };
            let table = TrafficTable::default().with(&model, Some(canary((0..4).map(testers).collect())));
            move || table.route(&model, None, &User)
        }),
    ]
}

/// One who says who he is.
struct User;

impl Caller for User {
    fn header(&self, name: &str) -> Option<&str> {
        match name {
            "x-user" => Some("8f14e45f-ceea-467a-9b7e-3d1c0f3b2a10"),
            "x-team" => Some("team-search"),
            _ => None,
        }
    }

    fn parameter(&self, _: &str) -> Option<&Parameter> {
        None
    }

    fn id(&self) -> &str {
        ""
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}

fn version(number: u64) -> ModelVersion {
    ModelVersion::new(number).expect("a version")
}

/// A tenth of the callers are the canary's, as many are what it is compared with, and a tenth of all is mirrored.
fn canary(rules: Vec<Rule>) -> Split {
    Split::new(SplitParts {
        stable: version(1),
        canary: Some((version(2), SLOTS / 10)),
        baseline: true,
        rules,
        keys: vec![KeySource::Header("x-user".into())],
        salt: Salt::new(Hash::default(), "digits/2"),
        mirror: Some(Mirror { version: version(2), share: SLOTS / 10 }),
    })
    .expect("a division")
}

fn find(name: &str, path: String) -> HotPath {
    HotPath::new(name, move || {
        let path = path.clone();
        move || routes::find(&Method::POST, &path).map(|matched| matched.question)
    })
}
