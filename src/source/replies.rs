//! The write side of the FPM connection that speaks: replies to zebra.
//!
//! A thread a connection does nothing but write what it is handed, so neither the reader nor the engine ever waits for a
//! zebra that doesn't read: then one batch is being written and one waits, and there is no room for more. Whoever makes
//! replies asks for room first and leaves the rest undone, which costs nothing (`engine::feedback`). What is on its way
//! when the connection ends is lost; the next one is owed everything anew.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::SockRef;
use tracing::debug;

use crate::model::Reply;
use crate::wire::feedback::encode_reply;

/// What the kernel holds for a zebra that doesn't read: some thousand replies, which would be old news to it.
const SEND_BUFFER: usize = 256 * 1024;

/// Where replies go.
#[derive(Debug, Clone)]
pub struct ReplyPort {
    speaking: Arc<Mutex<Option<Speaking>>>,
    room_made: Sender<()>,
    room: Receiver<()>,
}

/// The connection that speaks for the source.
#[derive(Debug)]
struct Speaking {
    session: u32,
    batches: Sender<Vec<Reply>>,
}

impl ReplyPort {
    pub(super) fn new() -> Self {
        let (room_made, room) = bounded(1);
        Self {
            speaking: Arc::default(),
            room_made,
            room,
        }
    }

    /// Whether a batch for this session would be taken.
    pub fn has_room(&self, session: u32) -> bool {
        let speaking = self.speaking();
        let to = speaking.as_ref().filter(|to| to.session == session);
        to.is_some_and(|to| !to.batches.is_full())
    }

    /// Says when there may be room again.
    pub const fn room(&self) -> &Receiver<()> {
        &self.room
    }

    /// Hands over a batch. Without room, or if that session has ended, it is dropped.
    pub fn send(&self, session: u32, replies: Vec<Reply>) {
        let speaking = self.speaking();
        let to = speaking.as_ref().filter(|to| to.session == session);
        if to.is_none_or(|to| to.batches.try_send(replies).is_err()) {
            debug!(session, "replies to a connection that has ended");
        }
    }

    /// A connection begins to speak, with this `nlmsg_pid`. Its thread ends with the stream.
    pub(super) fn open(
        &self,
        session: u32,
        pid: u32,
        stream: TcpStream,
    ) -> io::Result<JoinHandle<()>> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
        let (batches, out) = bounded(1);
        let room_made = self.room_made.clone();
        let thread = thread::Builder::new()
            .name("fpm-replies".into())
            .spawn(move || write(stream, pid, &out, &room_made))?;
        *self.speaking() = Some(Speaking { session, batches });
        Ok(thread)
    }

    /// The connection has ended.
    pub(super) fn close(&self, session: u32) {
        self.speaking().take_if(|to| to.session == session);
    }

    fn speaking(&self) -> MutexGuard<'_, Option<Speaking>> {
        // It is replaced as a whole.
        self.speaking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(mut stream: TcpStream, pid: u32, batches: &Receiver<Vec<Reply>>, room_made: &Sender<()>) {
    let mut frames = Vec::new();
    for batch in batches {
        // A signal that is still there says the same.
        let _ = room_made.try_send(());
        frames.clear();
        for reply in &batch {
            encode_reply(reply, pid, &mut frames);
        }
        if let Err(error) = stream.write_all(&frames) {
            debug!(%error, "can't reply to zebra");
            break;
        }
    }
    // Without replies the connection would not tell the truth: zebra shall dial anew. Mostly it has ended already.
    if let Err(error) = stream.shutdown(Shutdown::Both) {
        debug!(%error, "shutdown of an FPM connection");
    }
}
