//! Whether the server takes requests: not before its models are loaded, not once it is told to stop.

use tokio::sync::watch;

/// How far the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Models are being loaded.
    Starting,
    /// The first load is over.
    Serving,
    /// The server was told to stop; it still answers.
    Stopping,
}

/// The stage, for all to read and to wait for.
#[derive(Debug)]
pub struct Readiness(watch::Sender<Stage>);

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness(watch::Sender::new(Stage::Starting))
    }
}

impl Readiness {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// The first load is over. A server that is stopping stays so.
    pub fn loaded(&self) {
        self.0.send_if_modified(|stage| {
            let starting = *stage == Stage::Starting;
            if starting {
                *stage = Stage::Serving;
            }
            starting
        });
    }

    /// The server was told to stop.
    pub fn stop(&self) {
        self.0.send_replace(Stage::Stopping);
    }

    /// Tells of every change of the stage.
    pub fn watch(&self) -> watch::Receiver<Stage> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stops_while_it_loads_is_never_ready() {
        let readiness = Readiness::default();
        assert_eq!(readiness.stage(), Stage::Starting);
        readiness.stop();
        readiness.loaded();
        assert_eq!(readiness.stage(), Stage::Stopping);
    }
}
