//! The `hw-tc-offload` feature of a link, read and switched on over ethtool's netlink.
//!
//! Follows the kernel's `Documentation/networking/ethtool-netlink.rst`. Asked without `ETHTOOL_FLAG_COMPACT_BITSETS`, the
//! kernel names each bit (2.7 KiB an answer), so that no table of names is needed. Notifications are compact, always: of
//! them only the link is read, and the features are asked for again. Nests must bear `NLA_F_NESTED`. A feature that can't be switched
//! is not refused: the answer has the bits that came out other than wanted.

use super::genl::{self, request};
use super::netlink::{Attributes, Envelope, MessageBuilder, NLA_F_NESTED, NLM_F_ACK, as_u32};
use crate::model::{IfIndex, TcOffloadFeature};

/// `ETHTOOL_GENL_NAME`.
pub const ETHTOOL_FAMILY: &str = "ethtool";
/// `ETHTOOL_MCGRP_MONITOR_NAME`.
pub const ETHTOOL_GROUP: &str = "monitor";

pub(super) const ETHTOOL_VERSION: u8 = 1;
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_MSG_FEATURES_NTF: u8 = 13;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_HW: u16 = 2;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_FEATURES_NOCHANGE: u16 = 5;
const ETHTOOL_A_BITSET_NOMASK: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;
const FEATURE: &[u8] = b"hw-tc-offload\0";

/// Asks for a link's features.
pub fn encode_get_features(envelope: Envelope<'_>, family: u16, dev: IfIndex) {
    let header = ETHTOOL_A_FEATURES_HEADER;
    about(envelope, family, ETHTOOL_MSG_FEATURES_GET, (header, dev)).finish();
}

/// Switches the feature on.
pub fn encode_feature_on(envelope: Envelope<'_>, family: u16, dev: IfIndex) {
    let header = ETHTOOL_A_FEATURES_HEADER;
    let mut message = about(envelope, family, ETHTOOL_MSG_FEATURES_SET, (header, dev));
    message.nested(NLA_F_NESTED | ETHTOOL_A_FEATURES_WANTED, |m| {
        m.nested(NLA_F_NESTED | ETHTOOL_A_BITSET_BITS, |m| {
            m.nested(NLA_F_NESTED | ETHTOOL_A_BITSET_BITS_BIT, |m| {
                m.attr(ETHTOOL_A_BITSET_BIT_NAME, FEATURE);
                m.attr(ETHTOOL_A_BITSET_BIT_VALUE, &[]);
            });
        });
    });
    message.finish();
}

/// A request about a link, which is named in this attribute.
pub(super) fn about(
    envelope: Envelope<'_>,
    family: u16,
    command: u8,
    (header, dev): (u16, IfIndex),
) -> MessageBuilder<'_> {
    let mut message = request(envelope, family, NLM_F_ACK, command, ETHTOOL_VERSION);
    message.nested(NLA_F_NESTED | header, |message| {
        message.attr_u32(ETHTOOL_A_HEADER_DEV_INDEX, dev.get());
    });
    message
}

/// Whether the answer says that the feature did not come out as wanted.
pub fn came_out_other(payload: &[u8]) -> bool {
    let mut attributes = genl::split(payload).into_iter().flat_map(|(_, rest)| rest);
    attributes.any(|attribute| match attribute {
        Ok((ETHTOOL_A_FEATURES_WANTED, bits)) => listed(bits).is_some(),
        _ => false,
    })
}

/// Reads the answer.
pub fn decode_features(payload: &[u8]) -> Option<TcOffloadFeature> {
    let (mut hw, mut active, mut fixed) = (None, None, false);
    for attribute in genl::split(payload)?.1 {
        match attribute.ok()? {
            (ETHTOOL_A_FEATURES_HW, value) => hw = Some(bit(value)?),
            (ETHTOOL_A_FEATURES_ACTIVE, value) => active = Some(bit(value)?),
            (ETHTOOL_A_FEATURES_NOCHANGE, value) => fixed = bit(value)?,
            _ => {}
        }
    }
    Some(TcOffloadFeature {
        on: active?,
        changeable: hw? && !fixed,
    })
}

/// The link whose features a notification says have changed.
pub fn decode_changed(payload: &[u8]) -> Option<IfIndex> {
    let (command, mut attributes) = genl::split(payload)?;
    if command != ETHTOOL_MSG_FEATURES_NTF {
        return None;
    }
    let header = attributes.find_map(|attribute| match attribute {
        Ok((ETHTOOL_A_FEATURES_HEADER, value)) => Some(value),
        _ => None,
    })?;
    Attributes::new(header).find_map(|attribute| match attribute {
        Ok((ETHTOOL_A_HEADER_DEV_INDEX, value)) => IfIndex::new(as_u32(value)?),
        _ => None,
    })
}

/// Whether the feature is set in a bitset that names its bits. A set without a mask lists only the bits that are set; a
/// set with one lists all that it speaks of, those that are set with a value. `None` for the compact form.
fn bit(bitset: &[u8]) -> Option<bool> {
    let named = Attributes::new(bitset).any(|a| matches!(a, Ok((ETHTOOL_A_BITSET_BITS, _))));
    named.then(|| listed(bitset).unwrap_or(false))
}

/// The feature's value in such a bitset, where it is listed.
fn listed(bitset: &[u8]) -> Option<bool> {
    let (mut listed_is_set, mut bits) = (false, None);
    for attribute in Attributes::new(bitset) {
        match attribute.ok()? {
            (ETHTOOL_A_BITSET_NOMASK, _) => listed_is_set = true,
            (ETHTOOL_A_BITSET_BITS, value) => bits = Some(value),
            _ => {}
        }
    }
    for bit in Attributes::new(bits?) {
        let (mut found, mut set) = (false, listed_is_set);
        for attribute in Attributes::new(bit.ok()?.1) {
            match attribute.ok()? {
                (ETHTOOL_A_BITSET_BIT_NAME, name) => found = name == FEATURE,
                (ETHTOOL_A_BITSET_BIT_VALUE, _) => set = true,
                _ => {}
            }
        }
        if found {
            return Some(set);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::genl::attr_text;
    use crate::wire::netlink::Messages;

    /// One bitset: (attribute, whether it has a mask, names with values).
    type Bits<'a> = (u16, bool, &'a [(&'a str, bool)]);

    fn answer(command: u8, sets: &[Bits<'_>]) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut message = MessageBuilder::new(&mut buffer, 21, 0, 1);
        message.fixed(&[command, 1, 0, 0]);
        message.nested(NLA_F_NESTED | ETHTOOL_A_FEATURES_HEADER, |message| {
            message.attr_u32(ETHTOOL_A_HEADER_DEV_INDEX, 7);
            attr_text(message, 2, "p0");
        });
        for (kind, masked, bits) in sets {
            message.nested(NLA_F_NESTED | kind, |message| {
                if !masked {
                    message.attr(ETHTOOL_A_BITSET_NOMASK, &[]);
                }
                message.attr_u32(2, 64);
                message.nested(NLA_F_NESTED | ETHTOOL_A_BITSET_BITS, |message| {
                    for (at, (name, set)) in bits.iter().enumerate() {
                        message.nested(NLA_F_NESTED | 1, |message| {
                            message.attr_u32(1, at as u32);
                            attr_text(message, ETHTOOL_A_BITSET_BIT_NAME, name);
                            if *set {
                                message.attr(ETHTOOL_A_BITSET_BIT_VALUE, &[]);
                            }
                        });
                    }
                });
            });
        }
        message.finish();
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        message.payload.to_vec()
    }

    fn feature(sets: &[Bits<'_>]) -> Option<TcOffloadFeature> {
        decode_features(&answer(ETHTOOL_MSG_FEATURES_GET, sets))
    }

    #[test]
    fn the_forms_of_the_kernel_are_told_apart() {
        // As Linux 6.12 sends them: HW has a mask, ACTIVE and NOCHANGE have none.
        let tc = "hw-tc-offload";
        let (hw, active, fixed) = (
            ETHTOOL_A_FEATURES_HW,
            ETHTOOL_A_FEATURES_ACTIVE,
            ETHTOOL_A_FEATURES_NOCHANGE,
        );
        let on = feature(&[
            (hw, true, &[("tx-gro", false), (tc, true)]),
            (active, false, &[("tx-gro", false), (tc, false)]),
            (fixed, false, &[("vlan-challenged", false)]),
        ]);
        assert_eq!(
            on,
            Some(TcOffloadFeature {
                on: true,
                changeable: true
            })
        );
        let never = feature(&[
            (hw, true, &[(tc, false)]),
            (active, false, &[("tx-gro", false)]),
        ]);
        assert_eq!(
            never,
            Some(TcOffloadFeature {
                on: false,
                changeable: false
            })
        );
        assert_eq!(feature(&[(hw, true, &[(tc, true)])]), None);
    }

    #[test]
    fn a_feature_is_named_in_the_form_of_the_answer() {
        let mut buffer = Vec::new();
        let envelope = Envelope {
            buffer: &mut buffer,
            seq: 1,
        };
        encode_feature_on(envelope, 20, IfIndex::new(3).unwrap());
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        assert_eq!(message.kind, 20);
        assert!(came_out_other(message.payload));
        let other: Bits<'_> = (ETHTOOL_A_FEATURES_WANTED, true, &[("rx-gro-hw", true)]);
        assert!(!came_out_other(&answer(ETHTOOL_MSG_FEATURES_SET, &[other])));
    }

    #[test]
    fn a_notification_names_its_link() {
        let bytes = answer(ETHTOOL_MSG_FEATURES_NTF, &[]);
        assert_eq!(decode_changed(&bytes), IfIndex::new(7));
        assert_eq!(decode_changed(&answer(ETHTOOL_MSG_FEATURES_GET, &[])), None);
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _: (Option<TcOffloadFeature>, Option<IfIndex>, bool) =
                (decode_features(&bytes), decode_changed(&bytes), came_out_other(&bytes));
        }
    }
}
