//! The prefixes that the kernel would look up, table by table, and what planning reads of them.
//!
//! They come from a mirror of the kernel's own tables, not from FPM alone: a connected subnet or a route by hand may lie inside of a
//! prefix that goes to hardware. Filled by the engine, shared by all switches; knows neither rules nor what is admitted.

use rustc_hash::FxHashMap;

use super::offload::Wish;
use super::tree::PrefixTree;
use crate::model::{Family, RouteKey, TableId};

/// Every prefix that the kernel would look up, by table and family. Shared by all switches.
#[derive(Debug, Default)]
pub struct Lookup {
    trees: FxHashMap<(TableId, Family), PrefixTree>,
}

impl Lookup {
    /// The tree of a table and family.
    pub fn tree(&self, table: TableId, family: Family) -> Option<&PrefixTree> {
        self.trees.get(&(table, family))
    }

    /// Adds or removes a prefix; whether that changed anything.
    pub fn set(&mut self, key: RouteKey, present: bool) -> bool {
        let at = (key.table, key.prefix.family());
        if present {
            return self.trees.entry(at).or_default().insert(key.prefix);
        }
        self.trees
            .get_mut(&at)
            .is_some_and(|tree| tree.remove(key.prefix))
    }

    /// Whether the kernel would look it up.
    pub fn contains(&self, key: RouteKey) -> bool {
        self.tree(key.table, key.prefix.family())
            .is_some_and(|tree| tree.contains(key.prefix))
    }

    /// Everything in a table.
    pub fn keys(&self) -> impl Iterator<Item = RouteKey> + '_ {
        self.trees.iter().flat_map(|(&(table, _), tree)| {
            tree.iter().map(move |prefix| RouteKey { table, prefix })
        })
    }

    /// The next shorter one that has it inside.
    pub fn parent(&self, key: RouteKey) -> Option<RouteKey> {
        let prefix = self
            .tree(key.table, key.prefix.family())?
            .parent(key.prefix)?;
        Some(RouteKey { prefix, ..key })
    }

    pub(super) fn children(&self, key: RouteKey) -> impl Iterator<Item = RouteKey> + '_ {
        self.tree(key.table, key.prefix.family())
            .into_iter()
            .flat_map(move |tree| tree.children(key.prefix))
            .map(move |prefix| RouteKey { prefix, ..key })
    }
}

/// What planning reads.
pub struct Env<'a> {
    /// The prefixes.
    pub lookup: &'a Lookup,
    /// What hardware should do with one of them.
    pub wish: &'a dyn Fn(RouteKey) -> Wish,
}

impl std::fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("lookup", &self.lookup)
            .finish_non_exhaustive()
    }
}
