//! [`FpmError`]: why a stream of frames can't be trusted, or is not wanted. Judges nothing; the decoder and the connection do.

use thiserror::Error;

use crate::wire::fpm_pb::NotProtobuf;
use crate::wire::netlink::MessageError;

/// Why a connection can't go on. Offsets count from the connection's first byte and point to the frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FpmError {
    /// Not FPM at all, or a version that does not exist.
    #[error("offset {offset}: FPM version is {found}, not 1")]
    Version {
        /// Where.
        offset: u64,
        /// The version byte.
        found: u8,
    },
    /// FRR's `zebra_fpm:protobuf`: never installed, see [`crate::wire::fpm_pb`].
    #[error(
        "offset {offset}: FPM protobuf can't be installed, since it names no table and no weight and cuts IPv6 next hops of \
         IPv4 routes to four bytes; start zebra with -M dplane_fpm_nl (decode shows what is in it)"
    )]
    Protobuf {
        /// Where.
        offset: u64,
    },
    /// A frame of that type with something else in it.
    #[error("offset {offset}: {error}")]
    NotProtobuf {
        /// Where.
        offset: u64,
        /// How.
        error: NotProtobuf,
    },
    /// Neither netlink nor protobuf.
    #[error("offset {offset}: FPM message type {found} is unknown")]
    Type {
        /// Where.
        offset: u64,
        /// The type byte.
        found: u8,
    },
    /// A length that does not even hold the header.
    #[error("offset {offset}: FPM frame length {len} is below its header's 4 bytes")]
    Length {
        /// Where.
        offset: u64,
        /// The length in the header.
        len: u16,
    },
    /// A netlink message that does not fit its frame.
    #[error("offset {offset}: {error}")]
    Message {
        /// Where.
        offset: u64,
        /// How.
        error: MessageError,
    },
    /// The stream ended inside a frame.
    #[error("offset {offset}: the stream ends {have} bytes into a frame")]
    Truncated {
        /// Where.
        offset: u64,
        /// What is there of the frame.
        have: usize,
    },
}

impl FpmError {
    /// Where in the stream.
    pub const fn offset(&self) -> u64 {
        match *self {
            Self::Version { offset, .. }
            | Self::Protobuf { offset }
            | Self::NotProtobuf { offset, .. }
            | Self::Type { offset, .. }
            | Self::Length { offset, .. }
            | Self::Message { offset, .. }
            | Self::Truncated { offset, .. } => offset,
        }
    }
}
