//! What a host shows about itself when it is asked, and nobody follows: sysctls, who else looks after its links, and what
//! FRR's own shell says. Read on demand for `doctor` by `kernel::host` and `admin::vtysh`; judged in `engine::doctor`.
//!
//! Every value may be absent: an older kernel, a file that is not there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{FrrVersion, IfIndex, IfName, KernelMatch, Prefix};

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostQuestion {
    /// Links: those that routes use, and ports.
    pub links: Vec<(IfIndex, IfName)>,
    /// Prefixes of the main table.
    pub prefixes: Vec<Prefix>,
}

/// The host, as it was a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// The sysctls of `all`, which add to those of each link.
    pub all: LinkSysctls,
    /// The links that were asked about.
    pub links: BTreeMap<IfIndex, LinkFacts>,
    /// What the kernel looks up for the prefixes of the main table that were asked about.
    pub routes: BTreeMap<Prefix, KernelMatch>,
    /// `net.ipv6.conf.all.forwarding`, which alone decides.
    pub forwarding6: Option<u8>,
    /// `net.ipv4.nexthop_compat_mode`.
    pub nexthop_compat_mode: Option<u8>,
    /// `fib_multipath_hash_policy` of IPv4 and of IPv6.
    pub multipath_hash: [Option<u8>; 2],
    /// What systemd-networkd is told to do with what it did not write; `None` where it does not run.
    pub networkd: Option<Networkd>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkFacts {
    /// Its own sysctls.
    pub sysctls: LinkSysctls,
    /// `NetworkManager` looks after it.
    pub network_manager: bool,
    /// systemd-networkd does.
    pub networkd: bool,
}

/// `net.ipv4.conf.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkSysctls {
    /// `forwarding`.
    pub forwarding: Option<u8>,
    /// `rp_filter`.
    pub rp_filter: Option<u8>,
    /// `arp_ignore`.
    pub arp_ignore: Option<u8>,
    /// `arp_filter`.
    pub arp_filter: Option<u8>,
    /// `ignore_routes_with_linkdown`.
    pub ignore_linkdown: Option<u8>,
}

/// Settings of systemd-networkd; both are on unless the operator says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Networkd {
    /// `ManageForeignRoutes`: it removes routes that it did not write.
    pub foreign_routes: bool,
    /// `ManageForeignNextHops`: likewise next-hop objects.
    pub foreign_next_hops: bool,
}

/// What came of asking `vtysh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrrAnswer {
    /// It did not end in time.
    Silent,
    /// It found no zebra to ask.
    NotRunning,
    /// What is set.
    Settings(FrrSettings),
}

/// FRR's settings, as far as they matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrrSettings {
    /// Of the FRR that runs.
    pub version: Option<FrrVersion>,
    /// zebra has the module `dplane_fpm_nl`.
    pub fpm_module: bool,
    /// Where that module dials; `None`: nowhere.
    pub fpm_address: Option<SocketAddr>,
    /// `fpm use-next-hop-groups`.
    pub nexthop_groups: bool,
    /// A BGP instance has `bgp suppress-fib-pending`.
    pub suppress_fib_pending: bool,
}
