//! [`Pulse`]: what the engine's thread tells of itself while it works, for metrics to read at any time. A few plain
//! stores a turn and a histogram's observation; nothing a route, and no lock that a scrape holds for long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::engine::report::{Arrival, Sample};

/// 100 us to 105 s, twice as long each: a route alone takes less than 1 ms, one in a replay as long as its queue.
const ARRIVAL_BUCKETS: (f64, f64, u16) = (100e-6, 2.0, 21);
/// 10 us to 2.6 s, four times as long each.
const TURN_BUCKETS: (f64, f64, u16) = (10e-6, 4.0, 10);

/// What the engine's thread tells of itself.
#[derive(Debug)]
pub struct Pulse {
    pub(super) turn: Histogram,
    pub(super) frame_to_kernel: Histogram,
    pub(super) frame_to_rule: Histogram,
    pub(super) events: Queue,
    pub(super) writes: Queue,
    pub(super) rules: Queue,
}

/// A queue as it was when it was looked at last.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: AtomicUsize,
    capacity: usize,
}

impl Queue {
    const fn new(capacity: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            capacity,
        }
    }

    /// So many wait in it.
    pub fn note(&self, waiting: usize) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Pulse {
    /// With queues of these capacities: of events, and of batches for each of the two writers.
    pub fn new(events: usize, batches: usize) -> Self {
        let histogram =
            |(start, factor, count)| Histogram::new(exponential_buckets(start, factor, count));
        Self {
            turn: histogram(TURN_BUCKETS),
            frame_to_kernel: histogram(ARRIVAL_BUCKETS),
            frame_to_rule: histogram(ARRIVAL_BUCKETS),
            events: Queue::new(events),
            writes: Queue::new(batches),
            rules: Queue::new(batches),
        }
    }

    /// A turn has ended that took so long, waiting left out.
    pub fn turn(&self, took: Duration) {
        self.turn.observe(took.as_secs_f64());
    }

    /// A route that was followed has arrived.
    pub fn arrival(&self, sample: Sample) {
        let histogram = match sample.at {
            Arrival::Kernel => &self.frame_to_kernel,
            Arrival::Rule => &self.frame_to_rule,
        };
        histogram.observe(sample.read_at.elapsed().as_secs_f64());
    }

    /// Events that wait for the engine, batches that wait for the writer of routes, and for that of rules.
    pub fn queues(&self, events: usize, writes: usize, rules: usize) {
        self.events.note(events);
        self.writes.note(writes);
        self.rules.note(rules);
    }
}
