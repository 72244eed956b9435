//! How long routes take, by the example of one at a time: from the read that brought it until the kernel has
//! acknowledged it, and until its rule was read back. Following each would cost a clock a route and bytes in every
//! record; one that is followed to its end before the next is taken shows the queues that all of them wait in.
//!
//! Knows no clock: whoever read says when, and whoever asks with [`Engine::poll_samples`] looks how long ago that is.

use std::time::Instant;

use super::Engine;
use super::report::OffloadState;
use crate::model::Reason;
use crate::rib::{SlotFlags, SlotId};

/// Where a route has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The kernel has acknowledged it.
    Kernel,
    /// Its rule was written and read back.
    Rule,
}

/// A route has arrived somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Where.
    pub at: Arrival,
    /// When its frame was read.
    pub read_at: Instant,
}

/// The routes that are followed.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The read of the batch that is being applied, until one of its routes is followed.
    offer: Option<Instant>,
    kernel: Option<(SlotId, Instant)>,
    rule: Option<(SlotId, Instant)>,
    /// Rules were not planned yet since that began.
    unplanned: bool,
    arrived: Vec<Sample>,
}

impl Engine {
    /// Routes that have arrived since this was asked last.
    pub fn poll_samples(&mut self) -> impl Iterator<Item = Sample> + '_ {
        self.followed.arrived.drain(..)
    }

    /// A batch begins. The first of its routes that changes is followed, unless one is on its way.
    pub(super) fn offer_to_follow(&mut self, read_at: Instant) {
        let followed = if self.writes_routes() {
            self.followed.kernel
        } else {
            self.followed.rule
        };
        let is_busy = followed.is_some_and(|(id, _)| {
            let flags = self.slots.get(id).flags;
            self.slots.is_used(id)
                && (flags.has(SlotFlags::DIRTY)
                    || flags.has(SlotFlags::IN_FLIGHT)
                    || !self.writes_routes() && self.awaits_rule(id))
        });
        self.followed.offer = (!is_busy).then_some(read_at);
    }

    /// A route of the batch changes.
    pub(super) fn follow(&mut self, id: SlotId) {
        if let Some(read_at) = self.followed.offer.take() {
            if self.writes_routes() {
                self.followed.kernel = Some((id, read_at));
            } else if self.offload.is_active() {
                self.follow_rule(id, read_at);
            }
        }
    }

    /// A batch has ended.
    pub(super) const fn withdraw_offer(&mut self) {
        self.followed.offer = None;
    }

    /// The kernel has acknowledged a route.
    pub(super) fn arrived_in_kernel(&mut self, id: SlotId) {
        let Some((_, read_at)) = self.followed.kernel.take_if(|(of, _)| *of == id) else {
            return;
        };
        self.followed.arrived.push(Sample {
            at: Arrival::Kernel,
            read_at,
        });
        let is_busy = self
            .followed
            .rule
            .is_some_and(|(id, _)| self.slots.is_used(id) && self.awaits_rule(id));
        if self.offload.is_active() && !is_busy {
            self.follow_rule(id, read_at);
        }
    }

    fn follow_rule(&mut self, id: SlotId, read_at: Instant) {
        self.followed.rule = Some((id, read_at));
        self.followed.unplanned = true;
    }

    /// Rules were planned. One that needs no write any more, because it stood before the kernel has answered, is there.
    pub(super) fn look_for_planned_rule(&mut self) {
        if std::mem::take(&mut self.followed.unplanned) {
            self.look_for_rule();
        }
    }

    /// A route is gone; its number may be used again.
    pub(super) fn unfollow(&mut self, id: SlotId) {
        self.followed.kernel.take_if(|(of, _)| *of == id);
        self.followed.rule.take_if(|(of, _)| *of == id);
    }

    /// Rules were answered or read back.
    pub(super) fn look_for_rule(&mut self) {
        let Some((id, read_at)) = self.followed.rule else {
            return;
        };
        // What stands may be that of an older route.
        if self.followed.unplanned {
            return;
        }
        let offload = self.route_offload(id);
        let in_place = match (offload.state, offload.reason) {
            (OffloadState::Hardware, _) | (OffloadState::Software, None) => true,
            (
                OffloadState::Software
                | OffloadState::Pending
                | OffloadState::Failed
                | OffloadState::Off,
                _,
            ) => false,
        };
        if in_place {
            self.followed.rule = None;
            self.followed.arrived.push(Sample {
                at: Arrival::Rule,
                read_at,
            });
        }
    }

    /// Whether a route's rule is on its way; else there is none, or it will not come.
    fn awaits_rule(&self, id: SlotId) -> bool {
        let offload = self.route_offload(id);
        offload.state == OffloadState::Pending && offload.reason == Some(Reason::InProgress)
    }
}
