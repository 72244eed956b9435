//! What a new configuration changes: what can be applied to the running daemon, and what needs a restart.
//!
//! Compares every field without `..`, so that a new key makes the compiler ask which of the two it is.

use super::{
    AdminConfig, Config, FeedbackConfig, FpmConfig, KernelConfig, LogConfig, NorthboundConfig,
    OffloadConfig,
};

/// Keys whose values differ, as key paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Applied at once.
    pub live: Vec<&'static str>,
    /// Left as they were until a restart.
    pub restart: Vec<&'static str>,
}

impl Changes {
    /// What differs between the running configuration and a new one.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        let Config {
            setup,
            fpm,
            northbound,
            kernel,
            offload,
            feedback,
            admin,
            log,
            acl,
        } = old;
        changes.restart("setup", *setup != new.setup);
        let FpmConfig {
            listen,
            allow,
            table_map,
            replay_idle,
            stale_time,
        } = fpm;
        changes.restart("fpm.listen", *listen != new.fpm.listen);
        changes.restart("fpm.allow", *allow != new.fpm.allow);
        // Routes that were taken under the old map can't be told apart from those that never were.
        changes.restart("fpm.table_map", *table_map != new.fpm.table_map);
        changes.live("fpm.replay_idle", *replay_idle != new.fpm.replay_idle);
        changes.live("fpm.stale_time", *stale_time != new.fpm.stale_time);
        let NorthboundConfig {
            endpoint,
            interval,
            max_routes,
            vrfs,
        } = northbound;
        let polls = &new.northbound;
        changes.live("northbound.endpoint", *endpoint != polls.endpoint);
        changes.live("northbound.interval", *interval != polls.interval);
        changes.live("northbound.max_routes", *max_routes != polls.max_routes);
        changes.live("northbound.vrfs", *vrfs != polls.vrfs);
        let KernelConfig {
            ipv4_via_ipv6,
            nexthop_objects,
            nexthop_compat_mode,
            protocol,
            metric,
            multipath_hash,
            audit,
            on_exit,
        } = kernel;
        changes.live(
            "kernel.ipv4_via_ipv6",
            *ipv4_via_ipv6 != new.kernel.ipv4_via_ipv6,
        );
        changes.live(
            "kernel.nexthop_objects",
            *nexthop_objects != new.kernel.nexthop_objects,
        );
        changes.live(
            "kernel.nexthop_compat_mode",
            *nexthop_compat_mode != new.kernel.nexthop_compat_mode,
        );
        // Both are part of the mark by which our routes are found again.
        changes.restart("kernel.protocol", *protocol != new.kernel.protocol);
        changes.restart("kernel.metric", *metric != new.kernel.metric);
        changes.live(
            "kernel.multipath_hash",
            *multipath_hash != new.kernel.multipath_hash,
        );
        changes.live("kernel.audit", *audit != new.kernel.audit);
        changes.live("kernel.on_exit", *on_exit != new.kernel.on_exit);
        let OffloadConfig {
            mode,
            switches,
            ports,
            ignore,
            capacity,
            layout,
            prio_base,
            hosts,
            bucket_bits,
        } = offload;
        // What runs where is decided once, from the probe; the rest is a plan that can be made anew.
        changes.restart("offload.mode", *mode != new.offload.mode);
        changes.restart("offload.switches", *switches != new.offload.switches);
        changes.live("offload.ports", *ports != new.offload.ports);
        changes.live("offload.ignore", *ignore != new.offload.ignore);
        changes.live("offload.capacity", *capacity != new.offload.capacity);
        changes.restart("offload.layout", *layout != new.offload.layout);
        // Part of the mark by which our rules are found again.
        changes.restart("offload.prio_base", *prio_base != new.offload.prio_base);
        changes.live("offload.hosts", *hosts != new.offload.hosts);
        changes.live(
            "offload.ecmp.buckets",
            *bucket_bits != new.offload.bucket_bits,
        );
        let FeedbackConfig { mode } = feedback;
        // With the mode of the offload that stays until then.
        let fits = new.feedback.fits(offload);
        changes.live("feedback.mode", fits && *mode != new.feedback.mode);
        changes.restart("feedback.mode", !fits && *mode != new.feedback.mode);
        let AdminConfig {
            socket,
            group,
            write_group,
            metrics,
        } = admin;
        changes.restart("admin.socket", *socket != new.admin.socket);
        changes.restart("admin.group", *group != new.admin.group);
        changes.restart("admin.write_group", *write_group != new.admin.write_group);
        changes.restart("admin.metrics", *metrics != new.admin.metrics);
        let LogConfig { filter, format } = log;
        changes.live("log.filter", *filter != new.log.filter);
        changes.restart("log.format", *format != new.log.format);
        changes.live("acl", *acl != new.acl);
        changes
    }

    /// The new configuration with everything that needs a restart left as it was.
    pub fn applied(old: &Config, new: &Config) -> Config {
        let mut config = new.clone();
        config.setup = old.setup;
        config.fpm.listen.clone_from(&old.fpm.listen);
        config.fpm.allow.clone_from(&old.fpm.allow);
        config.fpm.table_map.clone_from(&old.fpm.table_map);
        config.kernel.protocol = old.kernel.protocol;
        config.kernel.metric = old.kernel.metric;
        config.offload.mode = old.offload.mode;
        config.offload.switches.clone_from(&old.offload.switches);
        config.offload.layout = old.offload.layout;
        config.offload.prio_base = old.offload.prio_base;
        if !new.feedback.fits(&old.offload) {
            config.feedback.clone_from(&old.feedback);
        }
        config.admin.clone_from(&old.admin);
        config.log.format = old.log.format;
        config
    }

    fn live(&mut self, key: &'static str, differs: bool) {
        if differs {
            self.live.push(key);
        }
    }

    fn restart(&mut self, key: &'static str, differs: bool) {
        if differs {
            self.restart.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FeedbackMode, LayoutMode, MultipathHash, OffloadMode, SetUp};
    use crate::model::{PortFilter, Prio, Reason};

    #[test]
    fn live_changes_are_applied_and_others_are_said() {
        let old = Config::default();
        let mut new = old.clone();
        assert_eq!(Changes::between(&old, &new), Changes::default());
        new.setup = SetUp::Takeover;
        new.kernel.metric = 12;
        new.admin.metrics.clear();
        new.kernel.multipath_hash = MultipathHash::L4;
        let changes = Changes::between(&old, &new);
        assert_eq!(changes.live, ["kernel.multipath_hash"]);
        assert_eq!(changes.restart, ["setup", "kernel.metric", "admin.metrics"]);
        let applied = Changes::applied(&old, &new);
        assert_eq!(Changes::between(&old, &applied).restart, Vec::<&str>::new());
        assert_eq!(applied.kernel.multipath_hash, MultipathHash::L4);
    }

    #[test]
    fn what_is_planned_changes_live_and_where_it_runs_does_not() {
        let old = Config::default();
        let mut new = old.clone();
        new.offload = OffloadConfig {
            mode: OffloadMode::SkipHw,
            switches: vec!["pci/0000:03:00.0".into()],
            ports: PortFilter::new(["p0"]).unwrap(),
            ignore: vec![Reason::PolicyRule],
            capacity: Some(1000),
            layout: LayoutMode::Chained,
            prio_base: Prio::new(100),
            hosts: false,
            bucket_bits: 3,
        };
        let changes = Changes::between(&old, &new);
        assert_eq!(
            changes.live,
            [
                "offload.ports",
                "offload.ignore",
                "offload.capacity",
                "offload.hosts",
                "offload.ecmp.buckets"
            ]
        );
        assert_eq!(
            changes.restart,
            [
                "offload.mode",
                "offload.switches",
                "offload.layout",
                "offload.prio_base"
            ]
        );
        let applied = Changes::applied(&old, &new);
        assert_eq!(Changes::between(&old, &applied).live, changes.live);
        assert!(Changes::between(&applied, &new).live.is_empty());
        assert_eq!(applied.offload.mode, OffloadMode::Auto);
    }

    #[test]
    fn answers_by_hardware_wait_for_the_restart_that_switches_it_on() {
        let mut old = Config::default();
        old.offload.mode = OffloadMode::Off;
        let mut new = Config::default();
        new.feedback.mode = FeedbackMode::Hardware;
        let changes = Changes::between(&old, &new);
        assert_eq!(changes.restart, ["offload.mode", "feedback.mode"]);
        assert_eq!(Changes::applied(&old, &new), old);
    }
}
