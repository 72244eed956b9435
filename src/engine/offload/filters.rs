//! The filter rules of the configuration, brought to the switches, and what people are told of them.
//!
//! What `vrf` means follows from the links that there are. A refusal is told once, as an error: until the driver takes the rule the
//! block admits nothing, and what the rule would stop is the kernel's. A rule that runs in software takes its ports out of hardware, since
//! what hardware forwards never gets there: such a port has a block of its own, with all its filter rules in software and no routes.

use std::collections::BTreeSet;

use super::ports::switch_name;
use super::{Offload, OneSwitch, SwitchKey};
use crate::config::OffloadMode;
use crate::engine::Engine;
use crate::engine::report::Severity;
use crate::engine::switch::Refused;
use crate::model::{AclPlace, Block, IfIndex};
use crate::plan::{AclKey, AclScope, ScopedAcl};
use crate::reconcile::Remedy;
use crate::view::ports::{FilterPlace, Port, Switch as SwitchPorts};

impl Engine {
    /// Gives every switch the filter rules.
    pub(super) fn set_filters(&self, offload: &mut Offload) {
        let rules = self.scoped_filters();
        let digests: BTreeSet<u64> = rules.iter().map(|acl| acl.rule.terms.digest()).collect();
        // One that comes again may be taken this time.
        offload
            .software_filters
            .retain(|(_, digest), _| digests.contains(digest));
        let (facts, switches) = offload.split(self);
        for one in switches.values_mut() {
            one.with(&facts, |switch, env| switch.set_acl(env, rules.clone()));
        }
    }

    /// What the configuration says, with what `vrf` means.
    pub(in crate::engine) fn scoped_filters(&self) -> Vec<ScopedAcl> {
        let scope = |vrf: &str| {
            let table = self.table_of_vrf(vrf);
            table.map_or(AclScope::Nowhere, AclScope::Table)
        };
        let rules = self.config.acl.iter().map(|rule| ScopedAcl {
            rule: rule.clone(),
            scope: rule.terms.vrf.as_deref().map_or(AclScope::All, scope),
        });
        rules.collect()
    }

    /// Says of each port where its filter rules run: in software if one of them does, as the operator wishes or because the driver
    /// did not take it.
    pub(in crate::engine) fn place_filters(&self, offload: &Offload, switches: &mut [SwitchPorts]) {
        if self.config.acl.is_empty() {
            return;
        }
        let rules = self.scoped_filters();
        for switch in switches {
            let lab = self.config.offload.mode == OffloadMode::SkipHw;
            let key = match switch.id.clone() {
                Some(id) => SwitchKey::Id(id),
                None if lab => SwitchKey::Lab,
                None => continue,
            };
            let one = offload.switches.get(&key);
            // What such a driver takes in hardware says nothing of what it does.
            let lies = one.is_some_and(OneSwitch::lies);
            let place_of = |acl: &ScopedAcl| match acl.rule.place {
                _ if lab => Some(FilterPlace::Hardware),
                AclPlace::Software => Some(FilterPlace::Software),
                AclPlace::Any => {
                    let refused = (key.clone(), acl.rule.terms.digest());
                    let software = lies || offload.software_filters.contains_key(&refused);
                    Some(if software {
                        FilterPlace::Software
                    } else {
                        FilterPlace::Hardware
                    })
                }
                AclPlace::Hardware => (!lies).then_some(FilterPlace::Hardware),
            };
            let placed: Vec<_> = rules.iter().map(|acl| (acl, place_of(acl))).collect();
            for port in &mut switch.ports {
                let concerned = placed
                    .iter()
                    .filter(|(acl, _)| acl.concerns(&port.name, port.ingress(), port.table));
                port.filters = concerned.filter_map(|(_, place)| *place).max();
            }
            // Rules in software and in hardware don't mix in a block, which VLAN sub-interfaces share with their port.
            let software = Some(FilterPlace::Software);
            let homes = switch.ports.iter();
            let homes = homes.filter(|port| port.filters == software && port.can_filter());
            let homes: BTreeSet<IfIndex> = homes.map(Port::home).collect();
            for port in &mut switch.ports {
                if homes.contains(&port.home()) {
                    port.filters = software;
                }
            }
        }
    }

    /// A filter rule of a block was refused: it may run in software, or a person must know.
    pub(super) fn filter_refused(
        &mut self,
        offload: &mut Offload,
        switch: &SwitchKey,
        (block, filter): (Block, AclKey),
        refused: &Refused,
    ) {
        let one = offload.switches.get(switch);
        let rule = one.and_then(|one| one.rules.acl().rule(filter.digest));
        let rule = rule.map(|acl| acl.rule.clone());
        if let Some(rule) = &rule
            && rule.place == AclPlace::Any
            && refused.remedy == Remedy::Refused
            && *switch != SwitchKey::Lab
        {
            let known = (switch.clone(), rule.terms.digest());
            let refusal = refused.refusal.clone();
            if offload.software_filters.insert(known, refusal).is_none() {
                offload.ports_changed = true;
                let name = &rule.name;
                let text = format!(
                    "switch {}: filter rule {name} runs in software: {}",
                    switch_name(switch),
                    words(refused)
                );
                self.notables
                    .push(self.now, Severity::Warn, "acl-in-software", text);
            }
        } else {
            let name = rule.as_ref().map(|rule| &*rule.name);
            let name = name.unwrap_or("that is no more wished");
            self.note_refused_filter(offload, block, name, refused);
        }
    }

    /// One line for each rule of a block that is refused, until it is taken.
    fn note_refused_filter(
        &mut self,
        offload: &mut Offload,
        block: Block,
        name: &str,
        refused: &Refused,
    ) {
        if !offload.refused_filters.insert((block, name.into())) {
            return;
        }
        let on = self.block_label(block);
        self.notables.push(
            self.now,
            Severity::Error,
            "acl-refused",
            format!(
                "{on}: the driver refused filter rule {name}: {}; hardware forwards nothing there until it is taken",
                words(refused)
            ),
        );
    }

    /// Tells that what was refused is taken.
    pub(super) fn note_taken_filters(&mut self, offload: &mut Offload) {
        let closed = |block: &Block| {
            let mut switches = offload.switches.values();
            switches.any(|one| one.rules.is_closed(*block))
        };
        let opened: Vec<(Block, Box<str>)> = offload
            .refused_filters
            .iter()
            .filter(|(block, _)| !closed(block))
            .cloned()
            .collect();
        for known in opened {
            let on = self.block_label(known.0);
            let text = format!("{on}: filter rule {} is refused no more", known.1);
            offload.refused_filters.remove(&known);
            self.notables
                .push(self.now, Severity::Info, "acl-taken", text);
        }
    }
}

fn words(refused: &Refused) -> String {
    let text = refused.refusal.text.as_deref().unwrap_or("no reason given");
    format!("{}: {text}", refused.refusal.errno)
}
