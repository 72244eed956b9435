//! The thread that listens for what only the offload needs of ports: devlink's instances and ports, `hw-tc-offload`,
//! forwarding and reverse-path filters, and `ip rule`. Decides nothing; `view::ports` puts it together.
//!
//! Subscribes first, reads the lists second, then follows. A change of devlink, a link with a switch id that comes or goes,
//! or a changed feature is only the news that something changed: once the queues are empty, devlink and the features of all
//! ports are read again as a whole, and `ip rule` likewise. That is rare, and a burst of a hundred ports is read once. The
//! kernel does not say when an eswitch mode is set, only that ports come and go while it is; asking for the mode waits until
//! it is set.
//!
//! Works without devlink and without ethtool's netlink. [`PortWatch::refresh`] is for the engine's audit.

use std::convert::Infallible;
use std::io;

use crossbeam_channel::Sender;
use nix::errno::Errno as OsErrno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustc_hash::FxHashSet;

use super::DumpSocket;
use super::port_lists::PortLists;
use super::socket::{RtnlSocket, Wait, is_overrun};
use super::watch::{End, MAX_EVENTS, Seat, Watch};
use crate::model::{Errno, Event, Family, IfIndex, KernelEvent, OffloadEvent};
use crate::wire::devlink::{DEVLINK_GROUP, is_change};
use crate::wire::ethtool::{ETHTOOL_GROUP, decode_changed};
use crate::wire::netlink::Messages;
use crate::wire::rtnl_conf::{
    RTM_DELRULE, RTM_NEWNETCONF, RTM_NEWRULE, decode_conf, decode_rule, encode_conf_dump,
    encode_rule_dump,
};
use crate::wire::rtnl_link::decode_event;

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_RULE: u32 = 8;
const RTNLGRP_IPV6_RULE: u32 = 19;
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const RTNLGRP_IPV6_NETCONF: u32 = 25;

/// The listening thread; ends when it is dropped.
#[derive(Debug)]
pub struct PortWatch(Watch);

impl PortWatch {
    /// Subscribes here, so that errors surface, and starts the thread, which reads the lists first.
    pub fn start(receive_buffer: usize, tx: Sender<Event>) -> io::Result<Self> {
        let rtnl = RtnlSocket::open(receive_buffer)?;
        for group in [
            RTNLGRP_LINK,
            RTNLGRP_IPV4_RULE,
            RTNLGRP_IPV6_RULE,
            RTNLGRP_IPV4_NETCONF,
            RTNLGRP_IPV6_NETCONF,
        ] {
            rtnl.join(group)?;
        }
        let genl = RtnlSocket::generic(receive_buffer)?;
        let lists = PortLists::open()?;
        for (family, group) in [
            (&lists.devlink, DEVLINK_GROUP),
            (&lists.ethtool, ETHTOOL_GROUP),
        ] {
            if let Some(number) = family.as_ref().and_then(|family| family.group(group)) {
                genl.join(number)?;
            }
        }
        let waker = rtnl.sender();
        let dumps = DumpSocket::open()?;
        Watch::start("port-watch", waker, tx, move |seat| {
            let mut listener = Listener {
                rtnl,
                genl,
                dumps,
                lists,
                seat,
                switch_links: FxHashSet::default(),
                ports: FxHashSet::default(),
            };
            match listener.listen() {
                Err(end) => end,
                Ok(never) => match never {},
            }
        })
        .map(Self)
    }

    /// Asks for everything anew.
    pub fn refresh(&self) -> io::Result<()> {
        self.0.refresh()
    }

    /// Whether the thread has ended: a fault, or the engine is gone.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// What must be read again.
#[derive(Debug, Default)]
struct Stale {
    ports: bool,
    features: FxHashSet<IfIndex>,
    rules: bool,
    confs: bool,
}

impl Stale {
    fn all() -> Self {
        Self {
            ports: true,
            features: FxHashSet::default(),
            rules: true,
            confs: true,
        }
    }
}

#[derive(Debug)]
struct Listener {
    rtnl: RtnlSocket,
    genl: RtnlSocket,
    dumps: DumpSocket,
    lists: PortLists,
    seat: Seat,
    /// Links with a switch id.
    switch_links: FxHashSet<IfIndex>,
    /// These, and links with a devlink port.
    ports: FxHashSet<IfIndex>,
}

impl Listener {
    fn listen(&mut self) -> Result<Infallible, End> {
        let mut stale = Stale::all();
        let mut events = Vec::new();
        loop {
            if self.seat.asked()? {
                stale = Stale::all();
            }
            self.read_again(&mut stale, &mut events);
            self.seat.hand_over(std::mem::take(&mut events))?;
            self.wait()?;
            let mut overrun = self.follow_rtnl(&mut stale, &mut events)?;
            overrun |= self.follow_genl(&mut stale)?;
            if overrun {
                tracing::warn!("the kernel dropped notifications; reading the ports again");
                events.push(OffloadEvent::Overrun);
                stale = Stale::all();
            }
        }
    }

    fn wait(&self) -> Result<(), End> {
        let mut sockets =
            [&self.rtnl, &self.genl].map(|socket| PollFd::new(socket.fd(), PollFlags::POLLIN));
        loop {
            match poll(&mut sockets, PollTimeout::NONE) {
                Ok(_) => return Ok(()),
                Err(OsErrno::EINTR) => {}
                Err(errno) => return Err(End::Io(errno.into())),
            }
        }
    }

    /// Takes what is queued, up to a limit; whether something was dropped.
    fn follow_rtnl(
        &mut self,
        stale: &mut Stale,
        events: &mut Vec<OffloadEvent>,
    ) -> Result<bool, End> {
        while events.len() < MAX_EVENTS {
            let datagram = match self.rtnl.receive(Wait::Now) {
                Ok(datagram) => datagram,
                Err(error) => return overrun_or_end(error, &mut self.rtnl),
            };
            for message in Messages::new(datagram).map_while(Result::ok) {
                match message.kind {
                    RTM_NEWNETCONF => events.extend(decode_conf(message.payload)),
                    RTM_NEWRULE | RTM_DELRULE => stale.rules = true,
                    kind => match decode_event(kind, message.payload) {
                        Some(KernelEvent::Link(link)) => {
                            let was = self.switch_links.contains(&link.index);
                            stale.ports |= link.switch.is_some() != was;
                        }
                        Some(KernelEvent::LinkGone(dev)) => {
                            stale.ports |= self.ports.contains(&dev);
                        }
                        _ => {}
                    },
                }
            }
        }
        Ok(false)
    }

    fn follow_genl(&mut self, stale: &mut Stale) -> Result<bool, End> {
        let id = |family: &Option<_>| {
            family
                .as_ref()
                .map(|f: &crate::wire::genl::GenlFamily| f.id)
        };
        let (devlink, ethtool) = (id(&self.lists.devlink), id(&self.lists.ethtool));
        loop {
            let datagram = match self.genl.receive(Wait::Now) {
                Ok(datagram) => datagram,
                Err(error) => return overrun_or_end(error, &mut self.genl),
            };
            for message in Messages::new(datagram).map_while(Result::ok) {
                if Some(message.kind) == devlink {
                    stale.ports |= is_change(message.payload);
                } else if Some(message.kind) == ethtool {
                    let changed = decode_changed(message.payload);
                    stale
                        .features
                        .extend(changed.filter(|dev| self.ports.contains(dev)));
                }
            }
        }
    }

    /// Reads what is stale. A list that can't be read is reported in its place.
    fn read_again(&mut self, stale: &mut Stale, events: &mut Vec<OffloadEvent>) {
        let stale = std::mem::take(stale);
        let mut features = stale.features;
        if stale.ports {
            match self.read_ports(events) {
                Ok(()) => features.extend(&self.ports),
                Err(errno) => events.push(OffloadEvent::DumpFailed(errno)),
            }
        }
        let mut features: Vec<_> = features.into_iter().collect();
        features.sort_unstable();
        for dev in features {
            match self.lists.feature(dev) {
                Ok(Some(feature)) => events.push(OffloadEvent::Feature(dev, feature)),
                Ok(None) => {}
                Err(errno) => events.push(OffloadEvent::DumpFailed(errno)),
            }
        }
        if stale.confs {
            for family in [Family::V4, Family::V6] {
                let confs = self.dumps.list(
                    |envelope| encode_conf_dump(envelope, family),
                    RTM_NEWNETCONF,
                    decode_conf,
                );
                match confs {
                    Ok(confs) => events.extend(confs),
                    // A kernel without this family.
                    Err(Errno(code)) if code == OsErrno::EOPNOTSUPP as i32 => {}
                    Err(errno) => events.push(OffloadEvent::DumpFailed(errno)),
                }
            }
        }
        if stale.rules {
            let rules = self.dumps.list(encode_rule_dump, RTM_NEWRULE, decode_rule);
            let rules = rules.map(OffloadEvent::PolicyRules);
            events.push(rules.unwrap_or_else(OffloadEvent::DumpFailed));
        }
    }

    fn read_ports(&mut self, events: &mut Vec<OffloadEvent>) -> Result<(), Errno> {
        let links = self.dumps.links()?;
        let devlink = self.lists.devlink()?;
        let of_switches = links.iter().filter(|link| link.switch.is_some());
        self.switch_links = of_switches.map(|link| link.index).collect();
        self.ports.clone_from(&self.switch_links);
        if let OffloadEvent::Devlink { ports, .. } = &devlink {
            self.ports.extend(ports.iter().map(|port| port.dev));
        }
        events.push(devlink);
        Ok(())
    }
}

/// What the end of a queue is: empty, overrun (then the rest is older than what was dropped), or broken.
fn overrun_or_end(error: io::Error, socket: &mut RtnlSocket) -> Result<bool, End> {
    match error {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        error if is_overrun(&error) => {
            socket.drain();
            Ok(true)
        }
        error => Err(End::Io(error)),
    }
}
