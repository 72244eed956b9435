//! One switch: what is admitted, how that is written, and what stands in its blocks.
//!
//! Joins `plan` (which prefixes, which rules) and `reconcile` (in which order). Input: ports, hops, groups, prefixes whose wish
//! may have changed, and the rules that were found. Output: [`RuleWrite`]s. Every block of the switch has the same groups and hops
//! and the tables of its ports. Knows no clock and no netlink.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{
    Block, Chain, EtherProto, Family, InHardware, MacAddr, ObservedRule, Prefix, Reason, Refusal,
    RouteKey, TableId, Timestamp,
};
use crate::plan::{
    ChainUse, Chains, Changed, Env, Except, GroupKey, HopId, HopRule, Layout, LayoutConfig,
    LayoutContext, Limits, PlannedPort, RouteRule, RuleKey, SwitchPlan, Target, Wish,
    fixed_exceptions, keys_of,
};
use crate::reconcile::{Failure, Item, Remedy, RuleEntry, RuleTable, RuleWrite};

/// The chains of ours begin here.
const FIRST_CHAIN: u32 = 1;

mod adopt;

#[derive(Debug)]
struct BlockState {
    ports: Vec<PlannedPort>,
    table: RuleTable,
    /// In the flat layout: the table of the port and its address, which every rule of a prefix is for.
    scope: Option<(TableId, MacAddr)>,
    /// Nothing is wished before all that is there is gone.
    empties: bool,
}

impl BlockState {
    fn new(block: Block) -> Self {
        Self {
            ports: Vec::new(),
            table: RuleTable::new(block),
            scope: None,
            empties: false,
        }
    }

    /// Rules of another scope stand in the same chain. They neither go with those of the new one nor can be told apart from them,
    /// so they go first; meanwhile the kernel has the packets.
    fn set_ports(&mut self, ports: Vec<PlannedPort>, layout: Layout) {
        self.ports = ports;
        let scope = self.ports.first().map(|port| (port.table, port.mac));
        if scope.is_some() && scope != self.scope {
            self.empties |= layout == Layout::Flat && self.table.iter().next().is_some();
            self.scope = scope;
        }
    }

    fn has_table(&self, table: TableId) -> bool {
        self.ports.iter().any(|port| port.table == table)
    }

    fn tables(&self) -> BTreeSet<(TableId, Family)> {
        let families = [Family::V4, Family::V6];
        let of = |port: &PlannedPort| {
            let (table, has) = (port.table, port.families);
            families
                .into_iter()
                .filter(move |f| has[*f as usize])
                .map(move |f| (table, f))
        };
        self.ports.iter().flat_map(of).collect()
    }
}

/// A write that was refused and what it belongs to, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What.
    pub item: Item,
    /// What is done about it.
    pub remedy: Remedy,
    /// In the kernel's words.
    pub refusal: Refusal,
}

/// What a list of a block's rules shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audited {
    /// Rules of ours that others had deleted or changed.
    pub mended: usize,
    /// Whether a rule is in hardware that was not, or the other way round.
    pub moved: bool,
}

/// A switch.
#[derive(Debug)]
pub struct Switch {
    config: LayoutConfig,
    plan: SwitchPlan,
    chains: Chains,
    blocks: BTreeMap<Block, BlockState>,
    /// To this host, by table and family: the kernel's `local` table.
    locals: FxHashMap<(TableId, Family), BTreeSet<Prefix>>,
    /// The bucket set that is wished of each group.
    sets: FxHashMap<GroupKey, u8>,
    /// What the driver did not take, in its words.
    refused_targets: FxHashMap<Target, Refusal>,
    refused_routes: FxHashMap<RouteKey, Refusal>,
    /// What the operator says, which refusals may only lower.
    capacity: Option<usize>,
    /// Found before the first plan; taken over by [`Self::start`].
    found: BTreeMap<Block, Vec<ObservedRule>>,
    /// Groups whose chains were taken over, as long as not all that was found is as wished.
    adopted: FxHashSet<GroupKey>,
    started: bool,
}

impl Switch {
    /// Without ports; writes nothing before [`Self::start`].
    pub fn new(config: LayoutConfig, limits: Limits) -> Self {
        let Some(first) = Chain::new(FIRST_CHAIN) else {
            unreachable!("a small number")
        };
        Self {
            config,
            capacity: limits.capacity,
            plan: SwitchPlan::new(limits),
            chains: Chains::new(first),
            blocks: BTreeMap::new(),
            locals: FxHashMap::default(),
            sets: FxHashMap::default(),
            refused_targets: FxHashMap::default(),
            refused_routes: FxHashMap::default(),
            found: BTreeMap::new(),
            adopted: FxHashSet::default(),
            started: false,
        }
    }

    /// What is admitted.
    pub const fn plan(&self) -> &SwitchPlan {
        &self.plan
    }

    /// Who has which chain.
    pub const fn chains(&self) -> &Chains {
        &self.chains
    }

    /// How rules are written.
    pub const fn config(&self) -> &LayoutConfig {
        &self.config
    }

    /// The way in which rules are made.
    pub const fn layout(&self) -> Layout {
        self.plan.limits().layout
    }

    /// The rules of its blocks.
    pub fn tables(&self) -> impl Iterator<Item = (&RuleTable, &[PlannedPort])> {
        self.blocks
            .values()
            .map(|block| (&block.table, &block.ports[..]))
    }

    /// The rule of a key in every block that should have it.
    pub fn entries(&self, key: RuleKey) -> impl Iterator<Item = (Block, &RuleEntry)> {
        self.blocks
            .iter()
            .filter_map(move |(block, state)| Some((*block, state.table.get(key)?)))
    }

    /// The rules of a prefix in every block that should have them.
    pub fn rules_of(&self, route: RouteKey) -> impl Iterator<Item = (Block, &RuleEntry)> {
        self.blocks.iter().flat_map(move |(block, state)| {
            let rules = state.table.rules_of(route);
            rules.map(|(_, entry)| (*block, entry))
        })
    }

    /// Sets how rules are written; before the start.
    pub const fn set_config(&mut self, config: LayoutConfig) {
        self.config = config;
    }

    /// Whether writes are made.
    pub const fn is_started(&self) -> bool {
        self.started
    }

    /// Whether everything is as wished.
    pub fn is_settled(&self) -> bool {
        let planned = !self.plan.wants_refill() && !self.plan.has_changed();
        let settled = |block: &BlockState| !block.empties && block.table.is_settled();
        planned && self.blocks.values().all(settled)
    }

    /// Sets the ports; blocks without any are forgotten once they are empty.
    pub fn set_ports(&mut self, env: &Env<'_>, ports: Vec<PlannedPort>) {
        let mut by_block: BTreeMap<Block, Vec<PlannedPort>> = BTreeMap::new();
        for port in ports {
            by_block.entry(port.block).or_default().push(port);
        }
        for block in by_block.keys() {
            let fresh = || BlockState::new(*block);
            self.blocks.entry(*block).or_insert_with(fresh);
        }
        let layout = self.layout();
        for (block, state) in &mut self.blocks {
            state.set_ports(by_block.remove(block).unwrap_or_default(), layout);
        }
        self.count_overhead(env);
        self.rewant();
    }

    /// A block is gone with everything in it: its ports' qdiscs were deleted.
    pub fn lose_block(&mut self, block: Block) {
        if let Some(state) = self.blocks.get_mut(&block) {
            state.table.lose_all();
        }
    }

    /// A block whose last port is gone, links and all: nothing is left to be deleted.
    pub fn forget_block(&mut self, block: Block) {
        self.blocks.remove(&block);
        self.found.remove(&block);
    }

    /// Sets what is to this host.
    pub fn set_locals(
        &mut self,
        env: &Env<'_>,
        (table, family): (TableId, Family),
        locals: BTreeSet<Prefix>,
    ) {
        if self.locals.get(&(table, family)) == Some(&locals) {
            return;
        }
        self.locals.insert((table, family), locals);
        self.count_overhead(env);
        if self.started {
            for block in 0..self.blocks.len() {
                self.want_exceptions(block);
            }
        }
    }

    /// Sets what a hop does.
    pub fn set_hop(&mut self, hop: HopId, rule: HopRule) {
        self.plan.set_hop(hop, rule);
    }

    /// Sets the live members of a group.
    pub fn set_group(&mut self, env: &Env<'_>, group: GroupKey, members: &[(HopId, u16)]) {
        self.with_env(env, |plan, env| plan.set_group(env, group, members));
    }

    /// A prefix appeared, vanished, or its wish may have changed.
    pub fn update(&mut self, env: &Env<'_>, key: RouteKey) {
        self.with_env(env, |plan, env| plan.update(env, key));
    }

    /// Other limits.
    pub fn set_limits(&mut self, env: &Env<'_>, limits: Limits) {
        let turns = self.plan.limits().is_crowded() != limits.is_crowded();
        self.with_env(env, |plan, env| plan.set_limits(env, limits));
        if turns {
            self.rewant();
        }
    }

    /// What the operator says. What was learned of a full table stays, unless the operator says another number.
    pub fn set_configured(&mut self, env: &Env<'_>, limits: Limits) {
        let now = self.plan.limits();
        let capacity = if self.capacity == limits.capacity {
            now.capacity
        } else {
            limits.capacity
        };
        self.capacity = limits.capacity;
        let limits = Limits {
            capacity,
            overhead: now.overhead,
            ..limits
        };
        self.set_limits(env, limits);
    }

    /// Tries some prefixes that wait for room.
    pub fn refill(&mut self, env: &Env<'_>) {
        self.with_env(env, SwitchPlan::refill);
    }

    /// Why a prefix is not in hardware.
    pub fn reason(&self, env: &Env<'_>, key: RouteKey) -> Option<Reason> {
        let refused = &self.refused_targets;
        let wish = |key| filtered(refused, (env.wish)(key));
        self.plan.reason(
            &Env {
                lookup: env.lookup,
                wish: &wish,
            },
            key,
        )
    }

    /// Somebody removed a rule of ours.
    pub fn lose(&mut self, place: crate::model::RulePlace) -> bool {
        let Some(state) = self.blocks.get_mut(&place.block) else {
            return false;
        };
        state
            .table
            .item_at(place)
            .is_some_and(|item| state.table.lose(item))
    }

    /// Removes everything, admission first.
    pub fn withdraw(&mut self) {
        self.started = false;
        for state in self.blocks.values_mut() {
            let keys: Vec<_> = state
                .table
                .iter()
                .filter_map(|(item, _)| rule_key(item))
                .collect();
            for key in keys {
                state.table.want(key, None);
            }
        }
    }

    /// Whether nothing of ours is left.
    pub fn is_empty(&self) -> bool {
        self.blocks
            .values()
            .all(|state| state.table.iter().next().is_none())
    }

    /// Hands out writes of all blocks, at most about `budget`.
    pub fn poll(&mut self, now: Timestamp, budget: usize, out: &mut Vec<RuleWrite>) {
        if self.started {
            self.take_changes();
            self.trust_found();
            self.refill_emptied();
        }
        let most = self.plan.limits().capacity.unwrap_or(usize::MAX);
        for state in self.blocks.values_mut() {
            state.table.poll_retries(now);
            let left = budget.saturating_sub(out.len());
            state.table.poll(now, &self.chains, left, most, out);
        }
    }

    /// When [`Self::poll`] should be called again though nothing happens.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.blocks
            .values()
            .filter_map(|state| state.table.next_retry())
            .min()
    }

    /// A write came back.
    pub fn complete(
        &mut self,
        env: &Env<'_>,
        block: Block,
        (index, revision): (u32, u32),
        result: Result<InHardware, Refusal>,
        now: Timestamp,
    ) -> Option<Refused> {
        let state = self.blocks.get_mut(&block)?;
        let done = state.table.complete(index, revision, result, now)?;
        let held = state.table.held();
        let Some((remedy, refusal)) = done.refused else {
            if let Some(key) = rule_key(done.item) {
                self.release_chain(key);
            }
            return None;
        };
        match remedy {
            Remedy::Full => {
                let capacity = self
                    .plan
                    .limits()
                    .capacity
                    .map_or(held, |known| known.min(held));
                let limits = Limits {
                    capacity: Some(capacity),
                    ..self.plan.limits().clone()
                };
                self.set_limits(env, limits);
            }
            Remedy::Refused => self.refuse(env, done.item, &refusal),
            _ => {}
        }
        Some(Refused {
            item: done.item,
            remedy,
            refusal,
        })
    }

    /// What the driver refused may be tried again, and a table that was full be a little larger.
    pub fn retry_refused(&mut self, env: &Env<'_>, now: Timestamp) {
        let most = self.capacity.unwrap_or(usize::MAX);
        if let Some(learned) = self
            .plan
            .limits()
            .capacity
            .filter(|learned| *learned < most)
            && self
                .blocks
                .values()
                .all(|state| !state.table.waits_to_retry(now))
            && (self.plan.waits() || self.blocks.values().any(|state| state.table.has_dirty()))
        {
            let mut limits = Limits {
                capacity: Some(most.min(learned + (learned / 10).max(1))),
                ..self.plan.limits().clone()
            };
            if limits.is_crowded() {
                // Step by step nothing would be learned.
                limits.capacity = Some(most.min(2 * (limits.overhead + 1)));
            }
            self.set_limits(env, limits);
        }
        let targets = std::mem::take(&mut self.refused_targets);
        self.refused_routes.clear();
        let mut keys: Vec<_> = self.plan.refused().map(|(key, _)| key).collect();
        for key in &keys {
            self.with_env(env, |plan, env| plan.set_refused(env, *key, None));
        }
        if !targets.is_empty() {
            keys = env.lookup.keys().collect();
            for key in keys {
                let wish = (env.wish)(key);
                if let Wish::Forward(target) = wish
                    && targets.contains_key(&target)
                {
                    self.update(env, key);
                }
            }
        }
    }

    fn refuse(&mut self, env: &Env<'_>, item: Item, refusal: &Refusal) {
        match item {
            Item::Rule(RuleKey::Route(key) | RuleKey::Share(key, ..)) => {
                self.refused_routes.insert(key, refusal.clone());
                // Without its guard a prefix can't be in either.
                if self.plan.rule(key) == Some(RouteRule::Guard)
                    && let Some(parent) = env.lookup.parent(key)
                {
                    self.refused_routes.insert(parent, refusal.clone());
                }
                let reason = Some(Reason::DriverRefused);
                self.with_env(env, |plan, env| plan.set_refused(env, key, reason));
            }
            Item::Rule(RuleKey::Hop(hop)) => {
                let groups: Vec<_> = self.sets.keys().copied().collect();
                self.refuse_target(env, Target::Hop(hop), refusal);
                for group in groups {
                    if self
                        .plan
                        .buckets(group)
                        .is_some_and(|hops| hops.contains(&hop))
                    {
                        self.refuse_target(env, Target::Group(group), refusal);
                    }
                }
            }
            Item::Rule(RuleKey::Bucket(group, ..)) => {
                self.refuse_target(env, Target::Group(group), refusal);
            }
            // Nothing goes in without these; they are tried again.
            Item::Rule(RuleKey::Entry(_) | RuleKey::Admit(..) | RuleKey::Except(..))
            | Item::Stray(..) => {}
        }
    }

    fn refuse_target(&mut self, env: &Env<'_>, target: Target, refusal: &Refusal) {
        self.refused_targets.insert(target, refusal.clone());
        let users: Vec<_> = self
            .plan
            .rules()
            .filter(|(_, rule)| *rule == RouteRule::Forward(target))
            .map(|(key, _)| key)
            .collect();
        for key in users {
            self.update(env, key);
        }
    }

    /// What the driver said that keeps a prefix out, or keeps it from being as it should.
    pub fn refusal(&self, env: &Env<'_>, key: RouteKey) -> Option<&Refusal> {
        let of_target = |target| self.refused_targets.get(&target);
        let known = self
            .refused_routes
            .get(&key)
            .or_else(|| match (env.wish)(key) {
                Wish::Forward(target) => of_target(target),
                Wish::Discard | Wish::Slow(_) => None,
            });
        known.or_else(|| self.failure(key).map(|failure| &failure.refusal))
    }

    /// The last refusal of a rule that a prefix needs and that is tried again.
    pub fn failure(&self, key: RouteKey) -> Option<&Failure> {
        let (table, family) = (key.table, key.prefix.family());
        let target = match self.plan.rule(key) {
            Some(RouteRule::Forward(target)) => Some(target),
            _ => None,
        };
        let needs = |item: Item| match item {
            Item::Rule(RuleKey::Route(route) | RuleKey::Share(route, ..)) => route == key,
            Item::Rule(RuleKey::Except(of, version, _)) => (of, version) == (table, family),
            Item::Rule(RuleKey::Admit(_, version)) => version == family,
            Item::Rule(RuleKey::Entry(protocol)) => protocol == EtherProto::of(family),
            Item::Rule(RuleKey::Bucket(group, ..)) => target == Some(Target::Group(group)),
            Item::Rule(RuleKey::Hop(hop)) => match target {
                Some(Target::Hop(of)) => of == hop,
                Some(Target::Group(group)) => self.plan.members(group).any(|of| of == hop),
                None => false,
            },
            Item::Stray(..) => false,
        };
        let blocks = self.blocks.values().filter(|state| state.has_table(table));
        let mut failing = blocks.flat_map(|state| state.table.failing());
        failing
            .find(|(item, _)| needs(*item))
            .map(|(_, failure)| failure)
    }

    fn with_env(&mut self, env: &Env<'_>, act: impl FnOnce(&mut SwitchPlan, &Env<'_>)) {
        let refused = &self.refused_targets;
        let wish = |key| filtered(refused, (env.wish)(key));
        act(
            &mut self.plan,
            &Env {
                lookup: env.lookup,
                wish: &wish,
            },
        );
    }

    /// Looks at every rule again.
    fn rewant(&mut self) {
        if !self.started {
            return;
        }
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
                    Item::Rule(RuleKey::Route(key) | RuleKey::Share(key, ..)) => {
                        keys.push(Changed::Route(key));
                    }
                    Item::Rule(RuleKey::Bucket(group, ..)) => keys.push(Changed::Group(group)),
                    Item::Rule(RuleKey::Hop(hop)) => keys.push(Changed::Hop(hop)),
                    Item::Rule(RuleKey::Entry(_) | RuleKey::Admit(..) | RuleKey::Except(..))
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
            self.want_exceptions(block);
            self.want_admission(block);
        }
    }

    fn take_changes(&mut self) {
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

    fn want_changed(&mut self, change: Changed) {
        match change {
            Changed::Hop(_) | Changed::Group(_) if self.layout() == Layout::Flat => {}
            Changed::Hop(hop) => self.want_everywhere(RuleKey::Hop(hop)),
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
                        self.want_everywhere(RuleKey::Bucket(group, bits, n));
                    }
                }
            }
        }
    }

    fn want_route(&mut self, at: usize, route: RouteKey) {
        if self.layout() == Layout::Chained {
            return self.want_in(at, RuleKey::Route(route));
        }
        let wished = keys_of(&self.plan, route);
        let state = self.blocks.values().nth(at);
        let there = state
            .into_iter()
            .flat_map(|state| state.table.rules_of(route));
        let stale: Vec<RuleKey> = there
            .map(|(key, _)| key)
            .filter(|key| !wished.contains(key))
            .collect();
        for key in wished.into_iter().chain(stale) {
            self.want_in(at, key);
        }
    }

    /// What had to go before anything else could come is gone.
    fn refill_emptied(&mut self) {
        let mut emptied = false;
        for state in self.blocks.values_mut() {
            if state.empties && state.table.iter().next().is_none() {
                state.empties = false;
                emptied = true;
            }
        }
        if emptied {
            self.rewant();
        }
    }

    fn want_everywhere(&mut self, key: RuleKey) {
        for at in 0..self.blocks.len() {
            self.want_in(at, key);
        }
    }

    fn want_in(&mut self, at: usize, key: RuleKey) {
        let crowded = self.plan.limits().is_crowded();
        let Some(state) = self.blocks.values_mut().nth(at) else {
            return;
        };
        let wanted = match key {
            _ if state.empties => false,
            RuleKey::Route(route) | RuleKey::Share(route, ..) => state.has_table(route.table),
            // Where these do not all fit, no packet may go beyond chain 0: everything is the kernel's.
            RuleKey::Except(table, family, _) => {
                !crowded && state.tables().contains(&(table, family))
            }
            RuleKey::Entry(_) | RuleKey::Admit(..) => !crowded && !state.ports.is_empty(),
            RuleKey::Hop(_) | RuleKey::Bucket(..) => !state.ports.is_empty(),
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

    fn want_exceptions(&mut self, at: usize) {
        let Some(state) = self.blocks.values().nth(at) else {
            return;
        };
        let mut wished: BTreeSet<RuleKey> = BTreeSet::new();
        for (table, family) in state.tables() {
            wished.extend(
                self.exceptions(table, family)
                    .map(|except| RuleKey::Except(table, family, except)),
            );
        }
        let stale: Vec<RuleKey> = state
            .table
            .iter()
            .filter_map(|(item, _)| rule_key(item))
            .filter(|key| matches!(key, RuleKey::Except(..)) && !wished.contains(key))
            .collect();
        for key in wished {
            self.want_in(at, key);
        }
        if let Some(state) = self.blocks.values_mut().nth(at) {
            for key in stale {
                state.table.want(key, None);
            }
        }
    }

    fn want_admission(&mut self, at: usize) {
        let Some(state) = self.blocks.values().nth(at) else {
            return;
        };
        let mut wished: BTreeSet<RuleKey> = BTreeSet::new();
        for port in &state.ports {
            for family in [Family::V4, Family::V6] {
                if port.families[family as usize] {
                    wished.insert(RuleKey::Admit(port.dev, family));
                    wished.insert(RuleKey::Entry(EtherProto::of(family)));
                }
            }
        }
        let stale: Vec<RuleKey> = state
            .table
            .iter()
            .filter_map(|(item, _)| rule_key(item))
            .filter(|key| {
                matches!(key, RuleKey::Admit(..) | RuleKey::Entry(_)) && !wished.contains(key)
            })
            .collect();
        for key in wished {
            self.want_in(at, key);
        }
        if let Some(state) = self.blocks.values_mut().nth(at) {
            for key in stale {
                state.table.want(key, None);
            }
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

    /// Admission and exceptions count against the capacity, too.
    fn count_overhead(&mut self, env: &Env<'_>) {
        let of = |state: &BlockState| {
            let exceptions: usize = state
                .tables()
                .into_iter()
                .map(|(table, family)| self.exceptions(table, family).count())
                .sum();
            let admission: usize = state
                .ports
                .iter()
                .map(|port| port.families.iter().filter(|has| **has).count())
                .sum();
            match self.layout() {
                Layout::Chained => exceptions + admission + 2,
                Layout::Flat => exceptions,
            }
        };
        let overhead = self.blocks.values().map(of).max().unwrap_or(0);
        if overhead != self.plan.limits().overhead {
            let limits = Limits {
                overhead,
                ..self.plan.limits().clone()
            };
            self.set_limits(env, limits);
        }
    }

    fn release_chain(&mut self, key: RuleKey) {
        let of = match key {
            RuleKey::Hop(hop) if self.plan.hop(hop).is_none() => ChainUse::Hop(hop),
            RuleKey::Bucket(group, ..) if self.plan.buckets(group).is_none() => {
                ChainUse::Group(group)
            }
            _ => return,
        };
        if let Some(chain) = self.chains.get(of)
            && self.blocks.values().all(|state| state.table.is_idle(chain))
        {
            self.chains.release(of);
        }
    }
}

/// A target that the driver refused is none.
fn filtered(refused: &FxHashMap<Target, Refusal>, wish: Wish) -> Wish {
    match wish {
        Wish::Forward(target) if refused.contains_key(&target) => Wish::Slow(Reason::DriverRefused),
        wish => wish,
    }
}

const fn rule_key(item: Item) -> Option<RuleKey> {
    match item {
        Item::Rule(key) => Some(key),
        Item::Stray(..) => None,
    }
}
