//! What the source is owed: each route that it announced is answered once it is in place or can't be, and again when that
//! changes.
//!
//! ```text
//! announced (also again, unchanged): asked ---+
//! looked at, acknowledged, refused, read back: owed --> poll_replies: truth != told, or asked --> Reply
//! ```
//!
//! zebra forgets what it was told with each new version of a route, even if our side of it is the same: so every
//! announcement is answered, and apart from that only a change is told. A route that merely waits is not answered yet,
//! unless the source believes that it forwards and it doesn't. Nothing is queued but a bit a route: a source that doesn't
//! read costs nothing, and reads the truth of that moment when it does. Knows no sockets and no encoding.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::Engine;
use super::hearing::Hearing;
use super::report::{ExplainStep, FeedbackCounts, OffloadState};
use crate::config::FeedbackMode;
use crate::model::{
    KernelHop, KernelTarget, NeighbourKey, Reason, Reply, RouteKey, SourceId, TableId, Timestamp,
    Told, ZebraProcess,
};
use crate::plan::ObjectSpec;
use crate::reconcile::{Failure, OpClass, Remedy, remedy};
use crate::rib::{Owed, PathForm, SlotFlags, SlotId};

/// A refusal that may end by itself is none before it came so often: 1.5 s after the first.
const REFUSALS: u32 = 3;
/// What changed in hardware is looked for so often, in the whole table: rules of next hops carry any number of routes.
const RECHECK: Duration = Duration::from_millis(200);
/// And less often by a second for so many routes.
const RECHECK_ROUTES: usize = 1_000_000;

/// Who is owed what.
#[derive(Debug, Default)]
pub(super) struct Feedback {
    owed: Owed,
    ground: Ground,
    /// When to look at the whole table.
    recheck: Option<Timestamp>,
    /// Whether a route was looked at that forwards by its rules in hardware or not at all.
    leans_on_hardware: bool,
    /// Whether our routes are about to be removed.
    ending: bool,
    sent: u64,
    failed_sent: u64,
    /// Who is connected, where that can be seen.
    pub(super) zebra: Option<ZebraProcess>,
    /// Of whom it was said what it makes of answers.
    pub(super) told_of: Option<ZebraProcess>,
}

/// The neighbours that routes rest on: a route is not in place before they are, though the kernel has it.
#[derive(Debug, Default)]
struct Ground {
    /// Those that are not as they should be, mostly none.
    loose: FxHashMap<NeighbourKey, Footing>,
    /// Of which state of their table, and of that of next-hop objects, by which groups rest on them.
    seen: (u64, u64),
    /// Whether a route was looked at that rests on one of them.
    stood_on: bool,
}

/// How firmly a route stands on its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Footing {
    Firm,
    /// A write is on its way, or tried again.
    Loose,
    /// The kernel refuses one, and will go on with that.
    Broken,
}

impl Engine {
    /// The session that is owed replies; they can be polled.
    pub fn replies_to(&self) -> Option<u32> {
        let connection = self.session.connection_of(SourceId::Fpm)?;
        (!self.feedback.owed.is_empty() && !self.is_behind()).then_some(connection.session)
    }

    /// Looks at up to so many routes and hands out what the source is to be told about them.
    pub fn poll_replies(&mut self, now: Timestamp, looks: usize, out: &mut Vec<Reply>) {
        self.now = self.now.max(now);
        if self.replies_to().is_none() {
            return;
        }
        self.survey_ground();
        for _ in 0..looks {
            let Some(id) = self.feedback.owed.pop() else {
                break;
            };
            if self.slots.is_used(id)
                && let Some(reply) = self.reply(id)
            {
                match reply.state {
                    Told::Offloaded => self.feedback.sent += 1,
                    Told::Failed => self.feedback.failed_sent += 1,
                }
                out.push(reply);
            }
        }
    }

    /// When everything is to be looked at again.
    pub(super) const fn feedback_timeout(&self) -> Option<Timestamp> {
        self.feedback.recheck
    }

    pub(super) fn poll_recheck(&mut self) {
        if self
            .feedback
            .recheck
            .take_if(|due| *due <= self.now)
            .is_some()
        {
            self.feedback.leans_on_hardware = false;
            self.owe_all();
        }
    }

    /// The daemon ends: whether routes go with it, of which the source is to hear first.
    pub fn begin_farewell(&mut self) -> bool {
        let heard = self.hears();
        self.feedback.ending = heard && self.flushes_on_exit();
        self.owe_all();
        self.feedback.ending
    }

    /// Whether there is somebody to tell: northbound takes no answers.
    fn hears(&self) -> bool {
        self.session.connection_of(SourceId::Fpm).is_some()
    }

    /// A connection begins: it knows nothing.
    pub(super) fn reset_feedback(&mut self) {
        self.feedback.owed.clear();
        self.feedback.zebra = None;
    }

    /// Notes that the truth of a route may have changed.
    pub(super) fn owe(&mut self, id: SlotId) {
        if self.config.feedback.mode != FeedbackMode::Off {
            self.feedback.owed.insert(id);
        }
    }

    pub(super) fn owe_all(&mut self) {
        if self.config.feedback.mode != FeedbackMode::Off {
            self.feedback.owed.insert_all(self.slots.bound());
        }
    }

    /// Notes that something changed in hardware.
    pub(super) fn hardware_changed(&mut self) {
        let matters = self.judges_by_hardware() || self.feedback.leans_on_hardware;
        if matters && self.feedback.recheck.is_none() {
            let pause = RECHECK + Duration::from_secs((self.slots.len() / RECHECK_ROUTES) as u64);
            self.feedback.recheck = Some(self.now + pause);
        }
    }

    /// Looks which neighbours are not as they should be, if any has changed.
    pub(super) fn survey_ground(&mut self) {
        let seen = (self.neighbour_table.changes(), self.object_table.changes());
        let before = std::mem::replace(&mut self.feedback.ground.seen, seen);
        if seen.0 != before.0 {
            self.survey_neighbours();
        }
        // A group may have one of these as its member now, or not any more, and its routes are as they were.
        let broken = |footing: &Footing| *footing == Footing::Broken;
        if seen.1 != before.1 && self.feedback.ground.loose.values().any(broken) {
            self.owe_all();
        }
    }

    fn survey_neighbours(&mut self) {
        let entries = self.neighbour_table.iter();
        let unsettled = entries.filter(|(_, e)| e.desired.is_some() && e.applied != e.desired);
        let loose: FxHashMap<_, _> = unsettled
            .map(|(key, entry)| {
                let failure = entry.failure.as_ref();
                let broken = failure.is_some_and(|f| is_for_good(OpClass::NeighbourPut, f));
                let footing = if broken {
                    Footing::Broken
                } else {
                    Footing::Loose
                };
                (key, footing)
            })
            .collect();
        let ground = &mut self.feedback.ground;
        let before = std::mem::replace(&mut ground.loose, loose);
        let now = |key| ground.loose.get(key).copied().unwrap_or(Footing::Firm);
        let was = |key| before.get(key).copied().unwrap_or(Footing::Firm);
        let breaks = ground
            .loose
            .keys()
            .any(|key| now(key) == Footing::Broken && was(key) != Footing::Broken);
        let firmer = before.keys().any(|key| now(key) < was(key));
        if breaks || (firmer && std::mem::take(&mut ground.stood_on)) {
            self.owe_all();
        }
    }

    /// How the hops of a route's kernel form stand.
    fn footing(&self, id: SlotId) -> Footing {
        let loose = &self.feedback.ground.loose;
        if loose.is_empty() {
            return Footing::Firm;
        }
        let Some(form) = self.desired_form(id) else {
            return Footing::Firm;
        };
        let of_hop = |hop: &KernelHop| {
            let key = |addr| NeighbourKey { dev: hop.dev, addr };
            let footing = hop.via.and_then(|addr| loose.get(&key(addr)));
            footing.copied().unwrap_or(Footing::Firm)
        };
        let spec = |id| self.object_table.get(id).and_then(|e| e.desired.as_ref());
        let of_object = |id| match spec(id) {
            Some(ObjectSpec::Hop(hop)) => of_hop(hop),
            Some(ObjectSpec::Group(_)) | None => Footing::Firm,
        };
        match &self.forms.get(form).target {
            KernelTarget::None => Footing::Firm,
            KernelTarget::Hops(hops) => {
                let each = hops.iter().map(|(hop, _)| of_hop(hop));
                each.max().unwrap_or(Footing::Firm)
            }
            KernelTarget::Object(id) => match spec(*id) {
                Some(ObjectSpec::Group(members)) => {
                    let each = members.iter().map(|(id, _)| of_object(*id));
                    each.max().unwrap_or(Footing::Firm)
                }
                Some(ObjectSpec::Hop(_)) | None => of_object(*id),
            },
        }
    }

    fn judges_by_hardware(&self) -> bool {
        match self.config.feedback.mode {
            FeedbackMode::Off => false,
            FeedbackMode::Hardware => true,
            FeedbackMode::Forwarding => !self.writes_routes(),
        }
    }

    /// Whether something came that the plans do not follow yet: their word now would be taken back in a moment.
    fn is_behind(&self) -> bool {
        let kernel_follows =
            self.rescan.is_empty() && self.replan.is_empty() && self.changes.hops.is_empty();
        !kernel_follows || (self.judges_by_hardware() && self.offload.is_behind())
    }

    fn reply(&mut self, id: SlotId) -> Option<Reply> {
        let slot = self.slots.get(id);
        // What this connection has not announced yet it perhaps does not have.
        if slot.generation != self.session.generation {
            return None;
        }
        let path = self.paths.get(slot.path?).key;
        let RouteKey { table, prefix } = slot.key();
        let answer = slot.answer;
        let told = answer.told();
        let footing = self.footing(id);
        self.feedback.ground.stood_on |= footing != Footing::Firm;
        let truth = self.truth(id, told, footing)?;
        if told == Some(truth) && !answer.is_asked() {
            return None;
        }
        let now = self.now;
        self.slots.get_mut(id).tell(now, truth);
        Some(Reply {
            key: RouteKey {
                table: self.raw_table(table),
                prefix,
            },
            protocol: path.protocol,
            kind: path.kind,
            state: truth,
        })
    }

    /// The source's table that is written into this one; at most one is.
    fn raw_table(&self, table: TableId) -> TableId {
        let mut map = self.config.fpm.table_map.iter();
        map.find(|(_, to)| **to == table)
            .map_or(table, |(&raw, _)| raw)
    }

    /// Whether a route forwards; `None` while that is not decided.
    fn truth(&mut self, id: SlotId, told: Option<Told>, footing: Footing) -> Option<Told> {
        if self.feedback.ending {
            return self.leaves_nothing(id).then_some(Told::Failed);
        }
        let reason = self.route_reason(id);
        let kernel = match (reason, footing) {
            (None | Some(Reason::InProgress), Footing::Broken) => Some(Told::Failed),
            (None, Footing::Loose) => None,
            _ => self.kernel_truth(id, reason, told),
        };
        let (writes, in_place) = (self.writes_routes(), self.slots.get(id).applied.is_some());
        match self.config.feedback.mode {
            FeedbackMode::Off => None,
            // Hardware follows what is in the kernel, and can't have what that can't.
            FeedbackMode::Hardware
                if kernel.is_none() && (writes || reason.is_some_and(Reason::is_wait)) =>
            {
                None
            }
            FeedbackMode::Hardware if writes && !in_place => Some(Told::Failed),
            FeedbackMode::Hardware => self.hardware_truth(id),
            // Rules of a route that has left the kernel are leaving too.
            FeedbackMode::Forwarding
                if kernel == Some(Told::Failed) && in_place && self.offload.is_active() =>
            {
                self.feedback.leans_on_hardware = true;
                let in_hardware = self.route_offload(id).state == OffloadState::Hardware;
                if in_hardware {
                    Some(Told::Offloaded)
                } else {
                    kernel
                }
            }
            FeedbackMode::Forwarding => kernel,
        }
    }

    /// Whether nothing forwards by this route once ours is removed.
    fn leaves_nothing(&self, id: SlotId) -> bool {
        match self.config.feedback.mode {
            FeedbackMode::Off => false,
            FeedbackMode::Hardware => true,
            FeedbackMode::Forwarding => self.writes_routes() && !self.zebra_writes(id),
        }
    }

    fn kernel_truth(&self, id: SlotId, reason: Option<Reason>, told: Option<Told>) -> Option<Told> {
        match reason {
            None => Some(Told::Offloaded),
            Some(Reason::NotWanted) => self.observed_truth(id),
            // What the kernel has meanwhile is the old route, or for a moment none.
            Some(Reason::InProgress) => None,
            Some(Reason::KernelRefused) if !self.is_refused_for_good(id) => None,
            Some(reason) if reason.is_wait() || reason == Reason::LinkUnknown => {
                let forwards_still = self.slots.get(id).applied.is_some();
                (told == Some(Told::Offloaded) && !forwards_still).then_some(Told::Failed)
            }
            Some(reason) if is_left_to_zebra(reason) && self.zebra_writes(id) => {
                Some(Told::Offloaded)
            }
            Some(_) => Some(Told::Failed),
        }
    }

    fn hardware_truth(&self, id: SlotId) -> Option<Told> {
        match self.route_offload(id).state {
            OffloadState::Hardware => Some(Told::Offloaded),
            OffloadState::Pending => None,
            OffloadState::Software | OffloadState::Failed | OffloadState::Off => Some(Told::Failed),
        }
    }

    /// In a set-up in which zebra alone writes: what the mirror of the kernel's tables shows, where it is kept. Without
    /// it nobody here knows.
    fn observed_truth(&self, id: SlotId) -> Option<Told> {
        if self.route_offload(id).state == OffloadState::Hardware {
            return Some(Told::Offloaded);
        }
        let slot = self.slots.get(id);
        let protocol = self.paths.get(slot.path?).key.protocol;
        let mut there = self.offload.world.mirror.routes_of(slot.key());
        there
            .any(|route| route.protocol == protocol.0)
            .then_some(Told::Offloaded)
    }

    fn is_refused_for_good(&self, id: SlotId) -> bool {
        let slot = self.slots.get(id);
        let blocked = |path| {
            matches!(
                self.paths.get(path).form(slot.family()),
                PathForm::Blocked(_)
            )
        };
        if !slot.flags.has(SlotFlags::FAILED) || slot.path.is_some_and(blocked) {
            return true;
        }
        let failure = self.failures.get(&id);
        failure.is_none_or(|failure| is_for_good(OpClass::RouteReplace, failure))
    }

    /// Whether zebra has a kernel route of its own under this key, beside ours. It has written that before it tells us.
    fn zebra_writes(&self, id: SlotId) -> bool {
        let table = self.slots.get(id).table();
        self.raw_table(table) == table
    }

    /// Counts for `show status`.
    pub(super) fn feedback_counts(&self) -> FeedbackCounts {
        let mode = self.config.feedback.mode;
        let mut counts = FeedbackCounts {
            mode: mode.name(),
            offloaded: 0,
            failed: 0,
            waiting: 0,
            sent: self.feedback.sent,
            failed_sent: self.feedback.failed_sent,
            zebra: None,
            hearing: None,
        };
        if !self.hears() {
            return counts;
        }
        let zebra = self.feedback.zebra.as_ref();
        counts.zebra = zebra.map(|zebra| zebra.version);
        counts.hearing = zebra.map(|zebra| Hearing::of(zebra).name());
        if mode == FeedbackMode::Off {
            return counts;
        }
        for (_, slot) in self.slots.iter() {
            if slot.path.is_none() || slot.generation != self.session.generation {
                continue;
            }
            match slot.answer.told() {
                _ if slot.answer.is_asked() => counts.waiting += 1,
                Some(Told::Offloaded) => counts.offloaded += 1,
                Some(Told::Failed) => counts.failed += 1,
                None => {}
            }
        }
        counts
    }

    /// What the source was told of a route, and when.
    pub(super) fn explain_feedback(&self, key: RouteKey) -> Option<ExplainStep> {
        let slot_id = self.slots.find(key)?;
        let slot = self.slots.get(slot_id);
        if self.config.feedback.mode == FeedbackMode::Off || !self.hears() {
            return None;
        }
        let here = slot.generation == self.session.generation;
        let told = slot.answer.told().filter(|_| here);
        let mut text = match told {
            Some(Told::Offloaded) => "zebra was told that it forwards",
            Some(Told::Failed) => "zebra was told that it does not forward",
            None => "zebra was told nothing of it on this connection",
        }
        .to_owned();
        if told == Some(Told::Failed) && self.footing(slot_id) == Footing::Broken {
            text += " (the kernel refuses the neighbour entry of a next hop)";
        }
        if told.is_some() {
            let ago = self.now.since(slot.told_at()).as_secs();
            text += &format!(", {ago} s ago");
        }
        if here && slot.answer.is_asked() {
            text += if told.is_some() {
                ", and has announced it again since"
            } else {
                " yet"
            };
        }
        Some(ExplainStep {
            stage: "feedback",
            text,
            state: told.map_or("waiting", Told::name),
        })
    }
}

/// Whether a refusal will not end by itself soon.
const fn is_for_good(op: OpClass, failure: &Failure) -> bool {
    failure.attempts >= REFUSALS || matches!(remedy(op, failure.refusal.errno), Remedy::Refused)
}

/// What we don't write by our own rules, and zebra writes all the same.
const fn is_left_to_zebra(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Encapsulation
            | Reason::GroupTooLarge
            | Reason::PoolExhausted
            | Reason::NextHopLost
            | Reason::FamilyMismatch
    )
}
