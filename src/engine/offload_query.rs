//! Read-only answers about rules and ports, beside those of `query`: what is in hardware, what is not, and why. No rendering.

use super::Engine;
use super::offload::{OneSwitch, Sharing, SwitchKey};
use super::probe::Verdict as DriverVerdict;
use super::report::{
    OffloadCounts, OffloadRuleFilter, OffloadRuleReport, OffloadState, PortReport, RoomReport,
    RuleKind, RuleState,
};
use crate::config::OffloadMode;
use crate::model::{
    Block, Family, Framing, IfIndex, IfName, Reason, RouteKey, RuleAction, RuleCounters, Runs,
    SwitchId,
};
use crate::plan::{HopRule, PlannedPort, PlannedRule, RouteRule, RuleKey, Target};
use crate::reconcile::{Failure, Item, OpClass, Remedy, RuleEntry, remedy};
use crate::rib::SlotId;
use crate::view::ports::{Port, Switch as SwitchPorts};

/// How a route stands in hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouteOffload {
    /// Where it is.
    pub(super) state: OffloadState,
    /// Why it is not in hardware.
    pub(super) reason: Option<Reason>,
    /// What its rules took.
    pub(super) counters: Option<RuleCounters>,
}

impl RouteOffload {
    pub(super) const fn new(state: OffloadState, reason: Option<Reason>) -> Self {
        Self {
            state,
            reason,
            counters: None,
        }
    }

    /// Why a route is not as wished. What the kernel has comes first: hardware does not matter before that is right. Only
    /// that zebra writes the kernel, which is no fault, gives way.
    pub(super) fn shown_reason(&self, kernel: Option<Reason>) -> Option<Reason> {
        match kernel {
            None | Some(Reason::NotWanted) => self.reason.or(kernel),
            Some(_) => kernel,
        }
    }

    /// With several switches the best counts: what one forwards needs no other. Of those that do not, the one that has the next
    /// hop says why, else one whose ports look up the table.
    fn rank(&self) -> (u8, u8) {
        let state = match self.state {
            OffloadState::Hardware => 0,
            OffloadState::Pending => 1,
            OffloadState::Failed => 2,
            OffloadState::Software => 3,
            OffloadState::Off => 4,
        };
        let told_by_others = match self.reason {
            Some(Reason::NoPort) => 2,
            Some(Reason::OtherSwitch) => 1,
            _ => 0,
        };
        (state, told_by_others)
    }
}

impl Engine {
    /// The rules that match, wanted and found, in no order.
    pub fn offload_rules(&self, filter: &OffloadRuleFilter) -> Vec<OffloadRuleReport> {
        let mut reports = Vec::new();
        let dev = filter
            .dev
            .as_ref()
            .map(|name| self.view.link_by_name(name).map(|link| link.index));
        if dev == Some(None) {
            return reports;
        }
        let dev = dev.flatten();
        for (key, one) in &self.offload.switches {
            for (table, ports) in one.rules.tables() {
                for (item, entry) in table.iter() {
                    let report = self.rule_report(key, table.block(), item, entry);
                    let wanted = filter
                        .prefix
                        .is_none_or(|prefix| report.prefix == Some(prefix))
                        && filter.table.is_none_or(|table| report.table == Some(table))
                        && filter.kind.is_none_or(|kind| report.kind == kind)
                        && dev.is_none_or(|dev| concerns((table.block(), ports), item, entry, dev));
                    if wanted {
                        reports.push(report);
                    }
                }
            }
        }
        reports
    }

    /// The room in the table of each switch.
    pub fn rooms(&self) -> Vec<RoomReport> {
        let switches = self.offload.switches.iter();
        let room = |(at, one): (&SwitchKey, &OneSwitch)| {
            let (used, capacity) = one.rules.plan().usage();
            RoomReport {
                switch: switch_id(at),
                used,
                capacity,
                waiting: one.rules.plan().waiting(),
            }
        };
        switches.map(room).collect()
    }

    /// The ports of all switches, in no order.
    pub fn ports(&self) -> Vec<PortReport> {
        let config = &self.config.offload;
        let lab = config.mode == OffloadMode::SkipHw;
        let switches = if lab {
            vec![self.offload.ports.plain(&self.view, config)]
        } else {
            self.offload.ports.switches(&self.view, config)
        };
        let switches = self.marked(&self.offload, switches);
        switches
            .iter()
            .flat_map(|switch| switch.ports.iter().map(move |port| (switch, port)))
            .map(|(switch, port)| self.port_report(switch, port, lab))
            .collect()
    }

    /// Rules over all switches.
    pub(super) fn offload_counts(&self) -> OffloadCounts {
        let mut sum = OffloadCounts::default();
        for (_, counts) in self.offload_by_switch() {
            let OffloadCounts {
                mode,
                layout,
                rules,
                capacity,
                in_hw,
                refused,
            } = counts;
            sum.mode = mode;
            sum.layout = layout.or(sum.layout);
            sum.rules += rules;
            if let Some(capacity) = capacity {
                sum.capacity = Some(sum.capacity.unwrap_or(0) + capacity);
            }
            sum.in_hw += in_hw;
            sum.refused += refused;
        }
        sum
    }

    /// The rules of each switch; none while nothing is offloaded.
    pub(super) fn offload_by_switch(&self) -> Vec<(Option<SwitchId>, OffloadCounts)> {
        let mode = match self.config.offload.mode {
            OffloadMode::Off => return Vec::new(),
            _ if !self.offload.is_active() => return Vec::new(),
            OffloadMode::SkipHw => "skip_hw",
            OffloadMode::Auto | OffloadMode::SkipSw => "skip_sw",
        };
        let switches = self.offload.switches.iter();
        switches
            .map(|(at, one)| (switch_id(at), counts_on(one, mode)))
            .collect()
    }

    /// How a route stands in hardware.
    pub(super) fn route_offload(&self, id: SlotId) -> RouteOffload {
        if !self.offload.is_active() {
            return RouteOffload::new(OffloadState::Off, None);
        }
        let key = self.slots.get(id).key();
        let all: Vec<RouteOffload> = self
            .offload
            .switches
            .iter()
            .map(|(at, one)| self.route_on(at, one, key))
            .collect();
        let counters: Vec<RuleCounters> = all.iter().filter_map(|on| on.counters).collect();
        let best = all.into_iter().min_by_key(RouteOffload::rank);
        RouteOffload {
            counters: (!counters.is_empty()).then(|| counters.into_iter().sum()),
            ..best.unwrap_or(RouteOffload::new(OffloadState::Off, None))
        }
    }

    /// Why a route is not as wished.
    pub(super) fn shown_reason(&self, id: SlotId) -> Option<Reason> {
        let kernel = self.route_reason(id);
        match kernel {
            None | Some(Reason::NotWanted) => self.route_offload(id).shown_reason(kernel),
            Some(_) => kernel,
        }
    }

    pub(super) fn route_on(&self, at: &SwitchKey, one: &OneSwitch, key: RouteKey) -> RouteOffload {
        let software = |reason| RouteOffload::new(OffloadState::Software, Some(reason));
        match &one.verdict {
            // Nobody is asked while no port may admit anything.
            None if one
                .ports
                .ports
                .iter()
                .all(|port| one.sharing.admits(port) == [false, false]) =>
            {
                return software(not_admitted(one, key).unwrap_or(Reason::NoPort));
            }
            None => return RouteOffload::new(OffloadState::Pending, Some(Reason::InProgress)),
            Some(DriverVerdict::Unfit(_)) => return software(Reason::DriverUnfit),
            Some(DriverVerdict::Fit(_)) => {}
        }
        let ports = one.rules.tables().flat_map(|(_, ports)| ports);
        let here: Vec<_> = ports.filter(|port| port.table == key.table).collect();
        let family = key.prefix.family() as usize;
        if !here.iter().any(|port| port.families[family])
            && let Some(why) = not_admitted(one, key)
        {
            return software(why);
        }
        if here.is_empty() {
            return software(Reason::NoPort);
        }
        if here.iter().all(|port| one.rules.is_closed(port.block)) {
            return RouteOffload::new(OffloadState::Failed, Some(Reason::AclIncomplete));
        }
        if !one.rules.is_started() {
            return RouteOffload::new(OffloadState::Pending, Some(Reason::InProgress));
        }
        let plan = one.rules.plan();
        let live = match plan.rule(key) {
            Some(RouteRule::Forward(Target::Hop(hop))) => plan.hop(hop) != Some(HopRule::Slow),
            Some(RouteRule::Forward(Target::Group(group))) => {
                plan.buckets(group).is_some_and(|hops| !hops.is_empty())
            }
            Some(RouteRule::Discard) => true,
            Some(RouteRule::Guard) | None => {
                let reason = self.offload_reason(one, key);
                let state = match reason {
                    Reason::InProgress => OffloadState::Pending,
                    Reason::DriverRefused => OffloadState::Failed,
                    _ => OffloadState::Software,
                };
                return RouteOffload::new(state, Some(reason));
            }
        };
        let mut counters = Vec::new();
        let (mut settled, mut in_hardware) = (true, true);
        let failure = one.rules.failure(key);
        let rules = |framing| one.rules.rules_of(framing, key);
        for (block, entry) in Framing::ALL.into_iter().flat_map(rules) {
            settled &= entry.applied.is_some() && entry.applied == entry.desired;
            in_hardware &= one.sharing.is_everywhere(block, entry.hardware);
            counters.push(entry.counters);
        }
        let full =
            |failure: &Failure| remedy(OpClass::RuleCreate, failure.refusal.errno) == Remedy::Full;
        let (state, reason) = match (failure.is_some(), settled, live) {
            // It stands, but what it rests on does not, or not as it should.
            (true, ..) if failure.is_some_and(full) => {
                (OffloadState::Failed, Some(Reason::TableFull))
            }
            (true, ..) => (OffloadState::Failed, Some(Reason::DriverRefused)),
            (_, false, _) => (OffloadState::Pending, Some(Reason::InProgress)),
            (_, true, false) => (OffloadState::Software, Some(Reason::NextHopUnresolved)),
            // The lab's rules run in software, as they should.
            (_, true, true) if *at == SwitchKey::Lab => (OffloadState::Software, None),
            (_, true, true) if in_hardware => (OffloadState::Hardware, None),
            (_, true, true) if one.sharing.recounts() => {
                (OffloadState::Pending, Some(Reason::InProgress))
            }
            (_, true, true) => (OffloadState::Failed, Some(Reason::DriverRefused)),
        };
        RouteOffload {
            state,
            reason,
            counters: Some(counters.into_iter().sum()),
        }
    }

    fn port_report(&self, switch: &SwitchPorts, port: &Port, lab: bool) -> PortReport {
        let key = match &switch.id {
            Some(id) => Some(SwitchKey::Id(id.clone())),
            None => lab.then_some(SwitchKey::Lab),
        };
        let one = key.as_ref().and_then(|key| self.offload.switches.get(key));
        let planned = one.into_iter().flat_map(|one| one.rules.tables());
        let planned = planned
            .flat_map(|(_, ports)| ports)
            .find(|planned| planned.dev == port.dev);
        let closed = one
            .zip(planned)
            .is_some_and(|(one, planned)| one.rules.is_closed(planned.block));
        let families = planned.filter(|_| !closed);
        let families = families.map_or([false, false], |planned| planned.families);
        let mut reasons: Vec<Reason> = [Family::V4, Family::V6]
            .into_iter()
            .flat_map(|family| port.refusals(family))
            .chain(port.vlan.as_ref().and_then(|vlan| vlan.egress))
            .collect();
        let unshared = Sharing::default();
        let sharing = one.map_or(&unshared, |one| &one.sharing);
        if port.qdisc.is_some() && sharing.block_of(port).is_none() {
            reasons.push(Reason::IngressTaken);
        }
        if sharing.admits(port) != [false, false]
            && matches!(
                one.and_then(|one| one.verdict.as_ref()),
                Some(DriverVerdict::Unfit(_))
            )
        {
            reasons.push(Reason::DriverUnfit);
        }
        if closed {
            reasons.push(Reason::AclIncomplete);
        }
        reasons.sort_unstable();
        reasons.dedup();
        let filters = self.offload.ports.filters().iter();
        PortReport {
            switch: switch.id.clone(),
            driver: switch.driver().map(Into::into),
            devlink: switch
                .instances
                .first()
                .map(|instance| instance.handle.clone()),
            switchdev: switch
                .instances
                .first()
                .and_then(|instance| instance.switchdev),
            name: port.name.clone(),
            ifindex: port.dev,
            role: port.role,
            vlan: port
                .vlan
                .as_ref()
                .map(|vlan| (vlan.lower_name.clone(), vlan.id)),
            table: port.table,
            vrf: self.view.vrf_of(port.table).map(|link| link.name.clone()),
            mac: port.mac,
            mtu: port.mtu,
            usable: port.usable,
            admits: [Family::V4, Family::V6]
                .into_iter()
                .filter(|family| families[*family as usize])
                .collect(),
            reasons,
            block: port.qdisc.and_then(|qdisc| qdisc.block),
            hw_tc_offload: port.tc_offload.map(|feature| feature.on),
            verdict: one.map_or_else(|| "not used".into(), |one| verdict_text(one, port.home())),
            filtered_by: filters.map(|filter| filter.name.clone()).collect(),
        }
    }

    fn rule_report(
        &self,
        at: &SwitchKey,
        block: Block,
        item: Item,
        entry: &RuleEntry,
    ) -> OffloadRuleReport {
        let name = |dev| self.view.name_of(dev);
        let shown = entry.applied.as_ref().or(entry.desired.as_ref());
        let sent = entry.sent.as_ref().and_then(Option::as_ref);
        let shown = shown.or(sent);
        let (table, prefix) = match item {
            Item::Rule(RuleKey::Except(_, table, ..)) => (Some(table), None),
            Item::Rule(RuleKey::Route(_, key) | RuleKey::Share(key, ..)) => {
                (Some(key.table), Some(key.prefix))
            }
            Item::Stray(..) | Item::Rule(_) => (None, None),
        };
        let state = if matches!(item, Item::Stray(..)) {
            RuleState::Stray
        } else if entry.failure.is_some() {
            RuleState::Failed
        } else if entry.sent.is_some() || entry.applied != entry.desired {
            RuleState::Pending
        } else {
            RuleState::Installed
        };
        let (chain, prio) = match (shown, item) {
            (Some(rule), _) => (rule.chain, rule.prio),
            (None, Item::Stray(chain, prio, _)) => (chain, prio),
            (None, Item::Rule(_)) => {
                unreachable!("an entry wants, has or sends a rule, or is forgotten")
            }
        };
        OffloadRuleReport {
            switch: switch_id(at),
            block,
            port: self.block_port(block),
            chain,
            prio,
            handle: entry.handle,
            kind: kind_of(item, shown.map(|rule| &**rule)),
            words: shown.map(|rule| rule.rule.words(&name)),
            table,
            vrf: table.and_then(|table| Some(self.view.vrf_of(table)?.name.clone())),
            prefix,
            hardware: entry.hardware,
            state,
            refusal: entry
                .failure
                .as_ref()
                .map(|failure| (failure.refusal.errno, failure.refusal.text.clone())),
            counters: entry.counters,
        }
    }

    pub(super) fn block_port(&self, block: Block) -> Option<IfName> {
        match block {
            Block::Port(dev) => Some(self.view.name_of(dev)),
            Block::Shared(_) => None,
        }
    }

    pub(super) fn block_label(&self, block: Block) -> String {
        match block {
            Block::Port(dev) => self.view.name_of(dev).into(),
            Block::Shared(number) => format!("block {number}"),
        }
    }
}

pub(super) fn switch_id(at: &SwitchKey) -> Option<SwitchId> {
    match at {
        SwitchKey::Id(id) => Some(id.clone()),
        SwitchKey::Lab => None,
    }
}

/// What a rule is for.
pub(super) fn kind_of(item: Item, shown: Option<&PlannedRule>) -> RuleKind {
    let Item::Rule(key) = item else {
        return RuleKind::Stray;
    };
    let then = shown.and_then(|rule| rule.rule.actions.last());
    match key {
        RuleKey::Acl(_) => RuleKind::Acl,
        RuleKey::Entry(_) => RuleKind::Entry,
        RuleKey::Admit(..) => RuleKind::Admit,
        RuleKey::Except(..) => RuleKind::Exception,
        RuleKey::Route(..) | RuleKey::Share(..) => match then {
            Some(RuleAction::Trap | RuleAction::Pass) => RuleKind::Guard,
            _ => RuleKind::Route,
        },
        RuleKey::Bucket(..) => RuleKind::Bucket,
        RuleKey::Hop(..) => RuleKind::Hop,
    }
}

/// Whether a rule hangs at a link, is for it, or sends packets out of it. Admission says for whom it is.
fn concerns(
    (block, ports): (Block, &[PlannedPort]),
    item: Item,
    entry: &RuleEntry,
    dev: IfIndex,
) -> bool {
    let leads = |rule: &PlannedRule| rule.rule.actions.contains(&RuleAction::Redirect(dev));
    let hangs = match item {
        Item::Rule(RuleKey::Admit(port, _)) => port == dev,
        // One that goes out of a VLAN sub-interface redirects to its port.
        Item::Rule(RuleKey::Hop(_, hop)) if hop.dev == dev => true,
        _ => block == Block::Port(dev) || ports.iter().any(|port| port.dev == dev),
    };
    hangs
        || entry
            .applied
            .as_ref()
            .or(entry.desired.as_ref())
            .is_some_and(|rule| leads(rule))
}

fn counts_on(one: &OneSwitch, mode: &'static str) -> OffloadCounts {
    let mut counts = OffloadCounts {
        mode,
        layout: matches!(one.verdict, Some(DriverVerdict::Fit(_)))
            .then(|| one.rules.layout().name()),
        capacity: one.rules.plan().limits().capacity.map(|rules| rules as u64),
        refused: one.rules.plan().refused().count() as u64,
        ..OffloadCounts::default()
    };
    for (table, _) in one.rules.tables() {
        for (_, entry) in table.iter() {
            let runs = entry.applied.as_ref().map(|rule| rule.rule.runs);
            // Filter rules that are to run in software.
            if runs == Some(Runs::Software) && mode != "skip_hw" {
                continue;
            }
            let everywhere = one.sharing.is_everywhere(table.block(), entry.hardware);
            counts.rules += u64::from(entry.applied.is_some());
            counts.in_hw += u64::from(entry.applied.is_some() && everywhere);
            counts.refused += u64::from(entry.failure.is_some());
        }
    }
    counts
}

/// Why ports of a switch that look up a prefix's table refuse packets for it.
fn not_admitted(one: &OneSwitch, key: RouteKey) -> Option<Reason> {
    let ports = one.ports.ports.iter();
    let ports = ports.filter(|port| port.table == key.table && !port.excluded);
    let mut refusals = ports.flat_map(|port| port.refusals(key.prefix.family()));
    refusals.next()
}

fn verdict_text(one: &OneSwitch, dev: IfIndex) -> Box<str> {
    let (fit, abilities) = match &one.verdict {
        None => return "being asked what it can".into(),
        Some(DriverVerdict::Fit(abilities)) => (true, abilities),
        Some(DriverVerdict::Unfit(abilities)) => (false, abilities),
    };
    let mut parts = vec![if fit {
        format!("routes, {}", one.rules.layout().name())
    } else {
        "no routes".to_owned()
    }];
    parts.extend(abilities.missing.iter().map(|(what, refusal)| {
        let why = refusal
            .text
            .as_deref()
            .map(|text| format!(" ({text})"))
            .unwrap_or_default();
        format!("no {what}{why}")
    }));
    if let Some(prios) = abilities.prios {
        parts.push(format!("{prios} priorities"));
    }
    if let Some(words) = one.sharing.refusal() {
        parts.push(format!("no shared blocks ({words})"));
    } else if let Some(words) = one.sharing.apart(dev) {
        parts.push(format!("a block of its own ({words})"));
    }
    parts.join("; ").into()
}
