//! `check`: what a configuration comes to, or every fault in it, as text or as JSON. Asks no daemon and reads no file: the caller has
//! read and judged the configuration.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::{CommandError, Exit, document, stdout};
use crate::admin::render;
use crate::config::{AdminConfig, Config, Fault, OffloadConfig};
use crate::model::AclRule;

/// The answer of `check` in JSON.
#[derive(Debug, Serialize)]
struct CheckReport {
    ok: bool,
    files: Vec<String>,
    faults: Vec<FaultReport>,
}

#[derive(Debug, Serialize)]
struct FaultReport {
    file: String,
    line: Option<usize>,
    key: Option<String>,
    fault: String,
    allowed: Option<String>,
}

impl From<&Fault> for FaultReport {
    fn from(fault: &Fault) -> Self {
        let Fault {
            file,
            line,
            key,
            kind,
        } = fault;
        Self {
            file: file.display().to_string(),
            line: *line,
            key: key.clone(),
            fault: kind.to_string(),
            allowed: kind.allowed().map(str::to_owned),
        }
    }
}

/// `check`: what was read, from where, and every fault.
pub fn check(
    config: &Config,
    files: &[&Path],
    faults: &[Fault],
    json: bool,
) -> Result<Exit, CommandError> {
    let mut screen = stdout();
    let files: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    if json {
        let faults: Vec<FaultReport> = faults.iter().map(FaultReport::from).collect();
        let ok = faults.is_empty();
        document(&mut screen, &CheckReport { ok, files, faults })?;
    } else if faults.is_empty() {
        let from = if files.is_empty() {
            "no file, all defaults".to_owned()
        } else {
            files.join(", ")
        };
        writeln!(screen.out, "ok: {from}")?;
        summarise(&mut screen.out, config)?;
    } else {
        report_faults(faults)?;
    }
    screen.out.flush()?;
    Ok(if faults.is_empty() {
        Exit::Fine
    } else {
        Exit::Usage
    })
}

/// Every fault on standard error, a line each.
pub fn report_faults(faults: &[Fault]) -> io::Result<()> {
    let mut err = io::stderr().lock();
    for fault in faults {
        writeln!(err, "{fault}")?;
    }
    let count = render::plural(faults.len() as u64, "fault");
    writeln!(err, "{count} in the configuration")
}

fn summarise(out: &mut impl Write, config: &Config) -> io::Result<()> {
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
    } = config;
    let listen: Vec<String> = fpm.listen.iter().map(ToString::to_string).collect();
    let mut tables: Vec<String> = fpm
        .table_map
        .iter()
        .map(|(from, to)| format!("table {from} is written to {to}"))
        .collect();
    if tables.is_empty() {
        tables.push("tables are written as zebra names them".to_owned());
    }
    writeln!(out, "  setup    {}", setup.name())?;
    writeln!(
        out,
        "  fpm      {}; {}",
        listen.join(", "),
        tables.join(", ")
    )?;
    writeln!(
        out,
        "           replay over after {:?} of silence, stale routes kept {:?}",
        fpm.replay_idle, fpm.stale_time
    )?;
    if let Some(endpoint) = &northbound.endpoint {
        writeln!(
            out,
            "  northbound {endpoint} every {:?} at most, VRFs {}, not more than {} routes",
            northbound.interval,
            northbound.vrfs.join(", "),
            northbound.max_routes
        )?;
    }
    writeln!(
        out,
        "  kernel   metric {}, IPv4 via IPv6 as {}, next-hop objects {}",
        kernel.metric,
        kernel.ipv4_via_ipv6.name(),
        kernel.nexthop_objects.name()
    )?;
    writeln!(
        out,
        "           multipath hash {}, nexthop_compat_mode {}, audit every {:?}, at the end {}",
        kernel.multipath_hash.name(),
        kernel.nexthop_compat_mode.name(),
        kernel.audit,
        kernel.on_exit.name()
    )?;
    summarise_offload(out, offload)?;
    writeln!(out, "  feedback {}", feedback.mode.name())?;
    let AdminConfig {
        socket,
        group,
        write_group,
        metrics,
    } = admin;
    let metrics: Vec<String> = metrics.iter().map(ToString::to_string).collect();
    let metrics = Some(metrics.join(", ")).filter(|metrics| !metrics.is_empty());
    writeln!(
        out,
        "  admin    {}; metrics {}",
        socket.display(),
        metrics.as_deref().unwrap_or("off")
    )?;
    if !(group.is_empty() && write_group.is_empty()) {
        let or = |none, group: &str| if group.is_empty() { none } else { group }.to_owned();
        writeln!(
            out,
            "           the group {} may look, {} may change things",
            or("of the daemon", group),
            or("none", write_group)
        )?;
    }
    writeln!(out, "  log      {}", log.filter)?;
    for (n, rule) in acl.iter().enumerate() {
        let head = if n == 0 { "acl" } else { "" };
        let AclRule { name, place, terms } = rule;
        writeln!(out, "  {head:<8} {name}: {terms}, in {}", place.name())?;
    }
    Ok(())
}

fn summarise_offload(out: &mut impl Write, offload: &OffloadConfig) -> io::Result<()> {
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
    let or_auto = |value: Option<String>| value.unwrap_or_else(|| "auto".to_owned());
    let switches = Some(switches.join(", ")).filter(|switches| !switches.is_empty());
    writeln!(
        out,
        "  offload  {}, switches {}, ports {ports}",
        mode.name(),
        or_auto(switches)
    )?;
    if !ignore.is_empty() {
        let codes: Vec<_> = ignore.iter().map(|reason| reason.code()).collect();
        writeln!(out, "           ignored: {}", codes.join(", "))?;
    }
    writeln!(
        out,
        "           layout {}, capacity {}, first priority {}, hosts {}, ECMP in up to {}",
        layout.name(),
        or_auto(capacity.map(|rules| rules.to_string())),
        or_auto(prio_base.map(|prio| prio.to_string())),
        if *hosts { "yes" } else { "no" },
        render::plural(1 << bucket_bits, "bucket")
    )
}
