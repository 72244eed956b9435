//! A thread that writes: what the writers of routes and of rules have in common. Knows no ops; each batch of them is handed
//! to a function that writes it.

use std::{io, thread};

use crossbeam_channel::Receiver;

/// A writing thread, and the netlink port that it writes by.
#[derive(Debug)]
pub struct Writer {
    thread: thread::JoinHandle<()>,
    port: u32,
}

/// The engine is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Writer {
    /// Starts the thread.
    pub(super) fn start<Op: Send + 'static>(
        name: &str,
        port: u32,
        rx: Receiver<Vec<Op>>,
        mut write: impl FnMut(Vec<Op>) -> Result<(), Gone> + Send + 'static,
    ) -> io::Result<Self> {
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            for ops in rx {
                if write(ops).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { thread, port })
    }

    /// The netlink port of its socket, by which listeners tell its writes from those of others.
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// Whether the thread has ended: a fault, as long as somebody holds the sender of its ops.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end, which comes when the sender of its ops is dropped and all of them are done. The receiver of its
    /// events must be drained or dropped, or a full channel keeps the thread.
    pub fn join(self) -> thread::Result<()> {
        self.thread.join()
    }
}
