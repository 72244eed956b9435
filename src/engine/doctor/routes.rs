//! Findings about routes: what the kernel refuses, what stands in the way, what FRR lost on the way here. One walk over the
//! table, as `show status` makes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, count};
use crate::engine::report::{Finding, NextHopReport, Pitfall};
use crate::model::{Errno, Family, Reason, RouteKey};

/// Reasons that no command ends, only another network.
const UNUSABLE: [Reason; 5] = [
    Reason::Encapsulation,
    Reason::FamilyMismatch,
    Reason::GroupTooLarge,
    Reason::GroupLoop,
    Reason::NoNextHop,
];

/// How many routes have a reason, and one of them.
type Standing = BTreeMap<Reason, (u64, RouteKey)>;

impl Engine {
    pub(super) fn route_findings(&self) -> Vec<Finding> {
        let (mut standing, mut stale) = (Standing::new(), 0);
        for (id, slot) in self.slots.iter() {
            if slot.path.is_none() {
                continue;
            }
            stale += u64::from(self.is_stale(slot));
            if let Some(reason) = self.route_reason(id) {
                standing.entry(reason).or_insert((0, slot.key())).0 += 1;
            }
        }
        let mut findings = Vec::from_iter(self.next_hops_lost(&standing));
        findings.extend(pool_exhausted(&standing));
        findings.extend(self.foreign_routes(&standing));
        findings.extend(self.refused_writes(&standing));
        for reason in UNUSABLE {
            if let Some((n, key)) = standing.get(&reason) {
                let text = format!("{}: {}", routes(*n, *key), reason.text());
                findings.push(Pitfall::RouteUnusable.found(text, None));
            }
        }
        if stale > 0 && self.session.is_synced() {
            let mut text = format!(
                "{}: zebra came back without them; they forward for {:?} as they did",
                count(stale, "stale route"),
                self.config.fpm.stale_time
            );
            if let Some(n) = self.counters.rejected.get(&Reason::GatewayLost) {
                text += &format!(" ({n} came without their gateway, as FRR 10.3 reads them back)");
            }
            findings.push(Pitfall::RoutesStale.found(text, None));
        }
        findings
    }

    /// Also where only a member of a group is lost: the others carry its share.
    fn next_hops_lost(&self, standing: &Standing) -> Option<Finding> {
        let mut links = BTreeSet::new();
        let mut affected = 0;
        for group in self.groups() {
            let lost = |hop: &&NextHopReport| hop.reason == Some(Reason::NextHopLost);
            let names: Vec<_> = group.nexthops.iter().filter(lost).collect();
            affected += if names.is_empty() { 0 } else { group.routes };
            links.extend(names.into_iter().filter_map(|hop| hop.dev.clone()));
        }
        let example = standing
            .get(&Reason::NextHopLost)
            .map(|(_, key)| format!(", {} among them", key.prefix))
            .unwrap_or_default();
        (!links.is_empty()).then(|| {
            let links: Vec<_> = links.into_iter().collect();
            let text = format!(
                "{}: FRR sends 169.254.0.1 in place of a link-local next hop, and the link has not exactly one router ({}{example})",
                links.join(", "),
                count(affected, "route")
            );
            Pitfall::NextHopLost.found(text, self.next_hops_whole())
        })
    }

    fn foreign_routes(&self, standing: &Standing) -> Option<Finding> {
        let (n, key) = standing.get(&Reason::ForeignRoute)?;
        let metric = self.config.kernel.metric;
        let text = format!(
            "{}: somebody else's route has the same prefix and metric {metric} in the kernel, and packets follow that",
            routes(*n, *key)
        );
        let ip = match key.prefix.family() {
            Family::V4 => "ip",
            Family::V6 => "ip -6",
        };
        let fix = format!(
            "{ip} route del {} table {} metric {metric}",
            key.prefix, key.table
        );
        Some(Pitfall::ForeignRoute.found(text, fix))
    }

    /// Refused by the kernel and still wanted: routes, or next-hop objects that they stand on.
    fn refused_writes(&self, standing: &Standing) -> Option<Finding> {
        let (n, key) = standing.get(&Reason::KernelRefused)?;
        let objects = self.object_table.iter();
        let objects = objects.filter_map(|(_, entry)| entry.failure.as_ref());
        let mut refusals = objects.chain(self.failures.values()).map(|f| &f.refusal);
        let words = refusals
            .find(|refusal| !is_taken(refusal.errno))
            .map_or_else(String::new, |refusal| {
                let text = refusal.text.as_deref().unwrap_or("no reason given");
                format!(" ({}: {text})", refusal.errno)
            });
        let text = format!(
            "{}: {}{words}; it is tried again by itself",
            routes(*n, *key),
            Reason::KernelRefused.text()
        );
        let fix = format!("frr-offload explain {} --table {}", key.prefix, key.table);
        Some(Pitfall::KernelRefused.found(text, fix))
    }
}

fn pool_exhausted(standing: &Standing) -> Option<Finding> {
    let (n, key) = standing.get(&Reason::PoolExhausted)?;
    let text = format!("{}: {}", routes(*n, *key), Reason::PoolExhausted.text());
    let fix = "in /etc/frr-offload/config.toml: kernel.ipv4_via_ipv6 = \"inet6\"; then systemctl reload frr-offload";
    Some(Pitfall::PoolExhausted.found(text, fix.to_owned()))
}

/// Somebody else's route is there, which has a finding of its own.
const fn is_taken(errno: Errno) -> bool {
    const EEXIST: i32 = 17;
    errno.0 == EEXIST
}

/// `3 routes (10.0.0.0/8 the first)`.
fn routes(n: u64, key: RouteKey) -> String {
    if n == 1 {
        format!("route {key}")
    } else {
        format!("{n} routes, {key} among them")
    }
}
