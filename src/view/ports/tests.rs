use super::*;
use crate::model::{KernelEvent, VlanLink};

fn dev(index: u32) -> IfIndex {
    IfIndex::new(index).unwrap()
}

fn link(index: u32, name: &str, switch: Option<u8>) -> Link {
    Link {
        index: dev(index),
        name: name.into(),
        admin_up: true,
        carrier: true,
        one_neighbour: false,
        mac: Some(MacAddr([2, 0, 0, 0, 0, index as u8])),
        mtu: 1500,
        master: None,
        vrf_table: None,
        kind: None,
        vlan: None,
        switch: switch.map(|id| SwitchId([id].into())),
        port_name: None,
    }
}

fn view(links: Vec<Link>) -> KernelView {
    let mut view = KernelView::default();
    view.apply(&KernelEvent::Links(links), &mut Vec::new());
    view
}

fn instance(handle: &str, switchdev: Option<bool>) -> DevlinkInstance {
    DevlinkInstance {
        handle: handle.into(),
        driver: Some("sim".into()),
        switchdev,
    }
}

fn devlink_port(index: u32, handle: &str, role: PortRole) -> DevlinkPort {
    DevlinkPort {
        dev: dev(index),
        handle: handle.into(),
        role,
    }
}

fn conf(family: Family, forwarding: bool, rp_filter: Option<u8>) -> LinkConf {
    LinkConf {
        family,
        forwarding: Some(forwarding),
        rp_filter,
    }
}

fn feature(on: bool, changeable: bool) -> TcOffloadFeature {
    TcOffloadFeature { on, changeable }
}

/// Two links of switch 1 that forward both families.
fn ready() -> (Ports, Vec<Link>) {
    let mut ports = Ports::default();
    assert!(ports.apply(&OffloadEvent::Devlink {
        instances: vec![instance("pci/1", Some(true))],
        ports: vec![
            devlink_port(2, "pci/1", PortRole::Uplink),
            devlink_port(3, "pci/1", PortRole::Representor),
        ],
    }));
    for index in [2, 3] {
        ports.apply(&OffloadEvent::Feature(dev(index), feature(true, true)));
        ports.apply(&OffloadEvent::Conf(
            dev(index),
            conf(Family::V4, true, Some(0)),
        ));
    }
    ports.apply(&OffloadEvent::ConfAll(conf(Family::V6, true, None)));
    (
        ports,
        vec![link(3, "pf0vf0", Some(1)), link(2, "p0", Some(1))],
    )
}

fn all(ports: &Ports, links: Vec<Link>) -> Vec<Switch> {
    ports.switches(&view(links), &OffloadConfig::default())
}

fn wanted_globs<const N: usize>(globs: [&str; N]) -> OffloadConfig {
    OffloadConfig {
        ports: PortFilter::new(globs).unwrap(),
        ..OffloadConfig::default()
    }
}

fn refusals(ports: &Ports, links: Vec<Link>) -> (Vec<Reason>, Vec<Reason>) {
    let switches = all(ports, links);
    let port = &switches[0].ports[0];
    (port.refusals(Family::V4), port.refusals(Family::V6))
}

#[test]
fn ports_of_one_id_are_a_switch() {
    let (ports, mut links) = ready();
    links.push(link(9, "eth0", None));
    let switches = all(&ports, links);
    assert_eq!(switches.len(), 1);
    let switch = &switches[0];
    assert_eq!(switch.driver(), Some("sim"));
    assert_eq!(&*switch.instances[0].handle, "pci/1");
    let roles: Vec<_> = switch.ports.iter().map(|p| (&*p.name, p.role)).collect();
    assert_eq!(
        roles,
        [("p0", PortRole::Uplink), ("pf0vf0", PortRole::Representor)]
    );
    for family in [Family::V4, Family::V6] {
        assert!(switch.ports.iter().all(|p| p.refusals(family).is_empty()));
    }
}

/// `p0.100`, with all that a sub-interface needs.
fn sub_interface(ports: &mut Ports) -> Link {
    ports.apply(&OffloadEvent::Conf(
        dev(20),
        conf(Family::V4, true, Some(0)),
    ));
    Link {
        kind: Some("vlan".into()),
        vlan: Some(VlanLink {
            lower: Some(dev(2)),
            id: 100,
            is_802_1q: true,
            egress_map: false,
        }),
        // The kernel may say so of what stands on ports of one switch.
        ..link(20, "p0.100", Some(1))
    }
}

#[test]
fn a_sub_interface_is_a_part_of_its_port_with_a_table_of_its_own() {
    let (mut ports, mut links) = ready();
    let vrf = Link {
        vrf_table: Some(TableId(1001)),
        kind: Some("vrf".into()),
        ..link(10, "red", Some(1))
    };
    let mut sub = sub_interface(&mut ports);
    sub.master = Some(vrf.index);
    let bond = Link {
        kind: Some("bond".into()),
        ..link(11, "bond0", Some(1))
    };
    links.extend([sub, vrf, bond]);
    let qdisc = IngressQdisc {
        dev: dev(2),
        clsact: true,
        block: NonZeroU32::new(7),
    };
    ports.apply(&OffloadEvent::Qdisc(qdisc));
    let switches = all(&ports, links);
    let names: Vec<_> = switches[0].ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["p0", "pf0vf0", "p0.100"]);
    let port = &switches[0].ports[2];
    let vlan = port.vlan.as_ref().unwrap();
    assert_eq!(
        (port.home(), vlan.id, &**port.ingress()),
        (dev(2), 100, "p0")
    );
    assert_eq!(
        (port.role, port.table),
        (PortRole::SubInterface, TableId(1001))
    );
    assert_eq!(
        (port.mac, port.qdisc),
        (Some(MacAddr([2, 0, 0, 0, 0, 20])), Some(qdisc))
    );
    assert!(port.usable && port.tc_offload == Some(feature(true, true)));
    for family in [Family::V4, Family::V6] {
        assert!(port.refusals(family).is_empty());
    }
}

#[test]
fn what_a_sub_interface_can_not_have_is_said() {
    let (mut ports, links) = ready();
    let sub = sub_interface(&mut ports);
    let vlan = sub.vlan.unwrap();
    let with = |vlan| Link {
        vlan: Some(vlan),
        ..sub.clone()
    };
    let bridge = Link {
        kind: Some("bridge".into()),
        ..link(11, "br0", None)
    };
    let mut bridged = links.clone();
    bridged[1].master = Some(bridge.index);
    bridged.push(bridge);
    let inner = Link {
        index: dev(21),
        name: "p0.100.5".into(),
        ..with(VlanLink {
            lower: Some(dev(20)),
            ..vlan
        })
    };
    let down = Link {
        admin_up: false,
        ..sub.clone()
    };
    let ad = VlanLink {
        is_802_1q: false,
        ..vlan
    };
    let mapped = VlanLink {
        egress_map: true,
        ..vlan
    };
    let cases = [
        (with(ad), &links, Some(Reason::VlanProtocol)),
        (with(mapped), &links, Some(Reason::VlanPriority)),
        (down, &links, Some(Reason::PortDown)),
        (sub.clone(), &bridged, Some(Reason::PortEnslaved)),
        (sub.clone(), &links, None),
    ];
    for (sub, links, reason) in cases {
        let links = links.iter().cloned().chain([sub, inner.clone()]);
        let switches = all(&ports, links.collect());
        let [_, _, port, inner] = &switches[0].ports[..] else {
            panic!("{:?}", switches[0].ports)
        };
        assert_eq!(port.refusals(Family::V4), Vec::from_iter(reason));
        assert!(inner.refusals(Family::V4).contains(&Reason::VlanStacked));
    }
    // One whose lower link is elsewhere is nobody's.
    let elsewhere = with(VlanLink {
        lower: None,
        ..vlan
    });
    let links: Vec<Link> = links.into_iter().chain([elsewhere]).collect();
    assert_eq!(all(&ports, links)[0].ports.len(), 2);
}

#[test]
fn a_port_that_is_left_alone_takes_its_sub_interfaces_along() {
    let (mut ports, mut links) = ready();
    links.push(sub_interface(&mut ports));
    let wanted = |config: &OffloadConfig| {
        let switches = ports.switches(&view(links.clone()), config);
        let ports = &switches[0].ports;
        (!ports[0].excluded, !ports[2].excluded)
    };
    assert_eq!(wanted(&wanted_globs(["*"])), (true, true));
    assert_eq!(wanted(&wanted_globs(["!p0"])), (false, false));
    assert_eq!(wanted(&wanted_globs(["p0.100"])), (false, true));
    assert_eq!(wanted(&wanted_globs(["*", "!p0.*"])), (true, false));
}

#[test]
fn what_is_told_again_changes_nothing() {
    let (mut ports, _) = ready();
    let told = [
        OffloadEvent::Feature(dev(2), feature(true, true)),
        OffloadEvent::Conf(dev(2), conf(Family::V4, true, None)),
        OffloadEvent::ConfAll(conf(Family::V6, true, None)),
        OffloadEvent::PolicyRules(Vec::new()),
        OffloadEvent::Overrun,
    ];
    for event in told {
        assert!(!ports.apply(&event), "{event:?}");
    }
    assert!(ports.apply(&OffloadEvent::Feature(dev(2), feature(false, true))));
}

#[test]
fn a_vrf_gives_its_table_and_a_bridge_takes_the_port() {
    let (ports, mut links) = ready();
    let vrf = Link {
        vrf_table: Some(TableId(1001)),
        kind: Some("vrf".into()),
        ..link(10, "red", None)
    };
    let bridge = Link {
        kind: Some("bridge".into()),
        ..link(11, "br0", None)
    };
    links[1].master = Some(vrf.index);
    links[0].master = Some(bridge.index);
    links.extend([vrf, bridge]);
    let switches = all(&ports, links);
    let [red, bridged] = &*switches[0].ports else {
        panic!()
    };
    assert_eq!(
        (red.table, red.refusals(Family::V4)),
        (TableId(1001), vec![])
    );
    assert_eq!(bridged.master.as_deref(), Some("bridge"));
    assert_eq!(bridged.refusals(Family::V6), [Reason::PortEnslaved]);
}

#[test]
fn forwarding_is_the_link_s_for_ipv4_and_all_s_for_ipv6() {
    let (mut ports, links) = ready();
    ports.apply(&OffloadEvent::ConfAll(conf(Family::V4, false, None)));
    ports.apply(&OffloadEvent::Conf(dev(2), conf(Family::V6, false, None)));
    assert_eq!(refusals(&ports, links.clone()), (vec![], vec![]));
    ports.apply(&OffloadEvent::ConfAll(conf(Family::V4, true, None)));
    ports.apply(&OffloadEvent::ConfAll(conf(Family::V6, false, None)));
    ports.apply(&OffloadEvent::Conf(dev(2), conf(Family::V4, false, None)));
    ports.apply(&OffloadEvent::Conf(dev(2), conf(Family::V6, true, None)));
    let not = vec![Reason::NotForwarding];
    assert_eq!(refusals(&ports, links), (not.clone(), not));
}

#[test]
fn the_larger_rp_filter_counts() {
    for (own, of_all, strict) in [(1, 0, true), (0, 1, true), (1, 2, false), (2, 1, false)] {
        let (mut ports, links) = ready();
        ports.apply(&OffloadEvent::ConfAll(conf(Family::V4, true, Some(of_all))));
        ports.apply(&OffloadEvent::Conf(
            dev(2),
            conf(Family::V4, true, Some(own)),
        ));
        let expected: &[_] = if strict {
            &[Reason::StrictRpFilter]
        } else {
            &[]
        };
        assert_eq!(refusals(&ports, links), (expected.to_vec(), vec![]));
    }
}

#[test]
fn a_policy_rule_concerns_its_link_and_family() {
    let (mut ports, links) = ready();
    let rule = |iif: Option<&str>| {
        OffloadEvent::PolicyRules(vec![PolicyRule {
            family: Family::V6,
            preference: 100,
            scope: iif.map_or(PolicyScope::All, |name| PolicyScope::Link(name.into())),
        }])
    };
    assert!(ports.apply(&rule(Some("eth0"))));
    assert_eq!(refusals(&ports, links.clone()), (vec![], vec![]));
    for iif in [None, Some("p0")] {
        ports.apply(&rule(iif));
        assert_eq!(
            refusals(&ports, links.clone()),
            (vec![], vec![Reason::PolicyRule])
        );
    }
}

#[test]
fn a_policy_rule_for_a_vrf_concerns_its_ports() {
    concerns_vrfs(PolicyScope::Link("red".into()));
}

#[test]
fn where_vrfs_are_not_looked_up_no_port_of_one_is_let_in() {
    concerns_vrfs(PolicyScope::Vrfs);
}

fn concerns_vrfs(scope: PolicyScope) {
    let (mut ports, mut links) = ready();
    let vrf = Link {
        vrf_table: Some(TableId(1001)),
        kind: Some("vrf".into()),
        ..link(10, "red", None)
    };
    ports.apply(&OffloadEvent::PolicyRules(vec![PolicyRule {
        family: Family::V4,
        preference: 100,
        scope,
    }]));
    links.push(vrf.clone());
    assert_eq!(refusals(&ports, links.clone()), (vec![], vec![]));
    for link in &mut links[..2] {
        link.master = Some(vrf.index);
    }
    let policy = vec![Reason::PolicyRule];
    assert_eq!(refusals(&ports, links), (policy, vec![]));
}

#[test]
fn a_filter_concerns_its_families_unless_the_operator_says_otherwise() {
    let (mut ports, links) = ready();
    let filters = |families: &[[bool; 2]]| {
        let filter = |families: &[bool; 2]| PacketFilter {
            families: *families,
            name: "nftables chain ip6 filter FORWARD".into(),
        };
        OffloadEvent::PacketFilters(families.iter().map(filter).collect())
    };
    assert!(!ports.apply(&filters(&[])));
    assert!(ports.apply(&filters(&[[false, true]])));
    let filtered = vec![Reason::ForwardFilter];
    assert_eq!(refusals(&ports, links.clone()), (vec![], filtered.clone()));
    assert_eq!(ports.filters().len(), 1);
    ports.apply(&filters(&[[true, true]]));
    assert_eq!(
        refusals(&ports, links.clone()),
        (filtered.clone(), filtered)
    );
    let config = OffloadConfig {
        ignore: vec![Reason::ForwardFilter],
        ..OffloadConfig::default()
    };
    let switches = ports.switches(&view(links.clone()), &config);
    assert!(switches[0].ports[0].refusals(Family::V4).is_empty());
    ports.apply(&filters(&[]));
    assert_eq!(refusals(&ports, links), (vec![], vec![]));
}

#[test]
fn every_obstacle_of_the_port_has_its_reason() {
    let (mut ports, mut links) = ready();
    ports.apply(&OffloadEvent::Feature(dev(2), feature(false, false)));
    links[1].mac = None;
    ports.apply(&OffloadEvent::Devlink {
        instances: vec![instance("pci/1", Some(false))],
        ports: vec![devlink_port(2, "pci/1", PortRole::Uplink)],
    });
    let switches = ports.switches(&view(links), &wanted_globs(["*", "!p0"]));
    assert_eq!(
        switches[0].ports[0].refusals(Family::V6),
        [
            Reason::PortExcluded,
            Reason::EswitchLegacy,
            Reason::TcOffloadOff,
            Reason::PortWithoutMac,
        ]
    );
}

#[test]
fn a_feature_that_can_be_switched_on_is_no_obstacle() {
    let (mut ports, links) = ready();
    ports.apply(&OffloadEvent::Feature(dev(2), feature(false, true)));
    assert_eq!(refusals(&ports, links), (vec![], vec![]));
}

#[test]
fn an_eswitch_in_legacy_mode_is_shown_without_an_id() {
    let mut ports = Ports::default();
    ports.apply(&OffloadEvent::Devlink {
        instances: vec![instance("pci/1", Some(false)), instance("pci/2", None)],
        ports: vec![devlink_port(2, "pci/1", PortRole::Uplink)],
    });
    let switches = all(&ports, vec![link(2, "eth0", None)]);
    assert_eq!(switches.len(), 1);
    assert_eq!(switches[0].id, None);
    assert!(
        switches[0].ports[0]
            .refusals(Family::V4)
            .contains(&Reason::EswitchLegacy)
    );
}

#[test]
fn plain_links_stand_for_a_switch_in_the_lab() {
    let (ports, _) = ready();
    let kind = |link: Link, kind: &str| Link {
        kind: Some(kind.into()),
        ..link
    };
    let lo = Link {
        mac: None,
        ..link(1, "lo", None)
    };
    let links = view(vec![
        lo,
        kind(link(2, "veth0", None), "veth"),
        kind(link(3, "red", None), "vrf"),
        kind(link(4, "veth0.7", None), "vlan"),
        link(5, "eth0", None),
    ]);
    let switch = ports.plain(&links, &wanted_globs(["veth*"]));
    let names: Vec<_> = switch
        .ports
        .iter()
        .map(|p| (&*p.name, p.excluded))
        .collect();
    assert_eq!(names, [("veth0", false), ("eth0", true)]);
}

#[test]
fn a_glob_that_matches_nothing_says_what_exists() {
    let (ports, links) = ready();
    let config = wanted_globs(["p0", "!eth9"]);
    let switches = ports.switches(&view(links), &config);
    let found = Ports::unmatched(&switches, &config.ports);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "`offload.ports`: \"!eth9\" matches nothing; there are p0, pf0vf0"
    );
}
