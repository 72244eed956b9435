//! One switch: its ports, what its driver can, the block or blocks of its rules, and the rules themselves.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::Sharing;
use super::wishes::{Facts, GroupWish};
use crate::engine::probe::{Ask, Probe, Verdict};
use crate::engine::switch::Switch;
use crate::model::{Block, IfIndex, IfName, TableId};
use crate::plan::{Env, GroupKey, PlannedPort};
use crate::reconcile::{OpClass, Remedy, remedy};
use crate::view::ports::{Port, Switch as SwitchPorts};

const ENODEV: i32 = 19;

/// A switch with what is known about it.
#[derive(Debug)]
pub(in crate::engine) struct OneSwitch {
    pub(in crate::engine) ports: SwitchPorts,
    pub(in crate::engine) rules: Switch,
    pub(super) groups: FxHashMap<GroupKey, GroupWish>,
    /// Blocks that were read back once.
    pub(super) listed: BTreeSet<Block>,
    /// The planned ports, as last set.
    pub(super) planned: Vec<PlannedPort>,
    /// Which block its ports' rules hang in.
    pub(in crate::engine) sharing: Sharing,
    pub(super) probe: Option<(Probe, Option<Ask>)>,
    /// What the driver can; in software nobody needs to be asked.
    pub(in crate::engine) verdict: Option<Verdict>,
    /// How full its table was, in percent, when that was last told.
    pub(super) told_full: usize,
}

impl OneSwitch {
    /// A block that may have rules of the driver and was read back.
    pub(super) fn first_to_ask(&self) -> Option<(Block, IfIndex)> {
        let ports = self.ports.ports.iter();
        ports
            .filter(|port| self.sharing.needs_driver(port))
            .filter_map(|port| Some((self.sharing.ready_block_of(port)?, port.home())))
            .find(|(block, _)| self.listed.contains(block))
    }

    /// Acts on the rules, with what a prefix of this switch should be.
    pub(super) fn with<T>(
        &mut self,
        facts: &Facts<'_>,
        act: impl FnOnce(&mut Switch, &Env<'_>) -> T,
    ) -> T {
        let (groups, ports) = (&self.groups, &self.ports);
        let wish = |key| facts.wish(groups, ports, key);
        let env = Env {
            lookup: &facts.world.lookup,
            wish: &wish,
        };
        act(&mut self.rules, &env)
    }

    /// Whether the driver was too busy for what it was asked: it may be fit all the same.
    pub(super) fn was_busy(&self) -> bool {
        let Some(Verdict::Unfit(abilities)) = &self.verdict else {
            return false;
        };
        let mut refusals = abilities.missing.iter().map(|(_, refusal)| refusal.errno);
        refusals.any(|errno| remedy(OpClass::RuleCreate, errno) == Remedy::Retry)
    }

    /// Whether a port went while the driver was asked there: that says nothing about the driver.
    pub(super) fn was_cut_off(&self, ports: &SwitchPorts) -> bool {
        let stays = |dev| ports.ports.iter().any(|port| port.dev == dev);
        let lost = self.ports.ports.iter().any(|port| !stays(port.dev));
        let unfit = match &self.verdict {
            Some(Verdict::Unfit(abilities)) => &abilities.missing[..],
            Some(Verdict::Fit(_)) | None => &[],
        };
        let mut refusals = unfit.iter().map(|(_, refusal)| refusal);
        lost && self.rules.is_empty() && refusals.any(|refusal| refusal.errno.0 == ENODEV)
    }

    /// Whether the driver is known to take rules that it does not carry out.
    pub(super) fn lies(&self) -> bool {
        matches!(&self.verdict, Some(Verdict::Unfit(abilities)) if abilities.lies)
    }

    /// Ports that look up another table than before.
    pub(super) fn moved_to(&self, ports: &SwitchPorts) -> Vec<(IfName, TableId)> {
        let before = |dev| self.ports.ports.iter().find(|port| port.dev == dev);
        let moved = |port: &&Port| before(port.dev).is_some_and(|old| old.table != port.table);
        let moved = ports.ports.iter().filter(moved);
        moved.map(|port| (port.name.clone(), port.table)).collect()
    }

    /// The families that the driver can route.
    pub(super) fn families(&self) -> [bool; 2] {
        match &self.verdict {
            Some(Verdict::Fit(abilities)) => abilities.families,
            Some(Verdict::Unfit(_)) | None => [false, false],
        }
    }
}
