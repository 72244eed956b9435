//! Links, addresses, neighbours and next-hop objects as the kernel announces them, and neighbour requests of ours.
//!
//! By hand like the routes, for two reasons: neighbour notifications come by the ten thousand a second, and a decoder
//! that reads only the attributes it needs can't lose a whole link to an attribute that a newer kernel made longer
//! (netlink-packet-route is the oracle of the tests). What nobody needs is dropped here: bridge messages (`AF_BRIDGE`
//! link deletions mean "left the bridge"), forwarding-database entries, multicast and proxy neighbours.
//!
//! Neighbour requests, as seen on Linux 6.18: `NTF_USE` or `NTF_EXT_MANAGED` without a state keeps a learned entry and its
//! MAC, starts discovery on a new one, **takes `NUD_PERMANENT` off a permanent one and forgets its MAC**, and drops
//! `NTF_EXT_LEARNED` unless repeated. So [`encode_refresh`] takes what was read before. Both flags go together: kernels
//! before 5.16 overlook the attribute and see the use. `NTF_USE` alone ends the management and leaves the entry.

use super::kernel_nexthop::decode_nexthop;
use super::kernel_route::{af, attr_addr};
use super::netlink::{
    Attributes, Envelope, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, as_u32, u16_at, u32_at,
    until_nul,
};
use super::rtnl_nexthop::{RTM_DELNEXTHOP, RTM_NEWNEXTHOP, address};
use crate::model::{
    Family, IfIndex, KernelEvent, Link, MacAddr, Neighbour, NeighbourKey, NeighbourState, Protocol,
    SwitchId, TableId, VlanLink,
};

/// `RTM_NEWLINK`.
pub const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// `RTM_NEWADDR`.
pub const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// `RTM_NEWNEIGH`.
pub const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const AF_UNSPEC: u8 = 0;
const IFINFOMSG_LEN: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PHYS_SWITCH_ID: u16 = 36;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PHYS_PORT_NAME: u16 = 38;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VRF_TABLE: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_EGRESS_QOS: u16 = 3;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const ETH_P_8021Q: u16 = 0x8100;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_POINTOPOINT: u32 = 0x10;
const IFF_RUNNING: u32 = 0x40;
const IFF_LOWER_UP: u32 = 0x1_0000;

const IFADDRMSG_LEN: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const NDMSG_LEN: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_PROTOCOL: u16 = 12;
const NDA_FLAGS_EXT: u16 = 15;
const NTF_USE: u8 = 0x01;
const NTF_PROXY: u8 = 0x08;
const NTF_EXT_LEARNED: u8 = 0x10;
const NTF_ROUTER: u8 = 0x80;
const NTF_EXT_MANAGED: u32 = 1;
const NUD_NONE: u16 = 0x00;
const NUD_PERMANENT: u16 = 0x80;

/// A neighbour with what only a writer must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// As everybody sees it.
    pub neighbour: Neighbour,
    /// `NTF_EXT_LEARNED`: a control plane (EVPN) put it there.
    pub ext_learned: bool,
}

/// How a neighbour is to be kept fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// By the kernel, from now on (`NTF_EXT_MANAGED`).
    Managed,
    /// Ask once (`NTF_USE`), where the kernel can't manage.
    Use,
    /// No longer; the entry stays.
    Release,
}

/// The event that a link, address, neighbour or next-hop message is; `None` for what nobody needs.
pub fn decode_event(kind: u16, payload: &[u8]) -> Option<KernelEvent> {
    match kind {
        RTM_NEWLINK => decode_link(payload).map(KernelEvent::Link),
        RTM_DELLINK => link_index(payload).map(KernelEvent::LinkGone),
        RTM_NEWADDR => decode_address(payload, true),
        RTM_DELADDR => decode_address(payload, false),
        RTM_NEWNEIGH => {
            decode_neighbour(payload).map(|entry| KernelEvent::Neighbour(entry.neighbour))
        }
        RTM_DELNEIGH => {
            decode_neighbour(payload).map(|entry| KernelEvent::NeighbourGone(entry.neighbour.key))
        }
        RTM_NEWNEXTHOP => decode_nexthop(payload).map(KernelEvent::NextHop),
        RTM_DELNEXTHOP => decode_nexthop(payload).map(|object| KernelEvent::NextHopGone(object.id)),
        _ => None,
    }
}

/// Reads a link; `None` for a bridge's view of a port.
pub fn decode_link(payload: &[u8]) -> Option<Link> {
    let index = link_index(payload)?;
    let flags = u32_at(payload, 8)?;
    let mut link = Link {
        index,
        name: "".into(),
        admin_up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0 && flags & IFF_RUNNING != 0,
        one_neighbour: flags & (IFF_LOOPBACK | IFF_POINTOPOINT) != 0,
        mac: None,
        mtu: 0,
        master: None,
        vrf_table: None,
        kind: None,
        vlan: None,
        switch: None,
        port_name: None,
    };
    let (mut lower, mut lower_elsewhere) = (None, false);
    for attribute in Attributes::new(payload.get(IFINFOMSG_LEN..)?) {
        match attribute.ok()? {
            (IFLA_LINK, value) => lower = as_u32(value).and_then(IfIndex::new),
            (IFLA_LINK_NETNSID, _) => lower_elsewhere = true,
            (IFLA_IFNAME, value) => link.name = String::from_utf8_lossy(until_nul(value)).into(),
            (IFLA_ADDRESS, value) => link.mac = mac(value),
            (IFLA_MTU, value) => link.mtu = as_u32(value)?,
            (IFLA_MASTER, value) => link.master = as_u32(value).and_then(IfIndex::new),
            (IFLA_LINKINFO, value) => {
                link.vrf_table = vrf_table(value);
                link.vlan = vlan(value);
                link.kind = info_kind(value);
            }
            (IFLA_PHYS_SWITCH_ID, value) => link.switch = Some(SwitchId(value.into())),
            (IFLA_PHYS_PORT_NAME, value) => {
                link.port_name = Some(String::from_utf8_lossy(until_nul(value)).into());
            }
            _ => {}
        }
    }
    if let Some(vlan) = &mut link.vlan {
        vlan.lower = lower.filter(|_| !lower_elsewhere);
    }
    Some(link)
}

/// Reads a neighbour; `None` for forwarding-database, proxy and multicast entries.
pub fn decode_neighbour(payload: &[u8]) -> Option<NeighbourEntry> {
    let ndm: &[u8; NDMSG_LEN] = payload.first_chunk()?;
    let family = ndm[0];
    let dev = IfIndex::new(u32_at(ndm, 4)?)?;
    let flags = ndm[10];
    if flags & NTF_PROXY != 0 {
        return None;
    }
    let (mut addr, mut lladdr, mut protocol, mut managed) = (None, None, 0, false);
    for attribute in Attributes::new(&payload[NDMSG_LEN..]) {
        match attribute.ok()? {
            (NDA_DST, value) => addr = address(family, value),
            (NDA_LLADDR, value) => lladdr = mac(value),
            (NDA_PROTOCOL, &[number]) => protocol = number,
            (NDA_FLAGS_EXT, value) => managed = as_u32(value)? & NTF_EXT_MANAGED != 0,
            _ => {}
        }
    }
    let addr = addr.filter(|addr| !addr.is_multicast())?;
    Some(NeighbourEntry {
        neighbour: Neighbour {
            key: NeighbourKey { dev, addr },
            mac: lladdr,
            state: neighbour_state(u16_at(ndm, 8)?),
            router: flags & NTF_ROUTER != 0,
            protocol,
            managed,
        },
        ext_learned: flags & NTF_EXT_LEARNED != 0,
    })
}

/// Asks for all links, without their counters.
pub fn encode_link_dump(envelope: Envelope<'_>) {
    let mut message = envelope.request(RTM_GETLINK, NLM_F_DUMP);
    message.fixed(&[0; IFINFOMSG_LEN]);
    message.attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    message.finish();
}

/// Asks for all addresses.
pub fn encode_address_dump(envelope: Envelope<'_>) {
    let mut message = envelope.request(RTM_GETADDR, NLM_F_DUMP);
    message.fixed(&[0; IFADDRMSG_LEN]);
    message.finish();
}

/// Asks for all neighbours.
pub fn encode_neighbour_dump(envelope: Envelope<'_>) {
    let mut message = envelope.request(RTM_GETNEIGH, NLM_F_DUMP);
    message.fixed(&[0; NDMSG_LEN]);
    message.finish();
}

/// Asks for one neighbour (kernels since 5.0).
pub fn encode_get_neighbour(envelope: Envelope<'_>, key: &NeighbourKey) {
    encode_key(envelope, RTM_GETNEIGH, key);
}

/// Creates or replaces a permanent neighbour.
pub fn encode_put_neighbour(
    envelope: Envelope<'_>,
    key: &NeighbourKey,
    mac: MacAddr,
    by: Protocol,
) {
    let mut message = envelope.request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
    message.fixed(&ndmsg(key, NUD_PERMANENT, 0));
    attr_addr(&mut message, NDA_DST, key.addr);
    message.attr(NDA_LLADDR, &mac.0);
    message.attr(NDA_PROTOCOL, &[by.0]);
    message.finish();
}

/// Deletes a neighbour, whoever wrote it: look before.
pub fn encode_delete_neighbour(envelope: Envelope<'_>, key: &NeighbourKey) {
    encode_key(envelope, RTM_DELNEIGH, key);
}

/// Begins or ends keeping a neighbour fresh without touching its MAC or state. `entry` is what was read just before:
/// its flags are repeated, and an entry that nobody marked gets our mark, so that it is known for ours after a restart.
/// Never for a permanent entry (see the module's doc).
pub fn encode_refresh(
    envelope: Envelope<'_>,
    key: &NeighbourKey,
    how: Refresh,
    entry: Option<&NeighbourEntry>,
    by: Protocol,
) {
    let create = match how {
        Refresh::Managed | Refresh::Use => NLM_F_CREATE,
        Refresh::Release => 0,
    };
    let mut flags = NTF_USE;
    if entry.is_some_and(|entry| entry.ext_learned) {
        flags |= NTF_EXT_LEARNED;
    }
    let mut message = envelope.request(RTM_NEWNEIGH, create);
    message.fixed(&ndmsg(key, NUD_NONE, flags));
    attr_addr(&mut message, NDA_DST, key.addr);
    if how == Refresh::Managed {
        message.attr_u32(NDA_FLAGS_EXT, NTF_EXT_MANAGED);
    }
    if create != 0 && entry.is_none_or(|entry| entry.neighbour.protocol == 0) {
        message.attr(NDA_PROTOCOL, &[by.0]);
    }
    message.finish();
}

fn encode_key(envelope: Envelope<'_>, kind: u16, key: &NeighbourKey) {
    let mut message = envelope.request(kind, 0);
    message.fixed(&ndmsg(key, NUD_NONE, 0));
    attr_addr(&mut message, NDA_DST, key.addr);
    message.finish();
}

fn ndmsg(key: &NeighbourKey, state: u16, flags: u8) -> [u8; NDMSG_LEN] {
    let mut ndm = [0; NDMSG_LEN];
    ndm[0] = af(Family::of(key.addr));
    ndm[4..8].copy_from_slice(&key.dev.get().to_ne_bytes());
    ndm[8..10].copy_from_slice(&state.to_ne_bytes());
    ndm[10] = flags;
    ndm
}

/// The index of `struct ifinfomsg`; `None` for messages of `AF_BRIDGE`.
fn link_index(payload: &[u8]) -> Option<IfIndex> {
    if *payload.first()? != AF_UNSPEC {
        return None;
    }
    IfIndex::new(u32_at(payload, 4)?)
}

fn decode_address(payload: &[u8], present: bool) -> Option<KernelEvent> {
    let ifa: &[u8; IFADDRMSG_LEN] = payload.first_chunk()?;
    let family = ifa[0];
    let dev = IfIndex::new(u32_at(ifa, 4)?)?;
    let (mut other, mut local) = (None, None);
    for attribute in Attributes::new(&payload[IFADDRMSG_LEN..]) {
        match attribute.ok()? {
            (IFA_ADDRESS, value) => other = address(family, value),
            (IFA_LOCAL, value) => local = address(family, value),
            _ => {}
        }
    }
    Some(KernelEvent::Address {
        dev,
        // On a point-to-point link IFA_ADDRESS is the other end's.
        addr: local.or(other)?,
        len: ifa[1],
        present,
    })
}

fn vrf_table(linkinfo: &[u8]) -> Option<TableId> {
    Attributes::new(info_data(linkinfo, b"vrf")?).find_map(|attribute| match attribute {
        Ok((IFLA_VRF_TABLE, value)) => as_u32(value).map(TableId),
        _ => None,
    })
}

/// Without its lower link, which is told beside. A kernel that names no protocol knows 802.1Q alone.
fn vlan(linkinfo: &[u8]) -> Option<VlanLink> {
    let (mut id, mut is_802_1q, mut egress_map) = (None, true, false);
    for attribute in Attributes::new(info_data(linkinfo, b"vlan")?) {
        match attribute.ok()? {
            (IFLA_VLAN_ID, value) => id = u16_at(value, 0),
            (IFLA_VLAN_PROTOCOL, value) => is_802_1q = value == ETH_P_8021Q.to_be_bytes(),
            (IFLA_VLAN_EGRESS_QOS, value) => egress_map = !value.is_empty(),
            _ => {}
        }
    }
    Some(VlanLink {
        lower: None,
        id: id?,
        is_802_1q,
        egress_map,
    })
}

/// `IFLA_INFO_DATA` of a link of that kind.
fn info_data<'a>(linkinfo: &'a [u8], kind: &[u8]) -> Option<&'a [u8]> {
    let (mut is_it, mut data) = (false, None);
    for attribute in Attributes::new(linkinfo) {
        match attribute.ok()? {
            (IFLA_INFO_KIND, value) => is_it = until_nul(value) == kind,
            (IFLA_INFO_DATA, value) => data = Some(value),
            _ => {}
        }
    }
    data.filter(|_| is_it)
}

fn info_kind(linkinfo: &[u8]) -> Option<Box<str>> {
    Attributes::new(linkinfo).find_map(|attribute| match attribute {
        Ok((IFLA_INFO_KIND, value)) => Some(String::from_utf8_lossy(until_nul(value)).into()),
        _ => None,
    })
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    let mac = MacAddr(bytes.try_into().ok()?);
    mac.is_usable().then_some(mac)
}

const fn neighbour_state(nud: u16) -> NeighbourState {
    match nud {
        0x01 => NeighbourState::Incomplete,
        0x02 => NeighbourState::Reachable,
        0x04 => NeighbourState::Stale,
        0x08 => NeighbourState::Delay,
        0x10 => NeighbourState::Probe,
        0x20 => NeighbourState::Failed,
        0x40 => NeighbourState::NoArp,
        NUD_PERMANENT => NeighbourState::Permanent,
        // The kernel never sets two; what is unknown may not be relied on.
        _ => NeighbourState::None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader};
    use netlink_packet_route::link::{
        InfoData, InfoKind, InfoVlan, InfoVrf, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        VlanProtocol, VlanQosMapping,
    };
    use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
    use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::netlink::Messages;

    fn emitted(message: &impl Emitable) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn vrf_message() -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running;
        message.attributes = vec![
            LinkAttribute::IfName("red".into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Mtu(9000),
            LinkAttribute::Controller(3),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vrf),
                LinkInfo::Data(InfoData::Vrf(vec![InfoVrf::TableId(1001)])),
            ]),
        ];
        message
    }

    #[test]
    fn a_vrf_tells_its_table() {
        let link = decode_link(&emitted(&vrf_message())).unwrap();
        assert_eq!(
            link,
            Link {
                index: IfIndex::new(7).unwrap(),
                name: "red".into(),
                admin_up: true,
                carrier: true,
                one_neighbour: false,
                mac: Some("02:00:00:00:00:01".parse().unwrap()),
                mtu: 9000,
                master: IfIndex::new(3),
                vrf_table: Some(TableId(1001)),
                kind: Some("vrf".into()),
                vlan: None,
                switch: None,
                port_name: None,
            }
        );
    }

    /// As Linux 6.18 tells of `ip link add link eth0 name eth0.100 type vlan id 100 egress-qos-map 2:3`.
    #[test]
    fn a_vlan_tells_its_tag_and_what_it_is_of() {
        let told = |info: Vec<InfoVlan>, more: Vec<LinkAttribute>| {
            let mut message = vrf_message();
            message.attributes[4] = LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(info)),
            ]);
            message.attributes.push(LinkAttribute::Link(4));
            message.attributes.extend(more);
            decode_link(&emitted(&message)).unwrap().vlan.unwrap()
        };
        let plain = VlanLink {
            lower: IfIndex::new(4),
            id: 100,
            is_802_1q: true,
            egress_map: false,
        };
        let info = vec![
            InfoVlan::Id(100),
            InfoVlan::Protocol(VlanProtocol::Ieee8021Q),
        ];
        assert_eq!(told(info.clone(), vec![]), plain);
        let elsewhere = told(info, vec![LinkAttribute::LinkNetNsId(1)]);
        assert_eq!(
            elsewhere,
            VlanLink {
                lower: None,
                ..plain
            }
        );
        let info = vec![
            InfoVlan::Id(100),
            InfoVlan::Protocol(VlanProtocol::Ieee8021Ad),
            InfoVlan::EgressQos(vec![VlanQosMapping::Mapping(2, 3)]),
        ];
        let other = VlanLink {
            is_802_1q: false,
            egress_map: true,
            ..plain
        };
        assert_eq!(told(info, vec![]), other);
        assert_eq!(decode_link(&emitted(&vrf_message())).unwrap().vlan, None);
    }

    #[test]
    fn leaving_a_bridge_is_not_the_end_of_a_link() {
        let mut message = vrf_message();
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(decode_event(RTM_DELLINK, &emitted(&message)), None);
        assert_eq!(decode_event(RTM_NEWLINK, &emitted(&message)), None);
    }

    #[test]
    fn a_point_to_point_address_is_our_end() {
        let payload = [
            &[2u8, 31, 0, 0][..],
            &9u32.to_ne_bytes(),
            &[8, 0, 1, 0, 10, 0, 0, 2, 8, 0, 2, 0, 10, 0, 0, 1],
        ]
        .concat();
        assert_eq!(
            decode_event(RTM_DELADDR, &payload),
            Some(KernelEvent::Address {
                dev: IfIndex::new(9).unwrap(),
                addr: "10.0.0.1".parse().unwrap(),
                len: 31,
                present: false,
            })
        );
    }

    fn request(encode: impl FnOnce(Envelope<'_>)) -> (Vec<u8>, NeighbourMessage) {
        let mut buffer = Vec::new();
        encode(Envelope {
            buffer: &mut buffer,
            seq: 1,
        });
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        let mut header = NetlinkHeader::default();
        header.message_type = RTM_NEWNEIGH;
        let parsed = RouteNetlinkMessage::deserialize(&header, message.payload).unwrap();
        let payload = message.payload.to_vec();
        match parsed {
            RouteNetlinkMessage::NewNeighbour(parsed) => (payload, parsed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn neighbour_requests_read_back() {
        let key = NeighbourKey {
            dev: IfIndex::new(4).unwrap(),
            addr: "fe80::1".parse().unwrap(),
        };
        let mac = "02:00:00:00:00:09".parse().unwrap();
        let (payload, _) = request(|e| encode_put_neighbour(e, &key, mac, Protocol(1)));
        let entry = decode_neighbour(&payload).unwrap();
        assert_eq!(
            entry.neighbour,
            Neighbour {
                key,
                mac: Some(mac),
                state: NeighbourState::Permanent,
                router: false,
                protocol: 1,
                managed: false,
            }
        );

        let (payload, parsed) =
            request(|e| encode_refresh(e, &key, Refresh::Managed, None, Protocol(1)));
        assert!(decode_neighbour(&payload).unwrap().neighbour.managed);
        assert!(
            parsed
                .attributes
                .iter()
                .any(|a| matches!(a, NeighbourAttribute::ExtFlags(_)))
        );

        let learned = NeighbourEntry {
            ext_learned: true,
            ..entry
        };
        let (payload, _) =
            request(|e| encode_refresh(e, &key, Refresh::Release, Some(&learned), Protocol(1)));
        let read = decode_neighbour(&payload).unwrap();
        assert!(read.ext_learned && !read.neighbour.managed && read.neighbour.protocol == 0);
    }

    #[test]
    fn multicast_and_bridge_neighbours_are_dropped() {
        let group = NeighbourKey {
            dev: IfIndex::new(4).unwrap(),
            addr: "ff02::1".parse().unwrap(),
        };
        let (mut payload, _) = request(|e| encode_get_neighbour(e, &group));
        assert_eq!(decode_neighbour(&payload), None);
        payload[0] = 7;
        assert_eq!(decode_neighbour(&payload), None);
    }

    proptest! {
        #[test]
        fn noise_never_panics(kind in 16u16..31, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _: Option<KernelEvent> = decode_event(kind, &bytes);
        }
    }
}
