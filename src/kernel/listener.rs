//! A thread that listens on multicast groups: hands over what it hears in batches, begins with the lists, and reads them
//! again when the kernel dropped something. Knows no message types: its owner says what a message means.
//! It ends when it is dropped, or when the engine is gone.

use std::convert::Infallible;
use std::{io, thread};

use crossbeam_channel::{Receiver, Sender, TryRecvError, select};

use super::socket::{self, RtnlSocket, Wait, is_overrun};
use crate::model::Event;
use crate::wire::netlink::{Envelope, Message, Messages, NLM_F_ACK};

const NLMSG_NOOP: u16 = 1;
/// No more events than this are handed over at once.
const MAX_EVENTS: usize = 1000;

/// What a listener does with what comes.
pub(super) trait Hear: Send + 'static {
    /// What it makes of messages.
    type Heard: Send;

    /// Everything as it is now; after `overrun` it says first that something was missed.
    fn lists(&mut self, overrun: bool) -> Vec<Self::Heard>;

    /// What a message says.
    fn hear(&mut self, message: &Message<'_>) -> Option<Self::Heard>;

    /// The event that hands over a batch.
    fn event(heard: Vec<Self::Heard>) -> Event;
}

/// The listening thread.
#[derive(Debug)]
pub(super) struct Listener {
    thread: Option<thread::JoinHandle<()>>,
    /// Dropping it asks the thread to stop.
    stop: Option<Sender<Infallible>>,
    waker: socket::Sender,
}

impl Listener {
    /// Listens on a socket that has joined its groups, so that nothing falls between them and the lists.
    pub(super) fn start<H: Hear>(
        name: &str,
        socket: RtnlSocket,
        hear: H,
        tx: Sender<Event>,
    ) -> io::Result<Self> {
        let waker = socket.sender();
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let mut run = Run {
            socket,
            hear,
            stopped,
            tx,
        };
        let thread =
            thread::Builder::new()
                .name(name.into())
                .spawn(move || match run.listen() {
                    Err(End::Asked | End::EngineGone) => {}
                    Err(End::Io(error)) => tracing::error!(%error, "a kernel listener ends"),
                    Ok(never) => match never {},
                })?;
        Ok(Self {
            thread: Some(thread),
            stop: Some(stop),
            waker,
        })
    }

    /// Whether the thread has ended: a fault, or the engine is gone.
    pub(super) fn is_finished(&self) -> bool {
        self.thread
            .as_ref()
            .is_none_or(thread::JoinHandle::is_finished)
    }
}

impl Drop for Listener {
    /// Wakes the thread by a message that does nothing and is acknowledged, and waits for its end.
    fn drop(&mut self) {
        self.stop = None;
        let mut bytes = Vec::new();
        let envelope = Envelope {
            buffer: &mut bytes,
            seq: 0,
        };
        envelope.request(NLMSG_NOOP, NLM_F_ACK).finish();
        match self.waker.send(&bytes) {
            Ok(()) => {
                if let Some(Err(_)) = self.thread.take().map(thread::JoinHandle::join) {
                    tracing::error!("a kernel listener panicked");
                }
            }
            Err(error) => tracing::warn!(%error, "can't wake a kernel listener"),
        }
    }
}

/// The thread's reason to end.
#[derive(Debug)]
enum End {
    Asked,
    EngineGone,
    Io(io::Error),
}

#[derive(Debug)]
struct Run<H> {
    socket: RtnlSocket,
    hear: H,
    stopped: Receiver<Infallible>,
    tx: Sender<Event>,
}

impl<H: Hear> Run<H> {
    fn listen(&mut self) -> Result<Infallible, End> {
        let mut heard = self.hear.lists(false);
        loop {
            if !heard.is_empty() {
                let event = H::event(std::mem::take(&mut heard));
                select! {
                    send(self.tx, event) -> sent => sent.map_err(|_| End::EngineGone)?,
                    recv(self.stopped) -> _ => return Err(End::Asked),
                }
            }
            let mut wait = Wait::Block;
            while heard.len() < MAX_EVENTS {
                let datagram = self.socket.receive(wait);
                if self.stopped.try_recv() == Err(TryRecvError::Disconnected) {
                    return Err(End::Asked);
                }
                match datagram {
                    Ok(datagram) => {
                        let messages = Messages::new(datagram).map_while(Result::ok);
                        heard.extend(messages.filter_map(|message| self.hear.hear(&message)));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_overrun(&error) => {
                        tracing::warn!("the kernel dropped notifications; reading the lists again");
                        // What is queued is older than what was dropped.
                        self.socket.drain();
                        heard.extend(self.hear.lists(true));
                        break;
                    }
                    Err(error) => return Err(End::Io(error)),
                }
                wait = Wait::Now;
            }
        }
    }
}
