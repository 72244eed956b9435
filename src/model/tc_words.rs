//! Rules in the words of `tc` (tc-flower(8), tc-pedit(8), tc-vlan(8)), for people and for `plan`.
//!
//! ```text
//! tc filter add block 7 protocol ip prio 77 chain 2 handle 1 flower dst_ip 10.1.2.0/24 action goto chain 4
//!                       `protocol`                                  `matches`                 `actions`
//! ```
//!
//! What is shown can be typed in again (iproute2 6.1 was asked, `tests/vm_flower.rs`), hence the order (`vlan_ethtype` before
//! addresses, `ip_proto` before ports) and the hexadecimal masks. One thing `tc` does not take: an address under a mask with
//! gaps, which ECMP buckets have. Knows no names of links; the caller's function looks them up.

use super::ip_words::Verb;
use super::{
    Block, Chain, EtherProto, Family, FlowerRule, Handle, IfIndex, IfName, Masked, PortMatch, Prio,
    RuleAction, RuleMatch, Runs,
};

/// A rule in tc's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleWords {
    /// What stands behind `protocol`.
    pub protocol: &'static str,
    /// What stands behind `flower`; empty when everything matches.
    pub matches: String,
    /// What stands behind `action`.
    pub actions: String,
}

impl FlowerRule {
    /// The rule in tc's words.
    pub fn words(&self, name_of: &dyn Fn(IfIndex) -> IfName) -> RuleWords {
        let actions = self.actions.iter().map(|action| action.words(name_of));
        RuleWords {
            protocol: self.protocol.word(),
            matches: self.matches.words(),
            actions: actions.collect::<Vec<_>>().join(" pipe "),
        }
    }

    /// What stands behind `handle` when it is put: flags, matches, and the actions with our mark. tc gives the cookie of the
    /// first action to those behind it too, which nobody reads.
    fn typed(&self, name_of: &dyn Fn(IfIndex) -> IfName) -> String {
        let mut text = match self.runs {
            Runs::Hardware => "flower skip_sw",
            Runs::Software => "flower skip_hw",
            Runs::Either => "flower",
        }
        .to_owned();
        let matches = self.matches.words();
        if !matches.is_empty() {
            text += &format!(" {matches}");
        }
        let cookie = u128::from_be_bytes(self.cookie.0);
        let last = self.actions.len().saturating_sub(1);
        for (n, action) in self.actions.iter().enumerate() {
            let action_word = if n == 0 { " action" } else { "" };
            text += &format!("{action_word} {}", action.words(name_of));
            if n < last {
                text += " pipe";
            }
            if n == 0 {
                text += &format!(" cookie {cookie:032x}");
            }
        }
        text
    }
}

/// Where a rule stands, for a command. Without a handle the kernel chooses one.
#[derive(Debug, Clone, Copy)]
pub struct RuleAt {
    /// The block.
    pub block: Block,
    /// The chain.
    pub chain: Chain,
    /// The priority.
    pub prio: Prio,
    /// The handle, once there is one.
    pub handle: Option<Handle>,
}

/// `tc filter add|replace|del`.
pub fn rule_command(
    verb: Verb,
    at: RuleAt,
    rule: &FlowerRule,
    name_of: &dyn Fn(IfIndex) -> IfName,
) -> String {
    let RuleAt {
        block,
        chain,
        prio,
        handle,
    } = at;
    let block = match block {
        Block::Port(dev) => format!("dev {} ingress", name_of(dev)),
        Block::Shared(number) => format!("block {number}"),
    };
    let handle = handle.map(|handle| format!(" handle {handle}"));
    let rest = match verb {
        Verb::Add | Verb::Replace => rule.typed(name_of),
        Verb::Delete => "flower".to_owned(),
    };
    format!(
        "tc filter {} {block} chain {chain} protocol {} prio {prio}{} {rest}",
        verb.word(),
        rule.protocol.word(),
        handle.unwrap_or_default()
    )
}

impl EtherProto {
    /// tc's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ipv6",
            Self::Vlan => "802.1Q",
        }
    }
}

impl RuleMatch {
    /// Whether `tc` takes [`Self::words`].
    pub fn is_typeable(&self) -> bool {
        [self.src, self.dst]
            .iter()
            .flatten()
            .all(|masked| match *masked {
                Masked::V4 { mask, .. } => mask.leading_ones() == mask.count_ones(),
                Masked::V6 { mask, .. } => mask.leading_ones() == mask.count_ones(),
            })
    }

    /// tc's words, as in `dst_ip 10.0.0.0/8 ip_ttl 0/0xfe`.
    pub fn words(&self) -> String {
        let Self {
            indev,
            dst_mac,
            vlan,
            src,
            dst,
            ttl,
            tos,
            ip_proto,
            src_port,
            dst_port,
            icmp_type,
        } = self;
        let carries = vlan.and_then(|vlan| vlan.carries).map(EtherProto::of);
        let words = [
            indev.as_ref().map(|name| format!("indev {name}")),
            vlan.and_then(|vlan| vlan.id)
                .map(|id| format!("vlan_id {id}")),
            carries.map(|carries| format!("vlan_ethtype {}", carries.word())),
            dst_mac.map(|mac| format!("dst_mac {mac}")),
            src.map(|addr| format!("src_ip {addr}")),
            dst.map(|addr| format!("dst_ip {addr}")),
            ttl.map(|ttl| format!("ip_ttl {}", masked_byte(ttl))),
            tos.map(|tos| format!("ip_tos {}", masked_byte(tos))),
            ip_proto.map(|proto| format!("ip_proto {}", ip_proto_word(proto))),
            src_port.map(|port| format!("src_port {}", port_words(port))),
            dst_port.map(|port| format!("dst_port {}", port_words(port))),
            icmp_type.map(|number| format!("type {number}")),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

impl RuleAction {
    /// tc's words, without `action` before and `pipe` behind.
    pub fn words(self, name_of: &dyn Fn(IfIndex) -> IfName) -> String {
        match self {
            Self::PopVlan => "vlan pop".to_owned(),
            Self::PushVlan(id) => format!("vlan push id {id} protocol 802.1Q"),
            Self::ModifyVlan(id) => format!("vlan modify id {id} protocol 802.1Q"),
            Self::Rewrite {
                src,
                dst,
                hop_limit,
            } => {
                let hop_limit = match hop_limit {
                    None => "",
                    Some(Family::V4) => " munge ip ttl dec",
                    Some(Family::V6) => " munge ip6 hoplimit dec",
                };
                format!("pedit ex munge eth dst set {dst} munge eth src set {src}{hop_limit}")
            }
            Self::CsumIpv4 => "csum ip".to_owned(),
            Self::Redirect(dev) => format!("mirred egress redirect dev {}", name_of(dev)),
            Self::Goto(chain) => format!("goto chain {chain}"),
            Self::Drop => "drop".to_owned(),
            Self::Trap => "trap".to_owned(),
            Self::Pass => "pass".to_owned(),
        }
    }
}

fn masked_byte((bits, mask): (u8, u8)) -> String {
    match mask {
        u8::MAX => bits.to_string(),
        _ => format!("{bits}/{mask:#x}"),
    }
}

/// A number is taken for hexadecimal by tc, with or without the prefix.
fn ip_proto_word(proto: u8) -> String {
    let name = match proto {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "icmpv6",
        132 => "sctp",
        other => return format!("{other:#x}"),
    };
    name.to_owned()
}

fn port_words(port: PortMatch) -> String {
    match port {
        PortMatch::Range(from, to) => format!("{from}-{to}"),
        PortMatch::Masked(bits, u16::MAX) => bits.to_string(),
        PortMatch::Masked(bits, mask) => format!("{bits}/{mask:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Chain, Cookie, Masked, Runs, VlanMatch};

    fn name_of(dev: IfIndex) -> IfName {
        format!("p{dev}").into()
    }

    #[test]
    fn a_hop_reads_as_it_would_be_typed() {
        let rule = FlowerRule {
            protocol: EtherProto::Ipv4,
            matches: RuleMatch {
                dst: Some(Masked::prefix("10.0.0.0/8".parse().unwrap())),
                ttl: Some((0, 0xfe)),
                ..RuleMatch::default()
            },
            actions: [
                RuleAction::Rewrite {
                    src: "02:00:00:00:00:01".parse().unwrap(),
                    dst: "02:00:00:00:00:02".parse().unwrap(),
                    hop_limit: Some(Family::V4),
                },
                RuleAction::CsumIpv4,
                RuleAction::Redirect(IfIndex::new(3).unwrap()),
            ]
            .into(),
            runs: Runs::Hardware,
            cookie: Cookie([0; 16]),
        };
        assert_eq!(
            rule.words(&name_of),
            RuleWords {
                protocol: "ip",
                matches: "dst_ip 10.0.0.0/8 ip_ttl 0/0xfe".to_owned(),
                actions: "pedit ex munge eth dst set 02:00:00:00:00:02 munge eth src set 02:00:00:00:00:01 \
                          munge ip ttl dec pipe csum ip pipe mirred egress redirect dev p3"
                    .to_owned(),
            }
        );
    }

    // Both texts were typed into tc (iproute2 6.1, Linux 6.12), which took them and showed the same cookies.
    #[test]
    fn a_command_has_place_flags_and_our_mark() {
        let rewrite = RuleAction::Rewrite {
            src: "02:00:00:00:00:01".parse().unwrap(),
            dst: "02:00:00:00:00:02".parse().unwrap(),
            hop_limit: Some(Family::V4),
        };
        let redirect = RuleAction::Redirect(IfIndex::new(3).unwrap());
        let rule = FlowerRule {
            protocol: EtherProto::Ipv4,
            matches: RuleMatch::default(),
            actions: [rewrite, RuleAction::CsumIpv4, redirect].into(),
            runs: Runs::Software,
            cookie: Cookie([0xc0; 16]),
        };
        let at = RuleAt {
            block: Block::Port(IfIndex::new(2).unwrap()),
            chain: Chain::new(4).unwrap(),
            prio: Prio::new(7).unwrap(),
            handle: Handle::new(18),
        };
        assert_eq!(
            rule_command(Verb::Add, at, &rule, &name_of),
            "tc filter add dev p2 ingress chain 4 protocol ip prio 7 handle 0x12 flower skip_hw \
             action pedit ex munge eth dst set 02:00:00:00:00:02 munge eth src set 02:00:00:00:00:01 munge ip ttl dec pipe \
             cookie c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0 csum ip pipe mirred egress redirect dev p3"
        );
        let shared = RuleAt {
            block: Block::Shared(std::num::NonZeroU32::new(7).unwrap()),
            handle: None,
            ..at
        };
        let drop = FlowerRule {
            matches: RuleMatch {
                dst: Some(Masked::prefix("10.0.0.0/8".parse().unwrap())),
                ..RuleMatch::default()
            },
            actions: [RuleAction::Drop].into(),
            runs: Runs::Hardware,
            ..rule
        };
        assert_eq!(
            rule_command(Verb::Replace, shared, &drop, &name_of),
            "tc filter replace block 7 chain 4 protocol ip prio 7 flower skip_sw dst_ip 10.0.0.0/8 \
             action drop cookie c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0"
        );
        assert_eq!(
            rule_command(Verb::Delete, at, &drop, &name_of),
            "tc filter del dev p2 ingress chain 4 protocol ip prio 7 handle 0x12 flower"
        );
    }

    #[test]
    fn masks_with_gaps_are_not_tcs() {
        let matches = |src| RuleMatch {
            src: Some(src),
            ..RuleMatch::default()
        };
        for (src, typeable) in [
            (Masked::v4(1, 1), false),
            (Masked::v6(0, 3), false),
            (Masked::v4(0x0a00_0000, 0xff00_0000), true),
            (Masked::prefix("2001:db8::1/128".parse().unwrap()), true),
            (Masked::v4(0, 0), true),
        ] {
            assert_eq!(matches(src).is_typeable(), typeable, "{src}");
        }
    }

    #[test]
    fn every_match_has_its_word_and_nothing_has_none() {
        assert_eq!(RuleMatch::default().words(), "");
        let all = RuleMatch {
            indev: Some("pf0vf2".into()),
            dst_mac: Some("02:00:00:00:00:09".parse().unwrap()),
            vlan: Some(VlanMatch {
                id: Some(5),
                carries: Some(Family::V4),
            }),
            src: Some(Masked::v4(1, 1)),
            dst: Some(Masked::prefix("10.1.2.3/32".parse().unwrap())),
            ttl: Some((1, 0xff)),
            tos: Some((184, 0xfc)),
            ip_proto: Some(17),
            src_port: Some(PortMatch::Masked(1024, 0xfc00)),
            dst_port: Some(PortMatch::Range(22, 23)),
            icmp_type: None,
        };
        assert_eq!(
            all.words(),
            "indev pf0vf2 vlan_id 5 vlan_ethtype ip dst_mac 02:00:00:00:00:09 src_ip 0.0.0.1/0.0.0.1 \
             dst_ip 10.1.2.3/32 ip_ttl 1 ip_tos 184/0xfc ip_proto udp src_port 1024/0xfc00 dst_port 22-23"
        );
        let echo = RuleMatch {
            src: Some(Masked::prefix("2001:db8::/32".parse().unwrap())),
            ip_proto: Some(58),
            icmp_type: Some(128),
            ..RuleMatch::default()
        };
        assert_eq!(
            echo.words(),
            "src_ip 2001:db8::/32 ip_proto icmpv6 type 128"
        );
        assert_eq!(ip_proto_word(47), "0x2f");
        assert_eq!(port_words(PortMatch::Masked(179, 0xffff)), "179");
    }

    #[test]
    fn tags_and_verdicts_are_tcs_words() {
        for (action, words) in [
            (RuleAction::PopVlan, "vlan pop"),
            (RuleAction::PushVlan(9), "vlan push id 9 protocol 802.1Q"),
            (
                RuleAction::ModifyVlan(9),
                "vlan modify id 9 protocol 802.1Q",
            ),
            (RuleAction::Goto(Chain::new(5).unwrap()), "goto chain 5"),
            (RuleAction::Drop, "drop"),
            (RuleAction::Trap, "trap"),
            (RuleAction::Pass, "pass"),
        ] {
            assert_eq!(action.words(&name_of), words);
        }
    }
}
