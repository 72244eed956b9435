//! [`EngineHandle`]: how async code asks the engine thread. A question is a closure that runs between two turns and
//! should be short; long answers are asked for in pieces. Knows nothing of what is asked.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::model::Timestamp;

/// A question, to be called by the engine thread with its engine and the time.
pub type Question = Box<dyn FnOnce(&mut Engine, Timestamp) + Send>;

/// Questions that may wait; each caller has one at a time.
const CAPACITY: usize = 64;
/// How long to wait before offering a question again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// The engine thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the engine has ended")]
pub struct EngineGone;

/// Asks the engine thread.
#[derive(Debug, Clone)]
pub struct EngineHandle(Sender<Question>);

impl EngineHandle {
    /// A handle, and the end for the engine thread.
    pub fn new() -> (Self, Receiver<Question>) {
        let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
        (Self(sender), receiver)
    }

    /// Runs `question` in the engine thread and brings the answer back.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine, Timestamp) -> T + Send + 'static,
    ) -> Result<T, EngineGone> {
        let (sender, answer) = oneshot::channel();
        let mut question: Question = Box::new(move |engine, now| {
            // The caller may have gone away; then nobody wants the answer.
            let _ = sender.send(question(engine, now));
        });
        // The channel has no async side: a full one is offered again, which happens only under very many callers.
        loop {
            match self.0.try_send(question) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return Err(EngineGone),
                Err(TrySendError::Full(back)) => question = back,
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
        answer.await.map_err(|_| EngineGone)
    }
}
