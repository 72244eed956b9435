//! Many requests in one send, answers matched by sequence number.
//!
//! The kernel handles every message of a send before `send` returns, also those behind a failing one. A failing message is
//! answered even without `NLM_F_ACK`, in order; so only the last asks for an acknowledgement, and when that has come every
//! message without an error before it was done. An answer takes 832 bytes of the (doubled) receive buffer: with at most
//! [`MAX_MESSAGES`] a send, `ENOBUFS` can't happen even at the default size; should it happen, the answers are lost and
//! [`ExchangeError::Lost`] says that nobody knows; one by one ([`Batch::singles`]) nothing can get lost. 32-128 messages a send are twice as fast as one; more only adds delay.
//!
//! Knows no routes: messages come in encoded. Format: `linux/netlink.h`, extended acknowledgements since Linux 4.12.

use std::io;
use std::time::Duration;

use nix::errno::Errno as OsErrno;
use thiserror::Error;

use super::socket::{RtnlSocket, Wait, errno};
use crate::model::{Errno, Refusal};
use crate::wire::netlink::{
    Attributes, Envelope, HEADER_LEN, Message, Messages, NLM_F_ACK, align, u16_at, u32_at,
};

/// The most messages in one send.
pub const MAX_MESSAGES: usize = 128;
/// A batch over this is full (the default send buffer takes 104 kB and refuses 260 kB).
const MAX_BYTES: usize = 64 << 10;

const NLMSG_ERROR: u16 = 2;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const FLAGS_AT: usize = 6;
const SEQ_AT: usize = 8;
/// Longer than any lock that the kernel has been seen to hold (1.7 s while a large table grows).
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests to be sent together.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    last_at: usize,
    len: usize,
}

impl Batch {
    /// Appends what `encode` writes: exactly one message.
    pub fn push(&mut self, encode: impl FnOnce(Envelope<'_>)) {
        self.last_at = self.bytes.len();
        encode(Envelope {
            buffer: &mut self.bytes,
            seq: self.len as u32,
        });
        self.len += 1;
    }

    /// How many messages there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it must be sent before more is added.
    pub const fn is_full(&self) -> bool {
        self.len >= MAX_MESSAGES || self.bytes.len() >= MAX_BYTES
    }

    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.last_at, self.len) = (0, 0);
    }

    /// Its messages as batches of one.
    pub fn singles(&self) -> impl Iterator<Item = Self> {
        Messages::new(&self.bytes)
            .map_while(Result::ok)
            .map(|message| Self {
                bytes: self.bytes[message.offset..][..HEADER_LEN + message.payload.len()].to_vec(),
                last_at: 0,
                len: 1,
            })
    }

    /// Numbers the messages from `first` and lets the last one ask for an acknowledgement.
    fn address(&mut self, first: u32) {
        let mut at = 0;
        for index in 0..self.len as u32 {
            let seq = first.wrapping_add(index);
            self.bytes[at + SEQ_AT..at + SEQ_AT + 4].copy_from_slice(&seq.to_ne_bytes());
            at += align(u32_at(&self.bytes, at).unwrap_or(0) as usize);
        }
        let flags = u16_at(&self.bytes, self.last_at + FLAGS_AT).unwrap_or(0) | NLM_F_ACK;
        let at = self.last_at + FLAGS_AT;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }
}

/// Why a batch has no answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ExchangeError {
    /// The kernel took nothing of it.
    #[error("the batch could not be sent: {0}")]
    NotSent(Errno),
    /// It was sent, but what became of it is not known.
    #[error("the answers are lost: {0}")]
    Lost(Errno),
}

/// A socket that requests go out on.
#[derive(Debug)]
pub struct BatchSocket {
    socket: RtnlSocket,
    next_seq: u32,
}

impl BatchSocket {
    /// Opens a socket with this receive buffer.
    pub fn open(receive_buffer: usize) -> io::Result<Self> {
        Self::over(RtnlSocket::open(receive_buffer)?)
    }

    /// Opens a socket for generic netlink.
    pub fn open_generic(receive_buffer: usize) -> io::Result<Self> {
        Self::over(RtnlSocket::generic(receive_buffer)?)
    }

    fn over(socket: RtnlSocket) -> io::Result<Self> {
        socket.set_timeout(ACK_TIMEOUT)?;
        Ok(Self {
            socket,
            next_seq: 1,
        })
    }

    /// The netlink port that notifications of what this socket wrote bear.
    pub fn port(&self) -> io::Result<u32> {
        self.socket.port()
    }

    /// Sends one request and waits for its end; `on_reply` gets what it asked for.
    pub fn request(
        &mut self,
        encode: impl FnOnce(Envelope<'_>),
        on_reply: impl FnMut(&Message<'_>),
    ) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        batch.push(encode);
        only(self.exchange(&mut batch, on_reply))
    }

    /// Sends a batch and waits until all of it is answered. The refused messages come back by their index; `on_reply` gets
    /// what a request asked for, with its index as `seq`. The batch is as before and can be sent again.
    pub fn exchange(
        &mut self,
        batch: &mut Batch,
        mut on_reply: impl FnMut(&Message<'_>),
    ) -> Result<Vec<(usize, Refusal)>, ExchangeError> {
        let mut refused = Vec::new();
        if batch.is_empty() {
            return Ok(refused);
        }
        let first = self.next_seq;
        self.next_seq = first.wrapping_add(batch.len() as u32);
        batch.address(first);
        self.socket
            .send(&batch.bytes)
            .map_err(|error| ExchangeError::NotSent(errno(&error)))?;
        loop {
            let datagram = match self.socket.receive(Wait::Block) {
                Ok(datagram) => datagram,
                Err(error) => {
                    self.socket.drain();
                    return Err(ExchangeError::Lost(errno(&error)));
                }
            };
            for message in Messages::new(datagram).map_while(Result::ok) {
                let index = message.seq.wrapping_sub(first) as usize;
                if index >= batch.len() {
                    // An answer to a batch whose answers were given up.
                    continue;
                }
                if message.kind != NLMSG_ERROR {
                    on_reply(&Message {
                        seq: index as u32,
                        ..message
                    });
                    continue;
                }
                if let Some(refusal) = refusal(&message) {
                    refused.push((index, refusal));
                }
                if index + 1 == batch.len() {
                    return Ok(refused);
                }
            }
        }
    }
}

/// The answer to a batch of one.
pub(super) fn only(result: Result<Vec<(usize, Refusal)>, ExchangeError>) -> Result<(), Refusal> {
    match result {
        Ok(refused) => refused
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, refusal)| Err(refusal)),
        Err(ExchangeError::NotSent(errno) | ExchangeError::Lost(errno)) => Err(errno.into()),
    }
}

/// Whether a refusal is of this kind.
pub(super) fn is(refusal: &Refusal, code: OsErrno) -> bool {
    refusal.errno.0 == code as i32
}

/// What an `NLMSG_ERROR` says; `None` for an acknowledgement.
pub(super) fn refusal(message: &Message<'_>) -> Option<Refusal> {
    let code = u32_at(message.payload, 0).unwrap_or(0).cast_signed();
    (code != 0).then(|| Refusal {
        errno: Errno(code.saturating_neg()),
        text: ext_ack_text(message),
    })
}

/// `NLMSGERR_ATTR_MSG`, behind the request's header or (not capped) the whole request.
fn ext_ack_text(message: &Message<'_>) -> Option<Box<str>> {
    const CODE_LEN: usize = 4;
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = if message.flags & NLM_F_CAPPED == 0 {
        align(u32_at(message.payload, CODE_LEN)? as usize)
    } else {
        HEADER_LEN
    };
    let attributes = message.payload.get(CODE_LEN + request..)?;
    Attributes::new(attributes).find_map(|attribute| match attribute {
        Ok((NLMSGERR_ATTR_MSG, text)) => {
            let text = text.strip_suffix(&[0]).unwrap_or(text);
            Some(String::from_utf8_lossy(text).into())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noop(envelope: Envelope<'_>) {
        envelope.request(1, 0).finish();
    }

    #[test]
    fn messages_are_numbered_and_only_the_last_asks_for_an_answer() {
        let mut batch = Batch::default();
        for _ in 0..3 {
            batch.push(noop);
        }
        batch.address(u32::MAX);
        let read: Vec<_> = Messages::new(&batch.bytes)
            .map(|message| message.map(|m| (m.seq, m.flags & NLM_F_ACK != 0)).unwrap())
            .collect();
        assert_eq!(read, [(u32::MAX, false), (0, false), (1, true)]);
    }

    #[test]
    fn a_batch_is_full_by_count_or_by_size() {
        let mut batch = Batch::default();
        for _ in 0..MAX_MESSAGES {
            assert!(!batch.is_full());
            batch.push(noop);
        }
        assert!(batch.is_full());
        batch.clear();
        assert!(batch.is_empty() && !batch.is_full());
        batch.push(|envelope| {
            let mut message = envelope.request(1, 0);
            message.fixed(&vec![0; MAX_BYTES]);
            message.finish();
        });
        assert!(batch.is_full());
    }

    fn answer(flags: u16, payload: &[u8]) -> Option<Refusal> {
        refusal(&Message {
            offset: 0,
            kind: NLMSG_ERROR,
            flags,
            seq: 0,
            pid: 0,
            payload,
        })
    }

    #[test]
    fn the_kernels_words_are_found_capped_or_not() {
        let text = [8, 0, 1, 0, b'b', b'a', b'd', 0];
        let mut payload = (-22i32).to_ne_bytes().to_vec();
        payload.extend(20u32.to_ne_bytes());
        payload.extend([0; 12]);
        let capped = [&payload[..], &text].concat();
        let whole = [&payload[..], &[7; 4], &text].concat();
        let bad = Some(Refusal {
            errno: Errno(22),
            text: Some("bad".into()),
        });
        assert_eq!(answer(NLM_F_ACK_TLVS | NLM_F_CAPPED, &capped), bad);
        assert_eq!(answer(NLM_F_ACK_TLVS, &whole), bad);
        assert_eq!(answer(0, &payload).unwrap().text, None);
        assert_eq!(answer(0, &[0; 20]), None);
    }
}
