//! Ports with and without a part of the CPU, and what is counted by rules.

use std::time::Duration;

use super::{messages, proto, switch};
use crate::engine::report::{PortCountersReport, RuleKind, RuleTotals};
use crate::model::{
    Errno, IfIndex, LinkCounters, NicCounter, NicGroup, NicStatistics, PortRates, PortReading,
    PortRole, Rate, RuleCounters, TrafficRates,
};

fn port() -> PortCountersReport {
    let rates = |packets| {
        let rx = Rate {
            packets,
            bits: packets * 1184,
        };
        TrafficRates { rx, tx: rx }
    };
    let ifindex = IfIndex::new(9).unwrap();
    PortCountersReport {
        name: "p1".into(),
        ifindex,
        switch: Some(switch()),
        role: Some(PortRole::Uplink),
        vrf: Some("red".into()),
        reading: PortReading {
            dev: ifindex,
            all: LinkCounters::new([2000, 1000, 296_000, 148_000, 3, 0, 7]),
            cpu: Some(LinkCounters::new([20, 1001, 2960, 148_148])),
        },
        rates: Some(PortRates {
            window: Duration::from_millis(10_250),
            all: rates(100),
            cpu: Some(rates(1)),
        }),
    }
}

pub(in crate::admin) fn counters() -> proto::Counters {
    let ifindex = IfIndex::new(3).unwrap();
    let plain = PortCountersReport {
        name: "veth0".into(),
        ifindex,
        switch: None,
        role: Some(PortRole::Other),
        vrf: None,
        reading: PortReading {
            dev: ifindex,
            all: LinkCounters::new([5, 0, 300, 0]),
            cpu: None,
        },
        rates: None,
    };
    let totals = |kind, rules, packets| RuleTotals {
        kind,
        rules,
        in_hw: rules,
        counters: RuleCounters {
            software_packets: 1,
            software_bytes: 84,
            hardware_packets: packets,
            hardware_bytes: packets * 98,
            idle_ms: None,
        },
    };
    let rules = [
        totals(RuleKind::Acl, 2, 4),
        totals(RuleKind::Route, 120, 1980),
    ];
    proto::Counters {
        ports: [port(), plain].map(messages::port_counters).into(),
        rules: rules.map(messages::rule_totals).into(),
    }
}

pub(in crate::admin) fn port_statistics() -> proto::PortStatistics {
    let counter = |group, name: &str, value| NicCounter {
        group,
        name: name.into(),
        value,
    };
    let statistics = NicStatistics {
        counters: vec![
            counter(NicGroup::EthMac, "FramesReceivedOK", 2000),
            counter(NicGroup::Rmon, "rx-etherStatsPkts65to127Octets", 1500),
            counter(NicGroup::Driver, "vport_rx_packets", 2000),
            counter(NicGroup::Driver, "hw_drop_packets", 0),
        ],
        failed: vec![(NicGroup::Driver, Errno(5))],
    };
    let mut report = port();
    report.reading.all = LinkCounters::new([2000, 1000, 0]);
    report.reading.cpu = Some(LinkCounters::new([20]));
    messages::port_statistics(report, statistics)
}
