//! The order of filter rules: no packet that they drop is ever forwarded by the hardware, nor let through to the kernel while a list
//! takes the place of another.
//!
//! ```text
//! put      from first to last: what is before it stands, so no packet meets a rule whose exception is missing
//! remove   from last to first, once all that is wished stands, so both lists hold until the new one is whole
//! open     what forwards (admission, in the flat layout prefixes) waits for all of them, and goes before any of them
//! ```
//!
//! A drop or trap need not wait for drops before it: what those would drop is dropped, or the kernel's. So a refused drop keeps nothing
//! out but what forwards. Why the slots of two lists can be mixed says `plan::acl`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Item, RuleEntry, RuleTable};
use crate::model::{Chain, RuleAction};
use crate::plan::{AclKey, PlannedRule, RuleKey};

/// Books of a block's filter rules.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// Wished and not there, and whether they drop.
    missing: BTreeMap<AclKey, bool>,
    /// There, and to go.
    going: BTreeSet<AclKey>,
    /// Rules that let packets on to the routes, there and to go.
    closing: usize,
}

/// What an entry is in these books.
#[derive(Debug, Clone, Copy)]
pub(super) enum FilterBook {
    Missing(AclKey, bool),
    Going(AclKey),
    Closing,
    Nothing,
}

impl FilterBook {
    pub(super) fn of(item: Item, entry: &RuleEntry) -> Self {
        let goes = entry.desired.is_none() && entry.present().next().is_some();
        match item {
            Item::Rule(RuleKey::Acl(key)) if entry.is_missing() => {
                let drops = entry.desired.as_ref().is_some_and(|rule| drops(rule));
                Self::Missing(key, drops)
            }
            Item::Rule(RuleKey::Acl(key)) if goes => Self::Going(key),
            Item::Rule(RuleKey::Admit(..) | RuleKey::Entry(_)) if goes => Self::Closing,
            Item::Rule(RuleKey::Route(..) | RuleKey::Share(..)) if goes => {
                let in_front = |rule: &PlannedRule| rule.chain == Chain::ENTRY;
                if entry.present().any(|rule| in_front(rule)) {
                    Self::Closing
                } else {
                    Self::Nothing
                }
            }
            _ => Self::Nothing,
        }
    }
}

impl Filters {
    pub(super) fn book(&mut self, entry: FilterBook, enter: bool) {
        match entry {
            FilterBook::Missing(key, drops) if enter => {
                self.missing.insert(key, drops);
            }
            FilterBook::Missing(key, _) => {
                self.missing.remove(&key);
            }
            FilterBook::Going(key) if enter => {
                self.going.insert(key);
            }
            FilterBook::Going(key) => {
                self.going.remove(&key);
            }
            FilterBook::Closing if enter => self.closing += 1,
            FilterBook::Closing => self.closing -= 1,
            FilterBook::Nothing => {}
        }
    }

    /// Whether all that are wished are there.
    pub(super) fn are_whole(&self) -> bool {
        self.missing.is_empty()
    }

    pub(super) fn may_put(&self, key: AclKey, rule: &PlannedRule) -> bool {
        let stops = !matches!(rule.rule.actions.last(), Some(RuleAction::Goto(_)));
        let mut before = self
            .missing
            .iter()
            .take_while(|(other, _)| other.slot < key.slot);
        before.all(|(_, drops)| *drops && stops)
    }

    pub(super) fn may_delete(&self, key: AclKey) -> bool {
        let last = self.going.last().is_none_or(|last| last.slot <= key.slot);
        self.closing == 0 && last && self.are_whole()
    }
}

fn drops(rule: &PlannedRule) -> bool {
    rule.rule.actions.last() == Some(&RuleAction::Drop)
}

impl RuleTable {
    /// Whether a filter rule is refused that should come, or go.
    pub fn fails_to_filter(&self) -> bool {
        let filters = self.failing.iter().map_while(|item| match item {
            Item::Rule(RuleKey::Acl(_)) => self.find(*item),
            _ => None,
        });
        let mut open = filters.filter(|entry| entry.desired != entry.applied);
        open.next().is_some()
    }

    /// Whether all filter rules that are wished are there.
    pub fn filters(&self) -> bool {
        self.filters.are_whole()
    }

    /// The filter rules, wished or there.
    pub fn acl(&self) -> impl Iterator<Item = (AclKey, &RuleEntry)> {
        self.iter().filter_map(|(item, entry)| match item {
            Item::Rule(RuleKey::Acl(key)) => Some((key, entry)),
            _ => None,
        })
    }
}
