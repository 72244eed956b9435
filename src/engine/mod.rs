//! Owns the stores and runs the turn.
pub mod report;
