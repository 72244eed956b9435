//! From the plan to the blocks: which rules each block should have, as the plan, the ports and what is local stand now.
//!
//! A change of the plan is looked up by what it concerns (a prefix, a group, a hop) and rendered in every block; a change of the
//! ports looks at everything again. What a block has and should have no more is wished away here, too; in which order all that is
//! written is not decided here but in `reconcile`.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use super::{BlockState, Switch, rule_key};
use crate::model::{Family, Framing, RouteKey, TableId};
use crate::plan::{
    Changed, Doubled, Env, Except, GroupKey, Layout, LayoutContext, Limits, RouteRule, RuleKey,
    Target, acl_count, fixed_exceptions, keys_of,
};
use crate::reconcile::Item;

impl Switch {
    /// Looks at every rule again.
    pub(super) fn rewant(&mut self) {
        if !self.started {
            return;
        }
        self.part_from_found_acl();
        let mut keys: Vec<Changed> = self
            .plan
            .rules()
            .map(|(key, _)| Changed::Route(key))
            .collect();
        let hops = self.plan.hops_in_use().map(Changed::Hop);
        let groups = self.plan.groups_in_use().map(Changed::Group);
        keys.extend(hops.chain(groups));
        for state in self.blocks.values() {
            for (item, _) in state.table.iter() {
                match item {
                    Item::Rule(RuleKey::Route(_, key) | RuleKey::Share(key, ..)) => {
                        keys.push(Changed::Route(key));
                    }
                    Item::Rule(RuleKey::Bucket(_, group, ..)) => keys.push(Changed::Group(group)),
                    Item::Rule(RuleKey::Hop(_, hop)) => keys.push(Changed::Hop(hop)),
                    Item::Rule(
                        RuleKey::Acl(_)
                        | RuleKey::Entry(_)
                        | RuleKey::Admit(..)
                        | RuleKey::Except(..),
                    )
                    | Item::Stray(..) => {}
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            self.want_changed(key);
        }
        for block in 0..self.blocks.len() {
            self.want_acl(block);
            self.want_exceptions(block);
            self.want_admission(block);
        }
    }

    pub(super) fn take_changes(&mut self) {
        let mut changed: Vec<Changed> = self.plan.take_changed().into_iter().collect();
        if self.layout() == Layout::Flat {
            self.add_users(&mut changed);
        }
        // A hop before the groups that lead to it, these before the prefixes: chains are given out in the order of need.
        changed.sort_unstable_by(|a, b| b.cmp(a));
        for change in changed {
            self.want_changed(change);
        }
    }

    /// In the flat layout a change of hops and groups is one of the prefixes that lead there.
    fn add_users(&self, changed: &mut Vec<Changed>) {
        let of: FxHashSet<Changed> = changed.iter().copied().collect();
        changed.retain(|change| matches!(change, Changed::Route(_)));
        if changed.len() == of.len() {
            return;
        }
        let concerned = |group: GroupKey| {
            let mut members = self.plan.members(group).map(Changed::Hop);
            of.contains(&Changed::Group(group)) || members.any(|hop| of.contains(&hop))
        };
        let groups: FxHashSet<GroupKey> = self
            .plan
            .groups_in_use()
            .filter(|group| concerned(*group))
            .collect();
        let leads = |rule: RouteRule| match rule {
            RouteRule::Forward(Target::Hop(hop)) => of.contains(&Changed::Hop(hop)),
            RouteRule::Forward(Target::Group(group)) => groups.contains(&group),
            RouteRule::Discard | RouteRule::Guard => false,
        };
        let users = self.plan.rules().filter(|(_, rule)| leads(*rule));
        changed.extend(users.map(|(key, _)| Changed::Route(key)));
        changed.sort_unstable();
        changed.dedup();
    }

    pub(super) fn want_changed(&mut self, change: Changed) {
        match change {
            Changed::Hop(_) | Changed::Group(_) if self.layout() == Layout::Flat => {}
            Changed::Hop(hop) => {
                for framing in Framing::ALL {
                    self.want_everywhere(RuleKey::Hop(framing, hop));
                }
            }
            Changed::Route(key) => {
                for at in 0..self.blocks.len() {
                    self.want_route(at, key);
                }
            }
            Changed::Group(group) => {
                self.part_from_found(group);
                // Without a live member it is one rule that hands everything to the kernel.
                let bits = self
                    .plan
                    .buckets(group)
                    .map(|hops| hops.len().max(1).trailing_zeros() as u8);
                let before = match bits {
                    Some(bits) => self.sets.insert(group, bits),
                    None => self.sets.remove(&group),
                };
                for bits in [before, bits].into_iter().flatten() {
                    for n in 0..1_u16 << bits {
                        for framing in Framing::ALL {
                            self.want_everywhere(RuleKey::Bucket(framing, group, bits, n));
                        }
                    }
                }
            }
        }
    }

    fn want_route(&mut self, at: usize, route: RouteKey) {
        if self.layout() == Layout::Chained {
            for framing in Framing::ALL {
                self.want_in(at, RuleKey::Route(framing, route));
            }
            return;
        }
        let wished = keys_of(&self.plan, route);
        let state = self.blocks.values().nth(at);
        let there = state
            .into_iter()
            .flat_map(|state| state.table.rules_of(Framing::Untagged, route));
        let stale: Vec<RuleKey> = there
            .map(|(key, _)| key)
            .filter(|key| !wished.contains(key))
            .collect();
        for key in wished.into_iter().chain(stale) {
            self.want_in(at, key);
        }
    }

    /// What had to go before anything else could come is gone.
    pub(super) fn refill_emptied(&mut self) {
        let mut emptied = false;
        for state in self.blocks.values_mut() {
            if state.empties && state.table.iter().next().is_none() {
                state.empties = false;
                emptied = true;
            }
        }
        if emptied {
            if !self.acl.has_place() {
                self.place_acl();
            }
            self.rewant();
        }
    }

    fn want_everywhere(&mut self, key: RuleKey) {
        for at in 0..self.blocks.len() {
            self.want_in(at, key);
        }
    }

    pub(super) fn want_in(&mut self, at: usize, key: RuleKey) {
        let crowded = self.plan.limits().is_crowded();
        let layout = self.layout();
        let Some(state) = self.blocks.values_mut().nth(at) else {
            return;
        };
        let wanted = match key {
            _ if state.empties => false,
            RuleKey::Route(framing, route) => {
                let behind = layout == Layout::Flat && state.closed;
                !behind && state.has_table(framing, route.table, route.prefix.family())
            }
            RuleKey::Share(route, ..) => {
                let (framing, family) = (Framing::Untagged, route.prefix.family());
                !state.closed && state.has_table(framing, route.table, family)
            }
            // Looked after by `want_acl`.
            RuleKey::Acl(_) => return,
            // Where these do not all fit, no packet may go beyond chain 0: everything is the kernel's.
            RuleKey::Except(framing, table, family, _) => {
                !crowded && state.has_table(framing, table, family)
            }
            RuleKey::Entry(_) => !crowded && state.forwards(),
            // A permit leads to admission past the entry.
            RuleKey::Admit(..) => !crowded && !state.closed && state.forwards(),
            RuleKey::Hop(framing, _) | RuleKey::Bucket(framing, ..) => state.has_framing(framing),
        };
        let mut context = LayoutContext {
            config: &self.config,
            plan: &self.plan,
            ports: &state.ports,
            chains: &mut self.chains,
        };
        let rule = if wanted { context.render(key) } else { None };
        state.table.want(key, rule);
    }

    pub(super) fn want_exceptions(&mut self, at: usize) {
        let Some(state) = self.blocks.values().nth(at) else {
            return;
        };
        let tables = state.tables().into_iter();
        let wished = tables.flat_map(|(framing, table, family)| {
            let exceptions = self.exceptions(table, family);
            exceptions.map(move |except| RuleKey::Except(framing, table, family, except))
        });
        let wished = wished.collect();
        self.want_only(at, wished, |key| matches!(key, RuleKey::Except(..)));
    }

    pub(super) fn want_admission(&mut self, at: usize) {
        let Some(state) = self.blocks.values().nth(at) else {
            return;
        };
        let mut wished = BTreeSet::new();
        for port in &state.ports {
            for family in [Family::V4, Family::V6] {
                if port.families[family as usize] {
                    wished.insert(RuleKey::Admit(port.dev, family));
                    wished.insert(RuleKey::Entry(port.framing().protocol(family)));
                }
            }
        }
        let admits = |key| matches!(key, RuleKey::Admit(..) | RuleKey::Entry(_));
        self.want_only(at, wished, admits);
    }

    /// In a block, of rules of a kind these and no others.
    fn want_only(&mut self, at: usize, wished: BTreeSet<RuleKey>, kind: impl Fn(RuleKey) -> bool) {
        let Some(state) = self.blocks.values_mut().nth(at) else {
            return;
        };
        let there = state.table.iter().filter_map(|(item, _)| rule_key(item));
        let stale = there.filter(|key| kind(*key) && !wished.contains(key));
        let stale: Vec<RuleKey> = stale.collect();
        for key in stale {
            state.table.want(key, None);
        }
        for key in wished {
            self.want_in(at, key);
        }
    }

    /// What is never routed in hardware in a table.
    fn exceptions(&self, table: TableId, family: Family) -> impl Iterator<Item = Except> {
        let locals = self
            .locals
            .get(&(table, family))
            .cloned()
            .unwrap_or_default();
        // Own addresses as a source are a spoof or a loop; the kernel drops them.
        let own: Vec<_> = locals
            .iter()
            .filter(|prefix| prefix.len() == family.max_len())
            .map(|prefix| Except::From(*prefix))
            .collect();
        let all: BTreeSet<Except> = fixed_exceptions(family)
            .chain(locals.into_iter().map(Except::To))
            .chain(own)
            .collect();
        all.into_iter()
    }

    /// Filter rules, admission and exceptions count against the capacity, too; and where packets come in in both forms, what they meet
    /// counts twice.
    pub(super) fn count_overhead(&mut self, env: &Env<'_>) {
        let of = |state: &BlockState| {
            let exceptions: usize = state
                .tables()
                .into_iter()
                .map(|(_, table, family)| self.exceptions(table, family).count())
                .sum();
            let admission: usize = state
                .ports
                .iter()
                .map(|port| port.families.iter().filter(|has| **has).count())
                .sum();
            let filters = acl_count(&self.acl, &state.ports, self.layout());
            match self.layout() {
                Layout::Chained if state.forwards() => {
                    let entries = 2 + usize::from(state.has_framing(Framing::Tagged));
                    filters + exceptions + admission + entries
                }
                Layout::Chained | Layout::Flat => filters + exceptions,
            }
        };
        let hardware = self.blocks.values().filter(|state| !state.is_software());
        let overhead = hardware.clone().map(of).max().unwrap_or(0);
        let mut doubled = Doubled::default();
        for state in hardware.filter(|_| self.layout() == Layout::Chained) {
            let tables = |framing| {
                let ports = state.ports.iter().filter(|port| port.admits());
                let ports = ports.filter(move |port| port.framing() == framing);
                ports.map(|port| port.table).collect::<BTreeSet<_>>()
            };
            let (untagged, tagged) = (tables(Framing::Untagged), tables(Framing::Tagged));
            doubled.tables.extend(untagged.intersection(&tagged));
            doubled.targets |= !untagged.is_empty() && !tagged.is_empty();
        }
        let now = self.plan.limits();
        if (overhead, &doubled) != (now.overhead, &now.doubled) {
            let limits = Limits {
                overhead,
                doubled,
                ..now.clone()
            };
            self.set_limits(env, limits);
        }
    }
}
