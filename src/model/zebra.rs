//! The zebra at the other end of a connection, as far as this host shows it. What follows from that is decided in
//! `engine::hearing`; who looks is `source::zebra_process`.

use std::fmt;

use super::TableId;

/// A version of FRR. What a distribution appends is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrrVersion {
    /// 10 of 10.7.1.
    pub major: u16,
    /// 7 of it.
    pub minor: u16,
    /// 1 of it; 10.3 has 0.
    pub patch: u16,
}

impl FrrVersion {
    /// From `10.7.1`, `10.3`, `10.8-dev` and the like.
    pub fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let mut numbers = text[..end.unwrap_or(text.len())].split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        let patch = numbers.next().and_then(|patch| patch.parse().ok());
        Some(Self {
            major,
            minor,
            patch: patch.unwrap_or(0),
        })
    }
}

impl fmt::Display for FrrVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 {
            write!(f, ".{}", self.patch)?;
        }
        Ok(())
    }
}

/// Which module of zebra speaks FPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FpmModule {
    /// `dplane_fpm_nl`.
    DplaneFpmNl,
    /// The older `zebra_fpm`, `-M fpm`.
    ZebraFpm,
}

/// A process on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZebraProcess {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks: with `pid` it means one process.
    pub started: u64,
    /// The FRR it runs, which may not be the installed one any more.
    pub version: FrrVersion,
    /// Of its command line.
    pub module: FpmModule,
    /// `--asic-offload=notify_on_offload`: no route counts as installed before it is answered.
    pub waits: bool,
    /// `-R`: the table that the routes of the default VRF are in.
    pub table: Option<TableId>,
    /// `-w`: a VRF is a network namespace.
    pub netns_vrfs: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        let version = |text| FrrVersion::parse(text).unwrap();
        assert_eq!(version("10.7.1").to_string(), "10.7.1");
        assert_eq!(version("10.3-3+deb13u1").to_string(), "10.3");
        assert_eq!(version("10.8-dev").to_string(), "10.8");
        assert!(version("8.4.4") < version("8.5") && version("10.10") > version("10.7.1"));
        for text in ["", "10", "ten.3", ".3", "10."] {
            assert_eq!(FrrVersion::parse(text), None, "{text}");
        }
    }
}
