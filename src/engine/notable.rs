//! A small ring of notable events for `show events`; the daemon logs each of them once as well.

use std::collections::VecDeque;

use super::report::{EventReport, Severity};
use crate::model::Timestamp;

const KEPT: usize = 1000;

/// The ring.
#[derive(Debug, Default)]
pub struct Notables {
    ring: VecDeque<EventReport>,
    last: u64,
}

impl Notables {
    /// Adds one.
    pub fn push(
        &mut self,
        at: Timestamp,
        severity: Severity,
        kind: &'static str,
        text: impl Into<Box<str>>,
    ) {
        self.last += 1;
        if self.ring.len() == KEPT {
            self.ring.pop_front();
        }
        self.ring.push_back(EventReport {
            seq: self.last,
            at,
            severity,
            kind,
            text: text.into(),
        });
    }

    /// Those after a number.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &EventReport> {
        let skip = self.ring.partition_point(|event| event.seq <= seq);
        self.ring.iter().skip(skip)
    }
}
