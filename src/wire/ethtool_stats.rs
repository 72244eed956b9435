//! What a NIC counts besides the link's own counters, in the two forms that the kernel has for it.
//!
//! - Standard groups (IEEE 802.3, RFC 2819) over ethtool's netlink: `ETHTOOL_MSG_STATS_GET`. A counter is a number
//!   whose name is in a string set that the answer names: `ETHTOOL_MSG_STRSET_GET`. A histogram of packet sizes has
//!   bounds in place of names.
//! - A driver's own (`ethtool -S`) only by ioctl, as two arrays: names of 32 bytes, and numbers. Their names are
//!   offered over netlink too, but in one attribute, whose length has 16 bits: some 1,300 names fill it, and some NICs have
//!   more.
//!
//! Follows `linux/ethtool_netlink.h` and `linux/ethtool.h`.

use super::ethtool::{ETHTOOL_VERSION, about};
use super::genl::{self, request, text};
use super::netlink::{Attributes, Envelope, NLA_F_NESTED, NLM_F_ACK, as_u32, u32_at, until_nul};
use crate::model::{IfIndex, NicCounter, NicGroup};

const ETHTOOL_MSG_STRSET_GET: u8 = 1;
const ETHTOOL_MSG_STATS_GET: u8 = 32;
const ETHTOOL_A_STRSET_HEADER: u16 = 1;
const ETHTOOL_A_STRSET_STRINGSETS: u16 = 2;
const ETHTOOL_A_STRINGSETS_STRINGSET: u16 = 1;
const ETHTOOL_A_STRINGSET_ID: u16 = 1;
const ETHTOOL_A_STRINGSET_STRINGS: u16 = 3;
const ETHTOOL_A_STRING_INDEX: u16 = 1;
const ETHTOOL_A_STRING_VALUE: u16 = 2;
const ETHTOOL_A_STATS_HEADER: u16 = 2;
const ETHTOOL_A_STATS_GROUPS: u16 = 3;
const ETHTOOL_A_STATS_GRP: u16 = 4;
const ETHTOOL_A_STATS_GRP_ID: u16 = 2;
const ETHTOOL_A_STATS_GRP_SS_ID: u16 = 3;
const ETHTOOL_A_STATS_GRP_STAT: u16 = 4;
const ETHTOOL_A_STATS_GRP_HIST_RX: u16 = 5;
const ETHTOOL_A_STATS_GRP_HIST_TX: u16 = 6;
const ETHTOOL_A_STATS_GRP_HIST_BKT_LOW: u16 = 7;
const ETHTOOL_A_STATS_GRP_HIST_BKT_HI: u16 = 8;
const ETHTOOL_A_STATS_GRP_HIST_VAL: u16 = 9;
const ETHTOOL_A_BITSET_NOMASK: u16 = 1;
const ETHTOOL_A_BITSET_SIZE: u16 = 2;
const ETHTOOL_A_BITSET_VALUE: u16 = 4;
/// `ETHTOOL_STATS_*`, in the kernel's order.
const GROUPS: [NicGroup; 4] = [
    NicGroup::EthPhy,
    NicGroup::EthMac,
    NicGroup::EthCtrl,
    NicGroup::Rmon,
];
/// `ETH_SS_STATS_ETH_PHY` to `ETH_SS_STATS_RMON`: the names of these.
const STRING_SETS: std::ops::RangeInclusive<u32> = 17..=20;

/// `ETHTOOL_GSTRINGS`.
pub const ETHTOOL_GSTRINGS: u32 = 0x1b;
/// `ETHTOOL_GSTATS`.
pub const ETHTOOL_GSTATS: u32 = 0x1d;
/// `ETHTOOL_GSSET_INFO`.
pub const ETHTOOL_GSSET_INFO: u32 = 0x37;
/// `ETH_SS_STATS`.
pub const ETH_SS_STATS: u32 = 1;
/// `ETH_GSTRING_LEN`.
pub const ETH_GSTRING_LEN: usize = 32;

/// The names of standard counters, by string set and number.
#[derive(Debug, Default)]
pub struct StatsNames(Vec<(u32, u32, Box<str>)>);

impl StatsNames {
    fn get(&self, set: u32, number: u32) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(of, at, _)| (*of, *at) == (set, number));
        found.map(|(_, _, name)| &**name)
    }
}

/// Asks for the names of all standard counters.
pub fn encode_get_names(envelope: Envelope<'_>, family: u16) {
    let command = ETHTOOL_MSG_STRSET_GET;
    let mut message = request(envelope, family, NLM_F_ACK, command, ETHTOOL_VERSION);
    message.nested(NLA_F_NESTED | ETHTOOL_A_STRSET_HEADER, |_| {});
    message.nested(NLA_F_NESTED | ETHTOOL_A_STRSET_STRINGSETS, |message| {
        for set in STRING_SETS {
            message.nested(NLA_F_NESTED | ETHTOOL_A_STRINGSETS_STRINGSET, |message| {
                message.attr_u32(ETHTOOL_A_STRINGSET_ID, set);
            });
        }
    });
    message.finish();
}

/// Reads the answer.
pub fn decode_names(payload: &[u8]) -> Option<StatsNames> {
    let mut names = StatsNames::default();
    for attribute in genl::split(payload)?.1 {
        let (ETHTOOL_A_STRSET_STRINGSETS, sets) = attribute.ok()? else {
            continue;
        };
        for set in Attributes::new(sets) {
            string_set(set.ok()?.1, &mut names)?;
        }
    }
    Some(names)
}

fn string_set(bytes: &[u8], names: &mut StatsNames) -> Option<()> {
    let (mut id, mut strings) = (None, &[][..]);
    for attribute in Attributes::new(bytes) {
        match attribute.ok()? {
            (ETHTOOL_A_STRINGSET_ID, value) => id = as_u32(value),
            (ETHTOOL_A_STRINGSET_STRINGS, value) => strings = value,
            _ => {}
        }
    }
    let id = id?;
    for string in Attributes::new(strings) {
        let (mut number, mut name) = (None, None);
        for attribute in Attributes::new(string.ok()?.1) {
            match attribute.ok()? {
                (ETHTOOL_A_STRING_INDEX, value) => number = as_u32(value),
                (ETHTOOL_A_STRING_VALUE, value) => name = Some(text(value)),
                _ => {}
            }
        }
        names.0.push((id, number?, name?));
    }
    Some(())
}

/// Asks for the standard counters of a link.
pub fn encode_get_stats(envelope: Envelope<'_>, family: u16, dev: IfIndex) {
    let header = ETHTOOL_A_STATS_HEADER;
    let mut message = about(envelope, family, ETHTOOL_MSG_STATS_GET, (header, dev));
    message.nested(NLA_F_NESTED | ETHTOOL_A_STATS_GROUPS, |message| {
        message.attr(ETHTOOL_A_BITSET_NOMASK, &[]);
        message.attr_u32(ETHTOOL_A_BITSET_SIZE, GROUPS.len() as u32);
        message.attr_u32(ETHTOOL_A_BITSET_VALUE, (1 << GROUPS.len()) - 1);
    });
    message.finish();
}

/// Reads the answer. A counter without a name is left out; a group that is not counted has none.
pub fn decode_nic_stats(payload: &[u8], names: &StatsNames) -> Option<Vec<NicCounter>> {
    let mut counters = Vec::new();
    for attribute in genl::split(payload)?.1 {
        if let (ETHTOOL_A_STATS_GRP, group) = attribute.ok()? {
            decode_group(group, names, &mut counters)?;
        }
    }
    Some(counters)
}

fn decode_group(bytes: &[u8], names: &StatsNames, counters: &mut Vec<NicCounter>) -> Option<()> {
    let (mut group, mut set) = (None, None);
    for attribute in Attributes::new(bytes) {
        let (kind, value) = attribute.ok()?;
        let rx = match kind {
            ETHTOOL_A_STATS_GRP_ID => {
                group = GROUPS.get(as_u32(value)? as usize).copied();
                continue;
            }
            ETHTOOL_A_STATS_GRP_SS_ID => {
                set = Some(as_u32(value)?);
                continue;
            }
            ETHTOOL_A_STATS_GRP_STAT => {
                for stat in Attributes::new(value) {
                    let (number, value) = stat.ok()?;
                    // Groups that a newer kernel has are not asked for.
                    let name = set.and_then(|set| names.get(set, number.into()));
                    if let (Some(group), Some(name)) = (group, name) {
                        counters.push(NicCounter {
                            group,
                            name: name.into(),
                            value: as_u64(value)?,
                        });
                    }
                }
                continue;
            }
            ETHTOOL_A_STATS_GRP_HIST_RX => "rx",
            ETHTOOL_A_STATS_GRP_HIST_TX => "tx",
            _ => continue,
        };
        let (low, high, value) = bucket(value)?;
        if let Some(group) = group {
            // As RFC 2819 names those that it has; the last is open above.
            let name = match high {
                Some(high) => format!("{rx}-etherStatsPkts{low}to{high}Octets"),
                None => format!("{rx}-etherStatsPkts{low}toMaxOctets"),
            };
            counters.push(NicCounter {
                group,
                name: name.into(),
                value,
            });
        }
    }
    Some(())
}

/// The bounds of a bucket, and what is in it.
fn bucket(bytes: &[u8]) -> Option<(u32, Option<u32>, u64)> {
    let (mut low, mut high, mut count) = (None, None, None);
    for attribute in Attributes::new(bytes) {
        match attribute.ok()? {
            (ETHTOOL_A_STATS_GRP_HIST_BKT_LOW, value) => low = as_u32(value),
            (ETHTOOL_A_STATS_GRP_HIST_BKT_HI, value) => high = as_u32(value),
            (ETHTOOL_A_STATS_GRP_HIST_VAL, value) => count = as_u64(value),
            _ => {}
        }
    }
    Some((low?, high.filter(|high| *high != 0), count?))
}

fn as_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// Where `struct ethtool_sset_info` has the one number that is asked for, and its length.
const SSET_COUNT_AT: usize = 16;
/// Its length, with that number.
pub const SSET_INFO_LEN: usize = SSET_COUNT_AT + 4;
/// `sizeof(struct ethtool_gstrings)`, before the strings.
const GSTRINGS_LEN: usize = 12;
const GSTRINGS_COUNT_AT: usize = 8;
/// `sizeof(struct ethtool_stats)`, before the numbers.
const STATS_LEN: usize = 8;
const STATS_COUNT_AT: usize = 4;

/// Asks how many counters a driver has.
pub fn sset_info_request() -> Vec<u8> {
    let mut bytes = numbers(&[ETHTOOL_GSSET_INFO, 0]);
    bytes.extend((1u64 << ETH_SS_STATS).to_ne_bytes());
    bytes.resize(SSET_INFO_LEN, 0);
    bytes
}

/// Reads the answer: none, if the driver has no such set.
pub fn sset_count(bytes: &[u8]) -> Option<usize> {
    let mask = as_u64(bytes.get(8..16)?)?;
    if mask & (1 << ETH_SS_STATS) == 0 {
        return Some(0);
    }
    Some(u32_at(bytes, SSET_COUNT_AT)? as usize)
}

/// Asks for the names of a driver's counters; the answer has this length.
pub fn strings_request(count: usize) -> (Vec<u8>, usize) {
    let bytes = numbers(&[ETHTOOL_GSTRINGS, ETH_SS_STATS, count as u32]);
    (bytes, GSTRINGS_LEN + count * ETH_GSTRING_LEN)
}

/// Asks for a driver's counters; the answer has this length. Newer kernels refuse a count that has become wrong.
pub fn stats_request(count: usize) -> (Vec<u8>, usize) {
    let bytes = numbers(&[ETHTOOL_GSTATS, count as u32]);
    (bytes, STATS_LEN + count * 8)
}

/// Puts both answers together; `None` if they are not of `count` counters.
pub fn driver_counters(count: usize, strings: &[u8], stats: &[u8]) -> Option<Vec<NicCounter>> {
    let same = |bytes, at| u32_at(bytes, at).is_some_and(|told| told as usize == count);
    if !same(strings, GSTRINGS_COUNT_AT) || !same(stats, STATS_COUNT_AT) {
        return None;
    }
    let (names, _) = strings.get(GSTRINGS_LEN..)?.as_chunks::<ETH_GSTRING_LEN>();
    let (values, _) = stats.get(STATS_LEN..)?.as_chunks();
    if names.len() < count || values.len() < count {
        return None;
    }
    let both = names.iter().zip(values).take(count);
    Some(
        both.map(|(name, value)| NicCounter {
            group: NicGroup::Driver,
            // Some drivers indent theirs.
            name: String::from_utf8_lossy(until_nul(name)).trim().into(),
            value: u64::from_ne_bytes(*value),
        })
        .collect(),
    )
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().copied().flat_map(u32::to_ne_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::genl::attr_text;
    use crate::wire::netlink::{MessageBuilder, Messages};

    fn payload(command: u8, fill: impl FnOnce(&mut MessageBuilder<'_>)) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut message = MessageBuilder::new(&mut buffer, 21, 0, 1);
        message.fixed(&[command, 1, 0, 0]);
        fill(&mut message);
        message.finish();
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        message.payload.to_vec()
    }

    fn names() -> Vec<u8> {
        payload(1, |message| {
            message.nested(NLA_F_NESTED | ETHTOOL_A_STRSET_STRINGSETS, |message| {
                for (set, name) in [(18, "FramesTransmittedOK"), (20, "etherStatsJabbers")] {
                    message.nested(NLA_F_NESTED | 1, |message| {
                        message.attr_u32(ETHTOOL_A_STRINGSET_ID, set);
                        message.attr_u32(2, 1);
                        message.nested(NLA_F_NESTED | ETHTOOL_A_STRINGSET_STRINGS, |message| {
                            message.nested(NLA_F_NESTED | 1, |message| {
                                message.attr_u32(ETHTOOL_A_STRING_INDEX, 0);
                                attr_text(message, ETHTOOL_A_STRING_VALUE, name);
                            });
                        });
                    });
                }
            });
        })
    }

    fn group(message: &mut MessageBuilder<'_>, id: u32, stats: &[(u16, u64)]) {
        message.nested(NLA_F_NESTED | ETHTOOL_A_STATS_GRP, |message| {
            message.attr_u32(ETHTOOL_A_STATS_GRP_ID, id);
            message.attr_u32(ETHTOOL_A_STATS_GRP_SS_ID, 17 + id);
            for (number, value) in stats {
                message.nested(NLA_F_NESTED | ETHTOOL_A_STATS_GRP_STAT, |message| {
                    message.attr(*number, &value.to_ne_bytes());
                });
            }
            if id == 3 {
                for (kind, low, high) in [
                    (ETHTOOL_A_STATS_GRP_HIST_RX, 65, 127),
                    (ETHTOOL_A_STATS_GRP_HIST_TX, 1519, 0),
                ] {
                    message.nested(NLA_F_NESTED | kind, |message| {
                        message.attr_u32(ETHTOOL_A_STATS_GRP_HIST_BKT_LOW, low);
                        message.attr_u32(ETHTOOL_A_STATS_GRP_HIST_BKT_HI, high);
                        let value = u64::from(low) * 10;
                        message.attr(ETHTOOL_A_STATS_GRP_HIST_VAL, &value.to_ne_bytes());
                    });
                }
            }
        });
    }

    #[test]
    fn standard_counters_bear_the_names_of_their_standards() {
        let names_answer = names();
        let names = decode_names(&names_answer).unwrap();
        let answer = payload(32, |message| {
            group(message, 0, &[]);
            // The second has no name that was told.
            group(message, 1, &[(0, 5), (9, 6)]);
            group(message, 3, &[(0, 7)]);
            // Of a newer kernel.
            group(message, 4, &[(0, 8)]);
        });
        let counters = decode_nic_stats(&answer, &names).unwrap();
        let counters: Vec<_> = counters
            .iter()
            .map(|counter| (counter.group.name(), &*counter.name, counter.value))
            .collect();
        let expected = [
            ("eth-mac", "FramesTransmittedOK", 5),
            ("rmon", "etherStatsJabbers", 7),
            ("rmon", "rx-etherStatsPkts65to127Octets", 650),
            ("rmon", "tx-etherStatsPkts1519toMaxOctets", 15190),
        ];
        assert_eq!(counters, expected);
        for cut in 0..answer.len() {
            let _: Option<Vec<NicCounter>> = decode_nic_stats(&answer[..cut], &names);
        }
        for cut in 0..names_answer.len() {
            let _: Option<StatsNames> = decode_names(&names_answer[..cut]);
        }
    }

    #[test]
    fn a_link_is_asked_for_four_groups() {
        let mut buffer = Vec::new();
        let envelope = Envelope {
            buffer: &mut buffer,
            seq: 1,
        };
        encode_get_stats(envelope, 21, IfIndex::new(7).unwrap());
        let expected = [
            32, 1, 0, 0, // genlmsghdr
            12, 0, 2, 0x80, 8, 0, 1, 0, 7, 0, 0, 0, // header: the link
            24, 0, 3, 0x80, 4, 0, 1, 0, 8, 0, 2, 0, 4, 0, 0, 0, 8, 0, 4, 0, 15, 0, 0,
            0, // groups
        ];
        assert_eq!(buffer[16..], expected);
    }

    #[test]
    fn a_drivers_counters_are_names_and_numbers_of_one_count() {
        let (mut strings, strings_len) = strings_request(2);
        for name in ["  rx_packets", "tx_packets"] {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(ETH_GSTRING_LEN, 0);
            strings.extend(bytes);
        }
        let (mut stats, stats_len) = stats_request(2);
        stats.extend([3u64, 4].into_iter().flat_map(u64::to_ne_bytes));
        assert_eq!((strings.len(), stats.len()), (strings_len, stats_len));
        let counters = driver_counters(2, &strings, &stats).unwrap();
        assert_eq!(
            (&*counters[0].name, counters[0].value),
            ("rx_packets", 3),
            "without its indent"
        );
        assert_eq!((&*counters[1].name, counters[1].value), ("tx_packets", 4));
        // One more since, and what a newer kernel answers to a count that is wrong.
        assert_eq!(driver_counters(3, &strings, &stats), None);
        assert_eq!(driver_counters(2, &strings, &stats_request(0).0), None);
        for cut in 0..stats.len() {
            assert_eq!(driver_counters(2, &strings, &stats[..cut]), None);
        }
    }

    #[test]
    fn a_driver_without_counters_has_none() {
        let mut answer = sset_info_request();
        answer[SSET_COUNT_AT] = 42;
        assert_eq!(sset_count(&answer), Some(42));
        answer[8] = 0;
        assert_eq!(sset_count(&answer), Some(0));
        assert_eq!(sset_count(&answer[..4]), None);
    }
}
