//! Keeps the state file up to date.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::engine::Engine;
use crate::model::KernelNhId;
use crate::state::{ID_BLOCK, PoolEntry, Snapshot};

/// Of links that are not there: where links come and go under ever new names the file must not grow.
const MOST_KEPT: usize = 1024;
/// How often what changes is saved at most.
const SAVE_PERIOD: Duration = Duration::from_secs(1);

/// Keeps the state file up to date.
pub struct Saver {
    path: PathBuf,
    /// The pool as the file had it. What it says of links that are not there, or not listed yet, is kept.
    earlier: Vec<PoolEntry>,
    reserved: u32,
    saved: (u64, Option<u32>),
    last: Option<Instant>,
    failed: bool,
}

impl Saver {
    /// Keeps this file; it is not read here.
    pub fn new(path: PathBuf, earlier: Vec<PoolEntry>) -> Self {
        Self {
            path,
            earlier,
            reserved: KernelNhId::FIRST.get(),
            saved: (0, None),
            last: None,
            failed: false,
        }
    }

    /// Saves a block of ids ahead when the last one is used up.
    pub fn reserve(&mut self, engine: &Engine) {
        if engine.next_nexthop_id() > self.reserved {
            self.reserved = engine.next_nexthop_id().saturating_add(ID_BLOCK);
            self.save(engine);
        }
    }

    /// Saves what has changed, if that was not done just now.
    pub fn save_lazily(&mut self, engine: &Engine) {
        if Self::worth_saving(engine) != self.saved
            && self.last.is_none_or(|last| last.elapsed() >= SAVE_PERIOD)
        {
            self.save(engine);
        }
    }

    fn worth_saving(engine: &Engine) -> (u64, Option<u32>) {
        (engine.address_pool().version(), engine.zebra())
    }

    /// Saves all.
    pub fn save(&mut self, engine: &Engine) {
        self.saved = Self::worth_saving(engine);
        self.last = Some(Instant::now());
        let next = self.reserved.max(engine.next_nexthop_id());
        let mut snapshot = Snapshot::new(next, self.pool(engine));
        snapshot.zebra = engine.zebra();
        snapshot.metrics = engine.metrics().collect();
        match snapshot.save(&self.path) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                warn!(file = %self.path.display(), %error, "the state can't be saved; a restart may renumber next hops and not know routes of another metric");
            }
            Err(_) => {}
        }
    }

    fn pool(&self, engine: &Engine) -> Vec<PoolEntry> {
        let gone = |entry: &&PoolEntry| !engine.has_link(&entry.link);
        let kept = self.earlier.iter().filter(gone).take(MOST_KEPT);
        let mut entries: Vec<_> = kept.cloned().collect();
        let remembered = engine.address_pool().remembered();
        entries.extend(remembered.filter_map(|(peer, addr)| {
            Some(PoolEntry {
                link: engine.link_name(peer.dev)?.into(),
                peer: peer.addr,
                addr,
            })
        }));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::Memory;

    #[test]
    fn what_an_earlier_run_knew_outlives_a_run_that_ended_before_it_knew_a_link() {
        let path =
            std::env::temp_dir().join(format!("frr-offload-saver-{}.json", std::process::id()));
        let entry = PoolEntry {
            link: "eth0".into(),
            peer: "fe80::1".parse().unwrap(),
            addr: "169.254.0.7".parse().unwrap(),
        };
        let earlier = Snapshot::new(KernelNhId::FIRST.get(), vec![entry.clone()]);
        let memory = Memory {
            pool: earlier.pool(&[]),
            ..Memory::default()
        };
        let engine = Engine::new(Config::default(), memory);
        Saver::new(path.clone(), earlier.pool).save(&engine);
        assert_eq!(Snapshot::load(&path).unwrap().pool, [entry]);
        std::fs::remove_file(&path).unwrap();
    }
}
