//! What became of writes, counted by kind and error, and whether they flow. Counts on the way of every route: an addition
//! in an array, and a map only where something was refused. Judges no error and knows not what was written.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::report::WriteKind;
use super::ticket_table;
use crate::model::{Errno, Timestamp};

const KINDS: usize = WriteKind::ALL.len();

/// Longer than a NIC that is asked for a batch of rules, or a kernel that is asked for a million routes, is silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes to one writer that were not answered yet.
#[derive(Debug, Default)]
pub(super) struct Lane {
    handed_out: u64,
    answered: u64,
    progress: Timestamp,
}

impl Lane {
    /// So many were handed out.
    pub(super) fn hand_out(&mut self, now: Timestamp, count: usize) {
        if count > 0 && self.in_flight() == 0 {
            self.progress = now;
        }
        self.handed_out += count as u64;
    }

    fn in_flight(&self) -> u64 {
        self.handed_out.saturating_sub(self.answered)
    }

    /// For how long nothing was answered, if that is longer than it should be.
    pub(super) fn stalled(&self, now: Timestamp) -> Option<Duration> {
        let silent = now.since(self.progress);
        (self.in_flight() > 0 && silent > PATIENCE).then_some(silent)
    }
}

/// Writes since the start.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// To the writer of routes.
    pub(super) routes: Lane,
    /// To tc.
    pub(super) rules: Lane,
    answered: [u64; KINDS],
    refused: FxHashMap<(u8, Errno), u64>,
}

impl Writes {
    /// A write into a table of [`ticket_table`] came back.
    pub(super) fn answer(&mut self, now: Timestamp, table: u8, refused: Option<Errno>) {
        let lane = if table == ticket_table::RULES {
            &mut self.rules
        } else {
            &mut self.routes
        };
        lane.answered += 1;
        lane.progress = now;
        if let Some(count) = self.answered.get_mut(usize::from(table)) {
            *count += 1;
        }
        if let Some(errno) = refused {
            *self.refused.entry((table, errno)).or_default() += 1;
        }
    }

    /// Writes without an answer.
    pub(super) fn in_flight(&self) -> u64 {
        self.routes.in_flight() + self.rules.in_flight()
    }

    /// Answers by kind.
    pub(super) fn answered(&self) -> Vec<(WriteKind, u64)> {
        WriteKind::ALL.into_iter().zip(self.answered).collect()
    }

    /// Refusals by kind and error, in a stable order.
    pub(super) fn refusals(&self) -> Vec<(WriteKind, Errno, u64)> {
        let kind = |table: u8| WriteKind::ALL.get(usize::from(table)).copied();
        let all = self.refused.iter();
        let mut refusals: Vec<_> = all
            .filter_map(|(&(table, errno), &count)| Some((kind(table)?, errno, count)))
            .collect();
        refusals.sort_unstable();
        refusals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_the_order_of_the_tables() {
        for (table, kind) in [
            (ticket_table::ROUTES, WriteKind::Route),
            (ticket_table::OBJECTS, WriteKind::NextHop),
            (ticket_table::NEIGHBOURS, WriteKind::Neighbour),
            (ticket_table::SOLICITS, WriteKind::Solicitation),
            (ticket_table::SETTINGS, WriteKind::Setting),
            (ticket_table::DUMPS, WriteKind::Dump),
            (ticket_table::OLD_ROUTES, WriteKind::OldRoute),
            (ticket_table::RULES, WriteKind::Rule),
        ] {
            assert_eq!(WriteKind::ALL[usize::from(table)], kind);
        }
    }

    #[test]
    fn writes_flow_while_answers_come() {
        let mut writes = Writes::default();
        let at = |seconds: u64| Timestamp(seconds * 1000);
        assert_eq!(writes.routes.stalled(at(100)), None, "nothing is awaited");
        writes.routes.hand_out(at(100), 2);
        assert_eq!(writes.routes.stalled(at(105)), None);
        writes.answer(at(105), ticket_table::ROUTES, None);
        assert_eq!(writes.routes.stalled(at(114)), None);
        assert_eq!(
            writes.routes.stalled(at(120)),
            Some(Duration::from_secs(15))
        );
        writes.answer(at(121), ticket_table::ROUTES, Some(Errno(17)));
        assert_eq!(writes.routes.stalled(at(500)), None);
        assert_eq!(writes.in_flight(), 0);
        assert_eq!(writes.answered()[0], (WriteKind::Route, 2));
        assert_eq!(writes.refusals(), [(WriteKind::Route, Errno(17), 1)]);
        assert_eq!(writes.rules.stalled(at(500)), None);
    }
}
