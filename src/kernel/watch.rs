//! What the offload's listening threads have in common: they are asked for fresh lists, asked to end, and hand over events.
//! Knows nothing of what is listened for. A thread that waits in the kernel is woken by a message that does nothing and is
//! acknowledged, so the acknowledgement arrives where it waits.

use std::{io, thread};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};

use super::socket;
use crate::model::{Event, OffloadEvent};
use crate::wire::netlink::{Envelope, NLM_F_ACK};

const NLMSG_NOOP: u16 = 1;
/// No more events than this are handed over at once.
pub(super) const MAX_EVENTS: usize = 1000;

/// A listening thread; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    thread: Option<thread::JoinHandle<()>>,
    /// Dropping it asks the thread to stop.
    requests: Option<Sender<()>>,
    waker: socket::Sender,
}

/// The thread's reason to end.
#[derive(Debug)]
pub(super) enum End {
    Asked,
    EngineGone,
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The thread's side.
#[derive(Debug)]
pub(super) struct Seat {
    requests: Receiver<()>,
    refresh: bool,
    tx: Sender<Event>,
}

impl Watch {
    /// Starts the thread. `waker` sends on a socket that it waits for.
    pub(super) fn start(
        name: &'static str,
        waker: socket::Sender,
        tx: Sender<Event>,
        run: impl FnOnce(Seat) -> End + Send + 'static,
    ) -> io::Result<Self> {
        // One request that waits stands for all.
        let (requests, asked) = bounded(1);
        let seat = Seat {
            requests: asked,
            refresh: false,
            tx,
        };
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || match run(seat) {
                End::Asked | End::EngineGone => {}
                End::Io(error) => tracing::error!(%error, "the thread {name} ends"),
            })?;
        Ok(Self {
            thread: Some(thread),
            requests: Some(requests),
            waker,
        })
    }

    /// Asks for fresh lists, which come as events.
    pub(super) fn refresh(&self) -> io::Result<()> {
        if let Some(requests) = &self.requests
            && requests.try_send(()).is_ok()
        {
            self.wake()?;
        }
        Ok(())
    }

    /// Whether the thread has ended: a fault, or the engine is gone.
    pub(super) fn is_finished(&self) -> bool {
        self.thread
            .as_ref()
            .is_none_or(thread::JoinHandle::is_finished)
    }

    fn wake(&self) -> io::Result<()> {
        let mut bytes = Vec::new();
        let envelope = Envelope {
            buffer: &mut bytes,
            seq: 0,
        };
        envelope.request(NLMSG_NOOP, NLM_F_ACK).finish();
        self.waker.send(&bytes)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.requests = None;
        match self.wake() {
            Ok(()) => {
                if let Some(Err(_)) = self.thread.take().map(thread::JoinHandle::join) {
                    tracing::error!("a listening thread panicked");
                }
            }
            Err(error) => tracing::warn!(%error, "can't wake a listening thread"),
        }
    }
}

impl Seat {
    /// Whether fresh lists were asked for since the last time.
    pub(super) fn asked(&mut self) -> Result<bool, End> {
        match self.requests.try_recv() {
            Ok(()) => self.refresh = true,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(End::Asked),
        }
        Ok(std::mem::take(&mut self.refresh))
    }

    /// Hands over, and waits while the engine is busy.
    pub(super) fn hand_over(&mut self, events: Vec<OffloadEvent>) -> Result<(), End> {
        if events.is_empty() {
            return Ok(());
        }
        let event = Event::Offload(events);
        loop {
            select! {
                send(self.tx, event) -> sent => return sent.map_err(|_| End::EngineGone),
                recv(self.requests) -> asked => {
                    asked.map_err(|_| End::Asked)?;
                    self.refresh = true;
                }
            }
        }
    }
}
