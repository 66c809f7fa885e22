//! The `parameters` and `optimization` of a configuration that ONNX Runtime acts on (its CPU provider).

use std::num::NonZeroUsize;

use inference::backend::ModelSource;
use ort::ep;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use proto::ModelConfig;
use tracing::warn;

/// Any entry of ONNX Runtime's session configuration may be given under its own name.
const SESSION_PREFIX: &str = "session.";

const EXECUTION_MODE: &str = "execution_mode";
const INTRA_OP_THREADS: &str = "intra_op_thread_count";
const INTER_OP_THREADS: &str = "inter_op_thread_count";
const MEM_ARENA: &str = "enable_mem_arena";
const MEM_PATTERN: &str = "enable_mem_pattern";
const PRUNE_OUTPUTS: &str = "prune_outputs";

/// Whether the key of `parameters` changes how a model runs.
pub fn acts_on_parameter(key: &str) -> bool {
    matches!(
        key,
        EXECUTION_MODE | INTRA_OP_THREADS | INTER_OP_THREADS | MEM_ARENA | MEM_PATTERN | PRUNE_OUTPUTS
    ) || key.starts_with(SESSION_PREFIX)
}

/// What a configuration asks of a session.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    /// Threads that one operator may use, over all instances of the version.
    intra_op_threads: usize,
    /// Operators that may run at the same time in parallel mode; 0 leaves it to ONNX Runtime.
    inter_op_threads: usize,
    parallel: bool,
    level: GraphOptimizationLevel,
    arena: Option<bool>,
    pattern: Option<bool>,
    /// Whether requests for some of the outputs run a graph that is cut down to them. Each set of outputs
    /// that is asked for has a session, and weights, of its own. `None` leaves it to the model's size.
    pub(crate) prune_outputs: Option<bool>,
    session: Vec<(String, String)>,
}

impl Options {
    /// # Errors
    /// A sentence that names the parameter, its value and what it may be.
    pub(crate) fn read(source: &ModelSource<'_>) -> Result<Options, String> {
        let config = source.config;
        let per_instance = match number(config, INTRA_OP_THREADS)? {
            None | Some(0) => source.threads_per_instance,
            Some(threads) => asked_for(threads, source)?,
        };
        let mut session: Vec<_> = config
            .parameters
            .iter()
            .filter(|(key, _)| key.starts_with(SESSION_PREFIX))
            .map(|(key, value)| (key.clone(), value.string_value.clone()))
            .collect();
        session.sort();
        Ok(Options {
            intra_op_threads: session_threads(per_instance, source.instances),
            inter_op_threads: number(config, INTER_OP_THREADS)?.unwrap_or(0),
            parallel: flag(config, EXECUTION_MODE)?.unwrap_or(false),
            level: level(config)?,
            arena: flag(config, MEM_ARENA)?,
            pattern: flag(config, MEM_PATTERN)?,
            prune_outputs: flag(config, PRUNE_OUTPUTS)?,
            session,
        })
    }

    /// # Errors
    /// ONNX Runtime's words when it refuses an option.
    pub(crate) fn apply(&self, builder: SessionBuilder) -> Result<SessionBuilder, String> {
        let words = |error: ort::Error<SessionBuilder>| error.message().to_owned();
        let mut builder = builder.with_intra_threads(self.intra_op_threads).map_err(words)?;
        builder = builder.with_inter_threads(self.inter_op_threads).map_err(words)?;
        builder = builder.with_parallel_execution(self.parallel).map_err(words)?;
        builder = builder.with_optimization_level(self.level).map_err(words)?;
        if let Some(arena) = self.arena {
            let provider = ep::CPU::default().with_arena_allocator(arena).build();
            builder = builder.with_execution_providers([provider]).map_err(words)?;
        }
        if let Some(pattern) = self.pattern {
            builder = builder.with_memory_pattern(pattern).map_err(words)?;
        }
        for (key, value) in &self.session {
            builder = builder.with_config_entry(key, value).map_err(words)?;
        }
        Ok(builder)
    }
}

/// `threads` for each instance, as the configuration has it.
///
/// # Errors
/// When that is more for all instances together than any machine is helped by.
fn asked_for(threads: usize, source: &ModelSource<'_>) -> Result<usize, String> {
    let (instances, all) = (source.instances, threads.saturating_mul(source.instances));
    if all > MAX_ALL_THREADS {
        return Err(format!(
            "parameters[{INTRA_OP_THREADS:?}] is {threads} for each of {instances} instances, {all} threads in \
             all, but at most {MAX_ALL_THREADS} are possible; lower one of the two"
        ));
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if all > cores.saturating_mul(MANY_FOR_EACH_CORE) {
        let (model, version) = (source.name, source.version);
        warn!(%model, %version, threads, instances, cores, "far more threads than cores: they will slow each other");
    }
    Ok(threads)
}

/// Threads of one session: a mistake, and not far from what a process may have.
const MAX_ALL_THREADS: usize = 4096;

/// More threads for each core than this are worth a warning.
const MANY_FOR_EACH_CORE: usize = 4;

/// The threads of a pool shared by `instances`, each of which brings its own calling thread: as many helpers
/// as all of them would have, and one caller.
fn session_threads(per_instance: usize, instances: usize) -> usize {
    per_instance.saturating_sub(1) * instances + 1
}

/// Triton's meaning of `optimization.graph.level`.
fn level(config: &ModelConfig) -> Result<GraphOptimizationLevel, String> {
    let graph = config.optimization.as_ref().and_then(|optimization| optimization.graph.as_ref());
    match graph.map_or(0, |graph| graph.level) {
        -1 => Ok(GraphOptimizationLevel::Level1),
        0 => Ok(GraphOptimizationLevel::All),
        1 => Ok(GraphOptimizationLevel::Level2),
        2 => Ok(GraphOptimizationLevel::Disable),
        level => Err(format!(
            "optimization.graph.level is {level}, but may be -1 (basic), 0 (all), 1 (extended) or 2 (off)"
        )),
    }
}

fn number(config: &ModelConfig, key: &str) -> Result<Option<usize>, String> {
    let Some(value) = config.parameters.get(key) else { return Ok(None) };
    let number = value.string_value.trim().parse().ok().filter(|number| *number <= MAX_THREADS);
    number.map(Some).ok_or_else(|| {
        format!(
            "parameters[{key:?}] is {:?}, but must be a number from 0 to {MAX_THREADS}",
            value.string_value
        )
    })
}

/// More threads than any machine has cores are a mistake.
const MAX_THREADS: usize = 1024;

fn flag(config: &ModelConfig, key: &str) -> Result<Option<bool>, String> {
    let Some(value) = config.parameters.get(key) else { return Ok(None) };
    match value.string_value.trim() {
        "0" => Ok(Some(false)),
        "1" => Ok(Some(true)),
        other => Err(format!("parameters[{key:?}] is {other:?}, but must be 0 or 1")),
    }
}

#[cfg(test)]
mod tests {
    use model::{ModelName, ModelVersion};

    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        read_for(text, 2)
    }

    fn read_for(text: &str, instances: usize) -> Result<Options, String> {
        let config = proto::config_text::parse(text, "config.pbtxt").unwrap();
        Options::read(&ModelSource {
            name: &ModelName::parse("m").unwrap(),
            version: ModelVersion::new(1).unwrap(),
            model_directory: "m".into(),
            version_directory: "m/1".into(),
            config: &config,
            instances,
            threads_per_instance: 8,
        })
    }

    fn parameter(key: &str, value: &str) -> String {
        format!("parameters {{ key: {key:?} value: {{ string_value: {value:?} }} }}")
    }

    #[test]
    fn threads_are_those_of_all_instances_together() {
        assert_eq!(read("").unwrap().intra_op_threads, 15, "2 callers and 14 helpers make 2 x 8");
        assert_eq!(read(&parameter("intra_op_thread_count", "1")).unwrap().intra_op_threads, 1);
        assert_eq!(read(&parameter("intra_op_thread_count", "0")).unwrap().intra_op_threads, 15);
        assert_eq!(session_threads(0, 4), 1);
    }

    #[test]
    fn threads_of_all_instances_together_have_a_bound() {
        let text = parameter("intra_op_thread_count", "1024");
        assert_eq!(read_for(&text, 4).unwrap().intra_op_threads, 4 * 1023 + 1);
        let error = read_for(&text, 5).unwrap_err();
        assert!(error.contains("is 1024 for each of 5 instances, 5120 threads in all"), "{error}");
    }

    #[test]
    fn every_parameter_is_read() {
        let text = [
            parameter("execution_mode", "1"),
            parameter("inter_op_thread_count", "3"),
            parameter("enable_mem_arena", "0"),
            parameter("enable_mem_pattern", "1"),
            parameter("session.intra_op.allow_spinning", "0"),
            "optimization { graph { level: 2 } }".to_owned(),
        ]
        .join("\n");
        let options = read(&text).unwrap();
        assert!(options.parallel);
        assert_eq!((options.inter_op_threads, options.arena, options.pattern), (3, Some(false), Some(true)));
        assert_eq!(options.session, [("session.intra_op.allow_spinning".to_owned(), "0".to_owned())]);
        assert_eq!(options.level, GraphOptimizationLevel::Disable);
        let keys = ["execution_mode", "session.x", "enable_mem_arena", "intra_op_thread_count"];
        assert!(keys.into_iter().all(acts_on_parameter) && !acts_on_parameter("max_batch"));
    }

    #[test]
    fn values_that_mean_nothing_are_refused_by_name() {
        for (text, words) in [
            (parameter("execution_mode", "2"), r#"parameters["execution_mode"] is "2""#),
            (parameter("intra_op_thread_count", "many"), r#"is "many""#),
            (parameter("inter_op_thread_count", "-1"), r#"is "-1""#),
            ("optimization { graph { level: 7 } }".to_owned(), "level is 7"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
