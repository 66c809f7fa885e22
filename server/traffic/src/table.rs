//! The traffic of all models.

use std::collections::HashMap;
use std::sync::Arc;

use model::{ModelName, ModelVersion};

use crate::caller::Caller;
use crate::split::{Choice, Split};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The version that the request itself named.
    Explicit(ModelVersion),
    /// What the division of the model's traffic says.
    Divided(Choice),
    /// The highest version that is ready.
    Latest,
}

/// How the traffic of every model is divided among its versions; that of a model that is not in it goes to the latest.
#[derive(Clone, Debug, Default)]
pub struct TrafficTable {
    models: HashMap<ModelName, Arc<Split>>,
}

impl TrafficTable {
    /// The route of a request for `model` by `caller` that names `version`, if it names one.
    pub fn route(&self, model: &str, version: Option<ModelVersion>, caller: &impl Caller) -> Route {
        match version {
            Some(version) => Route::Explicit(version),
            None => self.split(model).map_or(Route::Latest, |split| Route::Divided(split.choose(caller))),
        }
    }

    /// How the traffic of `model` is divided, if it is.
    pub fn split(&self, model: &str) -> Option<&Arc<Split>> {
        if self.models.is_empty() {
            return None; // the way of most servers
        }
        self.models.get(model)
    }

    /// This table with `split` for `model`, or with none.
    #[must_use]
    pub fn with(&self, model: &ModelName, split: Option<Split>) -> TrafficTable {
        let mut models = self.models.clone();
        match split {
            Some(split) => models.insert(model.clone(), Arc::new(split)),
            None => models.remove(model),
        };
        TrafficTable { models }
    }

    /// The models whose traffic is divided.
    pub fn divided(&self) -> impl Iterator<Item = (&ModelName, &Split)> {
        self.models.iter().map(|(name, split)| (name, &**split))
    }
}
