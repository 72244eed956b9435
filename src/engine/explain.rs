//! Read-only answer for `explain`: what happens to packets for an address or prefix, stage by stage. No rendering.

mod offload;

use super::Engine;
use super::report::{
    ExplainReport, ExplainStep, KernelState, NextHopReport, OffloadState, RouteReport, Verdict,
};
use crate::model::{
    KernelHop, KernelMatch, KernelTarget, MatchKind, Prefix, Protocol, Reason, RouteKey, RouteKind,
    TableId,
};
use crate::rib::{PathForm, SlotId};

impl Engine {
    /// What happens to packets for this address or prefix: the longest match in a table, stage by stage.
    ///
    /// `kernel` is what the kernel itself answers for an address of the main table or of a VRF. Routes of others are not known
    /// here, so where that is a route of somebody else's, or of another table, it has the last word.
    pub fn explain(
        &self,
        target: Prefix,
        table: TableId,
        kernel: Option<KernelMatch>,
    ) -> ExplainReport {
        let mut report = self.explain_packet(target, table, kernel);
        let told = report.key.and_then(|key| self.explain_feedback(key));
        report.steps.extend(told);
        report.vrf = self.view.vrf_of(table).map(|link| link.name.clone());
        report
    }

    fn explain_packet(
        &self,
        target: Prefix,
        table: TableId,
        kernel: Option<KernelMatch>,
    ) -> ExplainReport {
        let mut report = self.explain_ours(target, table);
        let hardware = self.explain_offload(target, table);
        if hardware
            .iter()
            .any(|(_, state)| *state == OffloadState::Hardware)
        {
            report.verdict = match report.verdict {
                Verdict::Discard => Verdict::Discard,
                _ => Verdict::Hardware,
            };
        }
        let forwarded = report.verdict;
        let steps = hardware.into_iter().map(|(step, _)| step);
        let elsewhere = |kernel: &KernelMatch| ![table, TableId::LOCAL].contains(&kernel.table);
        let last_word =
            |kernel: &KernelMatch| kernel.protocol != Protocol::REDIRECT || elsewhere(kernel);
        let Some(kernel) = kernel.filter(last_word) else {
            report.steps.extend(steps);
            return report;
        };
        let mut text = format!(
            "the kernel takes {} proto {}",
            kernel.prefix, kernel.protocol
        );
        if elsewhere(&kernel) {
            text += &format!(" table {}", self.view.table_text(kernel.table));
        }
        if kernel.metric != 0 {
            text += &format!(" metric {}", kernel.metric);
        }
        if let Some(via) = kernel.via {
            text += &format!(" via {via}");
        }
        if let Some(dev) = kernel.dev {
            text += &format!(" on {}", self.view.name_of(dev));
        }
        let (verdict, state) = match kernel.kind {
            MatchKind::Forward if elsewhere(&kernel) => (Verdict::Software, "other-table"),
            MatchKind::Forward if kernel.protocol == Protocol::KERNEL => {
                (Verdict::Software, "connected")
            }
            MatchKind::Forward => (Verdict::Software, "foreign"),
            MatchKind::Local => (Verdict::Software, "local"),
            MatchKind::Multicast => (Verdict::Software, "multicast"),
            MatchKind::Discard => (Verdict::Discard, "foreign"),
        };
        report.steps.retain(|step| step.state != "connected");
        text += if kernel.protocol == Protocol::REDIRECT {
            ", since the VRF has none"
        } else {
            ", which is not ours"
        };
        report.steps.push(ExplainStep {
            stage: "kernel",
            text,
            state,
        });
        report.steps.extend(steps);
        report.verdict = if forwarded == Verdict::Hardware {
            forwarded
        } else {
            verdict
        };
        report
    }

    fn explain_ours(&self, target: Prefix, table: TableId) -> ExplainReport {
        let found = (0..=target.len()).rev().find_map(|len| {
            let prefix = Prefix::masked(target.addr(), len).ok()?;
            let id = self.slots.find(RouteKey { table, prefix })?;
            self.slots.get(id).path.is_some().then_some(id)
        });
        let found = found.and_then(|id| Some((id, self.route(id)?)));
        if let Some((dev, subnet)) = self.view.connected(target, table)
            && found
                .as_ref()
                .is_none_or(|(_, route)| route.key.prefix.len() <= subnet.len())
        {
            let text = format!(
                "{subnet} is directly connected on {}; the kernel prefers it to any route here",
                self.view.name_of(dev)
            );
            return ExplainReport {
                key: None,
                table,
                vrf: None,
                steps: vec![ExplainStep {
                    stage: "kernel",
                    text,
                    state: "connected",
                }],
                verdict: Verdict::Software,
                reason: None,
            };
        }
        let Some((id, route)) = found else {
            let text = format!(
                "no route of any source covers {target} in table {}",
                self.view.table_text(table)
            );
            return ExplainReport {
                key: None,
                table,
                vrf: None,
                steps: vec![ExplainStep {
                    stage: "source",
                    text,
                    state: "none",
                }],
                verdict: Verdict::NoRoute,
                reason: None,
            };
        };
        let mut steps = vec![self.explain_source(&route)];
        steps.extend(route.nexthops.iter().map(explain_nexthop));
        steps.push(self.explain_kernel(id, &route));
        let in_place = route.kernel == KernelState::Installed;
        // In a set-up that does not write, zebra does: what it has is what forwards.
        let in_place = in_place || route.kernel == KernelState::NotWanted;
        let verdict = match (route.kind, in_place) {
            (RouteKind::Unicast, true) => Verdict::Software,
            (_, true) => Verdict::Discard,
            (_, false) => Verdict::NoRoute,
        };
        ExplainReport {
            key: Some(route.key),
            table,
            vrf: None,
            steps,
            verdict,
            reason: route.reason,
        }
    }

    fn explain_source(&self, route: &RouteReport) -> ExplainStep {
        let mut text = format!(
            "{} {}, metric {}",
            route.source.name(),
            route.protocol,
            route.metric
        );
        if let Some(nhg) = route.nhg {
            text += &format!(", next-hop group {nhg}");
        }
        match route.nexthops.len() {
            0 => {}
            1 => text += ", 1 path",
            n => text += &format!(", {n} paths"),
        }
        if route.kind != RouteKind::Unicast {
            text += &format!(", {}", route.kind.name());
        }
        let connected = self.session.connection.is_some();
        let state = match (route.stale, connected) {
            (true, _) => "stale",
            (false, true) => "fresh",
            (false, false) => "kept",
        };
        ExplainStep {
            stage: "source",
            text,
            state,
        }
    }

    fn explain_kernel(&self, id: SlotId, route: &RouteReport) -> ExplainStep {
        let slot = self.slots.get(id);
        let form = match (
            slot.applied,
            slot.path
                .map(|path| self.paths.get(path).form(slot.family())),
        ) {
            (Some(form), _) | (None, Some(PathForm::Form(form))) => Some(self.forms.get(form)),
            _ => None,
        };
        let mut text = match form.map(|form| (&form.target, form.kind)) {
            None if route.kernel == KernelState::NotWanted => {
                "zebra writes the kernel in this set-up".to_owned()
            }
            None => "nothing is written".to_owned(),
            Some((KernelTarget::None, kind)) => kind.name().to_owned(),
            Some((KernelTarget::Object(object), _)) => format!("next-hop object {}", object.get()),
            Some((KernelTarget::Hops(hops), _)) => hops
                .iter()
                .map(|(hop, _)| self.kernel_hop_text(hop))
                .collect::<Vec<_>>()
                .join(", "),
        };
        if form.is_some() {
            text += &format!(", metric {}", self.config.kernel.metric);
        }
        if let Some(mtu) = form.and_then(|form| form.mtu) {
            text += &format!(", mtu {mtu}");
        }
        if let Some((errno, detail)) = &route.refusal {
            text += &format!("; refused: {errno}");
            if let Some(detail) = detail {
                text += &format!(" \"{detail}\"");
            }
        } else if let Some(reason) = self
            .route_reason(id)
            .filter(|reason| *reason != Reason::NotWanted)
        {
            text += &format!("; {}", reason.text());
        }
        ExplainStep {
            stage: "kernel",
            text,
            state: route.kernel.name(),
        }
    }

    fn kernel_hop_text(&self, hop: &KernelHop) -> String {
        let dev = self.view.name_of(hop.dev);
        match hop.via {
            Some(via) if hop.onlink => format!("{via} dev {dev} onlink"),
            Some(via) => format!("{via} dev {dev}"),
            None => format!("dev {dev}"),
        }
    }
}

fn explain_nexthop(hop: &NextHopReport) -> ExplainStep {
    let dev = hop.dev.as_deref().unwrap_or("?");
    let mut text = match hop.via {
        Some(via) => format!("{via} on {dev}"),
        None => format!("directly on {dev}"),
    };
    if let (Some(mac), Some(from)) = (hop.mac, hop.mac_from) {
        text += &format!(" -> {mac} ({})", from.name());
    }
    if let Some(via) = hop.kernel_via.filter(|via| Some(*via) != hop.via) {
        text += &format!(", in the kernel {via}");
    }
    if hop.weight != 1 {
        text += &format!(", weight {}", hop.weight);
    }
    if let Some(reason) = hop.reason {
        text += &format!("; {}", reason.text());
    }
    ExplainStep {
        stage: "nexthop",
        text,
        state: hop.reason.map_or("ready", Reason::code),
    }
}
