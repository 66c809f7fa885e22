//! Work that would hold up a thread of the runtime, done on a thread of its own.

use model::InferError;
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::task::AbortOnDropHandle;

/// Has `work` done; `what` names it in the error.
///
/// # Errors
/// When it panics, which is the server's fault, or when the server stops before it begins.
pub async fn run<T, W>(what: &'static str, work: W) -> Result<T, InferError>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    // What has not begun is not begun when nobody waits for it any more.
    AbortOnDropHandle::new(spawn_blocking(work)).await.map_err(|error| failure(what, error))
}

fn failure(what: &'static str, error: JoinError) -> InferError {
    // Only a runtime that shuts down cancels what has not begun.
    if error.is_cancelled() { InferError::ShuttingDown } else { InferError::ServerFault { what } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_servers_fault_and_not_its_end() {
        assert_eq!(run("counting", || 1 + 1).await, Ok(2));
        let broken = || -> u32 { panic!("for the test") };
        let told = run("counting", broken).await.unwrap_err();
        assert_eq!(told, InferError::ServerFault { what: "counting" });
        assert_eq!(told.code(), model::Code::Internal);
    }

    #[test]
    fn what_a_stopping_runtime_does_not_begin_may_be_asked_of_another() {
        let stopped = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = stopped.handle().clone();
        stopped.shutdown_background();
        let waiting = handle.spawn_blocking(|| 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(waiting).unwrap_err();
        assert_eq!(failure("counting", error), InferError::ShuttingDown);
    }
}
