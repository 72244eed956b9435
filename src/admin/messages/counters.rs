//! Counters as messages.

use super::text;
use crate::admin::proto;
use crate::engine::report::{PortCountersReport, RuleTotals};
use crate::model::{
    Errno, NicCounter, NicGroup, NicStatistics, PortRates, PortReading, PortRole, Rate,
    RuleCounters, WayCounters,
};

pub(in crate::admin) fn port_counters(report: PortCountersReport) -> proto::PortCounters {
    let PortCountersReport {
        name,
        ifindex,
        switch,
        role,
        vrf,
        reading: PortReading { dev: _, all, cpu },
        rates,
    } = report;
    let window = rates.map(|PortRates { window, .. }| window.as_millis() as u64);
    let all_rates = rates.map(|rates| rates.all);
    let cpu_rates = rates.and_then(|rates| rates.cpu);
    proto::PortCounters {
        name: name.into(),
        ifindex: ifindex.get(),
        switch: text(switch),
        role: role.map(PortRole::name).map(str::to_owned),
        vrf: vrf.map(String::from),
        rx: Some(way(
            (all.rx(), cpu.map(|cpu| cpu.rx())),
            (all_rates.map(|r| r.rx), cpu_rates.map(|r| r.rx)),
        )),
        tx: Some(way(
            (all.tx(), cpu.map(|cpu| cpu.tx())),
            (all_rates.map(|r| r.tx), cpu_rates.map(|r| r.tx)),
        )),
        window_ms: window,
    }
}

/// What was counted and how fast, of all packets and of those of the CPU.
fn way(
    (all, cpu): (WayCounters, Option<WayCounters>),
    (rate, cpu_rate): (Option<Rate>, Option<Rate>),
) -> proto::WayCounters {
    let WayCounters {
        packets,
        bytes,
        errors,
        dropped,
    } = all;
    proto::WayCounters {
        packets,
        bytes,
        errors,
        dropped,
        cpu_packets: cpu.map(|cpu| cpu.packets),
        cpu_bytes: cpu.map(|cpu| cpu.bytes),
        packets_per_s: rate.map(|rate| rate.packets),
        bits_per_s: rate.map(|rate| rate.bits),
        cpu_packets_per_s: cpu_rate.map(|rate| rate.packets),
        cpu_bits_per_s: cpu_rate.map(|rate| rate.bits),
    }
}

pub(in crate::admin) fn rule_totals(totals: RuleTotals) -> proto::RuleTotals {
    let RuleTotals {
        kind,
        rules,
        in_hw,
        counters,
    } = totals;
    let Taken {
        packets,
        bytes,
        hardware_packets,
        hardware_bytes,
    } = counters.into();
    proto::RuleTotals {
        kind: kind.name().to_owned(),
        rules,
        in_hw,
        packets,
        bytes,
        hardware_packets,
        hardware_bytes,
    }
}

/// The link's own counters come first, then those of the CPU, then what the NIC says.
pub(in crate::admin) fn port_statistics(
    report: PortCountersReport,
    statistics: NicStatistics,
) -> proto::PortStatistics {
    let named = |group: &str, name: &str, value| proto::Statistic {
        group: group.to_owned(),
        name: name.to_owned(),
        value,
    };
    let PortReading { dev: _, all, cpu } = report.reading;
    let mut told: Vec<proto::Statistic> = all
        .named()
        .map(|(name, value)| named("link", name, value))
        .collect();
    if let Some(cpu) = cpu {
        told.extend(cpu.named().map(|(name, value)| named("cpu", name, value)));
    }
    let NicStatistics { counters, failed } = statistics;
    told.extend(
        counters
            .into_iter()
            .map(|NicCounter { group, name, value }| named(group.name(), &name, value)),
    );
    let failure = |(group, errno): (NicGroup, Errno)| proto::StatisticsFailure {
        group: group.name().to_owned(),
        error: errno.to_string(),
    };
    proto::PortStatistics {
        port: Some(port_counters(report)),
        statistics: told,
        failed: failed.into_iter().map(failure).collect(),
    }
}

/// The keys that everything has which counts by rules.
#[derive(Debug, Clone, Copy)]
pub(in crate::admin) struct Taken {
    /// In software and hardware.
    pub(in crate::admin) packets: u64,
    pub(in crate::admin) bytes: u64,
    pub(in crate::admin) hardware_packets: u64,
    pub(in crate::admin) hardware_bytes: u64,
}

impl From<RuleCounters> for Taken {
    fn from(counters: RuleCounters) -> Self {
        let RuleCounters {
            software_packets,
            software_bytes,
            hardware_packets,
            hardware_bytes,
            idle_ms: _,
        } = counters;
        Self {
            packets: software_packets.saturating_add(hardware_packets),
            bytes: software_bytes.saturating_add(hardware_bytes),
            hardware_packets,
            hardware_bytes,
        }
    }
}
