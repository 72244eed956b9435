//! Reads what ports have counted: [`port_counters`] of all links in one dump, which costs microseconds a link and is
//! asked for now and then, and [`nic_statistics`] of one link, for which the driver may ask its firmware and take its
//! time.
//!
//! Decides nothing, keeps nothing, and may block: whoever calls has a thread for it. Sockets are opened for each call,
//! in the network namespace of the calling thread.

use std::io;

use nix::errno::Errno as OsErrno;

use super::DumpSocket;
use super::dump::RECEIVE_BUFFER;
use super::ethtool_ioctl::driver_statistics;
use super::socket::{RtnlSocket, errno};
use crate::model::{Errno, IfIndex, NicCounter, NicGroup, NicStatistics, PortReading};
use crate::wire::ethtool::ETHTOOL_FAMILY;
use crate::wire::ethtool_stats::{
    decode_names, decode_nic_stats, encode_get_names, encode_get_stats,
};
use crate::wire::genl::{GENL_ID_CTRL, decode_family, encode_get_family};
use crate::wire::rtnl_stats::{RTM_NEWSTATS, decode_stats, encode_stats_dump};

/// The counters of all links.
pub fn port_counters() -> Result<Vec<PortReading>, Errno> {
    let mut socket = opened(DumpSocket::open())?;
    socket.list(encode_stats_dump, RTM_NEWSTATS, decode_stats)
}

/// What the NIC counts for a link, by its number and its name.
pub fn nic_statistics(dev: IfIndex, name: &str) -> NicStatistics {
    let mut statistics = NicStatistics::default();
    match standard_statistics(dev) {
        Ok(counters) => statistics.counters = counters,
        // Neither a kernel without these groups nor a link without any of them is a failure.
        Err(Errno(code)) if is_none(code) => {}
        Err(errno) => statistics.failed.push((NicGroup::EthMac, errno)),
    }
    match driver_statistics(name) {
        Ok(counters) => statistics.counters.extend(counters),
        Err(errno) => statistics.failed.push((NicGroup::Driver, errno)),
    }
    statistics
}

fn is_none(code: i32) -> bool {
    [OsErrno::ENOENT, OsErrno::EOPNOTSUPP].contains(&OsErrno::from_raw(code))
}

fn standard_statistics(dev: IfIndex) -> Result<Vec<NicCounter>, Errno> {
    let socket = opened(RtnlSocket::generic(RECEIVE_BUFFER).and_then(DumpSocket::over));
    let mut socket = socket?;
    let named = |envelope: crate::wire::netlink::Envelope<'_>| {
        encode_get_family(envelope, ETHTOOL_FAMILY);
    };
    let families = socket.list(named, GENL_ID_CTRL, decode_family)?;
    let Some(family) = families.first().map(|family| family.id) else {
        return Ok(Vec::new());
    };
    let names = socket.list(
        |envelope| encode_get_names(envelope, family),
        family,
        decode_names,
    )?;
    let Some(names) = names.first() else {
        return Ok(Vec::new());
    };
    let answers = socket.list(
        |envelope| encode_get_stats(envelope, family, dev),
        family,
        |payload| decode_nic_stats(payload, names),
    )?;
    Ok(answers.into_iter().flatten().collect())
}

fn opened<T>(socket: io::Result<T>) -> Result<T, Errno> {
    socket.map_err(|error| errno(&error))
}
