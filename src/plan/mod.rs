//! What the kernel should have. Pure: routes' paths and resolved next hops in, desired objects and route forms out.

mod fib;
mod forms;
mod objects;

pub use fib::{FibPlan, GroupKey, MAX_WEIGHT, PlanContext, scale_weights};
pub use forms::Forms;
pub use objects::{DesiredObjects, ObjectKey, ObjectSpec};
