//! Next-hop groups: interned by content, and found by the sources' own ids.
//!
//! An id belongs to one session's numbering (an epoch): a restarted zebra counts anew, and its id 18 is not the one
//! that routes kept from before mean. Ids may be used before they are announced, groups may come before their members
//! (zebra replays in hash order), and an id may be removed while it is still used; it then keeps its last meaning
//! until its last user goes.
//!
//! Equal content is one group whatever its ids are, so routes that move to another id of the same content cost no
//! kernel write. An id that changes its content changes the group in place when nothing else shares it: one write,
//! whatever the number of routes (law 7).

use rustc_hash::{FxHashMap, FxHashSet};

use super::PathId;
use crate::model::{
    MAX_GROUP_MEMBERS, NextHop, NextHopSet, NhgId, Reason, SourceNextHop, SourceNhId,
};

/// A next-hop id and the session that numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NhRef {
    /// Which session's numbering.
    pub epoch: u32,
    /// The id.
    pub id: SourceNhId,
}

/// What a change of next-hop ids means for their users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupChange {
    /// This group has other members now.
    Members(NhgId),
    /// The paths that name this id lead elsewhere now.
    Target(NhRef),
    /// Nothing uses this group any more.
    Gone(NhgId),
}

/// What an id means now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// This group.
    Group(NhgId),
    /// Drop.
    Blackhole,
    /// Nothing usable, because.
    Blocked(Reason),
}

/// Nested groups deeper than this are refused; zebra's have one level.
const MAX_DEPTH: usize = 8;

#[derive(Debug)]
struct Announced {
    /// `None`: used, but never announced.
    content: Option<SourceNextHop>,
    removed: bool,
    meaning: Meaning,
    /// Groups that list this id.
    parents: FxHashSet<NhRef>,
    /// Paths that name this id.
    paths: FxHashSet<PathId>,
}

impl Default for Announced {
    fn default() -> Self {
        Self {
            content: None,
            removed: false,
            meaning: Meaning::Blocked(Reason::NextHopUnknown),
            parents: FxHashSet::default(),
            paths: FxHashSet::default(),
        }
    }
}

#[derive(Debug)]
struct Group {
    hops: NextHopSet,
    ids: FxHashSet<NhRef>,
    paths: FxHashSet<PathId>,
}

/// All groups and ids.
#[derive(Debug, Default)]
pub struct Groups {
    groups: Vec<Option<Group>>,
    free: Vec<NhgId>,
    index: FxHashMap<NextHopSet, NhgId>,
    ids: FxHashMap<NhRef, Announced>,
}

impl Groups {
    /// The hops of a group.
    pub fn hops(&self, id: NhgId) -> &NextHopSet {
        &self.group(id).hops
    }

    /// Whether a group is there.
    pub fn contains(&self, id: NhgId) -> bool {
        self.groups.get(id.0 as usize).is_some_and(Option::is_some)
    }

    /// Whether a path leads to a group, directly or by id.
    pub fn is_used(&self, id: NhgId) -> bool {
        let group = self.group(id);
        !group.paths.is_empty()
            || group
                .ids
                .iter()
                .any(|&id| self.paths_of_id(id).next().is_some())
    }

    /// What an id means.
    pub fn meaning(&self, id: NhRef) -> Meaning {
        self.ids
            .get(&id)
            .map_or(Meaning::Blocked(Reason::NextHopUnknown), |a| a.meaning)
    }

    /// The paths that lead to a group, directly or by id.
    pub fn paths_of(&self, id: NhgId) -> Vec<PathId> {
        let group = self.group(id);
        let mut paths: Vec<_> = group.paths.iter().copied().collect();
        for id in &group.ids {
            paths.extend(self.paths_of_id(*id));
        }
        paths
    }

    /// The paths that name an id.
    pub fn paths_of_id(&self, id: NhRef) -> impl Iterator<Item = PathId> + '_ {
        self.ids
            .get(&id)
            .into_iter()
            .flat_map(|a| a.paths.iter().copied())
    }

    /// All groups with the source's ids for them.
    pub fn iter(&self) -> impl Iterator<Item = (NhgId, &NextHopSet, Vec<NhRef>)> {
        self.groups.iter().enumerate().filter_map(|(i, group)| {
            let group = group.as_ref()?;
            let mut ids: Vec<_> = group.ids.iter().copied().collect();
            ids.sort_unstable();
            Some((NhgId(i as u32), &group.hops, ids))
        })
    }

    /// How many ids of an epoch are announced.
    pub fn announced(&self, epoch: u32) -> usize {
        self.ids
            .iter()
            .filter(|(id, a)| id.epoch == epoch && a.content.is_some())
            .count()
    }

    /// The group of hops that a route writes out, made if it is new. A path must be attached to it before the next
    /// change, or [`Self::discard`] be called.
    pub fn intern(&mut self, hops: &[NextHop]) -> Result<NhgId, Reason> {
        Ok(self.intern_set(usable_set(hops.to_vec())?))
    }

    /// Notes that a path leads to a group.
    pub fn attach(&mut self, id: NhgId, path: PathId) {
        self.group_mut(id).paths.insert(path);
    }

    /// A path no longer leads to a group.
    pub fn detach(&mut self, id: NhgId, path: PathId, changes: &mut Vec<GroupChange>) {
        self.group_mut(id).paths.remove(&path);
        self.discard(id, changes);
    }

    /// Frees a group if nothing uses it.
    pub fn discard(&mut self, id: NhgId, changes: &mut Vec<GroupChange>) {
        let group = self.group(id);
        if group.ids.is_empty() && group.paths.is_empty() {
            if let Some(group) = self.groups[id.0 as usize].take() {
                self.unindex(&group.hops, id);
            }
            self.free.push(id);
            changes.push(GroupChange::Gone(id));
        }
    }

    /// Notes that a path names an id.
    pub fn attach_id(&mut self, id: NhRef, path: PathId) {
        self.ids.entry(id).or_default().paths.insert(path);
    }

    /// A path no longer names an id.
    pub fn detach_id(&mut self, id: NhRef, path: PathId, changes: &mut Vec<GroupChange>) {
        if let Some(announced) = self.ids.get_mut(&id) {
            announced.paths.remove(&path);
        }
        self.collect(id, changes);
    }

    /// An announcement (`Some`) or removal of an id.
    pub fn apply(
        &mut self,
        id: NhRef,
        content: Option<SourceNextHop>,
        changes: &mut Vec<GroupChange>,
    ) {
        let Some(content) = content else {
            if let Some(announced) = self.ids.get_mut(&id) {
                announced.removed = true;
                self.collect(id, changes);
            }
            return;
        };
        let announced = self.ids.entry(id).or_default();
        announced.removed = false;
        if announced.content.as_ref() == Some(&content) {
            return;
        }
        let old = announced.content.replace(content.clone());
        let new_members = members(id, &content);
        for &member in &new_members {
            self.ids.entry(member).or_default().parents.insert(id);
        }
        if let Some(old) = old {
            for member in members(id, &old) {
                if !new_members.contains(&member) {
                    if let Some(announced) = self.ids.get_mut(&member) {
                        announced.parents.remove(&id);
                    }
                    self.collect(member, changes);
                }
            }
        }
        self.update_meaning(id, changes, 0);
    }

    /// Forgets the ids of older epochs that nothing uses.
    pub fn forget_older(&mut self, epoch: u32, changes: &mut Vec<GroupChange>) {
        let old: Vec<_> = self
            .ids
            .keys()
            .filter(|id| id.epoch != epoch)
            .copied()
            .collect();
        for &id in &old {
            if let Some(announced) = self.ids.get_mut(&id) {
                announced.removed = true;
            }
        }
        for id in old {
            self.collect(id, changes);
        }
    }

    /// Forgets an id if it was removed and nothing uses it; then perhaps its members.
    fn collect(&mut self, id: NhRef, changes: &mut Vec<GroupChange>) {
        let mut work = vec![id];
        while let Some(id) = work.pop() {
            let Some(announced) = self.ids.get(&id) else {
                continue;
            };
            let unused = announced.paths.is_empty() && announced.parents.is_empty();
            if !unused || (announced.content.is_some() && !announced.removed) {
                continue;
            }
            let Some(announced) = self.ids.remove(&id) else {
                continue;
            };
            if let Some(content) = &announced.content {
                for member in members(id, content) {
                    if let Some(m) = self.ids.get_mut(&member) {
                        m.parents.remove(&id);
                        work.push(member);
                    }
                }
            }
            if let Meaning::Group(group) = announced.meaning {
                self.group_mut(group).ids.remove(&id);
                self.discard(group, changes);
            }
        }
    }

    fn update_meaning(&mut self, id: NhRef, changes: &mut Vec<GroupChange>, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        let flat = self.flatten(id);
        let Some(announced) = self.ids.get(&id) else {
            return;
        };
        let old = announced.meaning;
        let parents: Vec<_> = announced.parents.iter().copied().collect();
        let new = match flat {
            Err(reason) => Meaning::Blocked(reason),
            Ok(None) => Meaning::Blackhole,
            Ok(Some(set)) => Meaning::Group(self.assign(old, set, changes)),
        };
        if new != old {
            if let Meaning::Group(old) = old {
                self.group_mut(old).ids.remove(&id);
            }
            if let Meaning::Group(new) = new {
                self.group_mut(new).ids.insert(id);
            }
            if let Some(announced) = self.ids.get_mut(&id) {
                announced.meaning = new;
            }
            changes.push(GroupChange::Target(id));
            if let Meaning::Group(old) = old {
                self.discard(old, changes);
            }
        }
        for parent in parents {
            self.update_meaning(parent, changes, depth + 1);
        }
    }

    /// The group for the new content of an id: its own one changed in place when nothing else shares it, else the one
    /// that has this content, else a new one. In place, routes stay where they are; two groups may then be equal.
    fn assign(&mut self, old: Meaning, set: NextHopSet, changes: &mut Vec<GroupChange>) -> NhgId {
        if let Meaning::Group(own) = old {
            let group = self.group_mut(own);
            if group.hops == set {
                return own;
            }
            if group.paths.is_empty() && group.ids.len() == 1 {
                let before = std::mem::replace(&mut group.hops, set.clone());
                self.unindex(&before, own);
                self.index.entry(set).or_insert(own);
                changes.push(GroupChange::Members(own));
                return own;
            }
        }
        self.intern_set(set)
    }

    fn unindex(&mut self, set: &NextHopSet, id: NhgId) {
        if self.index.get(set) == Some(&id) {
            self.index.remove(set);
        }
    }

    /// The hops behind an id; `None` for a blackhole.
    fn flatten(&self, id: NhRef) -> Result<Option<NextHopSet>, Reason> {
        let mut hops = Vec::new();
        let mut blackhole = false;
        self.collect_hops(id, 1, 0, &mut hops, &mut blackhole)?;
        if hops.is_empty() && blackhole {
            return Ok(None);
        }
        usable_set(hops).map(Some)
    }

    fn collect_hops(
        &self,
        id: NhRef,
        weight: u32,
        depth: usize,
        hops: &mut Vec<NextHop>,
        blackhole: &mut bool,
    ) -> Result<(), Reason> {
        if depth > MAX_DEPTH {
            return Err(Reason::GroupLoop);
        }
        // A member that was never announced keeps the whole group waiting: installing a part of it would send all
        // traffic to the members that happened to come first.
        let content = self
            .ids
            .get(&id)
            .and_then(|a| a.content.as_ref())
            .ok_or(Reason::NextHopUnknown)?;
        match content {
            SourceNextHop::Hop(hop) => hops.push(NextHop {
                weight: hop.weight.saturating_mul(weight),
                ..*hop
            }),
            SourceNextHop::Blackhole => *blackhole = true,
            SourceNextHop::Group(list) => {
                for &(member, member_weight) in list {
                    if hops.len() > 64 * MAX_GROUP_MEMBERS {
                        return Err(Reason::GroupTooLarge);
                    }
                    let member = NhRef {
                        epoch: id.epoch,
                        id: member,
                    };
                    self.collect_hops(
                        member,
                        weight.saturating_mul(member_weight),
                        depth + 1,
                        hops,
                        blackhole,
                    )?;
                }
            }
        }
        Ok(())
    }

    fn intern_set(&mut self, set: NextHopSet) -> NhgId {
        if let Some(&id) = self.index.get(&set) {
            return id;
        }
        let group = Group {
            hops: set.clone(),
            ids: FxHashSet::default(),
            paths: FxHashSet::default(),
        };
        let id = if let Some(id) = self.free.pop() {
            self.groups[id.0 as usize] = Some(group);
            id
        } else {
            self.groups.push(Some(group));
            NhgId((self.groups.len() - 1) as u32)
        };
        self.index.insert(set, id);
        id
    }

    fn group(&self, id: NhgId) -> &Group {
        match &self.groups[id.0 as usize] {
            Some(group) => group,
            None => unreachable!("a group in use is in its place"),
        }
    }

    fn group_mut(&mut self, id: NhgId) -> &mut Group {
        match &mut self.groups[id.0 as usize] {
            Some(group) => group,
            None => unreachable!("a group in use is in its place"),
        }
    }
}

fn members(id: NhRef, content: &SourceNextHop) -> Vec<NhRef> {
    match content {
        SourceNextHop::Group(list) => {
            let mut ids: Vec<_> = list
                .iter()
                .map(|&(m, _)| NhRef {
                    epoch: id.epoch,
                    id: m,
                })
                .collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        }
        _ => Vec::new(),
    }
}

fn usable_set(hops: Vec<NextHop>) -> Result<NextHopSet, Reason> {
    let set = NextHopSet::new(hops);
    match set.hops().len() {
        0 => Err(Reason::NoNextHop),
        n if n > MAX_GROUP_MEMBERS => Err(Reason::GroupTooLarge),
        _ => Ok(set),
    }
}
