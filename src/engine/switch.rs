//! One switch: what is admitted, how that is written, and what stands in its blocks.
//!
//! Joins `plan` (which prefixes, which rules) and `reconcile` (in which order). Input: ports, hops, groups, prefixes whose wish
//! may have changed, and the rules that were found. Output: [`RuleWrite`]s. Every block of the switch has the same groups and hops
//! and the tables of its ports. Knows no clock and no netlink.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{
    Block, Chain, EtherProto, Family, FlowerRule, InHardware, Masked, ObservedRule, Prefix, Prio,
    Reason, Refusal, RouteKey, RuleAction, RulePlace, TableId, Timestamp,
};
use crate::plan::{
    ChainUse, Chains, Changed, Env, Except, GroupKey, HopId, HopRule, LayoutConfig, LayoutContext,
    Limits, Marked, PlannedPort, PlannedRule, RouteRule, RuleKey, SwitchPlan, Target, Wish,
    fixed_exceptions, read_mark,
};
use crate::reconcile::{Item, Remedy, RuleEntry, RuleTable, RuleWrite};

/// The chains of ours begin here.
const FIRST_CHAIN: u32 = 1;
/// Priorities of ours in chain 0: one a protocol.
const PRIOS: u16 = 3;

#[derive(Debug)]
struct BlockState {
    ports: Vec<PlannedPort>,
    table: RuleTable,
}

impl BlockState {
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
    refused_targets: FxHashMap<Target, Reason>,
    /// What the operator says, which refusals may only lower.
    capacity: Option<usize>,
    /// Found before the first plan; taken over by [`Self::start`].
    found: BTreeMap<Block, Vec<ObservedRule>>,
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
            found: BTreeMap::new(),
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
        planned && self.blocks.values().all(|block| block.table.is_settled())
    }

    /// Sets the ports; blocks without any are forgotten once they are empty.
    pub fn set_ports(&mut self, env: &Env<'_>, ports: Vec<PlannedPort>) {
        let mut by_block: BTreeMap<Block, Vec<PlannedPort>> = BTreeMap::new();
        for port in ports {
            by_block.entry(port.block).or_default().push(port);
        }
        for (block, state) in &mut self.blocks {
            state.ports = by_block.remove(block).unwrap_or_default();
        }
        for (block, ports) in by_block {
            let table = RuleTable::new(block);
            self.blocks.insert(block, BlockState { ports, table });
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

    /// Notes rules that stand in a block, ours or not, before the start; whether prefixes of an earlier run are among them.
    pub fn find(&mut self, block: Block, rules: Vec<ObservedRule>) -> bool {
        let of_prefix = |rule: &ObservedRule| {
            matches!(rule.cookie.and_then(read_mark), Some(Marked::Route(..)))
        };
        let adopts = rules.iter().any(of_prefix);
        self.found.entry(block).or_default().extend(rules);
        adopts
    }

    /// Rules of a probe that was cut off, among those that were found.
    pub fn left_by_probe(&self, block: Block) -> Vec<(RulePlace, EtherProto)> {
        let found = self.found.get(&block).into_iter().flatten();
        found
            .filter(|rule| rule.cookie.and_then(read_mark) == Some(Marked::Probe))
            .filter_map(|rule| Some((rule.place, rule.rule.as_ref()?.protocol)))
            .collect()
    }

    /// Everything is known: takes over what an earlier run has left, and begins to write.
    pub fn start(&mut self, env: &Env<'_>) {
        if self.started {
            return;
        }
        self.started = true;
        // Nothing has a chain yet, and what is admitted is planned: so every rule that means the same is found again.
        let found = std::mem::take(&mut self.found);
        self.keep_clear(found.values().flatten().filter(|rule| !is_ours(rule)));
        for (block, rules) in found {
            // A port that is none any more has rules that must go.
            self.blocks.entry(block).or_insert_with(|| BlockState {
                ports: Vec::new(),
                table: RuleTable::new(block),
            });
            self.adopt(env, block, &rules);
        }
        self.rewant();
    }

    /// Compares a block with what was read back: rules that others changed or deleted are dirty, strays are to go.
    pub fn audit(&mut self, block: Block, rules: &[ObservedRule]) -> usize {
        let Some(state) = self.blocks.get_mut(&block) else {
            return 0;
        };
        let mut seen = FxHashSet::default();
        let mut mended = 0;
        let mut strays = Vec::new();
        for observed in rules.iter().filter(|rule| is_ours(rule)) {
            match state.table.item_at(observed.place) {
                Some(item) => {
                    seen.insert(item);
                    let planned = observed.rule.clone().map(|rule| planned(observed, rule));
                    let Some(planned) = planned else { continue };
                    let changed = match item {
                        Item::Rule(key) => state.table.get(key).is_some_and(|entry| {
                            entry.sent.is_none() && entry.applied.as_deref() != Some(&planned)
                        }),
                        Item::Stray(..) => false,
                    };
                    mended += usize::from(changed);
                    state.table.observe(
                        item,
                        observed.place.handle,
                        planned,
                        observed.hardware,
                        observed.counters,
                    );
                }
                None => strays.push(observed.clone()),
            }
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
            observe_stray(&mut state.table, &mut self.chains, &stray);
        }
        mended
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
            Remedy::Refused => self.refuse(env, done.item, Some(Reason::DriverRefused)),
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
        let targets: Vec<_> = self
            .refused_targets
            .drain()
            .map(|(target, _)| target)
            .collect();
        let mut keys: Vec<_> = self.plan.refused().map(|(key, _)| key).collect();
        for key in &keys {
            self.with_env(env, |plan, env| plan.set_refused(env, *key, None));
        }
        if !targets.is_empty() {
            keys = env.lookup.keys().collect();
            for key in keys {
                let wish = (env.wish)(key);
                if let Wish::Forward(target) = wish
                    && targets.contains(&target)
                {
                    self.update(env, key);
                }
            }
        }
    }

    fn refuse(&mut self, env: &Env<'_>, item: Item, reason: Option<Reason>) {
        match item {
            Item::Rule(RuleKey::Route(key)) => {
                self.with_env(env, |plan, env| plan.set_refused(env, key, reason));
            }
            Item::Rule(RuleKey::Hop(hop)) => {
                let groups: Vec<_> = self.sets.keys().copied().collect();
                self.refuse_target(env, Target::Hop(hop));
                for group in groups {
                    if self
                        .plan
                        .buckets(group)
                        .is_some_and(|hops| hops.contains(&hop))
                    {
                        self.refuse_target(env, Target::Group(group));
                    }
                }
            }
            Item::Rule(RuleKey::Bucket(group, ..)) => self.refuse_target(env, Target::Group(group)),
            Item::Rule(RuleKey::Entry(_) | RuleKey::Admit(..) | RuleKey::Except(..))
            | Item::Stray(..) => {}
        }
    }

    fn refuse_target(&mut self, env: &Env<'_>, target: Target) {
        self.refused_targets.insert(target, Reason::DriverRefused);
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
                    Item::Rule(RuleKey::Route(key)) => keys.push(Changed::Route(key)),
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
        // A hop before the groups that lead to it, these before the prefixes: chains are given out in the order of need.
        changed.sort_unstable_by(|a, b| b.cmp(a));
        for change in changed {
            self.want_changed(change);
        }
    }

    fn want_changed(&mut self, change: Changed) {
        match change {
            Changed::Hop(hop) => self.want_everywhere(RuleKey::Hop(hop)),
            Changed::Route(key) => {
                for at in 0..self.blocks.len() {
                    self.want_in(at, RuleKey::Route(key));
                }
            }
            Changed::Group(group) => {
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
            RuleKey::Route(route) => state.has_table(route.table),
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
            exceptions + admission + 2
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
        let free = |first: &u16| {
            taken
                .range(*first..first.saturating_add(PRIOS))
                .next()
                .is_none()
        };
        if let Some(first) = (wished..=u16::MAX - PRIOS).find(free).and_then(Prio::new) {
            self.config.first_prio = first;
        }
    }

    /// Gives rules of an earlier run their meaning back.
    fn adopt(&mut self, env: &Env<'_>, block: Block, rules: &[ObservedRule]) {
        let ours: Vec<(&ObservedRule, Marked, &FlowerRule)> = rules
            .iter()
            .filter_map(|rule| Some((rule, read_mark(rule.cookie?)?, rule.rule.as_ref()?)))
            .collect();
        let hops: FxHashMap<u64, HopId> = self
            .plan
            .hops_in_use()
            .map(|hop| (hop.digest(), hop))
            .collect();
        for (observed, marked, _) in &ours {
            let chain = observed.place.chain;
            let of = match marked {
                Marked::Admit(_) => ChainUse::Admission,
                Marked::Except(table, family) | Marked::Route(table, family) => {
                    ChainUse::Table(*table, *family)
                }
                Marked::Hop(_, hash) => match hops.get(hash) {
                    Some(hop) => ChainUse::Hop(*hop),
                    None => continue,
                },
                Marked::Entry | Marked::Bucket(_) | Marked::Probe => continue,
            };
            self.chains.adopt(of, chain);
        }
        self.adopt_groups(env, &ours);
        let Some(state) = self.blocks.get_mut(&block) else {
            return;
        };
        for (observed, marked, rule) in &ours {
            let chain_use = self.chains.use_of(observed.place.chain);
            let key = match (marked, chain_use) {
                (Marked::Entry, _) if observed.place.chain == Chain::ENTRY => {
                    Some(RuleKey::Entry(rule.protocol))
                }
                (Marked::Admit(family), Some(ChainUse::Admission)) => state
                    .ports
                    .iter()
                    .find(|port| {
                        Some(port.mac) == rule.matches.dst_mac
                            && rule
                                .matches
                                .indev
                                .as_ref()
                                .is_none_or(|name| *name == port.name)
                    })
                    .map(|port| RuleKey::Admit(port.dev, *family)),
                (Marked::Except(..), Some(ChainUse::Table(table, family))) => {
                    except_of(rule).map(|except| RuleKey::Except(table, family, except))
                }
                (Marked::Route(..), Some(ChainUse::Table(table, family))) => {
                    route_of(rule, family).map(|prefix| RuleKey::Route(RouteKey { table, prefix }))
                }
                (Marked::Bucket(_), Some(ChainUse::Group(group))) => {
                    bucket_of(rule).map(|(bits, n)| RuleKey::Bucket(group, bits, n))
                }
                (Marked::Hop(..), Some(ChainUse::Hop(hop))) => Some(RuleKey::Hop(hop)),
                _ => None,
            };
            let free = key.filter(|key| state.table.get(*key).is_none());
            match free {
                Some(key) => state.table.observe(
                    Item::Rule(key),
                    observed.place.handle,
                    planned(observed, (*rule).clone()),
                    observed.hardware,
                    observed.counters,
                ),
                None => observe_stray(&mut state.table, &mut self.chains, observed),
            }
        }
        // A chain that a rule of then still leads to is not free, even when it is empty.
        for (_, _, rule) in &ours {
            if let Some(RuleAction::Goto(chain)) = rule.actions.last() {
                self.chains.adopt(ChainUse::Stray(*chain), *chain);
            }
        }
        // A rule that bears our mark and can't be read is not one of this version.
        let unreadable = |rule: &&ObservedRule| is_ours(rule) && rule.rule.is_none();
        for observed in rules.iter().filter(unreadable) {
            observe_stray(&mut state.table, &mut self.chains, observed);
        }
        for (observed, _, rule) in &ours {
            if let Some((bits, _)) = bucket_of(rule)
                && let Some(ChainUse::Group(group)) = self.chains.use_of(observed.place.chain)
            {
                self.sets.insert(group, bits);
            }
        }
    }

    /// A chain whose buckets lead to the members of a group is that group's, and their owners are its memory.
    fn adopt_groups(&mut self, env: &Env<'_>, ours: &[(&ObservedRule, Marked, &FlowerRule)]) {
        let mut found: BTreeMap<Chain, BTreeMap<u16, (u8, HopId)>> = BTreeMap::new();
        for (observed, marked, rule) in ours {
            if let Marked::Bucket(_) = marked
                && let Some((bits, n)) = bucket_of(rule)
                && let Some(RuleAction::Goto(chain)) = rule.actions.last()
                && let Some(ChainUse::Hop(hop)) = self.chains.use_of(*chain)
            {
                found
                    .entry(observed.place.chain)
                    .or_default()
                    .insert(n, (bits, hop));
            }
        }
        let mut groups: Vec<GroupKey> = self.plan.groups_in_use().collect();
        groups.sort_unstable();
        for group in groups {
            if self.chains.get(ChainUse::Group(group)).is_some() {
                continue;
            }
            let members: BTreeSet<HopId> = self.plan.members(group).collect();
            let whole = |buckets: &BTreeMap<u16, (u8, HopId)>| {
                let bits = buckets.values().next().map_or(0, |(bits, _)| *bits);
                buckets.len() == 1 << bits && buckets.values().all(|(b, _)| *b == bits)
            };
            let owners = |buckets: &BTreeMap<u16, (u8, HopId)>| -> BTreeSet<HopId> {
                buckets.values().map(|(_, hop)| *hop).collect()
            };
            let wished = self.plan.buckets(group).unwrap_or_default();
            let leads = |buckets: &BTreeMap<u16, (u8, HopId)>| -> Vec<HopId> {
                buckets.values().map(|(_, hop)| *hop).collect()
            };
            // The very same buckets, or else the same members: two groups may have the same with other weights.
            let chain = found
                .iter()
                .filter(|(_, buckets)| {
                    !members.is_empty() && whole(buckets) && owners(buckets) == members
                })
                .max_by_key(|(_, buckets)| leads(buckets) == wished)
                .map(|(chain, _)| *chain);
            if let Some(chain) = chain
                && let Some(buckets) = found.remove(&chain)
                && self.chains.adopt(ChainUse::Group(group), chain)
            {
                let owners = leads(&buckets);
                self.with_env(env, |plan, env| plan.adopt_buckets(env, group, &owners));
            }
        }
    }
}

/// A target that the driver refused is none.
fn filtered(refused: &FxHashMap<Target, Reason>, wish: Wish) -> Wish {
    match wish {
        Wish::Forward(target) => refused
            .get(&target)
            .map_or(wish, |reason| Wish::Slow(*reason)),
        Wish::Discard | Wish::Slow(_) => wish,
    }
}

const fn rule_key(item: Item) -> Option<RuleKey> {
    match item {
        Item::Rule(key) => Some(key),
        Item::Stray(..) => None,
    }
}

fn is_ours(rule: &ObservedRule) -> bool {
    rule.cookie.and_then(read_mark).is_some()
}

const fn planned(observed: &ObservedRule, rule: FlowerRule) -> PlannedRule {
    PlannedRule {
        chain: observed.place.chain,
        prio: observed.place.prio,
        rule,
    }
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
    table.observe(
        item,
        place.handle,
        planned(observed, rule),
        observed.hardware,
        observed.counters,
    );
}

fn except_of(rule: &FlowerRule) -> Option<Except> {
    let matches = &rule.matches;
    if matches.ttl.is_some() {
        return Some(Except::Expiring);
    }
    match (matches.src, matches.dst) {
        (Some(src), None) => prefix_of(src).map(Except::From),
        (None, Some(dst)) => prefix_of(dst).map(Except::To),
        (None, None) => route_of(rule, rule.protocol.family()?).map(Except::To),
        (Some(_), Some(_)) => None,
    }
}

fn route_of(rule: &FlowerRule, family: Family) -> Option<Prefix> {
    if let Some(dst) = rule.matches.dst {
        prefix_of(dst)
    } else {
        let any = match family {
            Family::V4 => Masked::v4(0, 0),
            Family::V6 => Masked::v6(0, 0),
        };
        prefix_of(any)
    }
}

fn bucket_of(rule: &FlowerRule) -> Option<(u8, u16)> {
    match rule.matches.src {
        None => Some((0, 0)),
        Some(Masked::V4 { addr, mask }) => {
            Some((mask.trailing_ones() as u8, u16::try_from(addr).ok()?))
        }
        Some(Masked::V6 { addr, mask }) => {
            Some((mask.trailing_ones() as u8, u16::try_from(addr).ok()?))
        }
    }
}

fn prefix_of(masked: Masked) -> Option<Prefix> {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    match masked {
        Masked::V4 { addr, mask } if mask.leading_ones() == mask.count_ones() => Prefix::new(
            IpAddr::V4(Ipv4Addr::from_bits(addr)),
            mask.count_ones() as u8,
        )
        .ok(),
        Masked::V6 { addr, mask } if mask.leading_ones() == mask.count_ones() => Prefix::new(
            IpAddr::V6(Ipv6Addr::from_bits(addr)),
            mask.count_ones() as u8,
        )
        .ok(),
        _ => None,
    }
}
