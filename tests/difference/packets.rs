//! Random packets, as frames that the far end of a port sends: ordinary ones, and what routers treat apart: small TTLs, bad
//! sources, own addresses, other MACs, options, fragments, tags. Each bears a number by which it is known again.
//!
//! Every packet says UDP and has eight bytes, a mark and its number behind the IP header, also as a later fragment: those that
//! forward don't look there. What the kernel answers (ICMP) says otherwise and so is never taken for the packet that it quotes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use frr_offload::model::{Family, MacAddr, Prefix};

use super::random::Random;
use super::switch::{MTU, PORTS, VLANS, VRFS, neighbour, own};

const MARK: [u8; 8] = *b"differs?";
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
/// Behind the UDP header.
const NUMBERED: usize = 8 + MARK.len() + 4;

/// A packet, and where it goes in.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The number of its port.
    pub ingress: usize,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub frame: Vec<u8>,
}

/// Makes them.
pub struct Packets<'a> {
    pub random: &'a mut Random,
    /// The prefixes of each VRF's table, of both families.
    pub prefixes: &'a [Vec<Prefix>; VRFS.len()],
    /// The ports that packets come in by, and what the MACs of all are.
    pub ingress: &'a [usize],
    pub macs: [MacAddr; PORTS.len()],
    /// The VRFs of all ports.
    pub vrfs: [usize; PORTS.len()],
}

impl Packets<'_> {
    /// So many, numbered from 0.
    pub fn make(&mut self, count: usize) -> Vec<Packet> {
        (0..count as u32).map(|number| self.one(number)).collect()
    }

    fn one(&mut self, number: u32) -> Packet {
        let ingress = self.random.pick(self.ingress);
        let dst = self.destination(ingress);
        let src = self.source(Family::of(dst));
        let mut frame = Vec::new();
        frame.extend(self.destination_mac(ingress).0);
        frame.extend([2, 0, 0, 9, 9, ingress as u8]);
        if VLANS[ingress] != 0 {
            frame.extend([0x81, 0, 0, VLANS[ingress]]);
        } else if self.random.percent(2) {
            frame.extend([0x81, 0, 0, self.random.pick(&[0, 5])]);
        }
        let size = match self.random.below(20) {
            0 | 1 => self.random.below(MTU - 100),
            2 => MTU,
            _ => 0,
        };
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ipv4(&mut frame, (src, dst), number, size),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.ipv6(&mut frame, (src, dst), number, size),
            _ => unreachable!("both are of one family"),
        }
        Packet {
            ingress,
            src,
            dst,
            frame,
        }
    }

    fn destination_mac(&mut self, ingress: usize) -> MacAddr {
        match self.random.below(50) {
            0 => MacAddr([0xff; 6]),
            1 => MacAddr([2, 0, 0, 0xee, 0, 1]),
            2 => self.random.pick(&self.macs),
            3 => MacAddr([1, 0, 0x5e, 0, 0, 1]),
            _ => self.macs[ingress],
        }
    }

    /// Mostly of the VRF that it comes in by.
    fn destination(&mut self, ingress: usize) -> IpAddr {
        let family = self.random.pick(&[Family::V4, Family::V6]);
        let port = self.random.below(PORTS.len());
        let (vrf, port) = if self.random.percent(90) {
            let vrf = self.vrfs[ingress];
            let there: Vec<_> = (0..PORTS.len())
                .filter(|&port| self.vrfs[port] == vrf)
                .collect();
            (vrf, self.random.pick(&there))
        } else {
            (self.random.below(VRFS.len()), port)
        };
        match self.random.below(100) {
            0..68 if !self.prefixes[vrf].is_empty() => {
                let prefix = self.random.pick(&self.prefixes[vrf]);
                self.near(prefix)
            }
            68..80 => neighbour(family, port, self.random.below(3)),
            80..83 => neighbour(family, port, 200),
            83..87 => own(family, port),
            87..94 => self.special(family, port),
            _ => self.anywhere(family),
        }
    }

    /// An address in a prefix: any, its first, its last; or the one before or behind it.
    fn near(&mut self, prefix: Prefix) -> IpAddr {
        let (bits, width) = match prefix.addr() {
            IpAddr::V4(addr) => (u128::from(addr.to_bits()), 32),
            IpAddr::V6(addr) => (addr.to_bits(), 128),
        };
        let size = match width - prefix.len() {
            128 => u128::MAX,
            host_bits => (1 << host_bits) - 1,
        };
        let bits = match self.random.below(20) {
            0 | 1 => bits,
            2 | 3 => bits | size,
            4 => bits.wrapping_sub(1),
            5 => (bits | size).wrapping_add(1),
            _ => bits | (self.random.wide() & size),
        };
        match prefix.family() {
            Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
            Family::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }

    /// What is not routed: broadcasts, multicast, loopback, link-local, nobody.
    fn special(&mut self, family: Family, port: usize) -> IpAddr {
        let list: &[&str] = match family {
            Family::V4 => &[
                "255.255.255.255",
                "224.0.0.5",
                "239.1.2.3",
                "127.0.0.1",
                "127.9.9.9",
                "0.0.0.0",
                "0.1.2.3",
                "169.254.0.1",
                "169.254.77.1",
                "240.0.0.1",
                "10.50.0.255",
                "10.50.0.0",
            ],
            Family::V6 => &[
                "ff02::1",
                "ff05::2",
                "ff0e::77",
                "::1",
                "::",
                "fe80::1",
                "fe80::1:1",
                "::ffff:20.1.1.1",
                "2001:db8:50::",
                "2002:7f00:1::",
            ],
        };
        match (list[self.random.below(list.len())].parse(), family) {
            (Ok(IpAddr::V4(addr)), Family::V4) if addr.octets()[..3] == [10, 50, 0] => {
                Ipv4Addr::new(10, 50, port as u8, addr.octets()[3]).into()
            }
            (addr, _) => addr.unwrap(),
        }
    }

    fn anywhere(&mut self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from_bits(self.random.word() as u32).into(),
            Family::V6 => Ipv6Addr::from_bits(self.random.wide()).into(),
        }
    }

    /// Mostly somebody far away; else a neighbour, or who can't be a source.
    fn source(&mut self, family: Family) -> IpAddr {
        let port = self.random.below(PORTS.len());
        match (self.random.below(100), family) {
            (0..4, _) => own(family, port),
            (4..10, _) => neighbour(family, port, self.random.below(3)),
            (10..20, _) => self.special(family, port),
            (_, Family::V4) => {
                Ipv4Addr::from_bits(0xc612_0000 | (self.random.word() as u32 & 0xffff)).into()
            }
            (_, Family::V6) => {
                let base = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0).to_bits();
                Ipv6Addr::from_bits(base | u128::from(self.random.word())).into()
            }
        }
    }

    fn ttl(&mut self) -> u8 {
        match self.random.below(20) {
            0 => 0,
            1 => 1,
            2 => 2,
            3 => 255,
            _ => 64,
        }
    }

    fn ipv4(
        &mut self,
        frame: &mut Vec<u8>,
        (src, dst): (Ipv4Addr, Ipv4Addr),
        number: u32,
        size: usize,
    ) {
        let options: &[u8] = if self.random.percent(3) {
            &[1, 1, 1, 0]
        } else {
            &[]
        };
        // The bits of "don't fragment", "more fragments" and the offset.
        let fragment: u16 = match self.random.below(20) {
            0 => 0x2000,
            1 => 0x2010,
            2 => 0x0010,
            3..10 => 0x4000,
            _ => 0,
        };
        let header = 20 + options.len();
        let total = (header + NUMBERED).max(size);
        frame.extend([8, 0]);
        let start = frame.len();
        frame.extend([0x40 | (header / 4) as u8, self.random.pick(&[0, 0, 0xb8])]);
        frame.extend((total as u16).to_be_bytes());
        frame.extend((self.random.word() as u16).to_be_bytes());
        frame.extend(fragment.to_be_bytes());
        frame.extend([self.ttl(), UDP, 0, 0]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        frame.extend(options);
        let sum = checksum(&frame[start..]);
        frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
        payload(frame, number, start + total);
    }

    fn ipv6(
        &mut self,
        frame: &mut Vec<u8>,
        (src, dst): (Ipv6Addr, Ipv6Addr),
        number: u32,
        size: usize,
    ) {
        let (next, extension): (u8, &[u8]) = match self.random.below(30) {
            // Six bytes of padding.
            0 => (HOP_BY_HOP, &[UDP, 0, 1, 4, 0, 0, 0, 0]),
            1 => (FRAGMENT, &[UDP, 0, 0, 1, 0, 0, 0, 9]),
            2 => (FRAGMENT, &[UDP, 0, 0, 0x40, 0, 0, 0, 9]),
            _ => (UDP, &[]),
        };
        let length = (extension.len() + NUMBERED).max(size.saturating_sub(40));
        frame.extend([0x86, 0xdd]);
        let start = frame.len();
        frame.extend([0x60, self.random.pick(&[0, 0x30]), 0, 0]);
        frame.extend((length as u16).to_be_bytes());
        frame.extend([next, self.ttl()]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        frame.extend(extension);
        payload(frame, number, start + 40 + length);
    }
}

fn payload(frame: &mut Vec<u8>, number: u32, end: usize) {
    // Ports 5000 to 6000, whatever length, no checksum.
    frame.extend([0x13, 0x88, 0x17, 0x70, 0, 20, 0, 0]);
    frame.extend(MARK);
    frame.extend(number.to_be_bytes());
    frame.resize(end, 0x5a);
}

fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) as u16 + (sum >> 16) as u16)
}

/// The number of a packet of ours.
pub fn number_of(frame: &[u8]) -> Option<u32> {
    let mut l3 = 14;
    while matches!(frame.get(l3 - 2..l3)?, [0x81 | 0x88, 0 | 0xa8]) {
        l3 += 4;
    }
    let (next, mut at) = match frame.get(l3 - 2..l3)? {
        [8, 0] => (
            *frame.get(l3 + 9)?,
            l3 + usize::from(frame.get(l3)? & 15) * 4,
        ),
        [0x86, 0xdd] => (*frame.get(l3 + 6)?, l3 + 40),
        _ => return None,
    };
    let next = match next {
        HOP_BY_HOP | FRAGMENT => {
            at += 8;
            *frame.get(at - 8)?
        }
        next => next,
    };
    let marked = frame.get(at + 8..at + NUMBERED)?;
    let number = marked.strip_prefix(&MARK)?.try_into().ok()?;
    (next == UDP).then(|| u32::from_be_bytes(number))
}
