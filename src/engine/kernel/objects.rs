//! Next-hop objects that were read back, changed or vanished, and what goes with them.
//!
//! The kernel removes a group with its last member, and all routes that lead to what it removes, without a word. So a lost object is
//! treated as the loss of all that. An id that was lost is not used again.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::engine::{Engine, ObjectSpec};
use crate::model::{FormId, KernelNhId, KernelTarget, ObservedContent, ObservedNextHop, Protocol};
use crate::plan::ObjectKey;

type Members = Box<[(KernelNhId, u16)]>;

impl Engine {
    pub(super) fn object_changed(&mut self, object: &ObservedNextHop) {
        let Some(id) = KernelNhId::new(object.id) else {
            return;
        };
        self.objects.reserve_up_to(id);
        let Some(entry) = self.object_table.get(id) else {
            return;
        };
        // Notifications lag behind our own writes: a difference is only a reason to look.
        if entry.sent.is_none() && entry.applied != spec_of(object) {
            self.object_dump.wanted = true;
        }
    }

    pub(super) fn object_gone(&mut self, id: u32) {
        let Some(id) = KernelNhId::new(id) else {
            return;
        };
        self.objects.withdraw_offer(id);
        let Some(entry) = self.object_table.get(id) else {
            return;
        };
        let removed_by_us = entry.sent == Some(None);
        if removed_by_us || (entry.applied.is_none() && entry.sent.is_none()) {
            return;
        }
        // Also one that is not wanted any more matters: a group that still had it may be gone with it.
        if entry.desired.is_some() {
            self.counters.mended.objects += 1;
            self.warn(
                "object-lost",
                format!(
                    "next-hop object {} was removed by somebody; it is made again",
                    id.get()
                ),
            );
        }
        self.lose_objects(vec![id]);
    }

    pub(super) fn objects_listed(&mut self, objects: &[ObservedNextHop]) {
        if !self.known.objects {
            self.known.objects = true;
            for object in objects {
                if let Some(id) = KernelNhId::new(object.id) {
                    self.objects.reserve_up_to(id);
                    if object.protocol == Protocol::REDIRECT.0 {
                        match spec_of(object) {
                            Some(spec) => {
                                self.object_table.observe(id, Some(spec.clone()));
                                self.objects.offer(id, spec);
                            }
                            None => self.objects.reserve_up_to(id),
                        }
                    }
                }
            }
            return;
        }
        if !self.object_dump.running {
            // The monitor's own list after an overrun is not in order with our writes.
            self.object_dump.wanted = true;
            return;
        }
        self.object_dump.running = false;
        if self.object_dump.invalid {
            self.object_dump.wanted = true;
            return;
        }
        self.object_dump.done += 1;
        let listed: FxHashMap<KernelNhId, &ObservedNextHop> = objects
            .iter()
            .filter_map(|o| Some((KernelNhId::new(o.id)?, o)))
            .collect();
        let mut lost = Vec::new();
        let mut differ = Vec::new();
        for (id, entry) in self.object_table.iter() {
            if entry.sent.is_some() {
                continue;
            }
            let Some(applied) = &entry.applied else {
                continue;
            };
            match listed.get(&id) {
                None => lost.push(id),
                Some(object) => {
                    let there = spec_of(object);
                    if there.as_ref() != Some(applied) {
                        let same_kind = matches!(
                            (&there, applied),
                            (Some(ObjectSpec::Hop(_)), ObjectSpec::Hop(_))
                                | (Some(ObjectSpec::Group(_)), ObjectSpec::Group(_))
                        );
                        if same_kind && object.protocol == Protocol::REDIRECT.0 {
                            differ.push((id, there));
                        } else {
                            // Foreign content under an id of ours: the id is lost (docs/evidence.md, "Next-hop objects").
                            lost.push(id);
                        }
                    }
                }
            }
        }
        let mended = lost.len() + differ.len();
        for (id, there) in differ {
            self.object_table.observe(id, there);
        }
        for (&id, object) in &listed {
            if object.protocol == Protocol::REDIRECT.0 && self.object_table.get(id).is_none() {
                self.object_table.observe(id, spec_of(object));
            }
        }
        if mended > 0 {
            self.counters.mended.objects += mended as u64;
            self.warn(
                "objects-mended",
                format!("next-hop objects that were not as written are made again: {mended}"),
            );
        }
        self.lose_objects(lost);
    }

    /// The kernel (or somebody) removed objects: so it did with the groups that are empty now, and with all routes that
    /// led to either. Their ids are burnt.
    pub(in crate::engine) fn lose_objects(&mut self, lost: Vec<KernelNhId>) {
        if lost.is_empty() {
            return;
        }
        let mut work = lost;
        let mut gone = FxHashSet::default();
        while let Some(id) = work.pop() {
            if !gone.insert(id) {
                continue;
            }
            for (group, members) in self.groups_with(id) {
                let rest: Box<[_]> = members
                    .iter()
                    .filter(|(m, _)| !gone.contains(m))
                    .copied()
                    .collect();
                if rest.is_empty() {
                    work.push(group);
                } else {
                    self.object_table
                        .observe(group, Some(ObjectSpec::Group(rest)));
                }
            }
            if let Some(key) = self.objects.lose(id) {
                self.replan_object(key);
            }
            self.object_table.forget(id);
        }
        let forms: FxHashSet<FormId> = self
            .forms
            .iter()
            .filter(
                |(_, route)| matches!(route.target, KernelTarget::Object(id) if gone.contains(&id)),
            )
            .map(|(form, _)| form)
            .collect();
        self.lose_routes(&forms);
    }

    /// Plans those anew that lead to an object. Not as a change of a hop: that would forget how often it was refused.
    pub(in crate::engine) fn replan_object(&mut self, key: ObjectKey) {
        match key {
            ObjectKey::Hop(hop) => {
                let users: Vec<_> = self.plan.users_of(hop).collect();
                self.replan.extend(users);
            }
            ObjectKey::Group(group, family) => {
                self.replan.insert((group, family));
            }
        }
    }

    fn groups_with(&self, member: KernelNhId) -> Vec<(KernelNhId, Members)> {
        self.object_table
            .iter()
            .filter_map(|(id, entry)| match entry.applied.as_ref() {
                Some(ObjectSpec::Group(members)) if members.iter().any(|(m, _)| *m == member) => {
                    Some((id, members.clone()))
                }
                _ => None,
            })
            .collect()
    }

    /// Removes objects of an earlier run that nobody took up, once nothing is held any more.
    pub(in crate::engine) fn prune_objects(&mut self) {
        if !self.session.holding() {
            for id in self.objects.withdraw_offers() {
                self.object_table.touch(id);
            }
        }
    }
}

fn spec_of(object: &ObservedNextHop) -> Option<ObjectSpec> {
    match object.content.as_ref()? {
        ObservedContent::Hop(hop) => Some(ObjectSpec::Hop(*hop)),
        ObservedContent::Group(members) => {
            // A group with a member outside our range is not one that we wrote.
            let members: Option<Box<[_]>> = members
                .iter()
                .map(|&(id, weight)| Some((KernelNhId::new(id)?, weight)))
                .collect();
            members.map(ObjectSpec::Group)
        }
    }
}
