//! `decode --northbound`: an answer of FRR's northbound gRPC, as lines in the order of the answer or (`--rib`) as one
//! document, sorted. Routes have the VRF, next hops the interface by name, and protocols are FRR's words; the metric is
//! FRR's own, not the one that zebra gives a kernel route. An answer that is damaged shows no route at all: the daemon
//! would not take it either.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::IpAddr;

use serde::Serialize;

use super::{Answer, DecodeOptions, Failure, READ_LEN, is_damage};
use crate::wire::northbound::{
    NorthboundHop, NorthboundRoute, NorthboundTable, Safi, decode_answer, error_text,
};

/// More dropped routes than this are only counted.
const MAX_DROPPED_TOLD: usize = 1000;

/// A route of either form.
#[derive(Debug, Serialize)]
struct RouteLine<'a> {
    table: u32,
    vrf: &'a str,
    prefix: String,
    safi: &'static str,
    protocol: &'a str,
    r#type: &'static str,
    metric: u32,
    distance: u8,
    /// 0 is none to FRR.
    tag: Option<u32>,
    nhid: u32,
    installed: bool,
    nexthops: Vec<HopLine<'a>>,
}

#[derive(Debug, Serialize)]
struct HopLine<'a> {
    via: Option<IpAddr>,
    dev: Option<&'a str>,
    weight: u32,
    onlink: bool,
}

#[derive(Debug, Serialize)]
struct ErrorLine {
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Box<str>>,
    reason: String,
}

/// The document of `--rib`.
#[derive(Debug, Serialize)]
struct RibDocument<'a> {
    routes: Vec<RouteLine<'a>>,
    /// Different next-hop groups of zebra's.
    nexthops: usize,
    unselected: u64,
    placeholders: u64,
    rejected: BTreeMap<&'static str, u64>,
    errors: Vec<ErrorLine>,
    errors_omitted: u64,
}

impl<'a> RouteLine<'a> {
    fn new(table: &'a NorthboundTable, route: &'a NorthboundRoute) -> Self {
        let rib = &table.ribs[route.rib as usize];
        Self {
            table: rib.table.0,
            vrf: &rib.vrf,
            prefix: route.prefix.to_string(),
            safi: rib.safi.name(),
            protocol: &route.protocol,
            r#type: route.kind.name(),
            metric: route.metric,
            distance: route.distance,
            tag: (route.tag != 0).then_some(route.tag),
            nhid: route.nhg,
            installed: route.installed,
            nexthops: route.hops.iter().map(HopLine::from).collect(),
        }
    }
}

impl<'a> From<&'a NorthboundHop> for HopLine<'a> {
    fn from(hop: &'a NorthboundHop) -> Self {
        let NorthboundHop {
            via,
            dev,
            weight,
            onlink,
        } = hop;
        Self {
            via: *via,
            dev: dev.as_deref(),
            weight: *weight,
            onlink: *onlink,
        }
    }
}

impl fmt::Display for HopLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(via) = self.via {
            write!(f, "via {via} ")?;
        }
        if let Some(dev) = self.dev {
            write!(f, "dev {dev} ")?;
        }
        write!(f, "weight {}", self.weight)?;
        if self.onlink {
            f.write_str(" onlink")?;
        }
        Ok(())
    }
}

pub(super) fn decode_northbound(
    input: &mut dyn Read,
    options: &DecodeOptions,
    out: &mut dyn Write,
) -> Result<Answer, Failure> {
    let (table, mut errors) = read_answer(input)?;
    let told = table.dropped.iter().take(MAX_DROPPED_TOLD);
    let damaged = told.filter(|d| is_damage(d.reason));
    errors.extend(damaged.map(|dropped| ErrorLine {
        offset: None,
        prefix: Some(dropped.prefix.clone()),
        reason: dropped.reason.code().into(),
    }));
    let answer = if errors.is_empty() {
        Answer::Fine
    } else {
        Answer::Damaged
    };
    let mut routes: Vec<_> = table.routes.iter().collect();
    if options.rib {
        routes.sort_by_key(|route| {
            let rib = &table.ribs[route.rib as usize];
            (rib.table, route.prefix, &rib.vrf, rib.safi)
        });
    }
    let lines = routes
        .into_iter()
        .map(|route| RouteLine::new(&table, route));
    let mut out = BufWriter::with_capacity(READ_LEN, out);
    let written = match (options.json, options.rib) {
        (true, true) => write_document(lines.collect(), &table, errors, &mut out),
        (true, false) => write_objects(lines, &errors, &mut out),
        (false, _) => write_text(lines, &table, &errors, &mut out),
    };
    written.and_then(|()| out.flush()).map_err(Failure::Write)?;
    Ok(answer)
}

/// The table, or an empty one and the error that the answer has.
fn read_answer(input: &mut dyn Read) -> Result<(NorthboundTable, Vec<ErrorLine>), Failure> {
    let offset = Cell::new(0);
    let counted = Counted {
        input: BufReader::with_capacity(READ_LEN, input),
        offset: &offset,
    };
    let mut json = serde_json::Deserializer::from_reader(counted);
    let decoded = decode_answer(&mut json).and_then(|table| json.end().map(|()| table));
    match decoded {
        Ok(table) => Ok((table, Vec::new())),
        Err(error) if error.is_io() => Err(Failure::Read(error.into())),
        Err(error) => Ok((
            NorthboundTable::default(),
            vec![ErrorLine {
                offset: Some(offset.get()),
                prefix: None,
                reason: match (error.line(), error.column()) {
                    (1, 1) if error.is_syntax() => "this is no JSON: neither XML nor a gRPC message is read, only the text of its `data`".into(),
                    _ => error_text(&error),
                },
            }],
        )),
    }
}

/// Counts what the parser has taken: it asks for one byte at a time, and has looked one ahead at most.
struct Counted<'a, R> {
    input: BufReader<R>,
    offset: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.input.fill_buf()?;
        let len = available.len().min(buffer.len());
        buffer[..len].copy_from_slice(&available[..len]);
        self.input.consume(len);
        self.offset.set(self.offset.get() + len as u64);
        Ok(len)
    }
}

fn write_document(
    routes: Vec<RouteLine<'_>>,
    table: &NorthboundTable,
    errors: Vec<ErrorLine>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut groups: Vec<_> = table.routes.iter().map(|route| route.nhg).collect();
    groups.sort_unstable();
    groups.dedup();
    let document = RibDocument {
        routes,
        nexthops: groups.len(),
        unselected: table.unselected,
        placeholders: table.placeholders,
        rejected: table
            .rejected
            .iter()
            .map(|(reason, count)| (reason.code(), *count))
            .collect(),
        errors_omitted: table.dropped.len().saturating_sub(MAX_DROPPED_TOLD) as u64,
        errors,
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

fn write_objects<'a>(
    lines: impl Iterator<Item = RouteLine<'a>>,
    errors: &[ErrorLine],
    out: &mut impl Write,
) -> io::Result<()> {
    for line in lines {
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    for error in errors {
        serde_json::to_writer(&mut *out, error)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn write_text<'a>(
    lines: impl Iterator<Item = RouteLine<'a>>,
    table: &NorthboundTable,
    errors: &[ErrorLine],
    out: &mut impl Write,
) -> io::Result<()> {
    let texts = table.routes.iter().map(|r| r.prefix.to_string().len());
    let prefixes = texts.max().unwrap_or(0).max(6);
    let vrfs = table.ribs.iter().map(|rib| rib.vrf.len());
    let vrfs = vrfs.max().unwrap_or(0).max(3);
    let header = format!(
        "{:<vrfs$}  {:<5}  {:<prefixes$}  {:<10}  {:<11}  {:>6}  ",
        "VRF", "TABLE", "PREFIX", "PROTOCOL", "TYPE", "METRIC"
    );
    writeln!(out, "{header}NEXT HOPS")?;
    for line in lines {
        let mut hops: Vec<_> = line.nexthops.iter().map(ToString::to_string).collect();
        if line.safi == Safi::Multicast.name() {
            hops.push("(multicast RIB)".into());
        }
        let text = format!(
            "{:<vrfs$}  {:<5}  {:<prefixes$}  {:<10}  {:<11}  {:>6}  {}",
            line.vrf,
            line.table,
            line.prefix,
            line.protocol,
            line.r#type,
            line.metric,
            hops.first().map_or("", String::as_str)
        );
        writeln!(out, "{}", text.trim_end())?;
        for hop in hops.iter().skip(1) {
            writeln!(out, "{:indent$}{hop}", "", indent = header.len())?;
        }
    }
    writeln!(
        out,
        "\n{} routes, {} entries not selected, {} prefixes without entry",
        table.routes.len(),
        table.unselected,
        table.placeholders
    )?;
    for (reason, count) in &table.rejected {
        writeln!(out, "{count:>10} rejected: {}", reason.text())?;
    }
    for error in errors {
        match (error.offset, &error.prefix) {
            (Some(offset), _) => writeln!(out, "error at offset {offset}: {}", error.reason)?,
            (None, Some(prefix)) => writeln!(out, "error at {prefix:?}: {}", error.reason)?,
            (None, None) => writeln!(out, "error: {}", error.reason)?,
        }
    }
    Ok(())
}
