//! The gates: whether a rule may be written, or removed, as things stand in the block. The table in the parent module's head says
//! what each kind of rule waits for.
//!
//! Each only reads. Nothing rests on what is on its way: a rule that comes may still be refused, one that goes is as good as gone,
//! though it be wished again meanwhile. A closed gate is no failure; the write stays dirty and is tried again when something else
//! came back.

use super::books::whole;
use super::{Item, RuleEntry, RuleTable};
use crate::model::{Chain, Prefix, RouteKey, RuleAction};
use crate::plan::{ChainUse, Chains, Except, PlannedRule, RuleKey, last_inside};

impl RuleTable {
    pub(super) fn may_put(&self, item: Item, rule: &PlannedRule, chains: &Chains) -> bool {
        let Item::Rule(key) = item else {
            return false;
        };
        let target = match rule.rule.actions.last() {
            Some(RuleAction::Goto(chain)) => Some(*chain),
            _ => None,
        };
        match key {
            RuleKey::Acl(key) => self.filters.may_put(key, rule),
            RuleKey::Hop(_) | RuleKey::Except(..) => true,
            RuleKey::Admit(..) | RuleKey::Entry(_) => self.filters.are_whole(),
            RuleKey::Bucket(..) => target.is_none_or(|chain| self.is_ready(chain, chains)),
            RuleKey::Route(route) | RuleKey::Share(route, ..) => {
                let guard = matches!(
                    rule.rule.actions.last(),
                    Some(RuleAction::Trap | RuleAction::Pass)
                );
                // In chain 0 it stands right behind the filter rules.
                let filtered = rule.chain != Chain::ENTRY || self.filters.are_whole();
                guard
                    || (filtered
                        && target.is_none_or(|chain| self.is_ready(chain, chains))
                        && self.has_exceptions(route)
                        && !self.misses_inside(route))
            }
        }
    }

    pub(super) fn may_delete(&self, item: Item, chains: &Chains) -> bool {
        let leads_nowhere = |item| {
            let chain = self
                .find(item)
                .and_then(|entry| entry.applied.as_ref())
                .map(|rule| rule.chain);
            chain.is_none_or(|chain| !self.leading_to.contains_key(&chain))
        };
        match item {
            Item::Stray(Chain::ENTRY, prio, _) => {
                self.strays.last().is_none_or(|(last, _)| *last <= prio)
            }
            // In a chain that is in use again it only doubles what stands there.
            Item::Stray(chain, ..) => leads_nowhere(item) || self.is_ready(chain, chains),
            Item::Rule(RuleKey::Acl(key)) => self.strays.is_empty() && self.filters.may_delete(key),
            Item::Rule(RuleKey::Admit(..) | RuleKey::Entry(_)) => true,
            Item::Rule(RuleKey::Hop(_)) => leads_nowhere(item),
            Item::Rule(RuleKey::Bucket(group, ..)) => match self.buckets.get(&group) {
                Some((wished, 0)) if *wished > 0 => true,
                _ => leads_nowhere(item),
            },
            Item::Rule(RuleKey::Except(table, family, _)) => {
                let stays = self
                    .get(RuleKey::Except(table, family, Except::Expiring))
                    .is_some_and(|entry| entry.desired.is_some());
                if stays {
                    // What takes its place may cover the same addresses.
                    !self.missing_exceptions.contains_key(&(table, family))
                } else {
                    !self.routes.contains_key(&(table, family))
                }
            }
            Item::Rule(RuleKey::Route(route) | RuleKey::Share(route, ..)) => {
                let is_right = |settled| settled && !self.misses_inside(route);
                self.is_replaced(item, route)
                    .unwrap_or_else(|| self.settled_above(route).is_none_or(is_right))
            }
        }
    }

    /// Whether everything that is wished in a chain stands there.
    fn is_ready(&self, chain: Chain, chains: &Chains) -> bool {
        let stands = |key| self.get(key).is_some_and(RuleEntry::stands);
        match chains.use_of(chain) {
            Some(ChainUse::Hop(hop)) => stands(RuleKey::Hop(hop)),
            Some(ChainUse::Group(group)) => self
                .buckets
                .get(&group)
                .is_some_and(|(wished, missing)| *wished > 0 && *missing == 0),
            Some(ChainUse::Admission | ChainUse::Table(..)) => true,
            Some(ChainUse::Stray(_) | ChainUse::Foreign(_)) | None => false,
        }
    }

    fn has_exceptions(&self, route: RouteKey) -> bool {
        let table = (route.table, route.prefix.family());
        let expiring = self.get(RuleKey::Except(table.0, table.1, Except::Expiring));
        expiring.is_some_and(RuleEntry::stands) && !self.missing_exceptions.contains_key(&table)
    }

    fn misses_inside(&self, route: RouteKey) -> bool {
        let prefix = route.prefix;
        self.missing_routes
            .get(&(route.table, prefix.family()))
            .is_some_and(|missing| {
                missing
                    .range(whole(prefix, last_inside(prefix)))
                    .any(|(inner, ..)| *inner != prefix)
            })
    }

    /// Whether the rules that take the place of one that is wished no more are all there; `None` if there should be none.
    fn is_replaced(&self, item: Item, route: RouteKey) -> Option<bool> {
        let goes = self.find(item).is_some_and(|entry| entry.desired.is_none());
        let mut wished = self
            .rules_of(route)
            .map(|(_, entry)| entry)
            .filter(|entry| goes && entry.desired.is_some())
            .peekable();
        wished.peek()?;
        Some(wished.all(RuleEntry::stands))
    }

    /// Whether the next shorter prefix that has, or should have, a rule is as it should be, and those still shorter that share its
    /// priority, any of which may be met first; `None` if there is none.
    fn settled_above(&self, route: RouteKey) -> Option<bool> {
        let routes = self.routes.get(&(route.table, route.prefix.family()))?;
        let mut next = None;
        for len in (0..route.prefix.len()).rev() {
            let prefix = Prefix::masked(route.prefix.addr(), len).ok()?;
            for (_, at) in routes.range(whole(prefix, prefix)) {
                let entry = self.states(*at);
                let prio = entry
                    .present()
                    .chain(&entry.desired)
                    .next()
                    .map(|rule| rule.prio);
                if *next.get_or_insert(prio) != prio {
                    return Some(true);
                }
                if !entry.is_settled() {
                    return Some(false);
                }
            }
        }
        next.map(|_| true)
    }
}
