//! What admitted prefixes lead to: hops and groups, how many use them, and the rules they cost.
//!
//! One that is in use has rules, the others are only remembered, so that they are there when a prefix comes. In the flat layout they
//! have no rules of their own: the buckets of a group stand with each prefix that leads there. Which prefixes are admitted is decided
//! in the parent module, which calls `hold` and `release`.

use rustc_hash::FxHashMap;

use super::{Changed, HopId, HopRule, RouteRule, SwitchPlan, Target};
use crate::model::RouteKey;
use crate::plan::{Buckets, Env, GroupKey, Layout, Member, share_out};

#[derive(Debug, Default)]
pub(super) struct Group {
    /// Live members.
    members: Box<[(HopId, u16)]>,
    buckets: Buckets,
    users: usize,
}

#[derive(Debug)]
pub(super) struct Hop {
    rule: HopRule,
    users: usize,
}

impl SwitchPlan {
    /// The buckets of a group that is in use, as hops; empty when none of its members is live.
    pub fn buckets(&self, group: GroupKey) -> Option<Vec<HopId>> {
        let group = self.groups.get(&group).filter(|group| group.users > 0)?;
        let by_hash: FxHashMap<u64, HopId> = group
            .members
            .iter()
            .map(|(hop, _)| (hop.digest(), *hop))
            .collect();
        Some(
            group
                .buckets
                .owners()
                .iter()
                .map(|hash| by_hash[hash])
                .collect(),
        )
    }

    /// What a hop that is in use does.
    pub fn hop(&self, hop: HopId) -> Option<HopRule> {
        self.hops
            .get(&hop)
            .filter(|hop| hop.users > 0)
            .map(|hop| hop.rule)
    }

    /// The hops that something leads to.
    pub fn hops_in_use(&self) -> impl Iterator<Item = HopId> + '_ {
        self.hops
            .iter()
            .filter(|(_, hop)| hop.users > 0)
            .map(|(id, _)| *id)
    }

    /// The groups that something leads to.
    pub fn groups_in_use(&self) -> impl Iterator<Item = GroupKey> + '_ {
        self.groups
            .iter()
            .filter(|(_, group)| group.users > 0)
            .map(|(key, _)| *key)
    }

    /// Sets what a hop does.
    pub fn set_hop(&mut self, id: HopId, rule: HopRule) {
        let hop = self.hops.entry(id).or_insert(Hop { rule, users: 0 });
        if hop.rule != rule {
            hop.rule = rule;
            self.changed.insert(Changed::Hop(id));
        }
    }

    /// Forgets hops and groups that nothing uses.
    pub fn forget_unused(&mut self) {
        self.hops.retain(|_, hop| hop.users > 0);
        self.groups.retain(|_, group| group.users > 0);
    }

    /// Sets the live members of a group, with weights from 1.
    pub fn set_group(&mut self, env: &Env<'_>, key: GroupKey, members: &[(HopId, u16)]) {
        let bits = self.limits.bucket_bits;
        let was = self.cost_with(key);
        let group = self.groups.entry(key).or_default();
        let hashed: Vec<Member> = members
            .iter()
            .map(|(hop, weight)| (hop.digest(), *weight))
            .collect();
        let buckets = share_out(&group.buckets, &hashed, bits);
        let (before, after) = (group.cost(), buckets.owners().len().max(1));
        let old = std::mem::replace(&mut group.members, members.into());
        if group.buckets == buckets && old == group.members {
            return;
        }
        group.buckets = buckets;
        if group.users > 0 {
            let times = self.limits.sets_of(group.users);
            self.used = self.used - times * before + times * after;
            for (hop, _) in members {
                self.hold_hop(*hop);
            }
            for (hop, _) in old {
                self.release_hop(hop);
            }
            self.changed.insert(Changed::Group(key));
            self.fit(env);
        }
        let is = self.cost_with(key);
        self.cheaper(was.saturating_sub(is));
    }

    /// Who had the buckets of a group in an earlier run, by [`HopId::digest`]: what can stay, stays.
    pub fn adopt_buckets(&mut self, env: &Env<'_>, key: GroupKey, owners: &[u64]) {
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        let before = group.cost();
        group.buckets = Buckets::of(owners.into());
        let after = group.cost();
        if group.users > 0 {
            let times = self.limits.sets_of(group.users);
            self.used = self.used - times * before + times * after;
        }
        let members = group.members.clone();
        self.set_group(env, key, &members);
        self.fit(env);
    }

    /// The live members of a group that is in use.
    pub fn members(&self, group: GroupKey) -> impl Iterator<Item = HopId> + '_ {
        let group = self.groups.get(&group).filter(|group| group.users > 0);
        group
            .into_iter()
            .flat_map(|group| group.members.iter().map(|(hop, _)| *hop))
    }

    /// The buckets of all groups anew, for another number of bits.
    pub(super) fn share_out_again(&mut self, env: &Env<'_>) {
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|(key, g)| (*key, g.members.clone()))
            .collect();
        for (key, members) in groups {
            self.set_group(env, key, &members);
        }
    }

    /// What is in use, counted anew.
    pub(super) fn count(&self) -> usize {
        let rules = self.rules().map(|(key, rule)| self.cost(key, rule));
        let shared = match self.limits.layout {
            Layout::Chained => {
                let groups = self.groups.values().filter(|group| group.users > 0);
                let once = groups.map(Group::cost).sum::<usize>() + self.hops_in_use().count();
                once * self.limits.times_target()
            }
            Layout::Flat => 0,
        };
        rules.sum::<usize>() + shared
    }

    /// Rules that a prefix has for itself.
    pub(super) fn cost(&self, key: RouteKey, rule: RouteRule) -> usize {
        match (self.limits.layout, rule) {
            (Layout::Flat, RouteRule::Forward(Target::Group(group))) => {
                self.groups.get(&group).map_or(1, Group::cost)
            }
            (Layout::Flat, _) => 1,
            (Layout::Chained, _) => self.limits.times_route(key.table),
        }
    }

    /// What changes with a group of what a prefix costs that begins to lead there.
    fn cost_with(&self, group: GroupKey) -> usize {
        match self.limits.layout {
            Layout::Flat => self.groups.get(&group).map_or(1, Group::cost),
            Layout::Chained => self.cost_of_new_user(Target::Group(group)),
        }
    }

    pub(super) fn cost_of_new_user(&self, target: Target) -> usize {
        if self.limits.layout == Layout::Flat {
            return 0;
        }
        let hop_cost = |hop: HopId| usize::from(self.hops.get(&hop).is_none_or(|h| h.users == 0));
        let once = match target {
            Target::Hop(hop) => hop_cost(hop),
            Target::Group(key) => match self.groups.get(&key) {
                Some(group) if group.users == 0 => {
                    group.cost()
                        + group
                            .members
                            .iter()
                            .map(|(hop, _)| hop_cost(*hop))
                            .sum::<usize>()
                }
                Some(_) => 0,
                None => Group::default().cost(),
            },
        };
        once * self.limits.times_target()
    }

    pub(super) fn hold(&mut self, target: Target) {
        match target {
            Target::Hop(hop) => self.hold_hop(hop),
            Target::Group(key) => {
                let group = self.groups.entry(key).or_default();
                group.users += 1;
                if group.users == 1 {
                    let cost = group.cost() * self.limits.times_target();
                    if self.limits.layout == Layout::Chained {
                        self.used += cost;
                    }
                    let members = group.members.clone();
                    for (hop, _) in members {
                        self.hold_hop(hop);
                    }
                    self.changed.insert(Changed::Group(key));
                    self.cheaper(cost);
                }
            }
        }
    }

    pub(super) fn release(&mut self, target: Target) {
        match target {
            Target::Hop(hop) => self.release_hop(hop),
            Target::Group(key) => {
                let Some(group) = self.groups.get_mut(&key) else {
                    unreachable!("a group that is released was held")
                };
                group.users -= 1;
                if group.users == 0 {
                    if self.limits.layout == Layout::Chained {
                        self.used -= group.cost() * self.limits.times_target();
                    }
                    let members = group.members.clone();
                    for (hop, _) in members {
                        self.release_hop(hop);
                    }
                    self.changed.insert(Changed::Group(key));
                }
            }
        }
    }

    fn hold_hop(&mut self, id: HopId) {
        let hop = self.hops.entry(id).or_insert(Hop {
            rule: HopRule::Slow,
            users: 0,
        });
        hop.users += 1;
        if hop.users == 1 {
            let cost = self.limits.times_target();
            if self.limits.layout == Layout::Chained {
                self.used += cost;
            }
            self.changed.insert(Changed::Hop(id));
            self.cheaper(cost);
        }
    }

    fn release_hop(&mut self, id: HopId) {
        let Some(hop) = self.hops.get_mut(&id) else {
            unreachable!("a hop that is released was held")
        };
        hop.users -= 1;
        if hop.users == 0 {
            if self.limits.layout == Layout::Chained {
                self.used -= self.limits.times_target();
            }
            self.changed.insert(Changed::Hop(id));
        }
    }
}

impl Group {
    /// Its rules: a bucket each, or one that hands everything to the kernel.
    fn cost(&self) -> usize {
        self.buckets.owners().len().max(1)
    }
}
