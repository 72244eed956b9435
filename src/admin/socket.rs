//! [`AdminSocket`]: the unix socket file. Made with its directory, taken over from a daemon that died, never from one
//! that lives, and removed at the end if it is still ours. Knows nothing of what is spoken on it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Everybody may see that there is a daemon.
const DIRECTORY_MODE: u32 = 0o755;
/// Only owner and group may talk to it.
const SOCKET_MODE: u32 = 0o660;

/// Why there is no admin socket.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("another daemon listens on {0}")]
    Taken(PathBuf),
    /// Something else has this name.
    #[error("{0} is there and is not a socket")]
    NotASocket(PathBuf),
    /// A call failed.
    #[error("can't listen on {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// A bound admin socket; the file goes when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Device and inode, so that a successor's file is left alone.
    identity: (u64, u64),
    listener: UnixListener,
}

impl AdminSocket {
    /// Binds. Connections wait in the kernel until the socket is served.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let io_error = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(dir) = path.parent() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(DIRECTORY_MODE);
            builder.create(dir).map_err(io_error)?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(io_error)?;
        listener.set_nonblocking(true).map_err(io_error)?;
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(io_error)?;
        let identity = identity(path).map_err(io_error)?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            listener,
        })
    }

    /// A listener for tokio; the file stays owned by `self`.
    pub(super) fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // A file that can't be removed is taken over by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Removes the socket of a daemon that died.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let io_error = |source| BindError::Io {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::Taken(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_error)
        }
        Err(error) => Err(io_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_daemons_socket_is_taken_over_a_living_ones_is_not() {
        let dir = std::env::temp_dir().join(format!("frr-offload-socket-{}", std::process::id()));
        let path = dir.join("deep/admin.sock");

        let first = AdminSocket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        assert!(matches!(AdminSocket::bind(&path), Err(BindError::Taken(_))));
        drop(first);
        assert!(!path.exists());

        drop(UnixListener::bind(&path).unwrap());
        let second = AdminSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(second);
        assert!(path.exists(), "a file that is not ours any more stays");
        assert!(matches!(
            AdminSocket::bind(&path),
            Err(BindError::NotASocket(_))
        ));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_path_over_the_limit_is_a_clear_error() {
        let path = std::env::temp_dir().join("x".repeat(120));
        let Err(BindError::Io { source, .. }) = AdminSocket::bind(&path) else {
            unreachable!("such a path can't be bound")
        };
        assert!(source.to_string().contains("SUN_LEN"), "{source}");
    }
}
