//! An answer of the northbound gRPC: the same from a slice and from a reader, and bounded.
#![no_main]

use frr_offload::wire::northbound::decode_answer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let whole = decode_answer(&mut serde_json::Deserializer::from_slice(text));
    let read = decode_answer(&mut serde_json::Deserializer::from_reader(text));
    if let Ok(table) = &whole {
        // The shortest route that is kept.
        assert!(table.routes.len() <= text.len() / 60);
        assert_eq!(read.ok().as_ref(), Some(table));
    } else {
        assert!(read.is_err());
    }
});
