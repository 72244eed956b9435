//! Rules that stand in the blocks already: of an earlier run, or changed by somebody else's hand.
//!
//! A rule says in its mark what it is for, and the rest of its meaning is in the rule itself: a hop's mark names the neighbour, a
//! prefix's rule the prefix. Only a group has no name that outlives a run; it gets a chain whose buckets lead to its members, best
//! that to which most of its prefixes lead already:
//!
//! ```text
//! found                                     wished                          so
//! chain 8: buckets to hops 1, 2, 3          group A: members 1, 2, 3        chain 8 is A's
//!   10.1.0.0/16 -> goto 8                     10.1.0.0/16 to A                nothing is to be written
//!   10.2.0.0/16 -> goto 8                     10.2.0.0/16 to hop 2            one rule is
//! ```
//!
//! In the earlier run chain 8 may have been another group's. That makes no difference as long as its buckets stay. Should they have
//! to change before all that was found is as it is wished (10.2.0.0/16 still leads there, and must not follow), the group gets another
//! chain.
//!
//! In the flat layout a prefix's rule says all. What does not stand where this run would write it (of the other layout, of another
//! table or address of the port, in other priorities) has no order with what is wished, so its block is emptied first.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

use self::meaning::{Ours, bucket_of, except_of, is_ours, route_of, share_of};
use super::{Audited, BlockState, Switch, rule_key};

use crate::model::{
    Block, Chain, FlowerRule, Framing, ObservedRule, Prio, RouteKey, RuleAction, RulePlace, Runs,
};
use crate::plan::{
    AclKey, ChainUse, Chains, Env, GroupKey, HopId, HopRule, Layout, LayoutContext, Marked,
    PlannedRule, RouteRule, RuleKey, Target, read_mark,
};
use crate::reconcile::{Item, RuleEntry, RuleTable};

mod found;
mod meaning;

/// What the rules of a prefix do, by bits and number of their bucket.
type Shares<'a> = BTreeMap<(u8, u16), &'a [RuleAction]>;

/// A chain in which buckets were found.
#[derive(Debug, Default)]
struct FoundSet {
    /// In which form its packets come in.
    framing: Option<Framing>,
    /// Of each block: which bucket is whose.
    buckets: BTreeMap<Block, BTreeMap<(u8, u16), u64>>,
    /// How many prefixes that should lead to a group lead there.
    users: FxHashMap<GroupKey, usize>,
}

impl FoundSet {
    /// Who owns the buckets, when all blocks have the same whole set.
    fn owners(&self) -> Option<Vec<u64>> {
        let mut sets = self.buckets.values();
        let first = sets.next()?;
        let (bits, _) = first.keys().next()?;
        let whole = first.len() == 1 << bits && first.keys().all(|(b, _)| b == bits);
        (whole && sets.all(|set| set == first)).then(|| first.values().copied().collect())
    }
}

impl Switch {
    /// Nothing of ours is there, and not everything that rules follow from is known.
    pub const fn stop(&mut self) {
        self.started = false;
    }

    /// Everything is known: takes over what an earlier run has left, and begins to write.
    pub fn start(&mut self, env: &Env<'_>) {
        if self.started {
            return;
        }
        self.started = true;
        let found = std::mem::take(&mut self.found);
        self.keep_clear(found.values().flatten().filter(|rule| !is_ours(rule)));
        // A port that is none any more has rules that must go.
        for block in found.keys() {
            self.blocks
                .entry(*block)
                .or_insert_with(|| BlockState::new(*block));
        }
        self.adopt(env, &found);
        self.rewant();
        if self.empty_misplaced() {
            self.rewant();
        }
        if !self.acl.has_place() {
            self.place_acl();
        }
    }

    /// Looks for blocks that must be emptied first.
    fn empty_misplaced(&mut self) -> bool {
        let (layout, runs) = (self.layout(), self.config.runs);
        let behind_slots = self.config.first_prio.get() + self.plan.limits().acl_prios();
        for state in self.blocks.values_mut() {
            let mut rules = state.table.iter();
            let wished = if state.is_software() {
                Runs::Software
            } else {
                runs
            };
            let elsewhere = |item, entry: &RuleEntry| {
                let strange = |rule: &PlannedRule| {
                    // Others' places are of one protocol, and behind the filter rules.
                    rule.rule.runs != wished || rule.prio.get() >= behind_slots
                };
                matches!(item, Item::Rule(RuleKey::Acl(_)))
                    && entry.applied.as_ref().is_some_and(|rule| strange(rule))
            };
            // It may be emptied already, for want of room for two lists.
            state.empties |= rules.any(|(item, entry)| {
                state.is_misplaced(layout, item, entry) || elsewhere(item, entry)
            });
        }
        self.blocks.values().any(|state| state.empties)
    }

    /// Compares a block with what was read back: rules that others changed or deleted are dirty, strays are to go.
    pub fn audit(&mut self, block: Block, rules: &[ObservedRule]) -> Audited {
        let Some(state) = self.blocks.get_mut(&block) else {
            return Audited::default();
        };
        let mut moved = false;
        let mut seen = FxHashSet::default();
        let mut mended = 0;
        let mut strays = Vec::new();
        for observed in rules.iter().filter(|rule| is_ours(rule)) {
            let Some(item) = state.table.item_at(observed.place) else {
                strays.push(observed);
                continue;
            };
            seen.insert(item);
            let Some(rule) = observed.rule.clone() else {
                continue;
            };
            let rule = planned(observed, rule);
            let changed =
                |entry: &RuleEntry| entry.sent.is_none() && entry.applied.as_deref() != Some(&rule);
            if rule_key(item).is_some() && state.table.find(item).is_some_and(changed) {
                mended += 1;
            }
            let before = state.table.find(item).map(|entry| entry.hardware);
            moved |= before != Some(observed.hardware);
            observe(&mut state.table, item, observed, rule);
        }
        let lost: Vec<Item> = state
            .table
            .iter()
            .filter(|(item, entry)| entry.applied.is_some() && !seen.contains(item))
            .map(|(item, _)| item)
            .collect();
        for item in lost {
            mended += usize::from(state.table.lose(item));
        }
        for stray in strays {
            observe_stray(&mut state.table, &mut self.chains, stray);
        }
        Audited { mended, moved }
    }

    /// Before the buckets of a group change: nobody knows yet who else leads to a chain that it had from an earlier run.
    pub(super) fn part_from_found(&mut self, group: GroupKey) {
        if !self.adopted.contains(&group) || !self.changes_buckets(group) {
            return;
        }
        self.adopted.remove(&group);
        for of in Framing::ALL.map(|framing| ChainUse::Group(framing, group)) {
            if let Some(chain) = self.chains.get(of) {
                self.chains.release(of);
                self.chains.adopt(ChainUse::Stray(chain), chain);
            }
        }
        let users: Vec<RouteKey> = self
            .plan
            .rules()
            .filter(|(_, rule)| *rule == RouteRule::Forward(Target::Group(group)))
            .map(|(key, _)| key)
            .collect();
        for key in users {
            for at in 0..self.blocks.len() {
                for framing in Framing::ALL {
                    self.want_in(at, RuleKey::Route(framing, key));
                }
            }
        }
    }

    /// Once all that was found is as it is wished, chains are what we say they are.
    pub(super) fn trust_found(&mut self) {
        if !self.adopted.is_empty() && self.is_settled() {
            self.adopted.clear();
        }
    }

    /// Whether a block has other buckets of a group than it should.
    fn changes_buckets(&mut self, group: GroupKey) -> bool {
        let count = |hops: Vec<HopId>| hops.len().max(1);
        let wished = self.plan.buckets(group).map_or(0, count);
        let bits = wished.max(1).trailing_zeros() as u8;
        self.blocks.values().any(|state| {
            let mut context = LayoutContext {
                config: &self.config,
                plan: &self.plan,
                ports: &state.ports,
                chains: &mut self.chains,
            };
            let framings = Framing::ALL.into_iter();
            let mut keys = framings
                .filter(|framing| state.has_framing(*framing))
                .flat_map(|f| (0..wished as u16).map(move |n| RuleKey::Bucket(f, group, bits, n)));
            keys.any(|key| {
                let applied = state.table.get(key).and_then(|entry| entry.applied.clone());
                context.render(key).as_ref() != applied.as_deref()
            })
        })
    }

    /// Takes neither chains nor, in chain 0, priorities in which others have rules.
    fn keep_clear<'a>(&mut self, theirs: impl Iterator<Item = &'a ObservedRule>) {
        let mut taken = BTreeSet::new();
        for RulePlace { chain, prio, .. } in theirs.map(|rule| rule.place) {
            if chain == Chain::ENTRY {
                taken.insert(prio.get());
            } else {
                self.chains.adopt(ChainUse::Foreign(chain), chain);
            }
        }
        let wished = self.config.first_prio.get();
        let prios = self.layout().entry_prios(self.plan.limits());
        let free = |first: &u16| {
            taken
                .range(*first..first.saturating_add(prios))
                .next()
                .is_none()
        };
        if let Some(first) = (wished..=u16::MAX - prios).find(free).and_then(Prio::new) {
            self.config.first_prio = first;
        }
    }

    /// Gives rules of an earlier run their meaning back. Nothing has a chain yet, and what is admitted is planned.
    fn adopt(&mut self, env: &Env<'_>, found: &BTreeMap<Block, Vec<ObservedRule>>) {
        let ours = |rule| {
            let observed: &ObservedRule = rule;
            Some(Ours {
                observed,
                marked: read_mark(observed.cookie?)?,
                rule: observed.rule.as_ref()?,
            })
        };
        let ours: BTreeMap<Block, Vec<Ours<'_>>> = found
            .iter()
            .map(|(block, rules)| (*block, rules.iter().filter_map(ours).collect()))
            .collect();
        self.place_found_acl(found.values().flatten());
        match self.layout() {
            Layout::Chained => {
                self.adopt_chains(ours.values().flatten());
                self.adopt_groups(env, &ours);
            }
            Layout::Flat => self.adopt_shares(env, &ours),
        }
        // No chain is given out in which there are rules of then, or to which one leads, even when it is empty: packets would meet those.
        let chains = ours.values().flatten().map(Ours::chain);
        let leads_to = ours.values().flatten().filter_map(Ours::leads_to);
        for chain in chains
            .chain(leads_to)
            .filter(|chain| *chain != Chain::ENTRY)
        {
            self.chains.adopt(ChainUse::Stray(chain), chain);
        }
        for (block, rules) in &ours {
            self.adopt_block(*block, rules);
        }
        // A rule that bears our mark and can't be read is not one of this version.
        for (block, rules) in found {
            let unreadable = |rule: &&ObservedRule| is_ours(rule) && rule.rule.is_none();
            if let Some(state) = self.blocks.get_mut(block) {
                for observed in rules.iter().filter(unreadable) {
                    observe_stray(&mut state.table, &mut self.chains, observed);
                }
            }
        }
    }

    fn adopt_chains<'a>(&mut self, ours: impl Iterator<Item = &'a Ours<'a>>) {
        let hops: FxHashMap<u64, HopId> = self
            .plan
            .hops_in_use()
            .map(|hop| (hop.digest(), hop))
            .collect();
        for rule in ours {
            let of = match rule.marked {
                Marked::Admit(_) => ChainUse::Admission,
                Marked::Except(table, family) | Marked::Route(table, family) => {
                    ChainUse::Table(rule.framing(), table, family)
                }
                Marked::Hop(_, digest) => match hops.get(&digest) {
                    Some(hop) => ChainUse::Hop(rule.framing(), *hop),
                    None => continue,
                },
                // All that is let in goes there, be there anything yet or not.
                Marked::Entry | Marked::Acl(_) => {
                    if let Some(admission) = rule.leads_to() {
                        self.chains.adopt(ChainUse::Admission, admission);
                    }
                    continue;
                }
                Marked::Bucket(_) | Marked::Probe => continue,
            };
            self.chains.adopt(of, rule.chain());
        }
    }

    fn adopt_groups(&mut self, env: &Env<'_>, ours: &BTreeMap<Block, Vec<Ours<'_>>>) {
        let mut found = self.found_sets(ours);
        let mut groups: Vec<GroupKey> = self.plan.groups_in_use().collect();
        groups.sort_unstable();
        let both = |group| Framing::ALL.map(|framing| (framing, group));
        for (framing, group) in groups.into_iter().flat_map(both) {
            let digests =
                |hops: Vec<HopId>| -> Vec<u64> { hops.into_iter().map(HopId::digest).collect() };
            let members: BTreeSet<u64> = self.plan.members(group).map(HopId::digest).collect();
            let wished = digests(self.plan.buckets(group).unwrap_or_default());
            let rank = |set: &FoundSet| {
                let users = set.users.get(&group).copied().unwrap_or(0);
                let owners = set.owners()?;
                let same = owners.iter().copied().collect::<BTreeSet<_>>() == members;
                let right = owners == wished;
                // The other form has fixed the buckets already.
                let may = same && (right || !self.adopted.contains(&group));
                may.then_some((users, right))
            };
            let best = found
                .iter()
                .filter(|(_, set)| set.framing == Some(framing))
                .filter_map(|(chain, set)| Some((rank(set)?, *chain)))
                .max();
            if let Some((_, chain)) = best
                && let Some(set) = found.remove(&chain)
                && self.chains.adopt(ChainUse::Group(framing, group), chain)
                && let Some(owners) = set.owners()
            {
                self.adopted.insert(group);
                self.with_env(env, |plan, env| plan.adopt_buckets(env, group, &owners));
            }
        }
    }

    /// In the flat layout, who owns the buckets of a group is what the rules of one of its prefixes do.
    fn adopt_shares(&mut self, env: &Env<'_>, ours: &BTreeMap<Block, Vec<Ours<'_>>>) {
        let mut found: BTreeMap<(Block, RouteKey), Shares<'_>> = BTreeMap::new();
        for (block, rules) in ours {
            for rule in rules {
                if let Some((route, bits, n)) = share_of(rule) {
                    let set = found.entry((*block, route)).or_default();
                    set.insert((bits, n), &rule.rule.actions);
                }
            }
        }
        let mut adopted = FxHashSet::default();
        for ((_, route), set) in found {
            let Some(RouteRule::Forward(Target::Group(group))) = self.plan.rule(route) else {
                continue;
            };
            let bits = set.keys().next().map_or(0, |(bits, _)| *bits);
            let whole = set.len() == 1 << bits && set.keys().all(|(b, _)| *b == bits);
            if !whole || adopted.contains(&group) {
                continue;
            }
            let members: Vec<HopId> = self.plan.members(group).collect();
            let owner = |does: &[RuleAction]| {
                let sends = |hop: &&HopId| match self.plan.hop(**hop) {
                    Some(HopRule::Send { src, dst, out, tag }) => {
                        let mut rewrites = does.iter();
                        let pushed = does.iter().find_map(|action| match action {
                            RuleAction::PushVlan(id) => Some(*id),
                            _ => None,
                        });
                        (does.last(), pushed) == (Some(&RuleAction::Redirect(out)), tag)
                            && rewrites.any(|action| {
                                matches!(action, RuleAction::Rewrite { src: s, dst: d, .. } if (*s, *d) == (src, dst))
                            })
                    }
                    Some(HopRule::Slow) | None => false,
                };
                members.iter().find(sends).map(|hop| hop.digest())
            };
            let owners: Option<Vec<u64>> = set.values().map(|does| owner(does)).collect();
            if let Some(owners) = owners {
                adopted.insert(group);
                self.with_env(env, |plan, env| plan.adopt_buckets(env, group, &owners));
            }
        }
    }

    /// Chains with buckets, who owns these, and what leads there.
    fn found_sets(&self, ours: &BTreeMap<Block, Vec<Ours<'_>>>) -> BTreeMap<Chain, FoundSet> {
        let hops: FxHashMap<Chain, u64> = ours
            .values()
            .flatten()
            .filter_map(|rule| match rule.marked {
                Marked::Hop(_, digest) => Some((rule.chain(), digest)),
                _ => None,
            })
            .collect();
        let mut found: BTreeMap<Chain, FoundSet> = BTreeMap::new();
        for (block, rules) in ours {
            for rule in rules {
                if let Marked::Bucket(_) = rule.marked
                    && let Some(bucket) = bucket_of(rule.rule)
                    && let Some(hop) = rule.leads_to().and_then(|chain| hops.get(&chain))
                {
                    let set = found.entry(rule.chain()).or_default();
                    set.framing = Some(rule.framing());
                    let buckets = set.buckets.entry(*block).or_default();
                    buckets.insert(bucket, *hop);
                }
            }
        }
        for rule in ours.values().flatten() {
            if let Marked::Route(table, family) = rule.marked
                && let Some(set) = rule.leads_to().and_then(|chain| found.get_mut(&chain))
            {
                let wished = route_of(rule.rule, family)
                    .and_then(|prefix| self.plan.rule(RouteKey { table, prefix }));
                if let Some(RouteRule::Forward(Target::Group(group))) = wished {
                    *set.users.entry(group).or_default() += 1;
                }
            }
        }
        found
    }

    fn adopt_block(&mut self, block: Block, ours: &[Ours<'_>]) {
        let flat = self.layout() == Layout::Flat;
        let at = self.blocks.keys().position(|known| *known == block);
        let wished = at.map(|at| self.acl_rules(at)).unwrap_or_default();
        let acl = ours.iter().enumerate();
        let mut acl: FxHashMap<RulePlace, AclKey> = acl
            .filter_map(|(n, ours)| {
                let found = self.found_key(ours.observed, n)?;
                let key = Self::adopted_acl(&wished, ours.observed, found);
                Some((ours.observed.place, key))
            })
            .collect();
        let Some(state) = self.blocks.get_mut(&block) else {
            return;
        };
        for ours in ours {
            let rule = ours.rule;
            let chain_use = self.chains.use_of(ours.chain());
            let key = match (ours.marked, chain_use) {
                (Marked::Acl(_), _) if ours.chain() == Chain::ENTRY => {
                    acl.remove(&ours.observed.place).map(RuleKey::Acl)
                }
                (Marked::Except(table, family), _) if flat && ours.chain() == Chain::ENTRY => {
                    let key = |except| RuleKey::Except(ours.framing(), table, family, except);
                    except_of(rule, family).map(key)
                }
                (Marked::Route(..), _) if flat => share_of(ours).map(|share| match share {
                    (route, 0, _) => RuleKey::Route(Framing::Untagged, route),
                    (route, bits, n) => RuleKey::Share(route, bits, n),
                }),
                _ if flat => None,
                (Marked::Entry, _) if ours.chain() == Chain::ENTRY => {
                    Some(RuleKey::Entry(rule.protocol))
                }
                (Marked::Admit(family), Some(ChainUse::Admission)) => {
                    let indev = rule.matches.indev.as_ref();
                    let vlan = rule.matches.vlan.and_then(|vlan| vlan.id);
                    let port = state.ports.iter().find(|port| {
                        Some(port.mac) == rule.matches.dst_mac
                            && vlan == port.vlan.as_ref().map(|vlan| vlan.id)
                            && indev.is_none_or(|name| name == port.ingress())
                    });
                    port.map(|port| RuleKey::Admit(port.dev, family))
                }
                // A rule of the other form would be another rule's twin.
                (_, Some(chain_use)) if !is_of(chain_use, ours.framing()) => None,
                (Marked::Except(..), Some(ChainUse::Table(framing, table, family))) => {
                    let key = |except| RuleKey::Except(framing, table, family, except);
                    except_of(rule, family).map(key)
                }
                (Marked::Route(..), Some(ChainUse::Table(framing, table, family))) => {
                    let key = |prefix| RuleKey::Route(framing, RouteKey { table, prefix });
                    route_of(rule, family).map(key)
                }
                (Marked::Bucket(_), Some(ChainUse::Group(framing, group))) => {
                    let bucket = bucket_of(rule);
                    bucket.map(|(bits, n)| RuleKey::Bucket(framing, group, bits, n))
                }
                (Marked::Hop(..), Some(ChainUse::Hop(framing, hop))) => {
                    Some(RuleKey::Hop(framing, hop))
                }
                _ => None,
            };
            match key.filter(|key| state.table.get(*key).is_none()) {
                Some(key) => {
                    let rule = planned(ours.observed, rule.clone());
                    observe(&mut state.table, Item::Rule(key), ours.observed, rule);
                    if let RuleKey::Bucket(_, group, bits, _) = key {
                        self.sets.insert(group, bits);
                    }
                }
                None => observe_stray(&mut state.table, &mut self.chains, ours.observed),
            }
        }
    }
}

impl BlockState {
    /// Whether what was found says nothing of how whole the rest is, or has no order with what is wished.
    fn is_misplaced(&self, layout: Layout, item: Item, entry: &RuleEntry) -> bool {
        let (Item::Rule(key), Some(rule)) = (item, &entry.applied) else {
            return matches!(item, Item::Stray(Chain::ENTRY, ..));
        };
        let (of, mac) = match key {
            RuleKey::Except(_, table, ..) => (table, None),
            RuleKey::Route(_, route) | RuleKey::Share(route, ..) => {
                (route.table, rule.rule.matches.dst_mac)
            }
            _ => return false,
        };
        match (layout, self.scope) {
            // Somebody who removed the entry may have begun to remove what is behind it, in any order.
            (Layout::Chained, _) => {
                let entry = self.table.get(RuleKey::Entry(rule.rule.protocol));
                entry.is_none_or(|entry| entry.applied.is_none())
            }
            (Layout::Flat, Some((table, own))) => {
                of != table || entry.is_moved() || mac.is_some_and(|mac| mac != own)
            }
            (Layout::Flat, None) => false,
        }
    }
}

const fn planned(observed: &ObservedRule, rule: FlowerRule) -> PlannedRule {
    PlannedRule {
        chain: observed.place.chain,
        prio: observed.place.prio,
        rule,
    }
}

fn observe(table: &mut RuleTable, item: Item, observed: &ObservedRule, rule: PlannedRule) {
    table.observe(
        item,
        observed.place.handle,
        rule,
        observed.hardware,
        observed.counters,
    );
}

fn observe_stray(table: &mut RuleTable, chains: &mut Chains, observed: &ObservedRule) {
    let place = observed.place;
    let Some(rule) = observed.rule.clone() else {
        return;
    };
    if place.chain != Chain::ENTRY {
        chains.adopt(ChainUse::Stray(place.chain), place.chain);
    }
    let item = Item::Stray(place.chain, place.prio, place.handle);
    observe(table, item, observed, planned(observed, rule));
}

/// Whether a chain is for packets that come in in that form.
const fn is_of(chain_use: ChainUse, framing: Framing) -> bool {
    match chain_use {
        ChainUse::Table(of, ..) | ChainUse::Group(of, _) | ChainUse::Hop(of, _) => {
            of as u8 == framing as u8
        }
        ChainUse::Admission | ChainUse::Stray(_) | ChainUse::Foreign(_) => true,
    }
}
