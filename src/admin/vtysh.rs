//! FRR's settings, for `doctor`: asked of `vtysh` by the command line, with a time limit, and never by the daemon, which runs
//! nothing. A host without `vtysh` is no error; nor is a command that this FRR does not know.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::model::{FrrAnswer, FrrSettings, FrrVersion};

/// All commands together.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where `dplane_fpm_nl` dials if it is not told.
const FPM_PORT: u16 = 2620;

/// Asks the FRR of this host; `None` where there is no `vtysh`. Blocks for as long as the limit says.
pub(super) fn ask() -> Option<FrrAnswer> {
    let until = Instant::now() + PATIENCE;
    let say = |command: &str| run("vtysh", &["-c", command], until);
    let modules = match say("show modules") {
        Ok(text) => text,
        Err(Trouble::Absent) => return None,
        Err(Trouble::Silent) => return Some(FrrAnswer::Silent),
    };
    if !modules.contains("zebra") {
        return Some(FrrAnswer::NotRunning);
    }
    let texts = [
        "show running-config",
        "show fpm status json",
        "show version",
    ]
    .map(say);
    let [Ok(config), Ok(fpm), Ok(version)] = texts else {
        return Some(FrrAnswer::Silent);
    };
    Some(FrrAnswer::Settings(settings(
        &modules, &config, &fpm, &version,
    )))
}

enum Trouble {
    Absent,
    Silent,
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self::Absent
    }
}

/// What a command prints, whatever it ends with: one that is not known prints nothing of use.
fn run(program: &str, arguments: &[&str], until: Instant) -> Result<String, Trouble> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let Some(mut stdout) = child.stdout.take() else {
        return Err(Trouble::Absent);
    };
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        // What was printed before an error still counts.
        let _ = stdout.read_to_end(&mut text);
        // Nobody waits any more when the time is over.
        let _ = sender.send(text);
    });
    let text = received.recv_timeout(until.saturating_duration_since(Instant::now()));
    finish(child);
    let text = text.map_err(|_| Trouble::Silent)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// It has closed its output, or its time is over.
fn finish(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

fn settings(modules: &str, config: &str, fpm: &str, version: &str) -> FrrSettings {
    let lines = || config.lines().map(str::trim);
    let fpm = fpm.replace(' ', "");
    let address = lines().find_map(|line| line.strip_prefix("fpm address "));
    // It can be set and not be in force: zebra 10.3 forgets one that comes right after a `no`.
    let address = address.filter(|_| !fpm.contains("\"disabled\":true"));
    let version = version.split_once("FRRouting ");
    // 10.x also says what is in force; 8.4 knows only its configuration.
    let off = lines().any(|line| line == "no fpm use-next-hop-groups")
        || fpm.contains("\"useNHG\":false");
    FrrSettings {
        version: version.and_then(|(_, text)| FrrVersion::parse(text)),
        fpm_module: modules.contains("dplane_fpm_nl"),
        fpm_address: address.and_then(parse_address),
        nexthop_groups: !off,
        suppress_fib_pending: lines().any(|line| line == "bgp suppress-fib-pending"),
    }
}

/// `127.0.0.1`, `127.0.0.1 port 2621`.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let mut words = text.split_ascii_whitespace();
    let ip: IpAddr = words.next()?.parse().ok()?;
    let port = match (words.next(), words.next()) {
        (Some("port"), Some(port)) => port.parse().ok()?,
        _ => FPM_PORT,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Lines of FRR 10.3.
    const MODULES: &str = "Module information for zebra:\nlibfrr       10.3\ndplane_fpm_nl 0.0.1  Data plane plugin\n";
    const CONFIG: &str =
        "Current configuration:\n!\nfrr version 10.3\nfpm address 127.0.0.1\n!\nrouter bgp 65001\n";
    const VERSION: &str = "FRRouting 10.3 (vm) on Linux(6.18.44).\nCopyright\n";

    #[test]
    fn settings_are_read_as_frr_prints_them() {
        let plain = settings(MODULES, CONFIG, "{\n  \"useNHG\":true,\n}", VERSION);
        assert_eq!(plain.version, FrrVersion::parse("10.3"));
        assert_eq!(plain.fpm_address, Some("127.0.0.1:2620".parse().unwrap()));
        assert!(plain.fpm_module && plain.nexthop_groups && !plain.suppress_fib_pending);
        let config = "fpm address 192.0.2.1 port 2700\nno fpm use-next-hop-groups\nrouter bgp 1\n bgp suppress-fib-pending\n";
        let other = settings("zebra 8.4.4", config, "% Unknown command", "");
        assert_eq!(other.fpm_address, Some("192.0.2.1:2700".parse().unwrap()));
        assert!(!other.fpm_module && !other.nexthop_groups && other.suppress_fib_pending);
        assert_eq!(other.version, None);
        let off = settings(
            MODULES,
            CONFIG,
            "{ \"useNHG\": false, \"disabled\": true }",
            VERSION,
        );
        assert!(!off.nexthop_groups && off.fpm_address.is_none());
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let begin = Instant::now();
        let until = begin + Duration::from_millis(50);
        let said = run("sleep", &["60"], until);
        assert!(matches!(said, Err(Trouble::Silent)));
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert!(matches!(
            run("no-such-program-here", &[], until),
            Err(Trouble::Absent)
        ));
    }
}
