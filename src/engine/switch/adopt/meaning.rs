//! What a rule of ours that was found means: from its mark, its place and what it matches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{
    Chain, Family, FlowerRule, Framing, Masked, ObservedRule, Prefix, RouteKey, RuleAction,
};
use crate::plan::{Except, Marked, read_mark};

/// A rule of ours that was found.
pub(super) struct Ours<'a> {
    pub(super) observed: &'a ObservedRule,
    pub(super) marked: Marked,
    pub(super) rule: &'a FlowerRule,
}

impl Ours<'_> {
    pub(super) const fn chain(&self) -> Chain {
        self.observed.place.chain
    }

    pub(super) fn leads_to(&self) -> Option<Chain> {
        goto(self.rule)
    }

    pub(super) const fn framing(&self) -> Framing {
        self.rule.protocol.framing()
    }
}

pub(super) fn is_ours(rule: &ObservedRule) -> bool {
    rule.cookie.and_then(read_mark).is_some()
}

pub(super) fn goto(rule: &FlowerRule) -> Option<Chain> {
    match rule.actions.last() {
        Some(RuleAction::Goto(chain)) => Some(*chain),
        _ => None,
    }
}

pub(super) fn except_of(rule: &FlowerRule, family: Family) -> Option<Except> {
    let matches = &rule.matches;
    if matches.ttl.is_some() {
        return Some(Except::Expiring);
    }
    match (matches.src, matches.dst) {
        (Some(src), None) => prefix_of(src).map(Except::From),
        (None, Some(dst)) => prefix_of(dst).map(Except::To),
        (None, None) => route_of(rule, family).map(Except::To),
        (Some(_), Some(_)) => None,
    }
}

pub(super) fn route_of(rule: &FlowerRule, family: Family) -> Option<Prefix> {
    if let Some(dst) = rule.matches.dst {
        prefix_of(dst)
    } else {
        let any = match family {
            Family::V4 => Masked::v4(0, 0),
            Family::V6 => Masked::v6(0, 0),
        };
        prefix_of(any)
    }
}

/// A prefix's rule of the flat layout.
pub(super) fn share_of(ours: &Ours<'_>) -> Option<(RouteKey, u8, u16)> {
    let Marked::Route(table, family) = ours.marked else {
        return None;
    };
    let prefix = route_of(ours.rule, family)?;
    let (bits, n) = bucket_of(ours.rule)?;
    let flat = ours.chain() == Chain::ENTRY && ours.rule.protocol.family() == Some(family);
    flat.then_some((RouteKey { table, prefix }, bits, n))
}

pub(super) fn bucket_of(rule: &FlowerRule) -> Option<(u8, u16)> {
    match rule.matches.src {
        None => Some((0, 0)),
        Some(Masked::V4 { addr, mask }) => {
            Some((mask.trailing_ones() as u8, u16::try_from(addr).ok()?))
        }
        Some(Masked::V6 { addr, mask }) => {
            Some((mask.trailing_ones() as u8, u16::try_from(addr).ok()?))
        }
    }
}

fn prefix_of(masked: Masked) -> Option<Prefix> {
    match masked {
        Masked::V4 { addr, mask } if mask.leading_ones() == mask.count_ones() => Prefix::new(
            IpAddr::V4(Ipv4Addr::from_bits(addr)),
            mask.count_ones() as u8,
        )
        .ok(),
        Masked::V6 { addr, mask } if mask.leading_ones() == mask.count_ones() => Prefix::new(
            IpAddr::V6(Ipv6Addr::from_bits(addr)),
            mask.count_ones() as u8,
        )
        .ok(),
        _ => None,
    }
}
