//! How people and programs look inside: the admin API on a unix socket, and the command line that speaks it.
//!
//! ```text
//! engine thread <--EngineHandle-- server --messages--> (unix socket, gRPC) --> client -> render or JSON -> terminal
//! ```
//!
//! The daemon's side is `socket`, `caller` (who may change anything), `server`, `counters` (what has to be read from drivers) and `messages` (reports of
//! the engine -> protobuf); the command's side is `args`, `client`, `command` and `render`. The protobuf messages carry
//! exactly the keys of the JSON output, so the JSON *is* the message. `decode` and `replay` work without a daemon's
//! admin API. Sees the engine's queries and reports only, never its stores, and changes nothing but the log filter.
//! `metrics` is the same for Prometheus, over HTTP. `manual` makes manual pages and completions from `args`.

pub mod args;
pub mod command;
pub mod decode;
pub mod manual;
pub mod metrics;
pub mod replay;

mod caller;
mod client;
mod counters;
mod engine_handle;
mod filter;
pub mod generate;
mod messages;
mod render;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod schema_tests;
mod server;
mod socket;
mod table;
mod vtysh;

pub use counters::{Counters, ReadNic, ReadPorts};
pub use engine_handle::{EngineGone, EngineHandle, Question};
pub use server::{Admin, KernelLookup, ReadHost, ServeError, SetLogFilter};
pub use socket::{AdminSocket, BindError};

/// Generated from `proto/admin.proto`.
mod proto {
    #![allow(clippy::all, clippy::pedantic, missing_docs)]
    tonic::include_proto!("frr_offload.admin.v1");
}

/// Version and commit of this build.
pub const VERSION: &str = env!("FRR_OFFLOAD_VERSION");
