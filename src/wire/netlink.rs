//! Netlink messages and attributes as borrowed bytes, and a builder that writes them into a send buffer.
//!
//! No allocation a message and no knowledge of what the attributes mean; the `rtnl_*` files know that. Lengths are
//! checked here once: an iterator never reads past its slice and always moves on, whatever the bytes say.
//! Formats: `linux/netlink.h`, `linux/rtnetlink.h` (host byte order, 4-byte alignment).

use thiserror::Error;

/// `sizeof(struct nlmsghdr)`.
pub const HEADER_LEN: usize = 16;
const ATTR_HEADER_LEN: usize = 4;
/// Masks `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` off an attribute type: zebra sends `RTA_MULTIPATH` as 0x8009.
pub const NLA_TYPE_MASK: u16 = 0x3fff;
/// `NLA_F_NESTED`, which newer families insist on.
pub const NLA_F_NESTED: u16 = 0x8000;

/// `NLM_F_REQUEST`.
pub const NLM_F_REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub const NLM_F_ACK: u16 = 0x4;
/// `NLM_F_ECHO`: answer with what was made of the request.
pub const NLM_F_ECHO: u16 = 0x8;
/// `NLM_F_REPLACE`.
pub const NLM_F_REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub const NLM_F_EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const NLM_F_CREATE: u16 = 0x400;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const NLM_F_DUMP: u16 = 0x300;

/// Rounds up to the netlink alignment.
pub const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// A netlink message whose bytes are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Fewer bytes than a header.
    #[error("{0} bytes are left, too few for a netlink header")]
    Truncated(usize),
    /// `nlmsg_len` below the header's size or over what is there.
    #[error("netlink message length {len} does not fit the {left} bytes that are left")]
    Length {
        /// The length in the header.
        len: usize,
        /// What there is.
        left: usize,
    },
}

/// One netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Where it starts in the buffer that was given.
    pub offset: usize,
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// `nlmsg_pid`.
    pub pid: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages in a buffer; ends after the first error, and at zeroes too few for a header.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    buffer: &'a [u8],
    offset: usize,
}

impl<'a> Messages<'a> {
    /// Over a whole buffer.
    pub const fn new(buffer: &'a [u8]) -> Self {
        Self { buffer, offset: 0 }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.buffer.get(offset..).filter(|rest| !rest.is_empty())?;
        self.offset = self.buffer.len();
        if rest.len() < HEADER_LEN {
            // A sender may fill its frames up; no message begins with zeroes.
            let padding = rest.iter().all(|byte| *byte == 0);
            return (!padding).then_some(Err(MessageError::Truncated(rest.len())));
        }
        let len = u32_at(rest, 0).unwrap_or(0) as usize;
        if len < HEADER_LEN || len > rest.len() {
            return Some(Err(MessageError::Length {
                len,
                left: rest.len(),
            }));
        }
        self.offset = offset + align(len);
        Some(Ok(Message {
            offset,
            kind: u16_at(rest, 4).unwrap_or(0),
            flags: u16_at(rest, 6).unwrap_or(0),
            seq: u32_at(rest, 8).unwrap_or(0),
            pid: u32_at(rest, 12).unwrap_or(0),
            payload: &rest[HEADER_LEN..len],
        }))
    }
}

/// An attribute: its type without the flag bits, and its payload.
pub type Attribute<'a> = (u16, &'a [u8]);

/// An attribute whose length lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an attribute's length does not fit")]
pub struct AttributeError;

/// The attributes in a slice; ends after the first error.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Over what follows a message's fixed part, or over a nested attribute's payload.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, AttributeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        if rest.is_empty() {
            return None;
        }
        let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) else {
            self.0 = &[];
            return Some(Err(AttributeError));
        };
        let len = len as usize;
        if len < ATTR_HEADER_LEN || len > rest.len() {
            self.0 = &[];
            return Some(Err(AttributeError));
        }
        self.0 = rest.get(align(len)..).unwrap_or(&[]);
        Some(Ok((kind & NLA_TYPE_MASK, &rest[ATTR_HEADER_LEN..len])))
    }
}

/// A native-endian `u16`.
#[inline]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A native-endian `u32`.
#[inline]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A whole attribute payload that must be a `u32`.
#[inline]
pub fn as_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The bytes of a string attribute, which ends in a zero byte.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
}

/// Where the next message goes, and the sequence number that its answer will bear.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The send buffer.
    pub buffer: &'a mut Vec<u8>,
    /// `nlmsg_seq`.
    pub seq: u32,
}

impl<'a> Envelope<'a> {
    /// Starts a request of this type; `flags` are added to `NLM_F_REQUEST`.
    pub fn request(self, kind: u16, flags: u16) -> MessageBuilder<'a> {
        MessageBuilder::new(self.buffer, kind, NLM_F_REQUEST | flags, self.seq)
    }
}

/// Appends a message to a send buffer; lengths are filled in when it is finished.
#[derive(Debug)]
pub struct MessageBuilder<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> MessageBuilder<'a> {
    /// Starts a message.
    pub fn new(buffer: &'a mut Vec<u8>, kind: u16, flags: u16, seq: u32) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&flags.to_ne_bytes());
        buffer.extend_from_slice(&seq.to_ne_bytes());
        buffer.extend_from_slice(&[0; 4]);
        Self { buffer, start }
    }

    /// Appends the message's fixed part (`rtmsg`, `ndmsg`, ...).
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    #[inline]
    pub fn attr(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let len = (ATTR_HEADER_LEN + payload.len()) as u16;
        self.buffer.extend_from_slice(&len.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(payload);
        self.pad();
        self
    }

    /// Appends a `u32` attribute.
    #[inline]
    pub fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute whose payload `fill` writes with this same builder.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        self.set_u16_len(at);
        self
    }

    /// Appends a `struct rtnexthop` (length, flags, hops, ifindex) and the attributes that `fill` writes.
    pub fn rtnexthop(
        &mut self,
        flags: u8,
        hops: u8,
        ifindex: u32,
        fill: impl FnOnce(&mut Self),
    ) -> &mut Self {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&[0, 0, flags, hops]);
        self.buffer.extend_from_slice(&ifindex.to_ne_bytes());
        fill(self);
        self.set_u16_len(at);
        self
    }

    /// Fills the length in.
    pub fn finish(self) {
        let len = (self.buffer.len() - self.start) as u32;
        self.buffer[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    fn set_u16_len(&mut self, at: usize) {
        let len = (self.buffer.len() - at) as u16;
        self.buffer[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn pad(&mut self) {
        while self.buffer.len() % 4 != self.start % 4 {
            self.buffer.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_messages_read_back() {
        let mut buffer = Vec::new();
        let mut message = MessageBuilder::new(&mut buffer, 24, 5, 7);
        message
            .fixed(&[2, 24, 0, 0])
            .attr(1, &[10, 0, 0])
            .attr_u32(4, 9);
        message.nested(9, |m| {
            m.rtnexthop(4, 0, 2, |m| {
                m.attr(5, &[1, 2, 3, 4]);
            });
        });
        message.finish();
        let read: Vec<_> = Messages::new(&buffer).collect::<Result<_, _>>().unwrap();
        assert_eq!((read[0].kind, read[0].flags, read[0].seq), (24, 5, 7));
        let attrs: Vec<_> = Attributes::new(&read[0].payload[4..])
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(attrs[0], (1, &[10u8, 0, 0][..]));
        assert_eq!(as_u32(attrs[1].1), Some(9));
        assert_eq!(attrs[2].1.len(), 16);
    }

    #[test]
    fn lying_lengths_end_the_iteration() {
        for bytes in [&[255u8, 255, 1, 0][..], &[3, 0, 1, 0], &[4], &[]] {
            assert!(Attributes::new(bytes).count() <= 1);
        }
        assert!(matches!(
            Messages::new(&[9; 20]).next(),
            Some(Err(MessageError::Length { .. }))
        ));
        assert_eq!(Messages::new(&[9; 20]).count(), 1);
    }
}
