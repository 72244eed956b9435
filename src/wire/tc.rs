//! What all tc messages share: `struct tcmsg`, where a filter or qdisc hangs, and a nest of attributes to be taken apart.
//!
//! Knows no rules (`flower`), no actions (`tc_actions`) and no qdiscs (`tc_qdisc`). Formats: `linux/rtnetlink.h`,
//! `linux/pkt_sched.h`. A filter of a shared block has no link: `tcm_ifindex` is `TCM_IFINDEX_MAGIC_BLOCK` and
//! `tcm_parent` the block. A filter of a port's ingress hangs on its `clsact` by the minor number of the ingress side; on
//! an old `ingress` qdisc by no minor number.

use std::num::NonZeroU32;

use super::netlink::{Attributes, u32_at};
use crate::model::{Block, IfIndex};

/// `RTM_NEWQDISC`.
pub const RTM_NEWQDISC: u16 = 36;
/// `RTM_DELQDISC`.
pub const RTM_DELQDISC: u16 = 37;
/// `RTM_NEWTFILTER`.
pub const RTM_NEWTFILTER: u16 = 44;
/// `RTM_DELTFILTER`.
pub const RTM_DELTFILTER: u16 = 45;
pub(super) const RTM_GETQDISC: u16 = 38;
pub(super) const RTM_GETTFILTER: u16 = 46;

pub(super) const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;
pub(super) const TCA_CHAIN: u16 = 11;
pub(super) const TCA_INGRESS_BLOCK: u16 = 13;

/// `TC_H_CLSACT`: the parent of a `clsact` or `ingress` qdisc.
pub(super) const TC_H_CLSACT: u32 = 0xffff_fff1;
/// The handle of a `clsact` or `ingress` qdisc, and the parent of a filter of the latter.
pub(super) const CLSACT_HANDLE: u32 = 0xffff_0000;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`.
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const TCM_IFINDEX_MAGIC_BLOCK: u32 = u32::MAX;
const TCMSG_LEN: usize = 20;

/// `struct tcmsg` without its family, which is always 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct TcMsg {
    pub(super) ifindex: u32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    pub(super) info: u32,
}

impl TcMsg {
    /// For filters of a block.
    pub(super) const fn of_block(block: Block) -> Self {
        let (ifindex, parent) = match block {
            Block::Port(dev) => (dev.get(), CLSACT_INGRESS),
            Block::Shared(index) => (TCM_IFINDEX_MAGIC_BLOCK, index.get()),
        };
        Self {
            ifindex,
            handle: 0,
            parent,
            info: 0,
        }
    }

    /// The block of a filter; `None` if it hangs where we never look (egress, a class).
    pub(super) fn block(self) -> Option<Block> {
        match (self.ifindex, self.parent) {
            (TCM_IFINDEX_MAGIC_BLOCK, index) => NonZeroU32::new(index).map(Block::Shared),
            (dev, CLSACT_INGRESS | CLSACT_HANDLE) => IfIndex::new(dev).map(Block::Port),
            _ => None,
        }
    }

    pub(super) fn encode(self) -> [u8; TCMSG_LEN] {
        let mut bytes = [0; TCMSG_LEN];
        for (at, value) in [
            (4, self.ifindex),
            (8, self.handle),
            (12, self.parent),
            (16, self.info),
        ] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    /// The fixed part and the attributes behind it.
    pub(super) fn decode(payload: &[u8]) -> Option<(Self, &[u8])> {
        let header = Self {
            ifindex: u32_at(payload, 4)?,
            handle: u32_at(payload, 8)?,
            parent: u32_at(payload, 12)?,
            info: u32_at(payload, 16)?,
        };
        Some((header, payload.get(TCMSG_LEN..)?))
    }
}

/// The attributes of a nest, to be taken one by one. What is damaged, unknown or left over makes it not understood, and
/// does not hurt the rest: the same content with something more is never taken for equal.
#[derive(Debug)]
pub(super) struct Nest<'a, const N: usize> {
    attributes: [Option<&'a [u8]>; N],
    strange: bool,
}

impl<'a, const N: usize> Nest<'a, N> {
    /// Takes attribute types below `N`.
    pub(super) fn parse(bytes: &'a [u8]) -> Self {
        let mut nest = Self {
            attributes: [None; N],
            strange: false,
        };
        for attribute in Attributes::new(bytes) {
            match attribute {
                Ok((kind, payload)) if usize::from(kind) < N => {
                    nest.attributes[usize::from(kind)] = Some(payload);
                }
                _ => nest.strange = true,
            }
        }
        nest
    }

    /// An attribute's payload.
    pub(super) fn take(&mut self, kind: u16) -> Option<&'a [u8]> {
        self.attributes.get_mut(usize::from(kind))?.take()
    }

    /// Takes what says nothing that matters.
    pub(super) fn skip(&mut self, kinds: &[u16]) {
        for kind in kinds {
            self.take(*kind);
        }
    }

    /// An attribute of exactly this length.
    pub(super) fn bytes<const L: usize>(&mut self, kind: u16) -> Option<[u8; L]> {
        let payload = self.take(kind)?;
        let bytes = payload.try_into().ok();
        self.strange |= bytes.is_none();
        bytes
    }

    pub(super) fn u8(&mut self, kind: u16) -> Option<u8> {
        self.bytes(kind).map(u8::from_ne_bytes)
    }

    pub(super) fn u16(&mut self, kind: u16) -> Option<u16> {
        self.bytes(kind).map(u16::from_ne_bytes)
    }

    pub(super) fn be16(&mut self, kind: u16) -> Option<u16> {
        self.bytes(kind).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, kind: u16) -> Option<u32> {
        self.bytes(kind).map(u32::from_ne_bytes)
    }

    /// The caller could make nothing of what it took.
    pub(super) const fn mark_strange(&mut self) {
        self.strange = true;
    }

    /// Whether everything was taken and made sense.
    pub(super) fn understood(&self) -> bool {
        !self.strange && self.attributes.iter().all(Option::is_none)
    }
}

/// A string attribute, with its closing zero or without.
pub(super) fn text(payload: &[u8]) -> &[u8] {
    payload.strip_suffix(&[0]).unwrap_or(payload)
}
