//! ethtool's netlink: switching a feature of a link on (`ethtool -K DEV FEATURE on`).
//!
//! The kernel does not refuse a feature that it can't switch: it answers with the bits that came out other than wanted. Nests
//! must have `NLA_F_NESTED` here. Format: `linux/ethtool_netlink.h`, Documentation/networking/ethtool-netlink.rst,
//! since Linux 5.10.

use super::netlink::{Attributes, Envelope, NLA_F_NESTED};
use crate::model::IfIndex;

/// The name of the generic family.
pub const FAMILY: &str = "ethtool";
/// The feature that lets a port take rules.
pub const HW_TC_OFFLOAD: &str = "hw-tc-offload";

/// `sizeof(struct genlmsghdr)`.
const GENL_HEADER_LEN: usize = 4;
const VERSION: u8 = 1;
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// Switches a feature on; `family` is the id of [`FAMILY`].
pub fn encode_feature_on(envelope: Envelope<'_>, family: u16, dev: IfIndex, feature: &str) {
    let mut message = envelope.request(family, 0);
    message.fixed(&[ETHTOOL_MSG_FEATURES_SET, VERSION, 0, 0]);
    message.nested(ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, |m| {
        m.attr_u32(ETHTOOL_A_HEADER_DEV_INDEX, dev.get());
    });
    message.nested(ETHTOOL_A_FEATURES_WANTED | NLA_F_NESTED, |m| {
        m.nested(ETHTOOL_A_BITSET_BITS | NLA_F_NESTED, |m| {
            m.nested(ETHTOOL_A_BITSET_BITS_BIT | NLA_F_NESTED, |m| {
                m.attr(
                    ETHTOOL_A_BITSET_BIT_NAME,
                    &[feature.as_bytes(), &[0]].concat(),
                );
                m.attr(ETHTOOL_A_BITSET_BIT_VALUE, &[]);
            });
        });
    });
    message.finish();
}

/// Whether the answer says that a feature did not come out as wanted.
pub fn came_out_other(payload: &[u8], feature: &str) -> bool {
    let answer = payload.get(GENL_HEADER_LEN..).unwrap_or(&[]);
    inside(answer, ETHTOOL_A_FEATURES_WANTED)
        .flat_map(|wanted| inside(wanted, ETHTOOL_A_BITSET_BITS))
        .flat_map(|bits| inside(bits, ETHTOOL_A_BITSET_BITS_BIT))
        .flat_map(|bit| inside(bit, ETHTOOL_A_BITSET_BIT_NAME))
        .any(|name| name.strip_suffix(&[0]).unwrap_or(name) == feature.as_bytes())
}

/// The attributes of a type.
fn inside(nest: &[u8], wanted: u16) -> impl Iterator<Item = &[u8]> {
    Attributes::new(nest)
        .map_while(Result::ok)
        .filter_map(move |(kind, payload)| (kind == wanted).then_some(payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::netlink::Messages;

    #[test]
    fn a_feature_is_named_in_the_form_of_the_answer() {
        let mut buffer = Vec::new();
        let envelope = Envelope {
            buffer: &mut buffer,
            seq: 1,
        };
        encode_feature_on(envelope, 20, IfIndex::new(3).unwrap(), HW_TC_OFFLOAD);
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        assert_eq!(message.kind, 20);
        assert!(came_out_other(message.payload, HW_TC_OFFLOAD));
        assert!(!came_out_other(message.payload, "rx-gro-hw"));
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _: bool = came_out_other(&bytes, HW_TC_OFFLOAD);
        }
    }
}
