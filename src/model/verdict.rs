//! [`Reason`]: the one list of why a route, next hop or message is not where it was wished to be.
//! It feeds `explain`, JSON, logs, metric labels and tests.

use std::fmt;

/// A kernel error number, positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident => $code:literal, $text:literal;)+) => {
        /// Why something is not as wished. `code()` is the stable word in JSON, metrics and filters.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])+ $variant,)+ }

        impl Reason {
            /// All of them, for help texts and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable word.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The reason of that word.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|r| r.code() == code)
            }
        }
    };
}

reasons! {
    /// The group id is not known yet.
    NextHopUnknown => "nexthop-unknown", "waits: zebra has not announced this next-hop group yet";
    /// No interface of that index.
    LinkUnknown => "link-unknown", "waits: the next hop's interface does not exist here";
    /// Every next hop is on a link that is down.
    LinkDown => "link-down", "the next hop's interface is down or has no carrier";
    /// Neighbour discovery has not answered.
    NextHopUnresolved => "nexthop-unresolved", "waits: no MAC address for the next hop yet (it is being solicited)";
    /// Neighbour discovery failed and the address holds no MAC.
    NextHopUnreachable => "nexthop-unreachable", "the next hop does not answer neighbour discovery";
    /// FRR sent 169.254.0.1 in place of the link-local next hop, and the link does not have exactly one router.
    NextHopLost => "next-hop-lost", "FRR sent only 169.254.0.1 and the link has not exactly one router; keep `fpm use-next-hop-groups` on (FRR < 10.7)";
    /// An IPv6 next hop of an IPv4 route in FRR's FPM protobuf.
    NextHopCut => "nexthop-cut", "FRR's FPM protobuf kept only four bytes of an IPv6 next hop; load dplane_fpm_nl in zebra instead";
    /// Every address of the 169.254 pool of that link is taken.
    PoolExhausted => "pool-exhausted", "no free 169.254 address is left on this link";
    /// A route of one family with a next hop of the other, which the kernel can't do that way.
    FamilyMismatch => "family-mismatch", "an IPv6 route can't have an IPv4 next hop";
    /// MPLS labels, `SRv6` or a tunnel on the next hop.
    Encapsulation => "encapsulation", "the next hop carries an encapsulation (MPLS, SRv6, tunnel), which is not installed";
    /// The group has too many different members.
    GroupTooLarge => "group-too-large", "the next-hop group has more members than are supported";
    /// A group that contains itself, or groups nested too deep.
    GroupLoop => "group-loop", "the next-hop group contains itself or is nested too deep";
    /// A route without any next hop that is not a blackhole.
    NoNextHop => "no-nexthop", "the route has no next hop";
    /// An interface-only next hop would replace a gateway while the route is stale (FRR 10.3 reads its own routes back so).
    GatewayLost => "gateway-lost", "zebra repeated this stale route without its gateway; the old next hop is kept until BGP speaks again";
    /// Somebody else's route has the same table, prefix and metric.
    ForeignRoute => "foreign-route", "a route that is not ours has this prefix and metric in the kernel";
    /// The kernel refused it; see `explain`.
    KernelRefused => "kernel-refused", "the kernel refused the write";
    /// The set-up says that zebra writes the kernel.
    NotWanted => "not-wanted", "this set-up does not write routes";
    /// The hardware table is full.
    TableFull => "table-full", "the hardware table is full, or the guards this prefix would need don't fit";
    /// A connected subnet.
    Connected => "connected", "a connected subnet: its hosts go to hardware one by one, the rest to the kernel, which resolves them";
    /// A next hop that is no port of this switch.
    OtherSwitch => "nexthop-other-switch", "a next hop is not on a port of this switch, and hardware can't forward from one switch to another";
    /// A next hop in another VRF than the route.
    OtherVrf => "nexthop-other-vrf", "a next hop is in another VRF: a route that leaks from one to the other is left to the kernel";
    /// A next hop without gateway.
    InterfaceRoute => "interface-route", "the next hop is an interface without gateway: the kernel must resolve each destination";
    /// A route with its own MTU.
    RouteMtu => "route-mtu", "the route has an MTU of its own, which hardware can't check";
    /// The egress port's MTU is below an ingress port's.
    EgressMtu => "egress-mtu", "the egress port's MTU is below that of a port that packets come in by: too large ones need the kernel's ICMP";
    /// Unreachable or prohibit.
    KernelAnswers => "kernel-answers", "the kernel answers packets to this prefix with ICMP";
    /// No port looks up this table.
    NoPort => "no-port", "no port of a switch looks up this table";
    /// The port's ingress has a qdisc that rules of ours can't hang at.
    IngressTaken => "ingress-taken", "the port has an `ingress` qdisc or a shared block of somebody else";
    /// The driver can't do what routes need.
    DriverUnfit => "driver-unfit", "the switch's driver can't do what routes need; `show ports` says what";
    /// No rule covers it.
    NoOffloadRoute => "no-offload-route", "no rule covers it: the kernel decides";
    /// The driver refused the rule.
    DriverRefused => "driver-refused", "the driver refused the rule; its words are in `explain`";
    /// Shares a tc priority with a longer prefix inside it.
    LengthsMerged => "lengths-merged", "the driver has too few tc priorities, and a longer prefix inside this one shares its priority";
    /// A kernel write is on its way.
    InProgress => "in-progress", "the write is on its way";
    /// Prefix length over the family's.
    BadPrefixLength => "bad-prefix-length", "prefix length over the family's";
    /// Host bits set in the prefix.
    HostBits => "host-bits", "bits behind the prefix length are set";
    /// An attribute's length does not fit its type.
    BadAttribute => "bad-attribute", "an attribute has a wrong length";
    /// The destination is missing or of another family.
    BadDestination => "bad-destination", "the destination address is missing or has the wrong length";
    /// A gateway whose length does not fit any family.
    BadGateway => "bad-gateway", "a gateway has the wrong family or length";
    /// An address family that is not routed here.
    BadFamily => "bad-family", "unknown address family";
    /// `RTA_SRC`: source-specific routing.
    SourceSpecific => "source-specific", "source-specific routes are not supported";
    /// A route type that is not forwarded (local, broadcast, ...).
    BadRouteType => "bad-route-type", "a route type that zebra does not install";
    /// A route with `RTA_VIA` or a multipath member that can't be parsed.
    BadMultipath => "bad-multipath", "a multipath member is malformed";
    /// A next-hop message without id or with an impossible group.
    BadNextHop => "bad-nexthop", "a next-hop message is malformed";
    /// The configuration leaves the port out.
    PortExcluded => "port-excluded", "`offload.ports` leaves this port out";
    /// The port has no Ethernet address that frames to be routed could bear.
    PortWithoutMac => "port-without-mac", "the port has no Ethernet address";
    /// The port is in a bridge, bond or other device that is no VRF.
    PortEnslaved => "port-enslaved", "the port belongs to a bridge, bond or other device, which forwards in its own way";
    /// The kernel does not forward what comes in by the port.
    NotForwarding => "not-forwarding", "the kernel does not forward packets that come in by this port (sysctl forwarding)";
    /// The kernel checks sources strictly, which hardware does not.
    StrictRpFilter => "strict-rp-filter", "reverse-path filtering is strict (sysctl rp_filter = 1), which hardware would not do";
    /// `ip rule` has a rule that may send packets of the port to another table.
    PolicyRule => "policy-rule", "an `ip rule` may treat packets of this port in another way";
    /// A VLAN sub-interface that is not up.
    PortDown => "port-down", "the VLAN sub-interface is down: the kernel drops what comes in with its tag";
    /// A VLAN sub-interface with another kind of tag.
    VlanProtocol => "vlan-protocol", "the VLAN sub-interface has 802.1ad tags, which are not offloaded";
    /// A VLAN sub-interface of a VLAN sub-interface.
    VlanStacked => "vlan-stacked", "a VLAN inside of a VLAN: frames with two tags are not offloaded";
    /// A VLAN sub-interface with an egress map.
    VlanPriority => "vlan-priority", "the VLAN sub-interface has an egress-qos-map: hardware would send every packet with priority 0";
    /// The driver can't match, push or pop tags.
    VlanUnfit => "vlan-unfit", "the switch's driver can't do with VLAN tags what that needs; `show ports` says what";
    /// The flat layout has no place for tagged packets.
    VlanFlat => "vlan-flat", "the flat layout routes only what comes in untagged";
    /// `hw-tc-offload` is off and can't be switched on.
    TcOffloadOff => "tc-offload-off", "hw-tc-offload is off on this port and can't be switched on";
    /// The switch is not in switchdev mode.
    EswitchLegacy => "eswitch-legacy", "the eswitch is in legacy mode (devlink dev eswitch set ... mode switchdev)";
    /// Filter rules of the port run in software.
    AclInSoftware => "acl-in-software", "a filter rule of this port runs in software, which would not see what hardware forwards; `show acl` says which";
    /// Filter rules that must be in hardware are not.
    AclIncomplete => "acl-incomplete", "not all filter rules that are to be in hardware could be written, and nothing may pass them by; `show acl` says which";
    /// nftables or iptables may drop or rewrite what the kernel forwards.
    ForwardFilter => "forward-filter", "nftables or iptables may drop or rewrite forwarded packets, which hardware would not do; `show ports` says which";
}

impl Reason {
    /// Whether it ends by itself soon: what the kernel has meanwhile is left as it is, which is the old treatment.
    pub const fn is_wait(self) -> bool {
        matches!(
            self,
            Self::NextHopUnknown | Self::NextHopUnresolved | Self::InProgress
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}
