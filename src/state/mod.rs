//! What survives a restart of the daemon: saved beside the admin socket, in a directory that a boot empties.
//!
//! - The next next-hop object id. zebra remembers ids even of objects that are gone, so none is used twice within a boot
//!   (docs/evidence.md, "Next-hop objects"); ids are saved in blocks, *before* one of a block is given out.
//! - Which 169.254 address stood for which neighbour, by the link's name, so that a restart changes no route.
//! - Which zebra was heard last: the same one may have routes that it does not repeat (`rib::Session`).
//! - The metrics that our routes had, part of their mark: a route of a metric that we never used is not ours.
//!
//! A file that is missing, damaged or of another boot is no error: it costs a fresh start of all this.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{KernelNhId, Link, NeighbourKey};
use crate::resolve::AddressPool;

/// Versions the file; another version is as good as none.
const FORMAT: u32 = 1;
/// Ids that are saved ahead.
pub const ID_BLOCK: u32 = 4096;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    format: u32,
    boot_id: String,
    /// The first id that is certainly unused.
    pub next_nexthop_id: u32,
    /// Addresses of the 169.254 pool.
    pub pool: Vec<PoolEntry>,
    /// `nlmsg_pid` of the zebra that was last heard.
    #[serde(default)]
    pub zebra: Option<u32>,
    /// Metrics that our routes had since the boot.
    #[serde(default)]
    pub metrics: Vec<u32>,
}

/// One address of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
pub struct PoolEntry {
    /// The link's name: its number may be another after it was made anew.
    pub link: String,
    /// The neighbour.
    pub peer: IpAddr,
    /// What stands for it.
    pub addr: Ipv4Addr,
}

impl Snapshot {
    /// What is worth saving now; zebra and metrics are for the caller to add.
    pub fn new(next_nexthop_id: u32, mut pool: Vec<PoolEntry>) -> Self {
        pool.sort_unstable();
        Self {
            format: FORMAT,
            boot_id: boot_id(),
            next_nexthop_id,
            pool,
            zebra: None,
            metrics: Vec::new(),
        }
    }

    /// Reads the file, if there is one of this boot.
    pub fn load(path: &Path) -> Option<Self> {
        let snapshot: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (snapshot.format == FORMAT && snapshot.boot_id == boot_id()).then_some(snapshot)
    }

    /// Writes the file whole or not at all.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_data()?;
        fs::rename(temporary, path)
    }

    /// The first id that may be given out.
    pub fn first_id(&self) -> KernelNhId {
        KernelNhId::new(self.next_nexthop_id).unwrap_or(KernelNhId::FIRST)
    }

    /// The addresses, for links that are there.
    pub fn pool(&self, links: &[Link]) -> AddressPool {
        let mut pool = AddressPool::default();
        for entry in &self.pool {
            if let Some(link) = links.iter().find(|link| *link.name == *entry.link) {
                pool.remember(
                    NeighbourKey {
                        dev: link.index,
                        addr: entry.peer,
                    },
                    entry.addr,
                );
            }
        }
        pool
    }
}

/// The file, beside the admin socket.
pub fn path_beside(socket: &Path) -> PathBuf {
    socket.with_file_name("state.json")
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_reads_back_and_damage_is_no_error() {
        let path =
            std::env::temp_dir().join(format!("frr-offload-state-{}.json", std::process::id()));
        let entry = PoolEntry {
            link: "eth3".into(),
            peer: "fe80::1".parse().unwrap(),
            addr: "169.254.0.7".parse().unwrap(),
        };
        let mut saved = Snapshot::new(0xB800_1000, vec![entry]);
        saved.zebra = Some(0x8000_0001);
        saved.metrics = vec![10, 99];
        saved.save(&path).unwrap();
        assert_eq!(Snapshot::load(&path).unwrap(), saved);
        fs::write(&path, &fs::read(&path).unwrap()[..20]).unwrap();
        assert_eq!(Snapshot::load(&path), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(Snapshot::load(&path), None);
    }
}
