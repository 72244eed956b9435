//! A table that is full in the middle of a change: a replacement needs a free slot, a new bucket set stands beside the old one.
//!
//! It is relieved by taking out the shortest prefix, whose packets go to the kernel then. That prefix is held back until nothing else
//! lacks room. Where no prefix is in, admission goes, and then what an earlier run has left, from its end.

use super::{Item, RuleTable, RuleWrite, order};
use crate::model::{Chain, Timestamp};
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

    /// Takes out the shortest prefix: nothing shorter can capture its packets. What was refused for want of room is tried at once,
    /// or the next to come would take the room.
    pub(super) fn relieve(&mut self) -> Option<RuleWrite> {
        self.try_refused_again();
        let applied = |at: &u32| self.states(*at).applied.is_some();
        let shortest = self
            .routes
            .values()
            .flatten()
            .filter(|(_, at)| applied(at))
            .map(|(key, at)| ((key.0.len(), *key), *at))
            .min();
        let Some((_, at)) = shortest else {
            // No prefix is in. Whom admission leaves out, the kernel has.
            let admits =
                |item: &&Item| matches!(item, Item::Rule(RuleKey::Admit(..) | RuleKey::Entry(_)));
            let admission = self.failing.iter().find(admits).copied();
            let item = admission.or_else(|| self.hindmost_stray())?;
            let at = *self.index.get(&item)?;
            return applied(&at).then(|| self.send(at, None)).flatten();
        };
        let (item, _) = self.entries[at as usize].as_ref()?;
        self.held_back.insert(*item);
        self.send(at, None)
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
