//! Findings about hardware: ports that admit less than they could, drivers, tables, filter rules, and who else is at work there.

use std::collections::{BTreeMap, BTreeSet};

use super::host::enslaved;
use super::{Engine, count, for_each, listed, quoted};
use crate::config::OffloadMode;
use crate::engine::offload::{OneSwitch, SwitchKey, Theft};
use crate::engine::probe::{Verdict, truth};
use crate::engine::report::{AclReport, AclState, Finding, Pitfall, PortReport, Severity};
use crate::model::{
    AclPlace, Block, Family, HostFacts, IfIndex, IfName, Reason, RulePlace, Runs, SwitchId, TableId,
};
use crate::plan::RuleKey;
use crate::reconcile::{Item, OpClass, Remedy, remedy};

/// Thefts of a qdisc that happened this long ago are history.
const THEFT: std::time::Duration = std::time::Duration::from_secs(600);
/// So many within that time are somebody's habit.
const HABIT: u32 = 2;
/// How full a table is when it is a matter, in percent of its capacity.
const FULL: usize = 95;

impl Engine {
    pub(super) fn hardware_findings(&self, host: &HostFacts, ports: &[PortReport]) -> Vec<Finding> {
        let mut findings = self.legacy();
        let mut reasons: BTreeMap<Reason, Vec<&PortReport>> = BTreeMap::new();
        // What the operator has left out is nobody's matter here.
        let left_out = |port: &&PortReport| port.reasons.contains(&Reason::PortExcluded);
        for port in ports.iter().filter(|port| !left_out(port)) {
            let told = |reason: &Reason| is_told_below(port, *reason, ports);
            for reason in port.reasons.iter().filter(|reason| !told(reason)) {
                reasons.entry(*reason).or_default().push(port);
            }
        }
        for (reason, ports) in reasons {
            findings.extend(self.reason_findings(reason, &ports));
        }
        findings.extend(self.features_refused(ports));
        findings.extend(mtu_findings(ports));
        findings.extend(self.thefts(host));
        findings.extend(self.driver_findings());
        for (key, one) in &self.offload.switches {
            if let SwitchKey::Id(id) = key {
                findings.extend(self.mixed_blocks(one));
                findings.extend(self.refused_rules(id, one));
                findings.extend(self.filling(id, one));
            }
        }
        for text in &self.offload.unmatched {
            findings.push(Pitfall::PortsUnmatched.found(
                text.clone(),
                "in /etc/frr-offload/config.toml: correct offload.ports; then systemctl reload frr-offload".to_owned(),
            ));
        }
        findings
    }

    /// In legacy mode most drivers have no ports that could say so. It is how NICs come, and VFs lose their links when it is changed: where
    /// nobody asks for hardware in so many words, it is good to know and no more.
    fn legacy(&self) -> Vec<Finding> {
        let config = &self.config.offload;
        let wanted = |handle: &str| {
            config.switches.is_empty() || config.switches.iter().any(|name| **name == *handle)
        };
        let asked_for = config.mode == OffloadMode::SkipSw || !config.switches.is_empty();
        let switches = self
            .offload
            .ports
            .switches(&self.view, &self.config.offload);
        let instances = switches.iter().flat_map(|switch| &switch.instances);
        let legacy = instances.filter(|instance| instance.switchdev == Some(false));
        let finding = |handle: &str| {
            let found = Pitfall::EswitchLegacy.found(
                format!(
                    "{handle}: its eswitch is in legacy mode, in which it takes no rules for routes; VFs in use lose their links when \
                     that is changed"
                ),
                format!("devlink dev eswitch set {handle} mode switchdev"),
            );
            if asked_for {
                found
            } else {
                found.at(Severity::Info)
            }
        };
        legacy
            .filter(|instance| wanted(&instance.handle))
            .map(|instance| finding(&instance.handle))
            .collect()
    }

    /// Why ports admit less than they could, and what the operator can do about it.
    fn reason_findings(&self, reason: Reason, ports: &[&PortReport]) -> Vec<Finding> {
        let names: Vec<IfName> = ports.iter().map(|port| port.name.clone()).collect();
        let text = format!("{}: {}", listed(&names), reason.text());
        let each = |command: &str| for_each(&names, command);
        let ignore = || {
            format!(
                "in /etc/frr-offload/config.toml, if this does not concern routed packets: offload.ignore = [\"{reason}\"]; then \
                 systemctl reload frr-offload"
            )
        };
        vec![match reason {
            Reason::TcOffloadOff => Pitfall::TcOffloadOff.found(text, None),
            Reason::NotForwarding => {
                let lacks = |family| ports.iter().any(|port| !port.admits.contains(&family));
                let ipv6 = lacks(Family::V6) && self.has_routes(Family::V6);
                let ipv6 = ipv6.then(|| "sysctl -w net.ipv6.conf.all.forwarding=1".to_owned());
                let ipv4 =
                    lacks(Family::V4).then(|| each("sysctl -w net/ipv4/conf/$link/forwarding=1"));
                let fix: Vec<String> = ipv6.into_iter().chain(ipv4).collect();
                if fix.is_empty() {
                    return Vec::new();
                }
                Pitfall::NotForwarding.found(text, fix.join("; "))
            }
            Reason::StrictRpFilter => Pitfall::StrictRpFilter
                .found(text, each("sysctl -w net/ipv4/conf/$link/rp_filter=2")),
            Reason::IngressTaken => {
                let qdiscs = self.offload.ports.qdiscs();
                let clsact: BTreeSet<IfIndex> = qdiscs
                    .filter(|qdisc| qdisc.clsact)
                    .map(|qdisc| qdisc.dev)
                    .collect();
                let of_kind = |kind: &str, is: bool| {
                    let ports = ports.iter();
                    let ports = ports.filter(|port| clsact.contains(&port.ifindex) == is);
                    let names: Vec<IfName> = ports.map(|port| port.name.clone()).collect();
                    let command = format!("tc qdisc del dev $link {kind}");
                    (!names.is_empty()).then(|| for_each(&names, &command))
                };
                let fix = [of_kind("ingress", false), of_kind("clsact", true)];
                let fix: Vec<String> = fix.into_iter().flatten().collect();
                let text = format!(
                    "{text}; what mends it takes its filters along, so else leave the port out (offload.ports)"
                );
                Pitfall::IngressTaken.found(text, fix.join("; "))
            }
            Reason::PolicyRule => Pitfall::PolicyRule.found(text, ignore()),
            Reason::ForwardFilter => {
                let filters = ports.first().map_or(&[][..], |port| &port.filtered_by);
                Pitfall::ForwardFilter.found(format!("{text} ({})", filters.join(", ")), ignore())
            }
            Reason::PortEnslaved => {
                let enslaved_port = |port: &&PortReport| {
                    let link = self.view.link(port.ifindex);
                    let master = link.and_then(|link| self.view.link(link.master?));
                    let kind = master.and_then(|master| master.kind.as_deref());
                    let master = master.map_or("another device", |master| &master.name);
                    enslaved(&port.name, kind, master)
                };
                return ports.iter().map(enslaved_port).collect();
            }
            Reason::PortWithoutMac => {
                let without = |port: &&PortReport| {
                    let name = &port.name;
                    // Locally administered, and another one for each link.
                    let [.., high, low] = port.ifindex.get().to_be_bytes();
                    let fix = format!(
                        "ip link set {} address 02:00:00:00:{high:02x}:{low:02x}",
                        quoted(name)
                    );
                    Pitfall::PortWithoutMac.found(format!("{name}: {}", reason.text()), fix)
                };
                return ports.iter().map(without).collect();
            }
            // As the operator wished, or told for the switch or the filter rule that it is about.
            _ => return Vec::new(),
        }]
    }

    fn features_refused(&self, ports: &[PortReport]) -> Option<Finding> {
        let refused = |port: &&PortReport| {
            port.hw_tc_offload == Some(false)
                && !port.reasons.contains(&Reason::PortExcluded)
                && self.offload.others.refused_features.contains(&port.ifindex)
                && !port.reasons.contains(&Reason::TcOffloadOff)
        };
        let refused = ports.iter().filter(refused);
        let names: Vec<IfName> = refused.map(|port| port.name.clone()).collect();
        (!names.is_empty()).then(|| {
            Pitfall::TcOffloadOff.found(
                format!(
                    "{}: hw-tc-offload is off, and to switch it on was refused",
                    listed(&names)
                ),
                for_each(&names, "ethtool -K $link hw-tc-offload on"),
            )
        })
    }

    /// Once for all switches of which the same is to be said.
    fn driver_findings(&self) -> Vec<Finding> {
        let mut said: Vec<((Pitfall, String), Vec<IfName>)> = Vec::new();
        for (key, one) in &self.offload.switches {
            let (SwitchKey::Id(id), Some(words)) = (key, driver_words(one)) else {
                continue;
            };
            let name = id.to_string().into();
            match said.iter_mut().find(|(before, _)| *before == words) {
                Some((_, names)) => names.push(name),
                None => said.push((words, vec![name])),
            }
        }
        let finding = |((pitfall, text), names): ((Pitfall, String), Vec<IfName>)| {
            pitfall.found(format!("switch {}: {text}", listed(&names)), None)
        };
        said.into_iter().map(finding).collect()
    }

    fn thefts(&self, host: &HostFacts) -> Vec<Finding> {
        let recent = self.offload.others.thefts.iter();
        let recent = recent.filter(|(_, theft)| self.now.since(theft.last) < THEFT);
        let finding = |(dev, theft): (&IfIndex, &Theft)| {
            let name = self.view.name_of(*dev);
            let text = format!(
                "{name}: somebody deleted its clsact qdisc {}, the last time {} s ago; it is put back each time, and packets take \
                 the slow path meanwhile",
                count(theft.count.into(), "time"),
                self.now.since(theft.last).as_secs()
            );
            // Who does so when it sets up a link, or gets a port.
            let managed = host.links.get(dev).is_some_and(|link| link.network_manager);
            let mut links = self.view.links();
            let fix = if managed {
                Some(format!("nmcli device set {} managed no", quoted(&name)))
            } else if links.any(|link| link.kind.as_deref() == Some("openvswitch")) {
                Some(format!("ovs-vsctl --if-exists del-port {}", quoted(&name)))
            } else {
                None
            };
            let found = Pitfall::QdiscStolen.found(text, fix);
            if theft.count < HABIT {
                found.at(Severity::Info)
            } else {
                found
            }
        };
        recent.map(finding).collect()
    }

    /// The kernel passes software by only where every rule of a block is in hardware alone.
    fn mixed_blocks(&self, one: &OneSwitch) -> Vec<Finding> {
        let tables = one.rules.tables().map(|(table, _)| table);
        let in_hardware = tables.filter(|table| {
            let mut rules = table.iter().filter_map(|(_, entry)| entry.applied.as_ref());
            rules.any(|rule| rule.rule.runs == Runs::Hardware)
        });
        let theirs = in_hardware.filter_map(|table| {
            let places = self.offload.others.in_software.get(&table.block())?;
            Some((places.len(), places.first()?))
        });
        let finding = |(n, place): (usize, &RulePlace)| {
            let at = match place.block {
                Block::Port(dev) => format!("dev {} ingress", quoted(&self.view.name_of(dev))),
                Block::Shared(number) => format!("block {number}"),
            };
            Pitfall::MixedBlock.found(
                format!(
                    "{}: {} of others that {} in software beside ours of hardware: what takes the slow path is compared with all \
                     of them on the CPU",
                    self.block_label(place.block),
                    count(n as u64, "rule"),
                    if n == 1 { "runs" } else { "run" }
                ),
                format!("tc filter del {at} chain {} prio {}", place.chain, place.prio),
            )
        };
        theirs.map(finding).collect()
    }

    /// Of routes; those of filters have findings of their own, and a full table has.
    fn refused_rules(&self, id: &SwitchId, one: &OneSwitch) -> Option<Finding> {
        let (mut rules, mut words) = (0_u64, None);
        for (item, entry) in one.rules.tables().flat_map(|(table, _)| table.iter()) {
            let Some(failure) = &entry.failure else {
                continue;
            };
            let full = remedy(OpClass::RuleCreate, failure.refusal.errno) == Remedy::Full;
            if !full && !matches!(item, Item::Rule(RuleKey::Acl(_))) {
                rules += 1;
                words = Some(&failure.refusal);
            }
        }
        let refused = one.rules.plan().refused();
        let prefixes = refused.filter(|(_, reason)| *reason == Reason::DriverRefused);
        let prefixes = prefixes.count() as u64;
        if rules + prefixes == 0 {
            return None;
        }
        let words = match words {
            Some(refusal) => format!(
                "{}: {}",
                refusal.errno,
                refusal.text.as_deref().unwrap_or("no reason given")
            ),
            None => self.offload.last_refusal.clone().unwrap_or_default(),
        };
        let text = format!(
            "switch {id}: the driver refuses {} and {}, which stay in software: {words}",
            count(rules, "rule"),
            count(prefixes, "prefix rule")
        );
        Some(Pitfall::DriverRefused.found(text, None))
    }

    fn filling(&self, id: &SwitchId, one: &OneSwitch) -> Option<Finding> {
        let (used, capacity) = one.rules.plan().usage();
        let refused = one.rules.plan().refused();
        let left_out = refused.filter(|(_, reason)| *reason == Reason::TableFull);
        let left_out = left_out.count() as u64;
        let capacity = capacity?;
        if used * 100 < capacity * FULL && left_out == 0 {
            return None;
        }
        let fix = self.config.offload.capacity.map(|_| {
            "in /etc/frr-offload/config.toml: offload.capacity = \"auto\"; then systemctl reload frr-offload".to_owned()
        });
        let text = format!(
            "switch {id}: {used} of {capacity} rules are in use; what does not fit stays in software"
        );
        Some(Pitfall::TableFilling.found(text, fix))
    }

    /// Also where nothing is offloaded: then no filter rule stands anywhere.
    pub(super) fn filter_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for acl in self.acl() {
            let mut errors = acl.blocks.iter().filter_map(|block| block.error.as_deref());
            let words = errors.next();
            let (pitfall, place) = match (acl.state, words) {
                (AclState::Failed, _) => (Pitfall::AclRefused, "any"),
                (AclState::Software, Some(_)) if acl.place != AclPlace::Software => {
                    (Pitfall::AclInSoftware, "software")
                }
                (AclState::Pending, _) => {
                    findings.extend(self.filter_nowhere(&acl));
                    continue;
                }
                _ => continue,
            };
            let words = words
                .or(acl.reason.map(Reason::text))
                .unwrap_or("no reason given");
            let text = match pitfall {
                Pitfall::AclRefused => format!(
                    "filter rule {:?} is not in hardware as it should be, so nothing is forwarded there by hardware: {words}",
                    acl.name
                ),
                _ => format!(
                    "filter rule {:?} runs in software, and its ports have left hardware: {words}",
                    acl.name
                ),
            };
            let fix = format!(
                "in /etc/frr-offload/config.toml, rule {:?}: place = \"{place}\"; then systemctl reload frr-offload",
                acl.name
            );
            findings.push(pitfall.found(text, fix));
        }
        findings
    }
}

impl Engine {
    /// A filter rule that is for no port that there is.
    fn filter_nowhere(&self, acl: &AclReport) -> Option<Finding> {
        let off = self.config.offload.mode == OffloadMode::Off;
        let known = self.offload.is_listed() && !self.offload.is_unsettled();
        if !off && (acl.reason != Some(Reason::NoPort) || !known) {
            return None;
        }
        let why = if off {
            "offload.mode is \"off\"".to_owned()
        } else if self.offload.is_active() {
            "no port is what it says with `in` and `vrf`, or can have filter rules".to_owned()
        } else {
            "there is no switch".to_owned()
        };
        let text = format!("filter rule {:?} stands nowhere: {why}", acl.name);
        Some(Pitfall::AclNowhere.found(text, None))
    }
}

/// What a VLAN sub-interface has from its port is mended there.
fn is_told_below(port: &PortReport, reason: Reason, ports: &[PortReport]) -> bool {
    let has_it = |lower: &str| {
        let mut ports = ports.iter();
        ports.any(|port| *port.name == *lower && port.reasons.contains(&reason))
    };
    let from_below = matches!(
        reason,
        Reason::IngressTaken | Reason::TcOffloadOff | Reason::PortEnslaved | Reason::EswitchLegacy
    );
    from_below && port.vlan.as_ref().is_some_and(|(lower, _)| has_it(lower))
}

/// Routes out of a port stay in software where packets may come in, of the same table, that are too large for it.
fn mtu_findings(ports: &[PortReport]) -> Vec<Finding> {
    let mut switches: BTreeMap<(&SwitchId, TableId), Vec<&PortReport>> = BTreeMap::new();
    for port in ports
        .iter()
        .filter(|port| !port.reasons.contains(&Reason::PortExcluded))
    {
        if let Some(id) = &port.switch {
            switches.entry((id, port.table)).or_default().push(port);
        }
    }
    let finding = |ports: Vec<&PortReport>| {
        let largest = ports.iter().max_by_key(|port| port.mtu)?;
        let small = ports
            .iter()
            .filter(|port| port.usable && port.mtu < largest.mtu);
        let small: Vec<IfName> = small.map(|port| port.name.clone()).collect();
        if small.is_empty() {
            return None;
        }
        let fix = for_each(&small, &format!("ip link set $link mtu {}", largest.mtu));
        let text = format!(
            "{}: the MTU is below that of {} ({}): routes out of there stay in software, since larger packets need the kernel's ICMP",
            listed(&small),
            largest.name,
            largest.mtu
        );
        Some(Pitfall::MtuMismatch.found(text, fix))
    };
    switches.into_values().filter_map(finding).collect()
}

/// What a driver can't, in words.
fn driver_words(one: &OneSwitch) -> Option<(Pitfall, String)> {
    let driver = one.ports.driver().unwrap_or("the driver");
    let (pitfall, abilities) = match one.verdict.as_ref()? {
        Verdict::Fit(abilities) if abilities.missing.is_empty() => return None,
        Verdict::Fit(abilities) => (Pitfall::DriverLimits, abilities),
        Verdict::Unfit(abilities) => {
            if let Some((lies, why)) = truth(driver) {
                let pitfall = if lies {
                    Pitfall::DriverLies
                } else {
                    Pitfall::DriverUnfit
                };
                return Some((pitfall, format!("not used for routes: {why}")));
            }
            (Pitfall::DriverUnfit, abilities)
        }
    };
    let missing = abilities.missing.iter().map(|(what, refusal)| {
        let why = refusal.text.as_deref();
        let why = why.map_or_else(String::new, |text| format!(" ({text})"));
        format!("no {what}{why}")
    });
    let missing = missing.collect::<Vec<_>>().join(", ");
    let layout = abilities.layout.name();
    let text = match pitfall {
        Pitfall::DriverLimits => {
            format!("{driver}: {missing}; rules do without, in the {layout} layout")
        }
        _ => format!("{driver}: not used for routes: {missing}"),
    };
    Some((pitfall, text))
}
