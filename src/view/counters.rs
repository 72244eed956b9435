//! [`PortHistory`]: what ports had counted a few seconds ago, and the rates that follow from it. Given readings with
//! their time; knows no clock. Memory: a handful of samples, 72 bytes a link each.
//!
//! Drivers hand out counters that they refresh every second or two, so a rate over less is noise: it is made over about
//! [`WINDOW`], and over a shorter time only at the start. What goes backwards was reset (a driver reloaded, a link made
//! anew, or a counter of 32 bits that came round): nothing is made of what was before, since a missing rate is better
//! than a wrong one.
//!
//! ```text
//! samples        t-15  t-10   t-5    t          the reading that is asked about: now
//! link counted    100   200    300   400        start: t-10, the youngest that is WINDOW old
//! after a reset   900   950     10    60        start: t-5, the oldest after it
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::model::{
    IfIndex, LinkCounters, PortRates, PortReading, PortReadings, Rate, Timestamp, TrafficRates,
};

/// What a rate is made over.
pub const WINDOW: Duration = Duration::from_secs(10);
/// The least: longer than any driver's refresh that is known.
const SHORTEST: Duration = Duration::from_millis(2500);
/// Samples that are closer together are of no use: whoever asks often does not make the history shorter.
const SPACING: Duration = Duration::from_secs(4);

/// Earlier readings of ports.
#[derive(Debug, Default)]
pub struct PortHistory {
    /// From old to young.
    samples: VecDeque<Sample>,
}

#[derive(Debug)]
struct Sample {
    at: Timestamp,
    ports: FxHashMap<IfIndex, Counted>,
}

/// Packets and bytes, in and out, then those of the CPU.
#[derive(Debug, Clone, Copy)]
struct Counted {
    all: [u64; 4],
    cpu: Option<[u64; 4]>,
}

impl PortHistory {
    /// Keeps a reading for later. Links that are not in it are forgotten as the older ones go.
    pub fn note(&mut self, readings: &PortReadings) {
        let at = readings.at;
        let last = self.samples.back();
        if last.is_some_and(|last| at.since(last.at) < SPACING) {
            return;
        }
        self.samples.push_back(Sample {
            at,
            ports: readings
                .ports
                .iter()
                .map(|port| (port.dev, Counted::new(port)))
                .collect(),
        });
        // One is kept that is as old as the window.
        while self
            .samples
            .get(1)
            .is_some_and(|second| at.since(second.at) >= WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// The rates of a port that has counted this by now; `None` until there is something to compare with.
    pub fn rates(&self, now: Timestamp, reading: &PortReading) -> Option<PortRates> {
        let counted = Counted::new(reading);
        let (mut start, mut younger) = (None, counted);
        for sample in self.samples.iter().rev() {
            let older = sample.ports.get(&reading.dev);
            let Some(older) = older.filter(|older| older.precedes(&younger)) else {
                break;
            };
            start = Some((now.since(sample.at), *older));
            younger = *older;
            if now.since(sample.at) >= WINDOW {
                break;
            }
        }
        let (window, start) = start.filter(|(window, _)| *window >= SHORTEST)?;
        let cpu = counted.cpu.zip(start.cpu);
        Some(PortRates {
            window,
            all: rates(counted.all, start.all, window),
            cpu: cpu.map(|(now, then)| rates(now, then, window)),
        })
    }
}

impl Counted {
    fn new(reading: &PortReading) -> Self {
        let four = |counters: LinkCounters| {
            let (rx, tx) = (counters.rx(), counters.tx());
            [rx.packets, rx.bytes, tx.packets, tx.bytes]
        };
        Self {
            all: four(reading.all),
            cpu: reading.cpu.map(four),
        }
    }

    /// Whether nothing went backwards since.
    fn precedes(&self, later: &Self) -> bool {
        let never_back = |a: [u64; 4], b: [u64; 4]| a.iter().zip(b).all(|(a, b)| *a <= b);
        let cpu = self.cpu.zip(later.cpu);
        never_back(self.all, later.all) && cpu.is_none_or(|(a, b)| never_back(a, b))
    }
}

fn rates(now: [u64; 4], then: [u64; 4], window: Duration) -> TrafficRates {
    let each_second = |at: usize, factor: u128| {
        let counted = u128::from(now[at] - then[at]) * factor;
        let window = window.as_millis();
        u64::try_from((counted * 1000 + window / 2) / window).unwrap_or(u64::MAX)
    };
    let rate = |at| Rate {
        packets: each_second(at, 1),
        bits: each_second(at + 1, 8),
    };
    TrafficRates {
        rx: rate(0),
        tx: rate(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(dev: u32, rx_packets: u64) -> PortReading {
        // A hundred bytes a packet, nothing sent, half of it seen by the CPU.
        let counters = |packets| LinkCounters::new([packets, 0, packets * 100, 0]);
        PortReading {
            dev: IfIndex::new(dev).unwrap(),
            all: counters(rx_packets),
            cpu: Some(counters(rx_packets / 2)),
        }
    }

    fn seconds(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    fn history(samples: &[(u64, u64)]) -> PortHistory {
        let mut history = PortHistory::default();
        for (at, packets) in samples {
            history.note(&PortReadings {
                at: seconds(*at),
                ports: vec![reading(1, *packets)],
            });
        }
        history
    }

    /// Seconds of the window and packets a second.
    fn rx(history: &PortHistory, at: u64, packets: u64) -> Option<(u64, u64)> {
        let rates = history.rates(seconds(at), &reading(1, packets))?;
        Some((rates.window.as_secs(), rates.all.rx.packets))
    }

    #[test]
    fn a_rate_is_made_over_the_window_of_all_and_of_the_cpu() {
        let history = history(&[(0, 0), (5, 0), (10, 1000), (15, 2000), (20, 3000)]);
        let rates = history.rates(seconds(21), &reading(1, 3200)).unwrap();
        assert_eq!(rates.window, Duration::from_secs(11));
        let rate = |packets, bits| Rate { packets, bits };
        assert_eq!(rates.all.rx, rate(200, 160_000));
        assert_eq!(rates.all.tx, rate(0, 0));
        assert_eq!(rates.cpu.unwrap().rx, rate(100, 80_000));
        assert_eq!(
            history.samples.len(),
            3,
            "no more is kept than a window needs"
        );
    }

    #[test]
    fn what_is_too_young_makes_no_rate() {
        let history = history(&[(1, 100)]);
        assert_eq!(rx(&PortHistory::default(), 9, 100), None);
        assert_eq!(rx(&history, 3, 300), None);
        assert_eq!(rx(&history, 4, 400), Some((3, 100)));
    }

    #[test]
    fn who_asks_often_does_not_make_the_window_shorter() {
        let samples: Vec<_> = (0..40).map(|at| (at, at * 10)).collect();
        let history = history(&samples);
        assert_eq!(rx(&history, 40, 400), Some((12, 10)));
    }

    #[test]
    fn what_was_reset_is_not_compared_with_what_was_before() {
        // Also where it has overtaken the old number since.
        for after in [50, 5000] {
            let history = history(&[(0, 900), (5, 1000), (10, 10)]);
            assert_eq!(rx(&history, 15, after), Some((5, (after - 10) / 5)));
            assert_eq!(rx(&history, 12, after), None);
        }
        // One that came round is the same: 2^32 - 100 packets, then few.
        let history = history(&[(0, u64::from(u32::MAX) - 99), (5, 100)]);
        assert_eq!(rx(&history, 6, 200), None);
        // The first reading after it is behind all that is kept.
        assert_eq!(rx(&history, 10, 5), None);
    }

    #[test]
    fn a_port_that_vanished_begins_anew() {
        let mut history = history(&[(0, 100), (5, 200)]);
        for at in [10, 15] {
            history.note(&PortReadings {
                at: seconds(at),
                ports: vec![reading(2, 1)],
            });
        }
        assert_eq!(rx(&history, 20, 300), None, "it was not there meanwhile");
        let other = history.rates(seconds(20), &reading(2, 51)).unwrap();
        assert_eq!((other.window.as_secs(), other.all.rx.packets), (10, 5));
        history.note(&PortReadings {
            at: seconds(20),
            ports: Vec::new(),
        });
        let kept = |dev| {
            let mut samples = history.samples.iter();
            samples.any(|sample| sample.ports.contains_key(&IfIndex::new(dev).unwrap()))
        };
        assert!(!kept(1) && kept(2));
    }

    #[test]
    fn the_largest_counters_do_not_overflow() {
        let history = history(&[(0, 0)]);
        let most = u64::MAX / 100;
        let rates = history.rates(seconds(10), &reading(1, most)).unwrap();
        assert_eq!(rates.all.rx.packets, (most + 5) / 10);
        assert!(rates.all.rx.bits > most);
    }
}
