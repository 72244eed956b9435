//! A thread that listens on multicast groups and hands over what it hears in batches: the one shape of all such threads here.
//! It begins with the lists, and reads them again when the kernel dropped something or when it is asked to.
//!
//! Its sockets have joined their groups before it starts, so that nothing falls between them and the lists. Knows no message
//! types: [`Hear`] says which lists there are and what a message means. It ends when its [`Listener`] is dropped, or when the
//! engine is gone. As it waits in the kernel, it is woken by a message that does nothing and is acknowledged: the
//! acknowledgement arrives where it waits.

use std::convert::Infallible;
use std::{io, thread};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};
use nix::errno::Errno as OsErrno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::socket::{self, RtnlSocket, Wait, is_overrun};
use crate::model::{Event, KernelEvent, OffloadEvent};
use crate::wire::netlink::{Envelope, Message, Messages, NLM_F_ACK};

const NLMSG_NOOP: u16 = 1;
/// No more notifications than this are read of a socket before they are handed over.
const MAX_DATAGRAMS: usize = 1000;

/// What a listener does with what comes.
pub(super) trait Hear: Send + 'static {
    /// What it makes of messages.
    type Heard: Heard;
    /// The thread's name.
    const NAME: &'static str;

    /// Appends everything as it is now. A list that can't be read is reported in its place.
    fn lists(&mut self, why: Why, heard: &mut Vec<Self::Heard>);

    /// Appends what a message says that came by the socket of this index.
    fn hear(&mut self, socket: usize, message: &Message<'_>, heard: &mut Vec<Self::Heard>);

    /// The queues are empty: appends what had to wait for that.
    fn quiet(&mut self, _heard: &mut Vec<Self::Heard>) {}
}

/// What listeners tell.
pub(super) trait Heard: Send + Sized {
    /// Something was missed; lists follow.
    const OVERRUN: Self;
    /// Hands over a batch.
    const EVENT: fn(Vec<Self>) -> Event;
}

impl Heard for KernelEvent {
    const OVERRUN: Self = Self::Overrun;
    const EVENT: fn(Vec<Self>) -> Event = Event::Kernel;
}

impl Heard for OffloadEvent {
    const OVERRUN: Self = Self::Overrun;
    const EVENT: fn(Vec<Self>) -> Event = Event::Offload;
}

/// Why the lists are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It is the beginning.
    First,
    /// The kernel dropped notifications.
    Overrun,
    /// Somebody asked for them.
    Asked,
}

/// A listening thread; ends when it is dropped.
#[derive(Debug)]
pub struct Listener {
    thread: Option<thread::JoinHandle<()>>,
    /// Dropping it asks the thread to stop.
    requests: Option<Sender<()>>,
    waker: socket::Sender,
}

impl Listener {
    /// Starts the thread; the first of the sockets is the one that wakes it.
    pub(super) fn start<H: Hear>(
        sockets: Vec<RtnlSocket>,
        hear: H,
        tx: Sender<Event>,
    ) -> io::Result<Self> {
        let waker = sockets[0].sender();
        // One request that waits stands for all.
        let (requests, asked) = bounded(1);
        let mut run = Run {
            sockets,
            hear,
            requests: asked,
            asked: false,
            tx,
        };
        let thread =
            thread::Builder::new()
                .name(H::NAME.into())
                .spawn(move || match run.listen() {
                    Err(End::Over) => {}
                    Err(End::Io(error)) => tracing::error!(%error, "the thread {} ends", H::NAME),
                    Ok(never) => match never {},
                })?;
        Ok(Self {
            thread: Some(thread),
            requests: Some(requests),
            waker,
        })
    }

    /// Asks for fresh lists, which come as events.
    pub fn refresh(&self) -> io::Result<()> {
        if let Some(requests) = &self.requests
            && requests.try_send(()).is_ok()
        {
            self.wake()?;
        }
        Ok(())
    }

    /// Whether the thread has ended: a fault, or the engine is gone.
    pub fn is_finished(&self) -> bool {
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

impl Drop for Listener {
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

/// The thread's reason to end.
#[derive(Debug)]
enum End {
    /// It was asked to, or the engine is gone.
    Over,
    Io(io::Error),
}

#[derive(Debug)]
struct Run<H> {
    sockets: Vec<RtnlSocket>,
    hear: H,
    requests: Receiver<()>,
    /// A request came while the engine was busy.
    asked: bool,
    tx: Sender<Event>,
}

impl<H: Hear> Run<H> {
    fn listen(&mut self) -> Result<Infallible, End> {
        let mut why = Some(Why::First);
        let mut heard = Vec::new();
        loop {
            if let Some(why) = why {
                self.hear.lists(why, &mut heard);
            }
            self.hear.quiet(&mut heard);
            self.hand_over(std::mem::take(&mut heard))?;
            self.wait()?;
            let mut overrun = false;
            for socket in 0..self.sockets.len() {
                overrun |= self.follow(socket, &mut heard)?;
            }
            let asked = self.asked()?;
            why = if overrun {
                tracing::warn!(
                    listener = H::NAME,
                    "the kernel dropped notifications; reading the lists again"
                );
                heard.push(H::Heard::OVERRUN);
                Some(Why::Overrun)
            } else {
                asked.then_some(Why::Asked)
            };
        }
    }

    /// Waits while the engine is busy.
    fn hand_over(&mut self, heard: Vec<H::Heard>) -> Result<(), End> {
        if heard.is_empty() {
            return Ok(());
        }
        let event = H::Heard::EVENT(heard);
        loop {
            select! {
                send(self.tx, event) -> sent => return sent.map_err(|_| End::Over),
                recv(self.requests) -> asked => {
                    asked.map_err(|_| End::Over)?;
                    self.asked = true;
                }
            }
        }
    }

    fn wait(&self) -> Result<(), End> {
        let sockets = self.sockets.iter();
        let mut sockets: Vec<_> = sockets
            .map(|socket| PollFd::new(socket.fd(), PollFlags::POLLIN))
            .collect();
        loop {
            match poll(&mut sockets, PollTimeout::NONE) {
                Ok(_) => return Ok(()),
                Err(OsErrno::EINTR) => {}
                Err(errno) => return Err(End::Io(errno.into())),
            }
        }
    }

    /// Takes what is queued, up to a limit; whether something was dropped.
    fn follow(&mut self, socket: usize, heard: &mut Vec<H::Heard>) -> Result<bool, End> {
        let queue = &mut self.sockets[socket];
        for _ in 0..MAX_DATAGRAMS {
            match queue.receive(Wait::Now) {
                Ok(datagram) => {
                    for message in Messages::new(datagram).map_while(Result::ok) {
                        self.hear.hear(socket, &message, heard);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_overrun(&error) => {
                    // What is queued is older than what was dropped.
                    queue.drain();
                    return Ok(true);
                }
                Err(error) => return Err(End::Io(error)),
            }
        }
        Ok(false)
    }

    /// Whether fresh lists were asked for since the last time.
    fn asked(&mut self) -> Result<bool, End> {
        let asked = std::mem::take(&mut self.asked);
        match self.requests.try_recv() {
            Ok(()) => Ok(true),
            Err(TryRecvError::Empty) => Ok(asked),
            Err(TryRecvError::Disconnected) => Err(End::Over),
        }
    }
}
