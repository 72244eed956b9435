//! A route of a northbound answer as it is written: what serde reads into before anything is judged. Unknown members are
//! skipped, a member that comes twice is an error, as is a number that its leaf's type can't hold. Lists end at a limit, so
//! that no text can make these take much more memory than its own length.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use crate::model::MAX_GROUP_MEMBERS;

/// FRR's model has an entry a protocol, and about twenty of those.
const MAX_ENTRIES: usize = 256;
/// Recursive next hops stand in the list beside what they resolve to.
const MAX_HOPS: usize = 4 * MAX_GROUP_MEMBERS;

/// A string, borrowed where it stands in the text as it is.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

#[derive(Deserialize)]
#[serde(expecting = "the object of a route")]
pub(super) struct RawRoute<'a> {
    #[serde(borrow)]
    pub prefix: Cow<'a, str>,
    #[serde(borrow, default, rename = "route-entry")]
    pub entries: List<Entry<'a>, MAX_ENTRIES>,
}

#[derive(Deserialize)]
#[serde(expecting = "the object of a route entry")]
pub(super) struct Entry<'a> {
    #[serde(borrow)]
    pub protocol: Cow<'a, str>,
    #[serde(default)]
    pub distance: u8,
    #[serde(default)]
    pub metric: u32,
    #[serde(default)]
    pub tag: u32,
    #[serde(default)]
    pub selected: Present,
    #[serde(default)]
    pub installed: Present,
    #[serde(default)]
    pub failed: Present,
    #[serde(borrow, default, rename = "nexthop-group")]
    pub group: RawGroup<'a>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "the object of a next-hop group")]
pub(super) struct RawGroup<'a> {
    #[serde(default)]
    pub id: u32,
    #[serde(borrow, default, rename = "nexthop")]
    pub hops: List<RawHop<'a>, MAX_HOPS>,
}

#[derive(Deserialize)]
#[serde(expecting = "the object of a next hop")]
pub(super) struct RawHop<'a> {
    #[serde(borrow, rename = "nh-type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub gateway: Cow<'a, str>,
    #[serde(borrow, default)]
    pub interface: Cow<'a, str>,
    #[serde(borrow, default, rename = "bh-type")]
    pub discard: Cow<'a, str>,
    #[serde(default)]
    pub onlink: bool,
    #[serde(default)]
    pub duplicate: Present,
    #[serde(default)]
    pub recursive: Present,
    #[serde(default)]
    pub active: Present,
    /// Eight bits in FRR 10.3, sixteen in 10.7; without one it counts as 1.
    #[serde(default)]
    pub weight: u16,
}

/// A leaf without value: to be there is what it says. JSON writes `[null]` (RFC 7951, 6.9).
#[derive(Clone, Copy, Default)]
pub(super) struct Present(pub bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [()] = <[(); 1]>::deserialize(deserializer)?;
        Ok(Self(true))
    }
}

/// A list of at most `MAX` elements.
pub(super) struct List<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = List<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            elements.push(element);
        }
        Ok(List(elements))
    }
}
