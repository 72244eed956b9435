//! Owns the stores and runs the turn. Sequencing only; policy lives in `resolve`, `plan` and `reconcile`.
//!
//! One turn, always left to right, no I/O, no clock, no locks:
//!
//! ```text
//! handle(now, event) -> dirty keys        sources.rs, kernel.rs, outcomes.rs
//! poll_ops(now)      -> resolve next hops -> plan objects and forms -> diff -> ops      turn.rs, routes.rs
//! poll_replies(now)  -> truth of what changed -> what the source is told                feedback.rs
//! ```
//!
//! Events never cause writes; they mark keys dirty. What to write is computed from state, so lost, doubled or reordered
//! events cost work, never correctness, and ten updates of a prefix in one turn are one write. The caller owns the
//! time and the channels: it calls [`Engine::handle`] for each event, [`Engine::poll_ops`] while the writer has room,
//! and both again at [`Engine::poll_timeout`].

mod acl_query;
mod counters_query;
mod doctor;
mod explain;
mod feedback;
mod followed;
mod hearing;
mod kernel;
mod measures;
mod notable;
mod offload;
mod offload_query;
mod old_routes;
mod outcomes;
mod plan_query;
mod polled;
pub mod probe;
mod query;
pub mod report;
mod routes;
mod sources;
pub mod switch;
mod turn;
mod writes;

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::config::{CompatMode, Config, NexthopObjects, OnExit, SetUp};
use crate::model::{
    DumpKind, Event, IfIndex, KernelNhId, MacAddr, NeighbourKey, NhgId, Op, OpKind, Reason,
    Setting, TableId, Ticket, Timestamp,
};
use crate::plan::{DesiredObjects, FibPlan, Forms, GroupKey, ObjectSpec};
use crate::reconcile::{Failure, Table};
use crate::resolve::{AddressPool, ResolveChanges, Resolver};
use crate::rib::{GroupChange, Groups, PathId, Paths, Session, SlotFlags, SlotId, Slots};
use crate::view::KernelView;
use crate::view::counters::PortHistory;

pub use plan_query::PlanWalk;

use notable::Notables;
use old_routes::OldRoutes;
use turn::Gates;

/// What survives a restart of the daemon within a boot.
#[derive(Debug)]
pub struct Memory {
    /// The first next-hop object id that may be given out.
    pub first_nexthop_id: KernelNhId,
    /// Which 169.254 address stood for which neighbour.
    pub pool: AddressPool,
    /// `nlmsg_pid` of the zebra that was last heard.
    pub zebra: Option<u32>,
    /// Metrics that our routes had.
    pub metrics: Vec<u32>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            first_nexthop_id: KernelNhId::FIRST,
            pool: AddressPool::default(),
            zebra: None,
            metrics: Vec::new(),
        }
    }
}

/// The tables of the engine that ops and their outcomes refer to; `report::WriteKind` has a name for each, in this order.
mod ticket_table {
    pub const ROUTES: u8 = 0;
    pub const OBJECTS: u8 = 1;
    pub const NEIGHBOURS: u8 = 2;
    pub const SOLICITS: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const DUMPS: u8 = 5;
    pub const OLD_ROUTES: u8 = 6;
    pub const RULES: u8 = 7;
}

/// A dump: asked for, on its way, and whether what it will bring is already out of date.
#[derive(Debug, Clone, Copy, Default)]
struct Dump {
    wanted: bool,
    running: bool,
    invalid: bool,
    /// Completed ones.
    done: u64,
    /// Not earlier, although it is wanted.
    not_before: Timestamp,
}

/// Refused routes that are to be told together.
#[derive(Debug)]
struct RefusedRoutes {
    count: u64,
    first: String,
    due: Timestamp,
}

/// Counts since the start.
#[derive(Debug, Default)]
struct Counters {
    frames: u64,
    skipped: u64,
    filtered: u64,
    overruns: u64,
    rejected: FxHashMap<Reason, u64>,
    mended: Mended,
}

/// What others had deleted or changed and was put right, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mended {
    /// Routes.
    pub routes: u64,
    /// Next-hop objects.
    pub objects: u64,
    /// Permanent neighbours.
    pub neighbours: u64,
    /// Rules and qdiscs of the offload.
    pub rules: u64,
}

/// A [`Engine::resync`] that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Resync {
    routes_done: u64,
    objects_done: u64,
    before: Mended,
}

/// What the kernel has told at least once; nothing is written before all of it is known.
#[allow(
    clippy::struct_excessive_bools,
    reason = "four lists, each told or not"
)]
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    links: bool,
    neighbours: bool,
    objects: bool,
    routes: bool,
}

/// The state of the daemon.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    now: Timestamp,
    // What the sources say.
    slots: Slots,
    paths: Paths,
    groups: Groups,
    session: Session,
    polled: polled::PolledSource,
    tables_seen: FxHashSet<TableId>,
    // What the kernel says.
    view: KernelView,
    known: Known,
    // What follows from both.
    resolver: Resolver,
    plan: FibPlan,
    objects: DesiredObjects,
    forms: Forms,
    use_objects: bool,
    // What was written.
    object_table: Table<KernelNhId, ObjectSpec>,
    neighbour_table: Table<NeighbourKey, MacAddr>,
    solicit_table: Table<NeighbourKey, ()>,
    setting_table: Table<u8, Setting>,
    old: OldRoutes,
    failures: FxHashMap<SlotId, Failure>,
    next_failure: Option<Timestamp>,
    read_back: FxHashSet<SlotId>,
    refused: Option<RefusedRoutes>,
    /// Peers that have the Ethernet address of our own link.
    own_macs: FxHashSet<NeighbourKey>,
    /// Neighbours that the events at hand took away.
    lost_neighbours: Vec<NeighbourKey>,
    route_dump: Dump,
    object_dump: Dump,
    next_audit: Option<Timestamp>,
    next_solicit: Timestamp,
    // What goes to hardware.
    offload: offload::Offload,
    // Work of the turn.
    dirty: VecDeque<SlotId>,
    gated: Vec<SlotId>,
    gates_shut: Gates,
    changes: ResolveChanges,
    group_changes: Vec<GroupChange>,
    replan: FxHashSet<GroupKey>,
    rescan: FxHashSet<PathId>,
    seed: u64,
    // What the source is owed.
    feedback: feedback::Feedback,
    // For people.
    port_history: PortHistory,
    evidence: doctor::Evidence,
    counters: Counters,
    writes: writes::Writes,
    followed: followed::Followed,
    notables: Notables,
}

impl Engine {
    /// Knows nothing yet; writes nothing before the kernel has been listed.
    pub fn new(config: Config, memory: Memory) -> Self {
        let mut engine = Self {
            now: Timestamp(0),
            slots: Slots::default(),
            paths: Paths::default(),
            groups: Groups::default(),
            session: Session::new(config.fpm.replay_idle, config.fpm.stale_time, memory.zebra),
            polled: polled::PolledSource::default(),
            tables_seen: FxHashSet::default(),
            view: KernelView::default(),
            known: Known::default(),
            resolver: Resolver::new(config.kernel.ipv4_via_ipv6, memory.pool),
            plan: FibPlan::default(),
            objects: DesiredObjects::new(memory.first_nexthop_id),
            forms: Forms::default(),
            use_objects: config.kernel.nexthop_objects == NexthopObjects::Auto,
            object_table: Table::default(),
            neighbour_table: Table::default(),
            solicit_table: Table::default(),
            setting_table: Table::default(),
            old: OldRoutes::new(memory.metrics, config.kernel.metric),
            failures: FxHashMap::default(),
            next_failure: None,
            read_back: FxHashSet::default(),
            refused: None,
            own_macs: FxHashSet::default(),
            lost_neighbours: Vec::new(),
            route_dump: Dump {
                wanted: true,
                ..Dump::default()
            },
            object_dump: Dump::default(),
            next_audit: None,
            next_solicit: Timestamp(0),
            offload: offload::Offload::default(),
            dirty: VecDeque::new(),
            gated: Vec::new(),
            gates_shut: Gates::default(),
            changes: ResolveChanges::default(),
            group_changes: Vec::new(),
            replan: FxHashSet::default(),
            rescan: FxHashSet::default(),
            seed: 0x9e37_79b9_7f4a_7c15,
            feedback: feedback::Feedback::default(),
            port_history: PortHistory::default(),
            evidence: doctor::Evidence::default(),
            counters: Counters::default(),
            writes: writes::Writes::default(),
            followed: followed::Followed::default(),
            notables: Notables::default(),
            config,
        };
        engine.want_settings();
        engine
    }

    /// Takes in an event.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Source(event) => self.apply_source(event),
            Event::Kernel(events) => self.apply_kernel(events),
            Event::Outcomes(outcomes) => self.apply_outcomes(outcomes),
            Event::Offload(events) => self.apply_offload(events),
        }
    }

    /// Runs a turn and hands out at most about `budget` writes in the order in which they must be done.
    pub fn poll_ops(&mut self, now: Timestamp, budget: usize, out: &mut Vec<Op>) {
        self.now = self.now.max(now);
        let before = out.len();
        self.poll_timers();
        self.poll_dumps(out);
        if self.is_listed() {
            self.settle();
            self.poll_puts(budget, out);
            self.poll_routes(budget, out);
            self.poll_old_routes(budget, out);
            self.poll_deletes(budget, out);
            self.survey_ground();
        }
        self.writes.routes.hand_out(self.now, out.len() - before);
    }

    /// Whether [`Self::poll_ops`] has routes to look at.
    pub fn has_routes_to_write(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When to call [`Self::poll_ops`] again although nothing came.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [
            self.session.poll_timeout(),
            self.next_audit,
            self.next_failure,
            self.refused.as_ref().map(|refused| refused.due),
            (self.route_dump.wanted && !self.route_dump.running)
                .then_some(self.route_dump.not_before),
            Some(self.next_solicit),
            self.offload_timeout(),
            self.feedback_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next next-hop object id; what must be saved before it is given out.
    pub const fn next_nexthop_id(&self) -> u32 {
        self.objects.next_id()
    }

    /// The 169.254 addresses given out; what should be saved.
    pub const fn address_pool(&self) -> &AddressPool {
        self.resolver.pool()
    }

    /// `nlmsg_pid` of the zebra that was last heard; what should be saved.
    pub const fn zebra(&self) -> Option<u32> {
        self.session.zebra()
    }

    /// The metrics that our routes have or had; what must be saved before a route is written.
    pub fn metrics(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.config.kernel.metric).chain(self.old.metrics.iter().copied())
    }

    /// The name of a link that is there.
    pub fn link_name(&self, dev: IfIndex) -> Option<Box<str>> {
        self.view.link(dev).map(|link| link.name.clone())
    }

    /// Whether there is a link of this name.
    pub fn has_link(&self, name: &str) -> bool {
        self.view.link_by_name(name).is_some()
    }

    /// Applies what can be changed while running; `config::Changes` says what that is.
    pub fn reconfigure(&mut self, config: Config) {
        self.session
            .configure(config.fpm.replay_idle, config.fpm.stale_time);
        let asked = &self.config.northbound.endpoint;
        if asked.is_some() && *asked != config.northbound.endpoint {
            self.forget_polled(match config.northbound.endpoint {
                Some(_) => "another endpoint is configured",
                None => "switched off",
            });
        }
        let vrfs = config.northbound.vrfs.clone();
        self.forget_tables(|of| vrfs.contains(&of.vrf));
        let old = std::mem::replace(&mut self.config, config);
        self.reconfigure_offload(&old.offload);
        if old.feedback != self.config.feedback {
            self.owe_all();
            self.reconsider_zebra();
        }
        let (was, is) = (&old.kernel, self.config.kernel.clone());
        if was.audit != is.audit {
            self.next_audit = None;
        }
        if was.multipath_hash != is.multipath_hash
            || was.nexthop_compat_mode != is.nexthop_compat_mode
        {
            self.want_settings();
        }
        let replan =
            was.ipv4_via_ipv6 != is.ipv4_via_ipv6 || was.nexthop_objects != is.nexthop_objects;
        if replan {
            self.use_objects = is.nexthop_objects == NexthopObjects::Auto;
            self.resolver.set_mode(is.ipv4_via_ipv6);
            self.resolver.resolve_all(&self.view, &mut self.changes);
            let keys = self.plan.keys();
            self.replan.extend(keys);
        }
    }

    /// Asks for everything to be read back and compared now.
    pub fn resync(&mut self) -> Resync {
        let after = |dump: &mut Dump| {
            dump.wanted = true;
            dump.not_before = Timestamp(0);
            // One that is on its way may have been taken before what the operator wants mended.
            dump.done + 1 + u64::from(dump.running)
        };
        self.reapply_settings();
        Resync {
            routes_done: after(&mut self.route_dump),
            objects_done: after(&mut self.object_dump),
            before: self.counters.mended,
        }
    }

    /// What a resync has mended, once everything was compared and written.
    pub fn resynced(&self, resync: &Resync) -> Option<Mended> {
        let compared = self.route_dump.done >= resync.routes_done
            && self.object_dump.done >= resync.objects_done;
        let quiet = self.dirty.is_empty()
            && !self
                .slots
                .iter()
                .any(|(_, slot)| slot.flags.has(SlotFlags::IN_FLIGHT));
        (compared && quiet).then(|| Mended {
            routes: self.counters.mended.routes - resync.before.routes,
            objects: self.counters.mended.objects - resync.before.objects,
            neighbours: self.counters.mended.neighbours - resync.before.neighbours,
            rules: self.counters.mended.rules - resync.before.rules,
        })
    }

    /// Forgets every route: the following writes remove everything of ours, in hash order.
    pub fn withdraw_all(&mut self) {
        for id in self.slots.ids() {
            self.withdraw(id);
        }
        self.session.forget();
        self.groups.forget_older(u32::MAX, &mut self.group_changes);
        self.take_group_changes();
        self.prune_objects();
        self.withdraw_offload();
    }

    /// `kernel.on_exit`.
    pub fn flushes_on_exit(&self) -> bool {
        self.config.kernel.on_exit == OnExit::Flush
    }

    /// Whether the kernel has been listed, so that everything of an earlier run is known.
    pub const fn is_listed(&self) -> bool {
        let Known {
            links,
            neighbours,
            objects,
            routes,
        } = self.known;
        links && neighbours && objects && routes
    }

    /// Whether nothing of ours is in the kernel any more.
    pub fn is_flushed(&self) -> bool {
        self.slots.is_empty()
            && self.object_table.is_empty()
            && self.neighbour_table.is_empty()
            && self.solicit_table.is_empty()
            && self.is_offload_flushed()
            && self.old.is_empty()
    }

    /// Whether this set-up writes routes at all.
    fn writes_routes(&self) -> bool {
        self.config.setup != SetUp::Observe
    }

    fn want_settings(&mut self) {
        let policy = self.config.kernel.multipath_hash.policy();
        self.setting_table
            .want(0, policy.map(Setting::MultipathHash));
        let compat = (self.config.kernel.nexthop_compat_mode == CompatMode::Zero).then_some(0);
        self.setting_table
            .want(1, compat.map(Setting::NexthopCompatMode));
    }

    /// Others may have changed them, and nothing tells.
    fn reapply_settings(&mut self) {
        for index in [0, 1] {
            self.setting_table.observe(index, None);
        }
    }

    fn poll_dumps(&mut self, out: &mut Vec<Op>) {
        for (dump, kind, index) in [
            (&mut self.object_dump, DumpKind::NextHops, 0),
            (&mut self.route_dump, DumpKind::Routes, 1),
        ] {
            if dump.wanted && !dump.running && dump.not_before <= self.now {
                *dump = Dump {
                    running: true,
                    done: dump.done,
                    ..Dump::default()
                };
                let ticket = Ticket {
                    table: ticket_table::DUMPS,
                    index,
                    revision: 0,
                };
                out.push(Op {
                    ticket,
                    kind: OpKind::Dump(kind),
                });
            }
        }
    }

    fn group_gone(&mut self, group: NhgId) {
        let mut ctx = plan_context!(self);
        self.plan.forget(&mut ctx, group);
    }
}

/// Borrows for planning what is not the plan itself.
macro_rules! plan_context {
    ($engine:expr) => {
        crate::plan::PlanContext {
            groups: &$engine.groups,
            view: &$engine.view,
            resolver: &mut $engine.resolver,
            changes: &mut $engine.changes,
            objects: &mut $engine.objects,
            use_objects: $engine.use_objects,
        }
    };
}
use plan_context;
