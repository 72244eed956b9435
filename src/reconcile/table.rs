//! A table of desired, applied and sent states for things there are few of.
//!
//! Put is idempotent; an unchanged put emits nothing; an outcome settles only the write that it belongs to (revision).
//! Knows nothing of what its keys and specs mean.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::Failure;
use crate::model::{Refusal, Timestamp};

/// What to do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<S> {
    /// Create or replace.
    Put(S),
    /// Remove.
    Delete,
}

/// The states of one key.
#[derive(Debug, Clone)]
pub struct Entry<S> {
    /// What we want.
    pub desired: Option<S>,
    /// What is there, as far as we know.
    pub applied: Option<S>,
    /// What the write on its way brings.
    pub sent: Option<Option<S>>,
    /// The last refusal.
    pub failure: Option<Failure>,
    revision: u32,
    dirty: bool,
}

impl<S> Default for Entry<S> {
    fn default() -> Self {
        Self {
            desired: None,
            applied: None,
            sent: None,
            failure: None,
            revision: 0,
            dirty: false,
        }
    }
}

/// A write that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed<K, S> {
    /// Of what.
    pub key: K,
    /// What it was.
    pub action: Action<S>,
}

/// The table.
#[derive(Debug)]
pub struct Table<K, S> {
    slots: Vec<Option<(K, Entry<S>)>>,
    free: Vec<u32>,
    index: FxHashMap<K, u32>,
    dirty: VecDeque<u32>,
    retries: usize,
    /// Survives entries, so that an outcome of a forgotten entry never settles its successor in the same place.
    revision: u32,
    changes: u64,
}

impl<K, S> Default for Table<K, S> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: FxHashMap::default(),
            dirty: VecDeque::new(),
            retries: 0,
            revision: 0,
            changes: 0,
        }
    }
}

impl<K: Copy + Eq + Hash, S: Clone + PartialEq> Table<K, S> {
    /// Whether nothing is wanted, there, or on its way.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Another number than before when an entry may have changed.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// An entry.
    pub fn get(&self, key: K) -> Option<&Entry<S>> {
        let (_, entry) = self.slots[*self.index.get(&key)? as usize].as_ref()?;
        Some(entry)
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (K, &Entry<S>)> {
        self.slots
            .iter()
            .flatten()
            .map(|(key, entry)| (*key, entry))
    }

    /// Sets the wish for a key.
    pub fn want(&mut self, key: K, desired: Option<S>) {
        if desired.is_none() && !self.index.contains_key(&key) {
            return;
        }
        let (at, entry) = self.entry(key);
        if entry.desired != desired {
            entry.desired = desired;
            if entry.failure.take().is_some() {
                self.retries -= 1;
            }
            self.mark(at);
        }
    }

    /// Notes what is there, unless a write on its way will say so itself.
    pub fn observe(&mut self, key: K, applied: Option<S>) {
        if applied.is_none() && !self.index.contains_key(&key) {
            return;
        }
        let (at, entry) = self.entry(key);
        if entry.sent.is_none() && entry.applied != applied {
            entry.applied = applied;
            self.mark(at);
        }
    }

    /// Looks at a key again, and no longer waits for its retry.
    pub fn touch(&mut self, key: K) {
        if let Some(&at) = self.index.get(&key) {
            if let Some((_, entry)) = &mut self.slots[at as usize]
                && entry.failure.take().is_some()
            {
                self.retries -= 1;
            }
            self.mark(at);
        }
    }

    /// Forgets a key, whatever is on its way.
    pub fn forget(&mut self, key: K) {
        if let Some(at) = self.index.remove(&key) {
            self.changes += 1;
            if let Some((_, entry)) = self.slots[at as usize].take()
                && entry.failure.is_some()
            {
                self.retries -= 1;
            }
            self.free.push(at);
        }
    }

    /// Keys of which something is wanted while nothing is known to be there.
    pub fn unsettled(&self) -> impl Iterator<Item = K> + '_ {
        self.iter()
            .filter(|(_, entry)| entry.desired.is_some() && entry.applied.is_none())
            .map(|(key, _)| key)
    }

    /// Whether something is to be written.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether the write that this outcome belongs to is a removal.
    pub fn sent_is_delete(&self, at: u32, revision: u32) -> bool {
        self.slots
            .get(at as usize)
            .and_then(Option::as_ref)
            .is_some_and(|(_, entry)| entry.revision == revision && entry.sent == Some(None))
    }

    /// Hands out writes in the order of their wishes, at most `budget`. `allow` may put a write off; it is offered again
    /// at the next call. Returns how many were handed out.
    pub fn poll(
        &mut self,
        now: Timestamp,
        budget: usize,
        mut allow: impl FnMut(K, &Action<&S>) -> bool,
        mut out: impl FnMut(u32, u32, K, Action<S>),
    ) -> usize {
        let mut handed = 0;
        for _ in 0..self.dirty.len() {
            if handed == budget {
                break;
            }
            let Some(at) = self.dirty.pop_front() else {
                break;
            };
            let Some((key, entry)) = &mut self.slots[at as usize] else {
                continue;
            };
            let key = *key;
            entry.dirty = false;
            // A write on its way marks the entry again when it comes back.
            if entry.sent.is_some() || entry.failure.as_ref().is_some_and(|f| f.due > now) {
                continue;
            }
            if entry.desired == entry.applied {
                if entry.desired.is_none() {
                    self.forget(key);
                }
                continue;
            }
            let action = entry.desired.as_ref().map_or(Action::Delete, Action::Put);
            if !allow(key, &action) {
                entry.dirty = true;
                self.dirty.push_back(at);
                continue;
            }
            let action = match action {
                Action::Put(spec) => Action::Put(spec.clone()),
                Action::Delete => Action::Delete,
            };
            self.revision = self.revision.wrapping_add(1);
            entry.revision = self.revision;
            entry.sent = Some(entry.desired.clone());
            out(at, entry.revision, key, action);
            handed += 1;
        }
        handed
    }

    /// A write came back: done, or refused. `None` when it belongs to an entry that was forgotten.
    pub fn complete(
        &mut self,
        at: u32,
        revision: u32,
        result: Result<(), Refusal>,
        now: Timestamp,
    ) -> Option<Completed<K, S>> {
        let (key, entry) = self.slots.get_mut(at as usize)?.as_mut()?;
        if entry.revision != revision {
            return None;
        }
        let sent = entry.sent.take()?;
        let key = *key;
        let had_failure = entry.failure.is_some();
        match result {
            Ok(()) => {
                entry.applied.clone_from(&sent);
                entry.failure = None;
            }
            Err(refusal) => {
                entry.failure = Some(Failure::next(entry.failure.as_ref(), refusal, now));
            }
        }
        match (had_failure, entry.failure.is_some()) {
            (false, true) => self.retries += 1,
            (true, false) => self.retries -= 1,
            _ => {}
        }
        self.mark(at);
        Some(Completed {
            key,
            action: sent.map_or(Action::Delete, Action::Put),
        })
    }

    /// Puts what is due again on the list; gives the next due time.
    pub fn poll_retries(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.retries == 0 {
            return None;
        }
        let mut next = None;
        let mut due = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(failure) = slot.as_ref().and_then(|(_, e)| e.failure.as_ref()) else {
                continue;
            };
            if failure.due <= now {
                due.push(at as u32);
            } else {
                next = Some(next.map_or(failure.due, |n: Timestamp| n.min(failure.due)));
            }
        }
        for at in due {
            self.mark(at);
        }
        next
    }

    fn entry(&mut self, key: K) -> (u32, &mut Entry<S>) {
        let at = if let Some(&at) = self.index.get(&key) {
            at
        } else {
            let at = if let Some(at) = self.free.pop() {
                at
            } else {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            };
            self.slots[at as usize] = Some((key, Entry::default()));
            self.index.insert(key, at);
            at
        };
        match &mut self.slots[at as usize] {
            Some((_, entry)) => (at, entry),
            None => unreachable!("the entry was just made"),
        }
    }

    fn mark(&mut self, at: u32) {
        self.changes += 1;
        if let Some((_, entry)) = &mut self.slots[at as usize]
            && !entry.dirty
        {
            entry.dirty = true;
            self.dirty.push_back(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Errno;

    fn writes(table: &mut Table<u8, char>, now: u64) -> Vec<(u32, u32, u8, Action<char>)> {
        let mut out = Vec::new();
        table.poll(
            Timestamp(now),
            10,
            |_, _| true,
            |a, r, k, action| out.push((a, r, k, action)),
        );
        out
    }

    #[test]
    fn applying_settles_and_again_does_nothing() {
        let mut t = Table::default();
        t.want(1, Some('a'));
        let w = writes(&mut t, 0);
        assert_eq!((w.len(), w[0].3), (1, Action::Put('a')));
        assert!(writes(&mut t, 0).is_empty(), "one write of a key at a time");
        t.complete(w[0].0, w[0].1, Ok(()), Timestamp(0));
        t.want(1, Some('a'));
        assert!(writes(&mut t, 0).is_empty());
    }

    #[test]
    fn a_change_during_a_write_is_written_after_it() {
        let mut t = Table::default();
        t.want(1, Some('a'));
        let w = writes(&mut t, 0);
        t.want(1, Some('b'));
        assert!(writes(&mut t, 0).is_empty());
        t.complete(w[0].0, w[0].1, Ok(()), Timestamp(0));
        assert_eq!(writes(&mut t, 0)[0].3, Action::Put('b'));
    }

    #[test]
    fn an_outcome_of_a_forgotten_entry_settles_nothing() {
        let mut t = Table::default();
        t.want(1, Some('a'));
        let old = writes(&mut t, 0);
        t.forget(1);
        t.want(2, Some('b'));
        let new = writes(&mut t, 0);
        assert_eq!(old[0].0, new[0].0, "same place");
        assert!(
            t.complete(old[0].0, old[0].1, Ok(()), Timestamp(0))
                .is_none()
        );
        assert!(
            t.complete(new[0].0, new[0].1, Ok(()), Timestamp(0))
                .is_some()
        );
    }

    #[test]
    fn a_refusal_is_tried_again_later() {
        let mut t = Table::default();
        t.want(1, Some('a'));
        let w = writes(&mut t, 0);
        let refusal = Refusal {
            errno: Errno(19),
            text: None,
        };
        t.complete(w[0].0, w[0].1, Err(refusal), Timestamp(0));
        assert!(writes(&mut t, 1).is_empty());
        let due = t.poll_retries(Timestamp(1)).unwrap();
        assert_eq!(t.poll_retries(due), None);
        assert_eq!(writes(&mut t, due.0).len(), 1);
    }
}
