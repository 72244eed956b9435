//! The FPM listener: zebra dials in, one connection at a time speaks for it.
//!
//! ```text
//! a thread an address   accept -> allow list -> a thread a connection   read -> FpmConnection -> Event::Source
//!                                               one more for who speaks  Reply -> write (replies.rs)
//! ```
//!
//! - zebra resets a session that it can't write to for 15 s (and FRR 10.3 stalls its own kernel writes before): each
//!   connection has a thread that does nothing but read and decode, and the engine always takes.
//! - A connection speaks for the source once its first whole frame with a message has come; only then is the one before
//!   it shut down. A client that says nothing displaces nobody: it holds one of `MAX_CONNECTIONS` places, and the
//!   longest silent one gives way when they run out.
//! - Session numbers are given when a connection begins to speak. The engine ignores events of an older number than the
//!   last `Opened`, so nothing here needs to order the last words of the displaced.
//!
//! Blocking sockets and OS threads: an async runtime costs five times as much a route. Knows nothing of what the routes
//! mean, of replays, or of time-outs of routes; zebra marks no end of its replay.

use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tracing::{debug, info, warn};

use crate::model::{Event, Prefix, SourceEvent, SourceId};
use crate::wire::fpm::{FpmBatch, FpmConnection};

use super::replies::ReplyPort;
use super::zebra_process;

/// More connections than this are not held at once; zebra has one.
const MAX_CONNECTIONS: usize = 8;
/// What one read takes at most.
const READ_LEN: usize = 256 * 1024;
/// How often a thread that can't hand over an event looks whether it should end.
const SEND_PATIENCE: Duration = Duration::from_millis(100);
/// How long the accept loop rests after an error such as `EMFILE`, which would come again at once.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// A dead peer is noticed after this silence and three unanswered probes.
const KEEPALIVE_TIME: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Where to listen and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FpmListenerConfig {
    /// Port 0 takes any that is free.
    pub listen: Vec<SocketAddr>,
    /// Peers beside loopback, which is always allowed.
    pub allow: Vec<Prefix>,
}

/// Why it can't listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address is taken, not ours, or not permitted.
    #[error("can't listen for FPM on {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("can't start a thread for FPM")]
    Thread(#[source] io::Error),
}

/// A running listener. Dropping it shuts it down, too.
#[derive(Debug)]
pub struct FpmListener {
    shared: Arc<Shared>,
    listeners: Vec<(SocketAddr, TcpListener)>,
    acceptors: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    allow: Vec<Prefix>,
    events: Sender<Event>,
    closing: AtomicBool,
    replies: ReplyPort,
    connections: Mutex<Connections>,
}

/// Who is connected, and who speaks.
#[derive(Debug, Default)]
struct Connections {
    /// In the order of their coming. Displaced ones are no longer in it.
    live: Vec<Connection>,
    last_id: u64,
    last_session: u32,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    stream: TcpStream,
    /// Whether it speaks for the source; at most one does.
    active: bool,
    /// Why it was shut down from this side; its thread reads it when the socket ends.
    farewell: Arc<Mutex<Option<String>>>,
}

impl FpmListener {
    /// Binds every address, then begins to accept.
    ///
    /// Events go into `events`; when it is full the reading waits, when its other end is gone everything ends.
    pub fn start(config: FpmListenerConfig, events: Sender<Event>) -> Result<Self, ListenError> {
        let FpmListenerConfig { listen, allow } = config;
        let mut listeners = Vec::with_capacity(listen.len());
        for addr in listen {
            let bind = || -> io::Result<_> {
                // The standard library sets SO_REUSEADDR: a restart does not wait for TIME_WAIT.
                let listener = TcpListener::bind(addr)?;
                Ok((listener.local_addr()?, listener))
            };
            listeners.push(bind().map_err(|source| ListenError::Bind { addr, source })?);
        }
        let shared = Arc::new(Shared {
            allow,
            events,
            closing: AtomicBool::new(false),
            replies: ReplyPort::new(),
            connections: Mutex::default(),
        });
        let mut this = Self {
            shared,
            listeners,
            acceptors: Vec::new(),
        };
        for (addr, listener) in &this.listeners {
            let shared = Arc::clone(&this.shared);
            let addr = *addr;
            let listener = listener
                .try_clone()
                .map_err(|source| ListenError::Bind { addr, source })?;
            let acceptor = thread::Builder::new()
                .name("fpm-accept".into())
                .spawn(move || accept(&listener, &shared))
                .map_err(ListenError::Thread)?;
            this.acceptors.push(acceptor);
            info!(%addr, "listening for FPM");
        }
        Ok(this)
    }

    /// The addresses in use, with their real ports.
    pub fn local_addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().map(|(addr, _)| *addr)
    }

    /// Where replies to zebra go.
    pub fn replies(&self) -> ReplyPort {
        self.shared.replies.clone()
    }

    /// Stops accepting, shuts every connection down and waits for the threads. They end at once, or, when nobody takes
    /// their last event, after a tenth of a second.
    pub fn shutdown(mut self) {
        self.close();
    }

    fn close(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        for (addr, listener) in &self.listeners {
            // Wakes the thread that waits in accept().
            if let Err(error) = SockRef::from(listener).shutdown(Shutdown::Both) {
                debug!(%addr, %error, "shutdown of a listening socket");
            }
        }
        for acceptor in self.acceptors.drain(..) {
            join(acceptor);
        }
        let mut connections = self.shared.connections();
        for connection in connections.live.drain(..) {
            connection.shut_down("the daemon is shutting down".into());
        }
        let threads = std::mem::take(&mut connections.threads);
        drop(connections);
        threads.into_iter().for_each(join);
        self.listeners.clear();
    }
}

impl Drop for FpmListener {
    fn drop(&mut self) {
        self.close();
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        warn!("an FPM thread has panicked");
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_closing() {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                if !shared.is_closing() {
                    debug!(%error, "accept");
                    thread::sleep(ACCEPT_REST);
                }
                continue;
            }
        };
        if !shared.allows(peer.ip()) {
            let why = "not in `fpm.allow`".to_owned();
            warn!(%peer, "refused an FPM connection: {why}");
            shared.reject(peer, why);
            continue;
        }
        if let Err(error) = shared.admit(stream, peer) {
            warn!(%peer, %error, "can't serve an FPM connection");
            shared.reject(peer, format!("can't serve it: {error}"));
        }
    }
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        // Every change of the list is complete before anything can panic.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn allows(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback() || self.allow.iter().any(|prefix| prefix.contains(peer))
    }

    /// Gives a new connection its thread, and takes the place of the longest silent one if there is none left.
    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let farewell = Arc::new(Mutex::new(None));
        let mut connections = self.connections();
        connections.threads.retain(|thread| !thread.is_finished());
        if connections.live.len() >= MAX_CONNECTIONS
            && let Some(silent) = connections.live.iter().position(|c| !c.active)
        {
            let silent = connections.live.remove(silent);
            silent.shut_down("silent while others wait".into());
        }
        connections.last_id += 1;
        let id = connections.last_id;
        connections.live.push(Connection {
            id,
            stream: stream.try_clone()?,
            active: false,
            farewell: Arc::clone(&farewell),
        });
        let shared = Arc::clone(self);
        let reader = Reader {
            shared,
            id,
            peer,
            farewell,
            session: None,
        };
        let spawned = thread::Builder::new()
            .name("fpm-session".into())
            .spawn(move || reader.run(&stream));
        match spawned {
            Ok(thread) => {
                connections.threads.push(thread);
                Ok(())
            }
            Err(error) => {
                connections.live.retain(|c| c.id != id);
                Err(error)
            }
        }
    }

    /// Makes a connection the one that speaks, and returns its session number; `None` when it was shut down meanwhile.
    fn activate(&self, id: u64, peer: SocketAddr, pid: u32) -> Option<u32> {
        let mut connections = self.connections();
        connections.live.iter().position(|c| c.id == id)?;
        if let Some(displaced) = connections.live.iter().position(|c| c.active) {
            let displaced = connections.live.remove(displaced);
            displaced.shut_down(format!("displaced by a newer connection from {peer}"));
        }
        connections.last_session += 1;
        let session = connections.last_session;
        let connection = connections.live.iter_mut().find(|c| c.id == id)?;
        connection.active = true;
        let stream = connection.stream.try_clone();
        match stream.and_then(|stream| self.replies.open(session, pid, stream)) {
            Ok(thread) => connections.threads.push(thread),
            Err(error) => warn!(%peer, %error, "can't reply to zebra on this connection"),
        }
        Some(session)
    }

    fn reject(&self, peer: SocketAddr, why: String) {
        let gone = self.send(SourceEvent::Rejected {
            source: SourceId::Fpm,
            peer: peer.to_string().into(),
            why: why.into(),
        });
        if gone.is_err() {
            debug!(%peer, "nobody takes events any more");
        }
    }

    /// Hands an event over, waiting while there is no room.
    fn send(&self, event: SourceEvent) -> Result<(), NobodyListens> {
        let mut event = Event::Source(event);
        loop {
            match self.events.send_timeout(event, SEND_PATIENCE) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(unsent)) if !self.is_closing() => event = unsent,
                Err(_) => return Err(NobodyListens),
            }
        }
    }
}

impl Connection {
    fn shut_down(&self, why: String) {
        *self.farewell.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        if let Err(error) = self.stream.shutdown(Shutdown::Both) {
            // The peer was faster.
            debug!(%error, "shutdown of an FPM connection");
        }
    }
}

/// The events' receiver is gone, or we are closing and it takes nothing.
#[derive(Debug)]
struct NobodyListens;

/// The thread of one connection.
struct Reader {
    shared: Arc<Shared>,
    id: u64,
    peer: SocketAddr,
    farewell: Arc<Mutex<Option<String>>>,
    session: Option<u32>,
}

impl Reader {
    fn run(mut self, stream: &TcpStream) {
        debug!(peer = %self.peer, "FPM connection accepted");
        let why = self.read(stream);
        if let Some(session) = self.session {
            self.shared.replies.close(session);
        }
        // Who writes to it must not wait on.
        if let Err(error) = stream.shutdown(Shutdown::Both) {
            debug!(%error, "shutdown of an FPM connection");
        }
        self.shared.connections().live.retain(|c| c.id != self.id);
        let Some(why) = why else {
            return;
        };
        let peer = self.peer;
        if let Some(session) = self.session {
            debug!(%peer, session, %why, "FPM connection closed");
            // What we close ourselves at the end is no loss of the source.
            if self.shared.closing.load(Ordering::Acquire) {
                return;
            }
            let closed = self.shared.send(SourceEvent::Closed {
                source: SourceId::Fpm,
                session,
                why: why.into(),
            });
            if closed.is_err() {
                debug!(%peer, "nobody takes events any more");
            }
        } else {
            debug!(%peer, %why, "FPM connection rejected");
            self.shared.reject(peer, why);
        }
    }

    /// Reads to the end and says why it ended; `None` when there is nobody to tell.
    fn read(&mut self, mut stream: &TcpStream) -> Option<String> {
        let mut connection = FpmConnection::new();
        let mut buffer = vec![0; READ_LEN];
        loop {
            let len = match stream.read(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Some(self.farewell().unwrap_or_else(|| error.to_string())),
            };
            if len == 0 {
                return Some(
                    self.farewell()
                        .unwrap_or_else(|| match connection.finish() {
                            Ok(()) => "closed by the peer".into(),
                            Err(error) => error.to_string(),
                        }),
                );
            }
            let read_at = Instant::now();
            let mut batches = Vec::new();
            let result = connection.receive(&buffer[..len], |batch| batches.push(batch));
            for batch in batches {
                match self.deliver(stream, (batch, read_at), connection.pid()) {
                    Ok(true) => {}
                    Ok(false) => return Some(self.farewell().unwrap_or_default()),
                    Err(NobodyListens) => return None,
                }
            }
            if let Err(error) = result {
                return Some(error.to_string());
            }
        }
    }

    /// `Ok(false)` when this connection was shut down before it could speak.
    fn deliver(
        &mut self,
        stream: &TcpStream,
        (batch, read_at): (FpmBatch, Instant),
        pid: Option<u32>,
    ) -> Result<bool, NobodyListens> {
        let session = if let Some(session) = self.session {
            session
        } else {
            // A frame without a message is no sign of zebra.
            let Some(zebra) = pid else { return Ok(true) };
            let Some(session) = self.shared.activate(self.id, self.peer, zebra) else {
                return Ok(false);
            };
            self.session = Some(session);
            debug!(peer = %self.peer, session, pid, "FPM connection speaks");
            self.shared.send(SourceEvent::Opened {
                source: SourceId::Fpm,
                session,
                peer: self.peer.to_string().into(),
                pid,
            })?;
            self.recognise(session, stream);
            session
        };
        let FpmBatch {
            frames,
            skipped,
            updates,
        } = batch;
        self.shared.send(SourceEvent::Batch {
            source: SourceId::Fpm,
            session,
            frames,
            skipped,
            updates,
            read_at,
        })?;
        Ok(true)
    }

    /// Looks who dialled, in a thread of its own: `/proc` of a large host takes its time.
    fn recognise(&self, session: u32, stream: &TcpStream) {
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let (peer, shared) = (self.peer, Arc::clone(&self.shared));
        let look = move || {
            let Some(zebra) = zebra_process::find(peer, local) else {
                debug!(%peer, "not a zebra that can be seen from here");
                return;
            };
            let source = SourceId::Fpm;
            let recognised = shared.send(SourceEvent::Recognised {
                source,
                session,
                zebra,
            });
            if recognised.is_err() {
                debug!(%peer, "nobody takes events any more");
            }
        };
        // Nobody waits for its end: what it reads belongs to whoever dialled.
        let spawned = thread::Builder::new().name("fpm-who".into()).spawn(look);
        if let Err(error) = spawned {
            debug!(%peer, %error, "can't look who it is");
        }
    }

    fn farewell(&self) -> Option<String> {
        self.farewell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
