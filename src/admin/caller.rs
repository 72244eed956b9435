//! Who speaks on the admin socket, and whether he may change anything: root, the daemon's own user, and who is in a group
//! that is configured. The kernel tells user and groups as they were when the caller connected (`SO_PEERCRED`,
//! `SO_PEERGROUPS`; `unix(7)`); nothing that the caller says himself counts. Who may look is decided by the file's mode.

#![allow(unsafe_code, reason = "no crate has SO_PEERGROUPS")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::libc;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Uid, geteuid};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

/// Groups of a process: `NGROUPS_MAX`.
const MOST_GROUPS: usize = 65536;
/// Enough for nearly everybody.
const SOME_GROUPS: usize = 64;

/// Who may change things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changers {
    daemon: Uid,
    group: Option<Gid>,
}

impl Changers {
    /// Root, this process's user, and the group.
    pub(super) fn new(group: Option<Gid>) -> Self {
        Self {
            daemon: geteuid(),
            group,
        }
    }

    fn include(&self, uid: Uid, groups: &[libc::gid_t]) -> bool {
        let is_one = |gid: Gid| groups.contains(&gid.as_raw());
        uid.is_root() || uid == self.daemon || self.group.is_some_and(is_one)
    }

    /// A caller that can't be told may not.
    fn include_peer_of(&self, stream: &UnixStream) -> bool {
        let Ok(peer) = getsockopt(stream, PeerCredentials) else {
            return false;
        };
        let mut groups = groups_of_peer(stream.as_fd()).unwrap_or_default();
        groups.push(peer.gid());
        self.include(Uid::from_raw(peer.uid()), &groups)
    }
}

/// The supplementary groups of who connected.
fn groups_of_peer(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut groups = vec![0; SOME_GROUPS];
    loop {
        let mut bytes = size_of_val(&groups[..]) as libc::socklen_t;
        // SAFETY: the file descriptor is open while it is borrowed; the kernel writes at most `bytes` bytes of whole numbers
        // to `groups`, which is that long, and how many there are to `bytes`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // It has said how many there are.
        if error.raw_os_error() != Some(libc::ERANGE)
            || !(groups.len()..=MOST_GROUPS).contains(&count)
        {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// What a caller may do, with each of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    may_change: bool,
}

/// Refuses a request of a caller who may only look.
pub(super) fn must_change<T>(request: &Request<T>) -> Result<(), Status> {
    match request.extensions().get::<Rights>() {
        Some(Rights { may_change: true }) => Ok(()),
        _ => Err(Status::permission_denied(
            "you may look, and not change anything: root and the daemon's user may, and members of admin.write_group",
        )),
    }
}

/// A connection with what its caller may do.
pub(super) struct Caller {
    stream: UnixStream,
    rights: Rights,
}

impl Caller {
    pub(super) fn new(stream: UnixStream, changers: Changers) -> Self {
        let may_change = changers.include_peer_of(&stream);
        Self {
            stream,
            rights: Rights { may_change },
        }
    }
}

impl Connected for Caller {
    type ConnectInfo = Rights;

    fn connect_info(&self) -> Rights {
        self.rights
    }
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net;

    use super::*;

    #[test]
    fn root_the_daemon_and_members_of_the_group_may_change_things() {
        let changers = Changers {
            daemon: Uid::from_raw(300),
            group: Some(Gid::from_raw(40)),
        };
        let may = |uid, groups: &[u32]| changers.include(Uid::from_raw(uid), groups);
        assert!(may(0, &[]));
        assert!(may(300, &[300]));
        assert!(may(1000, &[1000, 40]));
        assert!(!may(1000, &[1000, 300]), "the daemon's group may look");
        let none = Changers {
            group: None,
            ..changers
        };
        assert!(!none.include(Uid::from_raw(1000), &[0, 40]));
    }

    #[test]
    fn the_groups_of_the_peer_are_those_of_its_process() {
        let (one, _other) = net::UnixStream::pair().unwrap();
        let mut told = groups_of_peer(one.as_fd()).unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
        let mut groups: Vec<u32> = line
            .unwrap()
            .split_ascii_whitespace()
            .map(|gid| gid.parse().unwrap())
            .collect();
        told.sort_unstable();
        groups.sort_unstable();
        assert_eq!(told, groups);
    }
}
