//! Decoding FPM streams: ours (`FpmConnection`, to model types) against `netlink-packet-route` on the same bytes.
//! Prints medians and their ratio; asserts nothing about time. `cargo bench --bench decode`

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use frr_offload::wire::fpm::{FpmConnection, FpmError, FrameDecoder, HEADER_LEN};
use frr_offload::wire::netlink::Messages;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;

const ROUNDS: usize = 41;

/// Streams of real FRR: 10 000 routes by next-hop group, and small ones with hops written out.
const STREAMS: [&str; 3] = [
    "frr-10.3-dplane-nhg-10k-routes.fpm",
    "frr-10.7.1-dplane-nonhg-bgp-unnumbered.fpm",
    "frr-10.3-zebrafpm-netlink-bgp-unnumbered.fpm",
];

fn main() {
    println!(
        "{:<46} {:>9} {:>12} {:>12} {:>7}",
        "STREAM", "MESSAGES", "OURS ns/msg", "CRATE ns/msg", "RATIO"
    );
    for name in STREAMS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        let stream = match std::fs::read(&path) {
            Ok(stream) => stream.repeat((1 << 19) / 7000 + 1),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                continue;
            }
        };
        // A small stream is repeated until it is worth measuring; a big one is big enough.
        let stream = &stream[..whole_frames(&stream, 1 << 19)];
        let messages = decode_with_crate(stream);
        // In turns, so that what else the machine does hits both alike.
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..ROUNDS {
            ours.push(time(|| decode_ours(stream)));
            theirs.push(time(|| decode_with_crate(stream)));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let per_message = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(messages);
        println!(
            "{name:<46} {messages:>9} {:>12.1} {:>12.1} {:>6.1}x",
            per_message(ours),
            per_message(theirs),
            theirs.as_secs_f64() / ours.as_secs_f64()
        );
    }
}

/// In reads as the listener does them.
fn decode_ours(stream: &[u8]) -> u32 {
    let mut connection = FpmConnection::new();
    let mut frames = 0;
    for read in stream.chunks(256 * 1024) {
        let result = connection.receive(read, |batch| {
            frames += batch.frames;
            black_box(batch.updates);
        });
        assert_eq!(result, Ok(()));
    }
    frames
}

/// The same framing, so that only the messages are compared.
fn decode_with_crate(stream: &[u8]) -> u32 {
    let mut messages = 0;
    let mut decoder = FrameDecoder::new();
    for read in stream.chunks(256 * 1024) {
        let result = decoder.push::<FpmError>(read, |frame| {
            for message in Messages::new(&frame.bytes[HEADER_LEN..]).flatten() {
                // The crate wants the header, too.
                let start = HEADER_LEN + message.offset;
                let bytes = &frame.bytes[start..start + 16 + message.payload.len()];
                let decoded = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes);
                messages += u32::from(black_box(decoded).is_ok());
            }
            Ok(())
        });
        assert_eq!(result, Ok(()));
    }
    messages
}

fn whole_frames(stream: &[u8], at_most: usize) -> usize {
    let mut end = 0;
    while let Some(&[_, _, high, low]) = stream[end..].first_chunk() {
        let next = end + usize::from(u16::from_be_bytes([high, low]));
        if next > at_most.min(stream.len()) {
            break;
        }
        end = next;
    }
    end
}

fn time(work: impl FnOnce() -> u32) -> Duration {
    let started = Instant::now();
    black_box(work());
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
