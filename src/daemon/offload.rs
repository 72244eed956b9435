//! The threads of the offload: the writer of rules, the ears for what others do to them, ports and the kernel's own routes. They
//! run only when `offload.mode` is not `off`; the last, which costs the kernel something for every route that is written, only
//! once there is a switch.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender};
use tracing::warn;

use crate::kernel::monitor::RECEIVE_BUFFER;
use crate::kernel::{
    Listener, MirrorWatch, PortWatch, TC_RECEIVE_BUFFER, TcWatch, TcWriter, Writer,
};
use crate::model::{Event, RuleOp};

/// The threads.
#[derive(Debug)]
pub struct OffloadThreads {
    writer: Writer,
    watch: Listener,
    ports: Listener,
    mirror: Mutex<Option<Listener>>,
    events: Sender<Event>,
}

impl OffloadThreads {
    /// Starts them; the first lists come as events.
    pub fn start(ops: Receiver<Vec<RuleOp>>, events: &Sender<Event>) -> anyhow::Result<Self> {
        let writer = TcWriter::start(TC_RECEIVE_BUFFER, ops, events.clone())
            .context("can't start the writer of rules")?;
        let watch = TcWatch::start(RECEIVE_BUFFER, writer.port(), events.clone())
            .context("can't listen to tc")?;
        let ports =
            PortWatch::start(RECEIVE_BUFFER, events.clone()).context("can't watch ports")?;
        Ok(Self {
            writer,
            watch,
            ports,
            mirror: Mutex::new(None),
            events: events.clone(),
        })
    }

    /// Whether one that is needed has ended.
    pub fn is_finished(&self) -> bool {
        self.writer.is_finished()
            || self.watch.is_finished()
            || self.ports.is_finished()
            || self.mirror().as_ref().is_some_and(Listener::is_finished)
    }

    /// Asks for the kernel's own routes and the ports once more.
    pub fn refresh(&self) {
        let mirror = self.mirror().as_ref().map(Listener::refresh);
        for result in mirror.into_iter().chain([self.ports.refresh()]) {
            if let Err(error) = result {
                warn!(%error, "the kernel's routes and ports can't be listed again");
            }
        }
    }

    /// There is a switch: from now on the kernel's own routes are followed.
    pub fn watch_routes(&self) -> anyhow::Result<()> {
        let mut mirror = self.mirror();
        if mirror.is_none() {
            let watch = MirrorWatch::start(RECEIVE_BUFFER, self.events.clone())
                .context("can't watch the kernel's routes")?;
            *mirror = Some(watch);
        }
        Ok(())
    }

    fn mirror(&self) -> MutexGuard<'_, Option<Listener>> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the writer has ended.
    pub fn has_written(&self) -> bool {
        self.writer.is_finished()
    }

    /// Waits for the writer, which ends when the sender of its ops is dropped.
    pub fn join(self) -> anyhow::Result<()> {
        let Self {
            writer,
            watch,
            ports,
            mirror,
            events,
        } = self;
        drop((watch, ports, mirror, events));
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer of rules panicked"))
    }
}
