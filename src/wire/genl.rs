//! Generic netlink: a family's number and multicast groups by name, and the header that all its messages have.
//!
//! Follows `linux/genetlink.h`. Knows no family but the controller; `devlink` and `ethtool` are beside it.

use super::netlink::{Attributes, Envelope, MessageBuilder, NLM_F_ACK, as_u32, until_nul};

/// `sizeof(struct genlmsghdr)`: command, version, two unused bytes.
pub const GENL_HEADER_LEN: usize = 4;
/// `GENL_ID_CTRL`.
pub const GENL_ID_CTRL: u16 = 16;

const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_VERSION: u8 = 1;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

/// A family as the kernel numbers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenlFamily {
    /// `nlmsg_type` of its messages.
    pub id: u16,
    groups: Vec<(Box<str>, u32)>,
}

impl GenlFamily {
    /// The number of a multicast group.
    pub fn group(&self, name: &str) -> Option<u32> {
        let found = self.groups.iter().find(|(group, _)| **group == *name);
        found.map(|(_, number)| *number)
    }
}

/// Asks for a family by name; a kernel that lacks it answers `ENOENT`.
pub fn encode_get_family(envelope: Envelope<'_>, name: &str) {
    let mut message = request(
        envelope,
        GENL_ID_CTRL,
        NLM_F_ACK,
        CTRL_CMD_GETFAMILY,
        CTRL_VERSION,
    );
    attr_text(&mut message, CTRL_ATTR_FAMILY_NAME, name);
    message.finish();
}

/// Reads the answer.
pub fn decode_family(payload: &[u8]) -> Option<GenlFamily> {
    let (mut id, mut groups) = (None, Vec::new());
    for attribute in Attributes::new(payload.get(GENL_HEADER_LEN..)?) {
        match attribute.ok()? {
            (CTRL_ATTR_FAMILY_ID, value) => id = Some(u16::from_ne_bytes(value.try_into().ok()?)),
            (CTRL_ATTR_MCAST_GROUPS, value) => {
                for group in Attributes::new(value) {
                    groups.push(decode_group(group.ok()?.1)?);
                }
            }
            _ => {}
        }
    }
    Some(GenlFamily { id: id?, groups })
}

/// Starts a request to a family.
pub(super) fn request(
    envelope: Envelope<'_>,
    family: u16,
    flags: u16,
    command: u8,
    version: u8,
) -> MessageBuilder<'_> {
    let mut message = envelope.request(family, flags);
    message.fixed(&[command, version, 0, 0]);
    message
}

/// The command of a message and what follows the header.
pub(super) fn split(payload: &[u8]) -> Option<(u8, Attributes<'_>)> {
    let attributes = payload.get(GENL_HEADER_LEN..)?;
    Some((payload[0], Attributes::new(attributes)))
}

/// Appends a string attribute, which ends in a zero byte.
pub(super) fn attr_text(message: &mut MessageBuilder<'_>, kind: u16, value: &str) {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    message.attr(kind, &bytes);
}

/// A string attribute.
pub(super) fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(until_nul(bytes)).into()
}

fn decode_group(bytes: &[u8]) -> Option<(Box<str>, u32)> {
    let (mut name, mut number) = (None, None);
    for attribute in Attributes::new(bytes) {
        match attribute.ok()? {
            (CTRL_ATTR_MCAST_GRP_NAME, value) => name = Some(text(value)),
            (CTRL_ATTR_MCAST_GRP_ID, value) => number = as_u32(value),
            _ => {}
        }
    }
    Some((name?, number?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::{MessageBuilder, Messages};

    #[test]
    fn a_family_is_found_with_its_groups() {
        let mut buffer = Vec::new();
        let mut message = MessageBuilder::new(&mut buffer, GENL_ID_CTRL, 0, 1);
        message.fixed(&[1, 2, 0, 0]);
        attr_text(&mut message, CTRL_ATTR_FAMILY_NAME, "devlink");
        message.attr(CTRL_ATTR_FAMILY_ID, &22u16.to_ne_bytes());
        message.nested(CTRL_ATTR_MCAST_GROUPS, |message| {
            for (at, name) in [(1, "config"), (2, "other")] {
                message.nested(at, |message| {
                    message.attr_u32(CTRL_ATTR_MCAST_GRP_ID, 4 + u32::from(at));
                    attr_text(message, CTRL_ATTR_MCAST_GRP_NAME, name);
                });
            }
        });
        message.finish();
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        let family = decode_family(message.payload).unwrap();
        assert_eq!(family.id, 22);
        assert_eq!(family.group("config"), Some(5));
        assert_eq!(family.group("monitor"), None);
        for cut in 0..message.payload.len() {
            let _: Option<GenlFamily> = decode_family(&message.payload[..cut]);
        }
    }

    #[test]
    fn a_family_is_asked_for_by_name() {
        let mut buffer = Vec::new();
        let envelope = Envelope {
            buffer: &mut buffer,
            seq: 1,
        };
        encode_get_family(envelope, "devlink");
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        assert_eq!((message.kind, message.payload[0]), (16, 3));
        assert_eq!(&message.payload[4..], b"\x0c\0\x02\0devlink\0");
    }
}
