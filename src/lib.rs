//! FRR's routes into the Linux kernel and into NIC hardware.
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
