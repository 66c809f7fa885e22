//! `volley events`: what happens to the versions of a running server, as it happens.

use std::io::{self, ErrorKind, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;
use volley_client::{EventStream, HttpClient, RepositoryEvent, Told};

use super::connection::ConnectionArgs;
use super::table::printable;

/// Follow what happens to the versions of a running server
///
/// A line for each change of a version's state: time, model, version, state, and why. When the server goes away it is
/// asked again until it is back. Ends with Ctrl-C, when nobody reads its output any more, or with --until.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  volley events --after 0                      # what the server still knows of, then what comes
  volley events --model digits --until READY   # until a version of it serves
  volley events --json | jq -r 'select(.state == \"UNAVAILABLE\") | .reason'")]
pub struct EventsArgs {
    /// Events of this model only
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Begin after the event of this number: 0 begins with the oldest that is kept
    #[arg(long, value_name = "ID")]
    after: Option<u64>,

    /// Print each event as the JSON that the server sent
    #[arg(long)]
    json: bool,

    /// End after the first event that tells of this state
    #[arg(long, value_name = "STATE", ignore_case = true)]
    until: Option<Until>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The states that a version comes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Until {
    /// It is being loaded.
    Loading,
    /// It serves.
    Ready,
    /// It answers what it took.
    Unloading,
    /// It does not serve.
    Unavailable,
}

/// Between two attempts to reach the server again.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints the events to `out`, what stands for stdout, until it is told to end.
///
/// # Errors
/// When the server cannot be asked at first, or what was waited for has not come when it is interrupted.
pub async fn run(args: EventsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let followed = tokio::select! {
        followed = follow(&args, &client, out) => followed,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot wait for Ctrl-C")?;
            match args.until {
                None => Ok(()),
                Some(_) => bail!("interrupted before the event that --until waits for"),
            }
        }
        () = reader_gone() => Ok(()),
    };
    followed.or_else(|error| match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(ErrorKind::BrokenPipe) => Ok(()), // nobody reads any more, as with `| head`
        _ => Err(error),
    })
}

async fn follow(args: &EventsArgs, client: &HttpClient, out: &mut impl Write) -> anyhow::Result<()> {
    let model = args.model.as_deref();
    let mut stream = client.follow_events(model, args.after).await.context("cannot follow the events")?;
    loop {
        let why = match stream.next().await {
            Ok(Some(Told::Event(event))) => {
                writeln!(out, "{}", if args.json { serde_json::to_string(&event)? } else { line(&event) })?;
                out.flush()?;
                if args.until.is_some_and(|until| until.is(&event.state)) {
                    return Ok(());
                }
                continue;
            }
            Ok(Some(Told::Missed(events))) => {
                say(&format!("{events} events were let go of before they were read here"));
                continue;
            }
            Ok(None) => "it has ended the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        say(&format!(
            "{} has gone away ({}); asking it again until it is back",
            client.address(),
            printable(&why)
        ));
        stream = reconnected(client, model, &stream).await?;
    }
}

/// The events after the last one of `before`, once the server is back; all of them when it has started anew.
async fn reconnected(
    client: &HttpClient,
    model: Option<&str>,
    before: &EventStream,
) -> anyhow::Result<EventStream> {
    loop {
        tokio::time::sleep(PAUSE).await;
        let Ok(stream) = client.follow_events(model, before.last_event()).await else { continue };
        if stream.server_run() == before.server_run() {
            say(&format!("{} is back", client.address()));
            return Ok(stream);
        }
        // Its events are counted anew: none of them has been seen.
        let Ok(stream) = client.follow_events(model, Some(0)).await else { continue };
        say(&format!(
            "{} is back: it was started anew, and counts its events from 1 again",
            client.address()
        ));
        return Ok(stream);
    }
}

impl Until {
    fn is(self, state: &str) -> bool {
        self.to_possible_value().is_some_and(|value| value.get_name() == state)
    }
}

fn line(event: &RepositoryEvent) -> String {
    let RepositoryEvent { time, model, version, state, reason, .. } = event;
    let (version, time) = (version.as_deref().unwrap_or("-"), printable(time));
    let line = format!(
        "{time:<30}  {}  {}  {state:<11}  {}",
        printable(model),
        printable(version),
        printable(reason)
    );
    line.trim_end().to_owned()
}

/// One line on stderr.
fn say(text: &str) {
    // Without stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "volley: {text}");
}

/// Waits until nobody reads stdout any more, which is noticed without writing to it; for ever where it is a file.
async fn reader_gone() {
    let (gone, wait) = oneshot::channel();
    // It may wait for ever: it ends with the process.
    let started = thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        let stdout = io::stdout();
        loop {
            let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut watched, None) {
                Err(Errno::INTR) => {}
                Err(_) => return,
                Ok(_) if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => break,
                Ok(_) => return, // it is closed already, and writing to it says so
            }
        }
        let _ = gone.send(()); // the command may have ended
    });
    if started.is_err() || wait.await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut event = RepositoryEvent {
            id: 7,
            time: "2026-11-27T03:41:22.757302118Z".to_owned(),
            model: "digits".to_owned(),
            version: Some("2".to_owned()),
            state: "READY".to_owned(),
            reason: String::new(),
        };
        assert_eq!(line(&event), "2026-11-27T03:41:22.757302118Z  digits  2  READY");
        (event.version, event.state) = (None, "UNAVAILABLE".to_owned());
        event.reason = "two\nlines".to_owned();
        assert_eq!(line(&event), "2026-11-27T03:41:22.757302118Z  digits  -  UNAVAILABLE  two\\nlines");
    }

    #[test]
    fn a_state_is_waited_for_by_its_name() {
        assert!(Until::Ready.is("READY") && !Until::Ready.is("LOADING"));
        for name in ["LOADING", "READY", "UNLOADING", "UNAVAILABLE"] {
            assert!(Until::from_str(name, false).unwrap().is(name));
        }
        assert_eq!(Until::from_str("ready", true), Ok(Until::Ready));
    }
}
