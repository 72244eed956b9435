//! What filters or rewrites forwarded packets, as a list: chains of nftables, and the tables of the older iptables. A kernel
//! without one or the other has none of it. What is there and can't be read is taken for a filter: hardware must not forward
//! what the kernel might drop.

use std::{fs, io};

use nix::errno::Errno as OsErrno;
use socket2::SockFilter;

use super::DumpSocket;
use super::dump::RECEIVE_BUFFER;
use super::route_watch::{JEQ, LD_H_ABS, RET, TYPE_OFFSET, short};
use super::socket::{RtnlSocket, errno};
use crate::model::{Errno, Family, PacketFilter};
use crate::wire::packet_filter::{
    NEWCHAIN, NEWGEN, decode_chain, decode_legacy_tables, encode_chain_dump,
};

const NFNLGRP_NFTABLES: u32 = 7;
/// Those of the thread's own network namespace.
const LEGACY_TABLES: [(&str, Family); 2] = [
    ("/proc/thread-self/net/ip_tables_names", Family::V4),
    ("/proc/thread-self/net/ip6_tables_names", Family::V6),
];

/// A socket for reading these lists; `None` in a kernel without nfnetlink.
#[derive(Debug)]
pub(super) struct FilterLists {
    dumps: Option<DumpSocket>,
}

impl FilterLists {
    /// Opens a socket, and one that hears of each transaction of nftables. Nothing is heard of the older iptables.
    pub(super) fn open() -> io::Result<(Self, Option<RtnlSocket>)> {
        let (dumps, heard) = match RtnlSocket::netfilter(RECEIVE_BUFFER) {
            Ok(socket) => {
                let heard = RtnlSocket::netfilter(RECEIVE_BUFFER)?;
                // Before the group is joined, so that nothing else gets in: what a transaction consists of may be long.
                heard.filter(&program())?;
                heard.join(NFNLGRP_NFTABLES)?;
                (Some(DumpSocket::over(socket)?), Some(heard))
            }
            Err(error) if is_absent(errno(&error)) => {
                tracing::info!("this kernel has no nf_tables");
                (None, None)
            }
            Err(error) => return Err(error),
        };
        Ok((Self { dumps }, heard))
    }

    /// All of it.
    pub(super) fn read(&mut self) -> Vec<PacketFilter> {
        let unread = |families, what: &str, error: &dyn std::fmt::Display| PacketFilter {
            families,
            name: format!("{what} (can't be read: {error})").into(),
        };
        let chains = match &mut self.dumps {
            Some(dumps) => dumps.list(encode_chain_dump, NEWCHAIN, decode_chain),
            None => Ok(Vec::new()),
        };
        let mut found = match chains {
            Ok(found) => found,
            Err(errno) if is_absent(errno) => Vec::new(),
            Err(errno) => vec![unread([true, true], "nftables", &errno)],
        };
        for (path, family) in LEGACY_TABLES {
            match fs::read_to_string(path) {
                Ok(names) => found.extend(decode_legacy_tables(&names, family)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let families = [Family::V4, Family::V6].map(|one| one == family);
                    found.push(unread(families, path, &error));
                }
            }
        }
        found
    }
}

/// What a kernel answers that has no nfnetlink (the socket), or no nftables behind it (the request).
fn is_absent(errno: Errno) -> bool {
    let absent = [
        OsErrno::EPROTONOSUPPORT,
        OsErrno::EAFNOSUPPORT,
        OsErrno::ECONNREFUSED,
        OsErrno::EOPNOTSUPP,
        OsErrno::EINVAL,
    ];
    absent.iter().any(|code| *code as i32 == errno.0)
}

/// Lets only the end of a transaction through.
fn program() -> [SockFilter; 4] {
    let op = SockFilter::new;
    [
        op(LD_H_ABS, 0, 0, TYPE_OFFSET),
        op(JEQ, 0, 1, short(NEWGEN)),
        op(RET, 0, 0, u32::MAX),
        op(RET, 0, 0, 0),
    ]
}
