//! Children whose output is shown as it comes, while somebody reads it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context as _, Result, ensure};

/// Lines on their way to the terminal; a child that writes faster than they are shown waits.
const LINES_IN_FLIGHT: usize = 256;

/// Runs `command`, shows its output live and gives each line of it to `read`.
///
/// # Errors
/// When the program cannot be started; how it ended is in the answer.
pub(crate) fn stream(command: &mut Command, mut read: impl FnMut(&str)) -> Result<ExitStatus> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program:?}"))?;
    let (lines, shown) = sync_channel(LINES_IN_FLIGHT);
    let stdout = child.stdout.take().expect("standard output is piped");
    let stderr = child.stderr.take().expect("standard error is piped");
    thread::scope(|scope| {
        let copy = lines.clone();
        scope.spawn(move || forward(stdout, &copy));
        scope.spawn(move || forward(stderr, &lines));
        for line in shown {
            show(&line);
            read(&String::from_utf8_lossy(&line));
        }
    });
    child.wait().with_context(|| format!("cannot wait for {program:?}"))
}

/// Runs `command` with its output shown live.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = stream(command, |_| {})?;
    ensure!(status.success(), "{} ended with {status}", command.get_program().to_string_lossy());
    Ok(())
}

/// Sends what `pipe` gives, a line at a time, until its end.
fn forward(pipe: impl Read, lines: &SyncSender<Vec<u8>>) {
    let mut pipe = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        match pipe.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if lines.send(line).is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Shows a line. A terminal that went away is no reason to stop a test.
fn show(line: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(line).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_are_read_and_the_status_is_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo to stdout; echo to stderr >&2; printf unfinished; exit 3"]);
        let mut lines = Vec::new();
        let status = stream(&mut command, |line| lines.push(line.to_owned())).unwrap();
        lines.sort();
        assert_eq!(lines, ["to stderr\n", "to stdout\n", "unfinished"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut Command::new("no-such-program")).unwrap_err();
        assert_eq!(error.to_string(), r#"cannot run "no-such-program""#);
    }
}
