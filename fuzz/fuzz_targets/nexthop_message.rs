//! The payload of a next-hop message.
#![no_main]

use frr_offload::wire::rtnl_nexthop::decode_nexthop;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    for add in [true, false] {
        if let Ok(nexthop) = decode_nexthop(add, payload) {
            assert_eq!(nexthop.content.is_some(), add);
        }
    }
});
