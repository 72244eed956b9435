//! Which block a port's rules hang in: one that the ports of a switch share, where the driver can, or one of its own. Pure.
//!
//! In a shared block a rule is written once for all ports. A port without ingress qdisc joins; one that has a plain clsact keeps it.
//!
//! ```text
//! clsact with the block -> qdiscs listed -> a trial rule, as admission: indev, goto; in hardware at every port that is bound?
//!                                             yes: proven, it may admit
//!                                             no:  the qdisc goes again, a plain one comes: a block of its own
//! ```
//!
//! A port whose driver refuses the block is bound in software without a word, and from then on the block refuses every rule that
//! must be in hardware, for all ports (seen on Linux 6.12). So ports join one at a time, and while one does ([`Sharing::is_busy`])
//! nothing else may be written. Two that can't, before two that can, speak for the driver: the others are not tried. The flat layout
//! has no admission that would tell ports apart, so nothing is shared there. A VLAN sub-interface has no qdisc of its own: its rules hang
//! with those of its port ([`Port::home`]), which joins for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;

use crate::model::{
    Block, Chain, EtherProto, Family, FlowerRule, Handle, IfIndex, InHardware, MacAddr, Prio,
    Refusal, RuleAction, RuleMatch, RuleOpKind, RulePlace, Runs, SwitchId,
};
use crate::plan::{is_our_block, our_blocks, probe_mark};
use crate::view::ports::{FilterPlace, Port};

/// Where the trial rule stands: beside the questions of the probe, where nothing leads.
const TRIAL: u32 = 0x0b8_0002;
const NO_SUCH: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0xfe]);
const EEXIST: i32 = 17;
const ENOSPC: i32 = 28;
const ENOBUFS: i32 = 105;

/// What the ports of a switch share. The default shares nothing.
#[derive(Debug, Default)]
pub(in crate::engine) struct Sharing {
    home: Option<NonZeroU32>,
    /// Links that are bound to it, ours or not.
    bound: usize,
    /// Ports in it whose driver has the trial rule.
    proven: BTreeSet<IfIndex>,
    /// Ports that could not join, and the driver's words.
    apart: BTreeMap<IfIndex, Box<str>>,
    /// What is to be done for the one that joins; nothing else is written meanwhile.
    steps: VecDeque<RuleOpKind>,
    asked: Option<RuleOpKind>,
    /// Whom the trial is about.
    on_trial: Vec<IfIndex>,
    /// A port joined: until the rules are read back they are known to be in hardware at the others only.
    recounts: bool,
    /// Whoever is in the block has to leave.
    dissolved: bool,
}

/// What an answer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Joined {
    /// Nothing yet.
    NotYet,
    /// Ports may admit now.
    Proven,
    /// This one has a block of its own.
    Apart(IfIndex),
}

impl Sharing {
    /// Chooses the block once it is known which there are: that of an earlier run, or one that nobody has.
    pub(super) fn choose(
        &mut self,
        id: &SwitchId,
        ports: &[Port],
        bound: &BTreeMap<NonZeroU32, usize>,
        homes: &BTreeSet<NonZeroU32>,
    ) {
        if self.home.is_none() {
            let mut blocks = ports.iter().filter_map(|port| port.qdisc?.block);
            let left = blocks.find(|number| is_our_block(*number) && !homes.contains(number));
            let free = |n: &NonZeroU32| !bound.contains_key(n) && !homes.contains(n);
            self.home = left.or_else(|| our_blocks(id).find(free));
        }
    }

    /// The layout serves blocks of one port only.
    pub(super) const fn dissolve(&mut self) {
        self.dissolved = true;
    }

    /// The number of the block.
    pub(super) const fn home(&self) -> Option<NonZeroU32> {
        self.home
    }

    /// Takes in which ports there are, and who is bound to which block.
    pub(super) fn update(&mut self, ports: &[Port], bound: &BTreeMap<NonZeroU32, usize>) {
        let home = |n| bound.get(&n).copied().unwrap_or(0);
        self.bound = self.home.map_or(0, home);
        let mut proven = std::mem::take(&mut self.proven);
        proven.retain(|dev| ports.iter().any(|p| p.dev == *dev && self.is_home(p)));
        self.proven = proven;
        self.apart
            .retain(|dev, _| ports.iter().any(|port| port.dev == *dev));
    }

    /// Where rules of a port can hang; `None` without a qdisc that is fit, or when it is somebody else's.
    pub(in crate::engine) fn block_of(&self, port: &Port) -> Option<Block> {
        let qdisc = port.qdisc.filter(|qdisc| qdisc.clsact)?;
        match qdisc.block {
            None => Some(Block::Port(port.home())),
            Some(number) if self.home == Some(number) => Some(Block::Shared(number)),
            Some(_) => None,
        }
    }

    /// The same, once it is known that its driver takes part.
    pub(in crate::engine) fn ready_block_of(&self, port: &Port) -> Option<Block> {
        let joined = !self.dissolved && self.proven.contains(&port.home());
        self.block_of(port)
            .filter(|block| *block == Block::Port(port.home()) || joined)
    }

    /// What is read back for a port.
    pub(super) fn listed_block_of(&self, port: &Port) -> Block {
        self.block_of(port).unwrap_or(Block::Port(port.home()))
    }

    /// The families that a port may admit packets of.
    pub(in crate::engine) fn admits(&self, port: &Port) -> [bool; 2] {
        // Somebody's shared block, or an `ingress` qdisc, can't have rules of ours beside.
        let taken = port.qdisc.is_some() && self.block_of(port).is_none();
        [Family::V4, Family::V6].map(|family| !taken && port.refusals(family).is_empty())
    }

    /// Whether filter rules of a port hang at it, whether it admits packets to the routes or not.
    pub(in crate::engine) fn filters(&self, port: &Port) -> bool {
        let taken = port.qdisc.is_some() && self.block_of(port).is_none();
        !taken && port.can_filter()
    }

    /// Whether rules of a port are the driver's.
    pub(in crate::engine) fn needs_driver(&self, port: &Port) -> bool {
        let filters = port.filters == Some(FilterPlace::Hardware) && self.filters(port);
        filters || self.admits(port) != [false, false]
    }

    /// At how many ports a rule of a block should be.
    pub(in crate::engine) fn ports_of(&self, block: Block) -> usize {
        match block {
            Block::Port(_) => 1,
            Block::Shared(_) => self.bound,
        }
    }

    /// Whether a rule is in hardware at every port of its block.
    pub(in crate::engine) fn is_everywhere(&self, block: Block, hardware: InHardware) -> bool {
        let everywhere = match block {
            Block::Port(_) => true,
            Block::Shared(_) => hardware.count as usize >= self.bound,
        };
        hardware.in_hw && everywhere
    }

    /// Whether counts are of a time when fewer ports shared the block.
    pub(in crate::engine) fn recounts(&self) -> bool {
        self.recounts || self.is_busy()
    }

    /// The block was read back.
    pub(super) fn recounted(&mut self, block: Block) {
        if matches!(block, Block::Shared(_)) {
            self.recounts = false;
        }
    }

    /// Why nobody else may join: the driver's words.
    pub(in crate::engine) fn refusal(&self) -> Option<&str> {
        let no_driver = self.apart.len() >= 2 && self.proven.len() <= 1;
        self.apart
            .values()
            .next()
            .filter(|_| no_driver)
            .map(|words| &**words)
    }

    /// Why a port has a block of its own: the driver's words.
    pub(in crate::engine) fn apart(&self, dev: IfIndex) -> Option<&str> {
        self.apart.get(&dev).map(|words| &**words)
    }

    /// Whether a port without a qdisc waits to join; else it gets a plain one.
    pub(super) fn takes(&self, port: &Port) -> bool {
        let can = self.home.is_some() && !self.dissolved && self.refusal().is_none();
        can && port.filters != Some(FilterPlace::Software) && !self.apart.contains_key(&port.home())
    }

    /// Whether a port is joining: what is written meanwhile may be refused for its sake.
    pub(super) fn is_busy(&self) -> bool {
        self.asked.is_some() || !self.steps.is_empty()
    }

    /// Whether there is, or will be, something to do.
    pub(super) fn has_work(&self, ports: &[Port]) -> bool {
        self.is_busy() || self.first_step(ports).is_some()
    }

    /// What to do next; each answer goes to [`Self::answer`] before the next is asked for.
    ///
    /// Nobody `joins` where the driver has no routes.
    pub(super) fn next(
        &mut self,
        ports: &[Port],
        may_begin: bool,
        joins: bool,
    ) -> Option<RuleOpKind> {
        if self.asked.is_some() {
            return None;
        }
        if self.steps.is_empty() && may_begin {
            match self.first_step(ports)? {
                First::Join(_) | First::Try(_) if !joins => return None,
                First::Join(dev) => {
                    let block = self.home;
                    self.steps
                        .extend([RuleOpKind::AddQdisc { dev, block }, RuleOpKind::DumpQdiscs]);
                }
                First::Leave(dev) => self
                    .steps
                    .extend([RuleOpKind::DeleteQdisc { dev }, RuleOpKind::DumpQdiscs]),
                First::Try(port) => self.try_ports(ports, port)?,
            }
        }
        self.asked = self.steps.pop_front();
        self.asked.clone()
    }

    /// What came of what was asked.
    pub(super) fn answer(&mut self, result: Result<InHardware, Refusal>) -> Joined {
        let errno = result.as_ref().err().map(|refusal| refusal.errno.0);
        match self.asked.take() {
            Some(RuleOpKind::AddQdisc { dev, .. }) => match result {
                // Whether it is ours or another's is what the list says.
                Err(refusal) if !matches!(errno, Some(EEXIST | ENOBUFS)) => {
                    self.part(dev, words(&refusal))
                }
                _ => Joined::NotYet,
            },
            Some(RuleOpKind::Put { place, rule, .. }) => {
                let protocol = rule.protocol;
                self.steps.push_back(RuleOpKind::Delete { place, protocol });
                let refusal = match result {
                    Ok(hardware) if self.is_everywhere(place.block, hardware) => None,
                    Ok(InHardware { count, .. }) => {
                        Some(format!("in hardware at {count} of {} ports", self.bound).into())
                    }
                    // A full table says nothing against the port.
                    Err(_) if errno == Some(ENOSPC) => None,
                    Err(refusal) => Some(words(&refusal)),
                };
                self.judge(refusal)
            }
            Some(RuleOpKind::DumpQdiscs) if result.is_err() => {
                self.steps.push_front(RuleOpKind::DumpQdiscs);
                Joined::NotYet
            }
            _ => Joined::NotYet,
        }
    }

    fn judge(&mut self, refusal: Option<Box<str>>) -> Joined {
        let on_trial = std::mem::take(&mut self.on_trial);
        let Some(words) = refusal else {
            for dev in &on_trial {
                self.apart.remove(dev);
            }
            self.proven.extend(on_trial);
            self.recounts = true;
            return Joined::Proven;
        };
        let leave = on_trial
            .iter()
            .map(|dev| RuleOpKind::DeleteQdisc { dev: *dev });
        self.steps.extend(leave);
        self.steps.push_back(RuleOpKind::DumpQdiscs);
        match on_trial[..] {
            [dev] => self.part(dev, words),
            // Found together, after a restart: they come again one by one.
            _ => Joined::NotYet,
        }
    }

    fn part(&mut self, dev: IfIndex, words: Box<str>) -> Joined {
        self.apart.insert(dev, words);
        Joined::Apart(dev)
    }

    fn is_home(&self, port: &Port) -> bool {
        matches!(self.block_of(port), Some(Block::Shared(_)))
    }

    fn first_step<'a>(&self, ports: &'a [Port]) -> Option<First<'a>> {
        if self.dissolved {
            let left = ports.iter().find(|port| self.is_home(port));
            return left.map(|port| First::Leave(port.home()));
        }
        // Rules in software need a block of their own.
        let in_software =
            |port: &&Port| port.filters == Some(FilterPlace::Software) && port.can_filter();
        if let Some(left) = ports.iter().filter(in_software).find(|p| self.is_home(p)) {
            return Some(First::Leave(left.home()));
        }
        // So do filter rules for all ports that are not for this one, which another has (a bridge, say) or the operator leaves out.
        let is_others = |port: &&Port| port.filters.is_some() && !port.can_filter();
        let in_use = |home| {
            let mut ports = ports.iter().filter(|port| port.home() == home);
            ports.any(|port| self.needs_driver(port))
        };
        let mut others = ports.iter().filter(is_others);
        if let Some(left) = others.find(|port| self.is_home(port) && !in_use(port.home())) {
            return Some(First::Leave(left.home()));
        }
        let on_trial = |port: &&Port| self.is_unproven(port);
        let joins =
            |port: &&Port| port.qdisc.is_none() && self.takes(port) && self.needs_driver(port);
        let tried = ports.iter().find(on_trial).map(First::Try);
        tried.or_else(|| {
            ports
                .iter()
                .find(joins)
                .map(|port| First::Join(port.home()))
        })
    }

    fn is_unproven(&self, port: &Port) -> bool {
        let dev = port.home();
        let known = self.proven.contains(&dev) || self.apart.contains_key(&dev);
        self.is_home(port) && !known
    }

    /// A rule that meets no packet. What a trial that was cut off has left goes first.
    fn try_ports(&mut self, ports: &[Port], port: &Port) -> Option<()> {
        let place = RulePlace {
            block: Block::Shared(self.home?),
            chain: Chain::new(TRIAL)?,
            prio: Prio::new(1)?,
            handle: Handle::new(1)?,
        };
        let protocol = EtherProto::Ipv4;
        let rule = FlowerRule {
            protocol,
            matches: RuleMatch {
                indev: Some(port.ingress().clone()),
                dst_mac: Some(NO_SUCH),
                ..RuleMatch::default()
            },
            actions: [RuleAction::Goto(Chain::new(TRIAL + 1)?)].into(),
            runs: Runs::Hardware,
            cookie: probe_mark(),
        };
        let unproven = ports.iter().filter(|port| self.is_unproven(port));
        let unproven: BTreeSet<IfIndex> = unproven.map(Port::home).collect();
        self.on_trial = unproven.into_iter().collect();
        self.steps.extend([
            RuleOpKind::Delete { place, protocol },
            RuleOpKind::Put {
                place,
                rule: rule.into(),
                replace: false,
            },
        ]);
        Some(())
    }
}

enum First<'a> {
    Join(IfIndex),
    Leave(IfIndex),
    Try(&'a Port),
}

fn words(refusal: &Refusal) -> Box<str> {
    match &refusal.text {
        Some(text) => text.clone(),
        None => refusal.errno.to_string().into(),
    }
}

#[cfg(test)]
mod tests;
