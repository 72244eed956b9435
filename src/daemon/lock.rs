//! One daemon a network namespace: two would fight over the same routes.
//!
//! An abstract unix socket is the lock: its name belongs to the network namespace, and it goes with the process however
//! that ends.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

/// The threads of a daemon that was just killed may hold it a moment longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the lock was not taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody has it.
    #[error("another frr-offload runs in this network namespace")]
    Taken,
    /// The system can't do it.
    #[error("can't take the lock of this network namespace")]
    Io(#[from] io::Error),
}

/// Held for the life of the daemon.
#[derive(Debug)]
pub struct NamespaceLock(#[allow(dead_code, reason = "is held, not used")] UnixListener);

impl NamespaceLock {
    /// Takes it.
    pub fn take() -> Result<Self, LockError> {
        let addr = SocketAddr::from_abstract_name("frr-offload")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixListener::bind_addr(&addr) {
                Ok(listener) => return Ok(Self(listener)),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error.into()),
                Err(_) if Instant::now() >= deadline => return Err(LockError::Taken),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}
