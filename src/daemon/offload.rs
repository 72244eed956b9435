//! The threads of the offload: the writer of rules, the ears for what others do to them, ports and the kernel's own routes. They
//! run only when `offload.mode` is not `off`.

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender};
use tracing::warn;

use crate::kernel::monitor::RECEIVE_BUFFER;
use crate::kernel::{MirrorWatch, PortWatch, TC_RECEIVE_BUFFER, TcWatch, TcWriter};
use crate::model::{Event, RuleOp};

/// The threads.
#[derive(Debug)]
pub struct OffloadThreads {
    writer: TcWriter,
    watch: TcWatch,
    ports: PortWatch,
    mirror: MirrorWatch,
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
        let mirror = MirrorWatch::start(RECEIVE_BUFFER, events.clone())
            .context("can't watch the kernel's routes")?;
        Ok(Self {
            writer,
            watch,
            ports,
            mirror,
        })
    }

    /// Whether one that is needed has ended.
    pub fn is_finished(&self) -> bool {
        self.writer.is_finished()
            || self.watch.is_finished()
            || self.ports.is_finished()
            || self.mirror.is_finished()
    }

    /// Asks for the kernel's own routes and the ports once more.
    pub fn refresh(&self) {
        for result in [self.mirror.refresh(), self.ports.refresh()] {
            if let Err(error) = result {
                warn!(%error, "the kernel's routes and ports can't be listed again");
            }
        }
    }

    /// Waits for the writer, which ends when the sender of its ops is dropped.
    pub fn join(self) -> anyhow::Result<()> {
        let Self {
            writer,
            watch,
            ports,
            mirror,
        } = self;
        drop((watch, ports, mirror));
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer of rules panicked"))
    }
}
