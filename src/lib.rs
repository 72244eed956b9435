//! FRR's routes into the Linux kernel and into NIC hardware.
pub mod engine;
pub mod kernel;
pub mod model;
pub mod wire;
