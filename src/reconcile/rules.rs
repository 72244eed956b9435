//! The rules of one block: desired, applied and sent, and in which order they may be written.
//!
//! Every step is safe by itself (law 1), whatever fails, because a write waits for the acknowledgement of what it rests on:
//!
//! | write | waits for |
//! | --- | --- |
//! | a bucket | the hop it leads to |
//! | a prefix that forwards or drops | its target, the exceptions of its table, and every rule that is wished inside of it |
//! | a filter rule (`filters`) | the filter rules before it |
//! | admission and the entry (in the flat layout, a prefix that forwards or drops) | all filter rules |
//! | a guard, an exception, a hop | nothing |
//! | removal of a filter rule | all filter rules that are wished, those behind it that go too, and whatever else of chain 0 or admission goes |
//! | removal of a prefix | the next shorter prefix that has a rule, which must be as it is wished, and what is wished inside of it |
//! | removal of a hop, bucket or stray | that no rule leads there (but see `room`); a bucket set of a group that lives, that the new set is complete |
//! | removal of an exception | the other exceptions that are wished; of a table that goes, its prefixes |
//!
//! In the flat layout, where a prefix has a rule for each bucket, its rules are a set: it is there when all of them are, and when it
//! takes the place of another set (or of one rule) that goes as soon as the new one is there. Strays of chain 0 go from the last
//! priority to the first, so that none lets packets through to those behind it.
//!
//! What comes in untagged and what comes in tagged meets different chains (`plan::layout`): to all this they are different tables,
//! groups and hops.
//!
//! So rules appear from long to short prefixes and vanish from short to long. Known capacity is kept at every moment, what is on its
//! way included (law 4); a replacement counts twice while it is; `room` relieves a table that is full. Knows what rules are for
//! ([`RuleKey`]) and nothing of tc.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use self::books::{RouteAt, TableKey, table_of, whole};
use self::filters::Filters;
use super::Failure;
use super::remedy::{OpClass, Remedy, remedy};
use crate::model::{
    Block, Chain, EtherProto, Framing, Handle, InHardware, Prio, Refusal, RouteKey, RuleCounters,
    RulePlace, Timestamp,
};
use crate::plan::{Chains, GroupKey, PlannedRule, RuleKey};

mod books;
mod filters;
mod gates;
mod room;

/// What stands, or should stand, in the block. A rule that bears our mark but that nothing here has made is a stray.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Item {
    /// A rule with a meaning.
    Rule(RuleKey),
    /// Found in the block; to be removed.
    Stray(Chain, Prio, Handle),
}

/// A write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleWrite {
    /// Its entry.
    pub index: u32,
    /// Its revision.
    pub revision: u32,
    /// Where.
    pub place: RulePlace,
    /// What.
    pub kind: RuleWriteKind,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleWriteKind {
    /// A rule, new or in place.
    Put {
        /// The rule.
        rule: Arc<PlannedRule>,
        /// Over one of ours.
        replace: bool,
    },
    /// A removal.
    Delete(EtherProto),
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCompleted {
    /// Of what.
    pub item: Item,
    /// What to do about a refusal.
    pub refused: Option<(Remedy, Refusal)>,
}

/// A rule and its states.
#[derive(Debug, Clone, Default)]
pub struct RuleEntry {
    /// What we want.
    pub desired: Option<Arc<PlannedRule>>,
    /// What is there, as far as we know.
    pub applied: Option<Arc<PlannedRule>>,
    /// What the write on its way brings.
    pub sent: Option<Option<Arc<PlannedRule>>>,
    /// The last refusal.
    pub failure: Option<Failure>,
    /// What the driver said of the applied one.
    pub hardware: InHardware,
    /// As last read.
    pub counters: RuleCounters,
    /// Its number.
    pub handle: Option<Handle>,
    revision: u32,
}

impl RuleEntry {
    fn is_settled(&self) -> bool {
        self.sent.is_none() && self.desired == self.applied
    }

    /// Whether it is there, and no removal is on its way.
    fn stands(&self) -> bool {
        self.applied.is_some() && self.sent != Some(None)
    }

    fn is_missing(&self) -> bool {
        self.desired.is_some() && !self.stands()
    }

    /// Whether it is neither there nor on its way.
    pub const fn is_absent(&self) -> bool {
        self.applied.is_none() && self.sent.is_none()
    }

    fn is_empty(&self) -> bool {
        self.desired.is_none() && self.is_absent()
    }

    /// Whether it stands elsewhere than it should: then it goes before it comes.
    pub fn is_moved(&self) -> bool {
        match (&self.desired, &self.applied) {
            (Some(desired), Some(applied)) => {
                (desired.chain, desired.prio) != (applied.chain, applied.prio)
            }
            _ => false,
        }
    }

    /// What is, or may be, in the block.
    fn present(&self) -> impl Iterator<Item = &Arc<PlannedRule>> {
        let sent = self.sent.as_ref().and_then(Option::as_ref);
        self.applied.iter().chain(sent)
    }
}

/// The order in which writes are tried: what others rest on first, long prefixes before short.
type Order = (u8, std::cmp::Reverse<u8>, Item);

fn order(item: Item) -> Order {
    let (phase, len) = match item {
        Item::Rule(RuleKey::Acl(_)) => (0, 0),
        Item::Rule(RuleKey::Hop(..)) => (1, 0),
        Item::Rule(RuleKey::Bucket(..)) => (2, 0),
        Item::Rule(RuleKey::Except(..)) => (3, 0),
        Item::Rule(RuleKey::Route(_, key) | RuleKey::Share(key, ..)) => (4, key.prefix.len()),
        Item::Rule(RuleKey::Admit(..)) => (5, 0),
        Item::Rule(RuleKey::Entry(_)) => (6, 0),
        Item::Stray(..) => (7, 0),
    };
    (phase, std::cmp::Reverse(len), item)
}

/// The rules of a block.
#[derive(Debug)]
pub struct RuleTable {
    block: Block,
    entries: Vec<Option<(Item, RuleEntry)>>,
    free: Vec<u32>,
    index: FxHashMap<Item, u32>,
    /// By number, which rules that were found may share.
    handles: BTreeSet<(Handle, u32)>,
    dirty: BTreeSet<Order>,
    failing: BTreeSet<Item>,
    /// Taken out to make room, and not put back before nothing else lacks room.
    held_back: BTreeSet<Item>,
    /// Something was refused for want of room.
    tight: bool,
    in_flight: usize,
    revision: u32,
    next_handle: u32,
    // Books that follow from the entries; `leave` and `enter` keep them.
    held: usize,
    leading_to: FxHashMap<Chain, usize>,
    standing_in: FxHashMap<Chain, usize>,
    routes: FxHashMap<TableKey, BTreeMap<RouteAt, u32>>,
    missing_routes: FxHashMap<TableKey, BTreeSet<RouteAt>>,
    missing_exceptions: FxHashMap<TableKey, usize>,
    /// Of each group: wished buckets, and those of them that are not there yet.
    buckets: FxHashMap<(Framing, GroupKey), (usize, usize)>,
    /// Of each chain, from first to last.
    strays: BTreeMap<Chain, BTreeSet<(Prio, Handle)>>,
    filters: Filters,
}

impl RuleTable {
    /// Of a block in which nothing of ours is known yet.
    pub fn new(block: Block) -> Self {
        Self {
            block,
            entries: Vec::new(),
            free: Vec::new(),
            index: FxHashMap::default(),
            handles: BTreeSet::new(),
            dirty: BTreeSet::new(),
            failing: BTreeSet::new(),
            held_back: BTreeSet::new(),
            tight: false,
            in_flight: 0,
            revision: 0,
            next_handle: 1,
            held: 0,
            leading_to: FxHashMap::default(),
            standing_in: FxHashMap::default(),
            routes: FxHashMap::default(),
            missing_routes: FxHashMap::default(),
            missing_exceptions: FxHashMap::default(),
            buckets: FxHashMap::default(),
            strays: BTreeMap::new(),
            filters: Filters::default(),
        }
    }

    /// The block.
    pub const fn block(&self) -> Block {
        self.block
    }

    /// A rule's states.
    pub fn get(&self, key: RuleKey) -> Option<&RuleEntry> {
        self.find(Item::Rule(key))
    }

    /// The same for a stray too.
    pub fn find(&self, item: Item) -> Option<&RuleEntry> {
        let at = *self.index.get(&item)?;
        self.entries[at as usize].as_ref().map(|(_, entry)| entry)
    }

    /// Everything that is wished, there or on its way. What is none of these any more is forgotten when it is its turn.
    pub fn iter(&self) -> impl Iterator<Item = (Item, &RuleEntry)> {
        let entries = self.entries.iter().flatten();
        entries
            .filter(|(_, entry)| !entry.is_empty())
            .map(|(item, entry)| (*item, entry))
    }

    /// The rules of a prefix, wished or there, for packets that come in in that form.
    pub fn rules_of(
        &self,
        framing: Framing,
        route: RouteKey,
    ) -> impl Iterator<Item = (RuleKey, &RuleEntry)> {
        let routes = self.routes.get(&table_of(framing, route));
        routes
            .into_iter()
            .flat_map(move |routes| routes.range(whole(route.prefix, route.prefix)))
            .map(move |(&(_, bits, n), at)| {
                let key = match bits {
                    0 => RuleKey::Route(framing, route),
                    _ => RuleKey::Share(route, bits, n),
                };
                (key, self.states(*at))
            })
    }

    /// What `wanted` holds for, in the order in which writes are tried.
    pub fn in_order(&self, wanted: impl Fn(&RuleEntry) -> bool) -> Vec<Item> {
        let mut items: Vec<Item> = self
            .iter()
            .filter(|(_, entry)| wanted(entry))
            .map(|(item, _)| item)
            .collect();
        items.sort_unstable_by_key(|item| order(*item));
        items
    }

    /// Rules that are there or on their way, replacements counted twice.
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Whether everything is as wished.
    pub fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.iter().all(|(_, entry)| entry.is_settled())
    }

    /// Whether something is to be written.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether a refused write is not due again yet.
    pub fn waits_to_retry(&self, now: Timestamp) -> bool {
        let failure = |item: &Item| self.find(*item)?.failure.as_ref();
        self.failing
            .iter()
            .filter_map(failure)
            .any(|failure| failure.due > now)
    }

    /// Whether no rule stands in a chain or leads to it, nor is wished to stand there.
    pub fn is_idle(&self, chain: Chain) -> bool {
        !self.leading_to.contains_key(&chain) && !self.standing_in.contains_key(&chain)
    }

    /// Sets the wish for a rule.
    pub fn want(&mut self, key: RuleKey, desired: Option<PlannedRule>) {
        let item = Item::Rule(key);
        if desired.is_none() && !self.index.contains_key(&item) {
            return;
        }
        let at = self.entry(item);
        let same = self.states(at).desired.as_deref() == desired.as_ref();
        if !same {
            self.change(at, |entry| {
                entry.desired = desired.map(Arc::new);
                entry.failure = None;
            });
            self.failing.remove(&item);
            self.dirty.insert(order(item));
        }
    }

    /// Takes over what an earlier run, or another hand, has left in the block.
    pub fn observe(
        &mut self,
        item: Item,
        handle: Handle,
        rule: PlannedRule,
        hardware: InHardware,
        counters: RuleCounters,
    ) {
        let at = self.entry(item);
        self.next_handle = self.next_handle.max(handle.get().saturating_add(1));
        self.change(at, |entry| {
            entry.counters = counters;
            if entry.sent.is_none() {
                entry.applied = Some(Arc::new(rule));
                entry.handle = Some(handle);
                entry.hardware = hardware;
            }
        });
        self.dirty.insert(order(item));
    }

    /// Somebody removed it.
    pub fn lose(&mut self, item: Item) -> bool {
        let Some(&at) = self.index.get(&item) else {
            return false;
        };
        let lost = self.states(at).sent.is_none() && self.states(at).applied.is_some();
        if lost {
            self.change(at, |entry| entry.applied = None);
            self.dirty.insert(order(item));
        }
        lost
    }

    /// The block is gone with everything in it, whatever is on its way.
    pub fn lose_all(&mut self) {
        for at in 0..self.entries.len() as u32 {
            if self.entries[at as usize].is_none() {
                continue;
            }
            self.change(at, |entry| {
                entry.applied = None;
                entry.sent = None;
                entry.failure = None;
                entry.hardware = InHardware::default();
            });
            self.revision = self.revision.wrapping_add(1);
            if let Some((item, entry)) = &mut self.entries[at as usize] {
                // What is on its way was for the old block.
                entry.revision = self.revision;
                self.failing.remove(item);
                self.dirty.insert(order(*item));
            }
        }
    }

    /// The item at a place, as far as it is known.
    pub fn item_at(&self, place: RulePlace) -> Option<Item> {
        self.handles
            .range((place.handle, 0)..=(place.handle, u32::MAX))
            .filter_map(|(_, at)| self.entries[*at as usize].as_ref())
            .find(|(_, entry)| {
                entry
                    .present()
                    .any(|rule| (rule.chain, rule.prio) == (place.chain, place.prio))
            })
            .map(|(item, _)| *item)
    }

    /// Tries again what is due.
    pub fn poll_retries(&mut self, now: Timestamp) {
        for item in &self.failing {
            if let Some(entry) = self.find(*item)
                && entry
                    .failure
                    .as_ref()
                    .is_some_and(|failure| failure.due <= now)
            {
                self.dirty.insert(order(*item));
            }
        }
    }

    /// Refused writes that are tried again.
    pub fn failing(&self) -> impl Iterator<Item = (Item, &Failure)> {
        let failure = |item: &Item| Some((*item, self.find(*item)?.failure.as_ref()?));
        self.failing.iter().filter_map(failure)
    }

    /// When [`Self::poll_retries`] has something to do.
    pub fn next_retry(&self) -> Option<Timestamp> {
        let due = |item: &Item| Some(self.find(*item)?.failure.as_ref()?.due);
        self.failing.iter().filter_map(due).min()
    }

    /// Hands out writes, at most `budget`, while no more than `most` rules are held.
    pub fn poll(
        &mut self,
        now: Timestamp,
        chains: &Chains,
        budget: usize,
        most: usize,
        out: &mut Vec<RuleWrite>,
    ) {
        let (mut handed, mut lacks_room) = (0, false);
        let mut next = self.dirty.first().copied();
        while let Some(candidate) = next.filter(|_| handed < budget) {
            let rest = (Bound::Excluded(candidate), Bound::Unbounded);
            next = self.dirty.range(rest).next().copied();
            let item = candidate.2;
            let Some(&at) = self.index.get(&item) else {
                self.dirty.remove(&candidate);
                continue;
            };
            let entry = self.states(at);
            let waits = entry
                .failure
                .as_ref()
                .is_some_and(|failure| failure.due > now);
            // A write on its way makes it dirty again when it comes back, a retry when it is due.
            if entry.sent.is_some() || waits {
                self.dirty.remove(&candidate);
                continue;
            }
            if entry.desired == entry.applied {
                let empty = entry.is_empty();
                self.dirty.remove(&candidate);
                if empty {
                    self.forget(at);
                }
                continue;
            }
            let moved = entry.is_moved();
            let write = if let Some(rule) = entry.desired.clone().filter(|_| !moved) {
                if self.held_back.contains(&item) || !self.may_put(item, &rule, chains) {
                    continue;
                }
                if self.held >= most {
                    lacks_room = true;
                    continue;
                }
                Some(rule)
            } else {
                if !self.may_delete(item, chains) {
                    continue;
                }
                None
            };
            self.dirty.remove(&candidate);
            let Some(write) = self.send(at, write) else {
                continue;
            };
            out.push(write);
            handed += 1;
        }
        if handed == 0 && budget > 0 && self.in_flight == 0 {
            if !lacks_room && !self.has_refused_for_room() {
                self.tight = false;
                // At once: nobody else may come to ask for them.
                if !std::mem::take(&mut self.held_back).is_empty() {
                    self.poll(now, chains, budget, most, out);
                }
            } else if !lacks_room && self.held < most {
                // Meanwhile others went.
                self.try_refused_again();
                self.poll(now, chains, budget, most, out);
            } else if let Some(write) = self.relieve() {
                out.push(write);
            }
        }
    }

    /// A write came back. `None` when it belongs to something that was forgotten or lost.
    pub fn complete(
        &mut self,
        at: u32,
        revision: u32,
        result: Result<InHardware, Refusal>,
        now: Timestamp,
    ) -> Option<RuleCompleted> {
        let (item, entry) = self.entries.get(at as usize)?.as_ref()?;
        if entry.revision != revision {
            return None;
        }
        let item = *item;
        let sent = entry.sent.clone()?;
        let class = match (&sent, &entry.applied) {
            (Some(_), None) => OpClass::RuleCreate,
            (Some(_), Some(_)) => OpClass::RuleReplace,
            (None, _) => OpClass::RuleDelete,
        };
        let result = match result {
            Err(refusal) => match remedy(class, refusal.errno) {
                Remedy::Done => Ok(InHardware::default()),
                other => Err((other, refusal)),
            },
            Ok(hardware) => Ok(hardware),
        };
        let refused = result.as_ref().err().cloned();
        self.tight |= refused
            .as_ref()
            .is_some_and(|(remedy, _)| *remedy == Remedy::Full);
        self.change(at, |entry| {
            entry.sent = None;
            match result {
                Ok(hardware) => {
                    entry.applied = sent;
                    entry.hardware = hardware;
                    entry.failure = None;
                }
                Err((remedy, refusal)) => {
                    // What should be replaced is not there: the next write makes it.
                    if remedy == Remedy::Recreate {
                        entry.applied = None;
                    }
                    entry.failure = Some(Failure::next(entry.failure.as_ref(), refusal, now));
                }
            }
        });
        if refused.is_some() {
            self.failing.insert(item);
        } else {
            self.failing.remove(&item);
        }
        self.dirty.insert(order(item));
        Some(RuleCompleted { item, refused })
    }

    fn send(&mut self, at: u32, write: Option<Arc<PlannedRule>>) -> Option<RuleWrite> {
        let handle = match self.states(at).handle {
            Some(handle) => handle,
            None => self.new_handle(),
        };
        self.revision = self.revision.wrapping_add(1);
        let revision = self.revision;
        let applied = self.states(at).applied.clone();
        let stands = write.as_ref().or(applied.as_ref())?.clone();
        let (chain, prio) = match &applied {
            Some(applied) => (applied.chain, applied.prio),
            None => (stands.chain, stands.prio),
        };
        self.change(at, |entry| {
            entry.sent = Some(write.clone());
            entry.handle = Some(handle);
            entry.revision = revision;
        });
        let kind = match write {
            Some(rule) => RuleWriteKind::Put {
                rule,
                replace: applied.is_some(),
            },
            None => RuleWriteKind::Delete(stands.rule.protocol),
        };
        let place = RulePlace {
            block: self.block,
            chain,
            prio,
            handle,
        };
        Some(RuleWrite {
            index: at,
            revision,
            place,
            kind,
        })
    }

    fn new_handle(&mut self) -> Handle {
        loop {
            let number = self.next_handle;
            self.next_handle = self.next_handle.checked_add(1).unwrap_or(1);
            if let Some(handle) = Handle::new(number) {
                return handle;
            }
        }
    }
}

#[cfg(test)]
mod tests;
