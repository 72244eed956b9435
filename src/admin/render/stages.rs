//! Answers that are no table: `show status`, summaries, and `explain`, a line a stage.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use super::{plural, state_paint};
use crate::admin::proto::{Explanation, OffloadCounts, RouteCount, RouteSummary, Source, Status};
use crate::admin::table::{Align, Cell, Paint, Screen, Table};
use crate::model::Reason;

use Align::{Left, Right};

/// `show routes --summary`.
pub(in crate::admin) fn summary<W: Write>(
    screen: &mut Screen<W>,
    summary: &RouteSummary,
) -> io::Result<()> {
    let mut table = Table::new([
        ("TABLE", Right),
        ("FAMILY", Left),
        ("PROTOCOL", Left),
        ("KERNEL", Left),
        ("ROUTES", Right),
    ]);
    let row = |count: &RouteCount| {
        vec![
            Cell::from(count.table),
            Cell::from(&count.family),
            Cell::from(&count.protocol),
            Cell::painted(&count.kernel, state_paint(&count.kernel)),
            Cell::from(count.routes),
        ]
    };
    let rows: Vec<_> = summary.counts.iter().map(row).collect();
    table.write(screen, &rows)?;
    writeln!(screen.out, "{}", plural(summary.total, "route"))?;
    reasons(screen, "  ", &summary.reasons)
}

/// `show status`.
pub(in crate::admin) fn status<W: Write>(
    screen: &mut Screen<W>,
    status: &Status,
) -> io::Result<()> {
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_s));
    let heading = format!("frr-offload {}", status.version);
    screen.paint(Some(Paint::Heading), &heading)?;
    writeln!(
        screen.out,
        ", set-up {}, up {uptime}, {} MiB",
        status.setup,
        status.rss_bytes.div_ceil(1024 * 1024)
    )?;
    let mut lines = Stages::default();
    for source in &status.sources {
        let paint = match source.state.as_str() {
            "synced" => Paint::Good,
            "down" => Paint::Bad,
            _ => Paint::Waiting,
        };
        lines.add("source", source_text(source), &source.state, Some(paint));
    }
    if let Some(kernel) = &status.kernel {
        let (state, paint) = match (kernel.failed, kernel.pending) {
            (0, 0) => ("in place", Paint::Good),
            (0, _) => ("pending", Paint::Waiting),
            _ => ("failed", Paint::Bad),
        };
        let text = format!(
            "{} wanted, {} installed, {} pending, {} failed; next hops {}",
            kernel.wanted,
            kernel.installed,
            kernel.pending,
            kernel.failed,
            if status.nexthop_objects {
                "as objects"
            } else {
                "inline"
            }
        );
        lines.add("kernel", text, state, Some(paint));
    }
    if let Some(offload) = status
        .offload
        .as_ref()
        .filter(|offload| offload.mode != "off")
    {
        let paint = (offload.refused > 0).then_some(Paint::Waiting);
        lines.add("offload", offload_text(offload), &offload.mode, paint);
    }
    if let Some(told) = status.feedback.as_ref().filter(|told| told.mode != "off") {
        let text = format!(
            "told to zebra: {} forward, {} do not; {} not answered yet",
            told.offloaded, told.failed, told.waiting
        );
        let heard = match (&told.zebra, told.hearing.as_deref()) {
            (Some(zebra), Some("ignored" | "dropped")) => {
                format!("; FRR {zebra} can't take that in")
            }
            _ => String::new(),
        };
        let paint = (told.failed > 0).then_some(Paint::Waiting);
        lines.add("feedback", text + &heard, &told.mode, paint);
    }
    lines.write(screen)?;
    if status.filtered > 0 {
        let taken = plural(status.filtered, "update");
        writeln!(
            screen.out,
            "  {taken} not taken (connected, kernel or our own routes)"
        )?;
    }
    if status.overruns > 0 {
        let overruns = plural(status.overruns, "netlink overrun");
        writeln!(screen.out, "  {overruns}, each followed by a full dump")?;
    }
    if let Some(mended) = &status.mended
        && mended.routes + mended.objects + mended.neighbours + mended.rules > 0
    {
        writeln!(
            screen.out,
            "  mended, because others had deleted or changed them: {}, {}, {}, {}",
            plural(mended.routes, "route"),
            plural(mended.objects, "next-hop object"),
            plural(mended.neighbours, "neighbour"),
            plural(mended.rules, "rule")
        )?;
    }
    if !status.rejected.is_empty() {
        writeln!(screen.out, "  updates dropped:")?;
        reasons(screen, "    ", &status.rejected)?;
    }
    Ok(())
}

fn offload_text(offload: &OffloadCounts) -> String {
    let mut parts = vec![plural(offload.rules, "rule")];
    if let Some(capacity) = offload.capacity {
        parts.push(format!("room for {capacity}"));
    }
    parts.push(format!("{} in hardware", offload.in_hw));
    if offload.refused > 0 {
        parts.push(format!("{} refused", offload.refused));
    }
    if let Some(layout) = &offload.layout {
        parts.push(format!("{layout} layout"));
    }
    parts.join(", ")
}

fn source_text(source: &Source) -> String {
    let mut parts = vec![plural(source.routes, "route")];
    if source.stale > 0 {
        parts.push(format!("{} of them stale", source.stale));
    }
    let piece = if source.name == "northbound" {
        "answer"
    } else {
        "frame"
    };
    for (count, word) in [
        (source.frames, piece),
        (source.skipped, "unknown message"),
        (source.resyncs, "replay"),
    ] {
        if count > 0 {
            parts.push(plural(count, word));
        }
    }
    if let Some(differences) = source.differences {
        parts.push(match differences {
            0 => "as FPM says it".to_owned(),
            n => format!("{n} differ from FPM"),
        });
    }
    let peer = source.peer.as_ref().map(|peer| format!(" from {peer}"));
    let (name, peer) = (&source.name, peer.unwrap_or_default());
    format!("{name}{peer}: {}", parts.join(", "))
}

/// `explain`: the head, a line a stage, the verdict.
pub(in crate::admin) fn explanation<W: Write>(
    screen: &mut Screen<W>,
    explanation: &Explanation,
) -> io::Result<()> {
    let head = match &explanation.prefix {
        Some(prefix) => prefix,
        None => &explanation.address,
    };
    screen.paint(Some(Paint::Heading), head)?;
    write!(screen.out, " table {}", explanation.table)?;
    match &explanation.vrf {
        Some(vrf) => writeln!(screen.out, " ({vrf})")?,
        None => writeln!(screen.out)?,
    }
    let mut lines = Stages::default();
    for step in &explanation.steps {
        lines.add(&step.stage, step.text.clone(), &step.state, None);
    }
    let paint = match explanation.verdict.as_str() {
        "no-route" => Paint::Bad,
        _ => Paint::Good,
    };
    let words = match explanation.verdict.as_str() {
        "hardware" => "forwarded by the NIC",
        "software" if explanation.steps.iter().any(|step| step.state == "local") => {
            "delivered to this host"
        }
        "software" => "forwarded by the kernel",
        "discard" => "dropped on purpose",
        "no-route" => "no route of ours is in place for it",
        // A newer daemon.
        _ => "",
    };
    if let Some(code) = &explanation.reason {
        let text = Reason::from_code(code).map_or("", Reason::text);
        lines.add("reason", text.to_owned(), code, None);
    }
    lines.add(
        "verdict",
        words.to_owned(),
        &explanation.verdict,
        Some(paint),
    );
    lines.write(screen)
}

/// Indented lines of stage, text and, at the right, state.
#[derive(Default)]
struct Stages(Vec<(String, String, String, Option<Paint>)>);

impl Stages {
    fn add(&mut self, stage: &str, text: String, state: &str, paint: Option<Paint>) {
        self.0
            .push((stage.to_owned(), text, state.to_owned(), paint));
    }

    fn write<W: Write>(&self, screen: &mut Screen<W>) -> io::Result<()> {
        let width = |text: &String| text.chars().count();
        let texts = self.0.iter().map(|(_, text, _, _)| width(text)).max();
        let stages = self.0.iter().map(|(stage, ..)| width(stage)).max();
        let (texts, stages) = (texts.unwrap_or(0), stages.unwrap_or(0));
        for (stage, text, state, paint) in &self.0 {
            write!(screen.out, "  {stage:stages$}  {text:texts$}  ")?;
            screen.paint(*paint, state)?;
            writeln!(screen.out)?;
        }
        Ok(())
    }
}

fn reasons<W: Write>(
    screen: &mut Screen<W>,
    indent: &str,
    counts: &BTreeMap<String, u64>,
) -> io::Result<()> {
    let width = counts.keys().map(String::len).max().unwrap_or(0);
    for (code, count) in counts {
        let text = Reason::from_code(code).map_or("", Reason::text);
        writeln!(screen.out, "{indent}{count:>8}  {code:width$}  {text}")?;
    }
    Ok(())
}
