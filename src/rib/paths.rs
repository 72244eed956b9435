//! Interned paths: all that routes of the same origin share. A full table has a few hundred of them, so that a route
//! needs four bytes for its path, and a change of a next hop touches paths, not routes.

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU32 as Nz};

use rustc_hash::FxHashMap;

use super::NhRef;
use crate::model::{Family, FormId, NhgId, Protocol, Reason, RouteKind, SourceId};

/// The number of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(NonZeroU32);

impl PathId {
    const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathTarget {
    /// Nowhere (blackhole and its kin).
    None,
    /// A next-hop id of the source, perhaps not announced yet.
    Id(NhRef),
    /// A group that was written out in the route.
    Group(NhgId),
    /// Nobody knows: what the route says can't be used.
    Bad(Reason),
}

/// What makes a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathKey {
    /// Who told.
    pub source: SourceId,
    /// Who made the route.
    pub protocol: Protocol,
    /// What it does.
    pub kind: RouteKind,
    /// As received.
    pub metric: u32,
    /// As received.
    pub mtu: Option<Nz>,
    /// As received.
    pub prefsrc: Option<IpAddr>,
    /// Where to.
    pub target: PathTarget,
}

/// The kernel form that a path means for one route family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathForm {
    /// Not computed since something changed, or never asked for.
    Unknown,
    /// This one.
    Form(FormId),
    /// None, because.
    Blocked(Reason),
}

/// A path and its users.
#[derive(Debug, Clone)]
pub struct Path {
    /// What makes it.
    pub key: PathKey,
    /// Routes that use it.
    pub users: u32,
    /// Its kernel form for IPv4 and IPv6 routes.
    pub form: [PathForm; 2],
}

impl Path {
    /// The kernel form for a family.
    pub const fn form(&self, family: Family) -> PathForm {
        self.form[family as usize]
    }
}

/// All paths.
#[derive(Debug, Default)]
pub struct Paths {
    paths: Vec<Option<Path>>,
    free: Vec<PathId>,
    index: FxHashMap<PathKey, PathId>,
}

impl Paths {
    /// The path of a key with one more user; `true` when it is new.
    pub fn hold(&mut self, key: PathKey) -> (PathId, bool) {
        if let Some(&id) = self.index.get(&key) {
            self.get_mut(id).users += 1;
            return (id, false);
        }
        let path = Path {
            key,
            users: 1,
            form: [PathForm::Unknown; 2],
        };
        let id = if let Some(id) = self.free.pop() {
            self.paths[id.index()] = Some(path);
            id
        } else {
            self.paths.push(Some(path));
            match NonZeroU32::new(self.paths.len() as u32) {
                Some(id) => PathId(id),
                None => unreachable!("a vector that was pushed to is not empty"),
            }
        };
        self.index.insert(key, id);
        (id, true)
    }

    /// The path of a key, if it is there, with one more user.
    pub fn hold_again(&mut self, id: PathId) {
        self.get_mut(id).users += 1;
    }

    /// One user less; gives the path back when that was the last.
    pub fn release(&mut self, id: PathId) -> Option<Path> {
        let path = self.get_mut(id);
        path.users -= 1;
        if path.users > 0 {
            return None;
        }
        let path = self.paths[id.index()].take()?;
        self.index.remove(&path.key);
        self.free.push(id);
        Some(path)
    }

    /// A path.
    pub fn get(&self, id: PathId) -> &Path {
        match &self.paths[id.index()] {
            Some(path) => path,
            None => unreachable!("a path in use is in its place"),
        }
    }

    /// A path.
    pub fn get_mut(&mut self, id: PathId) -> &mut Path {
        match &mut self.paths[id.index()] {
            Some(path) => path,
            None => unreachable!("a path in use is in its place"),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (PathId, &Path)> {
        self.paths.iter().enumerate().filter_map(|(i, path)| {
            let id = PathId(NonZeroU32::new(i as u32 + 1)?);
            Some((id, path.as_ref()?))
        })
    }
}
