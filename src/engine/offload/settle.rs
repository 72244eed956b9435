//! What changed is brought to the switches: neighbours, hosts, groups, own addresses, prefixes; in this order, because each bears on
//! those behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rustc_hash::FxHashSet;

use super::{KEEP, Offload};
use crate::engine::Engine;
use crate::engine::probe::Verdict;
use crate::engine::switch::Switch;
use crate::model::{Family, ForeignKind, NeighbourKey, NeighbourState, Prefix, RouteKey, TableId};
use crate::plan::{Except, HopId, Target, fixed_exceptions};
use crate::view::{Belief, belief};

impl Engine {
    /// Hosts, and hops whose neighbour changed.
    pub(super) fn settle_neighbours(&self, offload: &mut Offload) {
        for key in std::mem::take(&mut offload.neighbours_touched) {
            if let Some(groups) = offload.users.get(&key) {
                offload.groups_touched.extend(groups.iter().copied());
            }
            let Some((table, port)) = offload.port(key.dev) else {
                continue;
            };
            let host = RouteKey {
                table,
                prefix: Prefix::host(key.addr),
            };
            let wanted = self.config.offload.hosts && port.mac.is_some() && self.is_host(key);
            let known = offload
                .world
                .hosts
                .get(&host)
                .is_some_and(|devs| devs.contains(&key.dev));
            if wanted {
                offload.world.hosts.entry(host).or_default().insert(key.dev);
            } else if known && let Some(devs) = offload.world.hosts.get_mut(&host) {
                devs.remove(&key.dev);
                if devs.is_empty() {
                    offload.world.hosts.remove(&host);
                }
            }
            if wanted || known {
                offload.touched.push(host);
                let hop = HopId {
                    family: Family::of(key.addr),
                    dev: key.dev,
                    addr: key.addr,
                };
                let (facts, switches) = offload.split(self);
                for one in switches.values_mut() {
                    let port = one.ports.ports.iter().find(|port| port.dev == key.dev);
                    if let Some(port) = port {
                        one.rules.set_hop(hop, facts.hop_rule(port, hop));
                    }
                }
            }
        }
    }

    /// A neighbour that the kernel would send to: resolved, and no router's or our own makeshift address.
    fn is_host(&self, key: NeighbourKey) -> bool {
        let global = match key.addr {
            IpAddr::V4(addr) => {
                !addr.is_link_local() && !addr.is_multicast() && !addr.is_broadcast()
            }
            IpAddr::V6(addr) => !crate::model::is_link_local6(addr) && !addr.is_multicast(),
        };
        let resolved = self.view.neighbour(key).is_some_and(|neighbour| {
            neighbour.state != NeighbourState::NoArp
                && matches!(belief(Some(neighbour)), Belief::At(_))
        });
        global && resolved
    }

    /// Groups whose members, or whose members' neighbours, changed.
    pub(super) fn settle_groups(&self, offload: &mut Offload) {
        let touched = std::mem::take(&mut offload.groups_touched);
        let mut paths = FxHashSet::default();
        for group in touched {
            if !self.groups.contains(group.0) {
                for one in offload.switches.values_mut() {
                    one.groups.remove(&group);
                }
                for users in offload.users.values_mut() {
                    users.remove(&group);
                }
                continue;
            }
            let mut users = Vec::new();
            let mut moved = false;
            let (facts, switches) = offload.split(self);
            for one in switches.values_mut() {
                let (wish, hops) = facts.group_wish(&one.ports, group, &mut users);
                for (hop, rule) in hops {
                    one.rules.set_hop(hop, rule);
                }
                let before = one.groups.insert(group, wish.clone());
                moved |= before.is_none_or(|before| {
                    (before.target, &before.tables) != (wish.target, &wish.tables)
                });
                if wish.target == Ok(Target::Group(group)) {
                    one.with(&facts, |rules, env| {
                        rules.set_group(env, group, &wish.members);
                    });
                }
            }
            for user in users {
                offload.users.entry(user).or_default().insert(group);
            }
            if moved {
                paths.extend(self.groups.paths_of(group.0));
            }
        }
        if !paths.is_empty() {
            // One walk for all groups that lead elsewhere now.
            let on_path = self
                .slots
                .iter()
                .filter(|(_, slot)| slot.path.is_some_and(|path| paths.contains(&path)));
            offload.touched.extend(on_path.map(|(_, slot)| slot.key()));
        }
    }

    /// What is to this host, by the kernel's tables.
    pub(super) fn settle_locals(&self, offload: &mut Offload) {
        let families = [Family::V4, Family::V6];
        let tables = offload.tables.iter().copied();
        let mut locals: BTreeMap<(TableId, Family), BTreeSet<Prefix>> = tables
            .flat_map(|table| families.map(|family| ((table, family), BTreeSet::new())))
            .collect();
        let fixed: Vec<Except> = families.into_iter().flat_map(fixed_exceptions).collect();
        let covers = |except: &Except, prefix| matches!(except, Except::To(p) if p.covers(prefix));
        for route in offload.world.mirror.iter() {
            let prefix = route.key.prefix;
            let covered = fixed.iter().any(|except| covers(except, prefix));
            if route.kind != ForeignKind::Local || covered {
                continue;
            }
            for ((table, family), set) in &mut locals {
                // The table `local` is looked up first, whatever the VRF.
                let applies = route.key.table == *table || route.key.table == TableId::LOCAL;
                if applies && *family == prefix.family() {
                    set.insert(prefix);
                }
            }
        }
        let (facts, switches) = offload.split(self);
        for one in switches.values_mut() {
            one.with(&facts, |rules, env| {
                for (table, set) in &locals {
                    rules.set_locals(env, *table, set.clone());
                }
            });
        }
    }

    /// What the kernel looks up, and how, as far as it changed.
    pub(super) fn settle_prefixes(&self, offload: &mut Offload) {
        let mut touched = std::mem::take(&mut offload.touched);
        if touched.is_empty() {
            return;
        }
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|key| offload.tables.contains(&key.table));
        // The local table's prefixes are exceptions; those of a VRF's own table are looked up there too.
        let routed = |offload: &Offload, key: &RouteKey| {
            let foreign = offload.world.mirror.best(key.table, key.prefix).is_some();
            foreign || self.slots.find(*key).is_some()
        };
        for key in &touched {
            let present = routed(offload, key);
            // What neighbours are depends on the subnets, which are known only then.
            if present || !offload.world.hosts.contains_key(key) {
                offload.world.lookup.set(*key, present);
            }
        }
        let near = offload.world.hosts_right_below(&touched);
        touched.extend(near);
        touched.sort_unstable();
        touched.dedup();
        for key in &touched {
            if offload.world.hosts.contains_key(key) && !routed(offload, key) {
                let present = offload.world.is_host(*key);
                offload.world.lookup.set(*key, present);
            }
        }
        self.update_prefixes(offload, &touched);
    }

    /// Lets every switch look at these again.
    pub(super) fn update_prefixes(&self, offload: &mut Offload, keys: &[RouteKey]) {
        let (facts, switches) = offload.split(self);
        for one in switches.values_mut() {
            one.with(&facts, |rules, env| {
                for key in keys {
                    rules.update(env, *key);
                }
            });
        }
    }

    /// A switch starts to write once everything is known that its rules follow from. Whether one has started or stopped.
    pub(super) fn start_switches(&self, offload: &mut Offload) -> bool {
        let known = offload.mirror_listed && offload.qdiscs_listed;
        if !known || offload.ending {
            return false;
        }
        let mut moved = false;
        let synced = self.has_synced();
        let devlink_listed = offload.devlink_listed;
        let (facts, switches) = offload.split(self);
        for one in switches.values_mut() {
            // Blocks of ports that admit nothing too: an earlier run may have left rules there.
            let all_listed = one
                .ports
                .ports
                .iter()
                .filter(|port| port.qdisc.is_some() || one.sharing.needs_driver(port))
                .all(|port| one.listed.contains(&one.sharing.listed_block_of(port)));
            let decided = match one.verdict {
                Some(Verdict::Fit(_)) => synced && !one.planned.is_empty(),
                // All that is found goes, whatever routes there are.
                Some(Verdict::Unfit(_)) => true,
                None => false,
            };
            // Nobody is asked what the driver can where all filter rules run in software.
            let filters = synced && one.planned.iter().any(|port| port.software);
            // Nor do rules of an earlier run wait for routes, or for somebody to ask the driver, where nothing may be admitted.
            let mut ports = one.ports.ports.iter();
            let idle = devlink_listed && !ports.any(|port| one.sharing.needs_driver(port));
            if one.rules.is_started() {
                if idle && !synced && one.rules.is_empty() {
                    one.rules.stop();
                    moved = true;
                }
            } else if all_listed && (decided || (idle && (filters || one.rules.has_found_ours()))) {
                one.with(&facts, Switch::start);
                moved |= one.rules.is_started();
            }
        }
        moved
    }

    /// Hardware forwards to these, so the kernel would see no traffic and let them go stale, and at last forget them.
    pub(super) fn keep_neighbours(&mut self, offload: &mut Offload) {
        if offload.next_keep > self.now {
            return;
        }
        offload.next_keep = self.now + KEEP;
        let mut wanted: FxHashSet<NeighbourKey> = FxHashSet::default();
        for one in offload
            .switches
            .values()
            .filter(|one| one.rules.is_started() && !one.planned.is_empty())
        {
            wanted.extend(one.rules.plan().hops_in_use().map(|hop| NeighbourKey {
                dev: hop.dev,
                addr: hop.addr,
            }));
        }
        // Peers are kept by the resolver; what somebody wrote by hand needs no keeping, and asking would take its MAC away.
        wanted.retain(|key| {
            self.resolver.believed(*key).is_none()
                && self.view.neighbour(*key).is_some_and(|neighbour| {
                    neighbour.state.is_valid()
                        && !matches!(
                            neighbour.state,
                            NeighbourState::Permanent | NeighbourState::NoArp
                        )
                })
        });
        if wanted == offload.kept {
            return;
        }
        for key in wanted.difference(&offload.kept) {
            self.solicit_table.want(*key, Some(()));
        }
        for key in offload.kept.difference(&wanted) {
            if self.resolver.believed(*key).is_none() {
                self.solicit_table.want(*key, None);
            }
        }
        offload.kept = wanted;
    }

    /// The replay is over, or nobody is waited for any more.
    fn has_synced(&self) -> bool {
        let synced = self
            .session
            .connection
            .as_ref()
            .is_some_and(|connection| connection.synced);
        synced || (!self.session.holding() && self.session.connection.is_none())
    }
}
