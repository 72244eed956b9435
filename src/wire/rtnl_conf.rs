//! How the kernel treats packets before and beside routes: `RTM_NEWNETCONF` (forwarding, reverse-path filter) and
//! `RTM_NEWRULE` (`ip rule`). Reading only; follows `linux/netconf.h` and `linux/fib_rules.h`.
//!
//! What a link's own values mean depends on those of `all`, which is why both are handed on. The `force_forwarding` of
//! IPv6 (Linux 6.17) is not in these messages (seen on 6.18): such a link reads as not forwarding.

use super::genl::text;
use super::kernel_route::af;
use super::netlink::{Attributes, Envelope, NLM_F_DUMP, as_u32, u32_at};
use super::rtnl_route::{AF_INET, AF_INET6};
use crate::model::{Family, IfIndex, LinkConf, OffloadEvent, PolicyRule, PolicyScope, TableId};

/// `RTM_NEWNETCONF`.
pub const RTM_NEWNETCONF: u16 = 80;
const RTM_GETNETCONF: u16 = 82;
/// `RTM_NEWRULE`.
pub const RTM_NEWRULE: u16 = 32;
/// `RTM_DELRULE`.
pub const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;

/// `struct netconfmsg` is one byte, padded.
const NETCONFMSG_LEN: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_IFINDEX_ALL: u32 = u32::MAX;
const NETCONFA_IFINDEX_DEFAULT: u32 = u32::MAX - 1;

const FIB_RULE_HDR_LEN: usize = 12;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PAD: u16 = 18;
const FRA_L3MDEV: u16 = 19;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;
const PLAIN_TABLES: std::ops::RangeInclusive<u32> = 253..=255;

/// Asks for the configuration of all links of a family, of `all` and of `default`.
pub fn encode_conf_dump(envelope: Envelope<'_>, family: Family) {
    let mut message = envelope.request(RTM_GETNETCONF, NLM_F_DUMP);
    message.fixed(&[af(family)]);
    message.finish();
}

/// Reads a configuration; `None` for `default`, which new links begin with.
pub fn decode_conf(payload: &[u8]) -> Option<OffloadEvent> {
    let family = family_of(*payload.first()?)?;
    let mut conf = LinkConf {
        family,
        forwarding: None,
        rp_filter: None,
    };
    let mut index = None;
    for attribute in Attributes::new(payload.get(NETCONFMSG_LEN..)?) {
        match attribute.ok()? {
            (NETCONFA_IFINDEX, value) => index = as_u32(value),
            (NETCONFA_FORWARDING, value) => conf.forwarding = Some(as_u32(value)? != 0),
            (NETCONFA_RP_FILTER, value) => conf.rp_filter = u8::try_from(as_u32(value)?).ok(),
            _ => {}
        }
    }
    match index? {
        NETCONFA_IFINDEX_ALL => Some(OffloadEvent::ConfAll(conf)),
        NETCONFA_IFINDEX_DEFAULT => None,
        index => Some(OffloadEvent::Conf(IfIndex::new(index)?, conf)),
    }
}

/// Asks for all rules of all families.
pub fn encode_rule_dump(envelope: Envelope<'_>) {
    let mut message = envelope.request(RTM_GETRULE, NLM_F_DUMP);
    message.fixed(&[0; FIB_RULE_HDR_LEN]);
    message.finish();
}

/// A rule as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedRule {
    /// One that every kernel has, at whatever preference: `from all lookup` local, main or default.
    Plain(Family, TableId),
    /// `from all lookup [l3mdev-table]`, which the kernel makes for the first VRF.
    L3mdev(Family),
    /// One of somebody.
    Policy(PolicyRule),
}

/// What matters of rules that are listed in their order.
pub fn policy_rules(listed: Vec<ListedRule>) -> Vec<PolicyRule> {
    let l3mdev_is_first = |of: Family| {
        let main = ListedRule::Plain(of, TableId::MAIN);
        let l3mdev = ListedRule::L3mdev(of);
        let mut both = listed.iter().filter(|rule| [&main, &l3mdev].contains(rule));
        both.next() == Some(&l3mdev)
    };
    let without = [Family::V4, Family::V6].into_iter();
    let without = without.filter(|family| !l3mdev_is_first(*family));
    let mut rules: Vec<_> = without
        .map(|family| PolicyRule {
            family,
            preference: 0,
            scope: PolicyScope::Vrfs,
        })
        .collect();
    rules.extend(listed.into_iter().filter_map(|rule| match rule {
        ListedRule::Policy(rule) => Some(rule),
        ListedRule::Plain(..) | ListedRule::L3mdev(_) => None,
    }));
    rules
}

/// Reads a rule; `None` for those of multicast routing. What is unknown in a rule makes it one that matters.
pub fn decode_rule(payload: &[u8]) -> Option<ListedRule> {
    let header: &[u8; FIB_RULE_HDR_LEN] = payload.first_chunk()?;
    let family = family_of(header[0])?;
    let mut rule = PolicyRule {
        family,
        preference: 0,
        scope: PolicyScope::All,
    };
    let flags = u32_at(header, 8)?;
    let [_, dst_len, src_len, tos, table, _, _, action, ..] = *header;
    let mut plain = (dst_len, src_len, tos) == (0, 0, 0)
        && action == FR_ACT_TO_TBL
        && flags & FIB_RULE_INVERT == 0;
    let (mut table, mut l3mdev) = (u32::from(table), false);
    for attribute in Attributes::new(&payload[FIB_RULE_HDR_LEN..]) {
        match attribute.ok()? {
            (FRA_PRIORITY, value) => rule.preference = as_u32(value)?,
            (FRA_TABLE, value) => table = as_u32(value)?,
            (FRA_L3MDEV, value) => l3mdev = value == [1],
            (FRA_IIFNAME, value) => {
                rule.scope = PolicyScope::Link(text(value));
                plain = false;
            }
            // -1, which is always there, suppresses nothing.
            (FRA_SUPPRESS_PREFIXLEN, value) => plain &= as_u32(value) == Some(u32::MAX),
            (FRA_PAD | FRA_PROTOCOL, _) => {}
            _ => plain = false,
        }
    }
    Some(match plain {
        true if l3mdev => ListedRule::L3mdev(family),
        true if PLAIN_TABLES.contains(&table) => ListedRule::Plain(family, TableId(table)),
        _ => ListedRule::Policy(rule),
    })
}

const fn family_of(af: u8) -> Option<Family> {
    match af {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex
            .bytes()
            .map(|b| (b as char).to_digit(16).unwrap() as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    // The bytes are answers of Linux 6.12 and 6.18.

    #[test]
    fn a_link_and_all_are_told_apart() {
        let link = "020000000800010003000000080002000100000008000300020000000800040000000000080008000000000008000500\
                    000000000800060000000000";
        let conf = LinkConf {
            family: Family::V4,
            forwarding: Some(true),
            rp_filter: Some(2),
        };
        assert_eq!(
            decode_conf(&bytes(link)),
            Some(OffloadEvent::Conf(IfIndex::new(3).unwrap(), conf))
        );
        let v6 = |index| {
            format!(
                "0a00000008000100{index}ffffff0800020000000000080004000000000008000500000000000800060000000000"
            )
        };
        let all = LinkConf {
            family: Family::V6,
            forwarding: Some(false),
            rp_filter: None,
        };
        assert_eq!(
            decode_conf(&bytes(&v6("ff"))),
            Some(OffloadEvent::ConfAll(all))
        );
        assert_eq!(decode_conf(&bytes(&v6("fe"))), None);
    }

    const LOCAL: &str = "02000000ff0000010000000008000f00ff00000008000e00ffffffff0500150002000000";
    const MAIN: &str =
        "02000000fe0000010000000008000f00fe00000008000e00ffffffff050015000200000008000600fe7f0000";
    const MAIN6: &str =
        "0a000000fe0000010000000008000f00fe00000008000e00ffffffff050015000200000008000600fe7f0000";
    /// `from all lookup [l3mdev-table]`
    const L3MDEV: &str = "02000000000000010000000008000f000000000008000e00ffffffff050015000200000008000600e80300000500130001000000";
    /// Multicast routing has rules of its own.
    const OF_MULTICAST: &str =
        "80000000fd0000010000000008000f00fd00000008000e00ffffffff050015000200000008000600ff7f0000";

    fn matters(rules: &[&str]) -> Vec<PolicyRule> {
        let rules = rules.iter().filter_map(|rule| decode_rule(&bytes(rule)));
        policy_rules(rules.collect())
    }

    #[test]
    fn the_kernel_s_own_rules_do_not_matter() {
        let l3mdev6 = L3MDEV.replacen("02", "0a", 1);
        let at_first = [LOCAL, L3MDEV, &l3mdev6, MAIN, MAIN6, OF_MULTICAST];
        assert_eq!(matters(&at_first), []);
        // As the kernel's documentation of VRFs wants it.
        assert_eq!(matters(&[L3MDEV, &l3mdev6, LOCAL, MAIN, MAIN6]), []);
    }

    #[test]
    fn it_matters_where_main_is_looked_up_before_a_vrf_s_table() {
        let l3mdev6 = L3MDEV.replacen("02", "0a", 1);
        let [v4, v6] = [Family::V4, Family::V6].map(|family| PolicyRule {
            family,
            preference: 0,
            scope: PolicyScope::Vrfs,
        });
        assert_eq!(matters(&[LOCAL, MAIN, MAIN6]), [v4.clone(), v6.clone()]);
        assert_eq!(matters(&[LOCAL, L3MDEV, MAIN, MAIN6]), [v6]);
        assert_eq!(matters(&[LOCAL, MAIN, L3MDEV, &l3mdev6, MAIN6]), [v4]);
    }

    #[test]
    fn a_rule_of_somebody_matters() {
        // from 10.0.0.0/8 iif p0 lookup 100
        let rule = "02000800640000010000000008000f006400000008000e00ffffffff0500150000000000070003007030000008000600\
                    fd7f0000080002000a000000";
        assert_eq!(
            decode_rule(&bytes(rule)),
            Some(ListedRule::Policy(PolicyRule {
                family: Family::V4,
                preference: 32765,
                scope: PolicyScope::Link("p0".into())
            }))
        );
        // `from all lookup main suppress_prefixlength 0`, and one with an attribute of tomorrow.
        let main = "02000000fe0000010000000008000f00fe00000008000e00";
        for end in ["00000000", "ffffffff080080000a000000"] {
            let rule = decode_rule(&bytes(&format!("{main}{end}")));
            assert!(matches!(rule, Some(ListedRule::Policy(_))), "{rule:?}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _: (Option<OffloadEvent>, Option<ListedRule>) = (decode_conf(&bytes), decode_rule(&bytes));
        }
    }
}
