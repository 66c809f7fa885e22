//! Every route of the protocol, and what is asked there.

use http::Method;
use std::borrow::Cow;
use std::sync::LazyLock;

use matchit::Router;
use percent_encoding::percent_decode_str;

use crate::describe::{GENERATE, SHARED_MEMORY, TRACE};

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What the server is, and which extensions it has.
    ServerMetadata,
    /// Whether the process answers.
    Live,
    /// Whether the server takes requests.
    Ready,
    /// What a model takes and gives.
    ModelMetadata,
    /// Whether a model takes requests.
    ModelReady,
    /// The configuration of a model.
    ModelConfig,
    /// What a model, or every model, has done.
    Statistics,
    /// An inference.
    Infer,
    /// Every model and its state.
    Index,
    /// What happens to versions, as it happens.
    Events,
    /// To load a model.
    Load,
    /// To unload one.
    Unload,
    /// To put the versions of a model that served before in the place of those that serve.
    RollBack,
    /// The settings of the log, to read or to change.
    Logging,
    /// Part of the protocol, but served by later work; the sentence says what.
    NotYet(&'static str),
}

/// Route, method, question.
const ROUTES: &[(&str, Method, Question)] = {
    use Question::*;
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    &[
        ("/v2", GET, ServerMetadata),
        ("/v2/health/live", GET, Live),
        ("/v2/health/ready", GET, Ready),
        ("/v2/models/stats", GET, Statistics),
        ("/v2/models/{model}", GET, ModelMetadata),
        ("/v2/models/{model}/versions/{version}", GET, ModelMetadata),
        ("/v2/models/{model}/ready", GET, ModelReady),
        ("/v2/models/{model}/versions/{version}/ready", GET, ModelReady),
        ("/v2/models/{model}/config", GET, ModelConfig),
        ("/v2/models/{model}/versions/{version}/config", GET, ModelConfig),
        ("/v2/models/{model}/stats", GET, Statistics),
        ("/v2/models/{model}/versions/{version}/stats", GET, Statistics),
        ("/v2/models/{model}/infer", POST, Infer),
        ("/v2/models/{model}/versions/{version}/infer", POST, Infer),
        ("/v2/models/{model}/generate", POST, NotYet(GENERATE)),
        ("/v2/models/{model}/versions/{version}/generate", POST, NotYet(GENERATE)),
        ("/v2/models/{model}/generate_stream", POST, NotYet(GENERATE)),
        ("/v2/models/{model}/versions/{version}/generate_stream", POST, NotYet(GENERATE)),
        ("/v2/models/{model}/trace/setting", GET, NotYet(TRACE)),
        ("/v2/models/{model}/trace/setting", POST, NotYet(TRACE)),
        ("/v2/trace/setting", GET, NotYet(TRACE)),
        ("/v2/trace/setting", POST, NotYet(TRACE)),
        ("/v2/logging", GET, Logging),
        ("/v2/logging", POST, Logging),
        ("/v2/repository/index", POST, Index),
        ("/v2/repository/{repository}/index", POST, Index),
        ("/v2/repository/events", GET, Events),
        ("/v2/repository/models/{model}/load", POST, Load),
        ("/v2/repository/models/{model}/unload", POST, Unload),
        ("/v2/repository/models/{model}/rollback", POST, RollBack),
        ("/v2/repository/{repository}/models/{model}/load", POST, Load),
        ("/v2/repository/{repository}/models/{model}/unload", POST, Unload),
        ("/v2/repository/{repository}/models/{model}/rollback", POST, RollBack),
        ("/v2/systemsharedmemory/status", GET, NotYet(SHARED_MEMORY)),
        ("/v2/systemsharedmemory/region/{region}/status", GET, NotYet(SHARED_MEMORY)),
        ("/v2/systemsharedmemory/region/{region}/register", POST, NotYet(SHARED_MEMORY)),
        ("/v2/systemsharedmemory/region/{region}/unregister", POST, NotYet(SHARED_MEMORY)),
        ("/v2/systemsharedmemory/unregister", POST, NotYet(SHARED_MEMORY)),
        ("/v2/cudasharedmemory/status", GET, NotYet(SHARED_MEMORY)),
        ("/v2/cudasharedmemory/region/{region}/status", GET, NotYet(SHARED_MEMORY)),
        ("/v2/cudasharedmemory/region/{region}/register", POST, NotYet(SHARED_MEMORY)),
        ("/v2/cudasharedmemory/region/{region}/unregister", POST, NotYet(SHARED_MEMORY)),
        ("/v2/cudasharedmemory/unregister", POST, NotYet(SHARED_MEMORY)),
    ]
};

type Methods = Vec<(Method, Question, &'static str)>;

static ROUTER: LazyLock<Router<Methods>> = LazyLock::new(|| {
    let mut by_path: Vec<(&str, Methods)> = Vec::new();
    for (path, method, question) in ROUTES {
        match by_path.iter_mut().find(|(known, _)| known == path) {
            Some((_, methods)) => methods.push((method.clone(), *question, path)),
            None => by_path.push((path, vec![(method.clone(), *question, path)])),
        }
    }
    let mut router = Router::new();
    for (path, methods) in by_path {
        router.insert(path, methods).expect("no two routes are the same");
    }
    router
});

/// A request that found its route.
#[derive(Debug)]
pub struct Matched<'a> {
    /// What is asked.
    pub question: Question,
    /// The route as written in the table, for the access log.
    pub route: &'static str,
    /// The model in the path, percent-decoded.
    pub model: Option<Cow<'a, str>>,
    /// Digits, as the route demands.
    pub version: Option<&'a str>,
    /// The repository in the path.
    pub repository: Option<&'a str>,
}

/// Why a request found none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No route has the path.
    NotFound,
    /// One has it, but not for the method.
    MethodNotAllowed {
        /// The methods that it has, as the header `Allow` lists them.
        allow: &'static str,
    },
}

/// Finds the route of `path`, which is matched whole: a trailing slash is another path.
///
/// # Errors
/// When there is none for `path`, or it is not for `method`.
pub fn find<'a>(method: &Method, path: &'a str) -> Result<Matched<'a>, NoRoute> {
    let found = ROUTER.at(path).map_err(|_| NoRoute::NotFound)?;
    let version = found.params.get("version");
    if version.is_some_and(|version| !version.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(NoRoute::NotFound);
    }
    // HEAD is GET without the body, which hyper leaves out.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let at_method = found.value.iter().find(|(known, ..)| known == method);
    let (_, question, route) =
        at_method.ok_or_else(|| NoRoute::MethodNotAllowed { allow: allow(found.value) })?;
    let model = match found.params.get("model") {
        Some(model) => Some(percent_decode_str(model).decode_utf8().map_err(|_| NoRoute::NotFound)?),
        None => None,
    };
    let repository = found.params.get("repository");
    Ok(Matched { question: *question, route, model, version, repository })
}

/// The header `Allow` of a path with `methods`.
fn allow(methods: &Methods) -> &'static str {
    let takes = |wanted: Method| methods.iter().any(|(method, ..)| *method == wanted);
    match (takes(Method::GET), takes(Method::POST)) {
        (true, true) => "GET, HEAD, POST",
        (true, false) => "GET, HEAD",
        (false, _) => "POST",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, path: &str, expected: Result<Question, NoRoute>) {
        assert_eq!(find(&method, path).map(|matched| matched.question), expected, "{method} {path}");
    }

    #[test]
    fn every_route_of_the_table_is_found() {
        for (path, method, question) in ROUTES {
            let path = path
                .replace("{model}", "m")
                .replace("{version}", "3")
                .replace("{re", "r{")
                .replace("r{", "re");
            let path = path.replace("repository}", "r").replace("region}", "r");
            check(method.clone(), &path, Ok(*question));
        }
    }

    #[test]
    fn paths_match_whole_and_methods_exactly() {
        check(Method::GET, "/v2/", Err(NoRoute::NotFound));
        check(Method::GET, "/v2/models/m/", Err(NoRoute::NotFound));
        check(Method::GET, "/v1", Err(NoRoute::NotFound));
        check(Method::POST, "/v2/models/m/versions/two/infer", Err(NoRoute::NotFound));
        check(Method::POST, "/v2/models/m/versions/2/trace/setting", Err(NoRoute::NotFound));
        check(Method::POST, "/v2", Err(NoRoute::MethodNotAllowed { allow: "GET, HEAD" }));
        check(Method::GET, "/v2/models/m/infer", Err(NoRoute::MethodNotAllowed { allow: "POST" }));
        check(Method::PUT, "/v2/logging", Err(NoRoute::MethodNotAllowed { allow: "GET, HEAD, POST" }));
        check(Method::HEAD, "/v2/health/ready", Ok(Question::Ready));
        check(Method::HEAD, "/v2/models/m/infer", Err(NoRoute::MethodNotAllowed { allow: "POST" }));
    }

    #[test]
    fn names_are_decoded() {
        let matched = find(&Method::GET, "/v2/models/my%20model/versions/12").unwrap();
        assert_eq!((matched.model.as_deref(), matched.version), (Some("my model"), Some("12")));
        assert_eq!(find(&Method::GET, "/v2/models/%ff").unwrap_err(), NoRoute::NotFound);
    }
}
