//! Findings about zebra: by its process where that can be seen, by `vtysh` where the caller asked it, by its stream always.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Engine, quoted};
use crate::config::{FeedbackMode, SetUp};
use crate::engine::hearing::Hearing;
use crate::engine::report::{Finding, Pitfall, Severity};
use crate::model::{
    FpmModule, FrrAnswer, FrrSettings, FrrVersion, HostFacts, NextHop, Protocol, RouteKey,
    SourceId, TableId,
};
use crate::rib::PathTarget;

/// The first FRR that sends IPv6 next hops whole without next-hop groups.
const WHOLE_NEXT_HOPS: FrrVersion = FrrVersion {
    major: 10,
    minor: 7,
    patch: 0,
};

const GROUPS_ON: &str =
    "vtysh -c 'configure terminal' -c 'fpm use-next-hop-groups' -c 'end' -c 'write memory'";
/// The new module dials only whom it is told to.
const NEW_MODULE: &str = "sed -i 's/-M *\\(zebra_\\)\\?fpm[:a-z]*/-M dplane_fpm_nl/' /etc/frr/daemons && systemctl restart frr";

impl Engine {
    pub(super) fn zebra_findings(&self, host: &HostFacts, frr: Option<&FrrAnswer>) -> Vec<Finding> {
        let settings = settings(frr);
        let mut findings = Vec::from_iter(self.zebra_missing(frr));
        if frr == Some(&FrrAnswer::Silent) {
            let text = "vtysh gives no answer: a daemon of FRR hangs, or waits";
            let fix = "vtysh -c 'show watchfrr'".to_owned();
            findings.push(Pitfall::FrrSilent.found(text, fix));
        }
        findings.extend(self.zebra_waits());
        findings.extend(self.zebra_table());
        if self.feedback.zebra.is_some_and(|zebra| zebra.netns_vrfs) {
            findings.push(Pitfall::NetnsVrfs.found(
                "zebra takes network namespaces for VRFs (-w): their routes come as if all were of one table",
                "sed -i '/^zebra_options=/s/\\([\" ]\\)\\(-[wn]\\|--vrfwnetns\\)\\b */\\1/' /etc/frr/daemons && systemctl restart frr".to_owned(),
            ));
        }
        findings.extend(self.groups_off(settings));
        findings.extend(self.feedback_loop(host));
        findings.extend(self.suppresses_alone(settings));
        findings
    }

    fn zebra_missing(&self, frr: Option<&FrrAnswer>) -> Option<Finding> {
        let listen = &self.config.fpm.listen;
        let first = listen.first()?;
        if self.session.connection.is_some() {
            return None;
        }
        let dial = dial(*first);
        let at: Vec<_> = listen.iter().map(ToString::to_string).collect();
        let at = at.join(", ");
        let load = "sed -i 's/^zebra_options=\"/&-M dplane_fpm_nl /' /etc/frr/daemons && systemctl restart frr";
        let (why, fix) = match frr {
            Some(FrrAnswer::NotRunning) => {
                ("FRR does not run".to_owned(), Some("systemctl start frr".to_owned()))
            }
            Some(FrrAnswer::Settings(FrrSettings { fpm_module: false, .. })) => (
                "zebra has not loaded dplane_fpm_nl".to_owned(),
                Some(load.to_owned()),
            ),
            Some(FrrAnswer::Settings(FrrSettings { fpm_address: None, .. })) => {
                ("FRR has no `fpm address` in force".to_owned(), Some(dial))
            }
            Some(FrrAnswer::Settings(FrrSettings { fpm_address: Some(address), .. }))
                if !listen.iter().any(|listen| takes(*listen, *address)) =>
            {
                (format!("FRR dials {address}"), Some(dial))
            }
            // zebra dials every three seconds.
            Some(FrrAnswer::Settings(_)) => ("FRR is set to dial it".to_owned(), None),
            Some(FrrAnswer::Silent) | None => (
                "is the module dplane_fpm_nl loaded (zebra_options in /etc/frr/daemons), and is it told where?".to_owned(),
                Some(dial),
            ),
        };
        let text = format!("no zebra is connected to {at}, so routes are not followed: {why}");
        Some(Pitfall::ZebraNotConnected.found(text, fix))
    }

    /// That zebra waits for answers in vain, or may; or that it makes nothing of them.
    fn zebra_waits(&self) -> Option<Finding> {
        let zebra = self.feedback.zebra.as_ref()?;
        let (severity, text) = self.hearing_words()?;
        if severity != Severity::Info {
            let fix = "sed -i 's/--asic-offload=notify_on_offload *//' /etc/frr/daemons && systemctl restart frr";
            // One that takes answers in is given none.
            let heeds = Hearing::of(zebra) == Hearing::Heeded;
            let fix = if heeds && self.config.feedback.mode == FeedbackMode::Off {
                "in /etc/frr-offload/config.toml: feedback.mode = \"forwarding\"; then systemctl reload frr-offload"
            } else {
                fix
            };
            let found = Pitfall::ZebraWaits.found(text, fix.to_owned());
            return Some(found.at(severity));
        }
        let deaf = matches!(Hearing::of(zebra), Hearing::Ignored | Hearing::Dropped);
        deaf.then(|| Pitfall::ZebraIgnores.found(text, None))
    }

    /// The table that zebra writes to, which the set-up decides.
    fn zebra_table(&self) -> Option<Finding> {
        let map = &self.config.fpm.table_map;
        let file = "/etc/frr-offload/config.toml";
        let zebra = self.feedback.zebra.as_ref();
        if let Some(table) = zebra.and_then(|zebra| zebra.table) {
            let moved = table != TableId::MAIN && map.get(&table) != Some(&TableId::MAIN);
            let fix = if table == TableId(5000) {
                "setup = \"takeover\"".to_owned()
            } else {
                format!("setup = \"takeover\", fpm.table_map = {{ {table} = 254 }}")
            };
            return moved.then(|| {
                Pitfall::ZebraTableUnmapped.found(
                    format!(
                        "zebra keeps its routes in table {table} (-R), which no packet is looked up in, and set-up {} does not \
                         take them from there to the main table",
                        self.config.setup.name()
                    ),
                    format!("in {file}: {fix}; then systemctl restart frr-offload"),
                )
            });
        }
        let seen = zebra.is_some() || self.evidence.unmapped > 0;
        let wants = map.iter().find(|(_, to)| **to == TableId::MAIN);
        let (raw, _) = wants.filter(|_| seen && self.config.setup == SetUp::Takeover)?;
        let text = format!(
            "set-up takeover, and zebra runs without -R {raw}: it writes the main table itself, and its routes are not taken"
        );
        let fix = match zebra {
            Some(zebra) if zebra.version.major < 10 => {
                format!(
                    "in {file}: setup = \"beside\" (FRR {} has no -R); then systemctl restart frr-offload",
                    zebra.version
                )
            }
            _ => format!(
                "sed -i 's/^zebra_options=\"/&-R {raw} /' /etc/frr/daemons && systemctl restart frr"
            ),
        };
        Some(Pitfall::ZebraTableMissing.found(text, fix))
    }

    /// Routes that carry their next hops themselves.
    fn groups_off(&self, settings: Option<&FrrSettings>) -> Option<Finding> {
        let zebra = self.feedback.zebra.as_ref();
        if zebra.is_some_and(|zebra| zebra.module == FpmModule::ZebraFpm) {
            return Some(Pitfall::OldFpmModule.found(
                "zebra speaks FPM by its older module, which knows neither next-hop groups nor answers and sends 169.254.0.1 for \
                 every IPv6 next hop",
                self.new_module(),
            ));
        }
        let (mut by_id, mut inline) = (0_u64, 0_u64);
        for (_, path) in self.paths.iter() {
            match path.key.target {
                PathTarget::Id(_) => by_id += u64::from(path.users),
                PathTarget::Group(_) => inline += u64::from(path.users),
                PathTarget::None | PathTarget::Bad(_) => {}
            }
        }
        let told_off = settings.is_some_and(|frr| frr.fpm_module && !frr.nexthop_groups);
        // Northbound has no groups to send.
        let fpm = self.session.connection_of(SourceId::Fpm);
        let synced = fpm.is_some_and(|connection| connection.synced);
        let seen_off = synced && by_id == 0 && inline > 0;
        if !told_off && !seen_off {
            return None;
        }
        let version = zebra.map(|zebra| zebra.version);
        let version = version.or_else(|| settings.and_then(|frr| frr.version));
        let found = |text: String| Pitfall::NexthopGroupsOff.found(text, GROUPS_ON.to_owned());
        let routes = count_inline(inline);
        Some(match version {
            Some(version) if version >= WHOLE_NEXT_HOPS => found(format!(
                "zebra sends routes without next-hop groups{routes}: a lost next hop is an update of every route"
            ))
            .at(Severity::Info),
            version => found(format!(
                "zebra sends routes without next-hop groups{routes}: {} sends 169.254.0.1 for an IPv6 next hop then, which works \
                 only on links with one router",
                version.map_or("FRR before 10.7".to_owned(), |version| format!("FRR {version}"))
            )),
        })
    }

    /// zebra ignores what we write. Another sidecar, or a script, may not know how.
    fn feedback_loop(&self, host: &HostFacts) -> Option<Finding> {
        let echo = |(key, hop): (&RouteKey, &Option<NextHop>)| {
            let looked_up = host.routes.get(&key.prefix);
            let (via, dev, more) = match looked_up.filter(|_| key.table == TableId::MAIN) {
                Some(found)
                    if found.prefix == key.prefix && found.protocol != Protocol::REDIRECT =>
                {
                    let more = format!(" proto {} metric {}", found.protocol.0, found.metric);
                    (found.via?, found.dev?, more)
                }
                Some(_) => return None,
                None => (hop.as_ref()?.via?, hop.as_ref()?.dev?, String::new()),
            };
            let makeshift = matches!(via, IpAddr::V4(via) if via.is_link_local());
            let dev = self.view.name_of(dev);
            makeshift.then(|| {
                let dev = quoted(&dev);
                let fix = format!(
                    "ip route del {} table {} via {via} dev {dev}{more}",
                    key.prefix, key.table
                );
                (key.prefix, fix)
            })
        };
        let mut echoes: Vec<_> = self.evidence.echoes.iter().filter_map(echo).collect();
        echoes.sort_unstable();
        let others = match echoes.len().saturating_sub(1) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let (prefix, fix) = echoes.into_iter().next()?;
        let text = format!(
            "zebra has {prefix}{others} from the kernel as a route of its own (K>* in `show ip route`), with a 169.254 next hop; it \
             beats that of BGP: another sidecar, or a script, writes it with a protocol other than `redirect`"
        );
        Some(Pitfall::FeedbackLoop.found(text, fix))
    }

    /// Of a zebra that takes no answers in that is said already.
    fn suppresses_alone(&self, settings: Option<&FrrSettings>) -> Option<Finding> {
        let zebra = self.feedback.zebra.as_ref()?;
        let alone = settings?.suppress_fib_pending && !zebra.waits;
        (alone && Hearing::of(zebra) == Hearing::Heeded).then(|| {
            let text = "bgp suppress-fib-pending waits only for routes that zebra writes itself, not for those of frr-offload";
            let fix = "sed -i 's/^zebra_options=\"/&--asic-offload=notify_on_offload /' /etc/frr/daemons && systemctl restart frr";
            Pitfall::SuppressAlone.found(text, fix.to_owned())
        })
    }

    fn new_module(&self) -> String {
        let listen = self.config.fpm.listen.first();
        let dial = listen.map(|first| format!(" && sleep 5 && {}", dial(*first)));
        format!("{NEW_MODULE}{}", dial.unwrap_or_default())
    }

    /// What mends it that link-local next hops are lost.
    pub(super) fn next_hops_whole(&self) -> String {
        let zebra = self.feedback.zebra.as_ref();
        match zebra.map(|zebra| zebra.module) {
            Some(FpmModule::ZebraFpm) => self.new_module(),
            Some(FpmModule::DplaneFpmNl) | None => GROUPS_ON.to_owned(),
        }
    }
}

fn settings(frr: Option<&FrrAnswer>) -> Option<&FrrSettings> {
    match frr? {
        FrrAnswer::Settings(settings) => Some(settings),
        FrrAnswer::Silent | FrrAnswer::NotRunning => None,
    }
}

fn count_inline(inline: u64) -> String {
    match inline {
        0 => String::new(),
        n => format!(" ({n} so far)"),
    }
}

/// Where zebra must dial to reach a listener; every address of this host includes its own.
fn reached_by(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn dial(listen: SocketAddr) -> String {
    let at = reached_by(listen);
    format!(
        "vtysh -c 'configure terminal' -c 'fpm address {} port {}' -c 'end' -c 'write memory'",
        at.ip(),
        at.port()
    )
}

fn takes(listen: SocketAddr, dialled: SocketAddr) -> bool {
    listen.port() == dialled.port() && (listen.ip().is_unspecified() || listen.ip() == dialled.ip())
}
