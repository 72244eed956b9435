//! One connection to zebra's gRPC server, and how it must be treated: a `Get` that its caller gives up (deadline, reset,
//! message limit) ends the server inside zebra for good (docs/evidence.md, "Northbound"). So there is no deadline, no limit
//! of size, and a request that was begun is read to its end. Knows paths and statuses, not what an answer means.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::model::{Family, FrrVersion, PolledTable};

use super::proto::get_request::DataType;
use super::proto::northbound_client::NorthboundClient;
use super::proto::{Encoding, GetCapabilitiesRequest, GetRequest};

/// zebra of 8.4 crashes when it is asked for a RIB; 10.3 is the first that is known not to.
const OLDEST_MAJOR: u16 = 10;
/// For the TCP connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// For the first answer: zebra answers one after the other, and another client may have asked for much. To give this one
/// up does no harm.
const GREETING_PATIENCE: Duration = Duration::from_secs(20);
/// FRR's, where the URL names none.
const DEFAULT_PORT: u16 = 50051;
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(20))
    .with_interval(Duration::from_secs(5));
/// A window of HTTP/2's default size would make a round trip of every 64 KiB.
const WINDOW: u32 = 4 << 20;

/// Why a source can't be used, or one of its answers.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "can't be reached; zebra was not started with -M grpc:PORT, or its gRPC server has ended, which only a restart of zebra mends"
    )]
    Unreachable(#[source] tonic::transport::Error),
    /// Somebody listens, and says nothing.
    #[error("takes the connection and then doesn't answer for {GREETING_PATIENCE:?}")]
    Silent,
    /// It broke while something was asked.
    #[error("the connection was lost: {}", .0.message())]
    Cut(Box<Status>),
    /// zebra said no.
    #[error("zebra answers {:?}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    /// A table that zebra doesn't have.
    #[error("zebra has no such table: {}", .0.message())]
    NoTable(Box<Status>),
    /// zebra could not put its own data into words.
    #[error("zebra can't answer ({}): most often a prefix has two entries of one protocol, as a floating static route makes", .0.message())]
    Undumpable(Box<Status>),
    /// A version that would crash.
    #[error("FRR {0} is too old: asked for its routes it may crash; 10 or later is needed")]
    TooOld(FrrVersion),
    /// Not a version.
    #[error("it says no version of FRR that can be read")]
    NoVersion,
    /// Another daemon of FRR, perhaps.
    #[error("the daemon there has no routes: it is not zebra")]
    NotZebra,
    /// An answer without data, or with more than was asked for.
    #[error("the answer has {0} messages, not one")]
    Messages(usize),
}

impl ClientError {
    /// Whether the connection is of no use any more.
    pub(super) const fn ends_connection(&self) -> bool {
        !matches!(
            self,
            Self::Refused(_) | Self::NoTable(_) | Self::Undumpable(_) | Self::Messages(_)
        )
    }

    fn of_status(status: Status) -> Self {
        // What zebra itself answered has no source; what tonic made of a broken connection has.
        if status.source().is_some() || status.code() == Code::Unavailable {
            return Self::Cut(Box::new(status));
        }
        match status.code() {
            Code::Internal => Self::Undumpable(Box::new(status)),
            // Our paths are well formed, so what they name is not there.
            Code::InvalidArgument => Self::NoTable(Box::new(status)),
            _ => Self::Refused(Box::new(status)),
        }
    }
}

/// A connection to a zebra that may be asked.
#[derive(Debug)]
pub(super) struct Client {
    grpc: NorthboundClient<Channel>,
    pub version: FrrVersion,
}

impl Client {
    /// Connects, and asks who is there. Nothing is lost when this is given up.
    pub(super) async fn connect(endpoint: Endpoint) -> Result<Self, ClientError> {
        let channel = endpoint
            .connect_timeout(CONNECT_PATIENCE)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .connect_with_connector(tower::service_fn(connect_once()))
            .await
            .map_err(ClientError::Unreachable)?;
        let mut grpc = NorthboundClient::new(channel).max_decoding_message_size(usize::MAX);
        let answer = grpc.get_capabilities(GetCapabilitiesRequest {});
        let answer = tokio::time::timeout(GREETING_PATIENCE, answer)
            .await
            .map_err(|_| ClientError::Silent)?;
        let capabilities = answer.map_err(ClientError::of_status)?.into_inner();
        let version = FrrVersion::parse(&capabilities.frr_version).ok_or(ClientError::NoVersion)?;
        if version.major < OLDEST_MAJOR {
            return Err(ClientError::TooOld(version));
        }
        let mut modules = capabilities.supported_modules.iter();
        if !modules.any(|module| module.name == "frr-zebra") {
            return Err(ClientError::NotZebra);
        }
        Ok(Self { grpc, version })
    }

    /// Asks for one table. To be awaited to its end.
    pub(super) async fn get(&mut self, table: &PolledTable) -> Result<Bytes, ClientError> {
        let request = GetRequest {
            r#type: DataType::State.into(),
            encoding: Encoding::Json.into(),
            with_defaults: false,
            path: vec![path_of(table)],
        };
        let answer = self.grpc.get(request).await;
        let mut messages = answer.map_err(ClientError::of_status)?.into_inner();
        let mut count = 0;
        let mut data = None;
        // An error has a message before it, too: what the trailers say decides.
        while let Some(message) = messages.message().await.map_err(ClientError::of_status)? {
            count += 1;
            data = message.data;
        }
        match data {
            Some(tree) if count == 1 => Ok(tree.data),
            Some(_) | None => Err(ClientError::Messages(count)),
        }
    }
}

/// Connects the first time, and never again: tonic would make a lost connection anew without a word, but a zebra that was
/// restarted meanwhile has other routes for a while, and the engine must know.
fn connect_once() -> impl Fn(Uri) -> Connecting + Clone {
    let used = Arc::new(AtomicBool::new(false));
    move |to| {
        let again = used.swap(true, Ordering::Relaxed);
        Box::pin(async move {
            if again {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let host = to.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = to.port_u16().unwrap_or(DEFAULT_PORT);
            let stream = TcpStream::connect((host, port)).await?;
            // Without a deadline only this notices a host that is gone.
            SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

fn path_of(table: &PolledTable) -> String {
    let PolledTable { vrf, table, family } = table;
    let family = match family {
        Family::V4 => "ipv4-unicast",
        Family::V6 => "ipv6-unicast",
    };
    format!(
        "/frr-vrf:lib/vrf[name='{vrf}']/frr-zebra:zebra/ribs\
         /rib[afi-safi-name='frr-routing:{family}'][table-id='{table}']"
    )
}
