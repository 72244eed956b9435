//! Ports become switches and blocks: features, qdiscs, the first look at what stands there, the driver's abilities.
//!
//! ```text
//! ports -> a switch for each switch id; then for each port that may admit:
//!   hw-tc-offload on -> clsact qdisc, with the shared block where it can (`blocks`) -> rules read back
//!   -> (once a switch) probe -> planned
//! ```

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::blocks::{Joined, Sharing};
use super::{Job, Offload, OneSwitch, SwitchKey};
use crate::config::{LayoutMode, OffloadMode};
use crate::engine::Engine;
use crate::engine::probe::{Abilities, Ask, Probe, Verdict, truth};
use crate::engine::report::Severity;
use crate::engine::switch::Switch;
use crate::model::{
    Block, IfIndex, InHardware, Prio, Reason, Refusal, RouteKey, RuleOp, RuleOpKind, Runs,
    SwitchId, TableId,
};
use crate::plan::{
    ACL_SLOTS, Env, Layout, LayoutConfig, Limits, Lookup, PlannedPort, PlannedVlan, Wish,
};
use crate::view::ports::{FilterPlace, Port, Ports, Switch as SwitchPorts};

impl Engine {
    /// Makes switches of the ports that there are, and tells each which ports may admit.
    pub(super) fn replan_ports(&mut self, offload: &mut Offload, mode: OffloadMode) {
        let seen = self.seen_switches(offload, mode);
        self.note_unmatched(offload, &seen);
        // Of a switch without ports nothing is left that could be deleted: the qdiscs went with the links.
        offload.switches.retain(|key, _| seen.contains_key(key));
        // A port that goes down, say, concerns groups and hosts; a switch or table that is new, every prefix.
        let (mut all_anew, mut regroup) = (false, false);
        let bound = offload.ports.shared_blocks();
        let homes = offload.switches.values();
        let mut homes: BTreeSet<_> = homes.filter_map(|one| one.sharing.home()).collect();
        for (key, ports) in seen {
            let one = offload.switches.entry(key.clone()).or_insert_with(|| {
                all_anew = true;
                self.new_switch(ports.clone(), mode)
            });
            if let SwitchKey::Id(id) = &key
                && offload.qdiscs_listed
            {
                one.sharing.choose(id, &ports.ports, &bound, &homes);
                homes.extend(one.sharing.home());
            }
            one.sharing.update(&ports.ports, &bound);
            let sharing = &one.sharing;
            let stays = |block: &Block| {
                let mut blocks = ports.ports.iter().map(|port| sharing.listed_block_of(port));
                blocks.any(|of_port| of_port == *block)
            };
            let (listed, gone) = one.listed.iter().partition(|block| stays(block));
            one.listed = listed;
            for block in Vec::<Block>::from_iter(gone) {
                one.rules.forget_block(block);
            }
            if one.ports != ports {
                for (port, table) in one.moved_to(&ports) {
                    let text = format!("{port} looks up table {} now", self.view.table_text(table));
                    self.notables
                        .push(self.now, Severity::Info, "port-moved", text);
                }
                if one.was_cut_off(&ports) {
                    one.verdict = None;
                    one.rules.stop();
                }
                one.ports = ports;
                regroup = true;
            }
        }
        let ports = offload.switches.values().flat_map(|one| &one.ports.ports);
        let tables: BTreeSet<TableId> = ports.map(|port| port.table).collect();
        if tables != offload.tables {
            let known = std::mem::take(&mut offload.world.lookup);
            let gone = known.keys().filter(|key| !tables.contains(&key.table));
            let gone: Vec<RouteKey> = gone.collect();
            offload.tables = tables;
            // Nobody follows what becomes of a table without ports, and it may come back.
            self.update_prefixes(offload, &gone);
            all_anew = true;
        }
        if all_anew && offload.is_active() {
            let slots = self.slots.iter().map(|(_, slot)| slot.key());
            let foreign = offload.world.mirror.iter().map(|route| route.key);
            offload.touched.extend(slots.chain(foreign));
            regroup = true;
        }
        if regroup && offload.is_active() {
            // A port may be in another table now, and its hosts with it.
            let hosts = std::mem::take(&mut offload.world.hosts);
            offload.touched.extend(hosts.into_keys());
            let neighbours = self.view.neighbours().map(|neighbour| neighbour.key);
            offload.neighbours_touched.extend(neighbours);
            offload.groups_touched.extend(self.plan.keys());
            offload.locals_changed = true;
        }
        if std::mem::take(&mut offload.limits_changed) {
            self.set_configured_limits(offload);
        }
        self.set_planned_ports(offload);
        self.set_filters(offload);
        self.shut_out(offload);
    }

    /// What an earlier run has let in, and must not come in any more (a firewall has come, or the port looks up another table), goes
    /// before zebra has spoken.
    fn shut_out(&mut self, offload: &mut Offload) {
        if !offload.devlink_listed {
            return;
        }
        for one in offload.switches.values_mut() {
            let (ports, sharing) = (&one.ports.ports, &one.sharing);
            let taken = one.rules.take_admission(|block, matches, family, table| {
                let indev = matches.indev.as_ref();
                let vlan = matches.vlan.and_then(|vlan| vlan.id);
                let ports = ports.iter().filter(|port| {
                    sharing.listed_block_of(port) == block
                        && indev.is_none_or(|name| name == port.ingress())
                        && matches.dst_mac.is_none_or(|mac| Some(mac) == port.mac)
                        && port.vlan.as_ref().map(|of| of.id) == vlan
                });
                // One that is there no more lets nothing in.
                let mut admits = ports.map(|port| {
                    sharing.admits(port)[family as usize]
                        && table.is_none_or(|table| table == port.table)
                });
                admits.next() == Some(true) && admits.all(|admits| admits)
            });
            if !taken.is_empty() {
                let text = format!(
                    "removing {} rules of an earlier run, by which packets came in that must not any more",
                    taken.len()
                );
                self.notables
                    .push(self.now, Severity::Info, "old-rules", text);
                offload.strays.remove(taken);
            }
        }
    }

    /// What the operator says a switch can hold.
    fn configured_limits(&self) -> Limits {
        let config = &self.config.offload;
        let limits = Limits {
            capacity: config.capacity,
            bucket_bits: config.bucket_bits,
            acl_slots: ACL_SLOTS,
            ..Limits::none()
        };
        match config.layout {
            LayoutMode::Flat => limits.for_layout(Layout::Flat),
            // Else the probe finds out.
            _ => limits,
        }
    }

    fn set_configured_limits(&self, offload: &mut Offload) {
        let (facts, switches) = offload.split(self);
        for one in switches.values_mut() {
            // One that is still asked gets them with the answer.
            let limits = match &one.verdict {
                Some(Verdict::Fit(abilities)) => abilities.limit(self.configured_limits()),
                Some(Verdict::Unfit(abilities)) => abilities.filter(self.configured_limits()),
                None => self.configured_limits(),
            };
            one.with(&facts, |rules, env| rules.set_configured(env, limits));
        }
    }

    /// The switches that there are and that the operator wants.
    fn seen_switches(
        &self,
        offload: &Offload,
        mode: OffloadMode,
    ) -> BTreeMap<SwitchKey, SwitchPorts> {
        let config = &self.config.offload;
        if mode == OffloadMode::SkipHw {
            let switches = vec![offload.ports.plain(&self.view, config)];
            let mut marked = self.marked(offload, switches);
            let Some(ports) = marked.pop() else {
                unreachable!("as many as before")
            };
            return BTreeMap::from([(SwitchKey::Lab, ports)]);
        }
        let named = |switch: &SwitchPorts, id: &SwitchId| {
            let is = |name: &str| {
                id.to_string() == *name || switch.instances.iter().any(|i| *i.handle == *name)
            };
            config.switches.is_empty() || config.switches.iter().any(|name| is(name))
        };
        let switches = offload.ports.switches(&self.view, config);
        let switches = self.marked(offload, switches);
        let with_id = switches
            .into_iter()
            .filter_map(|switch| Some((switch.id.clone()?, switch)));
        with_id
            .filter(|(id, switch)| named(switch, id))
            .map(|(id, switch)| (SwitchKey::Id(id), switch))
            .collect()
    }

    /// Says of each port what filter rules, drivers and layouts keep out.
    pub(in crate::engine) fn marked(
        &self,
        offload: &Offload,
        mut switches: Vec<SwitchPorts>,
    ) -> Vec<SwitchPorts> {
        self.place_filters(offload, &mut switches);
        for switch in &mut switches {
            let key = switch.id.clone().map_or(SwitchKey::Lab, SwitchKey::Id);
            if let Some(one) = offload.switches.get(&key) {
                mark_tagged(one, &mut switch.ports);
            }
        }
        switches
    }

    /// A glob of `offload.ports` that matches nothing is a slip of the pen, once there are ports.
    fn note_unmatched(&mut self, offload: &mut Offload, seen: &BTreeMap<SwitchKey, SwitchPorts>) {
        let seen: Vec<SwitchPorts> = seen.values().cloned().collect();
        let unmatched = Ports::unmatched(&seen, &self.config.offload.ports);
        let named = unmatched.iter().filter(|glob| !glob.ports.is_empty());
        let texts: BTreeSet<String> = named.map(ToString::to_string).collect();
        for text in texts.difference(&offload.unmatched) {
            self.notables
                .push(self.now, Severity::Warn, "ports-unmatched", text.clone());
        }
        offload.unmatched = texts;
    }

    fn new_switch(&self, ports: SwitchPorts, mode: OffloadMode) -> OneSwitch {
        let config = &self.config.offload;
        let in_software = mode == OffloadMode::SkipHw;
        let Some(first) = Prio::new(1) else {
            unreachable!("a small number")
        };
        let layout = LayoutConfig {
            runs: if in_software {
                Runs::Software
            } else {
                Runs::Hardware
            },
            first_prio: config.prio_base.unwrap_or(first),
            no_match_any: false,
        };
        let limits = self.configured_limits();
        let mut sharing = Sharing::default();
        if config.layout == LayoutMode::Flat {
            sharing.dissolve();
        }
        let all = Abilities {
            families: [true, true],
            low_bits: true,
            any_ipv6: true,
            tagged_in: true,
            tagged_out: true,
            ..Abilities::default()
        };
        OneSwitch {
            ports,
            rules: Switch::new(layout, limits),
            groups: FxHashMap::default(),
            listed: BTreeSet::new(),
            planned: Vec::new(),
            sharing,
            probe: None,
            verdict: in_software.then_some(Verdict::Fit(all)),
            told_full: 0,
        }
    }

    /// Ports whose block is ready and that have rules.
    fn set_planned_ports(&self, offload: &mut Offload) {
        let (facts, switches) = offload.split(self);
        for one in switches.values_mut() {
            let able = one.families();
            let planned = |port: &Port| {
                let [v4, v6] = one.sharing.admits(port);
                let block = one.sharing.ready_block_of(port);
                let planned = PlannedPort {
                    dev: port.dev,
                    name: port.name.clone(),
                    home: port.home(),
                    vlan: port.vlan.as_ref().map(|vlan| PlannedVlan {
                        lower: vlan.lower_name.clone(),
                        id: vlan.id,
                    }),
                    mac: port.mac?,
                    table: port.table,
                    block: block.filter(|block| one.listed.contains(block))?,
                    families: [v4 && able[0], v6 && able[1]],
                    software: port.filters == Some(FilterPlace::Software),
                };
                // One whose rules run in software has none until it has left the block that it shares with others.
                let leaves = planned.software && matches!(planned.block, Block::Shared(_));
                let has_rules = planned.admits() || (one.sharing.filters(port) && !leaves);
                has_rules.then_some(planned)
            };
            let wanted: Vec<_> = one.ports.ports.iter().filter_map(planned).collect();
            if one.planned != wanted {
                one.planned.clone_from(&wanted);
                one.with(&facts, |rules, env| rules.set_ports(env, wanted));
            }
        }
    }

    /// Asks drivers what they can, a question at a time; whether one has answered the last.
    pub(super) fn poll_probes(&mut self, offload: &mut Offload, out: &mut Vec<RuleOp>) -> bool {
        let mut learned = false;
        let mut jobs = Vec::new();
        for (key, one) in &mut offload.switches {
            if one.verdict.is_some() {
                continue;
            }
            let Some((probe, asked)) = &mut one.probe else {
                let driver = one.ports.driver().unwrap_or_default();
                if let Some((lies, why)) = truth(driver) {
                    one.verdict = Some(Verdict::Unfit(Abilities {
                        lies,
                        ..Abilities::default()
                    }));
                    learned = true;
                    let text = format!("{driver}: not used for routes: {why}");
                    self.notables
                        .push(self.now, Severity::Warn, "driver-unfit", text);
                } else if !one.sharing.has_work(&one.ports.ports)
                    && let Some((block, port)) = one.first_to_ask()
                {
                    let left = one.rules.left_by_probe(block);
                    let wanted = self.config.offload.layout;
                    one.probe = Some((Probe::new(block, port, wanted, left), None));
                }
                continue;
            };
            if asked.is_some() {
                continue;
            }
            let ask = probe.ask();
            let kind = match &ask {
                Ask::Put(place, rule) => RuleOpKind::Put {
                    place: *place,
                    rule: Box::new(rule.clone()),
                    replace: false,
                },
                Ask::Delete(place, protocol) => RuleOpKind::Delete {
                    place: *place,
                    protocol: *protocol,
                },
                // Its port is gone: others are asked.
                Ask::Done(_) if !one.ports.ports.iter().any(|p| p.dev == probe.port()) => {
                    one.probe = None;
                    continue;
                }
                Ask::Done(verdict) => {
                    one.verdict = Some(verdict.clone());
                    one.probe = None;
                    self.ports_probed(key, one);
                    // Everything is planned anew with what is known now.
                    offload.tables.clear();
                    learned = true;
                    continue;
                }
            };
            *asked = Some(ask);
            jobs.push((Job::Probe(key.clone()), kind));
        }
        for (job, kind) in jobs {
            let op = offload.op(job, kind);
            out.push(op);
        }
        offload.ports_changed |= learned;
        learned
    }

    /// What the driver can decides how rules are written.
    fn ports_probed(&mut self, key: &SwitchKey, one: &mut OneSwitch) {
        let name = switch_name(key);
        let (abilities, fit) = match &one.verdict {
            Some(Verdict::Fit(abilities)) => (abilities, true),
            Some(Verdict::Unfit(abilities)) => (abilities, false),
            None => return,
        };
        let missing: Vec<String> = abilities
            .missing
            .iter()
            .map(|(what, refusal)| {
                let why = refusal
                    .text
                    .as_deref()
                    .map(|text| format!(" ({text})"))
                    .unwrap_or_default();
                format!("no {what}{why}")
            })
            .collect();
        let missing = if missing.is_empty() {
            "all that is needed".to_owned()
        } else {
            missing.join(", ")
        };
        if fit {
            let config = LayoutConfig {
                no_match_any: !abilities.any_ipv6,
                ..one.rules.config().clone()
            };
            // It may have been asked before, when it was too busy to say.
            let limits = abilities.limit(Limits {
                acl_slots: ACL_SLOTS,
                ..one.rules.plan().limits().clone()
            });
            one.rules.set_config(config);
            set_driver_limits(&mut one.rules, limits);
            one.groups.clear();
            if abilities.layout == Layout::Flat {
                one.sharing.dissolve();
            }
            let layout = abilities.layout.name();
            let text = format!("switch {name}: {layout} layout, the driver takes {missing}");
            self.notables
                .push(self.now, Severity::Info, "driver-fit", text);
        } else {
            let limits = abilities.filter(Limits {
                acl_slots: ACL_SLOTS,
                ..one.rules.plan().limits().clone()
            });
            set_driver_limits(&mut one.rules, limits);
            let text = format!("switch {name}: not used for routes: {missing}");
            self.notables
                .push(self.now, Severity::Warn, "driver-unfit", text);
        }
    }

    /// Features, qdiscs and first lists of the ports.
    pub(super) fn poll_port_ops(offload: &mut Offload, out: &mut Vec<RuleOp>) {
        if !offload.qdiscs_listed {
            return;
        }
        let mut jobs: Vec<(Job, RuleOpKind)> = Vec::new();
        for one in offload.switches.values() {
            let shares = !matches!(one.verdict, Some(Verdict::Unfit(_)));
            for port in &one.ports.ports {
                // A VLAN sub-interface needs them at its lower port, which may need them, too.
                let dev = port.home();
                let wanted = |wish: &RuleOpKind| jobs.iter().any(|(_, kind)| kind == wish);
                let feature = RuleOpKind::SwitchOnFeature { dev };
                let qdisc = RuleOpKind::AddQdisc { dev, block: None };
                let (feature_wanted, qdisc_wanted) = (wanted(&feature), wanted(&qdisc));
                let needs_driver = one.sharing.needs_driver(port);
                let off = port
                    .tc_offload
                    .is_some_and(|feature| !feature.on && feature.changeable);
                let asked = feature_wanted || offload.asked_features.contains(&dev);
                if needs_driver && off && !asked {
                    jobs.push((Job::Feature(dev), feature));
                }
                match port.qdisc {
                    None if shares && one.sharing.takes(port) => {}
                    None if (needs_driver || one.sharing.filters(port))
                        && !qdisc_wanted
                        && !offload.asked_qdiscs.contains(&dev) =>
                    {
                        jobs.push((Job::Qdisc(dev), qdisc));
                    }
                    None => {}
                    Some(_) => {
                        let block = one.sharing.listed_block_of(port);
                        let running = offload.jobs.values();
                        let mut asked = running.chain(jobs.iter().map(|(job, _)| job));
                        let asked = asked.any(|job| matches!(job, Job::Dump(b) if *b == block));
                        if !one.listed.contains(&block) && !asked {
                            jobs.push((Job::Dump(block), RuleOpKind::DumpRules(block)));
                        }
                    }
                }
            }
        }
        for (job, kind) in jobs {
            match job {
                Job::Feature(dev) => {
                    offload.asked_features.insert(dev);
                }
                Job::Qdisc(dev) => {
                    offload.asked_qdiscs.insert(dev);
                }
                _ => {}
            }
            out.push(offload.op(job, kind));
        }
        for dev in std::mem::take(&mut offload.made_qdiscs) {
            out.push(offload.op(Job::Qdiscs(dev), RuleOpKind::DumpQdiscs));
        }
    }

    /// Takes ports into the block that they share, one by one.
    pub(super) fn poll_sharing(offload: &mut Offload, out: &mut Vec<RuleOp>) {
        let known = offload.qdiscs_listed && !offload.ending;
        let mut jobs = Vec::new();
        for (key, one) in &mut offload.switches {
            // What is asked of the driver meanwhile would be answered for the port that joins.
            let may_begin = known && one.probe.is_none();
            let joins = !matches!(one.verdict, Some(Verdict::Unfit(_)));
            if let Some(kind) = one.sharing.next(&one.ports.ports, may_begin, joins) {
                jobs.push((Job::Share(key.clone()), kind));
            }
        }
        for (job, kind) in jobs {
            out.push(offload.op(job, kind));
        }
    }

    pub(super) fn sharing_done(&mut self, key: &SwitchKey, result: Result<InHardware, Refusal>) {
        let Some(one) = self.offload.switches.get_mut(key) else {
            return;
        };
        self.offload.ports_changed = true;
        match one.sharing.answer(result) {
            Joined::NotYet => {}
            Joined::Proven => {
                // What stands there is at the new port too, which is to be seen.
                let block = one.sharing.home().map(Block::Shared);
                let block = block.filter(|block| one.listed.contains(block));
                if one.rules.is_started() {
                    self.offload.wanted_dumps.extend(block);
                }
            }
            Joined::Apart(dev) => {
                let words = one.sharing.apart(dev).unwrap_or_default();
                let text = if one.sharing.refusal().is_some() {
                    format!("switch {}: no shared blocks: {words}", switch_name(key))
                } else {
                    let port = self.view.name_of(dev);
                    format!("{port} can't share a block, and has one of its own: {words}")
                };
                self.notables
                    .push(self.now, Severity::Info, "own-block", text);
            }
        }
    }

    pub(super) fn qdisc_gone(&mut self, dev: IfIndex) {
        let bound = self.offload.ports.shared_blocks();
        let ours = self.offload.switches.values_mut().find_map(|one| {
            let port = one.ports.ports.iter().find(|port| port.dev == dev)?;
            let block = one.sharing.listed_block_of(port);
            one.listed.contains(&block).then_some((one, block))
        });
        if let Some((one, block)) = ours {
            // While others are bound to it, a shared block keeps its rules.
            if !matches!(block, Block::Shared(number) if bound.contains_key(&number)) {
                one.rules.lose_block(block);
            }
            self.offload.ports_changed = true;
            if self.view.link(dev).is_some() {
                self.counters.mended.rules += 1;
                self.offload.others.stolen(dev, self.now);
                self.notables.push(
                    self.now,
                    Severity::Warn,
                    "qdisc-stolen",
                    format!(
                        "somebody deleted the clsact qdisc of {}: it is put back with all rules",
                        self.view.name_of(dev)
                    ),
                );
            }
        }
    }
}

/// What the driver can hold, before any route is looked at.
fn set_driver_limits(rules: &mut Switch, limits: Limits) {
    let lookup = Lookup::default();
    let wish = |_| Wish::Slow(Reason::InProgress);
    let env = Env {
        lookup: &lookup,
        wish: &wish,
    };
    rules.set_limits(&env, limits);
}

/// What comes in or goes out with a tag, and can't.
fn mark_tagged(one: &OneSwitch, ports: &mut [Port]) {
    let Some(Verdict::Fit(abilities)) = &one.verdict else {
        return;
    };
    let unfit = |can: bool| (!can).then_some(Reason::VlanUnfit);
    let flat = (one.rules.layout() == Layout::Flat).then_some(Reason::VlanFlat);
    for vlan in ports.iter_mut().filter_map(|port| port.vlan.as_mut()) {
        let (ingress, egress) = (unfit(abilities.tagged_in), unfit(abilities.tagged_out));
        vlan.ingress = vlan.ingress.or(ingress).or(flat);
        vlan.egress = vlan.egress.or(egress);
    }
}

pub(super) fn switch_name(key: &SwitchKey) -> String {
    match key {
        SwitchKey::Id(id) => id.to_string(),
        SwitchKey::Lab => "software".to_owned(),
    }
}
