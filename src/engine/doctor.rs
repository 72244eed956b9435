//! `doctor`: what about this host keeps routes from where they should be, and what mends it.
//!
//! Only what was seen counts: a fact that nobody here can know (zebra on another host) makes no finding. Each check looks at what the
//! engine has already and asks nobody.

use super::Engine;
use super::report::{Finding, PortReport, Severity};
use crate::config::OffloadMode;
use crate::model::Reason;

impl Engine {
    /// All findings, the worst first.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::from_iter(self.zebra_missing());
        findings.extend(self.zebra_waits());
        if self.config.offload.mode != OffloadMode::Off {
            let ports = self.ports();
            findings.extend(ports.iter().flat_map(port_findings));
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings
    }

    fn zebra_missing(&self) -> Option<Finding> {
        let listen = &self.config.fpm.listen;
        let missing = self.session.connection.is_none() && !listen.is_empty();
        missing.then(|| {
            let at: Vec<_> = listen.iter().map(ToString::to_string).collect();
            Finding {
                id: "zebra-not-connected",
                severity: Severity::Error,
                finding: format!("no zebra is connected to {}: routes are not followed", at.join(", ")),
                fix: Some(format!(
                    "load the module (zebra_options=\"... -M dplane_fpm_nl\" in /etc/frr/daemons), and tell it where: \
                     vtysh -c 'configure' -c 'fpm address {} port {}'",
                    listen[0].ip(),
                    listen[0].port()
                )),
            }
        })
    }

    /// That zebra waits for answers in vain, or may.
    fn zebra_waits(&self) -> Option<Finding> {
        let (severity, finding) = self.hearing_words()?;
        let waits = severity != Severity::Info;
        waits.then(|| Finding {
            id: "zebra-waits-for-answers",
            severity,
            finding,
            fix: Some("take --asic-offload=notify_on_offload out of zebra_options in /etc/frr/daemons and restart FRR".into()),
        })
    }
}

/// Why a port admits less than it could, and what the operator can do about it.
fn port_findings(port: &PortReport) -> Vec<Finding> {
    let name = &port.name;
    let finding = |reason: &Reason| {
        let fix = match reason {
            // As the operator wished.
            Reason::PortExcluded | Reason::AclInSoftware => return None,
            Reason::EswitchLegacy => port
                .devlink
                .as_ref()
                .map(|handle| format!("devlink dev eswitch set {handle} mode switchdev")),
            Reason::TcOffloadOff => Some(format!("ethtool -K {name} hw-tc-offload on")),
            Reason::NotForwarding => Some(format!(
                "sysctl -w net.ipv4.conf.{name}.forwarding=1 net.ipv6.conf.all.forwarding=1"
            )),
            Reason::StrictRpFilter => Some(format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2")),
            Reason::PortEnslaved => Some(format!("ip link set {name} nomaster")),
            Reason::IngressTaken => Some(format!("tc qdisc del dev {name} ingress")),
            Reason::PolicyRule | Reason::ForwardFilter => Some(format!(
                "if these rules don't concern routed packets: offload.ignore = [\"{reason}\"]"
            )),
            _ => None,
        };
        let by = match port.filtered_by.join(", ") {
            filters if *reason == Reason::ForwardFilter => format!(" ({filters})"),
            _ => String::new(),
        };
        Some(Finding {
            id: reason.code(),
            severity: Severity::Warn,
            finding: format!("{name}: {}{by}", reason.text()),
            fix,
        })
    };
    port.reasons.iter().filter_map(finding).collect()
}
