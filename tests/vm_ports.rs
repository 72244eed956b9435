//! What is told of the ports of a switch, on the simulated one: `vm-run -M 'eswitch_sim.ko pfs=2 vfs=4' -- THIS_EXECUTABLE`.
//! Its ports come and go in the machine's own network namespace, so elsewhere it says so and does nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

#[path = "common/netns.rs"]
#[allow(dead_code, reason = "made for namespaces; only commands are run here")]
mod netns;
#[path = "common/ports.rs"]
mod ports;

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use frr_offload::model::{Family, PortRole, Reason, TableId, TcOffloadFeature};
use frr_offload::view::ports::{Port, Switch};
use netns::ip;
use ports::Told;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a test where there is a simulated switch.
fn on_the_switch(test: impl FnOnce()) {
    if !Path::new("/sys/kernel/debug/eswitch-sim/n_rules").exists() {
        eprintln!("SKIPPED: needs the simulated switch");
        return;
    }
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    test();
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap())
        .args(words)
        .status()
        .expect("the command to be installed");
    assert!(status.success(), "{command}");
}

fn set_mode(mode: &str) {
    run(&format!(
        "devlink dev eswitch set platform/eswitch-sim.0 mode {mode}"
    ));
}

fn switch_of(told: &Told, handle: &str) -> Option<Switch> {
    let switches = told.switches().into_iter();
    let mut of_it = switches.filter(|switch| switch.instances.iter().any(|i| &*i.handle == handle));
    let switch = of_it.next();
    assert!(of_it.next().is_none(), "one switch for each instance");
    switch
}

/// The first switch with all its ports.
fn whole(told: &Told) -> Option<Switch> {
    let switch = switch_of(told, "platform/eswitch-sim.0")?;
    let known = |port: &Port| port.tc_offload.is_some() && port.role != PortRole::Other;
    (switch.ports.len() == 5 && switch.ports.iter().all(known)).then_some(switch)
}

const ON: TcOffloadFeature = TcOffloadFeature {
    on: true,
    changeable: true,
};

#[test]
fn switches_are_found_with_their_ports() {
    on_the_switch(|| {
        let mut told = Told::new();
        let first = told.until("the first switch", whole);
        let second = told.until("the second switch", |told| {
            switch_of(told, "platform/eswitch-sim.1").filter(|switch| switch.ports.len() == 5)
        });
        assert!(first.id.is_some() && first.id != second.id);
        assert_eq!(first.instances[0].switchdev, Some(true));
        assert_eq!(first.driver(), Some("eswitch-sim"));
        let uplinks: Vec<_> = first
            .ports
            .iter()
            .filter(|port| port.role == PortRole::Uplink)
            .map(|port| &*port.name)
            .collect();
        assert_eq!(uplinks, ["p0"]);
        assert!(first.ports.iter().all(|port| port.tc_offload == Some(ON)));
        assert!(
            told.port("wire0").is_some_and(|p| p.tc_offload.is_none()),
            "a far end is no port"
        );
    });
}

#[test]
fn ports_come_and_go_with_the_mode() {
    on_the_switch(|| {
        let mut told = Told::new();
        told.until("the switch", whole);
        for _ in 0..3 {
            set_mode("legacy");
            // The monitor tells of the links that go before devlink is read again.
            let switch = told.until("legacy mode", |told| {
                let switch = switch_of(told, "platform/eswitch-sim.0")?;
                (switch.instances[0].switchdev == Some(false)).then_some(switch)
            });
            assert!(switch.id.is_none() && switch.ports.is_empty());
            set_mode("switchdev");
            let switch = told.until("switchdev mode", whole);
            assert_eq!(switch.instances[0].switchdev, Some(true));
        }
    });
}

#[test]
fn hw_tc_offload_is_followed() {
    on_the_switch(|| {
        let mut told = Told::new();
        told.until("the switch", whole);
        for on in [false, true] {
            run(&format!(
                "ethtool -K p0 hw-tc-offload {}",
                if on { "on" } else { "off" }
            ));
            told.until("the feature", |told| {
                (told.port("p0")?.tc_offload? == TcOffloadFeature { on, ..ON }).then_some(())
            });
            told.watch.refresh().unwrap();
        }
        assert!(!told.watch.is_finished());
    });
}

#[test]
fn a_vrf_names_the_table_and_a_bridge_takes_the_port() {
    on_the_switch(|| {
        let mut told = Told::new();
        told.until("the switch", whole);
        ip("link add red type vrf table 1001");
        ip("link set pf0vf0 master red");
        told.until("the VRF's table", |told| {
            (told.port("pf0vf0")?.table == TableId(1001)).then_some(())
        });
        ip("link set pf0vf0 nomaster");
        ip("link add br0 type bridge");
        ip("link set pf0vf0 master br0");
        let port = told.until("the bridge", |told| {
            told.port("pf0vf0").filter(|port| port.master.is_some())
        });
        assert_eq!(port.master.as_deref(), Some("bridge"));
        assert!(port.refusals(Family::V4).contains(&Reason::PortEnslaved));
        ip("link del br0");
        ip("link del red");
        let port = told.until("its release", |told| {
            told.port("pf0vf0").filter(|port| port.master.is_none())
        });
        assert_eq!(port.table, TableId::MAIN);
    });
}
