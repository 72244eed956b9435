//! The command's side of the admin API: finds the daemon and speaks to it. Knows nothing of output.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nix::unistd::Group;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::proto::admin_client::AdminClient;

/// The daemon answers between two turns; one that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon can be reached on {socket}")]
    Unreachable {
        /// The admin socket.
        socket: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The socket is not for this caller.
    #[error("no daemon can be reached on {socket}: only root and the group {group} may ask it")]
    Closed {
        /// The admin socket.
        socket: PathBuf,
        /// Its group.
        group: String,
    },
    /// The connection broke, or the daemon is ending.
    #[error("the daemon does not answer: {0}")]
    Lost(String),
    /// The daemon can't make sense of the question: another version, or a wrong argument.
    #[error("{0}")]
    Refused(String),
    /// The question is fine and the answer is that there is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The caller may not do that.
    #[error("{0}")]
    Denied(String),
    /// The daemon is there, but whom it has to ask does not answer.
    #[error("{0}")]
    Unanswered(String),
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let text = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => Self::Refused(text),
            Code::NotFound => Self::NotFound(text),
            Code::PermissionDenied => Self::Denied(text),
            Code::Aborted => Self::Unanswered(text),
            Code::Unimplemented => Self::Refused(
                "the running daemon is of another version and can't do this".to_owned(),
            ),
            _ => Self::Lost(text),
        }
    }
}

/// Connects to the daemon on this socket.
pub(super) async fn connect(socket: &Path) -> Result<AdminClient<Channel>, ClientError> {
    let path = socket.to_owned();
    // The address is of no use on a unix socket, but HTTP/2 wants one.
    let endpoint = Endpoint::from_static("http://localhost").timeout(PATIENCE);
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    match endpoint.connect_with_connector(connector).await {
        Ok(channel) => Ok(AdminClient::new(channel)),
        Err(error) => Err(unreachable(socket.to_owned(), io_cause(&error))),
    }
}

fn unreachable(socket: PathBuf, source: io::Error) -> ClientError {
    let denied = source.kind() == io::ErrorKind::PermissionDenied;
    let found = denied.then(|| fs::metadata(&socket).ok()).flatten();
    let Some(found) = found else {
        return ClientError::Unreachable { socket, source };
    };
    let group = Group::from_gid(found.gid().into()).ok().flatten();
    let group = group.map_or_else(|| found.gid().to_string(), |group| group.name);
    ClientError::Closed { socket, group }
}

/// The system's own error below tonic's.
fn io_cause(error: &tonic::transport::Error) -> io::Error {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return match io.raw_os_error() {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => io::Error::new(io.kind(), io.to_string()),
            };
        }
        cause = error.source();
    }
    io::Error::other(error.to_string())
}
