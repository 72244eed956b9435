//! What the driver does not take: kept in its words, kept out of the plan, and tried again now and then.
//!
//! A refused hop or group keeps out every prefix that leads there, a refused prefix (or the guard below it) only itself. Rules that
//! nothing goes without, as exceptions and admission, are not given up. Which errno means a refusal, and that a table is full, is
//! decided in `reconcile`.

use rustc_hash::FxHashMap;

use super::Switch;
use crate::model::{Framing, Reason, Refusal, RouteKey, Timestamp};
use crate::plan::{Env, Limits, RouteRule, RuleKey, Target, Wish};
use crate::reconcile::{Failure, Item};

impl Switch {
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

    pub(super) fn refuse(&mut self, env: &Env<'_>, item: Item, refusal: &Refusal) {
        match item {
            Item::Rule(RuleKey::Route(_, key) | RuleKey::Share(key, ..)) => {
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
            Item::Rule(RuleKey::Hop(_, hop)) => {
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
            Item::Rule(RuleKey::Bucket(_, group, ..)) => {
                self.refuse_target(env, Target::Group(group), refusal);
            }
            // Nothing goes in without these; they are tried again.
            Item::Rule(
                RuleKey::Acl(_) | RuleKey::Entry(_) | RuleKey::Admit(..) | RuleKey::Except(..),
            )
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
            Item::Rule(RuleKey::Route(_, route) | RuleKey::Share(route, ..)) => route == key,
            Item::Rule(RuleKey::Except(_, of, version, _)) => (of, version) == (table, family),
            Item::Rule(RuleKey::Admit(_, version)) => version == family,
            // One that is missing closes the block.
            Item::Rule(RuleKey::Acl(_)) => true,
            Item::Rule(RuleKey::Entry(protocol)) => protocol.family().is_none_or(|of| of == family),
            Item::Rule(RuleKey::Bucket(_, group, ..)) => target == Some(Target::Group(group)),
            Item::Rule(RuleKey::Hop(_, hop)) => match target {
                Some(Target::Hop(of)) => of == hop,
                Some(Target::Group(group)) => self.plan.members(group).any(|of| of == hop),
                None => false,
            },
            Item::Stray(..) => false,
        };
        let blocks = self.blocks.values().filter(|state| {
            Framing::ALL
                .iter()
                .any(|framing| state.has_table(*framing, table, family))
        });
        let mut failing = blocks.flat_map(|state| state.table.failing());
        failing
            .find(|(item, _)| needs(*item))
            .map(|(_, failure)| failure)
    }
}

/// A target that the driver refused is none.
pub(super) fn filtered(refused: &FxHashMap<Target, Refusal>, wish: Wish) -> Wish {
    match wish {
        Wish::Forward(target) if refused.contains_key(&target) => Wish::Slow(Reason::DriverRefused),
        wish => wish,
    }
}
