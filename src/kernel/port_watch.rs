//! The thread that listens for what only the offload needs of ports: devlink's instances and ports, `hw-tc-offload`,
//! forwarding and reverse-path filters, `ip rule`, and what filters forwarded packets. Decides nothing; `view::ports` puts it together.
//!
//! Subscribes first, reads the lists second, then follows. A change of devlink, a link with a switch id that comes or goes,
//! or a changed feature is only the news that something changed: once the queues are empty, devlink and the features of all
//! ports are read again as a whole, and `ip rule` and filters likewise. That is rare, and a burst of a hundred ports is read once. The
//! kernel does not say when an eswitch mode is set, only that ports come and go while it is; asking for the mode waits until
//! it is set.
//!
//! Works without devlink, ethtool's netlink and nftables. [`Listener::refresh`] is for the engine's audit.

use std::io;

use crossbeam_channel::Sender;
use nix::errno::Errno as OsErrno;
use rustc_hash::FxHashSet;

use super::DumpSocket;
use super::filter_lists::FilterLists;
use super::listener::{Hear, Listener, Why};
use super::port_lists::PortLists;
use super::socket::RtnlSocket;
use crate::model::{Errno, Event, Family, IfIndex, KernelEvent, OffloadEvent};
use crate::wire::devlink::{DEVLINK_GROUP, is_change};
use crate::wire::ethtool::{ETHTOOL_GROUP, decode_changed};
use crate::wire::genl::GenlFamily;
use crate::wire::netlink::Message;
use crate::wire::rtnl_conf::{
    RTM_DELRULE, RTM_NEWNETCONF, RTM_NEWRULE, decode_conf, decode_rule, encode_conf_dump,
    encode_rule_dump, policy_rules,
};
use crate::wire::rtnl_link::decode_event;

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_RULE: u32 = 8;
const RTNLGRP_IPV6_RULE: u32 = 19;
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const RTNLGRP_IPV6_NETCONF: u32 = 25;

// Which socket a message came by.
const RTNL: usize = 0;
const GENL: usize = 1;

/// What listens.
#[derive(Debug)]
pub struct PortWatch {
    dumps: DumpSocket,
    lists: PortLists,
    filters: FilterLists,
    stale: Stale,
    /// Links with a switch id.
    switch_links: FxHashSet<IfIndex>,
    /// These, and links with a devlink port.
    ports: FxHashSet<IfIndex>,
}

/// What must be read again.
#[allow(clippy::struct_excessive_bools, reason = "one a list")]
#[derive(Debug, Default)]
struct Stale {
    ports: bool,
    features: FxHashSet<IfIndex>,
    rules: bool,
    confs: bool,
    filters: bool,
}

impl PortWatch {
    /// Subscribes here, so that errors surface, and starts the thread, which reads the lists first.
    pub fn start(receive_buffer: usize, tx: Sender<Event>) -> io::Result<Listener> {
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
        let (filters, transactions) = FilterLists::open()?;
        let watch = Self {
            dumps: DumpSocket::open()?,
            lists,
            filters,
            stale: Stale::default(),
            switch_links: FxHashSet::default(),
            ports: FxHashSet::default(),
        };
        let sockets = [rtnl, genl].into_iter().chain(transactions);
        Listener::start(sockets.collect(), watch, tx)
    }

    /// Reads what is stale. A list that can't be read is reported in its place.
    fn read_again(&mut self, events: &mut Vec<OffloadEvent>) {
        let stale = std::mem::take(&mut self.stale);
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
            let rules = rules.map(|rules| OffloadEvent::PolicyRules(policy_rules(rules)));
            events.push(rules.unwrap_or_else(OffloadEvent::DumpFailed));
        }
        if stale.filters {
            events.push(OffloadEvent::PacketFilters(self.filters.read()));
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

    fn hear_rtnl(&mut self, message: &Message<'_>, events: &mut Vec<OffloadEvent>) {
        match message.kind {
            RTM_NEWNETCONF => events.extend(decode_conf(message.payload)),
            RTM_NEWRULE | RTM_DELRULE => self.stale.rules = true,
            kind => match decode_event(kind, message.payload) {
                Some(KernelEvent::Link(link)) => {
                    let was = self.switch_links.contains(&link.index);
                    self.stale.ports |= link.switch.is_some() != was;
                }
                Some(KernelEvent::LinkGone(dev)) => self.stale.ports |= self.ports.contains(&dev),
                _ => {}
            },
        }
    }

    fn hear_genl(&mut self, message: &Message<'_>) {
        let is = |family: &Option<GenlFamily>| {
            family
                .as_ref()
                .is_some_and(|family| family.id == message.kind)
        };
        if is(&self.lists.devlink) {
            self.stale.ports |= is_change(message.payload);
        } else if is(&self.lists.ethtool) {
            let changed = decode_changed(message.payload).filter(|dev| self.ports.contains(dev));
            self.stale.features.extend(changed);
        }
    }
}

impl Hear for PortWatch {
    type Heard = OffloadEvent;
    const NAME: &'static str = "port-watch";

    fn lists(&mut self, _: Why, _: &mut Vec<OffloadEvent>) {
        self.stale = Stale {
            ports: true,
            features: FxHashSet::default(),
            rules: true,
            confs: true,
            filters: true,
        };
    }

    fn quiet(&mut self, heard: &mut Vec<OffloadEvent>) {
        self.read_again(heard);
    }

    fn hear(&mut self, socket: usize, message: &Message<'_>, heard: &mut Vec<OffloadEvent>) {
        match socket {
            RTNL => self.hear_rtnl(message, heard),
            GENL => self.hear_genl(message),
            _ => self.stale.filters = true,
        }
    }
}
