//! Runs the server: listen, load, serve, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use inference::backend::Backend;
use inference::{Abandoned, ServedVersion};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::admin::MetricsService;
use crate::app::App;
use crate::config::{Config, ControlMode, DrainConfig};
use crate::drain::Drain;
use crate::grpc::{self, GrpcService};
use crate::http::{self, HttpService};
use crate::io_threads::IoThreads;
use crate::load_trial::LoadTrials;
use crate::logging::LogSettings;
use crate::open_files;
use crate::repository_poll;
use crate::room::Room;
use crate::serve::{Connections, FOREVER, listen, serve};

/// Listens, loads the models, and serves until SIGTERM or SIGINT; then drains.
///
/// # Errors
/// When a port cannot be had, or, with `--exit-on-error`, when a model cannot be loaded.
pub async fn run(
    config: Config,
    log: LogSettings,
    backend: Arc<dyn Backend>,
    acts_on_parameter: fn(&str) -> bool,
) -> anyhow::Result<()> {
    open_files::make_room(
        config.connections.max_connections.get() as u64,
        config.connections.thread_count.get() as u64,
    );
    let app = Arc::new(App::new(&config, log, backend, acts_on_parameter)?);
    let drain = Drain::default();
    if app.trials.is_some() {
        LoadTrials::watch_ends().context("cannot learn how trial loads end (--trial-loads)")?;
    }
    let mut stop = Box::pin(stop_requested()); // before anyone can know that the server is there
    let (io_threads, io_guard) = IoThreads::start(config.connections.thread_count.get())
        .context("cannot start the threads that serve connections (--http-thread-count)")?;
    start_listeners(&config, &app, io_threads, &drain)?;
    let loading = {
        let app = Arc::clone(&app);
        tokio::task::spawn_blocking(move || app.load())
    };
    tokio::select! {
        problems = loading => {
            let problems = problems?;
            if config.repository.exit_on_error && !problems.is_empty() {
                bail!("--exit-on-error: {}", problems.join("; "));
            }
            for problem in problems {
                warn!(problem, "not served");
            }
            if config.repository.control_mode == ControlMode::Poll {
                drain.spawn(repository_poll::follow(Arc::clone(&app), config.repository.clone(), drain.clone()));
            }
            stop.await;
        }
        () = &mut stop => {}
    }
    finish(&app, &drain, &config.drain).await;
    io_guard.end(Duration::from_secs(1)); // nothing else is left to be done on this thread
    Ok(())
}

/// Binds every port before any is served, so that a port that cannot be had ends the start.
fn start_listeners(
    config: &Config,
    app: &Arc<App>,
    io_threads: IoThreads,
    drain: &Drain,
) -> anyhow::Result<()> {
    let connections = |builder| Connections {
        builder,
        room: Room::new(config.connections.max_connections.get()),
        client_timeout: config.connections.client_timeout,
        max_age: None,
        io_threads: Some(io_threads.for_another()),
        drain: drain.clone(),
    };
    let bind = |address, reuse| listen(address, reuse);
    let http = config.http.as_ref().map(|http| bind(http.address, http.reuse_port)).transpose()?;
    let grpc = config.grpc.as_ref().map(|grpc| bind(grpc.address, grpc.reuse_port)).transpose()?;
    let metrics = config.metrics.as_ref().map(|metrics| bind(metrics.address, false)).transpose()?;
    if let Some(listener) = http {
        announce("http", &listener)?;
        let app = Arc::clone(app);
        let service = move |peer: SocketAddr, activity| HttpService { app: Arc::clone(&app), peer, activity };
        drain.spawn(serve(listener, connections(http::builder()), service));
    }
    if let (Some(listener), Some(grpc_config)) = (grpc, &config.grpc) {
        announce("grpc", &listener)?;
        let routes = grpc::routes(app, grpc_config.response_compression, drain);
        let app = Arc::clone(app);
        let service = move |peer: SocketAddr, _| GrpcService::new(routes.clone(), peer, Arc::clone(&app));
        let grace = grpc_config.max_connection_age_grace.unwrap_or(FOREVER);
        let max_age = grpc_config.max_connection_age.map(|age| (age, grace));
        drain.spawn(serve(
            listener,
            Connections { max_age, ..connections(grpc::builder(grpc_config)) },
            service,
        ));
    }
    if let Some(listener) = metrics {
        announce("metrics", &listener)?;
        let app = Arc::clone(app);
        let service = move |_, _| MetricsService { app: Arc::clone(&app) };
        // They answer requests while models are scraped.
        let connections = Connections { io_threads: None, ..connections(http::builder()) };
        drain.spawn(serve(listener, connections, service));
    }
    Ok(())
}

fn announce(protocol: &str, listener: &TcpListener) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    info!(protocol, %address, "listening");
    Ok(())
}

/// Returns at the first SIGTERM or SIGINT from this call on.
fn stop_requested() -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            warn!("cannot listen for signals; stop the server with SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
        }
    }
}

/// Ready turns false; requests are still answered for a while, so that load balancers can look away; then
/// no connection is accepted and what is in work is finished, within a time.
async fn finish(app: &Arc<App>, drain: &Drain, config: &DrainConfig) {
    app.readiness.stop();
    if !config.delay.is_zero() {
        info!(delay = ?config.delay, "not ready any more, still answering");
        tokio::time::sleep(config.delay).await;
    }
    let before = answered(app);
    drain.stop();
    if let Some(trials) = &app.trials {
        trials.give_up(); // what they try would serve nobody
    }
    info!(requests = in_flight(app), "finishing what is in work");
    if tokio::time::timeout(config.timeout, drain.finished()).await.is_ok() {
        info!(
            finished = answered(app).saturating_sub(before),
            unfinished = 0,
            "stopped: every request was answered"
        );
    } else {
        abandon(app, before, drain).await;
    }
    stop_instances(app).await;
    stop_trials(app).await;
}

/// Inference requests that were taken up and have no answer yet.
fn in_flight(app: &App) -> u64 {
    app.repository.all_at_work().iter().map(|served| served.statistics().in_flight()).sum()
}

/// Inference requests answered so far, well or badly, by versions that have not left since.
fn answered(app: &App) -> u64 {
    let answered = |served: &Arc<ServedVersion>| served.statistics().answered();
    app.repository.all_at_work().iter().map(answered).sum()
}

/// Refuses what still waits and what still runs, and says what was not finished. `before` were answered when
/// the stop began.
async fn abandon(app: &App, before: u64, drain: &Drain) {
    let (finished, connections) = (answered(app).saturating_sub(before), drain.unfinished());
    app.control.give_up();
    let abandoned: Vec<Abandoned> =
        app.repository.all_at_work().iter().map(|served| served.abandon()).collect();
    let waiting: usize = abandoned.iter().map(|abandoned| abandoned.waiting).sum();
    let running: usize = abandoned.iter().map(|abandoned| abandoned.running).sum();
    warn!(
        finished,
        unfinished = waiting + running,
        waiting,
        running,
        connections,
        "stopped at the time limit (--exit-timeout-secs)"
    );
    // One moment for the refusals to leave.
    let _ = tokio::time::timeout(Duration::from_secs(1), drain.finished()).await;
}

/// Ends the threads of the instances that are idle; one that is still running is left to the process's end.
async fn stop_instances(app: &App) {
    let versions = app.repository.all_at_work();
    let drained = tokio::task::spawn_blocking(move || versions.iter().for_each(|served| served.drain()));
    if tokio::time::timeout(Duration::from_secs(1), drained).await.is_err() {
        warn!("an execution did not end; leaving it");
    }
}

/// Waits for the trial loads that were given up, so that nothing is left of them.
async fn stop_trials(app: &App) {
    let Some(trials) = app.trials.clone() else { return };
    let ended = tokio::task::spawn_blocking(move || trials.have_ended(Duration::from_secs(2)));
    if !matches!(ended.await, Ok(true)) {
        warn!("the process of a trial load did not end; leaving it");
    }
}
