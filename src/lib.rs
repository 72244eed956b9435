//! FRR's routes into the Linux kernel and into NIC hardware.
pub mod admin;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod model;
pub mod source;
pub mod wire;
