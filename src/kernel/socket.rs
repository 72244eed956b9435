//! One rtnetlink socket with blocking I/O: open with the options that we rely on, send, receive.
//! Knows no message types. A receive buffer larger than the host allows is taken by force where we may.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno as OsErrno;
use nix::libc::MSG_DONTWAIT;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};

use crate::model::Errno;

/// The kernel never fills more in a dump; a notification of a group with 1024 members is 8 KiB.
const BUFFER_LEN: usize = 64 << 10;

/// A netlink socket: of rtnetlink, of the generic families, or of netfilter.
#[derive(Debug)]
pub(super) struct RtnlSocket {
    socket: Arc<Socket>,
    buffer: Vec<u8>,
}

/// Whether to wait for something to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// As long as it takes, or the socket's timeout.
    Block,
    /// Only what is there; else `WouldBlock`.
    Now,
}

impl RtnlSocket {
    /// Opens and binds. Options that an old kernel lacks are left out: all filters are applied again by the reader.
    pub(super) fn open(receive_buffer: usize) -> io::Result<Self> {
        Self::of(NETLINK_ROUTE, receive_buffer)
    }

    /// The same for generic netlink.
    pub(super) fn generic(receive_buffer: usize) -> io::Result<Self> {
        Self::of(NETLINK_GENERIC, receive_buffer)
    }

    /// The same for netfilter.
    pub(super) fn netfilter(receive_buffer: usize) -> io::Result<Self> {
        Self::of(NETLINK_NETFILTER, receive_buffer)
    }

    fn of(protocol: isize, receive_buffer: usize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // Only better texts and shorter answers are lost without these.
        for option in [
            socket.set_ext_ack(true),
            socket.set_cap_ack(true),
            socket.set_netlink_get_strict_chk(true),
        ] {
            if let Err(error) = option {
                tracing::debug!(%error, "a netlink socket option is not supported");
            }
        }
        if setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &receive_buffer)?;
        }
        Ok(Self {
            socket: Arc::new(socket),
            buffer: Vec::with_capacity(BUFFER_LEN),
        })
    }

    /// Receiving fails with `WouldBlock` after this long.
    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        SockRef::from(&*self.socket).set_read_timeout(Some(timeout))
    }

    /// The socket's own address, which the kernel puts into notifications of what was written by it.
    pub(super) fn port(&self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// Lets only what a classic BPF program accepts into the queue.
    pub(super) fn filter(&self, program: &[SockFilter]) -> io::Result<()> {
        SockRef::from(&*self.socket).attach_filter(program)
    }

    /// Joins a multicast group.
    pub(super) fn join(&self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Another handle for sending.
    pub(super) fn sender(&self) -> Sender {
        Sender(Arc::clone(&self.socket))
    }

    /// For waiting on several sockets.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends to the kernel; an interrupted send has done nothing and is repeated.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.socket, bytes)
    }

    /// Receives one datagram of the kernel. Interruptions and other processes' messages are passed over.
    pub(super) fn receive(&mut self, wait: Wait) -> io::Result<&[u8]> {
        let flags = match wait {
            Wait::Block => 0,
            Wait::Now => MSG_DONTWAIT,
        };
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, flags) {
                Ok((_, from)) if from.port_number() == 0 => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.buffer)
    }

    /// Throws away what is queued. After `ENOBUFS` the kernel goes on dropping until the queue is empty, and doesn't say so again.
    pub(super) fn drain(&mut self) {
        loop {
            match self.receive(Wait::Now) {
                Ok(_) => {}
                Err(error) if is_overrun(&error) => {}
                // Nothing is left; any other error comes again at the next receive.
                Err(_) => break,
            }
        }
    }
}

/// `ENOBUFS`: something was dropped.
pub(super) fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(OsErrno::ENOBUFS as i32)
}

/// Sends on a socket that another thread receives from.
#[derive(Debug)]
pub(super) struct Sender(Arc<Socket>);

impl Sender {
    /// See [`RtnlSocket::send`].
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.0, bytes)
    }
}

fn send(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    loop {
        match socket.send_to(bytes, &SocketAddr::new(0, 0), 0) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The error number of an I/O error of a system call.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(OsErrno::EIO as i32))
}
