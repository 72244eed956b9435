//! Which prefixes go to the hardware of one switch, and what stands beside them so that offload never changes where a packet goes.
//!
//! Owns the choice: *admitted* prefixes get a rule that forwards (or discards), and every prefix that the kernel would look up right
//! below an admitted one, and that is not admitted itself, gets a *guard*, a rule that hands its packets to the kernel:
//!
//! ```text
//! looked up by the kernel             wish               admitted   rule
//! 10.0.0.0/8      bgp                 forward to group 3    yes     goto group 3
//! 10.1.0.0/16     bgp, other NIC      slow path             no      guard          (its parent is admitted)
//! 10.1.2.0/24     bgp                 forward to hop 7      yes     goto hop 7
//! 10.1.3.0/24     connected           slow path             no      none           (10.1.0.0/16's guard has its packets)
//! ```
//!
//! So a guard is needed exactly below an admitted parent, which one look at the tree decides; no route has to know of more than
//! its parent and its children. Guards, groups and hops count against the capacity; in the flat layout a prefix has the rules of its
//! group itself. What is in stays in; what waits is tried in the order of [`Rank`]: longer prefixes first, because they need no
//! guards. Incremental and full plan are the same from the same memory, which is the set of admitted prefixes (law 2). What these
//! lead to is counted in `hops`. Knows no tc: `layout` makes rules of this.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

use self::hops::{Group, Hop};
use self::waiting::Waiting;
use super::{Env, GroupKey, Limits, last_inside};
use crate::model::{Family, IfIndex, MacAddr, Prefix, Reason, RouteKey, TableId};

mod hops;
mod waiting;

/// What identifies a hop in hardware: a neighbour, and the family of the packets (TTL or hop limit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HopId {
    /// Of the packets.
    pub family: Family,
    /// The link that they go out of.
    pub dev: IfIndex,
    /// The gateway as FRR means it, or the host itself.
    pub addr: std::net::IpAddr,
}

impl HopId {
    /// The same after a restart, and for the same neighbour whatever its Ethernet address.
    pub fn digest(self) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = rustc_hash::FxHasher::default();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// What a hop does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopRule {
    /// Rewrites and sends them.
    Send {
        /// The address of the link that they go out of.
        src: MacAddr,
        /// The neighbour's.
        dst: MacAddr,
        /// The port: that link, or the lower one of a VLAN sub-interface.
        out: IfIndex,
        /// The id of the 802.1Q tag that they bear then.
        tag: Option<u16>,
    },
    /// Hands them to the kernel: its neighbour or link is lost.
    Slow,
}

/// Where a rule of a prefix leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The only member of its group, or a host.
    Hop(HopId),
    /// The buckets of a group.
    Group(GroupKey),
}

/// What hardware should do with a prefix, were there no limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Forward.
    Forward(Target),
    /// Drop without a word.
    Discard,
    /// Leave it to the kernel, because.
    Slow(Reason),
}

/// The rule that a prefix has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteRule {
    /// Forwards.
    Forward(Target),
    /// Drops.
    Discard,
    /// Hands packets to the kernel.
    Guard,
}

impl RouteRule {
    /// Whether hardware decides itself.
    pub const fn is_admitted(self) -> bool {
        !matches!(self, Self::Guard)
    }
}

/// Something whose rules must be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Changed {
    /// The rule of a prefix.
    Route(RouteKey),
    /// The buckets of a group.
    Group(GroupKey),
    /// The rule of a hop.
    Hop(HopId),
}

/// The order in which prefixes are tried: longer first. The last one that is in is the first to go.
type Rank = (Reverse<u8>, RouteKey);

const fn rank(key: RouteKey) -> Rank {
    (Reverse(key.prefix.len()), key)
}

/// The plan of one switch.
#[derive(Debug)]
pub struct SwitchPlan {
    limits: Limits,
    rules: FxHashMap<(TableId, Family), BTreeMap<Prefix, RouteRule>>,
    groups: FxHashMap<GroupKey, Group>,
    hops: FxHashMap<HopId, Hop>,
    /// Rules of prefixes, buckets and hops in use.
    used: usize,
    admitted: BTreeSet<Rank>,
    waiting: Waiting,
    /// What the driver did not take, with the reason.
    refused: FxHashMap<RouteKey, Reason>,
    changed: FxHashSet<Changed>,
    /// Prefixes that had to go for want of room, since that was last asked.
    evicted: Vec<RouteKey>,
}

impl SwitchPlan {
    /// Nothing admitted yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rules: FxHashMap::default(),
            groups: FxHashMap::default(),
            hops: FxHashMap::default(),
            used: 0,
            admitted: BTreeSet::new(),
            waiting: Waiting::default(),
            refused: FxHashMap::default(),
            changed: FxHashSet::default(),
            evicted: Vec::new(),
        }
    }

    /// The rule of a prefix.
    pub fn rule(&self, key: RouteKey) -> Option<RouteRule> {
        self.rules
            .get(&(key.table, key.prefix.family()))?
            .get(&key.prefix)
            .copied()
    }

    /// All rules of prefixes.
    pub fn rules(&self) -> impl Iterator<Item = (RouteKey, RouteRule)> + '_ {
        self.rules.iter().flat_map(|(&(table, _), rules)| {
            rules
                .iter()
                .map(move |(&prefix, &rule)| (RouteKey { table, prefix }, rule))
        })
    }

    /// Rules in use, and what may be used.
    pub fn usage(&self) -> (usize, Option<usize>) {
        (self.used + self.limits.overhead, self.limits.capacity)
    }

    /// How many prefixes wait for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Prefixes that had to go for want of room since the last call, in the order in which they went.
    pub fn take_evicted(&mut self) -> Vec<RouteKey> {
        std::mem::take(&mut self.evicted)
    }

    /// The limits.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Why a prefix that could be forwarded in hardware is not.
    pub fn reason(&self, env: &Env<'_>, key: RouteKey) -> Option<Reason> {
        match (env.wish)(key) {
            Wish::Slow(reason) => Some(reason),
            Wish::Forward(_) | Wish::Discard => match self.rule(key) {
                Some(rule) if rule.is_admitted() => None,
                _ => Some(self.blocked(env, key).unwrap_or(Reason::TableFull)),
            },
        }
    }

    /// Whether [`Self::take_changed`] has something to hand out.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What must be looked at again since the last call.
    pub fn take_changed(&mut self) -> FxHashSet<Changed> {
        std::mem::take(&mut self.changed)
    }

    /// Whether [`Self::refill`] has work.
    pub fn wants_refill(&self) -> bool {
        self.waiting.wants_refill()
    }

    /// Whether a prefix waits for room.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A prefix appeared, vanished, or something about its wish may have changed.
    pub fn update(&mut self, env: &Env<'_>, key: RouteKey) {
        if env.lookup.contains(key) {
            self.refresh(env, key);
        } else {
            self.remove(env, key);
        }
        // The parent may have to go or may come back: it shares a priority, or needs fewer guards than before.
        if let Some(parent) = env.lookup.parent(key) {
            self.refresh(env, parent);
        }
        self.fit(env);
    }

    /// The driver refused the rule of a prefix (or the guard below it); `None`: it may be tried again.
    pub fn set_refused(&mut self, env: &Env<'_>, key: RouteKey, reason: Option<Reason>) {
        let before = match reason {
            Some(reason) => self.refused.insert(key, reason),
            None => self.refused.remove(&key),
        };
        if before == reason {
            return;
        }
        // Without its guard the parent would capture its packets.
        if self.rule(key) == Some(RouteRule::Guard)
            && let Some(parent) = env.lookup.parent(key)
            && let Some(reason) = reason
        {
            self.refused.insert(parent, reason);
            self.refresh(env, parent);
        }
        self.update(env, key);
    }

    /// What the driver refused.
    pub fn refused(&self) -> impl Iterator<Item = (RouteKey, Reason)> + '_ {
        self.refused.iter().map(|(key, reason)| (*key, *reason))
    }

    /// Other limits: what does not fit any more goes, what fits now comes.
    pub fn set_limits(&mut self, env: &Env<'_>, limits: Limits) {
        let regroup = limits.bucket_bits != self.limits.bucket_bits;
        let relayout = limits.layout != self.limits.layout;
        let reclass = limits.classes != self.limits.classes || relayout;
        let recount = limits.doubled != self.limits.doubled || relayout;
        self.limits = limits;
        if recount {
            self.used = self.count();
        }
        if regroup {
            self.share_out_again(env);
        }
        if reclass {
            self.rebuild(env);
        }
        self.fit(env);
        self.waiting.hope();
    }

    /// Everything anew, from what is admitted now as the only memory.
    pub fn rebuild(&mut self, env: &Env<'_>) {
        let mut keys: Vec<Rank> = env.lookup.keys().map(rank).collect();
        keys.extend(self.admitted.iter().copied());
        keys.extend(self.rules().map(|(key, _)| rank(key)));
        keys.sort_unstable();
        keys.dedup();
        for (_, key) in keys {
            if env.lookup.contains(key) {
                self.refresh(env, key);
            } else {
                self.remove(env, key);
            }
        }
        self.fit(env);
        self.waiting.hope();
        while self.wants_refill() {
            self.refill(env);
        }
    }

    /// Tries some of those that wait for room.
    pub fn refill(&mut self, env: &Env<'_>) {
        let full = self.room() == 0;
        let Some(batch) = self.waiting.begin(self.room()) else {
            return;
        };
        let mut last = None;
        for rank in batch {
            // Nor does any other fit, or only one that has a guard.
            if self.waiting.is_hopeless(self.room()) {
                return;
            }
            last = Some(rank);
            self.refresh(env, rank.1);
            self.try_eased(env);
            // Somebody's leaving may have started it anew.
            if self.waiting.starts_anew() {
                return;
            }
            if !full && self.room() == 0 {
                break;
            }
        }
        self.waiting.tried(last, self.room());
    }

    /// Somebody who waits needs less room by so much.
    fn cheaper(&mut self, by: usize) {
        self.waiting.cheaper(by, self.room());
    }

    fn room(&self) -> usize {
        self.limits.usable().saturating_sub(self.used)
    }

    /// What keeps a prefix out whatever room there is.
    fn blocked(&self, env: &Env<'_>, key: RouteKey) -> Option<Reason> {
        if let Some(reason) = self.refused.get(&key) {
            return Some(*reason);
        }
        let class = self.limits.class(key.prefix);
        // Classes are ranges of lengths: if no child shares it, nothing deeper does. Where every length has its own, no look is needed.
        let family = key.prefix.family();
        let len = key.prefix.len();
        let alone = len == family.max_len() || self.limits.class_of(family, len + 1) != class;
        if !alone {
            let mut children = env.lookup.children(key);
            if children.any(|child| self.limits.class(child.prefix) == class) {
                return Some(Reason::LengthsMerged);
            }
        }
        None
    }

    /// Brings one prefix that is looked up to where its wish and the room allow.
    fn refresh(&mut self, env: &Env<'_>, key: RouteKey) {
        let wished = match (env.wish)(key) {
            Wish::Slow(_) => None,
            _ if self.blocked(env, key).is_some() => None,
            Wish::Forward(target) => Some(RouteRule::Forward(target)),
            Wish::Discard => Some(RouteRule::Discard),
        };
        let is = self.rule(key);
        match wished {
            None => {
                self.waiting.remove(key);
                self.demote(env, key);
            }
            Some(rule) if is == Some(rule) => {}
            Some(rule) => {
                let room = self.room();
                if self.try_admit(env, key, rule) {
                    self.waiting.remove(key);
                } else {
                    self.demote(env, key);
                    // In place of a guard that it has now it needs one less.
                    let guards = |rule| rule == Some(RouteRule::Guard);
                    let gained = guards(self.rule(key)) && !guards(is);
                    let by = usize::from(gained) * self.cost(key, RouteRule::Guard);
                    self.wait(key, room.checked_sub(by));
                }
            }
        }
    }

    /// Gives a prefix a rule that forwards or drops, if it and the guards below it fit.
    fn try_admit(&mut self, env: &Env<'_>, key: RouteKey, rule: RouteRule) -> bool {
        let before = self.rule(key);
        let mut room = self.room();
        if let RouteRule::Forward(target) = rule {
            let Some(left) = room.checked_sub(self.cost_of_new_user(target)) else {
                return false;
            };
            room = left;
        }
        let has = before.map_or(0, |before| self.cost(key, before));
        let Some(room) = room.checked_sub(self.cost(key, rule).saturating_sub(has)) else {
            return false;
        };
        if before.is_some_and(RouteRule::is_admitted) {
            self.put(key, Some(rule));
            return true;
        }
        // What lies below is bounded by the room before it is walked: a default route over a full table costs one look too many.
        let mut unguarded = Vec::new();
        let most = room / self.cost(key, RouteRule::Guard);
        for child in env.lookup.children(key) {
            if self.rule(child).is_none() {
                if unguarded.len() == most {
                    return false;
                }
                unguarded.push(child);
            }
        }
        self.put(key, Some(rule));
        for child in unguarded {
            self.put(child, Some(RouteRule::Guard));
        }
        if before.is_none() {
            self.waiting.ease(env.lookup.parent(key));
        }
        true
    }

    /// Takes a prefix that is looked up out, or makes sure that it is: a guard below an admitted parent, else nothing.
    fn demote(&mut self, env: &Env<'_>, key: RouteKey) {
        let guarded = env
            .lookup
            .parent(key)
            .and_then(|parent| self.rule(parent))
            .is_some_and(RouteRule::is_admitted);
        self.put(key, guarded.then_some(RouteRule::Guard));
        self.drop_guards_below(env, key);
    }

    /// The packets of these prefixes are the kernel's already, by the guard of `key` or by none above.
    fn drop_guards_below(&mut self, env: &Env<'_>, key: RouteKey) {
        let Some(rules) = self.rules.get(&(key.table, key.prefix.family())) else {
            return;
        };
        let below: Vec<RouteKey> = rules
            .range(key.prefix..=last_inside(key.prefix))
            .filter(|(prefix, rule)| **prefix != key.prefix && **rule == RouteRule::Guard)
            .map(|(&prefix, _)| RouteKey { prefix, ..key })
            .collect();
        for guard in below {
            if env.lookup.parent(guard) == Some(key) {
                self.put(guard, None);
            }
        }
    }

    /// A prefix is no longer looked up: what was below it is below its parent now.
    fn remove(&mut self, env: &Env<'_>, key: RouteKey) {
        self.waiting.remove(key);
        self.refused.remove(&key);
        self.put(key, None);
        let parent = env.lookup.parent(key);
        let guarded = parent
            .and_then(|parent| self.rule(parent))
            .is_some_and(RouteRule::is_admitted);
        if !guarded {
            let Some(rules) = self.rules.get(&(key.table, key.prefix.family())) else {
                return;
            };
            let below: Vec<RouteKey> = rules
                .range(key.prefix..=last_inside(key.prefix))
                .filter(|(_, rule)| **rule == RouteRule::Guard)
                .map(|(&prefix, _)| RouteKey { prefix, ..key })
                .collect();
            for guard in below {
                if env.lookup.parent(guard) == parent {
                    self.put(guard, None);
                }
            }
            return;
        }
        let mut unguarded = Vec::new();
        let most = self.limits.usable();
        for child in env.lookup.children(key) {
            if self.rule(child).is_none() {
                unguarded.push(child);
                if unguarded.len() > most
                    && let Some(parent) = parent
                {
                    self.demote(env, parent);
                    self.wait_evicted(env, parent);
                    self.evicted.push(parent);
                    return;
                }
            }
        }
        for child in unguarded {
            self.put(child, Some(RouteRule::Guard));
        }
    }

    /// Makes room, if there is not enough: the last of the order go first.
    fn fit(&mut self, env: &Env<'_>) {
        while self.used > self.limits.usable() {
            let Some((_, key)) = self.admitted.last().copied() else {
                break;
            };
            self.demote(env, key);
            self.wait_evicted(env, key);
            self.evicted.push(key);
        }
        self.try_eased(env);
    }

    /// A prefix waits: it needs more room than this, or perhaps none.
    fn wait(&mut self, key: RouteKey, too_little: Option<usize>) {
        let guarded = self.rule(key) == Some(RouteRule::Guard);
        let room = self.room();
        self.waiting.insert(key, guarded, too_little, room);
    }

    /// One that had to go. In place of a guard it may fit without room, if nothing below it needs a guard.
    fn wait_evicted(&mut self, env: &Env<'_>, key: RouteKey) {
        let mut children = env.lookup.children(key);
        let needs_room = self.rule(key) != Some(RouteRule::Guard)
            || children.any(|child| self.rule(child).is_none());
        self.wait(key, needs_room.then_some(0));
    }

    /// Tries those whose own need fell.
    fn try_eased(&mut self, env: &Env<'_>) {
        while let Some(key) = self.waiting.next_eased() {
            self.refresh(env, key);
        }
    }

    /// Sets the rule of a prefix and keeps the books.
    fn put(&mut self, key: RouteKey, rule: Option<RouteRule>) {
        let rules = self
            .rules
            .entry((key.table, key.prefix.family()))
            .or_default();
        let before = match rule {
            Some(rule) => rules.insert(key.prefix, rule),
            None => rules.remove(&key.prefix),
        };
        if before == rule {
            return;
        }
        self.changed.insert(Changed::Route(key));
        let (used, hopeless) = (self.used, self.waiting.hopeless());
        let cost = |rule: Option<RouteRule>| rule.map_or(0, |rule| self.cost(key, rule));
        self.used = self.used + cost(rule) - cost(before);
        if rule.is_some_and(RouteRule::is_admitted) {
            self.admitted.insert(rank(key));
        } else {
            self.admitted.remove(&rank(key));
        }
        self.waiting
            .set_guarded(key, rule == Some(RouteRule::Guard));
        // Hold before release: what stays in use never seems unused between.
        if let Some(RouteRule::Forward(target)) = rule {
            self.hold(target);
        }
        if let Some(RouteRule::Forward(target)) = before {
            self.release(target);
        }
        if rule.is_none() || self.used < used || self.waiting.hopeless() != hopeless {
            let room = self.room();
            self.waiting.look_again(room);
        }
    }
}

#[cfg(test)]
mod tests;
