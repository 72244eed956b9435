//! FRR's settings, for `doctor`: asked of `vtysh` by the command line, with a time limit, and never by the daemon, which runs
//! nothing. A host without `vtysh` is no error; nor is a command that this FRR does not know.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::model::{FrrAnswer, FrrSettings, FrrVersion};

/// How long FRR may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where `dplane_fpm_nl` dials if it is not told.
const FPM_PORT: u16 = 2620;
/// In one go. The last is not known to FRR 8.4, which ends there.
const QUESTIONS: [&str; 4] = [
    "show modules",
    "show version",
    "show running-config",
    "show fpm status json",
];

/// Asks the FRR of this host; `None` where there is no `vtysh`. Blocks for as long as the limit says.
pub(super) fn ask() -> Option<FrrAnswer> {
    let arguments: Vec<&str> = QUESTIONS.iter().flat_map(|ask| ["-c", ask]).collect();
    match run("vtysh", &arguments, Instant::now() + PATIENCE) {
        Ok(text) if text.contains("Module information for zebra") => {
            Some(FrrAnswer::Settings(settings(&text)))
        }
        Ok(_) => Some(FrrAnswer::NotRunning),
        Err(Trouble::Absent) => None,
        Err(Trouble::Silent) => Some(FrrAnswer::Silent),
    }
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

fn settings(text: &str) -> FrrSettings {
    let lines = || text.lines().map(str::trim);
    let has = |wanted: &str| lines().any(|line| line == wanted);
    // Of the JSON, which has a key a line.
    let says =
        |wanted: &str| lines().any(|line| line.trim_end_matches(',').replace(' ', "") == wanted);
    let address = lines().find_map(|line| line.strip_prefix("fpm address "));
    // It can be set and not be in force: zebra 10.3 forgets one that comes right after a `no`.
    let address = address.filter(|_| !says("\"disabled\":true"));
    let version = lines().find_map(|line| line.strip_prefix("FRRouting "));
    FrrSettings {
        version: version.and_then(FrrVersion::parse),
        fpm_module: lines().any(|line| line.starts_with("dplane_fpm_nl")),
        fpm_address: address.and_then(parse_address),
        // 10.x also says what is in force; 8.4 knows only its configuration.
        nexthop_groups: !has("no fpm use-next-hop-groups") && !says("\"useNHG\":false"),
        suppress_fib_pending: has("bgp suppress-fib-pending"),
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
    const PLAIN: &str = "Module information for zebra:\nlibfrr       10.3\ndplane_fpm_nl 0.0.1  Data plane plugin\n\
        FRRouting 10.3 (vm) on Linux(6.18.44).\nCopyright\nCurrent configuration:\n!\nfrr version 10.3\n\
        fpm address 127.0.0.1\n!\nrouter bgp 65001\n{\n  \"useNHG\":true,\n  \"disabled\":false,\n}\n";

    #[test]
    fn settings_are_read_as_frr_prints_them() {
        let plain = settings(PLAIN);
        assert_eq!(plain.version, FrrVersion::parse("10.3"));
        assert_eq!(plain.fpm_address, Some("127.0.0.1:2620".parse().unwrap()));
        assert!(plain.fpm_module && plain.nexthop_groups && !plain.suppress_fib_pending);
        let other = settings(
            "zebra 8.4.4\nfpm address 192.0.2.1 port 2700\nno fpm use-next-hop-groups\nrouter bgp 1\n \
             bgp suppress-fib-pending\n% Unknown command",
        );
        assert_eq!(other.fpm_address, Some("192.0.2.1:2700".parse().unwrap()));
        assert!(!other.fpm_module && !other.nexthop_groups && other.suppress_fib_pending);
        assert_eq!(other.version, None);
        let off = PLAIN.replace("\"useNHG\":true", "\"useNHG\": false");
        assert!(!settings(&off).nexthop_groups);
        let off = PLAIN.replace("\"disabled\":false", "\"disabled\":true");
        assert_eq!(settings(&off).fpm_address, None);
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
