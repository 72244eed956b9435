//! A whole FPM stream: the same in one piece and in small ones, and bounded.
#![no_main]

use frr_offload::wire::fpm::{FpmConnection, FpmError};
use libfuzzer_sys::fuzz_target;

fn receive(stream: &[u8], piece: usize) -> (usize, Result<(), FpmError>) {
    let mut connection = FpmConnection::new();
    let mut updates = 0;
    for bytes in stream.chunks(piece) {
        if let Err(error) = connection.receive(bytes, |batch| updates += batch.updates.len()) {
            return (updates, Err(error));
        }
    }
    (updates, connection.finish())
}

fuzz_target!(|stream: &[u8]| {
    let whole = receive(stream, stream.len().max(1));
    assert!(whole.0 <= stream.len() / 8);
    assert_eq!(receive(stream, 7), whole);
});
