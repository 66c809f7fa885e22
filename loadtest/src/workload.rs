//! What is sent: requests prepared once, and which of them comes next.

use std::sync::Arc;

use bytes::Bytes;

use crate::arrivals::{Share, Stream, mixed};
use crate::expect::Expected;

/// A request as its transport writes it.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// A whole HTTP/1.1 request, or a framed gRPC message.
    pub(crate) bytes: Bytes,
    /// Bytes of its body alone.
    pub(crate) body_bytes: usize,
    /// Items in it: its batch size.
    pub(crate) items: u64,
    /// The answer it should have.
    pub(crate) expected: Option<Arc<Expected>>,
}

/// The requests of one model.
#[derive(Clone, Debug)]
pub(crate) struct ModelRequests {
    /// `NAME` or `NAME:VERSION`.
    pub(crate) model: String,
    /// The share of requests that go to it, from 0 to 1.
    pub(crate) share: f64,
    /// Sent in this order, again and again; at least one.
    pub(crate) requests: Vec<Prepared>,
    pub(crate) guess: Option<Guess>,
}

/// What may be why a model takes none of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// The strings of an input are letters by chance: a model may take numbers as text alone.
    RandomText(String),
    /// The server told nothing of the model: what was asked and answered.
    NoServer(String),
}

/// Everything that is sent; at least one model.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) models: Vec<ModelRequests>,
}

/// How reasons begin that say that there is no such thing to ask.
const UNKNOWN: [&str; 4] = ["status 404", "status 405", "status 501", "status UNIMPLEMENTED"];

impl ModelRequests {
    /// What may be why the model takes none of them, as `reason` says, in parentheses; nothing when there is no guess.
    pub(crate) fn hint(&self, reason: &str) -> String {
        let unknown = || UNKNOWN.iter().any(|status| reason.starts_with(status));
        match &self.guess {
            Some(Guess::RandomText(name)) => {
                format!(" (its strings are random letters; for numbers as text give --range {name}=0:100)")
            }
            Some(Guess::NoServer(answer)) if unknown() => {
                format!(" ({answer}; is a V2 inference server there? give its address with --url)")
            }
            _ => String::new(),
        }
    }
}

impl Workload {
    /// The request at `place`.
    pub(crate) fn request(&self, place: Place) -> &Prepared {
        &self.models[place.model].requests[place.request]
    }

    /// What the request at `place` is called: those of a model are counted from 1, in the order of their file.
    pub(crate) fn name(&self, place: Place) -> String {
        format!("request {} of {:?}", place.request + 1, self.models[place.model].model)
    }

    /// Bytes of a body, the mean over those sent.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 bytes")]
    pub(crate) fn mean_bytes(&self) -> f64 {
        let mean = |model: &ModelRequests| {
            let bytes: usize = model.requests.iter().map(|request| request.body_bytes).sum();
            model.share * bytes as f64 / model.requests.len() as f64
        };
        self.models.iter().map(mean).sum()
    }
}

/// Which request, of which model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) model: usize,
    request: usize,
}

/// One thread's choice of the next request.
#[derive(Debug)]
pub(crate) struct Picker {
    workload: Arc<Workload>,
    random: fastrand::Rng,
    /// The next request of each model.
    places: Vec<usize>,
    stride: usize,
}

impl Picker {
    /// The choice of one of several threads; each model's requests are dealt to the threads in turn.
    pub(crate) fn new(workload: Arc<Workload>, share: Share, seed: u64) -> Picker {
        let places = vec![share.lane; workload.models.len()];
        let random = fastrand::Rng::with_seed(mixed(Stream::Models, seed, share.lane as u64));
        Picker { workload, random, places, stride: share.lanes }
    }

    /// The next request: of a model chosen at random by its share, and of that model the next in turn.
    pub(crate) fn next(&mut self) -> Place {
        let model = if self.workload.models.len() == 1 { 0 } else { self.model() };
        let request = self.places[model] % self.workload.models[model].requests.len();
        self.places[model] = request + self.stride;
        Place { model, request }
    }

    fn model(&mut self) -> usize {
        let mut point = self.random.f64();
        let passed = self.workload.models.iter().position(|model| {
            point -= model.share;
            point < 0.0
        });
        // Shares that add up to a little less than 1 leave a rest for the last.
        passed.unwrap_or(self.workload.models.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::{Arrivals, Pattern};

    fn workload(shares: &[(f64, usize)]) -> Arc<Workload> {
        let request = |model, item| Prepared {
            bytes: Bytes::from(format!("{model}{item}")),
            body_bytes: 10,
            items: 1,
            expected: None,
        };
        let models = shares.iter().enumerate().map(|(model, (share, count))| ModelRequests {
            model: model.to_string(),
            share: *share,
            requests: (0..*count).map(|item| request(model, item)).collect(),
            guess: None,
        });
        Arc::new(Workload { models: models.collect() })
    }

    #[test]
    fn the_requests_of_a_model_come_in_turn_over_the_threads() {
        let workload = workload(&[(1.0, 4)]);
        let picked = |lane| {
            let mut picker = Picker::new(workload.clone(), Share { lane, lanes: 2 }, 1);
            (0..3).map(|_| workload.request(picker.next()).bytes.clone()).collect::<Vec<_>>()
        };
        assert_eq!(picked(0), ["00", "02", "00"]);
        assert_eq!(picked(1), ["01", "03", "01"]);
    }

    #[test]
    fn models_are_asked_by_their_shares() {
        let workload = workload(&[(0.75, 2), (0.25, 2)]);
        let mut picker = Picker::new(workload, Share { lane: 0, lanes: 1 }, 1);
        let first = (0..40_000).filter(|_| picker.next().model == 0).count();
        // Five deviations of a binomial count are 433.
        assert!(first.abs_diff(30_000) < 440, "{first}");
    }

    /// A request that comes soon after another is as likely to be for either model as one that comes late.
    #[test]
    fn models_are_chosen_whenever_requests_come() {
        let workload = workload(&[(0.5, 1), (0.5, 1)]);
        for lane in 0..3 {
            let share = Share { lane, lanes: 3 };
            let pattern = Pattern::Poisson { rate: 3.0, seed: 7 };
            let times: Vec<u64> = Arrivals::new(pattern, share, u64::MAX).take(20_000).collect();
            let mut picker = Picker::new(workload.clone(), share, 7);
            let firsts: Vec<bool> = times.iter().map(|_| picker.next().model == 0).collect();
            let mut last = 0;
            let mut gaps = [0.0, 0.0];
            for (time, first) in times.iter().zip(&firsts) {
                #[expect(clippy::cast_precision_loss, reason = "some seconds")]
                let gap = (time - std::mem::replace(&mut last, *time)) as f64 / 1e9;
                gaps[usize::from(*first)] += gap;
            }
            let first = firsts.iter().filter(|first| **first).count();
            let [others, firsts] = [gaps[0] / (20_000 - first) as f64, gaps[1] / first as f64];
            // Both are means of some 10,000 gaps of one second: their difference deviates by 0.014.
            assert!((firsts - others).abs() < 0.07, "{firsts} {others}");
        }
    }

    #[test]
    fn a_server_that_knows_nothing_is_doubted_and_one_that_refuses_is_not() {
        let mut model = workload(&[(1.0, 1)]).models[0].clone();
        assert_eq!(model.hint("status 404: no page"), "");
        model.guess = Some(Guess::NoServer("GET /v2/models/m was answered with status 404".to_owned()));
        assert!(
            model.hint("status 404: no page").contains("(GET /v2/models/m was answered with status 404; is")
        );
        assert_eq!(model.hint("status 400: a shape"), "");
    }

    #[test]
    fn the_mean_body_is_weighted() {
        assert!((workload(&[(0.75, 2), (0.25, 1)]).mean_bytes() - 10.0).abs() < 1e-9);
    }
}
