//! The signals that end a measurement early.

use std::future::pending;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::stop::Stop;

/// Watches for signals in a thread of its own. The first ends the measurement with the figures so far, the second at
/// once. The end of the terminal is no second one: it often comes twice, and nobody asked to lose the figures.
///
/// # Errors
/// When the signals cannot be watched.
pub(crate) fn watch(stop: Stop) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before the thread runs: a signal that comes first would end the program without a word.
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        let hangup = (!hangup_is_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, hangup)
    };
    let wait = async move {
        let mut asked = false;
        loop {
            let by_hand = tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                () = hung_up(hangup.as_mut()) => false,
            };
            if by_hand && asked {
                std::process::exit(130);
            }
            asked |= by_hand;
            stop.set("interrupted by a signal");
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || runtime.block_on(wait)).context("cannot start a thread")?;
    Ok(())
}

/// Waits for the end of the terminal; for ever where it is ignored.
async fn hung_up(hangup: Option<&mut Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => pending().await,
    }
}

/// Whether who started the program wants it to go on without a terminal, as `nohup` does.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is that of the first signal, SIGHUP.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
