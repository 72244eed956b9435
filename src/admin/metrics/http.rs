//! The HTTP side: `/metrics`, `/healthz`, `/readyz`. Plain HTTP/1.1 for reading only, one request a connection.
//!
//! A client gets so much time, so many bytes of request and one of a few places; when these run out the oldest
//! connection gives way, so that silent ones keep nobody out. What is answered is made elsewhere ([`Scraper`]); it
//! waits no longer for the engine than Prometheus would.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::exposition::{Format, exposition};
use super::scraper::{Scraper, Unanswered};

/// Connections at a time, over all addresses.
const CONNECTIONS: usize = 16;
/// How long the head of a request may take to come.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection lasts at most, whatever is done on it.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// How long the head of a request may be; the library takes no smaller number.
const HEAD_BYTES: usize = 8192;
const HEADERS: usize = 64;
/// How long the accepting rests after an error such as `EMFILE`, which would come again at once.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Connections that wait to be accepted; as the standard library has it.
const BACKLOG: i32 = 128;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Why metrics can't be offered where they should be.
#[derive(Debug, Error)]
#[error("admin.metrics: can't listen on {addr}: {source}")]
pub struct MetricsBindError {
    addr: SocketAddr,
    source: io::Error,
}

/// Bound addresses. Connections wait in the kernel until they are served.
#[derive(Debug)]
pub struct MetricsListener(Vec<(SocketAddr, TcpListener)>);

impl MetricsListener {
    /// Binds all addresses or none.
    pub fn bind(addrs: &[SocketAddr]) -> Result<Self, MetricsBindError> {
        let bind = |addr: SocketAddr| {
            // The standard library sets SO_REUSEADDR: a restart does not wait for TIME_WAIT.
            let listener = match TcpListener::bind(addr) {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    warn!(%addr, "this is no address of the host yet: metrics can be scraped there once it is");
                    bind_early(addr)?
                }
                bound => bound?,
            };
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let bound = addrs
            .iter()
            .map(|&addr| bind(addr).map_err(|source| MetricsBindError { addr, source }));
        Ok(Self(bound.collect::<Result<_, _>>()?))
    }

    /// Answers for as long as the runtime lives. Must be called in one.
    pub fn serve(self, scraper: Scraper) -> io::Result<()> {
        let scraper = Arc::new(scraper);
        let places = Arc::new(std::sync::Mutex::new(VecDeque::new()));
        for (addr, listener) in self.0 {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            info!(%addr, "metrics can be scraped");
            tokio::spawn(accept(listener, Arc::clone(&scraper), Arc::clone(&places)));
        }
        Ok(())
    }
}

/// At a boot the daemon is there before whoever sets addresses (FRR is one of them): `IP_FREEBIND`, `ip(7)`.
fn bind_early(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    match addr {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections in the order of their coming.
type Places = Arc<std::sync::Mutex<VecDeque<AbortHandle>>>;

async fn accept(listener: tokio::net::TcpListener, scraper: Arc<Scraper>, places: Places) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                debug!(%peer, "metrics connection");
                let task = tokio::spawn(converse(stream, Arc::clone(&scraper)));
                take_place(&places, task.abort_handle());
            }
            Err(error) => {
                warn!(%error, "a metrics connection can't be accepted");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn take_place(places: &Places, newcomer: AbortHandle) {
    let mut places = places
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    places.retain(|connection| !connection.is_finished());
    if places.len() >= CONNECTIONS
        && let Some(oldest) = places.pop_front()
    {
        oldest.abort();
    }
    places.push_back(newcomer);
}

async fn converse(stream: TcpStream, scraper: Arc<Scraper>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let scraper = Arc::clone(&scraper);
        async move { Ok::<_, Infallible>(answer(&request, &scraper).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a metrics connection ended badly"),
        Err(_) => debug!("a metrics connection took too long"),
    }
}

async fn answer(request: &Request<Incoming>, scraper: &Scraper) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD\n".to_owned(),
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let made = async {
        match request.uri().path() {
            "/metrics" => metrics(request, scraper).await,
            "/healthz" => {
                scraper.health().await?;
                Ok(plain(StatusCode::OK, "ok\n".to_owned()))
            }
            "/readyz" => readiness(scraper).await,
            "/" => Ok(plain(
                StatusCode::OK,
                "/metrics\n/healthz\n/readyz\n".to_owned(),
            )),
            _ => Ok(plain(
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz and /readyz\n".to_owned(),
            )),
        }
    };
    match made.await {
        Ok(response) => response,
        Err(Unanswered) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{Unanswered}\n")),
    }
}

async fn metrics(
    request: &Request<Incoming>,
    scraper: &Scraper,
) -> Result<Response<Full<Bytes>>, Unanswered> {
    let accept = request.headers().get_all(ACCEPT).iter();
    let format = Format::wanted(accept.filter_map(|value| value.to_str().ok()));
    let scrape = scraper.scrape().await?;
    Ok(match exposition(scrape, format) {
        Ok(text) => respond(StatusCode::OK, format.content_type(), text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    })
}

async fn readiness(scraper: &Scraper) -> Result<Response<Full<Bytes>>, Unanswered> {
    let not_ready = scraper.not_ready().await?;
    if not_ready.is_empty() {
        return Ok(plain(StatusCode::OK, "ready\n".to_owned()));
    }
    let why: Vec<String> = not_ready.iter().map(ToString::to_string).collect();
    Ok(plain(
        StatusCode::SERVICE_UNAVAILABLE,
        why.join("\n") + "\n",
    ))
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, PLAIN, text)
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
