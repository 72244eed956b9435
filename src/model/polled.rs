//! What a poller of a source brings: whole tables, or the news that one could not be had. Unlike a stream it has no
//! withdrawals: what is not in a table any more is gone.

use std::time::Duration;

use super::{Family, SourceUpdate, TableId};

/// One result of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polled {
    /// Whom was asked, for output.
    pub peer: Box<str>,
    /// What came of it.
    pub outcome: PollOutcome,
}

/// What came of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollOutcome {
    /// A round begins. What is asked for no more is nobody's any more.
    Round {
        /// What is asked for.
        tables: Vec<PolledTable>,
        /// VRFs that are to be asked for and are not here.
        absent: Vec<Box<str>>,
    },
    /// A whole table as the source had it.
    Table {
        /// Which.
        of: PolledTable,
        /// Its routes; none twice.
        updates: Vec<SourceUpdate>,
        /// How long the source took to answer.
        took: Duration,
    },
    /// The source is there, and this table could not be had: what it said last goes on.
    Missed {
        /// Which.
        of: PolledTable,
        /// Why, in words.
        why: Box<str>,
    },
    /// The source has no table of that number: it makes most of them with their first route.
    Absent {
        /// Which.
        of: PolledTable,
    },
    /// The source can't be reached, or not be used.
    Lost {
        /// Why, in words.
        why: Box<str>,
    },
}

/// A table in the source's numbering, of one family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolledTable {
    /// Its VRF's name.
    pub vrf: Box<str>,
    /// Its raw number.
    pub table: TableId,
    /// Its family.
    pub family: Family,
}
