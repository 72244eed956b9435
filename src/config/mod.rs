//! The configuration: TOML texts in, a [`Config`] that cannot be wrong out, or every fault at once.
//!
//! `raw` reads and merges the files and remembers where each key came from; `keys` is the list of all keys of the
//! contract and says which of them this release has; `validate` makes the typed [`Config`]. Pure: the files are read by
//! `daemon::config_file`, which hands in (path, text) pairs. Knows no sockets and no clock.
//! All defaults are in [`Config::default`] and [`FpmConfig::for_setup`], each with its reason.

mod changes;
mod fault;
mod keys;
mod raw;
mod validate;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use changes::Changes;
pub use fault::{Fault, FaultKind, Faults};
pub use keys::keys;
pub use raw::ConfigText;
pub use validate::{check_filter, parse, parse_lenient};

use crate::model::{AclRule, PortFilter, Prefix, Prio, Protocol, Reason, TableId};

/// Where the main file is when nobody says otherwise. `config.d/*.toml` beside it comes after it.
pub const DEFAULT_PATH: &str = "/etc/frr-offload/config.toml";

/// `sizeof(sun_path)` less the closing zero (`unix(7)`).
pub const LONGEST_SOCKET_PATH: usize = 107;

/// An enum whose values are written as words in the configuration.
macro_rules! words {
    ($(#[$doc:meta])+ $name:ident { $($(#[$vdoc:meta])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])+ $variant,)+ }

        impl $name {
            /// Every value with its word.
            pub const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];

            /// The word in the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// `setup`: who writes the kernel's routes.
    SetUp {
        /// zebra runs with `-R 5000`; FPM table 5000 goes to `main` and the FIB is ours.
        Takeover = "takeover",
        /// zebra writes as ever; ours in the same table are preferred by metric.
        Beside = "beside",
        /// zebra owns the FIB; we write no routes and no neighbours.
        Observe = "observe",
    }
}

words! {
    /// `kernel.ipv4_via_ipv6`: how an IPv4 route with an IPv6 next hop is written.
    Ipv4ViaIpv6 {
        /// `169.254.0.x onlink` and a permanent neighbour.
        Ipv4Ll = "ipv4-ll",
        /// The kernel's own form: `RTA_VIA`, or an IPv6 next-hop object.
        Inet6 = "inet6",
    }
}

words! {
    /// `kernel.nexthop_objects`.
    NexthopObjects {
        /// Use them where the kernel has them.
        Auto = "auto",
        /// Write every route with its next hops inline.
        Never = "never",
    }
}

words! {
    /// `kernel.nexthop_compat_mode`: the sysctl `net.ipv4.nexthop_compat_mode`.
    CompatMode {
        /// Leave it as it is.
        Keep = "keep",
        /// Set it to 0: one notification for a next-hop change instead of one a route.
        Zero = "0",
    }
}

words! {
    /// `kernel.multipath_hash`: the sysctls `net.ipv4.fib_multipath_hash_policy` and its IPv6 sister.
    MultipathHash {
        /// Leave them as they are.
        Keep = "keep",
        /// 0: addresses.
        L3 = "l3",
        /// 1: addresses and ports.
        L4 = "l4",
        /// 2: addresses, of the inner packet where there is a tunnel.
        Inner = "inner",
    }
}

impl MultipathHash {
    /// The value of the sysctl, or `None` to leave it.
    pub const fn policy(self) -> Option<u8> {
        match self {
            Self::Keep => None,
            Self::L3 => Some(0),
            Self::L4 => Some(1),
            Self::Inner => Some(2),
        }
    }
}

words! {
    /// `kernel.on_exit`: what becomes of our routes when the daemon ends.
    OnExit {
        /// They stay and keep forwarding.
        Keep = "keep",
        /// They are removed.
        Flush = "flush",
    }
}

words! {
    /// `offload.mode`: where rules run.
    OffloadMode {
        /// `skip_sw` on every switch that passes the probe, else none.
        Auto = "auto",
        /// No rules.
        Off = "off",
        /// In hardware alone.
        SkipSw = "skip_sw",
        /// In software alone, on plain links: for labs.
        SkipHw = "skip_hw",
    }
}

words! {
    /// `offload.layout`.
    LayoutMode {
        /// What the probe finds possible.
        Auto = "auto",
        /// Chains for tables, groups and hops.
        Chained = "chained",
        /// Everything in the rule of the prefix.
        Flat = "flat",
    }
}

words! {
    /// `feedback.mode`: what zebra is told about its routes.
    FeedbackMode {
        /// A route forwards when the kernel or hardware has it.
        Forwarding = "forwarding",
        /// Only hardware counts.
        Hardware = "hardware",
        /// Nothing is told.
        Off = "off",
    }
}

words! {
    /// `log.format`.
    LogFormat {
        /// journald fields under systemd, else text.
        Auto = "auto",
        /// Lines for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// The whole configuration. Made only by [`parse`]; every field has its meaning in the README.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `setup`.
    pub setup: SetUp,
    /// `[fpm]`.
    pub fpm: FpmConfig,
    /// `[northbound]`.
    pub northbound: NorthboundConfig,
    /// `[kernel]`.
    pub kernel: KernelConfig,
    /// `[offload]`.
    pub offload: OffloadConfig,
    /// `[feedback]`.
    pub feedback: FeedbackConfig,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[[acl]]`, in order.
    pub acl: Vec<AclRule>,
}

/// `[fpm]`: what zebra connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FpmConfig {
    /// Where to listen; never empty.
    pub listen: Vec<SocketAddr>,
    /// Who may connect from elsewhere; not empty when one of `listen` is not loopback.
    pub allow: Vec<Prefix>,
    /// FPM's raw table to the kernel table that we write.
    pub table_map: BTreeMap<TableId, TableId>,
    /// The replay is over when nothing came for so long.
    pub replay_idle: Duration,
    /// How long routes are kept that a lost or restarted zebra has not repeated.
    pub stale_time: Duration,
}

/// `[northbound]`: which zebra is polled over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NorthboundConfig {
    /// Its URL; `None` asks nobody.
    pub endpoint: Option<Box<str>>,
    /// From one round to the next, at least.
    pub interval: Duration,
    /// A table with more routes is not taken.
    pub max_routes: u32,
    /// VRFs by name; never empty.
    pub vrfs: Vec<Box<str>>,
}

/// `[kernel]`: how routes are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelConfig {
    /// `ipv4_via_ipv6`.
    pub ipv4_via_ipv6: Ipv4ViaIpv6,
    /// `nexthop_objects`.
    pub nexthop_objects: NexthopObjects,
    /// `nexthop_compat_mode`.
    pub nexthop_compat_mode: CompatMode,
    /// The mark of our routes; always [`Protocol::REDIRECT`].
    pub protocol: Protocol,
    /// `RTA_PRIORITY` of our routes; below zebra's 20.
    pub metric: u32,
    /// `multipath_hash`.
    pub multipath_hash: MultipathHash,
    /// How often the kernel is dumped and compared.
    pub audit: Duration,
    /// `on_exit`.
    pub on_exit: OnExit,
}

/// `[offload]`: what goes to hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffloadConfig {
    /// `mode`.
    pub mode: OffloadMode,
    /// `switches`: `phys_switch_id`s in hexadecimal or devlink handles; empty means all (`auto`).
    pub switches: Vec<Box<str>>,
    /// `ports`.
    pub ports: PortFilter,
    /// `ignore`: what is no reason to keep packets of a port out of hardware.
    pub ignore: Vec<Reason>,
    /// `capacity`: rules of a switch; `None`: learned from the driver's refusals.
    pub capacity: Option<usize>,
    /// `layout`.
    pub layout: LayoutMode,
    /// `prio_base`: the first priority of ours in chain 0; `None`: the lowest that is free.
    pub prio_base: Option<Prio>,
    /// `hosts`: neighbours of connected subnets as host routes.
    pub hosts: bool,
    /// `ecmp.buckets`: the most buckets of a group, as a power of two.
    pub bucket_bits: u8,
}

/// `[feedback]`: what zebra is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedbackConfig {
    /// `mode`.
    pub mode: FeedbackMode,
}

impl FeedbackConfig {
    /// Whether anything can count as offloaded.
    pub const fn fits(&self, offload: &OffloadConfig) -> bool {
        let in_hardware = matches!(offload.mode, OffloadMode::Auto | OffloadMode::SkipSw);
        in_hardware || !matches!(self.mode, FeedbackMode::Hardware)
    }
}

/// `[admin]`: how the command line and those who watch find the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The unix socket; absolute, and short enough for `sun_path`.
    pub socket: PathBuf,
    /// The group of the socket, which may look; empty: the daemon's own.
    pub group: String,
    /// The group that may change things, too; empty: none.
    pub write_group: String,
    /// Where metrics can be scraped; empty: nowhere.
    pub metrics: Vec<SocketAddr>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A filter that `tracing_subscriber::EnvFilter` takes.
    pub filter: String,
    /// `format`.
    pub format: LogFormat,
}

impl Default for Config {
    /// What an empty file means.
    fn default() -> Self {
        // `beside` changes nothing about zebra and works with every FRR.
        let setup = SetUp::Beside;
        Self {
            setup,
            fpm: FpmConfig::for_setup(setup),
            northbound: NorthboundConfig::default(),
            kernel: KernelConfig::default(),
            offload: OffloadConfig::default(),
            feedback: FeedbackConfig {
                // Costs nothing where zebra doesn't listen.
                mode: FeedbackMode::Forwarding,
            },
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            acl: Vec::new(),
        }
    }
}

impl FpmConfig {
    /// The defaults, of which `table_map` depends on the set-up.
    pub fn for_setup(setup: SetUp) -> Self {
        let table_map = match setup {
            // `zebra -R 5000` moves the default VRF there; what it means is `main`.
            SetUp::Takeover => BTreeMap::from([(TableId(5000), TableId::MAIN)]),
            SetUp::Beside | SetUp::Observe => BTreeMap::new(),
        };
        Self {
            // zebra's own default for `fpm address`.
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 2620))],
            allow: Vec::new(),
            table_map,
            // Above the 1 s pause that zebra makes when its buffer is full.
            replay_idle: Duration::from_secs(2),
            // BGP takes tens of seconds to come back; RFC 4724 speaks of 180 s.
            stale_time: Duration::from_secs(180),
        }
    }
}

impl Default for NorthboundConfig {
    fn default() -> Self {
        Self {
            // FPM is better in all but what needs no FPM module.
            endpoint: None,
            interval: Duration::from_secs(30),
            // zebra stands still for a second for so many.
            max_routes: 10_000,
            vrfs: vec!["default".into()],
        }
    }
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            ipv4_via_ipv6: Ipv4ViaIpv6::Ipv4Ll,
            nexthop_objects: NexthopObjects::Auto,
            nexthop_compat_mode: CompatMode::Keep,
            protocol: Protocol::REDIRECT,
            // Preferred to zebra's 20, behind the kernel's own 0 of connected routes.
            metric: 10,
            multipath_hash: MultipathHash::Keep,
            audit: Duration::from_secs(60),
            // Forwarding outlives the daemon: an upgrade loses no packet.
            on_exit: OnExit::Keep,
        }
    }
}

impl Default for OffloadConfig {
    fn default() -> Self {
        Self {
            // Only where hardware is found that does what it says.
            mode: OffloadMode::Auto,
            switches: Vec::new(),
            ports: PortFilter::default(),
            ignore: Vec::new(),
            capacity: None,
            layout: LayoutMode::Auto,
            prio_base: None,
            hosts: true,
            bucket_bits: 8,
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/frr-offload/admin.sock"),
            group: String::new(),
            // Root and the daemon's own user.
            write_group: String::new(),
            // Who is on the host may look; nothing secret is told, and nobody is asked who he is.
            metrics: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9620))],
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}
