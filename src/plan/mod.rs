//! What the kernel should have. Pure: routes' paths and resolved next hops in, desired objects and route forms out.

mod acl;
mod blocks;
mod ecmp;
mod fib;
mod forms;
mod layout;
mod limits;
mod lookup;
mod objects;
mod offload;
mod tree;

pub use acl::{ACL_SLOTS, AclKey, AclPlan, AclScope, ScopedAcl, Standing};
pub use blocks::{is_our_block, our_blocks};
pub use ecmp::{Buckets, Member, share_out};
pub use fib::{FibPlan, GroupKey, MAX_WEIGHT, PlanContext, scale_weights};
pub use forms::Forms;
pub use layout::{
    ChainUse, Chains, Except, Layout, LayoutConfig, LayoutContext, Marked, PlannedPort,
    PlannedRule, PlannedVlan, RuleKey, acl_count, fixed_exceptions, keys_of, probe_mark, read_mark,
    slot_of,
};
pub use limits::{Doubled, Limits};
pub use lookup::{Env, Lookup};
pub use objects::{DesiredObjects, ObjectKey, ObjectSpec};
pub use offload::{Changed, HopId, HopRule, RouteRule, SwitchPlan, Target, Wish};
pub use tree::{PrefixTree, last_inside};
