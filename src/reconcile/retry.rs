//! When a refused write is tried again.

use std::time::Duration;

use crate::model::{Refusal, Timestamp};

/// A refused write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In the kernel's words.
    pub refusal: Refusal,
    /// How often in a row.
    pub attempts: u32,
    /// Not before.
    pub due: Timestamp,
}

impl Failure {
    /// The next failure in a row.
    pub fn next(previous: Option<&Self>, refusal: Refusal, now: Timestamp) -> Self {
        let attempts = previous.map_or(0, |f| f.attempts) + 1;
        Self {
            refusal,
            attempts,
            due: now + backoff(attempts),
        }
    }
}

/// 0.5 s, 1 s, 2 s, ... up to a minute.
pub fn backoff(attempts: u32) -> Duration {
    Duration::from_millis(250 << attempts.min(8)).min(Duration::from_secs(60))
}
