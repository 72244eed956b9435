//! What ports have counted, as the kernel tells it: a link's own counters, the part of them that the CPU saw, and what
//! a NIC counts besides. Read on demand and now and then; rates are made of two readings in `view::counters`. Counters
//! of rules are beside the rules ([`RuleCounters`](super::RuleCounters)).

use super::{Errno, IfIndex, Timestamp};

/// The names of [`LinkCounters`], in the order of `struct rtnl_link_stats64`.
pub const LINK_COUNTERS: [&str; 25] = [
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
    "rx_length_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "rx_compressed",
    "tx_compressed",
    "rx_nohandler",
    "rx_otherhost_dropped",
];

/// `struct rtnl_link_stats64`; bytes with the Ethernet header. Older kernels know fewer of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounters {
    values: [u64; LINK_COUNTERS.len()],
    known: usize,
}

impl LinkCounters {
    /// In the order of [`LINK_COUNTERS`]; further ones have no name here and are left out.
    pub fn new(counted: impl IntoIterator<Item = u64>) -> Self {
        let mut counters = Self::default();
        for (value, counted) in counters.values.iter_mut().zip(counted) {
            *value = counted;
            counters.known += 1;
        }
        counters
    }

    /// All that the kernel knows, by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let values = self.values[..self.known].iter();
        LINK_COUNTERS.into_iter().zip(values.copied())
    }

    /// What came in.
    pub const fn rx(&self) -> WayCounters {
        let [packets, _, bytes, _, errors, _, dropped, ..] = self.values;
        WayCounters {
            packets,
            bytes,
            errors,
            dropped,
        }
    }

    /// What went out.
    pub const fn tx(&self) -> WayCounters {
        let [_, packets, _, bytes, _, errors, _, dropped, ..] = self.values;
        WayCounters {
            packets,
            bytes,
            errors,
            dropped,
        }
    }
}

/// What a link counts for each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WayCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Damaged ones and those that could not be sent.
    pub errors: u64,
    /// Those for which there was no room or no use.
    pub dropped: u64,
}

/// A link's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortReading {
    /// The link.
    pub dev: IfIndex,
    /// All that it carried: of a representor what its function sent and received, whoever forwarded it.
    pub all: LinkCounters,
    /// Of these, what the CPU saw (`IFLA_OFFLOAD_XSTATS_CPU_HIT`); `None` where the driver can't tell them apart.
    pub cpu: Option<LinkCounters>,
}

/// The counters of links, read together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortReadings {
    /// When.
    pub at: Timestamp,
    /// A link each, in no order.
    pub ports: Vec<PortReading>,
}

/// What a NIC counts for a link besides, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NicStatistics {
    /// In the order in which they are told.
    pub counters: Vec<NicCounter>,
    /// What could not be read. A NIC that does not count a group is no failure.
    pub failed: Vec<(NicGroup, Errno)>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicCounter {
    /// Who defines it.
    pub group: NicGroup,
    /// Its name there. Nothing says that a driver's are unique.
    pub name: Box<str>,
    /// How often.
    pub value: u64,
}

/// Who defines what a counter means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NicGroup {
    /// IEEE 802.3, 30.3.2: the PHY.
    EthPhy,
    /// IEEE 802.3, 30.3.1: the MAC.
    EthMac,
    /// IEEE 802.3, 30.3.3: MAC control frames.
    EthCtrl,
    /// RFC 2819, and histograms of packet sizes.
    Rmon,
    /// The driver (`ethtool -S`).
    Driver,
}

impl NicGroup {
    /// The word in answers: ethtool's own.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EthPhy => "eth-phy",
            Self::EthMac => "eth-mac",
            Self::EthCtrl => "eth-ctrl",
            Self::Rmon => "rmon",
            Self::Driver => "driver",
        }
    }
}

/// What a link carries each second, over a window that is longer than a driver takes to refresh its counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRates {
    /// The time between the two readings.
    pub window: std::time::Duration,
    /// Of all packets.
    pub all: TrafficRates,
    /// Of those that the CPU saw.
    pub cpu: Option<TrafficRates>,
}

/// Rates of both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficRates {
    /// What comes in.
    pub rx: Rate,
    /// What goes out.
    pub tx: Rate,
}

/// A rate, rounded to the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Packets a second.
    pub packets: u64,
    /// Bits a second.
    pub bits: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_names_as_many_as_it_knows() {
        let counters = LinkCounters::new(1..=24);
        let named: Vec<_> = counters.named().collect();
        assert_eq!((named[0], named[1]), (("rx_packets", 1), ("tx_packets", 2)));
        assert_eq!(named.last(), Some(&("rx_nohandler", 24)));
        assert_eq!(LinkCounters::new(1..=99).named().count(), 25);
        let way = |packets, bytes, errors, dropped| WayCounters {
            packets,
            bytes,
            errors,
            dropped,
        };
        assert_eq!(counters.rx(), way(1, 3, 5, 7));
        assert_eq!(counters.tx(), way(2, 4, 6, 8));
    }
}
