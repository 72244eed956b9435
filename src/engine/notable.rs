//! A small ring of notable events for `show events`; the daemon logs each of them once as well.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::report::{EventReport, Severity};
use crate::model::Timestamp;

const KEPT: usize = 1000;

/// The ring.
#[derive(Debug, Default)]
pub struct Notables {
    ring: VecDeque<EventReport>,
    last: u64,
    rates: FxHashMap<&'static str, Rate>,
}

/// Of one kind, more than so many within [`PERIOD`] are only counted.
const BURST: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// How often a kind came lately.
#[derive(Debug)]
struct Rate {
    since: Timestamp,
    count: u32,
}

impl Notables {
    /// Adds one, unless too many of its kind came lately: a port scan must not wash the rest out of the ring. What was left
    /// out is told with the next one that gets in.
    pub fn push(
        &mut self,
        at: Timestamp,
        severity: Severity,
        kind: &'static str,
        text: impl Into<Box<str>>,
    ) {
        let rate = self.rates.entry(kind).or_insert(Rate {
            since: at,
            count: 0,
        });
        let mut text = text.into();
        if at.since(rate.since) >= PERIOD {
            if rate.count > BURST {
                text = format!(
                    "{text} (and {} more since the last one told)",
                    rate.count - BURST
                )
                .into();
            }
            *rate = Rate {
                since: at,
                count: 0,
            };
        }
        rate.count += 1;
        if rate.count <= BURST {
            self.add(at, severity, kind, text);
        }
    }

    fn add(&mut self, at: Timestamp, severity: Severity, kind: &'static str, text: Box<str>) {
        self.last += 1;
        if self.ring.len() == KEPT {
            self.ring.pop_front();
        }
        self.ring.push_back(EventReport {
            seq: self.last,
            at,
            severity,
            kind,
            text,
        });
    }

    /// Those after a number.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &EventReport> {
        let skip = self.ring.partition_point(|event| event.seq <= seq);
        self.ring.iter().skip(skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_leaves_the_others_alone() {
        let mut notables = Notables::default();
        notables.push(Timestamp(0), Severity::Info, "first", "a");
        for _ in 0..5000 {
            notables.push(Timestamp(1), Severity::Warn, "flood", "b");
        }
        assert_eq!(notables.after(0).count(), 1 + BURST as usize);
        assert_eq!(notables.after(0).next().unwrap().kind, "first");
        notables.push(Timestamp(20_000), Severity::Warn, "flood", "c");
        assert_eq!(
            &*notables.after(0).last().unwrap().text,
            "c (and 4980 more since the last one told)"
        );
    }
}
