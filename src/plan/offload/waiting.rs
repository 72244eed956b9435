//! Prefixes that wait for room, and when another look at them is worth it.
//!
//! A full table has far more that waits than it has rules, so each freed place must not have all of it looked at again. Three things
//! keep the looks few: with `hopeless`, the largest room in which nothing that waits fits, most are known in vain before they begin;
//! a table without room tries only those that have a guard, whose rule takes its place; and those whose own need fell, the `eased`,
//! are tried at once, by themselves. Knows no rules and no room of its own: the plan says how much there is.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::{Rank, rank};
use crate::model::RouteKey;

/// Those looked at in one pass.
const BATCH: usize = 4096;

/// Where the refill goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Refill {
    /// Nowhere: nothing has changed since all were tried.
    #[default]
    Done,
    /// With the first that waits.
    Start,
    /// Behind this one.
    Behind(Rank),
}

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    all: BTreeSet<Rank>,
    /// Those of them that have a guard: a rule instead of it needs no room.
    guarded: BTreeSet<Rank>,
    /// Those of them that need less now: one has a guard, or a prefix below it a rule.
    eased: Vec<RouteKey>,
    refill: Refill,
    /// With so much room nothing of what waits fits, as far as all of it was tried.
    hopeless: Option<usize>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn contains(&self, key: RouteKey) -> bool {
        self.all.contains(&rank(key))
    }

    /// A prefix waits: it needs more room than `too_little`, or perhaps none, which is seen at the end of what goes on.
    pub(super) fn insert(
        &mut self,
        key: RouteKey,
        guarded: bool,
        too_little: Option<usize>,
        room: usize,
    ) {
        if guarded {
            self.guarded.insert(rank(key));
        }
        self.all.insert(rank(key));
        if too_little.is_none() {
            self.eased.push(key);
        }
        let before = self.hopeless;
        self.hopeless = before.map(|most| most.min(too_little.unwrap_or(0)));
        if self.hopeless != before {
            self.look_again(room);
        }
    }

    pub(super) fn remove(&mut self, key: RouteKey) {
        self.all.remove(&rank(key));
        self.guarded.remove(&rank(key));
    }

    /// A prefix has a guard now, or has none any more.
    pub(super) fn set_guarded(&mut self, key: RouteKey, guarded: bool) {
        if guarded && self.contains(key) {
            self.guarded.insert(rank(key));
            self.eased.push(key);
        } else {
            self.guarded.remove(&rank(key));
        }
    }

    /// What a prefix needs may have fallen.
    pub(super) fn ease(&mut self, key: Option<RouteKey>) {
        self.eased.extend(key);
    }

    /// One of those whose need fell.
    pub(super) fn next_eased(&mut self) -> Option<RouteKey> {
        while let Some(key) = self.eased.pop() {
            if self.contains(key) {
                return Some(key);
            }
        }
        None
    }

    /// With so much room nothing fits, which is known without a look; `None`: who knows.
    pub(super) const fn hopeless(&self) -> Option<usize> {
        self.hopeless
    }

    pub(super) fn is_hopeless(&self, room: usize) -> bool {
        self.hopeless.is_some_and(|most| room <= most)
    }

    /// There is room, or somebody needs less of it.
    pub(super) fn look_again(&mut self, room: usize) {
        if !self.is_hopeless(room) {
            self.refill = Refill::Start;
        }
    }

    /// Somebody who waits needs less room by so much.
    pub(super) fn cheaper(&mut self, by: usize, room: usize) {
        self.hopeless = self.hopeless.and_then(|most| most.checked_sub(by));
        self.look_again(room);
    }

    /// Something became cheaper for who knows whom.
    pub(super) const fn hope(&mut self) {
        self.hopeless = None;
        self.refill = Refill::Start;
    }

    /// Whether [`Self::begin`] has somebody to try.
    pub(super) fn wants_refill(&self) -> bool {
        self.refill != Refill::Done
    }

    /// Whether the pass that was begun has to start with the first again.
    pub(super) fn starts_anew(&self) -> bool {
        self.refill == Refill::Start
    }

    /// The next ones to try, in order: without room only those that have a guard. `None`: nothing has changed since all were tried.
    pub(super) fn begin(&mut self, room: usize) -> Option<Vec<Rank>> {
        let start = match std::mem::take(&mut self.refill) {
            Refill::Done => return None,
            Refill::Start => Bound::Unbounded,
            Refill::Behind(rank) => Bound::Excluded(rank),
        };
        let who = if room == 0 { &self.guarded } else { &self.all };
        let behind = who.range((start, Bound::Unbounded));
        Some(behind.take(BATCH).copied().collect())
    }

    /// All up to this one were tried; `None`: all that there are.
    pub(super) fn tried(&mut self, last: Option<Rank>, room: usize) {
        match last {
            Some(last) => self.refill = Refill::Behind(last),
            None => self.hopeless = Some(room),
        }
    }
}
