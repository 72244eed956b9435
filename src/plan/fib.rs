//! Groups and paths -> kernel forms.
//!
//! A group becomes, for each family of routes that uses it, one next-hop object a hop and one a group; a route then
//! carries only an id. The group's *identity* stays what FRR announced; which of its members are in the kernel's group
//! follows the links and neighbours. So one member lost under a million routes is one write of the group:
//!
//! ```text
//! group {fe80::1 eth0, fe80::2 eth1}     eth1 goes down
//!   object 0xb8000001: 169.254.0.1 eth0         stays
//!   object 0xb8000002: 169.254.0.1 eth1         gone with its link; its id is not used again
//!   object 0xb8000003: group 1,2  ->  group 1   one write (the kernel has done the same already)
//!   1,000,000 routes: nhid 0xb8000003           no write
//! ```
//!
//! IPv4 and IPv6 routes have objects of their own: an IPv6 route can't use an IPv4 hop, nor a group replace a hop.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{DesiredObjects, ObjectKey, ObjectSpec};
use crate::model::{
    Family, KernelHop, KernelNhId, KernelRoute, KernelTarget, MTU_MAX, NextHop, NhgId, Reason,
    RouteKind,
};
use crate::resolve::{HopKey, HopState, ResolveChanges, Resolver};
use crate::rib::{Groups, Meaning, PathKey, PathTarget};
use crate::view::KernelView;

/// The largest weight of a member (`nexthop_grp.weight` and `rtnh_hops` are one byte that counts from 0).
pub const MAX_WEIGHT: u16 = 256;

/// A group as one family of routes uses it.
pub type GroupKey = (NhgId, Family);

/// What planning reads and writes besides its own tables.
#[derive(Debug)]
pub struct PlanContext<'a> {
    /// The groups.
    pub groups: &'a Groups,
    /// The kernel.
    pub view: &'a KernelView,
    /// The hops.
    pub resolver: &'a mut Resolver,
    /// What the resolver found on the way.
    pub changes: &'a mut ResolveChanges,
    /// The wished objects.
    pub objects: &'a mut DesiredObjects,
    /// Whether routes may carry ids at all.
    pub use_objects: bool,
}

#[derive(Debug)]
struct GroupPlan {
    /// As announced; a member without a usable key has the reason instead.
    members: Vec<(Result<HopKey, Reason>, u32)>,
    target: Result<KernelTarget, Reason>,
    /// The same with the hops written out.
    inline: Result<KernelTarget, Reason>,
}

type Targets = (Result<KernelTarget, Reason>, Result<KernelTarget, Reason>);

impl GroupPlan {
    fn targets(&self) -> Targets {
        (self.target.clone(), self.inline.clone())
    }
}

/// The plans of all groups in use.
#[derive(Debug, Default)]
pub struct FibPlan {
    groups: FxHashMap<GroupKey, GroupPlan>,
    users: FxHashMap<HopKey, FxHashSet<GroupKey>>,
}

impl FibPlan {
    /// The kernel form of a path for routes of one family.
    pub fn form(
        &mut self,
        ctx: &mut PlanContext<'_>,
        path: &PathKey,
        family: Family,
    ) -> Result<KernelRoute, Reason> {
        // Linux shares what IPv4 routes of one object have in common and does not compare their metrics: a route without an
        // MTU would get that of its neighbour (seen on 6.18; `fib_find_info_nh`). With an MTU they are written inline.
        let inline = family == Family::V4 && path.mtu.is_some();
        let meaning = match (path.kind, path.target) {
            (_, PathTarget::Bad(reason)) => return Err(reason),
            (RouteKind::Unicast, PathTarget::None) => return Err(Reason::NoNextHop),
            (RouteKind::Unicast, PathTarget::Group(group)) => Meaning::Group(group),
            (RouteKind::Unicast, PathTarget::Id(id)) => ctx.groups.meaning(id),
            _ => Meaning::Blackhole,
        };
        let (kind, target) = match meaning {
            Meaning::Group(group) => {
                let plan = self.planned_or_new(ctx, (group, family));
                let target = if inline { &plan.inline } else { &plan.target };
                (RouteKind::Unicast, target.clone()?)
            }
            Meaning::Blackhole if path.kind == RouteKind::Unicast => {
                (RouteKind::Blackhole, KernelTarget::None)
            }
            Meaning::Blackhole => (path.kind, KernelTarget::None),
            Meaning::Blocked(reason) => return Err(reason),
        };
        let prefsrc = path.prefsrc.filter(|addr| Family::of(*addr) == family);
        Ok(KernelRoute {
            kind,
            target,
            // The kernel clamps IPv4 route MTUs by itself; asking for more would read back as a difference for ever.
            mtu: path.mtu.map(|mtu| mtu.min(MTU_MAX)),
            prefsrc,
        })
    }

    /// Where routes of a group point to now, if it has been planned.
    pub fn planned(&self, key: GroupKey) -> Option<&Result<KernelTarget, Reason>> {
        self.groups.get(&key).map(|plan| &plan.target)
    }

    /// The hops of a group for one family, in the order of its members, if it has been planned.
    pub fn hops(&self, key: GroupKey) -> Option<impl Iterator<Item = Result<HopKey, Reason>> + '_> {
        self.groups
            .get(&key)
            .map(|plan| plan.members.iter().map(|(hop, _)| *hop))
    }

    /// The groups that use a hop.
    pub fn users_of(&self, hop: HopKey) -> impl Iterator<Item = GroupKey> + '_ {
        self.users.get(&hop).into_iter().flatten().copied()
    }

    /// All planned groups.
    pub fn keys(&self) -> Vec<GroupKey> {
        self.groups.keys().copied().collect()
    }

    fn planned_or_new(&mut self, ctx: &mut PlanContext<'_>, key: GroupKey) -> &GroupPlan {
        if !self.groups.contains_key(&key) {
            self.plan(ctx, key);
        }
        match self.groups.get(&key) {
            Some(plan) => plan,
            None => unreachable!("the plan was just made"),
        }
    }

    /// Plans a group whose members changed; `true` when its routes must point elsewhere.
    pub fn replan(&mut self, ctx: &mut PlanContext<'_>, key: GroupKey) -> bool {
        let Some(before) = self.groups.get(&key).map(GroupPlan::targets) else {
            return false;
        };
        self.plan(ctx, key);
        self.groups
            .get(&key)
            .is_none_or(|plan| plan.targets() != before)
    }

    /// Plans a group some of whose hops changed their state; `true` when its routes must point elsewhere.
    pub fn refresh(&mut self, ctx: &mut PlanContext<'_>, key: GroupKey) -> bool {
        let Some(mut plan) = self.groups.remove(&key) else {
            return false;
        };
        let before = plan.targets();
        (plan.target, plan.inline) = targets_of(ctx, key, &plan.members);
        let changed = plan.targets() != before;
        self.groups.insert(key, plan);
        changed
    }

    /// A group that nothing uses any more.
    pub fn forget(&mut self, ctx: &mut PlanContext<'_>, group: NhgId) {
        for family in [Family::V4, Family::V6] {
            let key = (group, family);
            ctx.objects.drop(ObjectKey::Group(group, family));
            if let Some(plan) = self.groups.remove(&key) {
                for (hop, _) in plan.members {
                    self.release_hop(ctx, hop, key);
                }
            }
        }
    }

    fn plan(&mut self, ctx: &mut PlanContext<'_>, key: GroupKey) {
        let old = self
            .groups
            .remove(&key)
            .map(|p| p.members)
            .unwrap_or_default();
        let members: Vec<_> = ctx
            .groups
            .hops(key.0)
            .hops()
            .iter()
            .map(|hop| (hop_key(hop, key.1), hop.weight))
            .collect();
        for &(hop, _) in &members {
            if let Ok(hop) = hop
                && self.users.entry(hop).or_default().insert(key)
            {
                ctx.resolver.hold(ctx.view, hop, ctx.changes);
            }
        }
        for (hop, _) in old {
            if !members.iter().any(|(h, _)| *h == hop) {
                self.release_hop(ctx, hop, key);
            }
        }
        let (target, inline) = targets_of(ctx, key, &members);
        self.groups.insert(
            key,
            GroupPlan {
                members,
                target,
                inline,
            },
        );
    }

    fn release_hop(
        &mut self,
        ctx: &mut PlanContext<'_>,
        hop: Result<HopKey, Reason>,
        key: GroupKey,
    ) {
        let Ok(hop) = hop else { return };
        let Some(users) = self.users.get_mut(&hop) else {
            return;
        };
        if users.remove(&key) {
            ctx.resolver.release(hop, ctx.changes);
        }
        if users.is_empty() {
            self.users.remove(&hop);
            ctx.objects.drop(ObjectKey::Hop(hop));
        }
    }
}

fn hop_key(hop: &NextHop, family: Family) -> Result<HopKey, Reason> {
    if hop.encap {
        return Err(Reason::Encapsulation);
    }
    let dev = hop.dev.ok_or(Reason::LinkUnknown)?;
    Ok(HopKey {
        family,
        dev,
        via: hop.via,
        onlink: hop.onlink,
    })
}

/// By object where that is possible, and inline.
fn targets_of(
    ctx: &mut PlanContext<'_>,
    key: GroupKey,
    members: &[(Result<HopKey, Reason>, u32)],
) -> Targets {
    // A label or tunnel that is left off would send packets somewhere else than meant: all or nothing.
    if members
        .iter()
        .any(|(hop, _)| *hop == Err(Reason::Encapsulation))
    {
        ctx.objects.drop(ObjectKey::Group(key.0, key.1));
        return (Err(Reason::Encapsulation), Err(Reason::Encapsulation));
    }
    let mut ready: Vec<(HopKey, KernelHop, u32)> = Vec::with_capacity(members.len());
    let mut blocked = Reason::NoNextHop;
    for &(hop, weight) in members {
        let state = match hop {
            Ok(hop) => ctx
                .resolver
                .state(hop)
                .unwrap_or(HopState::Blocked(Reason::InProgress)),
            Err(reason) => HopState::Blocked(reason),
        };
        match (hop, state) {
            (Ok(hop), HopState::Ready(_)) if ctx.objects.is_refused(ObjectKey::Hop(hop)) => {
                blocked = Reason::KernelRefused;
            }
            (Ok(hop), HopState::Ready(kernel_hop)) => ready.push((hop, kernel_hop, weight)),
            (Ok(hop), HopState::Blocked(reason)) => {
                ctx.objects.drop(ObjectKey::Hop(hop));
                blocked = reason;
            }
            (Err(reason), _) => blocked = reason,
        }
    }
    let group = ObjectKey::Group(key.0, key.1);
    if ready.is_empty() {
        ctx.objects.drop(group);
        return (Err(blocked), Err(blocked));
    }
    let weights = scale_weights(ready.iter().map(|(_, _, w)| *w));
    let hops = ready
        .iter()
        .zip(&weights)
        .map(|(&(_, hop, _), &w)| (hop, w))
        .collect();
    let inline = Ok(KernelTarget::Hops(hops));
    if !ctx.use_objects {
        // There may be some, from before a reload; they go once no route leads there any more.
        ctx.objects.drop(group);
        for &(hop, ..) in &ready {
            ctx.objects.drop(ObjectKey::Hop(hop));
        }
        return (inline.clone(), inline);
    }
    (
        object_target(ctx, group, members.len(), &ready, &weights),
        inline,
    )
}

fn object_target(
    ctx: &mut PlanContext<'_>,
    group: ObjectKey,
    members: usize,
    ready: &[(HopKey, KernelHop, u32)],
    weights: &[u16],
) -> Result<KernelTarget, Reason> {
    let ids: Option<Vec<KernelNhId>> = ready
        .iter()
        .map(|&(hop, kernel_hop, _)| {
            ctx.objects
                .want(ObjectKey::Hop(hop), ObjectSpec::Hop(kernel_hop))
        })
        .collect();
    let Some(ids) = ids else {
        return Err(Reason::KernelRefused);
    };
    // A group that shrank to one hop stays a group: a hop can't replace it, so every route would have to move.
    if let ([only], 1, None) = (ids.as_slice(), members, ctx.objects.id_of(group))
        && !ctx.objects.prefers_group_of(*only)
    {
        return Ok(KernelTarget::Object(*only));
    }
    if ctx.objects.is_refused(group) {
        return Err(Reason::KernelRefused);
    }
    let spec = ObjectSpec::Group(ids.into_iter().zip(weights.iter().copied()).collect());
    ctx.objects
        .want(group, spec)
        .map(KernelTarget::Object)
        .ok_or(Reason::KernelRefused)
}

/// Weights in the kernel's range, at least 1, with the ratio kept as well as it goes.
pub fn scale_weights(weights: impl Iterator<Item = u32> + Clone) -> Vec<u16> {
    let max = weights.clone().max().unwrap_or(1).max(1);
    let limit = u32::from(MAX_WEIGHT);
    weights
        .map(|w| {
            let scaled = if max <= limit {
                w
            } else {
                ((u64::from(w) * u64::from(limit) + u64::from(max) / 2) / u64::from(max)) as u32
            };
            scaled.clamp(1, limit) as u16
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_ratio_and_never_vanish() {
        assert_eq!(scale_weights([1, 1].into_iter()), [1, 1]);
        assert_eq!(scale_weights([85, 255].into_iter()), [85, 255]);
        assert_eq!(scale_weights([512, 1024, 1].into_iter()), [128, 256, 1]);
        assert_eq!(scale_weights([u32::MAX, 0].into_iter()), [256, 1]);
    }
}
