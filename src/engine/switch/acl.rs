//! The filter rules of a switch: which every block should have, in which slots, and whether what forwards may stand behind them.
//!
//! A block whose filter rules can't all be written is closed: it admits nothing, so all its packets are the kernel's, however loud that
//! is. So is every block while a list has no place: with more rules than the driver has priorities, or until what stands is gone,
//! where there is no room for two lists. Which rule waits for which is `reconcile`'s.

use std::collections::BTreeSet;

use super::{BlockState, Switch};
use crate::model::{Block, ObservedRule, Runs};
use crate::plan::{
    AclKey, AclPlan, Env, Layout, LayoutConfig, LayoutContext, Marked, PlannedRule, RuleKey,
    ScopedAcl, Standing, read_mark, slot_of,
};

/// Pieces of rules that are known by their mark alone.
const FIRST_FOUND: u16 = 0x8000;

impl Switch {
    /// The filter rules that are wished.
    pub const fn acl(&self) -> &AclPlan {
        &self.acl
    }

    /// Sets the filter rules.
    pub fn set_acl(&mut self, env: &Env<'_>, rules: Vec<ScopedAcl>) {
        if !self.acl.set(rules) {
            return;
        }
        self.count_overhead(env);
        self.replace_acl();
    }

    /// The list, or how much place there is for it, is another.
    pub(super) fn replace_acl(&mut self) {
        if self.started {
            self.place_acl();
            for at in 0..self.blocks.len() {
                self.want_acl(at);
            }
        }
    }

    /// Whether a block admits nothing because of its filter rules.
    pub fn is_closed(&self, block: Block) -> bool {
        let state = self.blocks.get(&block);
        state.is_some_and(|state| state.closed)
    }

    /// Finds slots beside what stands. Without room for that, what stands goes first; meanwhile the kernel has the packets.
    pub(super) fn place_acl(&mut self) {
        let mut standing = Standing::new();
        let rules = self.blocks.values().flat_map(|state| state.table.acl());
        for (key, _) in rules.filter(|(_, entry)| !entry.is_absent()) {
            // One that was found and goes has its slot, and is none that could stay.
            let found = key.piece >= FIRST_FOUND;
            let digest = if found { !key.digest } else { key.digest };
            standing.entry(key.slot).or_default().insert(digest);
        }
        let placed = self.acl.place(&standing, self.plan.limits().acl_slots);
        let fits = placed && self.holds_both_lists();
        if !fits && !standing.is_empty() {
            for state in self.blocks.values_mut() {
                state.empties |= state.table.iter().next().is_some();
            }
            self.rewant();
        }
    }

    /// Whether there is room for the list that is wished beside what goes of the one that stands.
    fn holds_both_lists(&self) -> bool {
        let limits = self.plan.limits();
        let Some(capacity) = limits.capacity else {
            return true;
        };
        let wished: BTreeSet<u64> = self.acl.iter().map(|(_, digest, _)| digest).collect();
        let goes = |state: &BlockState| {
            let rules = state.table.acl().filter(|(_, entry)| !entry.is_absent());
            let goes = rules.filter(|(key, _)| !wished.contains(&key.digest));
            goes.count()
        };
        let going = self.blocks.values().map(goes).max().unwrap_or(0);
        going == 0 || going + limits.overhead <= capacity
    }

    /// A rule that was found and goes from one block can't share its slot with the same rule, should ports that it is for come there.
    pub(super) fn part_from_found_acl(&mut self) {
        let mut there = self.blocks.values().flat_map(|state| state.table.acl());
        let shares = there.any(|(key, entry)| {
            let mut wished = self.acl.iter();
            key.piece >= FIRST_FOUND
                && !entry.is_absent()
                && wished.any(|(_, digest, slot)| (digest, slot) == (key.digest, Some(key.slot)))
        });
        drop(there);
        if shares {
            self.place_acl();
        }
    }

    /// The same for what an earlier run has left.
    pub(super) fn place_found_acl<'a>(&mut self, found: impl Iterator<Item = &'a ObservedRule>) {
        let mut standing = Standing::new();
        for observed in found {
            if let Some(key) = self.found_key(observed, 0) {
                standing.entry(key.slot).or_default().insert(key.digest);
            }
        }
        self.acl.place(&standing, self.plan.limits().acl_slots);
    }

    /// The key of a filter rule that was found: that of a wished rule, if it is one of these.
    pub(super) fn adopted_acl(
        wished: &[(AclKey, PlannedRule)],
        observed: &ObservedRule,
        found: AclKey,
    ) -> AclKey {
        let place = observed.place;
        let is = |rule: &PlannedRule| {
            (rule.chain, rule.prio) == (place.chain, place.prio)
                && Some(rule.rule.cookie) == observed.cookie
                && observed
                    .rule
                    .as_ref()
                    .is_some_and(|there| there.matches == rule.rule.matches)
        };
        let known = wished.iter().find(|(_, rule)| is(rule));
        known.map_or(found, |(key, _)| *key)
    }

    /// The key of a filter rule that is known by its mark alone: it goes, in its order.
    pub(super) fn found_key(&self, observed: &ObservedRule, n: usize) -> Option<AclKey> {
        let Marked::Acl(digest) = read_mark(observed.cookie?)? else {
            return None;
        };
        let first = self.config.first_prio;
        let prio = observed.place.prio;
        let protocol = observed.rule.as_ref()?.protocol;
        let slot = slot_of(first, prio, protocol);
        Some(AclKey {
            // What is not in our slots any more has its order all the same.
            slot: slot.unwrap_or_else(|| prio.get().saturating_sub(first.get()) / 2),
            digest,
            tagged: false,
            dev: None,
            vlan: None,
            piece: FIRST_FOUND.saturating_add(n as u16),
        })
    }

    /// The filter rules of a block.
    pub(super) fn acl_rules(&mut self, at: usize) -> Vec<(AclKey, PlannedRule)> {
        let Some(state) = self.blocks.values().nth(at) else {
            return Vec::new();
        };
        if state.empties || state.ports.is_empty() {
            return Vec::new();
        }
        // Such a block has nothing else, so software and hardware never mix.
        let software = LayoutConfig {
            runs: Runs::Software,
            ..self.config.clone()
        };
        let mut context = LayoutContext {
            config: if state.is_software() {
                &software
            } else {
                &self.config
            },
            plan: &self.plan,
            ports: &state.ports,
            chains: &mut self.chains,
        };
        context.acl_rules(&self.acl)
    }

    pub(super) fn want_acl(&mut self, at: usize) {
        let rules = self.acl_rules(at);
        let Some(state) = self.blocks.values_mut().nth(at) else {
            return;
        };
        let wished: BTreeSet<AclKey> = rules.iter().map(|(key, _)| *key).collect();
        let there = state.table.acl().map(|(key, _)| key);
        let stale: Vec<AclKey> = there.filter(|key| !wished.contains(key)).collect();
        for (key, rule) in rules {
            state.table.want(RuleKey::Acl(key), Some(rule));
        }
        for key in stale {
            state.table.want(RuleKey::Acl(key), None);
        }
    }

    /// Closes blocks whose filter rules are refused, and opens them again, be it because the block was lost with all its rules.
    pub(super) fn settle_filters(&mut self) {
        let mut turned = Vec::new();
        for (at, state) in self.blocks.values_mut().enumerate() {
            let closed = !self.acl.has_place() || state.table.fails_to_filter();
            if state.closed != closed {
                state.closed = closed;
                turned.push(at);
            }
        }
        match self.layout() {
            Layout::Chained => {
                for at in turned {
                    self.want_admission(at);
                }
            }
            Layout::Flat if turned.is_empty() => {}
            Layout::Flat => self.rewant(),
        }
    }
}
