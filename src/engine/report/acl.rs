//! What `show acl` answers: each filter rule, and how it stands in every block that it is for.

use crate::model::{AclAction, AclPlace, Block, Family, IfName, Reason, RuleCounters, SwitchId};

/// A filter rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclReport {
    /// Its name.
    pub name: Box<str>,
    /// The family that it filters.
    pub family: Family,
    /// What becomes of its packets.
    pub action: AclAction,
    /// Where it should stand.
    pub place: AclPlace,
    /// What it filters, in the words of the configuration.
    pub rule: Box<str>,
    /// The worst of its blocks.
    pub state: AclState,
    /// Why it stands in no block.
    pub reason: Option<Reason>,
    /// Where it stands, or should.
    pub blocks: Vec<AclBlockReport>,
}

/// A filter rule in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclBlockReport {
    /// Its switch; `None` for plain links.
    pub switch: Option<SwitchId>,
    /// The block.
    pub block: Block,
    /// The name of its port; `None` when ports share it.
    pub port: Option<IfName>,
    /// How it stands there.
    pub state: AclState,
    /// Why it is not where it should be.
    pub reason: Option<Reason>,
    /// Rules of tc that it is.
    pub rules: u64,
    /// How many ports have them: the fewest of these rules.
    pub in_hw_count: u32,
    /// The driver's words, or what else is wrong.
    pub error: Option<Box<str>>,
    /// As last read.
    pub counters: RuleCounters,
}

/// How a filter rule stands, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AclState {
    /// In hardware at every port.
    Hardware,
    /// In software.
    Software,
    /// Awaits a write.
    Pending,
    /// Refused.
    Failed,
}

impl AclState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hardware, Self::Software, Self::Pending, Self::Failed];

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Software => "software",
            Self::Pending => "pending",
            Self::Failed => "failed",
        }
    }
}
