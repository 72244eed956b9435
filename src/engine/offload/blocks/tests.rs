use super::*;
use crate::model::{Errno, IngressQdisc, PortRole, TableId};
use crate::view::ports::{SubInterface, Treatment};

const EOPNOTSUPP: i32 = 95;

/// A switch as tc has it.
#[derive(Default)]
struct Tc {
    ports: Vec<Port>,
    /// Ports whose driver does not take the block.
    bad: BTreeSet<IfIndex>,
    /// Of several ports none takes a rule that is about another.
    no_indev: bool,
    /// A block in use is refused at once, as it is when rules of it are in hardware.
    in_use: bool,
    trial_stands: bool,
    writes: Vec<RuleOpKind>,
}

fn dev(n: u32) -> IfIndex {
    IfIndex::new(n).unwrap()
}

fn port(n: u32) -> Port {
    let forwards = Treatment {
        forwarding: true,
        strict_rp_filter: false,
        policy_rule: false,
        filtered: false,
    };
    Port {
        dev: dev(n),
        name: format!("p{n}").as_str().into(),
        role: PortRole::Representor,
        vlan: None,
        mac: Some(MacAddr([2, 0, 0, 0, 0, n as u8])),
        table: TableId::MAIN,
        mtu: 1500,
        usable: true,
        excluded: false,
        legacy: false,
        master: None,
        tc_offload: None,
        qdisc: None,
        ipv4: forwards,
        ipv6: forwards,
        filters: None,
        ignored: Box::default(),
    }
}

fn id() -> SwitchId {
    SwitchId([1, 2, 3, 4].into())
}

impl Tc {
    fn new(ports: u32) -> Self {
        Self {
            ports: (1..=ports).map(port).collect(),
            ..Self::default()
        }
    }

    fn bind(&mut self, n: u32, block: Option<NonZeroU32>) {
        let port = self.ports.iter_mut().find(|port| port.dev == dev(n));
        port.unwrap().qdisc = Some(IngressQdisc {
            dev: dev(n),
            clsact: true,
            block,
        });
    }

    fn blocks(&self) -> BTreeMap<NonZeroU32, usize> {
        let mut blocks = BTreeMap::new();
        let ports = self.ports.iter().filter(|port| port.vlan.is_none());
        for number in ports.filter_map(|port| port.qdisc?.block) {
            *blocks.entry(number).or_default() += 1;
        }
        blocks
    }

    fn at(&mut self, dev: IfIndex) -> &mut Port {
        self.ports.iter_mut().find(|port| port.dev == dev).unwrap()
    }

    /// Also what its sub-interfaces have.
    fn set_qdisc(&mut self, dev: IfIndex, qdisc: Option<IngressQdisc>) {
        for port in self.ports.iter_mut().filter(|port| port.home() == dev) {
            port.qdisc = qdisc;
        }
    }

    fn write(&mut self, op: &RuleOpKind) -> Result<InHardware, Refusal> {
        let refused = |errno| {
            let errno = Errno(errno);
            Err(Refusal { errno, text: None })
        };
        match op {
            RuleOpKind::AddQdisc { dev, block } => {
                if self.in_use && self.bad.contains(dev) {
                    return refused(EOPNOTSUPP);
                }
                let (dev, block) = (*dev, *block);
                assert!(self.at(dev).vlan.is_none());
                let clsact = true;
                self.set_qdisc(dev, Some(IngressQdisc { dev, clsact, block }));
            }
            RuleOpKind::DeleteQdisc { dev } => self.set_qdisc(*dev, None),
            RuleOpKind::Put { rule, .. } => {
                let bound = |port: &&Port| {
                    port.vlan.is_none() && port.qdisc.is_some_and(|qdisc| qdisc.block.is_some())
                };
                let bound: Vec<&Port> = self.ports.iter().filter(bound).collect();
                let other = |port: &&Port| Some(&port.name) != rule.matches.indev.as_ref();
                if bound.iter().any(|port| self.bad.contains(&port.dev))
                    || (self.no_indev && bound.iter().any(other))
                {
                    return refused(EOPNOTSUPP);
                }
                let count = bound.len() as u32;
                assert!(!std::mem::replace(&mut self.trial_stands, true));
                return Ok(InHardware { in_hw: true, count });
            }
            RuleOpKind::Delete { .. } => self.trial_stands = false,
            _ => {}
        }
        Ok(InHardware::default())
    }

    /// Until nothing is left to be done; a port that does not join gets a plain qdisc.
    fn settle(&mut self, sharing: &mut Sharing) {
        for _ in 0..1000 {
            let blocks = self.blocks();
            sharing.choose(&id(), &self.ports, &blocks, &BTreeSet::new());
            sharing.update(&self.ports, &blocks);
            for port in &mut self.ports {
                if port.qdisc.is_none() && !sharing.takes(port) {
                    port.qdisc = Some(IngressQdisc {
                        dev: port.dev,
                        clsact: true,
                        block: None,
                    });
                }
            }
            let Some(op) = sharing.next(&self.ports, true, true) else {
                assert!(!sharing.has_work(&self.ports) && !self.trial_stands);
                return;
            };
            let result = self.write(&op);
            self.writes.push(op);
            sharing.answer(result);
        }
        panic!("no end: {:?}", self.writes);
    }

    fn ready(&self, sharing: &Sharing) -> Vec<bool> {
        let ready = |port| match sharing.ready_block_of(port).unwrap() {
            Block::Shared(number) => Some(number) == sharing.home(),
            Block::Port(_) => false,
        };
        self.ports.iter().map(ready).collect()
    }
}

#[test]
fn all_ports_of_an_able_driver_share_a_block() {
    let (mut tc, mut sharing) = (Tc::new(4), Sharing::default());
    tc.settle(&mut sharing);
    assert_eq!(tc.ready(&sharing), [true; 4]);
    assert!(is_our_block(sharing.home().unwrap()));
    let block = Block::Shared(sharing.home().unwrap());
    assert_eq!(sharing.ports_of(block), 4);
    let hardware = |count| InHardware { in_hw: true, count };
    assert!(sharing.is_everywhere(block, hardware(4)));
    assert!(!sharing.is_everywhere(block, hardware(3)));
    assert_eq!(sharing.refusal(), None);
}

#[test]
fn a_port_joins_for_its_sub_interface() {
    let (mut tc, mut sharing) = (Tc::new(3), Sharing::default());
    // It would admit nothing for itself.
    let alone = tc.at(dev(2));
    alone.ipv4.forwarding = false;
    alone.ipv6.forwarding = false;
    for n in [1, 2] {
        tc.ports.push(Port {
            vlan: Some(SubInterface {
                lower: dev(n),
                lower_name: format!("p{n}").as_str().into(),
                id: 100,
                ingress: None,
                egress: None,
            }),
            ..port(n + 10)
        });
    }
    tc.settle(&mut sharing);
    assert_eq!(tc.ready(&sharing), [true; 5]);
    assert_eq!(sharing.ports_of(Block::Shared(sharing.home().unwrap())), 3);
}

#[test]
fn a_port_that_can_not_is_taken_out_and_the_others_stay() {
    for in_use in [false, true] {
        for bad in 1..=4 {
            let (mut tc, mut sharing) = (Tc::new(4), Sharing::default());
            tc.in_use = in_use;
            tc.bad.insert(dev(bad));
            tc.settle(&mut sharing);
            let shares: Vec<bool> = (1..=4).map(|n| n != bad).collect();
            assert_eq!(tc.ready(&sharing), shares);
            assert!(sharing.apart(dev(bad)).is_some());
            assert_eq!(sharing.refusal(), None);
        }
    }
}

#[test]
fn of_a_driver_that_can_not_two_ports_are_asked() {
    let (mut tc, mut sharing) = (Tc::new(6), Sharing::default());
    tc.bad.extend((1..=6).map(dev));
    tc.settle(&mut sharing);
    assert_eq!(tc.ready(&sharing), [false; 6]);
    assert!(sharing.refusal().is_some());
    let joins = |op: &&RuleOpKind| matches!(op, RuleOpKind::AddQdisc { .. });
    assert_eq!(tc.writes.iter().filter(joins).count(), 2);

    // One port by itself is no proof.
    let (mut tc, mut sharing) = (Tc::new(6), Sharing::default());
    tc.no_indev = true;
    tc.settle(&mut sharing);
    let first_only = [true, false, false, false, false, false];
    assert_eq!(tc.ready(&sharing), first_only);
    assert!(sharing.refusal().is_some());
}

#[test]
fn what_an_earlier_run_bound_is_tried_together() {
    let (mut tc, mut sharing) = (Tc::new(3), Sharing::default());
    // Not the first number: somebody had that, then.
    let number = our_blocks(&id()).nth(1);
    tc.bind(1, number);
    tc.bind(2, number);
    tc.settle(&mut sharing);
    assert_eq!(sharing.home(), number);
    assert_eq!(tc.ready(&sharing), [true; 3]);
    let tried = |op: &&RuleOpKind| matches!(op, RuleOpKind::Put { .. });
    assert_eq!(tc.writes.iter().filter(tried).count(), 2);
    assert!(matches!(tc.writes[0], RuleOpKind::Delete { .. }));

    // Since then one of them has become poor: which, is found out.
    let mut sharing = Sharing::default();
    tc.bad.insert(dev(2));
    tc.settle(&mut sharing);
    assert_eq!(tc.ready(&sharing), [true, false, true]);
}

#[test]
fn a_plain_qdisc_stays_and_what_is_of_others_is_left_alone() {
    let (mut tc, mut sharing) = (Tc::new(3), Sharing::default());
    tc.bind(1, None);
    tc.bind(2, NonZeroU32::new(7));
    tc.ports[2].excluded = true;
    tc.settle(&mut sharing);
    let blocks = tc.ports.iter().map(|port| sharing.block_of(port));
    let blocks: Vec<Option<Block>> = blocks.collect();
    assert_eq!(blocks, [Some(Block::Port(dev(1))), None, None]);
    assert_eq!(sharing.admits(&tc.ports[1]), [false, false]);
    assert!(tc.writes.is_empty());
}

#[test]
fn a_block_is_dissolved_port_by_port() {
    let (mut tc, mut sharing) = (Tc::new(3), Sharing::default());
    tc.settle(&mut sharing);
    sharing.dissolve();
    assert_eq!(sharing.ready_block_of(&tc.ports[0]), None);
    tc.settle(&mut sharing);
    assert_eq!(tc.ready(&sharing), [false; 3]);
    assert!(tc.blocks().is_empty());
}

#[test]
fn a_port_whose_qdisc_is_gone_joins_again() {
    let (mut tc, mut sharing) = (Tc::new(2), Sharing::default());
    tc.settle(&mut sharing);
    tc.ports[0].qdisc = None;
    sharing.update(&tc.ports, &tc.blocks());
    assert_eq!(sharing.ready_block_of(&tc.ports[0]), None);
    tc.settle(&mut sharing);
    assert_eq!(tc.ready(&sharing), [true; 2]);
}

#[test]
fn a_full_table_says_nothing_against_a_port() {
    let (mut tc, mut sharing) = (Tc::new(1), Sharing::default());
    for _ in 0..10 {
        sharing.choose(&id(), &tc.ports, &tc.blocks(), &BTreeSet::new());
        sharing.update(&tc.ports, &tc.blocks());
        if let Some(op) = sharing.next(&tc.ports, true, true) {
            let done = tc.write(&op);
            let errno = Errno(ENOSPC);
            let full = matches!(op, RuleOpKind::Put { .. });
            sharing.answer(if full {
                Err(Refusal { errno, text: None })
            } else {
                done
            });
        }
    }
    assert_eq!(tc.ready(&sharing), [true]);
}

#[test]
fn switches_never_have_the_same_block() {
    let (tc, mut sharing) = (Tc::new(1), Sharing::default());
    let first = our_blocks(&id()).next().unwrap();
    sharing.choose(&id(), &tc.ports, &BTreeMap::new(), &BTreeSet::from([first]));
    assert_ne!(sharing.home(), Some(first));
    // Nor one that somebody has.
    let mut sharing = Sharing::default();
    let theirs = BTreeMap::from([(first, 1)]);
    sharing.choose(&id(), &tc.ports, &theirs, &BTreeSet::new());
    assert_ne!(sharing.home(), Some(first));
}
