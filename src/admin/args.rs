//! The command line's definition: help, completions and man pages come from it. Lists only what works.
//! Parses words into values, so that a wrong word is a usage error (exit 2) and never reaches the daemon.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::VERSION;
use super::filter;
use super::proto::{ExplainRequest, OffloadRequest, RoutesRequest};
use crate::config::check_filter;
use crate::engine::report::{OffloadState, RuleKind};
use crate::model::{Family, Prefix, PrefixError, Protocol, Reason, SourceId};

/// Exit codes, for the help.
const AFTER_HELP: &str = "\
Exit code: 0 fine, 1 the answer is bad news, 2 wrong usage or configuration, 3 the daemon can't be reached.";

/// FRR's routes into the Linux kernel and into NIC hardware: takes them from zebra over FPM, writes the FIB and tc flower rules.
#[derive(Debug, Parser)]
#[command(name = "frr-offload", version = VERSION, after_help = AFTER_HELP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// Configuration file; config.d/*.toml beside it comes after it [default: /etc/frr-offload/config.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Admin socket of the daemon [default: the configuration's]
    #[arg(long, value_name = "PATH", global = true, env = "FRR_OFFLOAD_SOCKET")]
    #[arg(hide_env_values = true)]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Run,
    /// Validate the configuration: every fault with file and key; exit 2 if any
    Check {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show what the running daemon has
    Show {
        /// Print JSON
        #[arg(long, global = true)]
        json: bool,
        /// What to show.
        #[command(subcommand)]
        what: Show,
    },
    /// Say what becomes of a packet and why, a line a stage; exit 1 if there is no route
    Explain {
        /// The question.
        #[command(flatten)]
        question: ExplainArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Say what about this host keeps routes from where they should be, and what mends it; exit 1 if anything is an error
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what the daemon would write now, as commands of ip and tc; what tc can't type says so
    Plan {
        /// Everything that is wished, whether it is there or not
        #[arg(long)]
        full: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read everything back from the kernel, compare, mend now
    Resync {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Without a daemon: remove everything of ours from the kernel, by our marks
    Flush {
        /// Only print the commands that would do it
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what an FPM byte stream says, without a daemon; exit 1 if it is damaged
    Decode {
        /// The stream, or - for standard input
        file: PathBuf,
        /// The table that the stream leaves, instead of a line a message
        #[arg(long)]
        rib: bool,
        /// The file is an answer of FRR's northbound gRPC: the JSON of a Get of type STATE
        #[arg(long)]
        northbound: bool,
        /// Print JSON: an object a line, with --rib one document
        #[arg(long)]
        json: bool,
    },
    /// Play zebra: send an FPM byte stream to a daemon
    Replay {
        /// What to send.
        #[command(flatten)]
        what: ReplayArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Change the log filter of the running daemon
    Log {
        /// A level, or TARGET=LEVEL with commas between
        #[arg(value_parser = log_filter)]
        filter: String,
    },
    /// Print the completions of a shell, for its folder of completions
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// The folder for them
        folder: PathBuf,
    },
}

/// What to show.
#[derive(Debug, Subcommand)]
pub enum Show {
    /// Sources, counts, memory
    Status,
    /// Routes with their next hops
    #[command(alias = "route")]
    Routes(Box<RoutesArgs>),
    /// What ports have counted and how fast, the CPU's part of it, and rules by kind
    #[command(alias = "counter")]
    Counters {
        /// All that is counted of this link, as `ethtool -S` too
        #[arg(value_name = "PORT")]
        port: Option<String>,
    },
    /// Next-hop groups in use
    #[command(alias = "nexthop")]
    Nexthops,
    /// Neighbours of next hops
    #[command(visible_aliases = ["neigh", "neighbors"], aliases = ["neighbour", "neighbor"])]
    Neighbours,
    /// Rules in hardware, in tc's words
    Offload(OffloadArgs),
    /// Filter rules: where each stands, and what it met
    Acl,
    /// Ports that rules could be written for, and what each admits
    #[command(alias = "port")]
    Ports,
    /// Notable events since the start
    #[command(alias = "event")]
    Events {
        /// Go on with what comes; with --json an object a line
        #[arg(long, short = 'f')]
        follow: bool,
    },
}

/// Filters of `show routes`: everything given must hold.
#[allow(clippy::struct_excessive_bools, reason = "a switch is a bool")]
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RoutesArgs {
    /// Only this prefix
    #[arg(value_name = "PREFIX")]
    prefix: Option<Prefix>,
    /// And everything inside it
    #[arg(long, requires = "prefix")]
    longer: bool,
    /// Only this VRF ("default" for the main table)
    #[arg(long, value_name = "NAME")]
    vrf: Option<String>,
    /// Only this kernel table
    #[arg(long, value_name = "N", conflicts_with = "vrf")]
    table: Option<u32>,
    /// Only this protocol: FRR's name or a number
    #[arg(long, value_name = "NAME", value_parser = filter::protocol)]
    protocol: Option<Protocol>,
    /// Only from this source: fpm or northbound
    #[arg(long, value_name = "NAME", value_parser = filter::source)]
    source: Option<SourceId>,
    /// Only with a next hop on this interface
    #[arg(long, value_name = "NAME")]
    dev: Option<String>,
    /// Only with this gateway, as FRR means it or as the kernel has it
    #[arg(long, value_name = "ADDRESS")]
    via: Option<IpAddr>,
    /// Only in this state in hardware
    #[arg(long, value_name = "STATE",
        value_parser = PossibleValuesParser::new(OffloadState::ALL.map(OffloadState::name)))]
    offload: Option<String>,
    /// Only with this reason for not being as wished
    #[arg(long, value_name = "CODE", value_parser = filter::reason)]
    reason: Option<Reason>,
    /// Only IPv4
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6
    #[arg(short = '6')]
    ipv6: bool,
    /// At most so many
    #[arg(long, value_name = "N", conflicts_with = "summary")]
    limit: Option<u64>,
    /// Counts instead of routes
    #[arg(long)]
    pub summary: bool,
}

impl RoutesArgs {
    /// The request that says the same.
    pub(super) fn request(&self) -> RoutesRequest {
        let Self {
            prefix,
            longer,
            vrf,
            table,
            protocol,
            source,
            dev,
            via,
            offload,
            reason,
            ipv4,
            ipv6,
            limit,
            summary: _,
        } = self.clone();
        let family = match (ipv4, ipv6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            _ => None,
        };
        RoutesRequest {
            prefix: prefix.map(|prefix| prefix.to_string()),
            longer,
            vrf,
            table,
            protocol: protocol.map(|protocol| protocol.0.to_string()),
            source: source.map(|source| source.name().to_owned()),
            dev,
            via: via.map(|via| via.to_string()),
            reason: reason.map(|reason| reason.code().to_owned()),
            family: family.map(|family| family.name().to_owned()),
            offload,
            limit,
        }
    }
}

/// Filters of `show offload`: everything given must hold.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct OffloadArgs {
    /// Only for this prefix
    #[arg(value_name = "PREFIX")]
    prefix: Option<Prefix>,
    /// Only of this VRF's table ("default" for the main table)
    #[arg(long, value_name = "NAME")]
    vrf: Option<String>,
    /// Only of this kernel table
    #[arg(long, value_name = "N", conflicts_with = "vrf")]
    table: Option<u32>,
    /// Only what packets of this interface meet, or what sends packets out of it
    #[arg(long, value_name = "NAME")]
    dev: Option<String>,
    /// Only rules for this
    #[arg(long, value_name = "KIND",
        value_parser = PossibleValuesParser::new(RuleKind::ALL.map(RuleKind::name)))]
    kind: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", conflicts_with = "summary")]
    limit: Option<u64>,
    /// Counts instead of rules
    #[arg(long)]
    pub summary: bool,
}

impl OffloadArgs {
    /// The request that says the same.
    pub(super) fn request(&self) -> OffloadRequest {
        let Self {
            prefix,
            vrf,
            table,
            dev,
            kind,
            limit,
            summary: _,
        } = self.clone();
        OffloadRequest {
            prefix: prefix.map(|prefix| prefix.to_string()),
            vrf,
            table,
            dev,
            kind,
            limit,
        }
    }
}

/// What `explain` is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct ExplainArgs {
    /// An address, or a prefix
    #[arg(value_name = "ADDRESS|PREFIX", value_parser = address_or_prefix)]
    target: String,
    /// In the table of this VRF ("default" for the main table)
    #[arg(long, value_name = "NAME")]
    vrf: Option<String>,
    /// In this kernel table [default: 254]
    #[arg(long, value_name = "N", conflicts_with = "vrf")]
    table: Option<u32>,
}

impl ExplainArgs {
    pub(super) fn request(self) -> ExplainRequest {
        ExplainRequest {
            address: self.target,
            vrf: self.vrf,
            table: self.table,
        }
    }
}

/// What `replay` sends.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    /// The stream
    #[arg(required_unless_present = "generate", conflicts_with = "generate")]
    pub file: Option<PathBuf>,
    /// Instead of a file: an Internet-like IPv4 table of N routes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub generate: Option<u32>,
    /// The same seed generates the same table
    #[arg(long, value_name = "N", default_value_t = 1, requires = "generate")]
    pub seed: u64,
    /// Next-hop groups of the generated table
    #[arg(long, value_name = "N", default_value_t = 300, requires = "generate",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub groups: u32,
    /// A link that generated next hops are on; may be repeated [default: every link that is up]
    #[arg(long, value_name = "LINK", requires = "generate")]
    pub dev: Vec<String>,
    /// The routing table that zebra would name
    #[arg(long, value_name = "N", default_value_t = 254, requires = "generate",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub table: u32,
    /// Where the daemon listens for zebra [default: the configuration's first address]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub to: Option<SocketAddr>,
    /// Frames a second [default: as fast as it goes]
    #[arg(long, value_name = "N")]
    pub rate: Option<NonZeroU32>,
    /// Stay connected afterwards, as zebra does, so that the routes are kept
    #[arg(long)]
    pub hold: bool,
}

/// Checked, and kept as it was written: the answer repeats it.
fn address_or_prefix(word: &str) -> Result<String, PrefixError> {
    word.parse::<Prefix>().map(|_| word.to_owned())
}

fn log_filter(word: &str) -> Result<String, String> {
    match check_filter(word) {
        Ok(_) => Ok(word.to_owned()),
        Err(allowed) => Err(format!("allowed: {allowed}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn routes(words: &str) -> Result<RoutesRequest, clap::Error> {
        let words = words.split_whitespace();
        let args = Args::try_parse_from(["frr-offload", "show"].into_iter().chain(words))?;
        match args.command {
            Command::Show {
                what: Show::Routes(routes),
                ..
            } => Ok(routes.request()),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn filters_become_a_request() {
        let request =
            routes("routes 10.0.0.0/8 --longer --protocol bgp -4 --limit 3 --json").unwrap();
        assert_eq!(request.prefix.as_deref(), Some("10.0.0.0/8"));
        assert_eq!(request.protocol.as_deref(), Some("186"));
        assert_eq!(request.family.as_deref(), Some("ipv4"));
        assert_eq!((request.longer, request.limit), (true, Some(3)));
        assert_eq!(routes("route").unwrap(), RoutesRequest::default());
    }

    #[test]
    fn rule_filters_become_a_request() {
        let words = "frr-offload show offload 10.0.0.0/8 --kind route --dev p0 --json";
        let args = Args::try_parse_from(words.split(' ')).unwrap();
        let Command::Show {
            what: Show::Offload(offload),
            json: true,
        } = args.command
        else {
            unreachable!("{:?}", args.command)
        };
        let expected = OffloadRequest {
            prefix: Some("10.0.0.0/8".to_owned()),
            dev: Some("p0".to_owned()),
            kind: Some("route".to_owned()),
            ..OffloadRequest::default()
        };
        assert_eq!(offload.request(), expected);
    }

    #[test]
    fn wrong_words_are_usage_errors() {
        for words in [
            "routes --longer",
            "routes 10.0.0.1/8",
            "routes --protocol bpg",
            "routes --reason because",
            "routes --offload sometimes",
            "routes -4 -6",
            "routes --vrf red --table 5",
            "routes --via router",
            "offload 10.0.0.1/8",
            "offload --kind rule",
            "offload --vrf red --table 5",
            "offload --summary --limit 1",
            "ports p0",
            "acl no-telnet",
        ] {
            let error = routes(words).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{words}");
        }
    }

    #[test]
    fn aliases_name_the_same() {
        for alias in ["neigh", "neighbors", "neighbor", "neighbour", "neighbours"] {
            let args = Args::try_parse_from(["frr-offload", "show", "--json", alias]).unwrap();
            assert!(matches!(
                args.command,
                Command::Show {
                    json: true,
                    what: Show::Neighbours
                }
            ));
        }
    }
}
