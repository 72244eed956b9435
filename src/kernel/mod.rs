//! The kernel's shell: sockets and threads that turn [`Op`](crate::model::Op)s into rtnetlink messages, and what the
//! kernel says into [`Event`](crate::model::Event)s. Decides nothing: the engine says what to write and judges every
//! error.
//!
//! [`FibWriter`] is the one thread that writes, with blocking sockets: the kernel does the work of a batch inside
//! `send`, so no window is needed and a second writer only waits for the same lock. [`Monitor`] is the thread that
//! listens, on its own socket; [`PortWatch`] and [`MirrorWatch`] do so for what only the offload needs. [`DumpSocket`]
//! reads complete lists back. [`TcWriter`] and [`TcWatch`] are the same two for hardware rules: a slow NIC must not
//! keep routes waiting. All threads are a [`Writer`] or a [`Listener`]. [`port_counters`] and [`nic_statistics`] read
//! what is counted, and block whoever calls. Measurements: the numbers in [`batch`] and [`monitor`].

pub mod batch;
mod counters;
mod dump;
mod ethtool_ioctl;
mod fib_writer;
mod filter_lists;
mod host;
mod listener;
mod lookup;
mod mirror_watch;
pub mod monitor;
mod port_lists;
mod port_watch;
mod route_watch;
mod socket;
mod tc_watch;
mod tc_writer;
mod writer;

pub use counters::{nic_statistics, port_counters};
pub use dump::DumpSocket;
pub use fib_writer::{FibWriter, WriterConfig};
pub use host::read as read_host;
pub use listener::Listener;
pub use lookup::lookup;
pub use mirror_watch::MirrorWatch;
pub use monitor::Monitor;
pub use port_watch::PortWatch;
pub use route_watch::RouteWatch;
pub use tc_watch::TcWatch;
pub use tc_writer::{RECEIVE_BUFFER as TC_RECEIVE_BUFFER, TcWriter};
pub use writer::Writer;
