//! Gives up what the daemon does not need, before it starts a thread: whoever takes it over then has little.
//!
//! Root has everything, a container often much; the unit of systemd gives no more than this anyway. Capabilities belong
//! to threads, and new ones inherit them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;
use rustix::io::{Errno, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What is kept of what there is. Routes, tc, devlink, ethtool and sysctls are `NET_ADMIN`; `source::zebra_process` needs the
/// others: `/proc/PID/fd` and `map_files` of another user, and root's where the daemon is not root.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::CHECKPOINT_RESTORE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// Gives up the rest, for good. The directory is where files are made and removed as long as the daemon runs: root can't do that
/// in another user's, such as that of the service, without `DAC_OVERRIDE`.
pub fn give_up(directory: Option<&Path>) -> Result<()> {
    let owner = directory.and_then(|directory| Some(fs::metadata(directory).ok()?.uid()));
    let kept = if owner.is_some_and(|uid| uid != geteuid().as_raw()) {
        KEPT | CapabilitySet::DAC_OVERRIDE
    } else {
        KEPT
    };
    // No program that is run could get anything back.
    set_no_new_privs(true)?;
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if !kept.contains(one) {
            match remove_capability_from_bounding_set(one) {
                // Nothing is left to be removed, or nothing may be: who has no CAP_SETPCAP was given few.
                Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
    }
    clear_ambient_capability_set()?;
    let permitted = capabilities(None)?.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted,
            permitted,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// Whether there is `CAP_NET_ADMIN`. When that can't be told, the kernel will.
pub fn may_write_routes() -> bool {
    capabilities(None).map_or(true, |sets| {
        sets.effective.contains(CapabilitySet::NET_ADMIN)
    })
}
