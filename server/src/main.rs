//! `volley`: parse, build, serve, drain; or one of the commands.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use ort_backend::OrtBackend;
use volley::cli::{
    EventsArgs, InferArgs, LoadArgs, ModelsArgs, PushArgs, RollbackArgs, UnloadArgs, check, control, events,
    infer, models, push,
};
use volley::config::{Config, Flags, ModelFlags, RepositoryConfig};
use volley::{load_trial, logging, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An inference server for ONNX models that speaks the KServe V2 / Triton protocols.
///
/// Without a command it serves the models of --model-repository until SIGTERM or SIGINT.
#[derive(Parser)]
#[command(name = "volley", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Command {
    /// Validate model repositories as a server would load them; fails when anything is wrong
    Check {
        /// Model repositories
        #[arg(required = true, value_name = "DIR")]
        repositories: Vec<PathBuf>,
        /// It is the trial of a server's load: it ends with its standard input
        #[arg(long, hide = true)]
        as_trial: bool,
        #[command(flatten)]
        flags: ModelFlags,
    },
    /// Send one request to a running server and print the answer
    Infer(InferArgs),
    /// List the models of a running server
    Models(ModelsArgs),
    /// Load a model into a running server, or load it again
    Load(LoadArgs),
    /// Take a model of a running server out of service
    Unload(UnloadArgs),
    /// Put the versions of a model that served before in the place of those that serve
    Rollback(RollbackArgs),
    /// Follow what happens to the versions of a running server
    Events(EventsArgs),
    /// Put a new version of a model into a repository
    Push(PushArgs),
}

/// What was asked for cannot be understood (`EX_USAGE` of sysexits).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        None => serve(arguments.flags),
        Some(Command::Check { repositories, as_trial: false, flags }) => check(repositories, flags),
        Some(Command::Check { repositories, as_trial: true, flags }) => {
            load_trial::begin_here(ort_backend::exit_at_once);
            // What ONNX Runtime does at the end of a process is none of a load.
            ort_backend::exit_at_once(u8::from(check(repositories, flags) != ExitCode::SUCCESS))
        }
        Some(Command::Infer(args)) => client(async { infer::run(args, &mut std::io::stdout().lock()).await }),
        Some(Command::Models(args)) => {
            client(async { models::run(args, &mut std::io::stdout().lock()).await })
        }
        Some(Command::Load(args)) => {
            client(async { control::load(args, &mut std::io::stdout().lock()).await })
        }
        Some(Command::Unload(args)) => {
            client(async { control::unload(args, &mut std::io::stdout().lock()).await })
        }
        Some(Command::Rollback(args)) => {
            client(async { control::roll_back(args, &mut std::io::stdout().lock()).await })
        }
        Some(Command::Events(args)) => {
            client(async { events::run(args, &mut std::io::stdout().lock()).await })
        }
        Some(Command::Push(args)) => push(&args),
    }
}

fn check(repositories: Vec<PathBuf>, flags: ModelFlags) -> ExitCode {
    let config = match RepositoryConfig::load(flags, repositories) {
        Ok(config) => config,
        Err(error) => return refuse(&error.to_string(), USAGE),
    };
    let acts_on_parameter = ort_backend::acts_on_parameter;
    finish(OrtBackend::load().map_err(Into::into).and_then(|backend| {
        check::run(&config, Arc::new(backend), acts_on_parameter, &mut std::io::stdout().lock())
    }))
}

/// A version is tried as a server with this environment would load it.
fn push(args: &PushArgs) -> ExitCode {
    let anywhere = vec![PathBuf::from(".")]; // it says itself where it tries a version
    let settings = match RepositoryConfig::load(ModelFlags::default(), anywhere) {
        Ok(settings) => settings,
        Err(error) => return refuse(&error.to_string(), USAGE),
    };
    let format = push::Format {
        backend: || Ok(Arc::new(OrtBackend::load()?)),
        acts_on_parameter: ort_backend::acts_on_parameter,
        external_data: ort_backend::external_data,
    };
    finish(push::run(args, settings, format, &mut std::io::stdout().lock()))
}

fn serve(flags: Flags) -> ExitCode {
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(error) => return refuse(&error.to_string(), USAGE),
    };
    let logging = match logging::start(&config.log) {
        Ok(logging) => logging,
        Err(error) => return refuse(&error.to_string(), USAGE),
    };
    config.report_options_without_effect();
    let backend = match OrtBackend::load() {
        Ok(backend) => backend,
        Err(error) => {
            drop(logging); // what it still holds comes first
            return refuse(&error.to_string(), 1);
        }
    };
    let library = backend.library();
    tracing::info!(library = %library.path.display(), found = library.origin, "ONNX Runtime");
    // It accepts connections and tells metrics; what is asked is answered on threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = match runtime {
        Ok(runtime) => {
            let served = runtime.block_on(server::run(
                config,
                logging.settings(),
                Arc::new(backend),
                ort_backend::acts_on_parameter,
            ));
            // A load or an execution that goes on does not hold the process beyond its time limit.
            runtime.shutdown_background();
            served
        }
        Err(error) => Err(anyhow::anyhow!("cannot start the runtime: {error}")),
    };
    let dropped = logging.settings().dropped_lines();
    drop(logging);
    if dropped > 0 {
        // Without stderr there is nobody to tell.
        let _ = writeln!(
            std::io::stderr(),
            "volley: {dropped} log lines were dropped: their reader was too slow"
        );
    }
    let code = match served {
        Ok(()) => 0,
        Err(error) => {
            refuse(&format!("{error:#}"), 1);
            1
        }
    };
    let _ = std::io::stdout().flush();
    // A load that the stop did not wait for may be inside ONNX Runtime.
    ort_backend::exit_at_once(code)
}

/// Runs a command that talks to a server: one thread is enough.
fn client(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    finish(runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(command)))
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&format!("{error:#}"), 1),
    }
}

/// One line on stderr.
fn refuse(reason: &str, code: u8) -> ExitCode {
    // Without stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "volley: {reason}");
    ExitCode::from(code)
}
