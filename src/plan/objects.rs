//! The next-hop objects that should exist, and their ids.
//!
//! Ids are one name space for the network namespace, which zebra listens to: an id that was deleted, flushed by the
//! kernel or taken by somebody else is never used again within a boot; the object then gets a new one
//! (docs/evidence.md, "Next-hop objects"). Objects left from an earlier run are adopted by content.

use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{Family, IfIndex, KernelHop, KernelNhId, NhgId};
use crate::resolve::HopKey;

/// What an object stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    /// A single hop of routes of one family.
    Hop(HopKey),
    /// A group of them.
    Group(NhgId, Family),
}

/// The content of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectSpec {
    /// A single hop.
    Hop(KernelHop),
    /// Members with weights from 1.
    Group(Box<[(KernelNhId, u16)]>),
}

impl ObjectSpec {
    /// Whether it is a single hop on this link.
    pub fn is_on(&self, on: IfIndex) -> bool {
        matches!(self, Self::Hop(hop) if hop.dev == on)
    }

    /// Whether it is a single hop over this gateway.
    pub fn uses(&self, on: IfIndex, gateway: IpAddr) -> bool {
        matches!(self, Self::Hop(hop) if hop.dev == on && hop.via == Some(gateway))
    }

    /// Whether it is a group with this member.
    pub fn has_member(&self, id: KernelNhId) -> bool {
        matches!(self, Self::Group(members) if members.iter().any(|(m, _)| *m == id))
    }
}

/// All objects that should exist.
#[derive(Debug)]
pub struct DesiredObjects {
    objects: FxHashMap<ObjectKey, (KernelNhId, ObjectSpec)>,
    keys: FxHashMap<KernelNhId, ObjectKey>,
    adoptable: FxHashMap<KernelNhId, ObjectSpec>,
    preferred: Vec<KernelNhId>,
    refused: FxHashSet<ObjectKey>,
    refusals: FxHashMap<ObjectKey, u32>,
    next: u32,
    changed: Vec<KernelNhId>,
}

impl DesiredObjects {
    /// None; ids are given out from `first` on.
    pub fn new(first: KernelNhId) -> Self {
        Self {
            objects: FxHashMap::default(),
            keys: FxHashMap::default(),
            adoptable: FxHashMap::default(),
            preferred: Vec::new(),
            refused: FxHashSet::default(),
            refusals: FxHashMap::default(),
            next: first.get(),
            changed: Vec::new(),
        }
    }

    /// The next id that was never given out; what must survive a restart within the boot.
    pub const fn next_id(&self) -> u32 {
        self.next
    }

    /// Never give out this id or one before it.
    pub fn reserve_up_to(&mut self, id: KernelNhId) {
        self.next = self.next.max(id.get() + 1);
    }

    /// An object from an earlier run, to be taken up by whoever wants this content.
    pub fn offer(&mut self, id: KernelNhId, spec: ObjectSpec) {
        self.reserve_up_to(id);
        if !self.keys.contains_key(&id) {
            self.adoptable.insert(id, spec);
        }
    }

    /// Ids that were offered and not taken up. Offering ends here.
    pub fn withdraw_offers(&mut self) -> Vec<KernelNhId> {
        self.adoptable.drain().map(|(id, _)| id).collect()
    }

    /// Forgets an offer whose object is gone.
    pub fn withdraw_offer(&mut self, id: KernelNhId) {
        self.adoptable.remove(&id);
    }

    /// Ids on offer.
    pub fn offers(&self) -> impl Iterator<Item = KernelNhId> + '_ {
        self.adoptable.keys().copied()
    }

    /// The object that a route has now: of several on offer with the content that is wanted next, it is taken up, so
    /// that the route need not move. Equal content is common when members are unresolved.
    pub fn prefer(&mut self, id: Option<KernelNhId>) {
        self.preferred.clear();
        let Some((id, spec)) = id.and_then(|id| Some((id, self.adoptable.get(&id)?))) else {
            return;
        };
        self.preferred.push(id);
        if let ObjectSpec::Group(members) = spec {
            self.preferred
                .extend(members.iter().map(|(member, _)| *member));
        }
    }

    /// Whether the route has a group of just this hop, left from a group that shrank: then it may stay one.
    pub fn prefers_group_of(&self, hop: KernelNhId) -> bool {
        let group = self.preferred.first().and_then(|id| self.adoptable.get(id));
        matches!(group, Some(ObjectSpec::Group(members)) if matches!(**members, [(only, _)] if only == hop))
    }

    fn adopt(&mut self, spec: &ObjectSpec) -> Option<KernelNhId> {
        let offered = |id: &&KernelNhId| self.adoptable.get(id) == Some(spec);
        let id = *self
            .preferred
            .iter()
            .find(offered)
            .or_else(|| self.adoptable.keys().filter(offered).min())?;
        self.adoptable.remove(&id);
        Some(id)
    }

    /// An object of this content is wanted; gives its id.
    pub fn want(&mut self, key: ObjectKey, spec: ObjectSpec) -> Option<KernelNhId> {
        if let Some((id, old)) = self.objects.get_mut(&key) {
            if *old != spec {
                *old = spec;
                self.changed.push(*id);
            }
            return Some(*id);
        }
        let id = match self.adopt(&spec) {
            Some(id) => id,
            None => self.new_id()?,
        };
        self.objects.insert(key, (id, spec));
        self.keys.insert(id, key);
        self.changed.push(id);
        Some(id)
    }

    /// The object is not wanted any more.
    pub fn drop(&mut self, key: ObjectKey) {
        self.forget_refusals(key);
        self.refused.remove(&key);
        if let Some((id, _)) = self.objects.remove(&key) {
            self.keys.remove(&id);
            self.changed.push(id);
        }
    }

    /// Its id was lost. If it is wanted again it gets a new one.
    pub fn lose(&mut self, id: KernelNhId) -> Option<ObjectKey> {
        self.withdraw_offer(id);
        let key = self.keys.remove(&id)?;
        self.objects.remove(&key);
        self.changed.push(id);
        Some(key)
    }

    /// Notes whether the kernel refuses the object.
    pub fn set_refused(&mut self, key: ObjectKey, refused: bool) -> bool {
        if refused {
            self.refused.insert(key)
        } else {
            self.refused.remove(&key)
        }
    }

    /// Counts a refusal in a row, whatever id the object had.
    pub fn count_refusal(&mut self, key: ObjectKey) -> u32 {
        let count = self.refusals.entry(key).or_default();
        *count += 1;
        *count
    }

    /// It was taken, or something about it changed.
    pub fn forget_refusals(&mut self, key: ObjectKey) {
        self.refusals.remove(&key);
    }

    /// Whether the kernel refuses the object.
    pub fn is_refused(&self, key: ObjectKey) -> bool {
        self.refused.contains(&key)
    }

    /// The id of an object.
    pub fn id_of(&self, key: ObjectKey) -> Option<KernelNhId> {
        self.objects.get(&key).map(|(id, _)| *id)
    }

    /// What an id stands for.
    pub fn key_of(&self, id: KernelNhId) -> Option<ObjectKey> {
        self.keys.get(&id).copied()
    }

    /// What an id should hold.
    pub fn spec_of(&self, id: KernelNhId) -> Option<&ObjectSpec> {
        self.objects.get(self.keys.get(&id)?).map(|(_, spec)| spec)
    }

    /// Whether [`Self::take_changed`] has something.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Ids whose wish changed since the last call.
    pub fn take_changed(&mut self) -> Vec<KernelNhId> {
        std::mem::take(&mut self.changed)
    }

    fn new_id(&mut self) -> Option<KernelNhId> {
        let id = KernelNhId::new(self.next)?;
        self.next += 1;
        Some(id)
    }
}
