//! One switch: what is admitted, how that is written, and what stands in its blocks.
//!
//! Joins `plan` (which prefixes, which rules) and `reconcile` (in which order). Input: ports, hops, groups, prefixes whose wish
//! may have changed, and the rules that were found. Output: [`RuleWrite`]s. Every block of the switch has the same groups and hops
//! and the tables of its ports. Knows no clock and no netlink.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

use self::refusals::filtered;
use crate::model::{
    Block, Chain, Family, Framing, InHardware, MacAddr, ObservedRule, Prefix, Reason, Refusal,
    RouteKey, TableId, Timestamp,
};
use crate::plan::{
    AclPlan, ChainUse, Chains, Env, GroupKey, HopId, HopRule, Layout, LayoutConfig, Limits,
    PlannedPort, RuleKey, SwitchPlan, Target,
};
use crate::reconcile::{Item, Remedy, RuleEntry, RuleTable, RuleWrite};

/// The chains of ours begin here.
const FIRST_CHAIN: u32 = 1;

mod acl;
mod adopt;
mod refusals;
mod wants;

#[derive(Debug)]
struct BlockState {
    ports: Vec<PlannedPort>,
    table: RuleTable,
    /// In the flat layout: the table of the port and its address, which every rule of a prefix is for.
    scope: Option<(TableId, MacAddr)>,
    /// Whether its rules run in software ([`PlannedPort::software`]), as last said of a port.
    software: bool,
    /// Nothing is wished before all that is there is gone.
    empties: bool,
    /// It admits nothing: not all filter rules can be written.
    closed: bool,
}

impl BlockState {
    fn new(block: Block) -> Self {
        Self {
            ports: Vec::new(),
            table: RuleTable::new(block),
            scope: None,
            software: false,
            empties: false,
            closed: false,
        }
    }

    /// Rules of another scope stand in the same chain. They neither go with those of the new one nor can be told apart from them,
    /// so they go first; meanwhile the kernel has the packets.
    fn set_ports(&mut self, ports: Vec<PlannedPort>, layout: Layout) {
        self.ports = ports;
        // While hardware has a part of a list and software the rest, an exception would be missing in one of them.
        if !self.ports.is_empty() && self.software != self.is_software() {
            self.software = self.is_software();
            self.empties |= self.table.iter().next().is_some();
        }
        let admitting = self.ports.iter().find(|port| port.admits());
        let scope = admitting.map(|port| (port.table, port.mac));
        if scope.is_some() && scope != self.scope {
            // Where nothing was admitted, filter rules alone stand there, for whatever comes in; and what an earlier run has left.
            let other = |item| !matches!(item, Item::Rule(RuleKey::Acl(_)));
            let moves = self.scope.is_some() || self.table.iter().any(|(item, _)| other(item));
            self.empties |= layout == Layout::Flat && moves && self.table.iter().next().is_some();
            self.scope = scope;
        }
    }

    /// Whether packets get from here to the routes.
    fn forwards(&self) -> bool {
        self.ports.iter().any(PlannedPort::admits)
    }

    /// Whether only filter rules stand here, in software.
    fn is_software(&self) -> bool {
        self.ports.iter().any(|port| port.software)
    }

    /// Whether packets of that family that come in here, in that form, are looked up in that table.
    fn has_table(&self, framing: Framing, table: TableId, family: Family) -> bool {
        let serves = |port: &PlannedPort| {
            (port.framing(), port.table) == (framing, table) && port.families[family as usize]
        };
        self.ports.iter().any(serves)
    }

    /// Whether packets get from here to the routes in that form.
    fn has_framing(&self, framing: Framing) -> bool {
        let mut admitting = self.ports.iter().filter(|port| port.admits());
        admitting.any(|port| port.framing() == framing)
    }

    fn tables(&self) -> BTreeSet<(Framing, TableId, Family)> {
        let families = [Family::V4, Family::V6];
        let of = |port: &PlannedPort| {
            let (framing, table, has) = (port.framing(), port.table, port.families);
            families
                .into_iter()
                .filter(move |f| has[*f as usize])
                .map(move |f| (framing, table, f))
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
    acl: AclPlan,
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
            acl: AclPlan::default(),
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

    /// Prefixes that had to go for want of room since the last call.
    pub fn take_evicted(&mut self) -> Vec<RouteKey> {
        self.plan.take_evicted()
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

    /// The rules of a prefix in every block that should have them, for packets that come in in that form.
    pub fn rules_of(
        &self,
        framing: Framing,
        route: RouteKey,
    ) -> impl Iterator<Item = (Block, &RuleEntry)> {
        self.blocks.iter().flat_map(move |(block, state)| {
            let rules = state.table.rules_of(framing, route);
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
        let slots = self.plan.limits().acl_slots != limits.acl_slots;
        self.with_env(env, |plan, env| plan.set_limits(env, limits));
        if slots {
            self.replace_acl();
        }
        // What is behind the filter rules moves with their slots; in the flat layout, where it stands in one chain with the exceptions,
        // it goes first.
        if slots && self.layout() == Layout::Flat {
            for state in self.blocks.values_mut() {
                state.empties |= state.table.iter().next().is_some();
            }
        }
        if turns || slots {
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
            doubled: now.doubled.clone(),
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
            self.settle_filters();
        }
        let most = self.plan.limits().capacity.unwrap_or(usize::MAX);
        for state in self.blocks.values_mut() {
            state.table.poll_retries(now);
            let left = budget.saturating_sub(out.len());
            let most = if state.is_software() {
                usize::MAX
            } else {
                most
            };
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
                if matches!(done.item, Item::Rule(RuleKey::Acl(_))) {
                    self.replace_acl();
                }
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

    fn release_chain(&mut self, key: RuleKey) {
        let unused = |framing| {
            let mut blocks = self.blocks.values();
            !blocks.any(|state| state.has_framing(framing))
        };
        let of = match key {
            RuleKey::Hop(framing, hop) if self.plan.hop(hop).is_none() || unused(framing) => {
                ChainUse::Hop(framing, hop)
            }
            RuleKey::Bucket(framing, group, ..)
                if self.plan.buckets(group).is_none() || unused(framing) =>
            {
                ChainUse::Group(framing, group)
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

const fn rule_key(item: Item) -> Option<RuleKey> {
    match item {
        Item::Rule(key) => Some(key),
        Item::Stray(..) => None,
    }
}
