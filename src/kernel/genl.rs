//! Generic netlink: families have names, and numbers only until the next boot.
//! Knows no family; a request goes alone and is waited for. Format: `linux/genetlink.h`.

use std::io;

use nix::errno::Errno as OsErrno;

use super::batch::{Batch, BatchSocket, ExchangeError};
use crate::model::{Errno, Refusal};
use crate::wire::netlink::{Attributes, Envelope, Message};

/// `GENL_ID_CTRL`: the family that knows the others.
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_VERSION: u8 = 2;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const GENL_HEADER_LEN: usize = 4;
const RECEIVE_BUFFER: usize = 64 << 10;

/// A socket for requests.
#[derive(Debug)]
pub(super) struct GenlSocket(BatchSocket);

impl GenlSocket {
    /// Opens a socket.
    pub(super) fn open() -> io::Result<Self> {
        BatchSocket::open_generic(RECEIVE_BUFFER).map(Self)
    }

    /// The number of a family. The kernel loads the module that has it.
    pub(super) fn family(&mut self, name: &str) -> Result<u16, Refusal> {
        let mut id = None;
        self.request(
            |envelope| {
                let mut message = envelope.request(GENL_ID_CTRL, 0);
                message.fixed(&[CTRL_CMD_GETFAMILY, CTRL_VERSION, 0, 0]);
                message.attr(CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), &[0]].concat());
                message.finish();
            },
            |message| id = decode_family(message.payload),
        )?;
        id.ok_or(Refusal {
            errno: Errno(OsErrno::ENOENT as i32),
            text: None,
        })
    }

    /// Sends a request and waits for its acknowledgement; `on_reply` gets what it asked for.
    pub(super) fn request(
        &mut self,
        encode: impl FnOnce(Envelope<'_>),
        on_reply: impl FnMut(&Message<'_>),
    ) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        batch.push(encode);
        match self.0.exchange(&mut batch, on_reply) {
            Ok(refused) => refused
                .into_iter()
                .next()
                .map_or(Ok(()), |(_, refusal)| Err(refusal)),
            Err(ExchangeError::NotSent(errno) | ExchangeError::Lost(errno)) => {
                Err(Refusal { errno, text: None })
            }
        }
    }
}

fn decode_family(payload: &[u8]) -> Option<u16> {
    Attributes::new(payload.get(GENL_HEADER_LEN..)?)
        .map_while(Result::ok)
        .find_map(|(kind, id)| {
            let id = (kind == CTRL_ATTR_FAMILY_ID).then_some(id)?;
            Some(u16::from_ne_bytes(id.try_into().ok()?))
        })
}
