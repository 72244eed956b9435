//! What the kernel announces about routes and next-hop objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use frr_offload::wire::netlink::{Attributes, Messages};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use socket2::SockRef;

/// How often it looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(100);
const RTMSG_LEN: usize = 12;
const NHMSG_LEN: usize = 8;
const NHA_GROUP: u16 = 2;
const RTM_NEWNEXTHOP: u16 = 104;

/// A multicast group to listen to.
#[derive(Debug, Clone, Copy)]
pub enum Group {
    Routes = 7,
    NextHops = 32,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    pub fn open(group: Group) -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
        socket.bind_auto().unwrap();
        socket.add_membership(group as u32).unwrap();
        let reference = SockRef::from(&socket);
        reference.set_recv_buffer_size(8 << 20).unwrap();
        reference.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            buffer: Vec::with_capacity(64 << 10),
        }
    }

    /// Waits for something about this destination. `None` if it does not come.
    pub fn route(&mut self, addr: [u8; 4], len: u8) -> Option<Instant> {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            self.buffer.clear();
            if self.socket.recv_from(&mut self.buffer, 0).is_err() {
                continue;
            }
            let now = Instant::now();
            for message in Messages::new(&self.buffer).flatten() {
                let attributes = message.payload.get(RTMSG_LEN..).unwrap_or(&[]);
                let found = Attributes::new(attributes)
                    .flatten()
                    .any(|(kind, value)| kind == 1 && value == addr);
                if found && message.payload.get(1) == Some(&len) {
                    return Some(now);
                }
            }
        }
        None
    }

    /// Notes every group that is written until it is told to stop: how many there were, and when the last came.
    pub fn watch_groups(mut self) -> GroupWatch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut writes, mut last) = (0, None);
            while !stopped.load(Ordering::Relaxed) {
                self.buffer.clear();
                if self.socket.recv_from(&mut self.buffer, 0).is_err() {
                    continue;
                }
                for message in Messages::new(&self.buffer).flatten() {
                    let attributes = message.payload.get(NHMSG_LEN..).unwrap_or(&[]);
                    let is_group = Attributes::new(attributes)
                        .flatten()
                        .any(|(kind, _)| kind == NHA_GROUP);
                    if message.kind == RTM_NEWNEXTHOP && is_group {
                        writes += 1;
                        last = Some(Instant::now());
                    }
                }
            }
            (writes, last)
        });
        GroupWatch { thread, stop }
    }
}

/// See [`Listener::watch_groups`].
#[derive(Debug)]
pub struct GroupWatch {
    thread: thread::JoinHandle<(usize, Option<Instant>)>,
    stop: Arc<AtomicBool>,
}

impl GroupWatch {
    /// What came.
    pub fn end(self) -> (usize, Option<Instant>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
