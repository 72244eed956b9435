//! Every metric: its name, its unit, its help, and where its value comes from. `docs/prometheus` and `docs/grafana` use
//! these names.
//!
//! Labels are words of enums, ports and switches, the source: never a prefix. All words of an enum are there from the
//! beginning, so that a rule never compares with a series that does not exist yet; only what has a great many of them
//! (errors, what is dropped) appears when it occurs.

use std::fmt;

use nix::errno::Errno as OsErrno;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Unit;

use super::exposition::Page;
use super::process::Process;
use super::pulse::Pulse;
use super::scraper::{Census, Scrape, Told};
use crate::admin::VERSION;
use crate::engine::report::{
    FeedbackCounts, KernelState, MeasuresReport, Mended, OffloadCounts, OffloadState,
    PortCountersReport, SourceReport, SourceState, StatusReport,
};
use crate::model::{Errno, Reason, WayCounters};

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self {
            told,
            pulse,
            process,
        } = self;
        let Told {
            status,
            census,
            measures,
            not_ready,
            ports,
        } = &**told;
        let page = &mut Page(encoder);
        let info = Info::new(vec![("version", VERSION)]);
        page.one(("frr_offload_build", None, "The version that runs."), &info)?;
        page.count(
            (
                "frr_offload_ready",
                None,
                "1 if zebra's routes are known, none of them is held as stale, and writes are answered; what /readyz says.",
            ),
            u64::from(not_ready.is_empty()),
        )?;
        // Without routes that were counted there is nothing to say about sources.
        if let Some(status) = status {
            of_sources(page, status)?;
            of_feedback(page, status)?;
        }
        if let Some(census) = census {
            of_routes(page, census)?;
        }
        of_writes(page, measures)?;
        of_switches(page, measures)?;
        of_ports(page, ports)?;
        of_pulse(page, pulse)?;
        of_process(page, process)
    }
}

fn of_sources(page: &mut Page<'_>, status: &StatusReport) -> fmt::Result {
    let StatusReport {
        setup: _,
        now: _,
        sources,
        kernel: _,
        offload: _,
        feedback: _,
        rejected,
        filtered,
        nexthop_objects,
        overruns,
        mended,
    } = status;
    let states = sources.iter().flat_map(|source| {
        SourceState::ALL.map(|state| {
            let labels = vec![("source", source.name), ("state", state.name())];
            (labels, u64::from(source.state == state))
        })
    });
    page.gauges(
        (
            "frr_offload_source_state",
            None,
            "1 for the state that the source is in, 0 for the others.",
        ),
        states,
    )?;
    let of_each = |value: fn(&SourceReport) -> u64| {
        let each = sources.iter();
        each.map(move |source| (vec![("source", source.name)], value(source)))
    };
    page.gauges(
        (
            "frr_offload_source_routes",
            None,
            "Routes held from the source.",
        ),
        of_each(|source| source.routes),
    )?;
    page.gauges(
        (
            "frr_offload_source_stale_routes",
            None,
            "Routes that the source has not repeated since it came back.",
        ),
        of_each(|source| source.stale),
    )?;
    page.counters(
        (
            "frr_offload_source_frames",
            None,
            "Frames that the source has sent.",
        ),
        of_each(|source| source.frames),
    )?;
    page.counters(
        (
            "frr_offload_source_skipped_messages",
            None,
            "Messages of the source that were skipped because their type is not known.",
        ),
        of_each(|source| source.skipped),
    )?;
    page.counters(
        (
            "frr_offload_source_resyncs",
            None,
            "Complete replays of the source.",
        ),
        of_each(|source| source.resyncs),
    )?;
    let by_reason = |(reason, count): &(Reason, u64)| (vec![("reason", reason.code())], *count);
    page.counters(
        (
            "frr_offload_updates_rejected",
            None,
            "Updates that were dropped because something is wrong with them, by what; only what has occurred.",
        ),
        rejected.iter().map(by_reason),
    )?;
    page.counter(
        (
            "frr_offload_updates_filtered",
            None,
            "Updates that were not taken because they are not to be: connected, kernel and our own routes.",
        ),
        *filtered,
    )?;
    page.count(
        (
            "frr_offload_nexthop_objects",
            None,
            "1 if next hops are written as objects of the kernel, 0 if within each route.",
        ),
        u64::from(*nexthop_objects),
    )?;
    page.counter(
        (
            "frr_offload_netlink_overruns",
            None,
            "How often the kernel dropped notifications for want of room; everything was read anew.",
        ),
        *overruns,
    )?;
    let Mended {
        routes,
        objects,
        neighbours,
        rules,
    } = *mended;
    let mended = [
        ("route", routes),
        ("nexthop", objects),
        ("neighbour", neighbours),
        ("rule", rules),
    ];
    page.counters(
        (
            "frr_offload_mended",
            None,
            "What others had deleted or changed and was put right.",
        ),
        mended.map(|(kind, count)| (vec![("kind", kind)], count)),
    )
}

fn of_feedback(page: &mut Page<'_>, status: &StatusReport) -> fmt::Result {
    let FeedbackCounts {
        mode: _,
        offloaded: _,
        failed: _,
        waiting,
        sent,
        failed_sent,
        zebra: _,
        hearing: _,
    } = status.feedback;
    page.counters(
        (
            "frr_offload_feedback_replies",
            None,
            "Replies to zebra about its routes: that they forward, or that they can't.",
        ),
        [("offloaded", sent), ("failed", failed_sent)]
            .map(|(told, count)| (vec![("told", told)], count)),
    )?;
    page.count(
        (
            "frr_offload_feedback_waiting_routes",
            None,
            "Routes whose last announcement was not answered yet.",
        ),
        waiting,
    )
}

fn of_routes(page: &mut Page<'_>, census: &Census) -> fmt::Result {
    let Census {
        routes,
        took,
        ended,
    } = census;
    page.gauges(
        (
            "frr_offload_kernel_routes",
            None,
            "Routes by how they stand in the kernel.",
        ),
        KernelState::ALL.map(|state| (vec![("state", state.name())], routes.kernel(state))),
    )?;
    page.gauges(
        (
            "frr_offload_hardware_routes",
            None,
            "Routes by how they stand in hardware.",
        ),
        OffloadState::ALL.map(|state| (vec![("state", state.name())], routes.offload(state))),
    )?;
    let reasons = Reason::ALL.iter();
    page.gauges(
        (
            "frr_offload_route_reasons",
            None,
            "Routes that are not as wished, by the reason that `show routes` tells.",
        ),
        reasons.map(|&reason| (vec![("reason", reason.code())], routes.reason(reason))),
    )?;
    page.count(
        (
            "frr_offload_leftover_routes",
            None,
            "Routes that an earlier run left in the kernel and that no source has repeated yet.",
        ),
        routes.leftover,
    )?;
    page.gauge(
        (
            "frr_offload_census_age",
            Some(Unit::Seconds),
            "How long ago routes were counted by state and reason. Large tables are not counted with each scrape.",
        ),
        ended.elapsed().as_secs_f64(),
    )?;
    page.gauge(
        (
            "frr_offload_census_duration",
            Some(Unit::Seconds),
            "How much of the engine's time that took, in slices.",
        ),
        took.as_secs_f64(),
    )
}

fn of_writes(page: &mut Page<'_>, measures: &MeasuresReport) -> fmt::Result {
    let MeasuresReport {
        writes,
        refusals,
        in_flight,
        dirty,
        gated,
        switches: _,
        acl: _,
        not_ready: _,
        holding: _,
    } = measures;
    page.counters(
        (
            "frr_offload_kernel_writes",
            None,
            "Writes that the kernel has answered, refusals included, by what was written.",
        ),
        writes
            .iter()
            .map(|(kind, count)| (vec![("kind", kind.name())], *count)),
    )?;
    let errors: Vec<_> = refusals
        .iter()
        .map(|(kind, errno, count)| (kind.name(), errno_name(*errno), *count))
        .collect();
    page.counters(
        (
            "frr_offload_kernel_write_errors",
            None,
            "Writes that the kernel refused, by error; only what has occurred. What was to be deleted and is not there is refused too.",
        ),
        errors
            .iter()
            .map(|(kind, errno, count)| (vec![("kind", *kind), ("errno", errno)], *count)),
    )?;
    page.count(
        (
            "frr_offload_kernel_writes_in_flight",
            None,
            "Writes that were not answered yet.",
        ),
        *in_flight,
    )?;
    page.count(
        (
            "frr_offload_dirty_routes",
            None,
            "Routes that are to be looked at.",
        ),
        *dirty,
    )?;
    page.count(
        (
            "frr_offload_gated_routes",
            None,
            "Routes that wait for a neighbour or a next-hop object to be written.",
        ),
        *gated,
    )
}

/// `EEXIST`: there are as many as the system has.
fn errno_name(errno: Errno) -> String {
    format!("{:?}", OsErrno::from_raw(errno.0))
}

fn of_switches(page: &mut Page<'_>, measures: &MeasuresReport) -> fmt::Result {
    let names: Vec<(String, OffloadCounts)> = measures
        .switches
        .iter()
        .map(|(id, counts)| {
            let name = id
                .as_ref()
                .map_or_else(|| "none".to_owned(), ToString::to_string);
            (name, *counts)
        })
        .collect();
    let of_each = |value: fn(&OffloadCounts) -> Option<u64>| {
        let each = names.iter();
        each.filter_map(move |(name, counts)| {
            Some((vec![("switch", name.as_str())], value(counts)?))
        })
    };
    page.gauges(
        (
            "frr_offload_switch_rules",
            None,
            "Rules of ours that are there, by switch.",
        ),
        of_each(|counts| Some(counts.rules)),
    )?;
    page.gauges(
        (
            "frr_offload_switch_capacity_rules",
            None,
            "How many rules of ours there may be, as far as that is known.",
        ),
        of_each(|counts| counts.capacity),
    )?;
    page.gauges(
        (
            "frr_offload_switch_in_hardware_rules",
            None,
            "Rules of ours that the driver says are in hardware, everywhere they should be.",
        ),
        of_each(|counts| Some(counts.in_hw)),
    )?;
    page.gauges(
        (
            "frr_offload_switch_refused_rules",
            None,
            "Rules that are wanted and that the driver has refused.",
        ),
        of_each(|counts| Some(counts.refused)),
    )?;
    let acl = measures.acl.iter();
    page.gauges(
        (
            "frr_offload_acl_rules",
            None,
            "Filter rules by how they stand where they stand worst.",
        ),
        acl.map(|(state, count)| (vec![("state", state.name())], *count)),
    )
}

fn of_ports(page: &mut Page<'_>, ports: &[PortCountersReport]) -> fmt::Result {
    let ways = |value: fn(&WayCounters) -> u64, cpu: bool| {
        ports.iter().flat_map(move |port| {
            let read = if cpu {
                port.reading.cpu
            } else {
                Some(port.reading.all)
            };
            read.into_iter().flat_map(move |read| {
                [("receive", read.rx()), ("transmit", read.tx())].map(|(direction, way)| {
                    let labels = vec![("port", &*port.name), ("direction", direction)];
                    (labels, value(&way))
                })
            })
        })
    };
    let bytes = || Some(Unit::Bytes);
    page.counters(
        (
            "frr_offload_port",
            bytes(),
            "Bytes that the port carried, whoever forwarded them.",
        ),
        ways(|way| way.bytes, false),
    )?;
    page.counters(
        (
            "frr_offload_port_packets",
            None,
            "Packets that the port carried, whoever forwarded them.",
        ),
        ways(|way| way.packets, false),
    )?;
    page.counters(
        (
            "frr_offload_port_errors",
            None,
            "Packets that were damaged or could not be sent.",
        ),
        ways(|way| way.errors, false),
    )?;
    page.counters(
        (
            "frr_offload_port_dropped",
            None,
            "Packets for which there was no room or no use.",
        ),
        ways(|way| way.dropped, false),
    )?;
    page.counters(
        (
            "frr_offload_port_cpu",
            bytes(),
            "Bytes of the port that the CPU saw, where the driver tells them apart.",
        ),
        ways(|way| way.bytes, true),
    )?;
    page.counters(
        (
            "frr_offload_port_cpu_packets",
            None,
            "Packets of the port that the CPU saw, where the driver tells them apart.",
        ),
        ways(|way| way.packets, true),
    )
}

fn of_pulse(page: &mut Page<'_>, pulse: &Pulse) -> fmt::Result {
    let Pulse {
        turn,
        frame_to_kernel,
        frame_to_rule,
        events,
        writes,
        rules,
    } = pulse;
    let seconds = || Some(Unit::Seconds);
    page.one(
        (
            "frr_offload_frame_to_kernel",
            seconds(),
            "From a frame's read to the kernel's acknowledgement of its route. One route is measured at a time.",
        ),
        frame_to_kernel,
    )?;
    page.one(
        (
            "frr_offload_frame_to_rule",
            seconds(),
            "From a frame's read to the rule of its route read back. One route is measured at a time.",
        ),
        frame_to_rule,
    )?;
    page.one(
        (
            "frr_offload_turn",
            seconds(),
            "How long the engine's turns took, waiting left out.",
        ),
        turn,
    )?;
    let queues = [("events", events), ("writes", writes), ("rules", rules)];
    page.gauges(
        (
            "frr_offload_queue_length",
            None,
            "What waits for the engine (events) and for the writers (batches of writes and rules).",
        ),
        queues.map(|(name, queue)| (vec![("queue", name)], queue.waiting() as u64)),
    )?;
    page.gauges(
        (
            "frr_offload_queue_capacity",
            None,
            "How much may wait there.",
        ),
        queues.map(|(name, queue)| (vec![("queue", name)], queue.capacity() as u64)),
    )
}

fn of_process(page: &mut Page<'_>, process: &Process) -> fmt::Result {
    let Process {
        cpu_seconds,
        resident_bytes,
        virtual_bytes,
        threads,
        open_fds,
        max_fds,
        start_seconds,
    } = *process;
    if let Some(seconds) = cpu_seconds {
        let about = (
            "process_cpu",
            Some(Unit::Seconds),
            "Processor time that the process took.",
        );
        page.one(about, &ConstCounter::new(seconds))?;
    }
    page.known(
        (
            "process_resident_memory",
            Some(Unit::Bytes),
            "Memory of the process that is in RAM.",
        ),
        resident_bytes,
    )?;
    page.known(
        (
            "process_virtual_memory",
            Some(Unit::Bytes),
            "Address space of the process.",
        ),
        virtual_bytes,
    )?;
    page.known(
        ("process_threads", None, "Threads of the process."),
        threads,
    )?;
    page.known(
        ("process_open_fds", None, "Open files and sockets."),
        open_fds,
    )?;
    page.known(("process_max_fds", None, "How many there may be."), max_fds)?;
    if let Some(seconds) = start_seconds {
        let about = (
            "process_start_time",
            Some(Unit::Seconds),
            "When the process started, since 1970.",
        );
        page.gauge(about, seconds)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_of_the_system() {
        assert_eq!(errno_name(Errno(17)), "EEXIST");
        assert_eq!(errno_name(Errno(4095)), "UnknownErrno");
    }
}
