//! What `doctor` answers with.

use super::Severity;

/// Something about this host that keeps routes from where they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing; stable.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen, and what comes of it.
    pub finding: String,
    /// The command or the change that mends it.
    pub fix: Option<String>,
}
