//! The payload of a route message, as every sender may mean it.
#![no_main]

use frr_offload::wire::rtnl_route::{Dialect, RouteView, decode_common_route, decode_route};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let Some(view) = RouteView::parse(payload) else {
        return;
    };
    if let Some(route) = decode_common_route(payload) {
        assert_eq!(decode_route(true, &view, Dialect::Unknown), Ok(route));
    }
    for add in [true, false] {
        let dialect = Dialect::Unknown.observe(add, 0x401, &view);
        if let Ok(route) = decode_route(add, &view, dialect) {
            assert_eq!(route.path.is_some(), add);
        }
    }
});
