//! Filter rules as the operator writes them: an ordered list, each rule for packets of one family.
//!
//! What a rule filters ([`AclTerms`]) is kept apart from what it is called and where it should stand: rules of equal terms filter the
//! same, whatever their name, and a rule that is found in a block is known again by [`AclTerms::digest`]. Ranges of ports become bits
//! under masks ([`port_masks`]), never ranges of flower: drivers that know ports know masks, few know ranges, and those that do have
//! few registers for them. Knows no tc and no layout.

use std::fmt;

use super::{Family, IfName, PortFilter, PortMatch, Prefix};

/// What becomes of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AclAction {
    /// On to the routes.
    Permit,
    /// Nowhere.
    Drop,
    /// To the CPU.
    Trap,
}

impl AclAction {
    /// The word in the configuration and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Drop => "drop",
            Self::Trap => "trap",
        }
    }
}

/// Where a rule should stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AclPlace {
    /// In hardware, and nowhere else.
    Hardware,
    /// In hardware, or in software when the driver refuses it.
    Any,
    /// In software.
    Software,
}

impl AclPlace {
    /// The word in the configuration and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Any => "any",
            Self::Software => "software",
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclRule {
    /// Its name, which no other has.
    pub name: Box<str>,
    /// Where it should stand.
    pub place: AclPlace,
    /// What it filters.
    pub terms: AclTerms,
}

/// What a rule filters. All that is present must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclTerms {
    /// The family of the packets.
    pub family: Family,
    /// What becomes of them.
    pub action: AclAction,
    /// `in`: the ports that they come in by.
    pub ports: Option<PortFilter>,
    /// The VRF of these.
    pub vrf: Option<IfName>,
    /// The id of their 802.1Q tag; without it tagged and untagged packets are meant.
    pub vlan: Option<u16>,
    /// Source addresses.
    pub src: Option<Prefix>,
    /// Destination addresses.
    pub dst: Option<Prefix>,
    /// The protocol's number.
    pub proto: Option<u8>,
    /// Source ports, first and last.
    pub src_port: Option<(u16, u16)>,
    /// Destination ports, first and last.
    pub dst_port: Option<(u16, u16)>,
    /// ICMP or `ICMPv6` type.
    pub icmp_type: Option<u8>,
    /// Differentiated services code point.
    pub dscp: Option<u8>,
}

/// Names of protocols.
pub const PROTOCOLS: [(&str, u8); 5] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("icmpv6", 58),
    ("sctp", 132),
];

impl AclTerms {
    /// All packets of a family.
    pub const fn all(family: Family, action: AclAction) -> Self {
        Self {
            family,
            action,
            ports: None,
            vrf: None,
            vlan: None,
            src: None,
            dst: None,
            proto: None,
            src_port: None,
            dst_port: None,
            icmp_type: None,
            dscp: None,
        }
    }

    /// The same number for the same terms, in every run and every version (FNV-1a).
    pub fn digest(&self) -> u64 {
        let bytes = self.to_string().into_bytes().into_iter();
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// The pairs of source and destination ports under masks that together are its ranges.
    pub fn port_pairs(&self) -> Vec<(Option<PortMatch>, Option<PortMatch>)> {
        let [src, dst] = [self.src_port, self.dst_port].map(|range| match range {
            None => vec![None],
            Some((first, last)) => port_masks(first, last),
        });
        src.iter()
            .flat_map(|src| dst.iter().map(|dst| (*src, *dst)))
            .collect()
    }
}

impl fmt::Display for AclTerms {
    /// In the words of the configuration: `ipv4 drop proto tcp dst_port 23 src 198.51.100.0/24`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            action,
            ports,
            vrf,
            vlan,
            src,
            dst,
            proto,
            src_port,
            dst_port,
            icmp_type,
            dscp,
        } = self;
        let name = match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        write!(f, "{name} {}", action.name())?;
        let range = |range: &(u16, u16)| match range {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let protocol = |number: &u8| {
            let known = PROTOCOLS.iter().find(|(_, of)| of == number);
            known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
        };
        let words = [
            ("in", ports.as_ref().map(ToString::to_string)),
            ("vrf", vrf.as_ref().map(ToString::to_string)),
            ("vlan", vlan.as_ref().map(ToString::to_string)),
            ("src", src.as_ref().map(ToString::to_string)),
            ("dst", dst.as_ref().map(ToString::to_string)),
            ("proto", proto.as_ref().map(protocol)),
            ("src_port", src_port.as_ref().map(range)),
            ("dst_port", dst_port.as_ref().map(range)),
            ("icmp_type", icmp_type.as_ref().map(ToString::to_string)),
            ("dscp", dscp.as_ref().map(ToString::to_string)),
        ];
        for (key, value) in words {
            if let Some(value) = value {
                write!(f, " {key} {value}")?;
            }
        }
        Ok(())
    }
}

/// A range of ports as bits under masks, from low to high; `None` in place of a mask without bits, which is all ports.
///
/// ```text
/// 20-25  ->  20/0xfffc (20-23), 24/0xfffe (24-25)
/// ```
pub fn port_masks(first: u16, last: u16) -> Vec<Option<PortMatch>> {
    let mut masks = Vec::new();
    let (mut next, last) = (u32::from(first), u32::from(last));
    while next <= last {
        let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
        let fits = (last - next + 1).ilog2();
        let size = 1 << aligned.min(fits);
        let mask = (0x1_0000 - size) as u16;
        masks.push((mask != 0).then_some(PortMatch::Masked(next as u16, mask)));
        next += size;
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_exactly_the_ports_under_its_masks() {
        for (first, last, count) in [
            (23, 23, 1),
            (20, 25, 2),
            (0, 65535, 1),
            (0, 1023, 1),
            (1, 65534, 30),
            (65535, 65535, 1),
        ] {
            let masks = port_masks(first, last);
            assert_eq!(masks.len(), count, "{first}-{last}");
            for port in 0..=u16::MAX {
                let meets = |mask: &Option<PortMatch>| match mask {
                    None => true,
                    Some(PortMatch::Masked(bits, mask)) => port & mask == *bits,
                    Some(PortMatch::Range(..)) => false,
                };
                let met = masks.iter().filter(|mask| meets(mask)).count();
                assert_eq!(met, usize::from((first..=last).contains(&port)), "{port}");
            }
        }
    }

    #[test]
    fn terms_read_as_they_were_written_and_have_one_digest() {
        let mut terms = AclTerms::all(Family::V4, AclAction::Drop);
        terms.proto = Some(6);
        terms.dst_port = Some((23, 23));
        terms.src = Some("198.51.100.0/24".parse().unwrap());
        assert_eq!(
            terms.to_string(),
            "ipv4 drop src 198.51.100.0/24 proto tcp dst_port 23"
        );
        // It is in the marks of rules that outlive the program.
        assert_eq!(terms.digest(), terms.clone().digest());
        let digest = AclTerms::all(Family::V6, AclAction::Trap).digest();
        assert_eq!(digest, 0xf4a3_0700_69de_a67b);
        terms.dst_port = Some((23, 24));
        assert!(terms.to_string().ends_with("23-24"));
    }
}
