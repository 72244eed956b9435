//! What the kernel knows about this process, by the names that every Prometheus client library has for it (`process_*`).
//! See `proc(5)`. What can't be read is left out.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::{SysconfVar, sysconf};

/// A process at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Processor time since its start, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory that is in RAM.
    pub resident_bytes: Option<u64>,
    /// Address space.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open files and sockets.
    pub open_fds: Option<u64>,
    /// How many it may have.
    pub max_fds: Option<u64>,
    /// When it started, in seconds since 1970.
    pub start_seconds: Option<f64>,
}

impl Process {
    /// Reads `/proc/self`.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let tick = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        let tick = tick
            .and_then(|tick| u32::try_from(tick).ok())
            .filter(|tick| *tick > 0)
            .map(f64::from);
        // The name in brackets may hold anything, blanks and brackets too; what comes behind it does not.
        let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        // The first field here is the third of proc(5).
        let field = |number: usize| -> Option<f64> {
            behind_name.split_whitespace().nth(number - 3)?.parse().ok()
        };
        let in_ticks = |number| Some(field(number)? / tick?);
        Self {
            cpu_seconds: in_ticks(14)
                .zip(in_ticks(15))
                .map(|(user, system)| user + system),
            resident_bytes: kibibytes(&status, "VmRSS:"),
            virtual_bytes: kibibytes(&status, "VmSize:"),
            threads: value(&status, "Threads:").and_then(|text| text.parse().ok()),
            // The one through which they are counted is open only now.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: max_fds(),
            start_seconds: start_seconds(in_ticks(22)),
        }
    }
}

/// Looked up once: a clock that is set meanwhile, or read to the millisecond, must not look like another start.
fn start_seconds(since_boot: Option<f64>) -> Option<f64> {
    static START: OnceLock<Option<f64>> = OnceLock::new();
    *START.get_or_init(|| Some(boot_seconds()? + since_boot?))
}

/// `VmRSS`, which unlike `statm` does not depend on the size of a page.
pub fn resident_bytes() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

fn value<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    lines
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let number: u64 = value(status, name)?
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    Some(number * 1024)
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    value(&limits, "Max open files")?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// When the machine was booted, by its clock of today: `btime` is as coarse as a second.
fn boot_seconds() -> Option<f64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Some(now.as_secs_f64() - uptime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        let process = Process::read();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - process.start_seconds.unwrap();
        assert!((-1.0..3600.0).contains(&age), "{age}");
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(Process::read().start_seconds, process.start_seconds);
        assert!(process.cpu_seconds.unwrap() >= 0.0);
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.virtual_bytes > process.resident_bytes);
        assert!(process.threads.unwrap() >= 1);
        assert!((3..1000).contains(&process.open_fds.unwrap()));
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap());
    }
}
