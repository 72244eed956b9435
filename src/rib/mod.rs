//! What the sources say: routes in slots, the paths and next-hop groups that they share, and the sources' sessions.
//!
//! Owns identity and reference counts. Knows nothing of the kernel; a slot only has room for what `reconcile` notes
//! about it, because at a million routes a second table keyed by the same prefix would double the memory.
//! A route record is 44 bytes and its index about 9 (docs/evidence.md: 45-75 bytes a route are reachable).

mod groups;
mod owed;
mod paths;
mod sessions;
mod slots;

pub use groups::{GroupChange, Groups, Meaning, NhRef};
pub use owed::Owed;
pub use paths::{Path, PathForm, PathId, PathKey, PathTarget, Paths};
pub use sessions::{Connection, Fate, Session, Sweep, Zebra};
pub use slots::{Answer, Slot, SlotFlags, SlotId, Slots};
