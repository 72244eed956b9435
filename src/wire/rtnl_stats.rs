//! The counters of links: `RTM_GETSTATS`, with the CPU's part of those whose NIC forwards by itself.
//!
//! Follows `linux/if_link.h`. In the nest of `IFLA_STATS_LINK_OFFLOAD_XSTATS` only `IFLA_OFFLOAD_XSTATS_CPU_HIT` is
//! read, which a link has or has not by its driver. `struct rtnl_link_stats64` grew over the years: what there is of it
//! is taken.

use super::netlink::{Attributes, Envelope, NLM_F_DUMP, u32_at};
use crate::model::{IfIndex, LinkCounters, PortReading};

/// `RTM_NEWSTATS`.
pub const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
/// `sizeof(struct if_stats_msg)`: family, three unused bytes, ifindex, filter mask.
const IF_STATS_MSG_LEN: usize = 12;
const IFINDEX_AT: usize = 4;
const FILTER_MASK_AT: usize = 8;
const IFLA_STATS_LINK_64: u16 = 1;
const IFLA_STATS_LINK_OFFLOAD_XSTATS: u16 = 4;
const IFLA_OFFLOAD_XSTATS_CPU_HIT: u16 = 1;

/// `IFLA_STATS_FILTER_BIT`.
const fn filter_bit(attribute: u16) -> u32 {
    1 << (attribute - 1)
}

/// Asks for the counters of all links.
pub fn encode_stats_dump(envelope: Envelope<'_>) {
    let mask = filter_bit(IFLA_STATS_LINK_64) | filter_bit(IFLA_STATS_LINK_OFFLOAD_XSTATS);
    let mut fixed = [0; IF_STATS_MSG_LEN];
    fixed[FILTER_MASK_AT..].copy_from_slice(&mask.to_ne_bytes());
    let mut message = envelope.request(RTM_GETSTATS, NLM_F_DUMP);
    message.fixed(&fixed);
    message.finish();
}

/// Reads the counters of a link.
pub fn decode_stats(payload: &[u8]) -> Option<PortReading> {
    let dev = IfIndex::new(u32_at(payload, IFINDEX_AT)?)?;
    let (mut all, mut cpu) = (None, None);
    for attribute in Attributes::new(payload.get(IF_STATS_MSG_LEN..)?) {
        match attribute.ok()? {
            (IFLA_STATS_LINK_64, value) => all = Some(counters(value)),
            (IFLA_STATS_LINK_OFFLOAD_XSTATS, nest) => {
                for attribute in Attributes::new(nest) {
                    if let (IFLA_OFFLOAD_XSTATS_CPU_HIT, value) = attribute.ok()? {
                        cpu = Some(counters(value));
                    }
                }
            }
            _ => {}
        }
    }
    Some(PortReading {
        dev,
        all: all?,
        cpu,
    })
}

fn counters(bytes: &[u8]) -> LinkCounters {
    let (numbers, _) = bytes.as_chunks();
    LinkCounters::new(numbers.iter().copied().map(u64::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::{MessageBuilder, Messages};

    fn numbers(range: impl Iterator<Item = u64>) -> Vec<u8> {
        range.flat_map(u64::to_ne_bytes).collect()
    }

    #[test]
    fn all_links_are_asked_for_by_a_strict_request() {
        let mut buffer = Vec::new();
        encode_stats_dump(Envelope {
            buffer: &mut buffer,
            seq: 7,
        });
        let expected = [
            28, 0, 0, 0, 94, 0, 1, 3, 7, 0, 0, 0, 0, 0, 0, 0, // header
            0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, // if_stats_msg
        ];
        assert_eq!(buffer, expected);
    }

    #[test]
    fn counters_and_the_part_of_the_cpu_are_read() {
        let mut buffer = Vec::new();
        let mut message = MessageBuilder::new(&mut buffer, RTM_NEWSTATS, 0, 1);
        message.fixed(&[0, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0]);
        // The kernel pads to 64 bits with an empty attribute.
        message.attr(0, &[]);
        message.attr(IFLA_STATS_LINK_64, &numbers(1..=25));
        message.nested(IFLA_STATS_LINK_OFFLOAD_XSTATS, |message| {
            message.attr(IFLA_OFFLOAD_XSTATS_CPU_HIT, &numbers(101..=124));
            // Which statistics a NIC can count for routed packets: of no interest.
            message.nested(2, |message| {
                message.attr(3, &[1]);
            });
        });
        message.finish();
        let payload = Messages::new(&buffer).next().unwrap().unwrap().payload;
        let reading = decode_stats(payload).unwrap();
        assert_eq!(reading.dev.get(), 3);
        assert_eq!(reading.all, LinkCounters::new(1..=25));
        assert_eq!(reading.cpu, Some(LinkCounters::new(101..=124)));
        for cut in 0..payload.len() {
            let _: Option<PortReading> = decode_stats(&payload[..cut]);
        }
    }

    #[test]
    fn a_link_without_offload_has_no_part_of_the_cpu() {
        let mut payload = vec![0, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0];
        payload.extend([12, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        let reading = decode_stats(&payload).unwrap();
        assert_eq!((reading.all.rx().packets, reading.cpu), (5, None));
        assert_eq!(decode_stats(&payload[..12]), None, "no counters at all");
    }
}
