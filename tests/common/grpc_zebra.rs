//! A gRPC server in zebra's place: answers what zebra was recorded to answer, fails as zebra does, takes its time, and
//! notices when it is treated as zebra must not be.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use frr_offload::source::northbound::proto::northbound_server::{Northbound, NorthboundServer};
use frr_offload::source::northbound::proto::{
    DataTree, GetCapabilitiesRequest, GetCapabilitiesResponse, GetRequest, GetResponse, ModuleData,
};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

/// One answer of the server.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub data: Vec<Vec<u8>>,
    pub error: Option<(Code, &'static str)>,
    pub after: Duration,
}

impl Reply {
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self {
            data: vec![text.into()],
            ..Self::default()
        }
    }

    pub fn recorded(name: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/golden/northbound/{name}.data.json"));
        Self::text(fs::read(file).unwrap())
    }

    /// As zebra does it: a message without data, then the error.
    pub fn error(code: Code, text: &'static str) -> Self {
        Self {
            data: vec![Vec::new()],
            error: Some((code, text)),
            ..Self::default()
        }
    }

    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

/// What the server was asked and how it was treated.
#[derive(Debug, Default)]
pub struct Book {
    /// Answers by a word of the path; the last one stays.
    pub replies: Mutex<HashMap<&'static str, VecDeque<Reply>>>,
    pub asked: Mutex<Vec<GetRequest>>,
    pub greeted: AtomicUsize,
    pub running: AtomicUsize,
    pub most_running: AtomicUsize,
    pub given_up: AtomicUsize,
}

impl Book {
    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

struct Zebra {
    book: Arc<Book>,
    version: &'static str,
    module: &'static str,
}

/// A stream that knows whether it was read to its end.
struct Answer {
    book: Arc<Book>,
    wait: Pin<Box<Sleep>>,
    items: VecDeque<Result<GetResponse, Status>>,
    over: bool,
}

impl Stream for Answer {
    type Item = Result<GetResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.wait.is_elapsed() && self.wait.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let item = self.items.pop_front();
        self.over |= !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.book.running.fetch_sub(1, Ordering::SeqCst);
        if !self.over {
            self.book.given_up.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tonic::async_trait]
impl Northbound for Zebra {
    type GetStream = Answer;

    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        self.book.greeted.fetch_add(1, Ordering::SeqCst);
        let module = ModuleData {
            name: self.module.into(),
            ..ModuleData::default()
        };
        Ok(Response::new(GetCapabilitiesResponse {
            frr_version: self.version.into(),
            supported_modules: vec![module],
            ..GetCapabilitiesResponse::default()
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Answer>, Status> {
        let request = request.into_inner();
        let reply = {
            let mut replies = self.book.replies.lock().unwrap();
            let mut fitting = replies.iter_mut();
            let queue = fitting.find(|(word, _)| request.path[0].contains(*word));
            let (_, queue) = queue
                .ok_or_else(|| Status::invalid_argument("Failed to fetch operational data"))?;
            if queue.len() > 1 {
                queue.pop_front().unwrap()
            } else {
                queue[0].clone()
            }
        };
        self.book.asked.lock().unwrap().push(request);
        let running = self.book.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.book.most_running.fetch_max(running, Ordering::SeqCst);
        let messages = reply.data.into_iter().map(|data| {
            let tree = (!data.is_empty()).then(|| DataTree {
                encoding: 0,
                data: data.into(),
            });
            Ok(GetResponse {
                timestamp: 1_800_000_000,
                data: tree,
            })
        });
        let error = reply.error.map(|(code, text)| Err(Status::new(code, text)));
        Ok(Response::new(Answer {
            book: Arc::clone(&self.book),
            wait: Box::pin(tokio::time::sleep(reply.after)),
            items: messages.chain(error).collect(),
            over: false,
        }))
    }
}

/// A running server; it ends with the test's process.
pub struct Server {
    pub addr: SocketAddr,
    pub book: Arc<Book>,
}

impl Server {
    pub fn start(replies: &[(&'static str, &[Reply])]) -> Self {
        Self::start_as("10.3", "frr-zebra", replies)
    }

    pub fn start_as(
        version: &'static str,
        module: &'static str,
        replies: &[(&'static str, &[Reply])],
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::listen(listener, version, module, replies)
    }

    pub fn listen(
        listener: TcpListener,
        version: &'static str,
        module: &'static str,
        replies: &[(&'static str, &[Reply])],
    ) -> Self {
        let book = Arc::new(Book::default());
        let queues = replies
            .iter()
            .map(|(word, queue)| (*word, queue.iter().cloned().collect()));
        *book.replies.lock().unwrap() = queues.collect();
        let addr = listener.local_addr().unwrap();
        let zebra = Zebra {
            book: Arc::clone(&book),
            version,
            module,
        };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tonic::transport::Server::builder()
                    .serve_with_incoming(
                        NorthboundServer::new(zebra),
                        tokio_stream::wrappers::TcpListenerStream::new(listener),
                    )
                    .await
                    .unwrap();
            });
        });
        Self { addr, book }
    }

    /// What must hold after every test.
    pub fn assert_well_treated(&self) {
        assert_eq!(
            self.book.given_up.load(Ordering::SeqCst),
            0,
            "an answer was given up"
        );
        assert!(
            self.book.most_running.load(Ordering::SeqCst) <= 1,
            "two requests at once"
        );
        for request in &*self.book.asked.lock().unwrap() {
            assert_eq!(
                (request.r#type, request.encoding, request.with_defaults),
                (2, 0, false)
            );
            assert!(request.path.len() == 1 && !request.path[0].is_empty());
        }
    }
}
