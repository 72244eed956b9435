//! FRR's routes into the Linux kernel and into NIC hardware: the library behind `frr-offload`.
//!
//! ```text
//!  zebra ---FPM----> source::fpm ------+                         +-> kernel::fib_writer --> routes, next hops, neighbours
//!  kernel --events-> kernel::monitor --+--Event--> [ engine ] ---Op
//!  timers, questions of admin ---------+               ^
//!                                                      |
//!                                                      +-- Outcome: acknowledgements, errno, dumps
//!
//!  inside the engine, one turn, always left to right, no I/O, no clock, no locks:
//!    apply(event) -> dirty keys -> resolve next hops -> plan (desired) -> reconcile (diff against applied) -> ops out
//! ```
//!
//! One thread owns all state, a plain struct. Everything that waits is a thin shell that turns bytes into [`model::Event`]s
//! and [`model::Op`]s into bytes; these and [`model::Outcome`] are the only seams. Events mark keys dirty and never cause
//! writes, so lost, doubled or reordered events cost work, never correctness.
//!
//! # Layers
//!
//! Imports point down only (`tests/layers.rs` keeps it so):
//!
//! | layer | modules | may import |
//! | --- | --- | --- |
//! | wiring | [`daemon`] | everything |
//! | shells | [`source`], [`kernel`], [`admin`], [`state`] | `wire` and `model`; `admin` and `state` the pure core's queries |
//! | pure core, in the order of a turn | [`model`], [`config`], [`rib`], [`view`], [`resolve`], [`plan`], [`reconcile`], [`engine`] | what stands before |
//! | bytes | [`wire`] | `model` |
//!
//! The FPM decoder stands alone: see [`wire::fpm::FpmConnection`].
//!
//! # Glossary
//!
//! - *next hop*: where a route leads, as FRR means it ([`model::NextHop`]); *kernel hop*: the form the kernel is given
//!   ([`model::KernelHop`]). For an IPv4 route over an IPv6 link-local they differ (RFC 5549/8950).
//! - *group*: the next hops of a route; *object*: a next-hop object of the kernel (`ip nexthop`), one a hop or group.
//! - *path*: all that routes of the same origin share; *form*: all that their kernel routes share.
//! - *peer*: an IPv6 neighbour that IPv4 routes lead to; its *pool address* is the 169.254 address that stands for it.
//! - *filter rule*: an `[[acl]]` of the configuration; its *slot* is where it stands among the others in chain 0 of tc.
//! - *desired*, *applied*, *observed*: what we want, what we last wrote, what the kernel says.
//! - *stale*: not repeated yet by a source that was lost or restarted (RFC 4724); *left over*: found in the kernel at start.
//! - *to lose* an object: the kernel or somebody removed it; its id is burnt.

pub mod admin;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod kernel;
pub mod model;
pub mod plan;
pub mod reconcile;
pub mod resolve;
pub mod rib;
pub mod source;
pub mod state;
pub mod view;
pub mod wire;

/// What the documentation shows as Rust compiles.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
mod library {}
