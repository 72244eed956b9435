//! What filters or rewrites packets that the kernel forwards: base chains of nftables (`NFT_MSG_GETCHAIN` over nfnetlink), and
//! the tables of `x_tables`, the older iptables, which say no more than their names. Reading only; follows
//! `linux/netfilter/nfnetlink.h` and `nf_tables.h`. Numbers in attributes are big-endian here.
//!
//! A forwarded packet passes the hooks prerouting, forward and postrouting. A chain there filters nothing if its policy is
//! accept and it has no rule, which is what iptables-nft leaves behind; any other may drop, rewrite or track what it sees. No
//! rule is read for that: the use count of a base chain, which nothing can jump to, is the number of its rules (seen on Linux
//! 6.18). Not told apart: a dormant table is taken for an active one. Chains of a device (ingress) and of bridges are
//! passed over.

use super::genl::text;
use super::netlink::{Attributes, Envelope, NLM_F_DUMP};
use crate::model::{Family, PacketFilter};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// `NFT_MSG_NEWCHAIN`, as a message type.
pub const NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 3;
const GETCHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 4;
/// `NFT_MSG_NEWGEN`, as a message type: once a transaction, after it.
pub const NEWGEN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 15;

/// `struct nfgenmsg`: family, version, two bytes that are of no interest here.
const NFGENMSG_LEN: usize = 4;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_HOOK_HOOKNUM: u16 = 1;

const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_FORWARD: u32 = 2;
const NF_INET_POST_ROUTING: u32 = 4;
const NF_ACCEPT: u32 = 1;

/// Asks for all chains of all families.
pub fn encode_chain_dump(envelope: Envelope<'_>) {
    let mut message = envelope.request(GETCHAIN, NLM_F_DUMP);
    message.fixed(&[0; NFGENMSG_LEN]);
    message.finish();
}

/// Reads a chain; `None` for one that lets all forwarded packets through untouched. Without a use count, which old kernels
/// might not tell, it is taken to have rules.
pub fn decode_chain(payload: &[u8]) -> Option<PacketFilter> {
    let (word, families) = match *payload.first()? {
        NFPROTO_INET => ("inet", [true, true]),
        NFPROTO_IPV4 => ("ip", [true, false]),
        NFPROTO_IPV6 => ("ip6", [false, true]),
        _ => return None,
    };
    let (mut table, mut name) = (Box::default(), Box::default());
    let (mut hook, mut accepts, mut rules) = (None, true, true);
    for attribute in Attributes::new(payload.get(NFGENMSG_LEN..)?) {
        match attribute.ok()? {
            (NFTA_CHAIN_TABLE, value) => table = text(value),
            (NFTA_CHAIN_NAME, value) => name = text(value),
            (NFTA_CHAIN_HOOK, value) => hook = hook_number(value),
            (NFTA_CHAIN_POLICY, value) => accepts = number(value) == Some(NF_ACCEPT),
            (NFTA_CHAIN_USE, value) => rules = number(value) != Some(0),
            _ => {}
        }
    }
    let sees = matches!(
        hook?,
        NF_INET_PRE_ROUTING | NF_INET_FORWARD | NF_INET_POST_ROUTING
    );
    (sees && (!accepts || rules)).then(|| PacketFilter {
        families,
        name: format!("nftables chain {word} {table} {name}").into(),
    })
}

/// Reads `/proc/net/ip_tables_names` or its IPv6 sister: the tables that are loaded, a line each. Whether they have rules
/// is not said, so each is taken to have some.
pub fn decode_legacy_tables(names: &str, family: Family) -> impl Iterator<Item = PacketFilter> {
    let command = match family {
        Family::V4 => "iptables-legacy",
        Family::V6 => "ip6tables-legacy",
    };
    names.lines().map(move |table| PacketFilter {
        families: [family == Family::V4, family == Family::V6],
        name: format!("{command} table {table} (loaded; its rules can't be seen)").into(),
    })
}

fn hook_number(hook: &[u8]) -> Option<u32> {
    Attributes::new(hook)
        .map_while(Result::ok)
        .find_map(|(kind, value)| (kind == NFTA_HOOK_HOOKNUM).then(|| number(value))?)
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(hex: &str) -> Option<(Box<str>, [bool; 2])> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<_> = (0..hex.len()).step_by(2).map(byte).collect();
        for cut in 0..bytes.len() {
            let _: Option<PacketFilter> = decode_chain(&bytes[..cut]);
        }
        decode_chain(&bytes).map(|filter| (filter.name, filter.families))
    }

    // The bytes are answers of Linux 6.18 to chains made by nft and iptables-nft.

    #[test]
    fn a_policy_or_a_rule_filters() {
        // type filter hook forward, policy drop, no rule.
        let dropping = "0100000506000100660000000c000300666f7277617264000c00020000000000000000011400040008000100000000020\
                        80002000000000008000500000000000b00070066696c746572000008000a00000000010800060000000000";
        assert_eq!(
            decode(dropping),
            Some(("nftables chain inet f forward".into(), [true, true]))
        );
        // ip6tables-nft -A FORWARD -j DROP, policy accept.
        let rule = "0a00000b0b00010066696c74657200000c000300464f5257415244000c0002000000000000000001140004000800010000000\
                    002080002000000000008000500000000010b00070066696c746572000008000a00000000010800060000000001";
        assert_eq!(
            decode(rule),
            Some(("nftables chain ip6 filter FORWARD".into(), [false, true]))
        );
        // iptables-nft -t nat -A POSTROUTING -j MASQUERADE
        let nat = "0200000b080001006e61740010000300504f5354524f5554494e47000c00020000000000000000011400040008000100000000\
                   0408000200000000640800050000000001080007006e61740008000a00000000010800060000000001";
        assert_eq!(
            decode(nat),
            Some(("nftables chain ip nat POSTROUTING".into(), [true, false]))
        );
    }

    #[test]
    fn what_lets_all_through_does_not() {
        for chain in [
            // What iptables-nft leaves behind: FORWARD, policy accept, no rule.
            "020000090b00010066696c74657200000c000300464f5257415244000c0002000000000000000002140004000800010000000002080002\
             000000000008000500000000010b00070066696c746572000008000a00000000010800060000000000",
            // A chain at no hook, with a rule.
            "0100000506000100660000000a0003006f746865720000000c00020000000000000000020800060000000001",
            // netdev ingress, policy drop.
            "0500000e060001006e00000006000300630000000c00020000000000000000012800040008000100000000000800020000000000\
             0c000400070001006c6f0000070003006c6f000008000500000000010b00070066696c746572000008000a00000000010800060000000000",
            // bridge, hook forward, policy drop.
            "0700000f060001006e00000006000300630000000c00020000000000000000011400040008000100000000020800020000000000080005\
             00000000000b00070066696c746572000008000a00000000010800060000000000",
        ] {
            assert_eq!(decode(chain), None, "{chain}");
        }
    }

    #[test]
    fn a_table_of_the_older_iptables_is_named() {
        let found: Vec<_> = decode_legacy_tables("nat\nfilter\n", Family::V6).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(
            &*found[1].name,
            "ip6tables-legacy table filter (loaded; its rules can't be seen)"
        );
        assert_eq!(found[1].families, [false, true]);
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _: Option<PacketFilter> = decode_chain(&bytes);
        }
    }
}
