//! The payload of a protobuf frame: what has no fault has a prefix, and no more hops than bytes.
#![no_main]

use frr_offload::model::RouteKind;
use frr_offload::wire::fpm_pb::{PbMessage, decode_protobuf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let Ok(PbMessage::Route(route)) = decode_protobuf(payload) else {
        return;
    };
    assert!(route.hops.len() <= payload.len() / 2);
    if route.fault.is_none() {
        assert!(route.prefix.is_some());
        assert!(route.kind != Some(RouteKind::Unicast) || !route.hops.is_empty());
    }
});
