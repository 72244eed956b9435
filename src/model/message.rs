//! [`MessageKind`]: which netlink message it is, by name. SONiC's FRR streams types of its own over FPM, with numbers that the
//! kernel doesn't use; they carry what a plain route message can't (`SRv6`, EVPN), and nothing here makes use of them.
//! Numbers: `linux/netlink.h`, `linux/rtnetlink.h`; SONiC's: its `dplane_fpm_sonic` and `fpmsyncd`.

use std::fmt;

/// `nlmsg_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKind(pub u16);

impl MessageKind {
    /// Below this (`NLMSG_MIN_TYPE`) are netlink's own: no-operation, error, end of a list.
    const FIRST_OF_FAMILY: u16 = 16;

    /// The name without `RTM_` or `NLMSG_`, if it has one.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "NOOP",
            2 => "ERROR",
            3 => "DONE",
            16 => "NEWLINK",
            17 => "DELLINK",
            20 => "NEWADDR",
            21 => "DELADDR",
            24 => "NEWROUTE",
            25 => "DELROUTE",
            26 => "GETROUTE",
            28 => "NEWNEIGH",
            29 => "DELNEIGH",
            32 => "NEWRULE",
            33 => "DELRULE",
            104 => "NEWNEXTHOP",
            105 => "DELNEXTHOP",
            143 => "FPM_ADD_EVPN_SHL",
            144 => "FPM_DEL_EVPN_SHL",
            145 => "FPM_ADD_EVPN_DF",
            146 => "FPM_DEL_EVPN_DF",
            147 => "FPM_ADD_EVPN_ES_BACKUP_NHG",
            148 => "FPM_DEL_EVPN_ES_BACKUP_NHG",
            1000 => "NEWSRV6LOCALSID",
            1001 => "DELSRV6LOCALSID",
            2000 => "NEWPICCONTEXT",
            2001 => "DELPICCONTEXT",
            3000 => "NEWSRV6VPNROUTE",
            3001 => "DELSRV6VPNROUTE",
            4000 => "NEWSIDLIST",
            4001 => "DELSIDLIST",
            5000 => "NEWNHGFIB",
            5001 => "DELNHGFIB",
            6000 => "NEWNHTEVENT",
            _ => return None,
        })
    }

    /// Whether it is one of SONiC's own.
    pub const fn is_sonic(self) -> bool {
        self.name().is_some() && matches!(self.0, 143..=148 | 1000..)
    }

    /// Whether it is netlink's own and says nothing of routes.
    pub const fn is_control(self) -> bool {
        self.0 < Self::FIRST_OF_FAMILY
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}
