//! The fake target: a kernel in memory with the semantics that the real one was measured to have, which a real-kernel
//! test stands beside. It fails the n-th write, fills up, and loses what a link takes with it.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use frr_offload::model::*;

pub const EEXIST: i32 = 17;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const ENETDOWN: i32 = 100;

/// A next-hop object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Hop(KernelHop),
    Group(Vec<(u32, u16)>),
}

/// Where packets of a route go, ids resolved: kind and hops with weights.
pub type Treatment = (RouteKind, BTreeMap<KernelHop, u16>);

#[derive(Debug, Default, Clone)]
pub struct FakeKernel {
    pub links: BTreeMap<IfIndex, Link>,
    pub objects: BTreeMap<u32, Object>,
    pub routes: BTreeMap<RouteKey, KernelRoute>,
    /// That of our routes, if it is not 10.
    pub metric: Option<u32>,
    /// Routes of ours that have another metric, with it.
    pub old_routes: BTreeMap<(RouteKey, u32), KernelRoute>,
    pub foreign: BTreeSet<RouteKey>,
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    pub no_objects: bool,
    /// Fail the write with this number, counting from now.
    pub fail_at: Option<(u64, i32)>,
    /// The answer to the write with this number is lost, and the writer sends it again.
    pub lose_at: Option<u64>,
    pub writes: u64,
    pub route_writes: u64,
    /// Every id ever used; one that comes again after it went is a broken promise.
    burnt: BTreeSet<u32>,
    /// Events that the monitor would have told.
    pub events: Vec<KernelEvent>,
}

pub fn link(index: u32, up: bool) -> Link {
    Link {
        index: IfIndex::new(index).unwrap(),
        name: format!("eth{index}").into(),
        admin_up: up,
        carrier: up,
        one_neighbour: false,
        mac: Some(MacAddr([2, 0, 0, 0, 1, index as u8])),
        mtu: 1500,
        master: None,
        vrf_table: None,
        kind: None,
        vlan: None,
        switch: None,
        port_name: None,
    }
}

impl FakeKernel {
    pub fn with_links(count: u32) -> Self {
        let links = (1..=count)
            .map(|i| (IfIndex::new(i).unwrap(), link(i, true)))
            .collect();
        Self {
            links,
            ..Self::default()
        }
    }

    /// What the monitor tells at its start.
    pub fn listing(&self) -> Vec<KernelEvent> {
        vec![
            KernelEvent::Links(self.links.values().cloned().collect()),
            KernelEvent::Neighbours(self.neighbours.values().copied().collect()),
            KernelEvent::NextHops(self.observed_objects()),
        ]
    }

    fn observed_objects(&self) -> Vec<ObservedNextHop> {
        self.objects
            .iter()
            .map(|(&id, object)| ObservedNextHop {
                id,
                protocol: 1,
                content: Some(match object {
                    Object::Hop(hop) => ObservedContent::Hop(*hop),
                    Object::Group(members) => ObservedContent::Group(members.clone()),
                }),
            })
            .collect()
    }

    fn observed_routes(&self) -> KernelEvent {
        let metric = self.metric();
        let routes = self.routes.iter().map(|(&key, form)| (key, metric, form));
        let old = self.old_routes.iter().map(|(&(k, m), form)| (k, m, form));
        let routes = routes
            .chain(old)
            .map(|(key, metric, form)| ObservedRoute {
                key,
                metric,
                protocol: 1,
                form: Some(form.clone()),
            })
            .collect();
        KernelEvent::Routes { routes, last: true }
    }

    pub fn metric(&self) -> u32 {
        self.metric.unwrap_or(10)
    }

    /// The next daemon writes with this one.
    pub fn change_metric(&mut self, metric: u32) {
        let old = self.metric();
        self.metric = Some(metric);
        let routes = std::mem::take(&mut self.routes);
        self.old_routes
            .extend(routes.into_iter().map(|(key, form)| ((key, old), form)));
        let (now, old) = std::mem::take(&mut self.old_routes)
            .into_iter()
            .partition(|((_, old), _)| *old == metric);
        self.old_routes = old;
        let now: BTreeMap<(RouteKey, u32), KernelRoute> = now;
        self.routes = now
            .into_iter()
            .map(|((key, _), form)| (key, form))
            .collect();
    }

    fn usable(&self, dev: IfIndex) -> bool {
        self.links.get(&dev).is_some_and(Link::usable)
    }

    /// Does what the writer does with a batch: events of dumps, then the outcomes.
    pub fn write(&mut self, ops: Vec<Op>) -> Vec<Event> {
        let mut events = Vec::new();
        let mut outcomes = Vec::new();
        for op in ops {
            if let OpKind::Dump(kind) = op.kind {
                events.push(Event::Kernel(vec![match kind {
                    DumpKind::NextHops => KernelEvent::NextHops(self.observed_objects()),
                    DumpKind::Routes => self.observed_routes(),
                    DumpKind::Links => KernelEvent::Links(self.links.values().cloned().collect()),
                    DumpKind::Neighbours => {
                        KernelEvent::Neighbours(self.neighbours.values().copied().collect())
                    }
                }]));
                outcomes.push(Outcome {
                    ticket: op.ticket,
                    result: Ok(()),
                });
                continue;
            }
            self.writes += 1;
            let result = if let Some((0, errno)) = self.fail_at {
                self.fail_at = None;
                Err(errno)
            } else if self.lose_at == Some(0) {
                self.lose_at = None;
                let _lost = self.apply(&op.kind);
                self.apply(&op.kind)
            } else {
                if let Some((left, _)) = &mut self.fail_at {
                    *left -= 1;
                }
                self.lose_at = self.lose_at.map(|left| left - 1);
                self.apply(&op.kind)
            };
            let result = result.map_err(|errno| Refusal {
                errno: Errno(errno),
                text: None,
            });
            outcomes.push(Outcome {
                ticket: op.ticket,
                result,
            });
        }
        events.push(Event::Outcomes(outcomes));
        events
    }

    fn apply(&mut self, op: &OpKind) -> Result<(), i32> {
        match op {
            OpKind::Route { key, op } => {
                self.route_writes += 1;
                self.route(*key, op)
            }
            OpKind::DeleteOldRoute { key, metric } => {
                let gone = self.old_routes.remove(&(*key, *metric));
                gone.map(|_| ()).ok_or(ESRCH)
            }
            OpKind::PutHop { id, hop } => {
                self.check_objects()?;
                if !self.usable(hop.dev) {
                    return Err(ENETDOWN);
                }
                if matches!(self.objects.get(&id.get()), Some(Object::Group(_))) {
                    return Err(EINVAL);
                }
                self.put_object(id.get(), Object::Hop(*hop));
                Ok(())
            }
            OpKind::PutGroup { id, members } => {
                self.check_objects()?;
                let all_hops = members
                    .iter()
                    .all(|(m, _)| matches!(self.objects.get(&m.get()), Some(Object::Hop(_))));
                if members.is_empty()
                    || !all_hops
                    || matches!(self.objects.get(&id.get()), Some(Object::Hop(_)))
                {
                    return Err(EINVAL);
                }
                self.put_object(
                    id.get(),
                    Object::Group(members.iter().map(|(m, w)| (m.get(), *w)).collect()),
                );
                Ok(())
            }
            OpKind::DeleteNextHop { id } => {
                if !self.objects.contains_key(&id.get()) {
                    return Err(ENOENT);
                }
                self.remove_object(id.get());
                Ok(())
            }
            OpKind::PutNeighbour { key, mac } => {
                if !self.usable(key.dev) {
                    return Err(ENETDOWN);
                }
                let n = Neighbour {
                    key: *key,
                    mac: Some(*mac),
                    state: NeighbourState::Permanent,
                    router: false,
                    protocol: 1,
                    managed: false,
                };
                self.set_neighbour(n);
                Ok(())
            }
            OpKind::DeleteNeighbour { key } => self
                .neighbours
                .remove(key)
                .map(|_| self.events.push(KernelEvent::NeighbourGone(*key)))
                .ok_or(ENOENT),
            OpKind::Solicit { key } | OpKind::Release { key } => {
                if self.links.contains_key(&key.dev) {
                    Ok(())
                } else {
                    Err(ENODEV)
                }
            }
            OpKind::Set(_) => Ok(()),
            OpKind::Dump(_) => unreachable!("handled by write"),
        }
    }

    fn check_objects(&self) -> Result<(), i32> {
        if self.no_objects {
            Err(EOPNOTSUPP)
        } else {
            Ok(())
        }
    }

    fn route(&mut self, key: RouteKey, op: &RouteOp) -> Result<(), i32> {
        let form = match op {
            RouteOp::Delete => return self.routes.remove(&key).map(|_| ()).ok_or(ESRCH),
            RouteOp::Create(_) if self.routes.contains_key(&key) || self.foreign.contains(&key) => {
                return Err(EEXIST);
            }
            RouteOp::Create(form) | RouteOp::Replace(form) => form,
        };
        assert!(
            !self.foreign.contains(&key),
            "a foreign route was overwritten: {key}"
        );
        match &form.target {
            KernelTarget::Object(id) if !self.objects.contains_key(&id.get()) => {
                return Err(EINVAL);
            }
            KernelTarget::Hops(hops) if hops.iter().any(|(hop, _)| !self.usable(hop.dev)) => {
                return Err(ENETDOWN);
            }
            _ => {}
        }
        self.routes.insert(key, (**form).clone());
        Ok(())
    }

    fn put_object(&mut self, id: u32, object: Object) {
        if !self.objects.contains_key(&id) {
            assert!(
                self.burnt.insert(id),
                "object id {id:#x} was used again after it had gone"
            );
        }
        self.objects.insert(id, object);
    }

    fn remove_object(&mut self, id: u32) {
        self.objects.remove(&id);
        let by_it = KernelTarget::Object(KernelNhId::new(id).unwrap());
        self.routes.retain(|_, r| r.target != by_it);
        self.old_routes.retain(|_, r| r.target != by_it);
        let groups: Vec<u32> = self.objects.keys().copied().collect();
        for group in groups {
            let Some(Object::Group(members)) = self.objects.get_mut(&group) else {
                continue;
            };
            let before = members.len();
            members.retain(|(m, _)| *m != id);
            if members.is_empty() && before > 0 {
                self.remove_object(group);
            }
        }
    }

    /// Whether two groups are the same, as when an id took over the content of another in place, or a group shrank to
    /// what is a hop elsewhere. After a restart they are one, and a route of the other moves.
    pub fn has_equal_groups(&self) -> bool {
        let groups: Vec<_> = self
            .objects
            .values()
            .filter(|o| matches!(o, Object::Group(_)))
            .collect();
        groups.iter().enumerate().any(|(i, a)| {
            groups[..i].contains(a) || matches!(a, Object::Group(members) if members.len() == 1)
        })
    }

    /// Somebody removes an object; that is announced.
    pub fn steal_object(&mut self, id: u32) {
        self.remove_object(id);
        self.events.push(KernelEvent::NextHopGone(id));
    }

    pub fn set_neighbour(&mut self, n: Neighbour) {
        self.neighbours.insert(n.key, n);
        self.events.push(KernelEvent::Neighbour(n));
    }

    /// A link goes: objects, neighbours and inline routes with it, without a word but the link's own.
    pub fn link_down(&mut self, dev: IfIndex) {
        let Some(link) = self.links.get_mut(&dev) else {
            return;
        };
        link.admin_up = false;
        link.carrier = false;
        let link = link.clone();
        let on: Vec<u32> = self
            .objects
            .iter()
            .filter(|(_, o)| matches!(o, Object::Hop(hop) if hop.dev == dev))
            .map(|(&id, _)| id)
            .collect();
        for id in on {
            self.remove_object(id);
        }
        self.routes.retain(|_, r| match &r.target {
            KernelTarget::Hops(hops) => !hops.iter().all(|(hop, _)| hop.dev == dev),
            _ => true,
        });
        let gone: Vec<_> = self
            .neighbours
            .keys()
            .filter(|k| k.dev == dev)
            .copied()
            .collect();
        for key in gone {
            self.neighbours.remove(&key);
            self.events.push(KernelEvent::NeighbourGone(key));
        }
        self.events.push(KernelEvent::Link(link));
    }

    pub fn link_up(&mut self, dev: IfIndex) {
        let Some(link) = self.links.get_mut(&dev) else {
            return;
        };
        link.admin_up = true;
        link.carrier = true;
        self.events.push(KernelEvent::Link(link.clone()));
    }

    /// What happens to packets of a route now.
    pub fn treatment(&self, key: RouteKey) -> Option<Treatment> {
        let route = self.routes.get(&key)?;
        let mut hops = BTreeMap::new();
        match &route.target {
            KernelTarget::None => {}
            KernelTarget::Hops(list) => hops.extend(list.iter().copied()),
            KernelTarget::Object(id) => match &self.objects[&id.get()] {
                Object::Hop(hop) => {
                    hops.insert(*hop, 1);
                }
                Object::Group(members) => {
                    for (member, weight) in members {
                        let Object::Hop(hop) = &self.objects[member] else {
                            panic!("a group in a group")
                        };
                        *hops.entry(*hop).or_default() += weight;
                    }
                }
            },
        }
        Some((route.kind, hops))
    }

    /// Every gateway of our pool that a route leads to has its permanent neighbour: else the kernel would shout
    /// "who has 169.254.0.1" (docs/evidence.md, "169.254.0.x").
    pub fn assert_neighbours(&self) {
        for key in self.routes.keys() {
            for (hop, _) in self.treatment(*key).unwrap().1 {
                if let Some(IpAddr::V4(addr)) = hop.via
                    && addr.octets()[..2] == [169, 254]
                    && self.usable(hop.dev)
                {
                    let key = NeighbourKey {
                        dev: hop.dev,
                        addr: IpAddr::V4(addr),
                    };
                    assert!(
                        self.neighbours.contains_key(&key),
                        "{addr} on {} has no neighbour",
                        hop.dev
                    );
                }
            }
        }
    }
}
