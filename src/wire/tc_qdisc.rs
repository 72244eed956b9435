//! Ingress qdiscs: `clsact` as we make it, with or without a shared block, and what the kernel says of anybody's.
//!
//! Qdiscs of other kinds, which every port has on its egress side, are passed over. A block can't be changed in place: the
//! kernel wants the qdisc deleted and made again. Format: `linux/pkt_sched.h`, `TCA_INGRESS_BLOCK`.

use std::num::NonZeroU32;

use super::netlink::{Envelope, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use super::tc::{
    CLSACT_HANDLE, Nest, RTM_DELQDISC, RTM_GETQDISC, RTM_NEWQDISC, TC_H_CLSACT, TCA_INGRESS_BLOCK,
    TCA_KIND, TcMsg, text,
};
use crate::model::{IfIndex, IngressQdisc};

const CLSACT: &[u8] = b"clsact\0";
const ATTRIBUTES: usize = 32;

const fn on(dev: IfIndex) -> TcMsg {
    TcMsg {
        ifindex: dev.get(),
        handle: CLSACT_HANDLE,
        parent: TC_H_CLSACT,
        info: 0,
    }
}

/// Makes a `clsact`, its ingress bound to a block.
pub fn encode_add_qdisc(envelope: Envelope<'_>, dev: IfIndex, block: Option<NonZeroU32>) {
    let mut message = envelope.request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL);
    message.fixed(&on(dev).encode());
    message.attr(TCA_KIND, CLSACT);
    if let Some(block) = block {
        message.attr_u32(TCA_INGRESS_BLOCK, block.get());
    }
    message.finish();
}

/// Deletes a `clsact`. In its place an `ingress`, or nothing, is `EINVAL`: the kernel (6.12) looks at kind and handle first.
pub fn encode_delete_qdisc(envelope: Envelope<'_>, dev: IfIndex) {
    let mut message = envelope.request(RTM_DELQDISC, 0);
    message.fixed(&on(dev).encode());
    message.attr(TCA_KIND, CLSACT);
    message.finish();
}

/// Asks for the qdiscs of all links.
pub fn encode_qdisc_dump(envelope: Envelope<'_>) {
    let mut message = envelope.request(RTM_GETQDISC, NLM_F_DUMP);
    message.fixed(&TcMsg::default().encode());
    message.finish();
}

/// Reads a qdisc of a dump or notification; `None` for other kinds than `clsact` and `ingress`.
pub fn decode_qdisc(payload: &[u8]) -> Option<IngressQdisc> {
    let (header, attributes) = TcMsg::decode(payload)?;
    let mut attributes = Nest::<ATTRIBUTES>::parse(attributes);
    let clsact = match text(attributes.take(TCA_KIND)?) {
        b"clsact" => true,
        b"ingress" => false,
        _ => return None,
    };
    Some(IngressQdisc {
        dev: IfIndex::new(header.ifindex)?,
        clsact,
        block: attributes.u32(TCA_INGRESS_BLOCK).and_then(NonZeroU32::new),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::netlink::Messages;

    proptest! {
        #[test]
        fn what_we_make_reads_back(dev in 1u32.., block: u32) {
            let qdisc = IngressQdisc { dev: IfIndex::new(dev).unwrap(), clsact: true, block: NonZeroU32::new(block) };
            let mut buffer = Vec::new();
            encode_add_qdisc(Envelope { buffer: &mut buffer, seq: 1 }, qdisc.dev, qdisc.block);
            let message = Messages::new(&buffer).next().unwrap().unwrap();
            prop_assert_eq!(decode_qdisc(message.payload), Some(qdisc));
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _: Option<IngressQdisc> = decode_qdisc(&bytes);
        }
    }
}
