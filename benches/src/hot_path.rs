//! A piece of a request's way, ready to be run as often as a measurement wants.

use std::fmt;
use std::hint::black_box;

/// Runs a path once.
pub type Work = Box<dyn FnMut()>;

/// A named piece of work and what it needs beforehand.
pub struct HotPath {
    /// `part/case`, for people and for the baseline.
    pub name: String,
    /// Runs after which the instructions of one are known well enough: few where one takes millions.
    pub rounds: u32,
    /// Whether several threads share the work: then no two counts of instructions are quite the same.
    pub threaded: bool,
    prepare: Box<dyn Fn() -> Work>,
}

impl HotPath {
    /// The path `name`: what `prepare` returns is measured, `prepare` itself is not. The result is dropped
    /// within the measurement, as a server drops it.
    pub fn new<W, T>(name: impl Into<String>, prepare: impl Fn() -> W + 'static) -> HotPath
    where
        W: FnMut() -> T + 'static,
    {
        let prepare = move || {
            let mut work = prepare();
            let run: Work = Box::new(move || drop(black_box(work())));
            run
        };
        HotPath { name: name.into(), rounds: 100, threaded: false, prepare: Box::new(prepare) }
    }

    /// The same path, for which `rounds` are enough.
    #[must_use]
    pub fn rounds(self, rounds: u32) -> HotPath {
        HotPath { rounds, ..self }
    }

    /// The same path, whose work several threads share.
    #[must_use]
    pub fn threaded(self) -> HotPath {
        HotPath { threaded: true, ..self }
    }

    /// Makes ready what is to be measured.
    pub fn prepare(&self) -> Work {
        (self.prepare)()
    }
}

impl fmt::Debug for HotPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotPath").field("name", &self.name).finish_non_exhaustive()
    }
}
