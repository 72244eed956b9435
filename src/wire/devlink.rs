//! devlink as far as we read it: instances, their eswitch mode and driver, and ports with their interfaces.
//!
//! Follows `linux/devlink.h` and the kernel's `Documentation/networking/devlink`. Seen on Linux 6.12: `ESWITCH_GET` can't
//! be dumped, so it is asked for instance by instance, and waits while a mode is being set; the driver's name comes from
//! the core also for drivers that answer no `INFO_GET` of their own. A notification is only taken as the news that
//! something changed: all is read again, which is rare and always right.

use super::genl::{self, attr_text, request, text};
use super::netlink::{Attributes, Envelope, NLM_F_ACK, NLM_F_DUMP, as_u32};
use crate::model::{DevlinkPort, IfIndex, PortRole};

/// `DEVLINK_GENL_NAME`.
pub const DEVLINK_FAMILY: &str = "devlink";
/// `DEVLINK_GENL_MCGRP_CONFIG_NAME`.
pub const DEVLINK_GROUP: &str = "config";

const DEVLINK_VERSION: u8 = 1;
const DEVLINK_CMD_GET: u8 = 1;
const DEVLINK_CMD_NEW: u8 = 3;
const DEVLINK_CMD_DEL: u8 = 4;
const DEVLINK_CMD_PORT_GET: u8 = 5;
const DEVLINK_CMD_PORT_NEW: u8 = 7;
const DEVLINK_CMD_PORT_DEL: u8 = 8;
const DEVLINK_CMD_ESWITCH_GET: u8 = 29;
const DEVLINK_CMD_INFO_GET: u8 = 51;

const DEVLINK_ATTR_BUS_NAME: u16 = 1;
const DEVLINK_ATTR_DEV_NAME: u16 = 2;
const DEVLINK_ATTR_PORT_NETDEV_IFINDEX: u16 = 6;
const DEVLINK_ATTR_ESWITCH_MODE: u16 = 25;
const DEVLINK_ATTR_PORT_FLAVOUR: u16 = 77;
const DEVLINK_ATTR_INFO_DRIVER_NAME: u16 = 98;

const DEVLINK_ESWITCH_MODE_SWITCHDEV: u16 = 1;
const DEVLINK_PORT_FLAVOUR_PHYSICAL: u16 = 0;
const DEVLINK_PORT_FLAVOUR_PCI_PF: u16 = 3;
const DEVLINK_PORT_FLAVOUR_PCI_VF: u16 = 4;
const DEVLINK_PORT_FLAVOUR_PCI_SF: u16 = 7;

/// Asks for all instances.
pub fn encode_instance_dump(envelope: Envelope<'_>, family: u16) {
    request(
        envelope,
        family,
        NLM_F_DUMP,
        DEVLINK_CMD_GET,
        DEVLINK_VERSION,
    )
    .finish();
}

/// Asks for all ports of all instances.
pub fn encode_port_dump(envelope: Envelope<'_>, family: u16) {
    request(
        envelope,
        family,
        NLM_F_DUMP,
        DEVLINK_CMD_PORT_GET,
        DEVLINK_VERSION,
    )
    .finish();
}

/// Asks for an instance's eswitch mode.
pub fn encode_get_eswitch(envelope: Envelope<'_>, family: u16, handle: &str) {
    encode_get(envelope, family, DEVLINK_CMD_ESWITCH_GET, handle);
}

/// Asks for an instance's driver.
pub fn encode_get_info(envelope: Envelope<'_>, family: u16, handle: &str) {
    encode_get(envelope, family, DEVLINK_CMD_INFO_GET, handle);
}

/// The handle that a message is about, `pci/0000:03:00.0`.
pub fn decode_handle(payload: &[u8]) -> Option<Box<str>> {
    handle(genl::split(payload)?.1)
}

/// Whether an answer says `switchdev`.
pub fn decode_switchdev(payload: &[u8]) -> Option<bool> {
    let mode = find(payload, DEVLINK_ATTR_ESWITCH_MODE)?;
    Some(u16::from_ne_bytes(mode.try_into().ok()?) == DEVLINK_ESWITCH_MODE_SWITCHDEV)
}

/// The driver's name in an answer.
pub fn decode_driver(payload: &[u8]) -> Option<Box<str>> {
    find(payload, DEVLINK_ATTR_INFO_DRIVER_NAME).map(text)
}

/// Reads a port; `None` for one without an interface.
pub fn decode_port(payload: &[u8]) -> Option<DevlinkPort> {
    let (_, attributes) = genl::split(payload)?;
    let (mut dev, mut role) = (None, PortRole::Other);
    for attribute in attributes.clone() {
        match attribute.ok()? {
            (DEVLINK_ATTR_PORT_NETDEV_IFINDEX, value) => {
                dev = as_u32(value).and_then(IfIndex::new);
            }
            (DEVLINK_ATTR_PORT_FLAVOUR, value) => {
                role = port_role(u16::from_ne_bytes(value.try_into().ok()?));
            }
            _ => {}
        }
    }
    Some(DevlinkPort {
        dev: dev?,
        handle: handle(attributes)?,
        role,
    })
}

/// Whether a notification says that instances or ports came, went or changed.
pub fn is_change(payload: &[u8]) -> bool {
    matches!(
        payload.first(),
        Some(&(DEVLINK_CMD_NEW | DEVLINK_CMD_DEL | DEVLINK_CMD_PORT_NEW | DEVLINK_CMD_PORT_DEL))
    )
}

fn encode_get(envelope: Envelope<'_>, family: u16, command: u8, handle: &str) {
    let (bus, dev) = handle.split_once('/').unwrap_or((handle, ""));
    let mut message = request(envelope, family, NLM_F_ACK, command, DEVLINK_VERSION);
    attr_text(&mut message, DEVLINK_ATTR_BUS_NAME, bus);
    attr_text(&mut message, DEVLINK_ATTR_DEV_NAME, dev);
    message.finish();
}

fn find(payload: &[u8], kind: u16) -> Option<&[u8]> {
    let (_, mut attributes) = genl::split(payload)?;
    attributes.find_map(|attribute| attribute.ok().filter(|found| found.0 == kind).map(|a| a.1))
}

fn handle(attributes: Attributes<'_>) -> Option<Box<str>> {
    let (mut bus, mut dev) = (None, None);
    for attribute in attributes {
        match attribute.ok()? {
            (DEVLINK_ATTR_BUS_NAME, value) => bus = Some(text(value)),
            (DEVLINK_ATTR_DEV_NAME, value) => dev = Some(text(value)),
            _ => {}
        }
    }
    Some(format!("{}/{}", bus?, dev?).into())
}

const fn port_role(flavour: u16) -> PortRole {
    match flavour {
        DEVLINK_PORT_FLAVOUR_PHYSICAL => PortRole::Uplink,
        DEVLINK_PORT_FLAVOUR_PCI_PF | DEVLINK_PORT_FLAVOUR_PCI_VF | DEVLINK_PORT_FLAVOUR_PCI_SF => {
            PortRole::Representor
        }
        _ => PortRole::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::netlink::Messages;

    /// Answers of Linux 6.12 about the simulated switch: a physical port, a VF's port, an eswitch, an instance's info.
    const UPLINK: &str = "070100000d000100706c6174666f726d0000000012000200657377697463682d73696d2e3000000008000300000000\
        00060004000200000008000600070000000700070070300000050094000000000006004d000000000008004e0000000000";
    const VF: &str = "070100000d000100706c6174666f726d0000000012000200657377697463682d73696d2e30000000080003000100000006\
        0004000200000008000600080000000b0007007066307666300000050094000000000006004d0004000000080096000000000006007f\
        000000000006008000000000000500950000000000100091000a000100c6348bc6583c0000";
    const ESWITCH: &str = "1d0100000d000100706c6174666f726d0000000012000200657377697463682d73696d2e300000000600190001000000";
    const INFO: &str = "330100000d000100706c6174666f726d0000000012000200657377697463682d73696d2e300000001000620065737769\
        7463682d73696d00";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex
            .bytes()
            .map(|b| (b as char).to_digit(16).unwrap() as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    #[test]
    fn ports_are_read_with_their_flavour() {
        let handle: Box<str> = "platform/eswitch-sim.0".into();
        let port = |dev, role| DevlinkPort {
            dev: IfIndex::new(dev).unwrap(),
            handle: handle.clone(),
            role,
        };
        assert_eq!(decode_port(&bytes(UPLINK)), Some(port(7, PortRole::Uplink)));
        assert_eq!(
            decode_port(&bytes(VF)),
            Some(port(8, PortRole::Representor))
        );
        assert_eq!(decode_port(&bytes(ESWITCH)), None);
        assert!(is_change(&bytes(UPLINK)) && !is_change(&bytes(ESWITCH)));
    }

    #[test]
    fn mode_and_driver_are_read() {
        assert_eq!(decode_switchdev(&bytes(ESWITCH)), Some(true));
        assert_eq!(decode_switchdev(&bytes(INFO)), None);
        assert_eq!(decode_driver(&bytes(INFO)).as_deref(), Some("eswitch-sim"));
        assert_eq!(
            decode_handle(&bytes(INFO)).as_deref(),
            Some("platform/eswitch-sim.0")
        );
    }

    #[test]
    fn an_instance_is_named_by_bus_and_device() {
        let mut buffer = Vec::new();
        let envelope = Envelope {
            buffer: &mut buffer,
            seq: 1,
        };
        encode_get_eswitch(envelope, 22, "pci/0000:03:00.0");
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        assert_eq!((message.kind, message.payload[0]), (22, 29));
        assert_eq!(
            decode_handle(message.payload).as_deref(),
            Some("pci/0000:03:00.0")
        );
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _: Option<DevlinkPort> = decode_port(&bytes);
            let _: (Option<Box<str>>, Option<bool>) = (decode_driver(&bytes), decode_switchdev(&bytes));
        }

        #[test]
        fn cut_answers_never_panic(cut in 0usize..140) {
            let bytes = bytes(VF);
            let _: Option<DevlinkPort> = decode_port(&bytes[..cut.min(bytes.len())]);
        }
    }
}
