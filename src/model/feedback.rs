//! What a source is told of a route of its own: the seam from the engine to `source`, beside [`super::Op`].

use super::{Protocol, RouteKey, RouteKind};

/// How a route fares. The two clear each other in zebra; there is no way to say "neither".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// It forwards: `RTM_F_OFFLOAD`.
    Offloaded,
    /// It does not: `RTM_F_OFFLOAD_FAILED`.
    Failed,
}

impl Told {
    /// The word in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offloaded => "offloaded",
            Self::Failed => "failed",
        }
    }
}

/// One reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The route; the table is the source's raw one.
    pub key: RouteKey,
    /// Its protocol, as received.
    pub protocol: Protocol,
    /// Its type, as received.
    pub kind: RouteKind,
    /// How it fares.
    pub state: Told,
}
