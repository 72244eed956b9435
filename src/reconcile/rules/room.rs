//! A table that is full in the middle of a change: a replacement needs a free slot, a new bucket set stands beside the old one.
//!
//! It is relieved by taking out a prefix whose packets go to the kernel then: one that goes anyway, else the shortest. That prefix is
//! held back until nothing else lacks room. Where no prefix is in, refused admission goes, then what an earlier run has left, from its
//! end, then what prefixes need.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::books::{RouteAt, whole};
use super::{Item, RuleEntry, RuleTable, RuleWrite, order};
use crate::model::{Chain, Prefix, Timestamp};
use crate::plan::RuleKey;
use crate::reconcile::{Failure, OpClass, Remedy, remedy};

impl RuleTable {
    /// Whether something is still wished that there was no room for.
    pub(super) fn has_refused_for_room(&self) -> bool {
        let wished = |item: &Item| {
            self.find(*item).is_some_and(|entry| {
                let full = |failure: &Failure| {
                    remedy(OpClass::RuleCreate, failure.refusal.errno) == Remedy::Full
                };
                !entry.is_settled() && entry.failure.as_ref().is_some_and(full)
            })
        };
        self.tight && self.failing.iter().any(wished)
    }

    /// As soon as there is room, before anything else takes it.
    pub(super) fn try_refused_again(&mut self) {
        self.tight = false;
        for item in &self.failing {
            let entry = self
                .index
                .get(item)
                .map(|at| &mut self.entries[*at as usize]);
            if let Some(Some((_, entry))) = entry
                && let Some(failure) = &mut entry.failure
            {
                failure.due = Timestamp(0);
                self.dirty.insert(order(*item));
            }
        }
    }

    /// Takes out a prefix: one that goes anyway, if nothing shorter can capture its packets, else the shortest. (A prefix that lacks
    /// room may wait for those inside of it: to take these out in turn would never end.) What was refused for want of room is tried at
    /// once, or the next to come would take the room.
    pub(super) fn relieve(&mut self) -> Option<RuleWrite> {
        self.try_refused_again();
        let applied = |at: &u32| self.states(*at).applied.is_some();
        let wished = |at: &u32| self.states(*at).desired.is_some();
        let first = self
            .routes
            .values()
            .flat_map(|routes| routes.iter().map(move |(key, at)| (routes, *key, *at)))
            .filter(|(_, _, at)| applied(at))
            .filter(|(routes, key, at)| wished(at) || self.is_uncovered(routes, key.0))
            .map(|(_, key, at)| ((wished(&at), key.0.len(), key), at))
            .min();
        if let Some((_, at)) = first {
            return self.hold_back(at);
        }
        // No prefix is in. Whom admission leaves out, the kernel has.
        let admits =
            |item: &&Item| matches!(item, Item::Rule(RuleKey::Admit(..) | RuleKey::Entry(_)));
        let refused = self.failing.iter().find(admits).copied();
        let item = refused.or_else(|| self.hindmost_stray());
        if let Some(item) = item.filter(|item| self.find(*item).is_some_and(RuleEntry::stands)) {
            let at = *self.index.get(&item)?;
            return self.send(at, None);
        }
        let at = *self.index.get(&self.idlest()?)?;
        self.hold_back(at)
    }

    /// It goes, and comes again when nothing else lacks room.
    fn hold_back(&mut self, at: u32) -> Option<RuleWrite> {
        let (item, _) = self.entries[at as usize].as_ref()?;
        self.held_back.insert(*item);
        self.send(at, None)
    }

    /// Of what no packet needs while no prefix is in: what leads on before what it leads to, then exceptions and admission. For two lists
    /// of filter rules there is room then (`Switch::place_acl`).
    fn idlest(&self) -> Option<Item> {
        let there = self.iter().filter(|(_, entry)| entry.stands());
        let ranked = there.filter_map(|(item, _)| {
            let Item::Rule(key) = item else {
                return None;
            };
            let rank = match key {
                RuleKey::Bucket(..) => 0,
                RuleKey::Hop(..) => 1,
                RuleKey::Except(..) => 2,
                RuleKey::Admit(..) => 3,
                RuleKey::Entry(_) => 4,
                RuleKey::Acl(_) | RuleKey::Route(..) | RuleKey::Share(..) => return None,
            };
            Some((rank, Reverse(item)))
        });
        ranked.min().map(|(_, Reverse(item))| item)
    }

    /// Whether no rule of a shorter prefix is there that has these addresses.
    fn is_uncovered(&self, routes: &BTreeMap<RouteAt, u32>, prefix: Prefix) -> bool {
        let mut shorter =
            (0..prefix.len()).filter_map(|len| Prefix::masked(prefix.addr(), len).ok());
        !shorter.any(|shorter| {
            let mut rules = routes.range(whole(shorter, shorter));
            rules.any(|(_, at)| self.states(*at).present().next().is_some())
        })
    }

    /// Of the first chain behind chain 0 that has any, the one that packets meet last: what it did not take the kernel has. A filter
    /// rule may lead there that has no room to lead elsewhere.
    fn hindmost_stray(&self) -> Option<Item> {
        let mut chains = self.strays.keys();
        let chain = *chains.find(|chain| **chain != Chain::ENTRY)?;
        let (prio, handle) = self.last_stray(chain)?;
        Some(Item::Stray(chain, prio, handle))
    }
}
