//! Takes in what the kernel says: the view, next-hop objects and routes that were read back or vanished.
//!
//! The kernel removes much without a word: a link that goes down (or loses its carrier) takes its next-hop objects,
//! permanent neighbours and IPv4 routes along, a group's last member takes the group and all its routes. So a lost
//! link is treated as the loss of all that, and dumps, which the writer does in order with its writes, correct us.
//! Next-hop objects are in `objects`.

use std::net::IpAddr;

use rustc_hash::FxHashSet;

use super::report::Severity;
use super::{Engine, ObjectSpec};
use crate::model::{
    DumpKind, FormId, IfIndex, KernelEvent, KernelHop, KernelNhId, KernelTarget, MacAddr,
    Neighbour, NeighbourKey, ObservedRoute, Protocol,
};
use crate::reconcile::Entry;
use crate::resolve::is_pool_address;
use crate::rib::SlotFlags;
use crate::view::ViewChange;

mod objects;

/// How long the kernel may take to remove what a link takes along.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

impl Engine {
    pub(super) fn apply_kernel(&mut self, events: Vec<KernelEvent>) {
        let before = self.counters.mended.routes;
        let mut changes = Vec::new();
        for event in events {
            self.view.apply(&event, &mut changes);
            for change in changes.drain(..) {
                if let ViewChange::Neighbour(key) = change {
                    self.touch_offload_neighbour(key);
                }
                self.apply_view_change(change);
            }
            match &event {
                KernelEvent::Link(_) | KernelEvent::Links(_) | KernelEvent::Address { .. } => {
                    self.link_changed_for_offload();
                }
                KernelEvent::LinkGone(dev) => {
                    self.offload.ports.link_gone(*dev);
                    self.link_changed_for_offload();
                }
                _ => {}
            }
            match event {
                KernelEvent::NextHop(object) => self.object_changed(&object),
                KernelEvent::NextHopGone(id) => self.object_gone(id),
                KernelEvent::NextHops(objects) => self.objects_listed(&objects),
                KernelEvent::Routes { routes, last } => self.routes_listed(routes, last),
                KernelEvent::Route(route) => self.route_changed(route),
                KernelEvent::RouteGone(route) => self.route_gone(&route),
                KernelEvent::Links(_) => self.known.links = true,
                KernelEvent::Neighbours(list) => self.neighbours_listed(&list),
                KernelEvent::Overrun => {
                    self.counters.overruns += 1;
                    self.invalidate_dumps();
                    self.object_dump.wanted = true;
                    self.route_dump.wanted = true;
                    self.warn(
                        "netlink-overrun",
                        "the kernel dropped notifications; everything is read back",
                    );
                }
                KernelEvent::DumpFailed(kind, errno) => {
                    self.warn(
                        "dump-failed",
                        format!("reading back {kind:?} failed: {errno}; it is tried again"),
                    );
                    match kind {
                        DumpKind::NextHops => self.object_dump.wanted = true,
                        DumpKind::Routes => self.route_dump.wanted = true,
                        DumpKind::Links | DumpKind::Neighbours => {}
                    }
                }
                KernelEvent::Link(_)
                | KernelEvent::LinkGone(_)
                | KernelEvent::Address { .. }
                | KernelEvent::Neighbour(_)
                | KernelEvent::NeighbourGone(_) => {}
            }
        }
        // What a link takes along when it goes is told before or after the link's own message.
        let neighbours = std::mem::take(&mut self.lost_neighbours)
            .iter()
            .filter(|key| self.view.usable(key.dev))
            .count();
        if neighbours > 0 {
            self.counters.mended.neighbours += neighbours as u64;
            self.warn(
                "neighbours-mended",
                format!(
                    "neighbours that our routes need and others had deleted or changed are written again: {neighbours}"
                ),
            );
        }
        let mended = self.counters.mended.routes - before;
        if mended > 0 {
            self.warn(
                "routes-mended",
                format!(
                    "routes of ours that others had deleted or changed are written again: {mended}"
                ),
            );
        }
    }

    fn warn(&mut self, kind: &'static str, text: impl Into<Box<str>>) {
        self.notables.push(self.now, Severity::Warn, kind, text);
    }

    /// Somebody wrote over a route of ours, or beside it with its metric.
    fn route_changed(&mut self, route: ObservedRoute) {
        let Some(id) = self
            .slots
            .find(route.key)
            .filter(|_| route.metric == self.config.kernel.metric)
        else {
            return;
        };
        let slot = self.slots.get_mut(id);
        if slot.flags.has(SlotFlags::IN_FLIGHT) {
            self.route_dump.wanted = true;
        } else if route.protocol == Protocol::REDIRECT.0 {
            self.route_observed(route);
            self.slots.get_mut(id).flags.clear(SlotFlags::SEEN);
        } else if let Some(form) = slot.applied.take() {
            // Ours is gone; the next write finds what is in the way.
            self.forms.release(form);
            self.mark(id);
        }
    }

    /// Somebody deleted a route of ours, or one that stood in its way.
    fn route_gone(&mut self, route: &ObservedRoute) {
        let Some(id) = self
            .slots
            .find(route.key)
            .filter(|_| route.metric == self.config.kernel.metric)
        else {
            return;
        };
        let slot = self.slots.get_mut(id);
        if slot.flags.has(SlotFlags::IN_FLIGHT) {
            self.route_dump.wanted = true;
            return;
        }
        if route.protocol == Protocol::REDIRECT.0 {
            let Some(form) = slot.applied.take() else {
                return;
            };
            self.forms.release(form);
            self.counters.mended.routes += 1;
        } else {
            slot.flags.clear(SlotFlags::FOREIGN);
        }
        self.mark(id);
    }

    fn neighbours_listed(&mut self, list: &[Neighbour]) {
        if !std::mem::replace(&mut self.known.neighbours, true) {
            // Solicited by an earlier run; released unless a route leads there again.
            for neighbour in list.iter().filter(|n| n.is_managed_by_us()) {
                self.solicit_table.observe(neighbour.key, Some(()));
            }
        }
    }

    fn apply_view_change(&mut self, change: ViewChange) {
        match change {
            ViewChange::Link {
                dev,
                was_usable,
                usable,
            } => {
                if was_usable && !usable {
                    let name = self.view.name_of(dev);
                    self.notables.push(
                        self.now,
                        Severity::Info,
                        "link-down",
                        format!("{name} is down or gone"),
                    );
                    self.link_lost(dev);
                } else if usable && self.is_listed() {
                    let name = self.view.name_of(dev);
                    self.notables.push(
                        self.now,
                        Severity::Info,
                        "link-up",
                        format!("{name} is up"),
                    );
                    // What was refused may have been so for want of this link.
                    self.retry_all();
                }
                self.resolver
                    .link_changed(&self.view, dev, &mut self.changes);
            }
            ViewChange::Neighbour(key) => {
                self.resolver
                    .neighbour_changed(&self.view, key, &mut self.changes);
                self.observe_neighbour(key);
                self.look_for_own_mac(key);
            }
            ViewChange::Unmanaged(key) => {
                let lost = |entry: &Entry<()>| entry.sent.is_none() && entry.desired.is_some();
                if self.solicit_table.get(key).is_some_and(lost) {
                    self.lost_neighbours.push(key);
                    self.solicit_table.observe(key, None);
                }
            }
            ViewChange::AddressAdded(dev) => {
                self.resolver
                    .resolve_dev(&self.view, dev, &mut self.changes);
            }
            ViewChange::AddressGone(dev) => {
                // With its last IPv4 address a link loses its IPv4 routes, and only connected ones are announced.
                tracing::debug!(link = %dev, "address gone, routes are read back");
                self.route_dump.wanted = true;
                self.route_dump.invalid = true;
            }
        }
    }

    /// Compares a permanent neighbour of ours with what is there. An equal entry of somebody else's is as good as ours.
    pub(super) fn observe_neighbour(&mut self, key: NeighbourKey) {
        if let IpAddr::V4(addr) = key.addr {
            if !is_pool_address(addr) {
                return;
            }
            let there = self.view.neighbour(key).and_then(|n| {
                use crate::model::NeighbourState::Permanent;
                (n.state == Permanent).then_some(n)
            });
            let ours = there.is_some_and(|n| n.protocol == Protocol::REDIRECT.0);
            let wanted = self.resolver.wanted_neighbour(key);
            let applied = match there {
                Some(n) if ours || n.mac == wanted => n.mac,
                _ => None,
            };
            // Never delete what somebody else wrote: once it is not wanted, it counts as absent.
            let applied = if wanted.is_none() && !ours {
                None
            } else {
                applied
            };
            let lost = |entry: &Entry<MacAddr>| {
                entry.sent.is_none() && entry.desired.is_some() && entry.applied == entry.desired
            };
            if applied != wanted && self.neighbour_table.get(key).is_some_and(lost) {
                self.lost_neighbours.push(key);
            }
            self.neighbour_table.observe(key, applied);
        } else if self.view.neighbour(key).is_none() {
            self.solicit_table.observe(key, None);
        }
    }

    /// A peer that has the Ethernet address of our own link: a cloned machine, or two ports with one address. On a cable
    /// that may work, behind a switch it can't, and only a person can mend it.
    pub(super) fn look_for_own_mac(&mut self, key: NeighbourKey) {
        let own = self.view.link(key.dev).and_then(|link| link.mac);
        let mac = self.resolver.believed(key).and_then(|peer| peer.mac);
        let same = mac.map(|(mac, _)| mac).filter(|&mac| Some(mac) == own);
        let Some(mac) = same else {
            self.own_macs.remove(&key);
            return;
        };
        if self.own_macs.insert(key) {
            let name = self.view.name_of(key.dev);
            self.warn(
                "own-mac",
                format!(
                    "{} has the Ethernet address of {name} itself, {mac}: behind a switch it can't be reached",
                    key.addr
                ),
            );
        }
    }

    fn link_lost(&mut self, dev: IfIndex) {
        let lost: Vec<_> = self
            .object_table
            .iter()
            .filter(|(_, entry)| {
                let on = |spec: Option<&ObjectSpec>| spec.is_some_and(|spec| spec.is_on(dev));
                on(entry.applied.as_ref()) || on(entry.sent.as_ref().and_then(Option::as_ref))
            })
            .map(|(id, _)| id)
            .collect();
        self.lose_objects(lost);
        let neighbours: Vec<_> = self
            .neighbour_table
            .iter()
            .map(|(key, _)| key)
            .filter(|k| k.dev == dev)
            .collect();
        for key in neighbours {
            self.neighbour_table.observe(key, None);
        }
        let solicits: Vec<_> = self
            .solicit_table
            .iter()
            .map(|(key, _)| key)
            .filter(|k| k.dev == dev)
            .collect();
        for key in solicits {
            self.solicit_table.observe(key, None);
        }
        let inline: FxHashSet<FormId> = self
            .forms
            .iter()
            .filter(|(_, r)| matches!(&r.target, KernelTarget::Hops(hops) if hops.iter().any(|(h, _)| h.dev == dev)))
            .map(|(form, _)| form)
            .collect();
        if !inline.is_empty() {
            let mut on = Vec::new();
            self.slots.for_each_mut(|id, slot| {
                if slot.applied.is_some_and(|form| inline.contains(&form)) {
                    on.push(id);
                }
            });
            for id in on {
                self.mark(id);
            }
        }
        // Inline routes of a link that only lost its carrier are still there; the read-back tells which are. The link's
        // message comes before the kernel removes anything (`__dev_notify_flags`), which takes a while for a large table.
        self.route_dump.wanted = true;
        self.route_dump.not_before = self.now + SETTLE;
        self.invalidate_dumps();
    }

    fn invalidate_dumps(&mut self) {
        self.route_dump.invalid = true;
        self.object_dump.invalid = true;
    }

    /// All routes of these forms are gone from the kernel.
    fn lose_routes(&mut self, forms: &FxHashSet<FormId>) {
        if forms.is_empty() {
            return;
        }
        let mut lost = Vec::new();
        self.slots.for_each_mut(|id, slot| {
            if slot.sent.is_some_and(|form| forms.contains(&form)) {
                slot.flags.set(SlotFlags::REWRITE);
            }
            if let Some(form) = slot.applied.filter(|form| forms.contains(form)) {
                slot.applied = None;
                lost.push((id, form));
            }
        });
        for (id, form) in lost {
            self.forms.release(form);
            self.mark(id);
        }
    }

    fn routes_listed(&mut self, routes: Vec<ObservedRoute>, last: bool) {
        if !self.route_dump.running {
            return;
        }
        for route in routes {
            if route.protocol != Protocol::REDIRECT.0 {
                continue;
            }
            if route.metric == self.config.kernel.metric {
                self.route_observed(route);
            } else if !self.known.routes {
                self.old_route_observed(route);
            }
        }
        if !last {
            return;
        }
        self.route_dump.running = false;
        let invalid = self.route_dump.invalid;
        let mut vanished = Vec::new();
        // Not those that northbound alone has said already.
        let mut adopted = 0;
        let first = !self.known.routes;
        let read_back = std::mem::take(&mut self.read_back);
        self.slots.for_each_mut(|id, slot| {
            let seen = slot.flags.has(SlotFlags::SEEN);
            slot.flags.clear(SlotFlags::SEEN);
            adopted += usize::from(seen || slot.flags.has(SlotFlags::LEFTOVER));
            if !seen && !slot.flags.has(SlotFlags::IN_FLIGHT) && slot.applied.is_some() {
                vanished.push(id);
            }
        });
        if invalid {
            // A link or notifications were lost meanwhile: what was seen may be gone already.
            self.route_dump.wanted = true;
            self.read_back = read_back;
            return;
        }
        self.route_dump.done += 1;
        self.known.routes = true;
        if first && adopted > 0 {
            self.session.hold(self.now);
            self.notables.push(
                self.now,
                Severity::Info,
                "adopted",
                format!("{adopted} routes of an earlier run are adopted"),
            );
        }
        let count = vanished.len();
        for id in vanished {
            if let Some(form) = self.slots.get_mut(id).applied.take() {
                self.forms.release(form);
            }
            self.mark(id);
        }
        self.counters.mended.routes += count as u64;
        for id in read_back {
            self.clear_failure(id);
            let slot = self.slots.get_mut(id);
            if slot.path.is_some() && slot.applied.is_none() {
                slot.flags.set(SlotFlags::FOREIGN);
                let key = slot.key();
                self.retire(id);
                self.notables.push(
                    self.now,
                    Severity::Error,
                    "foreign-route",
                    format!(
                        "{}: a route with metric {} that is not ours is in the way",
                        self.view.route_text(key),
                        self.config.kernel.metric
                    ),
                );
            }
            self.mark(id);
        }
    }

    fn route_observed(&mut self, route: ObservedRoute) {
        let known = self.slots.find(route.key);
        let form = route.form.map(|form| self.forms.hold(form));
        let id = known.unwrap_or_else(|| {
            let id = self.slots.find_or_insert(route.key, self.now);
            // Before the first sweep it may be what a source is about to say again; later nobody will.
            if !self.known.routes || self.session.holding() {
                self.slots.get_mut(id).flags.set(SlotFlags::LEFTOVER);
            }
            id
        });
        let slot = self.slots.get_mut(id);
        slot.flags.set(SlotFlags::SEEN);
        if slot.flags.has(SlotFlags::IN_FLIGHT) || (slot.applied == form && form.is_some()) {
            if let Some(form) = form {
                self.forms.release(form);
            }
            return;
        }
        if form.is_none() {
            // Ours by its mark, but not as we write: it is written over, or removed.
            slot.flags.set(SlotFlags::REWRITE);
        }
        slot.flags.clear(SlotFlags::FOREIGN);
        let old = std::mem::replace(&mut slot.applied, form);
        if old.is_some() {
            self.counters.mended.routes += 1;
        }
        if let Some(old) = old {
            self.forms.release(old);
        }
        self.mark(id);
    }

    pub(super) fn form_has_gateway(&self, form: FormId) -> bool {
        match &self.forms.get(form).target {
            KernelTarget::None => false,
            KernelTarget::Hops(hops) => hops.iter().any(|(hop, _)| hop.via.is_some()),
            KernelTarget::Object(id) => {
                match self.object_table.get(*id).and_then(|e| e.applied.as_ref()) {
                    Some(ObjectSpec::Hop(hop)) => hop.via.is_some(),
                    Some(ObjectSpec::Group(_)) => true,
                    None => false,
                }
            }
        }
    }

    /// The routes' next-hop objects and inline hops that are in use by some form.
    pub(super) fn hops_in_use(&self) -> (FxHashSet<KernelNhId>, FxHashSet<KernelHop>) {
        let mut ids = FxHashSet::default();
        let mut hops = FxHashSet::default();
        for (_, route) in self.forms.iter() {
            match &route.target {
                KernelTarget::None => {}
                KernelTarget::Object(id) => {
                    ids.insert(*id);
                }
                KernelTarget::Hops(list) => hops.extend(list.iter().map(|(hop, _)| *hop)),
            }
        }
        (ids, hops)
    }
}
