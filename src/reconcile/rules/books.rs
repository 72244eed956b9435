//! The entries of a block's rules, and the books that follow from them: what leads to a chain, what stands in it, the prefixes of a
//! table in their order, what is wished and not there.
//!
//! Every change of an entry goes through `change`, which takes it out of the books and puts it back as it is then. So they
//! always agree with the entries, and a gate is a look-up or a short range of a map.

use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::ops::RangeInclusive;

use rustc_hash::FxHashMap;

use super::filters::FilterBook;
use super::{Item, RuleEntry, RuleTable};
use crate::model::{Chain, Family, Framing, Prefix, RouteKey, RuleAction, TableId};
use crate::plan::RuleKey;

pub(super) type TableKey = (Framing, TableId, Family);

/// A rule of a prefix: which, and of how many bits which bucket.
pub(super) type RouteAt = (Prefix, u8, u16);

/// The table of a prefix.
pub(super) const fn table_of(framing: Framing, route: RouteKey) -> TableKey {
    (framing, route.table, route.prefix.family())
}

const fn route_at(key: RuleKey) -> Option<(TableKey, RouteAt)> {
    let (framing, route, bits, n) = match key {
        RuleKey::Route(framing, route) => (framing, route, 0, 0),
        RuleKey::Share(route, bits, n) => (Framing::Untagged, route, bits, n),
        _ => return None,
    };
    Some((table_of(framing, route), (route.prefix, bits, n)))
}

/// All rules of the prefixes from one to another.
pub(super) const fn whole(from: Prefix, to: Prefix) -> RangeInclusive<RouteAt> {
    (from, 0, 0)..=(to, u8::MAX, u16::MAX)
}

impl RuleTable {
    pub(super) fn states(&self, at: u32) -> &RuleEntry {
        match &self.entries[at as usize] {
            Some((_, entry)) => entry,
            None => unreachable!("the index names used entries only"),
        }
    }

    pub(super) fn entry(&mut self, item: Item) -> u32 {
        if let Some(&at) = self.index.get(&item) {
            return at;
        }
        let fresh = Some((item, RuleEntry::default()));
        let at = if let Some(at) = self.free.pop() {
            self.entries[at as usize] = fresh;
            at
        } else {
            self.entries.push(fresh);
            self.entries.len() as u32 - 1
        };
        self.index.insert(item, at);
        at
    }

    pub(super) fn forget(&mut self, at: u32) {
        if let Some((item, entry)) = self.entries[at as usize].take() {
            self.index.remove(&item);
            if let Some(handle) = entry.handle {
                self.handles.remove(&(handle, at));
            }
            self.free.push(at);
        }
    }

    /// Changes an entry and keeps the books.
    pub(super) fn change(&mut self, at: u32, change: impl FnOnce(&mut RuleEntry)) {
        self.book(at, false);
        if let Some((_, entry)) = &mut self.entries[at as usize] {
            let before = entry.handle;
            change(entry);
            if before != entry.handle {
                if let Some(before) = before {
                    self.handles.remove(&(before, at));
                }
                self.handles.extend(entry.handle.map(|handle| (handle, at)));
            }
        }
        self.book(at, true);
    }

    fn book(&mut self, at: u32, enter: bool) {
        let Some((item, entry)) = &self.entries[at as usize] else {
            return;
        };
        let item = *item;
        let count = |map: &mut FxHashMap<Chain, usize>, chain| book_one(map, chain, enter);
        for rule in entry.present() {
            if let Some(RuleAction::Goto(chain)) = rule.rule.actions.last() {
                count(&mut self.leading_to, *chain);
            }
            if enter {
                self.held += 1;
            } else {
                self.held -= 1;
            }
        }
        for rule in entry.present().chain(&entry.desired) {
            count(&mut self.standing_in, rule.chain);
        }
        if entry.sent.is_some() {
            if enter {
                self.in_flight += 1;
            } else {
                self.in_flight -= 1;
            }
        }
        let (missing, empty, wished) = (
            entry.is_missing(),
            entry.is_empty(),
            entry.desired.is_some(),
        );
        if let Item::Rule(key) = item
            && let Some((table, key)) = route_at(key)
        {
            if !empty {
                let routes = self.routes.entry(table).or_default();
                if enter {
                    routes.insert(key, at);
                } else {
                    routes.remove(&key);
                    if routes.is_empty() {
                        self.routes.remove(&table);
                    }
                }
            }
            if missing {
                let set = self.missing_routes.entry(table).or_default();
                if enter {
                    set.insert(key);
                } else {
                    set.remove(&key);
                }
            }
        }
        let filter = FilterBook::of(item, entry);
        match item {
            Item::Stray(chain, prio, handle) => {
                let strays = self.strays.entry(chain).or_default();
                if empty || !enter {
                    strays.remove(&(prio, handle));
                } else {
                    strays.insert((prio, handle));
                }
                if strays.is_empty() {
                    self.strays.remove(&chain);
                }
            }
            Item::Rule(RuleKey::Except(framing, table, family, _)) if missing => {
                book_one(
                    &mut self.missing_exceptions,
                    (framing, table, family),
                    enter,
                );
            }
            Item::Rule(RuleKey::Bucket(framing, group, ..)) if wished => {
                let counts = self.buckets.entry((framing, group)).or_default();
                if enter {
                    counts.0 += 1;
                    counts.1 += usize::from(missing);
                } else {
                    counts.0 -= 1;
                    counts.1 -= usize::from(missing);
                    if counts.0 == 0 {
                        self.buckets.remove(&(framing, group));
                    }
                }
            }
            Item::Rule(_) => {}
        }
        self.filters.book(filter, enter);
    }
}

fn book_one<K: Hash + Eq>(map: &mut FxHashMap<K, usize>, key: K, enter: bool) {
    if enter {
        *map.entry(key).or_default() += 1;
        return;
    }
    if let Entry::Occupied(mut count) = map.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
