//! The kernel's shell: sockets and threads that turn [`Op`](crate::model::Op)s into rtnetlink messages, and what the kernel
//! says into [`Event`](crate::model::Event)s. Decides nothing: the engine says what to write and judges every error.
//!
//! [`FibWriter`] is the one thread that writes, with blocking sockets: the kernel does the work of a batch inside `send`, so
//! no window is needed and a second writer only waits for the same lock. [`Monitor`] is the thread that listens, on its own
//! socket. [`DumpSocket`] reads complete lists back. [`TcWriter`] and [`TcWatch`] are the same two for hardware rules: a slow
//! NIC must not keep routes waiting. Measurements: the numbers in [`batch`] and [`monitor`].

pub mod batch;
mod dump;
mod fib_writer;
mod genl;
mod listener;
mod lookup;
pub mod monitor;
mod route_watch;
mod socket;
mod tc_watch;
mod tc_writer;

pub use dump::DumpSocket;
pub use fib_writer::{FibWriter, WriterConfig};
pub use lookup::lookup;
pub use monitor::Monitor;
pub use route_watch::RouteWatch;
pub use tc_watch::TcWatch;
pub use tc_writer::{RECEIVE_BUFFER as TC_RECEIVE_BUFFER, TcWriter};
