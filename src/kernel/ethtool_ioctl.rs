//! A driver's own counters (`ethtool -S`), which the kernel gives only by `ioctl(SIOCETHTOOL)`. The one file with
//! `unsafe`.
//!
//! The caller has to bring memory for as many counters as the driver has, and asks for their number first. Between the
//! two questions it may have grown (mlx5 and bnxt have some for each queue), and kernels from before 2026 then write
//! past what they were given. So answers go into pages of their own with one behind them that nobody can touch: the
//! kernel stops there with `EFAULT`, and everything is asked again. What is in the answers is `wire::ethtool_stats`'s
//! business.
#![allow(
    unsafe_code,
    reason = "mmap(2) and ioctl(2) on memory that the kernel writes"
)]

use std::ffi::{c_char, c_void};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno as OsErrno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::model::{Errno, NicCounter};
use crate::wire::ethtool_stats::{
    SSET_INFO_LEN, driver_counters, sset_count, sset_info_request, stats_request, strings_request,
};

/// A driver whose number of counters changes each time is given up.
const ATTEMPTS: usize = 4;
/// The largest page of any architecture: the memory comes in multiples of it.
const PAGE: usize = 64 << 10;

/// The counters of a link's driver; none, if it has none.
pub(super) fn driver_statistics(dev: &str) -> Result<Vec<NicCounter>, Errno> {
    read(dev).map_err(|errno| Errno(errno as i32))
}

fn read(dev: &str) -> nix::Result<Vec<NicCounter>> {
    let kind = SockType::Datagram;
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    for _ in 0..ATTEMPTS {
        let info = match ask(&socket, dev, &sset_info_request(), SSET_INFO_LEN) {
            // No driver behind it that could be asked.
            Err(OsErrno::EOPNOTSUPP) => return Ok(Vec::new()),
            info => info?,
        };
        let count = sset_count(info.bytes()).unwrap_or(0);
        if count == 0 {
            return Ok(Vec::new());
        }
        let (request, len) = strings_request(count);
        let strings = ask(&socket, dev, &request, len);
        let (request, len) = stats_request(count);
        let stats = ask(&socket, dev, &request, len);
        match (strings, stats) {
            (Err(OsErrno::EFAULT), _) | (_, Err(OsErrno::EFAULT)) => {}
            (strings, stats) => {
                if let Some(counters) = driver_counters(count, strings?.bytes(), stats?.bytes()) {
                    return Ok(counters);
                }
            }
        }
    }
    Err(OsErrno::EAGAIN)
}

/// Asks a driver something that it answers in place, in `len` bytes.
fn ask(socket: &OwnedFd, dev: &str, request: &[u8], len: usize) -> nix::Result<Fenced> {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    if dev.len() >= ifr_name.len() {
        return Err(OsErrno::ENODEV);
    }
    for (to, from) in ifr_name.iter_mut().zip(dev.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let mut answer = Fenced::new(len)?;
    answer.bytes_mut()[..request.len()].copy_from_slice(request);
    let mut question = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: answer.pages.as_ptr().cast(),
        },
    };
    // SAFETY: the file descriptor is open while `socket` is borrowed; `question` is a valid `ifreq` of which the kernel
    // reads the name and the pointer, and writes nothing that is read here. Through the pointer it reads and writes
    // `answer`'s own pages, which nobody else refers to, and beyond them only a page without access, where it stops.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCETHTOOL as _,
            &raw mut question,
        )
    };
    OsErrno::result(result)?;
    Ok(answer)
}

/// Pages that are readable and writable, and one behind them that is neither.
struct Fenced {
    pages: NonNull<c_void>,
    len: usize,
}

impl Fenced {
    /// At least so many bytes, all zero.
    fn new(len: usize) -> nix::Result<Self> {
        let len = len.next_multiple_of(PAGE).max(PAGE);
        let whole = NonZeroUsize::new(len + PAGE).ok_or(OsErrno::EINVAL)?;
        // SAFETY: a new mapping wherever the kernel has room for it; nothing is mapped over.
        let pages =
            unsafe { mmap_anonymous(None, whole, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        let fenced = Self { pages, len };
        // SAFETY: these are the first pages of that mapping, to which there are no references yet.
        unsafe { mprotect(pages, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)? };
        Ok(fenced)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes that are mapped, readable and initialised (zero at first) as long as `self` is there.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and writable; `self` is borrowed mutably, so there is no other reference to them.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_ptr().cast(), self.len) }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: the whole mapping of `new`, to which no reference can be left.
        let unmapped = unsafe { munmap(self.pages, self.len + PAGE) };
        if let Err(error) = unmapped {
            tracing::debug!(error = %io::Error::from(error), "memory could not be given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn the_kernel_stops_at_the_fence() {
        let mut memory = Fenced::new(1).unwrap();
        assert_eq!(memory.bytes().len(), PAGE);
        let zeros = File::open("/dev/zero").unwrap();
        let mut taken = (&zeros).take(PAGE as u64);
        assert_eq!(taken.read(memory.bytes_mut()).unwrap(), PAGE);
        // SAFETY: what lies behind the memory is the fence, which is what is shown here.
        let past = unsafe {
            libc::read(
                zeros.as_raw_fd(),
                memory.pages.as_ptr().byte_add(PAGE),
                PAGE,
            )
        };
        assert_eq!(OsErrno::result(past), Err(OsErrno::EFAULT));
    }

    #[test]
    fn a_link_that_is_not_there_is_said_to_be() {
        let gone = Err(Errno(OsErrno::ENODEV as i32));
        assert_eq!(driver_statistics("no-such-link"), gone);
        assert_eq!(driver_statistics("a-name-that-is-too-long"), gone);
    }

    #[test]
    fn loopback_has_no_driver() {
        assert_eq!(driver_statistics("lo"), Ok(Vec::new()));
    }
}
