//! What `doctor` answers with, and the one list of what it knows.

use super::Severity;

/// Something about this host that keeps routes from where they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing; stable.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen, and what comes of it.
    pub finding: String,
    /// The command or the change that mends it; `None` where nothing of this host would.
    pub fix: Option<String>,
}

macro_rules! pitfalls {
    ($($variant:ident => $code:literal, $severity:ident, $about:literal;)+) => {
        /// What `doctor` knows. `code()` is the stable word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "`about()` says what each is")]
        pub enum Pitfall { $($variant,)+ }

        impl Pitfall {
            /// All of them, in the order of docs/troubleshooting.md.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable word.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// How bad it is at worst.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)+ }
            }

            /// What it is, for docs/troubleshooting.md.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)+ }
            }
        }
    };
}

// Error: traffic is lost, or the truth is wrong. Warn: degraded, or not in hardware. Info: good to know.
pitfalls! {
    ZebraNotConnected => "zebra-not-connected", Error, "no zebra has dialled: routes are not followed";
    ZebraWaits => "zebra-waits-for-answers", Error, "zebra waits for answers that it can't take in, or that this configuration does not give";
    ZebraIgnores => "zebra-ignores-answers", Info, "this FRR can't take answers in, and does not wait for them";
    ZebraTableMissing => "zebra-table-missing", Error, "set-up `takeover`, and zebra runs without `-R`: it writes the main table itself";
    ZebraTableUnmapped => "zebra-table-unmapped", Error, "zebra runs with `-R`, and its table is not mapped to one that the kernel looks up";
    NetnsVrfs => "netns-vrfs", Error, "zebra takes network namespaces for VRFs (`-w`), which can't be told apart";
    FeedbackLoop => "feedback-loop", Error, "zebra took a makeshift route over from the kernel as its own (`K>*`)";
    OldFpmModule => "old-fpm-module", Warn, "zebra speaks FPM by its older module: no groups, no answers, IPv6 next hops lost";
    NexthopGroupsOff => "nexthop-groups-off", Warn, "routes arrive without next-hop groups; FRR before 10.7 loses IPv6 next hops then";
    SuppressAlone => "suppress-without-wait", Info, "`bgp suppress-fib-pending` without a zebra that waits for answers";
    NorthboundMissed => "northbound-missed", Warn, "northbound gRPC is configured, and zebra gives no answer or none that can be used";
    NorthboundDiffers => "northbound-differs", Warn, "northbound gRPC says other routes than FPM";
    FrrSilent => "frr-silent", Warn, "`vtysh` gives no answer";
    NextHopLost => "next-hop-lost", Error, "FRR sent 169.254.0.1 in place of a link-local next hop that nobody can know";
    ForeignRoute => "foreign-route", Error, "a route of somebody else has the prefix and metric of ours";
    KernelRefused => "kernel-refused", Error, "the kernel refuses routes, next hops or neighbours";
    PoolExhausted => "pool-exhausted", Error, "a link has no free 169.254 address for one more neighbour";
    RouteUnusable => "route-unusable", Error, "routes with what is not installed: labels, tunnels, groups too large";
    RoutesStale => "routes-stale", Warn, "zebra came back without routes that it had; they are kept for a while";
    NotForwarding => "not-forwarding", Warn, "the kernel does not forward what comes in by a link that routes use";
    StrictRpFilter => "strict-rp-filter", Warn, "reverse-path filtering is strict on a link that routes use";
    CompatMode => "nexthop-compat-mode", Warn, "a large table, and a changed next hop is told route by route";
    ArpSettings => "arp-settings", Info, "a link without IPv4 address does not answer ARP";
    LinkdownRoutes => "linkdown-routes", Info, "a link lost its carrier, and the kernel goes on using routes of others there";
    MultipathHash => "multipath-hash", Warn, "the kernel's hash policy is not the configured one";
    NoIpv4Address => "no-ipv4-address", Info, "no address for the router's own IPv4 packets";
    NetworkManager => "network-manager", Warn, "NetworkManager looks after a link that routes use, or a port";
    NetworkdRemoves => "networkd-removes-routes", Warn, "systemd-networkd removes routes or next hops that it did not write";
    PortEnslaved => "port-enslaved", Warn, "a link that routes use, or a port, belongs to a bridge, a bond or Open vSwitch";
    EswitchLegacy => "eswitch-legacy", Warn, "a NIC's eswitch is in legacy mode";
    TcOffloadOff => "tc-offload-off", Warn, "`hw-tc-offload` is off on a port and could not be switched on";
    PortWithoutMac => "port-without-mac", Warn, "a port has no Ethernet address that frames to be routed could bear";
    IngressTaken => "ingress-taken", Warn, "a port has a qdisc of somebody else where rules should hang";
    QdiscStolen => "qdisc-stolen", Warn, "somebody deletes a port's clsact qdisc; it is put back each time";
    MixedBlock => "mixed-block", Warn, "others have rules that run in software beside those of hardware";
    MtuMismatch => "mtu-mismatch", Warn, "a port's MTU is below that of another: routes out of it stay in software";
    PolicyRule => "policy-rule", Warn, "an `ip rule` may treat packets in another way than hardware would";
    ForwardFilter => "forward-filter", Warn, "nftables or iptables may drop or rewrite what hardware would forward";
    DriverUnfit => "driver-unfit", Warn, "a driver can't do what routes need";
    DriverLies => "driver-lies", Warn, "a driver takes rules and does not do what they say";
    DriverLimits => "driver-limits", Info, "a driver lacks some of what rules could use";
    DriverRefused => "driver-refused", Warn, "a driver refuses rules of routes";
    TableFilling => "table-filling", Warn, "a hardware table is full, or nearly";
    AclRefused => "acl-refused", Error, "a filter rule that is to be in hardware is not, and its ports have left hardware";
    AclInSoftware => "acl-in-software", Warn, "a driver refused a filter rule, which runs in software now; its ports have left hardware";
    AclNowhere => "acl-nowhere", Error, "a filter rule is for no port that there is, or nothing is offloaded: it filters nothing";
    PortsUnmatched => "ports-unmatched", Warn, "`offload.ports` names what is not there";
}

impl Pitfall {
    /// A finding of its severity.
    pub fn found(self, finding: impl Into<String>, fix: impl Into<Option<String>>) -> Finding {
        Finding {
            id: self.code(),
            severity: self.severity(),
            finding: finding.into(),
            fix: fix.into(),
        }
    }
}

impl Finding {
    /// The same, less bad or worse than usual.
    #[must_use]
    pub fn at(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}
