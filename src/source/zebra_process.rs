//! Which process of this host dialled a connection, if it is a zebra, and what FRR it runs.
//!
//! ```text
//! /proc/net/tcp  peer's address and port -> inode      /proc/PID/fd  inode -> zebra's PID
//! /proc/PID      cmdline -> module and options         maps, map_files -> the banner in its libfrr -> version
//! ```
//!
//! Everything is read, nothing is run: whoever may dial the port chooses what `/proc/PID/exe` is. The library is read
//! through the mapping of that process, so neither a container's own file system nor an upgrade under a running zebra
//! misleads. What can't be seen (another host, another namespace, not enough rights) gives nothing; nobody guesses.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::model::{FpmModule, FrrVersion, TableId, ZebraProcess};

/// What FRR greets with; the version stands behind it. One string in the library, or in a zebra that was linked statically.
const BANNER: &[u8] = b"Hello, this is FRRouting (version ";
/// Larger than any libfrr, with debug information too.
const LARGEST: u64 = 64 << 20;

/// Looks for the process at the other end of a connection of ours. Takes milliseconds, or more on a host with many sockets.
pub fn find(peer: SocketAddr, local: SocketAddr) -> Option<ZebraProcess> {
    let (peer, local) = (canonical(peer), canonical(local));
    let table = if peer.is_ipv4() { "tcp" } else { "tcp6" };
    let table = fs::read_to_string(Path::new("/proc/self/net").join(table)).ok()?;
    let socket = PathBuf::from(format!("socket:[{}]", inode_of(&table, peer, local)?));
    let zebras = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(proc_of(pid).join("comm")).ok()?;
        (name.trim_end() == "zebra").then_some(pid)
    });
    for pid in zebras {
        let Some(fd) = fd_of(pid, &socket) else {
            continue;
        };
        let process = describe(pid)?;
        // Still the same process: its number was not given to another one meanwhile.
        return (fs::read_link(fd).ok()? == socket).then_some(process);
    }
    None
}

fn proc_of(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn fd_of(pid: u32, socket: &Path) -> Option<PathBuf> {
    let fds = fs::read_dir(proc_of(pid).join("fd")).ok()?;
    let mut paths = fds.filter_map(|fd| Some(fd.ok()?.path()));
    paths.find(|path| fs::read_link(path).is_ok_and(|link| link == socket))
}

fn describe(pid: u32) -> Option<ZebraProcess> {
    let at = proc_of(pid);
    let started = started_of(&fs::read_to_string(at.join("stat")).ok()?)?;
    let Options {
        module,
        waits,
        table,
        netns_vrfs,
    } = options_of(&fs::read(at.join("cmdline")).ok()?);
    let maps = fs::read_to_string(at.join("maps")).ok()?;
    let library = library_in(&maps).map(|range| at.join("map_files").join(range));
    let version = version_in(&library.unwrap_or_else(|| at.join("exe"))).ok()??;
    Some(ZebraProcess {
        pid,
        started,
        version,
        module,
        waits,
        table,
        netns_vrfs,
    })
}

/// IPv4 in IPv6 is a socket of IPv4 to who dialled.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The inode of the socket that is bound to `peer` and connected to `local`, in a table of `/proc/net`.
fn inode_of(table: &str, peer: SocketAddr, local: SocketAddr) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let ends = [words.next()?, words.next()?].map(address_of);
        let inode = words.nth(6)?.parse().ok()?;
        // Without an inode nobody has it open any more.
        (ends == [Some(peer), Some(local)] && inode != 0).then_some(inode)
    })
}

/// `0100007F:0A3C`: the words of the address as this machine reads them from memory, the port as a number.
fn address_of(text: &str) -> Option<SocketAddr> {
    let (addr, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(addr.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip: IpAddr = match addr.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// `starttime` of `/proc/PID/stat`. The name before it is in brackets and may hold anything.
fn started_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// What a command line of zebra says.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    module: FpmModule,
    waits: bool,
    table: Option<TableId>,
    netns_vrfs: bool,
}

/// A module is loaded by the command line only, and of FPM there are two; the last of an option counts.
fn options_of(cmdline: &[u8]) -> Options {
    let arguments: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
    let is_new = |argument: &&[u8]| find_bytes(argument, b"dplane_fpm_nl").is_some();
    let mut tables = arguments.iter().enumerate().filter_map(|(at, argument)| {
        let long = long_option(argument, b"--routing-table", b"--ro".len());
        let value = argument.strip_prefix(b"-R").or(long)?;
        let value = match value {
            b"" => arguments.get(at + 1)?,
            value => value,
        };
        std::str::from_utf8(value).ok()?.parse().ok().map(TableId)
    });
    let mut waits = arguments
        .iter()
        .filter_map(|argument| long_option(argument, b"--asic-offload", b"--as".len()));
    // FRR 8 has `-n` for it, which later ones still take.
    let netns = |argument: &&[u8]| {
        matches!(*argument, b"-w" | b"-n")
            || long_option(argument, b"--vrfwnetns", b"--vr".len()).is_some()
    };
    Options {
        module: if arguments.iter().any(is_new) {
            FpmModule::DplaneFpmNl
        } else {
            FpmModule::ZebraFpm
        },
        waits: waits.next_back() == Some(b"notify_on_offload"),
        table: tables.next_back(),
        netns_vrfs: arguments.iter().any(netns),
    }
}

/// What stands behind the `=` of a long option, or nothing. getopt takes its name cut short, too.
fn long_option<'a>(argument: &'a [u8], option: &[u8], shortest: usize) -> Option<&'a [u8]> {
    let name = argument.split(|byte| *byte == b'=').next()?;
    let named = name.len() >= shortest && option.starts_with(name);
    named.then(|| argument.get(name.len() + 1..).unwrap_or_default())
}

/// The range that `/proc/PID/map_files` names the library by.
fn library_in(maps: &str) -> Option<&str> {
    let mut lines = maps.lines();
    let line = lines.find(|line| line.contains("/libfrr.so"))?;
    line.split_ascii_whitespace().next()
}

fn version_in(file: &Path) -> io::Result<Option<FrrVersion>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(banner_in(&bytes))
}

fn banner_in(bytes: &[u8]) -> Option<FrrVersion> {
    let text = &bytes[find_bytes(bytes, BANNER)? + BANNER.len()..];
    let end = text.iter().position(|byte| *byte == b')')?;
    FrrVersion::parse(std::str::from_utf8(&text[..end]).ok()?)
}

fn find_bytes(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_socket_at_the_other_end_is_found_in_the_kernels_own_table() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(listen).unwrap();
            let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, addr) = listener.accept().unwrap();
            let file = if addr.is_ipv4() { "tcp" } else { "tcp6" };
            let table = fs::read_to_string(format!("/proc/self/net/{file}")).unwrap();
            let local = stream.local_addr().unwrap();
            let inode = inode_of(&table, addr, local).unwrap();
            assert!(fd_of(std::process::id(), format!("socket:[{inode}]").as_ref()).is_some());
            assert_ne!(
                inode_of(&table, local, addr),
                Some(inode),
                "our own end is another"
            );
            assert_eq!(find(addr, local), None, "this process is no zebra");
        }
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let one = u32::from_ne_bytes([127, 0, 0, 1]);
        let v4 = address_of(&format!("{one:08X}:0A3C"));
        assert_eq!(v4, Some("127.0.0.1:2620".parse().unwrap()));
        for bad in ["", "7F:0A3C", "0100007F", "0100007F:XY", "ü100007F:0A3C"] {
            assert_eq!(address_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_command_line_names_the_module_the_wait_and_the_table() {
        let of = |line: &str| {
            let options = options_of(line.replace(' ', "\0").as_bytes());
            let table = options.table.map(|table| table.0);
            (options.module, options.waits, table, options.netns_vrfs)
        };
        let (new, old) = (FpmModule::DplaneFpmNl, FpmModule::ZebraFpm);
        for (line, expected) in [
            (
                "zebra -A 127.0.0.1 -M dplane_fpm_nl -R 5000 --asic-offload=notify_on_offload",
                (new, true, Some(5000), false),
            ),
            (
                "zebra -Mdplane_fpm_nl --asic=notify_on_offload -R6000 -w",
                (new, true, Some(6000), true),
            ),
            (
                "zebra -M dplane_fpm_nl --asic-offload --routing-table=7 --retain",
                (new, false, Some(7), false),
            ),
            (
                "zebra -M dplane_fpm_nl --asic-offload=notify_on_offload --asic-offload=notify_on_ack --routing 8 --vrfw",
                (new, false, Some(8), true),
            ),
            (
                "zebra -d -M fpm --asic-offload notify_on_offload -R",
                (old, false, None, false),
            ),
            ("zebra", (old, false, None, false)),
        ] {
            assert_eq!(of(line), expected, "{line}");
        }
    }

    #[test]
    fn start_time_and_library_are_found_whatever_the_names() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 4 0 123456 1000 20";
        assert_eq!(started_of(stat), Some(123_456));
        let maps = "55d0-55d1 r-xp 0 00:1 5 /usr/lib/frr/zebra\n7f00-7f01 r--p 0 00:1 7 /usr/lib/libfrr.so.0.0.0 (deleted)\n";
        assert_eq!(library_in(maps), Some("7f00-7f01"));
        let version = banner_in(b"\0\nHello, this is FRRouting (version 10.3).\nCopyright\0");
        assert_eq!(version, FrrVersion::parse("10.3"));
        assert_eq!(banner_in(b"Hello, this is FRRouting (version 10.3"), None);
    }
}
