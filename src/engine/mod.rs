//! Owns the stores and runs the turn.
mod query;
pub mod report;

pub use query::Engine;
