//! The seams of the offload: what the engine is told about ports and rules, and what it wants written.

use std::num::NonZeroU32;

use super::{
    Block, Chain, Errno, EtherProto, Family, FlowerRule, IfIndex, IfName, InHardware, ObservedRule,
    Prio, Refusal, RouteKey, RulePlace, Ticket,
};

/// The id of a switch: `IFLA_PHYS_SWITCH_ID`. Ports of one id can forward to each other in hardware.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SwitchId(pub Box<[u8]>);

impl std::fmt::Display for SwitchId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for SwitchId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What a port is to its switch (`DEVLINK_PORT_FLAVOUR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortRole {
    /// `physical`: the wire.
    Uplink,
    /// `pcipf`, `pcivf`, `pcisf`: stands for a function of the NIC.
    Representor,
    /// A VLAN sub-interface of another port, which devlink knows nothing of.
    SubInterface,
    /// Anything else.
    Other,
}

impl PortRole {
    /// The word in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Representor => "representor",
            Self::SubInterface => "vlan",
            Self::Other => "other",
        }
    }
}

/// A devlink port with a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevlinkPort {
    /// The interface.
    pub dev: IfIndex,
    /// The devlink handle of its instance, `pci/0000:03:00.0`.
    pub handle: Box<str>,
    /// What it is.
    pub role: PortRole,
}

/// A devlink instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevlinkInstance {
    /// Its handle, `pci/0000:03:00.0`.
    pub handle: Box<str>,
    /// The driver's name (`DEVLINK_ATTR_INFO_DRIVER_NAME`), where it says it.
    pub driver: Option<Box<str>>,
    /// `switchdev` mode (`true`) or `legacy` (`false`); `None` without an eswitch.
    pub switchdev: Option<bool>,
}

/// A port's `hw-tc-offload` feature (`ethtool -k`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcOffloadFeature {
    /// On.
    pub on: bool,
    /// It can be changed.
    pub changeable: bool,
}

/// What the kernel does with packets that come in by a link, or `all` (`RTM_NEWNETCONF`). Neither alone says what
/// counts: see [`OffloadEvent::ConfAll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkConf {
    /// The family.
    pub family: Family,
    /// `forwarding`.
    pub forwarding: Option<bool>,
    /// `rp_filter`: 0 off, 1 strict, 2 loose; IPv4 only.
    pub rp_filter: Option<u8>,
}

/// A qdisc of kind `clsact` or `ingress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngressQdisc {
    /// Its link.
    pub dev: IfIndex,
    /// `clsact`, which is what we make; else `ingress`.
    pub clsact: bool,
    /// The shared block of its ingress side.
    pub block: Option<NonZeroU32>,
}

/// What a route of the kernel that is not ours does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ForeignKind {
    /// `local`, `broadcast`, `anycast` or `multicast`: to this host.
    Local,
    /// Unicast without gateway over one link: a connected subnet, or an address told to be on it.
    OnLink(IfIndex),
    /// Unicast in any other way.
    Unicast,
    /// `blackhole`, `unreachable`, `prohibit`: dropped by the kernel, perhaps with a word.
    Discard,
    /// `throw`: the lookup goes on in the next table.
    Throw,
}

/// A route of the kernel that neither we nor FRR have written: connected, DHCP, router advertisement, by hand.
/// Ordered by key, then as the kernel prefers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ForeignRoute {
    /// Its key.
    pub key: RouteKey,
    /// `RTA_PRIORITY`.
    pub metric: u32,
    /// `rtm_tos`, which makes a route of its own.
    pub tos: u8,
    /// `rtm_protocol`.
    pub protocol: u8,
    /// What it does.
    pub kind: ForeignKind,
    /// Tells apart routes that are else the same (`fe80::/64` of every link, default routes of two routers): a number made
    /// of links, gateways, next-hop object and source prefix. It has no other meaning.
    pub way: u64,
}

/// A rule of `ip rule` that is none of the kernel's own three (local, main, default) or the l3mdev rule; or the want of the latter,
/// or its place behind `main`, as a result of which packets in a VRF are not looked up in its table first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// The family.
    pub family: Family,
    /// Its preference.
    pub preference: u32,
    /// Which packets it may be about.
    pub scope: PolicyScope,
}

/// Packets that a rule of `ip rule` may be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyScope {
    /// Any.
    All,
    /// Those that come in by a link (`iif`), or that a VRF device has.
    Link(IfName),
    /// Those in a VRF.
    Vrfs,
}

/// Something that may drop or rewrite packets which the kernel forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketFilter {
    /// The families that it sees: IPv4, IPv6.
    pub families: [bool; 2],
    /// In words, as in `nftables chain inet filter forward`.
    pub name: Box<str>,
}

/// What the engine is told about hardware and what bears on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OffloadEvent {
    /// What became of ops.
    Outcomes(Vec<RuleOutcome>),
    /// All devlink instances and ports, after each change of one of them.
    Devlink {
        /// The instances.
        instances: Vec<DevlinkInstance>,
        /// Their ports with an interface in this network namespace.
        ports: Vec<DevlinkPort>,
    },
    /// A port's `hw-tc-offload`.
    Feature(IfIndex, TcOffloadFeature),
    /// A link's configuration. What is absent in it has not changed.
    Conf(IfIndex, LinkConf),
    /// The configuration of `all`, likewise. IPv4 forwards by what the link says and takes the larger `rp_filter` of link
    /// and `all`; IPv6 forwards by what `all` says, whatever the link says (seen on Linux 6.18).
    ConfAll(LinkConf),
    /// An ingress qdisc appeared or changed.
    Qdisc(IngressQdisc),
    /// A link lost its ingress qdisc.
    QdiscGone(IfIndex),
    /// All ingress qdiscs.
    Qdiscs(Vec<IngressQdisc>),
    /// A rule appeared or changed by somebody else's hand.
    Rule(Box<ObservedRule>),
    /// A rule was removed by somebody else.
    RuleGone(RulePlace),
    /// All rules of a priority were removed by somebody else. A flush of a chain or block is one of these a priority.
    PrioGone {
        /// The block.
        block: Block,
        /// The chain.
        chain: Chain,
        /// The priority.
        prio: Prio,
    },
    /// A part of all flower rules of a block; `last` closes the list.
    Rules {
        /// The block.
        block: Block,
        /// Some of the rules.
        rules: Vec<ObservedRule>,
        /// Whether the list is complete now.
        last: bool,
    },
    /// A foreign route appeared or was told again.
    Foreign(ForeignRoute),
    /// A foreign route took the place of the one with its key, metric and TOS.
    ForeignReplaced(ForeignRoute),
    /// A foreign route is gone.
    ForeignGone(ForeignRoute),
    /// A part of the complete list of foreign routes; `last` closes it.
    Foreigns {
        /// Some of them.
        routes: Vec<ForeignRoute>,
        /// Whether the list is complete now.
        last: bool,
    },
    /// All rules of `ip rule` that matter, after each change of any.
    PolicyRules(Vec<PolicyRule>),
    /// All that may drop or rewrite forwarded packets, after each change of it.
    PacketFilters(Vec<PacketFilter>),
    /// The kernel dropped notifications; the list of qdiscs follows. Rules are to be asked for, block by block: only a dump
    /// by the writer is in order with our own writes.
    Overrun,
    /// A dump failed and should be asked for again.
    DumpFailed(Errno),
}

/// A write to tc or a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOp {
    /// Comes back in the outcome.
    pub ticket: Ticket,
    /// What to do.
    pub kind: RuleOpKind,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleOpKind {
    /// `RTM_NEWTFILTER`: with `NLM_F_CREATE | NLM_F_EXCL`, or for `replace` over the rule of that handle, in place.
    Put {
        /// Where.
        place: RulePlace,
        /// What.
        rule: Box<FlowerRule>,
        /// Whether a rule of ours is there.
        replace: bool,
    },
    /// `RTM_DELTFILTER` by handle; absent is success.
    Delete {
        /// Which.
        place: RulePlace,
        /// The protocol of its priority.
        protocol: EtherProto,
    },
    /// `RTM_NEWQDISC`: `clsact` on a link, its ingress bound to a block.
    AddQdisc {
        /// The link.
        dev: IfIndex,
        /// The block to bind.
        block: Option<NonZeroU32>,
    },
    /// `RTM_DELQDISC` of a link's `clsact`; absent is `EINVAL`.
    DeleteQdisc {
        /// The link.
        dev: IfIndex,
    },
    /// `ethtool -K DEV hw-tc-offload on`.
    SwitchOnFeature {
        /// The link.
        dev: IfIndex,
    },
    /// Read back the rules of a block, after all writes before it.
    DumpRules(Block),
    /// Read back all ingress qdiscs.
    DumpQdiscs,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOutcome {
    /// Of which op.
    pub ticket: Ticket,
    /// What the kernel echoed (`NLM_F_ECHO`): of a rule, whether it is in hardware, else nothing.
    pub result: Result<InHardware, Refusal>,
}
