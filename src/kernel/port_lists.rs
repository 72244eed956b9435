//! Lists over generic netlink: devlink's instances and ports, and the `hw-tc-offload` of links. A kernel without devlink or
//! without ethtool's netlink has none of them, which is said once.

use std::io;

use nix::errno::Errno as OsErrno;

use super::DumpSocket;
use super::dump::RECEIVE_BUFFER;
use super::socket::RtnlSocket;
use crate::model::{DevlinkInstance, Errno, IfIndex, OffloadEvent, TcOffloadFeature};
use crate::wire::devlink::{
    DEVLINK_FAMILY, decode_driver, decode_handle, decode_port, decode_switchdev,
    encode_get_eswitch, encode_get_info, encode_instance_dump, encode_port_dump,
};
use crate::wire::ethtool::{ETHTOOL_FAMILY, decode_features, encode_get_features};
use crate::wire::genl::{GENL_ID_CTRL, GenlFamily, decode_family, encode_get_family};
use crate::wire::netlink::Envelope;

/// A socket for reading these lists.
#[derive(Debug)]
pub(super) struct PortLists {
    dumps: DumpSocket,
    /// devlink, where the kernel has it.
    pub(super) devlink: Option<GenlFamily>,
    /// ethtool's netlink, where the kernel has it.
    pub(super) ethtool: Option<GenlFamily>,
}

impl PortLists {
    /// Opens a socket and looks the families up.
    pub(super) fn open() -> io::Result<Self> {
        let mut lists = Self {
            dumps: DumpSocket::over(RtnlSocket::generic(RECEIVE_BUFFER)?)?,
            devlink: None,
            ethtool: None,
        };
        lists.devlink = lists.family(DEVLINK_FAMILY);
        lists.ethtool = lists.family(ETHTOOL_FAMILY);
        Ok(lists)
    }

    /// All instances and ports.
    pub(super) fn devlink(&mut self) -> Result<OffloadEvent, Errno> {
        let (mut instances, mut ports) = (Vec::new(), Vec::new());
        if let Some(family) = self.devlink.as_ref().map(|family| family.id) {
            let dumps = &mut self.dumps;
            let handles = dumps.list(
                |envelope| encode_instance_dump(envelope, family),
                family,
                decode_handle,
            )?;
            for handle in handles {
                let switchdev = self.ask(
                    family,
                    |envelope| encode_get_eswitch(envelope, family, &handle),
                    decode_switchdev,
                )?;
                let driver = self.ask(
                    family,
                    |envelope| encode_get_info(envelope, family, &handle),
                    decode_driver,
                )?;
                instances.push(DevlinkInstance {
                    handle,
                    driver,
                    switchdev,
                });
            }
            ports = self.dumps.list(
                |envelope| encode_port_dump(envelope, family),
                family,
                decode_port,
            )?;
        }
        Ok(OffloadEvent::Devlink { instances, ports })
    }

    /// A link's `hw-tc-offload`; `None` for a link that is gone, or where nobody can say.
    pub(super) fn feature(&mut self, dev: IfIndex) -> Result<Option<TcOffloadFeature>, Errno> {
        let Some(family) = self.ethtool.as_ref().map(|family| family.id) else {
            return Ok(None);
        };
        self.ask(
            family,
            |envelope| encode_get_features(envelope, family, dev),
            decode_features,
        )
    }

    fn family(&mut self, name: &str) -> Option<GenlFamily> {
        let found = self.ask(
            GENL_ID_CTRL,
            |envelope| encode_get_family(envelope, name),
            decode_family,
        );
        match found {
            Ok(Some(family)) => return Some(family),
            Ok(None) => tracing::info!("this kernel has no {name} over netlink"),
            Err(errno) => tracing::info!(%errno, "can't ask for {name} over netlink"),
        }
        None
    }

    /// One question with one answer. What is not there, or can't be asked of this one, is `None`.
    fn ask<T>(
        &mut self,
        family: u16,
        encode: impl Fn(Envelope<'_>),
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Errno> {
        let none = [OsErrno::ENOENT, OsErrno::ENODEV, OsErrno::EOPNOTSUPP];
        match self.dumps.list(encode, family, decode) {
            Ok(mut answers) => Ok(answers.pop()),
            Err(Errno(code)) if none.iter().any(|errno| *errno as i32 == code) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}
