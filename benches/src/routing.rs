//! What does it cost to find out what a request asks for, and which version answers it?

use http::Method;
use model::ModelName;
use traffic::TrafficTable;
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
            let (table, model) = (TrafficTable, ModelName::parse(MODEL).expect("a name"));
            move || table.route(&model, None)
        }),
    ]
}

fn find(name: &str, path: String) -> HotPath {
    HotPath::new(name, move || {
        let path = path.clone();
        move || routes::find(&Method::POST, &path).map(|matched| matched.question)
    })
}
