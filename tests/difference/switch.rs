//! The simulated switch between two namespaces: here the representors, whose kernel routes; over there all far ends, where
//! nobody lives. Frames go in at far ends, and who dealt with each is told by where it is seen:
//!
//! | at the representor it came in by | at a far end | |
//! | --- | --- | --- |
//! | no | yes | hardware forwarded it, that frame out of that port |
//! | no | no | hardware dropped it |
//! | yes | perhaps | handed to the kernel, which forwarded it or not |
//!
//! Ports and their VLAN sub-interfaces are in the default VRF or in one of two others, and may be moved while the test runs.
//!
//! With `bypass` every frame is handed over: the kernel's own treatment of the same packets, while the rules stay.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Instant;

use frr_offload::model::{Family, IfIndex, MacAddr, TableId};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto,
    setsockopt, socket, sockopt,
};
use nix::unistd::Pid;

use super::netns::{DEADLINE, Peer, ip, ip_json};
use super::packets::{Packet, number_of};

/// The representors, and their far ends; then VLAN sub-interfaces on both.
pub const PORTS: [(&str, &str); 11] = [
    ("pf0vf0", "vf0_0"),
    ("pf0vf1", "vf0_1"),
    ("p0", "wire0"),
    ("pf0vf2", "vf0_2"),
    ("pf0vf3", "vf0_3"),
    ("pf0vf4", "vf0_4"),
    ("pf0vf5", "vf0_5"),
    ("v1x7", "w1x7"),
    ("v1x9", "w1x9"),
    ("v2x7", "w2x7"),
    ("v3x7", "w3x7"),
];
/// What each sits on: itself, or the port of a VLAN sub-interface; and the VLAN, 0 for none.
pub const LOWER: [usize; PORTS.len()] = [0, 1, 2, 3, 4, 5, 6, 1, 1, 2, 3];
pub const VLANS: [u8; PORTS.len()] = [0, 0, 0, 0, 0, 0, 0, 7, 9, 7, 7];
/// The VRF that each is in at first, as a place in [`VRFS`].
pub const HOMES: [usize; PORTS.len()] = [0, 0, 0, 1, 1, 2, 2, 0, 0, 2, 1];
/// The default VRF and two more, their tables, and a link in each that is no port.
pub const VRFS: [(&str, TableId, &str); 3] = [
    ("main", TableId::MAIN, "other"),
    ("red", TableId(101), "other1"),
    ("blue", TableId(102), "other2"),
];
pub const MTU: usize = 1500;

const BYPASS: &str = "/sys/kernel/debug/eswitch-sim/bypass";
/// More than a batch and what the kernel says to it.
const RECEIVE_BUFFER: usize = 32 << 20;
/// `PACKET_OUTGOING`.
const OUTGOING: u8 = 4;
/// The first local experimental `EtherType`: always the slow path, and nobody takes it there.
const LAST: [u8; 2] = [0x88, 0xb5];

/// The router's address on a port.
pub fn own(family: Family, port: usize) -> IpAddr {
    in_subnet(family, port, 1)
}

/// Neighbours 0 to 2 of a port are there, others not.
pub fn neighbour(family: Family, port: usize, number: usize) -> IpAddr {
    in_subnet(family, port, 2 + number as u8)
}

fn in_subnet(family: Family, port: usize, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 50, port as u8, host).into(),
        Family::V6 => Ipv6Addr::new(
            0x2001,
            0xdb8,
            0x50 + port as u16,
            0,
            0,
            0,
            0,
            u16::from(host),
        )
        .into(),
    }
}

/// The link-local address of a router behind a port.
pub fn link_local(port: usize, number: usize) -> IpAddr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, port as u16, 2 + number as u16).into()
}

fn first_mac(port: usize, number: usize) -> MacAddr {
    MacAddr([2, 0, 0, 1, port as u8, number as u8])
}

/// What was seen of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub handed: bool,
    /// The port and the frame of each copy that came out.
    pub out: Vec<(usize, Vec<u8>)>,
}

pub struct TestSwitch {
    /// Keeps the other namespace.
    _peer: Peer,
    indices: [u32; PORTS.len()],
    /// What each port's own is.
    pub macs: [MacAddr; PORTS.len()],
    /// The VRF that each is in.
    pub vrfs: [usize; PORTS.len()],
    here: OwnedFd,
    there: OwnedFd,
    /// The far ends, to send on and by their ifindex over there.
    to: Vec<LinkAddr>,
    batches: u32,
}

fn listener() -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        flags,
        SockProtocol::EthAll,
    )
    .unwrap();
    setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).unwrap();
    fd
}

impl TestSwitch {
    pub fn new() -> Self {
        for sysctl in [
            "ipv4/ip_forward=1",
            "ipv6/conf/all/forwarding=1",
            "ipv4/conf/all/rp_filter=0",
            "ipv6/conf/all/keep_addr_on_down=1",
            "ipv6/conf/default/accept_dad=0",
            "ipv4/fib_multipath_hash_policy=0",
        ] {
            let (key, value) = sysctl.split_once('=').unwrap();
            fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
        }
        let load = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/eswitch-sim/load");
        let loaded = Command::new(load).args(["pfs=1", "vfs=6"]).status();
        assert!(loaded.unwrap().success(), "{load}");
        for (name, table, other) in VRFS {
            ip(&format!("link add {other} type dummy"));
            if table != TableId::MAIN {
                ip(&format!("link add {name} type vrf table {table}"));
                ip(&format!("link set {name} up"));
                ip(&format!("link set {other} master {name}"));
            }
            ip(&format!("link set {other} up"));
        }
        // As the kernel's documentation wants it; packets of the other VRF that find no route there are looked up in the main table.
        for family in ["-4", "-6"] {
            ip(&format!(
                "{family} route add unreachable default metric 4278198272 vrf red"
            ));
        }
        let peer = Peer::new();
        let mut macs = [MacAddr([0; 6]); PORTS.len()];
        for (port, (name, far)) in PORTS.into_iter().enumerate() {
            let (lower, vlan) = (LOWER[port], VLANS[port]);
            let on = |name: &str, on: &str| {
                format!("link add link {on} name {name} type vlan id {vlan}")
            };
            if lower != port {
                ip(&on(name, PORTS[lower].0));
                peer.ip(&on(far, PORTS[lower].1));
            }
            macs[port] = MacAddr([2, 0, 0, 0, 0, lower as u8]);
            if HOMES[port] != 0 {
                ip(&format!("link set {name} master {}", VRFS[HOMES[port]].0));
            }
            for key in ["ipv4/conf/NAME/rp_filter=0", "ipv6/conf/NAME/accept_dad=0"] {
                let (key, value) = key.split_once('=').unwrap();
                fs::write(
                    format!("/proc/sys/net/{}", key.replace("NAME", name)),
                    value,
                )
                .unwrap();
            }
            if lower == port {
                ip(&format!("link set {far} netns {}", peer.tid));
            }
            peer.run(move || {
                let key = format!("/proc/thread-self/../../sys/net/ipv6/conf/{far}/disable_ipv6");
                // Where it can't be set, what the far end says of itself is not taken for a packet of ours.
                let _ = fs::write(key, "1");
                ip(&format!("link set {far} mtu 9000 arp off up"));
            });
            ip(&format!(
                "link set {name} address {} mtu {MTU} up",
                macs[port]
            ));
            ip(&format!("addr add {}/24 dev {name}", own(Family::V4, port)));
            ip(&format!("addr add {}/64 dev {name}", own(Family::V6, port)));
        }
        ip("addr add 10.0.0.1/32 dev lo");
        let to = peer.run(|| {
            let found: Vec<_> = getifaddrs().unwrap().collect();
            let link = |name: &str| {
                let mut of_it = found.iter().filter(|found| found.interface_name == name);
                let link = of_it.find_map(|found| found.address.as_ref()?.as_link_addr());
                *link.unwrap()
            };
            PORTS.map(|(_, far)| link(far)).to_vec()
        });
        let switch = Self {
            there: peer.run(listener),
            here: listener(),
            indices: PORTS.map(|(name, _)| nix::net::if_::if_nametoindex(name).unwrap()),
            _peer: peer,
            macs,
            vrfs: HOMES,
            to,
            batches: 0,
        };
        (0..PORTS.len()).for_each(Self::neighbours);
        switch
    }

    /// All that goes through the switch is done on the sender's CPU, so that what was sent first is seen first.
    pub fn stay_on_one_cpu() {
        let mut one = CpuSet::new();
        one.set(0).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    }

    /// Moves a port. Its neighbours are forgotten, if it is up.
    pub fn enslave(&mut self, port: usize, vrf: usize) {
        let name = PORTS[port].0;
        match vrf {
            0 => ip(&format!("link set {name} nomaster")),
            vrf => ip(&format!("link set {name} master {}", VRFS[vrf].0)),
        };
        self.vrfs[port] = vrf;
    }

    /// The table that packets are looked up in which come in by a port.
    pub fn table_of(&self, port: usize) -> TableId {
        VRFS[self.vrfs[port]].1
    }

    /// A port and its VLAN sub-interfaces, or one of these.
    pub fn and_uppers(port: usize) -> impl Iterator<Item = usize> {
        (0..PORTS.len()).filter(move |&upper| upper == port || LOWER[upper] == port)
    }

    pub fn ifindex(&self, port: usize) -> IfIndex {
        IfIndex::new(self.indices[port]).unwrap()
    }

    pub fn port_of(&self, ifindex: u32) -> Option<usize> {
        self.indices.iter().position(|&index| index == ifindex)
    }

    /// Who lives behind a port: the kernel forgets them when it goes down.
    pub fn neighbours(port: usize) {
        for number in 0..3 {
            let at = [
                neighbour(Family::V4, port, number),
                neighbour(Family::V6, port, number),
                link_local(port, number),
            ];
            for addr in at {
                Self::neighbour_is(port, addr, first_mac(port, number));
            }
        }
    }

    pub fn neighbour_is(port: usize, addr: IpAddr, mac: MacAddr) {
        ip(&format!(
            "neigh replace {addr} lladdr {mac} dev {} nud permanent",
            PORTS[port].0
        ));
    }

    /// The kernel's neighbours at the ports.
    pub fn known_neighbours() -> BTreeMap<(usize, IpAddr), MacAddr> {
        let list = ip_json("neigh show");
        let known = list.as_array().unwrap().iter().filter_map(|entry| {
            let port = PORTS.iter().position(|(name, _)| entry["dev"] == *name)?;
            let mut mac = [0; 6];
            for (byte, text) in mac.iter_mut().zip(entry["lladdr"].as_str()?.split(':')) {
                *byte = u8::from_str_radix(text, 16).unwrap();
            }
            Some(((port, entry["dst"].as_str()?.parse().ok()?), MacAddr(mac)))
        });
        known.collect()
    }

    /// What the kernel does with these packets, without rules.
    pub fn by_kernel(&mut self, packets: &[Packet]) -> Vec<Seen> {
        fs::write(BYPASS, "1").unwrap();
        let seen = self.pass(packets);
        fs::write(BYPASS, "0").unwrap();
        assert!(
            seen.iter().all(|seen| seen.handed),
            "bypass hands everything to the kernel"
        );
        seen
    }

    /// Sends a batch, and says what became of each packet.
    pub fn pass(&mut self, packets: &[Packet]) -> Vec<Seen> {
        let mut seen = vec![Seen::default(); packets.len()];
        // The kernel queues no more than a thousand.
        for part in packets.chunks(128) {
            for packet in part {
                self.send(packet.ingress, &packet.frame);
            }
            // When the second has come through, the kernel is done with what it made of all before the first.
            self.drain(&mut seen);
            self.drain(&mut seen);
        }
        seen
    }

    fn send(&self, port: usize, frame: &[u8]) {
        let sent = sendto(
            self.there.as_raw_fd(),
            frame,
            &self.to[LOWER[port]],
            MsgFlags::empty(),
        );
        assert_eq!(sent, Ok(frame.len()), "at {}", PORTS[port].1);
    }

    /// Sends a frame of another kind and reads until that one comes. It goes in by the first port, which is never down.
    fn drain(&mut self, seen: &mut [Seen]) {
        self.batches += 1;
        let last = [
            &[0xff; 6][..],
            &[2, 0, 0, 9, 9, 9],
            &LAST,
            &self.batches.to_be_bytes(),
            &[0; 42],
        ]
        .concat();
        self.send(0, &last);
        let end = Instant::now() + DEADLINE;
        let mut done = false;
        while !done {
            read(&self.here, |at, frame| {
                done |= frame.get(..18) == Some(&last[..18]);
                if let (Some(_), Some(seen)) = (self.port_of(at), known(seen, frame)) {
                    seen.handed = true;
                }
            });
            assert!(done || Instant::now() < end, "the switch keeps a frame");
            if !done {
                thread::yield_now();
            }
        }
        read(&self.there, |at, frame| {
            let port = self.to.iter().position(|to| to.ifindex() == at as usize);
            if let (Some(port), Some(seen)) = (port, known(seen, frame)) {
                // A tagged one is seen twice, without its tag: at the far end, then at the sub-interface of its VLAN.
                let upper = LOWER[port] != port;
                let last = seen.out.last_mut();
                match last.filter(|last| upper && last.0 == LOWER[port]) {
                    Some(last) => last.0 = port,
                    None => seen.out.push((port, frame.to_vec())),
                }
            }
        });
    }
}

fn known<'a>(seen: &'a mut [Seen], frame: &[u8]) -> Option<&'a mut Seen> {
    seen.get_mut(number_of(frame)? as usize)
}

/// All frames that came in, with their ifindex.
fn read(socket: &OwnedFd, mut take: impl FnMut(u32, &[u8])) {
    let mut buffer = [0; 10_000];
    loop {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((len, Some(from))) if from.pkttype() != OUTGOING => {
                take(from.ifindex() as u32, &buffer[..len]);
            }
            Ok(_) => {}
            Err(Errno::EAGAIN) => return,
            Err(error) => panic!("{error}"),
        }
    }
}
