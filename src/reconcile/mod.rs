//! Desired against applied: what to write next, and what a refusal means.
//!
//! Small tables (objects, neighbours, solicitations) use [`Table`]; the route table keeps the same three states, with
//! the same names, inside its slots.

mod remedy;
mod retry;
mod rules;
mod table;

pub use remedy::{OpClass, Remedy, remedy};
pub use retry::{Failure, backoff};
pub use rules::{Item, RuleCompleted, RuleEntry, RuleTable, RuleWrite, RuleWriteKind};
pub use table::{Action, Completed, Entry, Table};
