//! Read-only answers about counters: ports by readings that are handed in, rules as they were last read back. The one
//! thing that is kept is what ports had counted before, for their rates. Nothing is asked for from here: an answer
//! costs the engine no wait.

use std::collections::BTreeMap;

use super::Engine;
use super::offload_query::kind_of;
use super::report::{PortCountersReport, PortReport, RuleTotals};
use crate::model::{Family, Framing, IfIndex, NextHop, PortReading, PortReadings, RuleCounters};
use crate::plan::{HopId, RuleKey};

impl Engine {
    /// Remembers what ports have counted, for the rates of later readings.
    pub fn note_counters(&mut self, readings: &PortReadings) {
        self.port_history.note(readings);
    }

    /// A link by its name, for those that need its number to read its counters.
    pub fn link_by_name(&self, name: &str) -> Option<IfIndex> {
        self.view.link_by_name(name).map(|link| link.index)
    }

    /// The ports of all switches that were read, in no order.
    pub fn port_counters(&self, readings: &PortReadings) -> Vec<PortCountersReport> {
        let mut ports: BTreeMap<IfIndex, PortReport> = self.ports_by_index();
        let read = readings.ports.iter();
        read.filter_map(|reading| {
            let port = ports.remove(&reading.dev)?;
            Some(self.counters_report(readings, reading, Some(port)))
        })
        .collect()
    }

    /// A link that was read, be it a port or not.
    pub fn link_counters(
        &self,
        readings: &PortReadings,
        dev: IfIndex,
    ) -> Option<PortCountersReport> {
        let reading = readings.ports.iter().find(|reading| reading.dev == dev)?;
        self.view.link(dev)?;
        let port = self.ports_by_index().remove(&dev);
        Some(self.counters_report(readings, reading, port))
    }

    fn ports_by_index(&self) -> BTreeMap<IfIndex, PortReport> {
        let ports = self.ports().into_iter();
        ports.map(|port| (port.ifindex, port)).collect()
    }

    fn counters_report(
        &self,
        readings: &PortReadings,
        reading: &PortReading,
        port: Option<PortReport>,
    ) -> PortCountersReport {
        let link = self.view.link(reading.dev);
        let master = link.and_then(|link| self.view.link(link.master?));
        PortCountersReport {
            name: self.view.name_of(reading.dev),
            ifindex: reading.dev,
            role: port.as_ref().map(|port| port.role),
            switch: port.and_then(|port| port.switch),
            vrf: master
                .filter(|master| master.vrf_table.is_some())
                .map(|vrf| vrf.name.clone()),
            reading: *reading,
            rates: self.port_history.rates(readings.at, reading),
        }
    }

    /// Rules by what they are for, in the order in which packets meet them; kinds without rules are left out.
    pub fn rule_totals(&self) -> Vec<RuleTotals> {
        let mut totals = BTreeMap::new();
        for one in self.offload.switches.values() {
            for (table, _) in one.rules.tables() {
                for (item, entry) in table.iter() {
                    let Some(rule) = &entry.applied else { continue };
                    let kind = kind_of(item, Some(rule));
                    let total = totals.entry(kind).or_insert(RuleTotals {
                        kind,
                        rules: 0,
                        in_hw: 0,
                        counters: RuleCounters::default(),
                    });
                    let everywhere = one.sharing.is_everywhere(table.block(), entry.hardware);
                    total.rules += 1;
                    total.in_hw += u64::from(everywhere);
                    total.counters = [total.counters, entry.counters].into_iter().sum();
                }
            }
        }
        totals.into_values().collect()
    }

    /// What the rules of a next hop sent, for packets of these families.
    pub(super) fn hop_counters(&self, hop: &NextHop, families: &[Family]) -> Option<RuleCounters> {
        let (dev, addr) = (hop.dev?, hop.via?);
        let mut counters = Vec::new();
        for one in self.offload.switches.values() {
            for family in families.iter().copied() {
                for framing in Framing::ALL {
                    let key = RuleKey::Hop(framing, HopId { family, dev, addr });
                    counters.extend(one.rules.entries(key).map(|(_, entry)| entry.counters));
                }
            }
        }
        (!counters.is_empty()).then(|| counters.into_iter().sum())
    }
}

/// How many packets rules took, and where.
pub(super) fn taken_text(counters: RuleCounters) -> String {
    match (counters.hardware_packets, counters.software_packets) {
        (hardware, 0) => format!("{hardware} packets in hardware"),
        (0, software) => format!("{software} packets in software"),
        (hardware, software) => format!("{hardware} packets in hardware, {software} in software"),
    }
}
