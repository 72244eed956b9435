//! The monitor and the port watch with the test in the engine's place: what they tell goes into the views.

use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use frr_offload::config::OffloadConfig;
use frr_offload::kernel::{Listener, Monitor, PortWatch};
use frr_offload::model::{Event, OffloadEvent};
use frr_offload::view::KernelView;
use frr_offload::view::ports::{Port, Ports, Switch};

use super::netns::DEADLINE;

pub struct Told {
    events: Receiver<Event>,
    links: KernelView,
    pub ports: Ports,
    pub watch: Listener,
    _monitor: Listener,
}

impl Told {
    pub fn new() -> Self {
        Self::with_receive_buffer(1 << 20)
    }

    pub fn with_receive_buffer(receive_buffer: usize) -> Self {
        let (tx, events) = bounded(16);
        Self {
            _monitor: Monitor::start(1 << 20, None, tx.clone()).unwrap(),
            watch: PortWatch::start(receive_buffer, tx).unwrap(),
            events,
            links: KernelView::default(),
            ports: Ports::default(),
        }
    }

    pub fn switches(&self) -> Vec<Switch> {
        self.ports.switches(&self.links, &OffloadConfig::default())
    }

    /// A port of a switch, or a plain link.
    pub fn port(&self, name: &str) -> Option<Port> {
        let mut switches = self.switches();
        switches.push(self.ports.plain(&self.links, &OffloadConfig::default()));
        let mut ports = switches.into_iter().flat_map(|switch| switch.ports);
        ports.find(|port| &*port.name == name)
    }

    /// Takes in what is told until the probe has an answer.
    pub fn until<T>(&mut self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = probe(self) {
                return answer;
            }
            let Ok(event) = self.events.recv_deadline(end) else {
                panic!(
                    "waited in vain for {what}; there are {:#?}",
                    self.switches()
                );
            };
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Kernel(events) => {
                for event in events {
                    self.links.apply(&event, &mut Vec::new());
                }
            }
            Event::Offload(events) => {
                for event in events {
                    assert!(!matches!(event, OffloadEvent::DumpFailed(_)), "{event:?}");
                    self.ports.apply(&event);
                }
            }
            other @ (Event::Source(_) | Event::Outcomes(_)) => panic!("{other:?}"),
        }
    }
}
