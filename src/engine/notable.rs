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
    told: FxHashMap<&'static str, Told>,
}

/// Of one kind, more than so many within [`PERIOD`] are only counted.
const BURST: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// The same of one kind is told again after this: who is refused dials again every few seconds, for ever.
const AGAIN: Duration = Duration::from_secs(600);

/// What was last told of a kind that repeats itself.
#[derive(Debug)]
struct Told {
    at: Timestamp,
    what: Box<str>,
    repeated: u32,
}

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

    /// Adds one, unless the same (`what`, the text being its full form) was the last of its kind not long ago.
    pub fn push_unless_told(
        &mut self,
        at: Timestamp,
        severity: Severity,
        kind: &'static str,
        (what, text): (&str, &str),
    ) {
        let mut text = text.to_owned();
        if let Some(told) = self.told.get_mut(kind)
            && *told.what == *what
        {
            if at.since(told.at) < AGAIN {
                told.repeated += 1;
                return;
            }
            if told.repeated > 0 {
                text = format!(
                    "{text} (and {} times since it was last told)",
                    told.repeated
                );
            }
        }
        let told = Told {
            at,
            what: what.into(),
            repeated: 0,
        };
        self.told.insert(kind, told);
        self.push(at, severity, kind, text);
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

    #[test]
    fn what_repeats_itself_is_told_now_and_then() {
        let mut notables = Notables::default();
        let mut tell = |at: u64, what: &str| {
            let text = format!("{at}: {what}");
            let severity = Severity::Warn;
            notables.push_unless_told(Timestamp(at), severity, "refused", (what, &text));
        };
        for second in 0..130 {
            tell(second * 5000, "protobuf");
        }
        tell(700_000, "cut");
        tell(705_000, "protobuf");
        let texts: Vec<_> = notables.after(0).map(|event| &*event.text).collect();
        let again = "600000: protobuf (and 119 times since it was last told)";
        assert_eq!(
            texts,
            ["0: protobuf", again, "700000: cut", "705000: protobuf"]
        );
    }
}
