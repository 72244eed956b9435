//! What is right for a packet, and how what hardware did differs from it.
//!
//! One thing is taken apart from the rest: what a port's own MAC is. While it changes, a packet to the old one may leave by the same
//! port with the new one as its source, for two rules say so, that of its admission and that of its hop.

use std::collections::BTreeMap;
use std::fmt;

use frr_offload::model::{Errno, MacAddr};

use super::changes::World;
use super::kernel::{Answer, Way};
use super::netns::eventually;
use super::packets::Packet;
use super::switch::{PORTS, Seen};

const EINVAL: Errno = Errno(22);
const MACS: usize = 12;

/// What the kernel would do with each of a batch.
pub struct Oracle {
    did: Vec<Seen>,
    answers: Vec<Answer>,
    /// What the ports' own are.
    macs: [MacAddr; PORTS.len()],
}

/// What hardware did with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    Forwarded,
    Dropped,
    Handed,
}

impl Oracle {
    /// Asks both oracles, again and again until they agree: the kernel may be in the middle of something.
    pub fn ask(world: &mut World, packets: &[Packet]) -> Self {
        eventually("the kernel to agree with itself", || {
            let did = world.switch.by_kernel(packets);
            let answers = world.kernel.routes(packets, &world.switch);
            let macs = world.switch.macs;
            let oracle = Self { did, answers, macs };
            let doubt = oracle.doubt(packets);
            if let Some(doubt) = &doubt {
                println!("{doubt}");
            }
            doubt.is_none().then_some(oracle)
        })
    }

    /// A packet that the kernel does not treat as it says.
    fn doubt(&self, packets: &[Packet]) -> Option<String> {
        for (packet, (did, answer)) in packets.iter().zip(self.did.iter().zip(&self.answers)) {
            for (port, frame) in &did.out {
                let way = Way::of(*port, frame);
                if !matches!(answer, Answer::Ways(ways) if ways.contains(&way)) {
                    let (src, dst) = (packet.src, packet.dst);
                    let at = PORTS[packet.ingress].0;
                    return Some(format!(
                        "{src} -> {dst} at {at}: the kernel took {way:?}, and says {answer:?}"
                    ));
                }
            }
        }
        None
    }

    /// `Err` says how a packet's treatment is not the kernel's. `all` are the oracles of what is under way.
    fn judge(&self, all: &[Self], at: usize, seen: &Seen) -> Result<Treatment, String> {
        let (did, answer) = (&self.did[at], &self.answers[at]);
        if seen.handed {
            return Ok(Treatment::Handed);
        }
        match (&seen.out[..], &did.out[..]) {
            // A blackhole's errno. The kernel is as silent about a source that can't be.
            ([], []) if *answer == Answer::Refused(EINVAL) => Ok(Treatment::Dropped),
            ([], []) => Err("dropped, and the kernel would say why".into()),
            ([], _) => Err("dropped, and the kernel forwards it".into()),
            ([_], []) => Err("forwarded, and the kernel does not".into()),
            ([(port, frame)], [(_, kernels)]) => {
                let mut way = Way::of(*port, frame);
                if all.iter().any(|oracle| oracle.macs[*port] == way.src) {
                    way.src = self.macs[*port];
                }
                match answer {
                    Answer::Ways(ways) if ways.contains(&way) => {}
                    _ => return Err(format!("{way:?} is none of the kernel's ways")),
                }
                if frame[MACS..] == kernels[MACS..] {
                    Ok(Treatment::Forwarded)
                } else {
                    Err(format!(
                        "its bytes differ: {:02x?}, the kernel's {:02x?}",
                        head(frame),
                        head(kernels)
                    ))
                }
            }
            ([_], _) => Err("forwarded whole, the kernel sends pieces".into()),
            _ => Err("forwarded more than once".into()),
        }
    }

    /// How these packets, sent while nothing changes, are not treated as by the kernel.
    pub fn differences(&self, packets: &[Packet], seen: &[Seen]) -> Vec<String> {
        Self::differences_from_all(
            std::slice::from_ref(self),
            packets,
            seen,
            &mut Counts::default(),
        )
    }

    /// How many packets another one says something else of.
    pub fn changed(&self, other: &Self) -> usize {
        let pairs = self.answers.iter().zip(&other.answers);
        pairs.filter(|(before, after)| before != after).count()
    }

    pub fn expect(&self, packets: &[Packet], seen: &[Seen], counts: &mut Counts) {
        let oracles = std::slice::from_ref(self);
        let wrong = Self::differences_from_all(oracles, packets, seen, counts);
        assert!(wrong.is_empty(), "{}", some_of(&wrong));
    }

    /// Those that are treated as by none of these: the tables before, between and after a change.
    pub fn differences_from_all(
        oracles: &[Self],
        packets: &[Packet],
        seen: &[Seen],
        counts: &mut Counts,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        for (at, (packet, seen)) in packets.iter().zip(seen).enumerate() {
            let judged: Vec<_> = oracles
                .iter()
                .map(|oracle| (oracle, oracle.judge(oracles, at, seen)))
                .collect();
            if let Some(treatment) = judged.iter().find_map(|(_, result)| result.as_ref().ok()) {
                let last = &oracles[oracles.len() - 1];
                counts.count(*treatment, !last.did[at].out.is_empty(), &seen.out);
                continue;
            }
            let mut text = format!(
                "{} -> {} at {}: {:02x?}",
                packet.src,
                packet.dst,
                PORTS[packet.ingress].0,
                head(&packet.frame)
            );
            for (oracle, result) in &judged {
                text += &format!(
                    "\n    {}; {:?}",
                    result.as_ref().unwrap_err(),
                    oracle.answers[at]
                );
            }
            wrong.push(text);
        }
        wrong
    }
}

/// How many differ, and the first of them.
pub fn some_of(wrong: &[String]) -> String {
    let first = &wrong[..wrong.len().min(5)];
    format!("{} packets differ:\n{}", wrong.len(), first.join("\n"))
}

fn head(frame: &[u8]) -> &[u8] {
    &frame[..frame.len().min(66)]
}

/// What became of packets.
#[derive(Default)]
pub struct Counts {
    treatments: BTreeMap<Treatment, u64>,
    /// How many the kernel would forward, and how many of these hardware did.
    forwarded: u64,
    by_hardware: u64,
    ports: [u64; PORTS.len()],
}

impl Counts {
    fn count(&mut self, treatment: Treatment, kernel_forwards: bool, out: &[(usize, Vec<u8>)]) {
        *self.treatments.entry(treatment).or_default() += 1;
        if kernel_forwards {
            self.forwarded += 1;
            self.by_hardware += u64::from(treatment == Treatment::Forwarded);
        }
        for (port, _) in out {
            self.ports[*port] += 1;
        }
    }

    fn of(&self, treatment: Treatment) -> u64 {
        self.treatments.get(&treatment).copied().unwrap_or(0)
    }

    /// Everything by the slow path would be no success.
    pub fn is_worth_something(&self, share: u64) {
        assert!(
            self.by_hardware * 100 >= self.forwarded * share,
            "too few by hardware: {self}"
        );
        assert!(self.of(Treatment::Dropped) > 0, "none dropped: {self}");
        assert!(
            self.ports.iter().all(|&out| out > 0),
            "a port is not used: {self}"
        );
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.treatments.values().sum();
        write!(
            f,
            "{total} packets, none differs: hardware forwarded {}",
            self.of(Treatment::Forwarded)
        )?;
        write!(
            f,
            " and dropped {}, the kernel got {};",
            self.of(Treatment::Dropped),
            self.of(Treatment::Handed)
        )?;
        write!(
            f,
            " of {} that the kernel forwards {} by hardware",
            self.forwarded, self.by_hardware
        )
    }
}
