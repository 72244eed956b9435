//! (operation, errno) -> what to do about it. The only place that judges an errno.
//!
//! Evidence: docs/evidence.md, "Errors" and "Kernel ownership", all executed on Linux 6.18.

use crate::model::Errno;

/// The kinds of writes, as far as an errno means different things for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpClass {
    /// `NLM_F_EXCL`.
    RouteCreate,
    /// `NLM_F_REPLACE`.
    RouteReplace,
    /// `RTM_DELROUTE`.
    RouteDelete,
    /// A hop or group.
    ObjectPut,
    /// `RTM_DELNEXTHOP`.
    ObjectDelete,
    /// A permanent neighbour.
    NeighbourPut,
    /// Its removal.
    NeighbourDelete,
    /// A solicitation, or its end.
    Solicit,
    /// A sysctl.
    Setting,
    /// A new rule of tc.
    RuleCreate,
    /// A rule of tc in place.
    RuleReplace,
    /// The removal of a rule of tc.
    RuleDelete,
    /// A qdisc, or a switch of a port.
    PortSetting,
}

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// It is as wished: treat as done.
    Done,
    /// Nothing is wrong with the write: again, soon.
    Retry,
    /// The link or what the write rests on is not there (yet): again when something changes, or after a while.
    Wait,
    /// Somebody's route is there: read back whether it is ours.
    ReadBack,
    /// The object's id is not ours any more: take a new one.
    NewId,
    /// The kernel has no next-hop objects: write next hops inline.
    NoObjects,
    /// What should be replaced is not there: make it.
    Recreate,
    /// The hardware table is full.
    Full,
    /// It will not be taken; a person should know. Tried again rarely.
    Refused,
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENXIO: i32 = 6;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;
const EADDRNOTAVAIL: i32 = 99;
const ENETDOWN: i32 = 100;
const ENETUNREACH: i32 = 101;
const ENOBUFS: i32 = 105;
const EHOSTUNREACH: i32 = 113;

/// What to do about `errno` for an operation of this kind.
pub const fn remedy(op: OpClass, errno: Errno) -> Remedy {
    use OpClass as Op;
    match (op, errno.0) {
        // Acknowledgements were lost, not the writes; puts and deletes are idempotent.
        (_, EAGAIN | ENOMEM | ENOBUFS | EBUSY) => Remedy::Retry,
        (_, EPERM) => Remedy::Refused,

        (Op::RouteCreate, EEXIST) => Remedy::ReadBack,
        // Deleting what is absent is success: the kernel drops IPv4 routes of a link that goes down without a word.
        (Op::RouteDelete, ESRCH | ENOENT | ENODEV | ENETUNREACH) => Remedy::Done,
        // A delete names no next hop, so EINVAL can't be cured by waiting for one.
        (Op::RouteDelete, _) => Remedy::Refused,
        // EINVAL is "Nexthop id does not exist" and "Nexthop has invalid gateway"; the text is for people.
        (
            Op::RouteCreate | Op::RouteReplace,
            EINVAL | ENODEV | ENXIO | ENETDOWN | ENETUNREACH | EHOSTUNREACH | EADDRNOTAVAIL
            | ENOENT | ESRCH,
        ) => Remedy::Wait,

        (Op::ObjectPut, EOPNOTSUPP) => Remedy::NoObjects,
        // "Can not replace a nexthop group with a nexthop", or a member that is gone.
        (Op::ObjectPut, EINVAL | EEXIST | ENOENT) => Remedy::NewId,
        (Op::ObjectPut, ENODEV | ENXIO | ENETDOWN | ENETUNREACH | EHOSTUNREACH) => Remedy::Wait,
        (Op::ObjectDelete, ENOENT | ENODEV | EOPNOTSUPP) => Remedy::Done,

        (Op::NeighbourDelete | Op::Solicit, ENOENT | ENODEV | ENXIO) => Remedy::Done,
        // EEXIST: a permanent entry of somebody else's; when the monitor tells of it another address is taken.
        (Op::NeighbourPut, ENODEV | ENXIO | ENETDOWN | ENOENT | EEXIST) => Remedy::Wait,
        (Op::Solicit, _) => Remedy::Wait,

        (Op::RuleCreate | Op::RuleReplace, ENOSPC) => Remedy::Full,
        (Op::RuleCreate, EEXIST) => Remedy::ReadBack,
        (Op::RuleReplace, ENOENT) => Remedy::Recreate,
        (Op::RuleDelete, ENOENT | ENODEV) => Remedy::Done,
        // "Parent Qdisc doesn't exist": the monitor tells that the block is gone. Never taken for done: a rule that stays would forward.
        (Op::RuleDelete, _) => Remedy::Wait,
        (Op::RuleCreate | Op::RuleReplace | Op::PortSetting, ENODEV | ENOENT | ENXIO) => {
            Remedy::Wait
        }
        (Op::PortSetting, EEXIST) => Remedy::Done,
        _ => Remedy::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_exists_is_read_back_and_never_overwritten() {
        assert_eq!(
            remedy(OpClass::RouteCreate, Errno(EEXIST)),
            Remedy::ReadBack
        );
    }

    #[test]
    fn deleting_what_is_absent_is_success() {
        for (op, errno) in [
            (OpClass::RouteDelete, ESRCH),
            (OpClass::ObjectDelete, ENOENT),
            (OpClass::NeighbourDelete, ENOENT),
        ] {
            assert_eq!(remedy(op, Errno(errno)), Remedy::Done);
        }
    }

    #[test]
    fn lost_acknowledgements_are_retried_whatever_the_write() {
        assert_eq!(remedy(OpClass::ObjectPut, Errno(ENOBUFS)), Remedy::Retry);
    }
}
