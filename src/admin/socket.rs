//! [`AdminSocket`]: the unix socket file. Made with its directory, taken over from a daemon that died, never from one
//! that lives, and removed at the end if it is still ours. Who may speak is the file's group, and for what changes
//! anything [`caller`](super::caller). Knows nothing of what is spoken on it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group};
use thiserror::Error;

use super::caller::Changers;
use crate::config::{AdminConfig, LONGEST_SOCKET_PATH};

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
    /// A given path that no socket can have.
    #[error("can't listen on {0}: a socket's path has at most {LONGEST_SOCKET_PATH} bytes")]
    TooLong(PathBuf),
    /// There is no such group.
    #[error("{key}: there is no group {name}")]
    NoGroup {
        /// The key.
        key: &'static str,
        /// What it says.
        name: String,
    },
    /// Whether there is such a group is not known: who knows it is not there yet, perhaps.
    #[error("{key}: can't look up the group {name}: {source}")]
    GroupUnknown {
        /// The key.
        key: &'static str,
        /// What it says.
        name: String,
        /// The system's words.
        source: io::Error,
    },
    /// The socket can't be given to that group.
    #[error("admin.group: can't give {path} to the group {name}, of which the daemon is no member")]
    Group {
        /// The socket.
        path: PathBuf,
        /// The group.
        name: String,
        /// The system's words.
        source: io::Error,
    },
    /// A call failed.
    #[error("can't listen on {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

impl BindError {
    /// Whether it is wrong usage or configuration: trying again would not help.
    pub const fn is_lasting(&self) -> bool {
        !matches!(self, Self::Taken(_) | Self::GroupUnknown { .. })
    }
}

/// A bound admin socket; the file goes when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Device and inode, so that a successor's file is left alone.
    identity: (u64, u64),
    listener: UnixListener,
    pub(super) changers: Changers,
}

impl AdminSocket {
    /// Binds. Connections wait in the kernel until the socket is served.
    pub fn bind(config: &AdminConfig) -> Result<Self, BindError> {
        let AdminConfig {
            socket: path,
            group,
            write_group,
            metrics: _,
        } = config;
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(BindError::TooLong(path.clone()));
        }
        let group_id = group_of("admin.group", group)?;
        let changers = Changers::new(group_of("admin.write_group", write_group)?);
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
        let identity = identity(path).map_err(io_error)?;
        let bound = Self {
            path: path.to_owned(),
            identity,
            listener,
            changers,
        };
        // Before the group may write: until then the file is for its owner, or whom the umask lets in.
        if let Some(gid) = group_id {
            chown(path, None, Some(gid.as_raw())).map_err(|source| BindError::Group {
                path: path.to_owned(),
                name: group.clone(),
                source,
            })?;
        }
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(io_error)?;
        Ok(bound)
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

/// The group that a key names, by name or number; none when it names none.
fn group_of(key: &'static str, name: &str) -> Result<Option<Gid>, BindError> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = name.parse() {
        return Ok(Some(Gid::from_raw(number)));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid)),
        Ok(None) => Err(BindError::NoGroup {
            key,
            name: name.to_owned(),
        }),
        Err(errno) => Err(BindError::GroupUnknown {
            key,
            name: name.to_owned(),
            source: errno.into(),
        }),
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

    fn at(path: &Path) -> AdminConfig {
        AdminConfig {
            socket: path.to_owned(),
            ..AdminConfig::default()
        }
    }

    #[test]
    fn a_dead_daemons_socket_is_taken_over_a_living_ones_is_not() {
        let dir = std::env::temp_dir().join(format!("frr-offload-socket-{}", std::process::id()));
        let path = dir.join("deep/admin.sock");

        let config = at(&path);
        let first = AdminSocket::bind(&config).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        assert!(matches!(
            AdminSocket::bind(&config),
            Err(BindError::Taken(_))
        ));
        drop(first);
        assert!(!path.exists());

        drop(UnixListener::bind(&path).unwrap());
        let second = AdminSocket::bind(&config).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(second);
        assert!(path.exists(), "a file that is not ours any more stays");
        assert!(matches!(
            AdminSocket::bind(&config),
            Err(BindError::NotASocket(_))
        ));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_no_socket_can_have_is_a_clear_error() {
        let path = std::env::temp_dir().join("x".repeat(120));
        let error = AdminSocket::bind(&at(&path)).unwrap_err();
        assert!(matches!(error, BindError::TooLong(_)) && error.is_lasting());
        assert!(error.to_string().ends_with("at most 107 bytes"), "{error}");

        let name = format!("frr-offload-group-{}.sock", std::process::id());
        let mut config = at(&std::env::temp_dir().join(name));
        config.group = "no-such-group".to_owned();
        let error = AdminSocket::bind(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "admin.group: there is no group no-such-group"
        );
        assert!(!config.socket.exists());
    }
}
