//! `doctor`: what the command line saw of FRR on its way in, findings on their way out.

use super::proto;
use crate::engine::report::Finding;
use crate::model::{FrrAnswer, FrrSettings, FrrVersion};

/// What `vtysh` said, for the daemon.
pub(in crate::admin) fn frr_message(answer: &FrrAnswer) -> proto::Frr {
    match *answer {
        FrrAnswer::Silent => proto::Frr {
            silent: true,
            ..proto::Frr::default()
        },
        FrrAnswer::NotRunning => proto::Frr::default(),
        FrrAnswer::Settings(FrrSettings {
            version,
            fpm_module,
            fpm_address,
            nexthop_groups,
            suppress_fib_pending,
        }) => proto::Frr {
            silent: false,
            running: true,
            version: version.map(|version| version.to_string()),
            fpm_module,
            fpm_address: fpm_address.map(|address| address.to_string()),
            nexthop_groups,
            suppress_fib_pending,
        },
    }
}

/// The same at the daemon. What can't be read is as if it was not said.
pub(in crate::admin) fn frr(message: proto::Frr) -> FrrAnswer {
    let proto::Frr {
        silent,
        running,
        version,
        fpm_module,
        fpm_address,
        nexthop_groups,
        suppress_fib_pending,
    } = message;
    match (silent, running) {
        (true, _) => FrrAnswer::Silent,
        (false, false) => FrrAnswer::NotRunning,
        (false, true) => FrrAnswer::Settings(FrrSettings {
            version: version.as_deref().and_then(FrrVersion::parse),
            fpm_module,
            fpm_address: fpm_address.and_then(|address| address.parse().ok()),
            nexthop_groups,
            suppress_fib_pending,
        }),
    }
}

pub(in crate::admin) fn finding(report: Finding) -> proto::Finding {
    let Finding {
        id,
        severity,
        finding,
        fix,
    } = report;
    proto::Finding {
        id: id.to_owned(),
        severity: severity.name().to_owned(),
        finding,
        fix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vtysh_said_arrives_whole() {
        let settings = FrrSettings {
            version: FrrVersion::parse("10.7.1"),
            fpm_module: true,
            fpm_address: Some("127.0.0.1:2620".parse().unwrap()),
            nexthop_groups: false,
            suppress_fib_pending: true,
        };
        for answer in [
            FrrAnswer::Silent,
            FrrAnswer::NotRunning,
            FrrAnswer::Settings(settings),
            FrrAnswer::Settings(FrrSettings {
                version: None,
                fpm_address: None,
                ..settings
            }),
        ] {
            assert_eq!(frr(frr_message(&answer)), answer);
        }
    }
}
