//! The gates: whether a rule may be written, or removed, as things stand in the block. The table in the parent module's head says
//! what each kind of rule waits for.
//!
//! Each only reads. Nothing rests on what is on its way: a rule that comes may still be refused, one that goes is as good as gone,
//! though it be wished again meanwhile. A closed gate is no failure; the write stays dirty and is tried again when something else
//! came back.

use super::books::{table_of, whole};
use super::{Item, RuleEntry, RuleTable};
use crate::model::{Chain, Framing, Handle, Prefix, Prio, RouteKey, RuleAction};
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
            RuleKey::Hop(..) | RuleKey::Except(..) => true,
            RuleKey::Admit(..) | RuleKey::Entry(_) => self.filters.are_whole(),
            RuleKey::Bucket(..) => target.is_none_or(|chain| self.is_ready(chain, chains)),
            RuleKey::Route(framing, route) => self.may_route(framing, route, rule, chains),
            RuleKey::Share(route, ..) => self.may_route(Framing::Untagged, route, rule, chains),
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
                let last = self.last_stray(Chain::ENTRY);
                last.is_none_or(|(last, _)| last <= prio)
            }
            // In a chain that is in use again it only doubles what stands there.
            Item::Stray(chain, ..) => leads_nowhere(item) || self.is_ready(chain, chains),
            Item::Rule(RuleKey::Acl(key)) => {
                // A stray may let on to the routes what this one stops.
                let lets_on = |chain: &Chain| {
                    let admission = chains.use_of(*chain) == Some(ChainUse::Admission);
                    admission || *chain == Chain::ENTRY
                };
                !self.strays.keys().any(lets_on) && self.filters.may_delete(key)
            }
            Item::Rule(RuleKey::Admit(..) | RuleKey::Entry(_)) => true,
            Item::Rule(RuleKey::Hop(..)) => leads_nowhere(item),
            Item::Rule(RuleKey::Bucket(framing, group, ..)) => {
                match self.buckets.get(&(framing, group)) {
                    Some((wished, 0)) if *wished > 0 => true,
                    _ => leads_nowhere(item),
                }
            }
            Item::Rule(RuleKey::Except(framing, table, family, _)) => {
                let stays = self
                    .get(RuleKey::Except(framing, table, family, Except::Expiring))
                    .is_some_and(|entry| entry.desired.is_some());
                if stays {
                    // What takes its place may cover the same addresses.
                    !self
                        .missing_exceptions
                        .contains_key(&(framing, table, family))
                } else {
                    !self.routes.contains_key(&(framing, table, family))
                }
            }
            Item::Rule(RuleKey::Route(framing, route)) => self.may_part(item, framing, route),
            Item::Rule(RuleKey::Share(route, ..)) => self.may_part(item, Framing::Untagged, route),
        }
    }

    /// The one that packets meet last in a chain.
    pub(super) fn last_stray(&self, chain: Chain) -> Option<(Prio, Handle)> {
        self.strays.get(&chain)?.last().copied()
    }

    /// Whether everything that is wished in a chain stands there.
    fn is_ready(&self, chain: Chain, chains: &Chains) -> bool {
        let stands = |key| self.get(key).is_some_and(RuleEntry::stands);
        match chains.use_of(chain) {
            Some(ChainUse::Hop(framing, hop)) => stands(RuleKey::Hop(framing, hop)),
            Some(ChainUse::Group(framing, group)) => self
                .buckets
                .get(&(framing, group))
                .is_some_and(|(wished, missing)| *wished > 0 && *missing == 0),
            Some(ChainUse::Admission | ChainUse::Table(..)) => true,
            Some(ChainUse::Stray(_) | ChainUse::Foreign(_)) | None => false,
        }
    }

    /// Whether a prefix may come.
    fn may_route(
        &self,
        framing: Framing,
        route: RouteKey,
        rule: &PlannedRule,
        chains: &Chains,
    ) -> bool {
        let leads_on = match rule.rule.actions.last() {
            Some(RuleAction::Trap | RuleAction::Pass) => return true,
            Some(RuleAction::Goto(chain)) => self.is_ready(*chain, chains),
            _ => true,
        };
        // In chain 0 it stands right behind the filter rules.
        let filtered = rule.chain != Chain::ENTRY || self.filters.are_whole();
        filtered
            && leads_on
            && self.has_exceptions(framing, route)
            && !self.misses_inside(framing, route)
    }

    /// Whether a prefix may go.
    fn may_part(&self, item: Item, framing: Framing, route: RouteKey) -> bool {
        let is_right = |settled| settled && !self.misses_inside(framing, route);
        self.is_replaced(item, framing, route)
            .unwrap_or_else(|| self.settled_above(framing, route).is_none_or(is_right))
    }

    fn has_exceptions(&self, framing: Framing, route: RouteKey) -> bool {
        let table = table_of(framing, route);
        let (_, number, family) = table;
        let expiring = self.get(RuleKey::Except(framing, number, family, Except::Expiring));
        expiring.is_some_and(RuleEntry::stands) && !self.missing_exceptions.contains_key(&table)
    }

    fn misses_inside(&self, framing: Framing, route: RouteKey) -> bool {
        let prefix = route.prefix;
        self.missing_routes
            .get(&table_of(framing, route))
            .is_some_and(|missing| {
                missing
                    .range(whole(prefix, last_inside(prefix)))
                    .any(|(inner, ..)| *inner != prefix)
            })
    }

    /// Whether the rules that take the place of one that is wished no more are all there; `None` if there should be none.
    fn is_replaced(&self, item: Item, framing: Framing, route: RouteKey) -> Option<bool> {
        let goes = self.find(item).is_some_and(|entry| entry.desired.is_none());
        let mut wished = self
            .rules_of(framing, route)
            .map(|(_, entry)| entry)
            .filter(|entry| goes && entry.desired.is_some())
            .peekable();
        wished.peek()?;
        Some(wished.all(RuleEntry::stands))
    }

    /// Whether the next shorter prefix that has, or should have, a rule is as it should be, and those still shorter that share its
    /// priority, any of which may be met first; `None` if there is none.
    fn settled_above(&self, framing: Framing, route: RouteKey) -> Option<bool> {
        let routes = self.routes.get(&table_of(framing, route))?;
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
