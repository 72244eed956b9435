//! The daemon as a service: what it tells its manager, what it may do and what it gives up, who may change things, and how
//! it ends where it can't begin. Real systemd is in `tests/lab/service`. Skipped aloud without privilege.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

#[path = "common/netns.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod netns;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use frr_offload::config::{self, Config, ConfigText};
use netns::{eventually, in_netns, ip};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_frr-offload");
const UNIT: &str = include_str!("../packaging/frr-offload.service");
/// As the unit has it.
const NET_ADMIN: u64 = 1 << 12;
/// Users and groups that need no entry anywhere.
const SERVICE: &str = "64101";
const READER: &str = "64102";
const WRITER: &str = "64103";

/// A folder that everybody may enter, with a copy of the program: where it was built may be closed to others.
struct Lab {
    dir: PathBuf,
    daemon: Option<Child>,
    zebra: Option<Child>,
}

impl Lab {
    fn new(name: &str, config: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("fo-service-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("frr-offload");
        // By a process of its own: a file that is open for writing here would be so in what other tests start meanwhile,
        // and can't be run then.
        let copied = Command::new("cp").arg(BINARY).arg(&program).status();
        assert!(copied.unwrap().success());
        for path in [&dir, &program] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        let lab = Self {
            dir,
            daemon: None,
            zebra: None,
        };
        fs::create_dir_all(lab.dir.join("run")).unwrap();
        lab.configure(config);
        lab
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("run/admin.sock")
    }

    /// Gives the socket's directory away.
    fn own_run(&self, user: &str) {
        let id = user.parse().ok();
        std::os::unix::fs::chown(self.dir.join("run"), id, id).unwrap();
    }

    fn configure(&self, config: &str) {
        let socket = self.socket();
        let text = format!("admin.socket = '{}'\n{config}", socket.display());
        fs::write(self.dir.join("config.toml"), text).unwrap();
    }

    /// The program, through whatever comes before it.
    fn command(&self, before: &[&str], args: &str) -> Command {
        let program = self.dir.join("frr-offload");
        let mut words: Vec<&str> = before.to_vec();
        words.push(program.to_str().unwrap());
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .args(args.split_whitespace());
        for name in ["FRR_OFFLOAD_SOCKET", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, before: &[&str], args: &str) -> Output {
        self.command(before, args).output().unwrap()
    }

    fn spawn(&mut self, mut command: Command) {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        self.daemon = Some(command.stderr(log).spawn().unwrap());
    }

    fn start(&mut self, before: &[&str]) {
        self.spawn(self.command(before, "run"));
        eventually("the daemon", || self.json("show status --json"));
    }

    fn json(&self, args: &str) -> Option<Value> {
        let output = self.run(&[], args);
        let good = output.status.success();
        good.then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }

    fn end(&mut self) -> Option<i32> {
        self.signal("-TERM");
        self.daemon.take().unwrap().wait().unwrap().code()
    }

    /// A line of `/proc/PID/task/TID/status` of each thread.
    fn of_threads(&self, key: &str) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let value = |task: PathBuf| {
            let status = fs::read_to_string(task.join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim_start_matches(':').trim().to_owned())
        };
        tasks
            .filter_map(|task| value(task.unwrap().path()))
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in [&mut self.zebra, &mut self.daemon].into_iter().flatten() {
            // One that has ended already can't be killed.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a service manager hears.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Self(socket)
    }

    fn hear(&self) -> Option<String> {
        let mut text = [0; 1024];
        let length = self.0.recv(&mut text).ok()?;
        Some(String::from_utf8(text[..length].to_vec()).unwrap())
    }

    /// The first message with this line; the others are let go.
    fn wait_for(&self, start: &str) -> String {
        eventually(start, || {
            self.hear()
                .filter(|text| text.lines().any(|line| line.starts_with(start)))
        })
    }
}

fn as_user<'a>(user: &'a str, groups: &'a str) -> Vec<&'a str> {
    let mut words = vec!["setpriv", "--reuid", user, "--regid", user];
    if groups.is_empty() {
        words.push("--clear-groups");
    } else {
        words.extend(["--groups", groups]);
    }
    words
}

/// As the unit starts it, without systemd.
fn as_service<'a>(groups: &'a str, capabilities: &'a [&'a str]) -> Vec<&'a str> {
    let mut words = as_user(SERVICE, groups);
    words.extend_from_slice(capabilities);
    words
}

const ONLY_NET_ADMIN: [&str; 7] = [
    "--inh-caps",
    "-all,+net_admin",
    "--ambient-caps",
    "-all,+net_admin",
    "--bounding-set",
    "-all,+net_admin",
    "--no-new-privs",
];

fn has_setpriv() -> bool {
    let found = Command::new("setpriv").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: needs setpriv of util-linux");
    }
    found
}

#[test]
fn the_manager_hears_of_start_reload_and_end_and_that_the_engine_turns() {
    in_netns(|| {
        let mut lab = Lab::new("notify", "");
        let manager = Manager::listen(&lab.dir.join("notify.sock"));
        let mut command = lab.command(&[], "run");
        command
            .env("NOTIFY_SOCKET", lab.dir.join("notify.sock"))
            .env("WATCHDOG_USEC", "400000")
            .env_remove("WATCHDOG_PID");
        lab.spawn(command);
        let ready = manager.wait_for("READY=1");
        assert!(
            ready.contains("\nWATCHDOG=1\nSTATUS=zebra is not connected"),
            "{ready}"
        );
        let status = lab.run(&[], "show status");
        assert!(status.status.success(), "what is ready answers at once");

        let mut last = Instant::now();
        for _ in 0..10 {
            manager.wait_for("WATCHDOG=1");
            assert!(last.elapsed() < Duration::from_millis(400));
            last = Instant::now();
        }

        lab.configure("log.filter = 'debug'");
        lab.signal("-HUP");
        let reloading = manager.wait_for("RELOADING=1");
        assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
        manager.wait_for("READY=1");
        lab.configure("log.filter = 5");
        lab.signal("-HUP");
        manager.wait_for("RELOADING=1");
        manager.wait_for("READY=1");

        // All other threads go on.
        let tasks = fs::read_dir(format!("/proc/{}/task", lab.pid())).unwrap();
        let engine = tasks
            .map(|task| task.unwrap().path())
            .find(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == "engine")
            .unwrap();
        let engine = Pid::from_raw(
            engine
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .parse()
                .unwrap(),
        );
        ptrace::seize(engine, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(engine).unwrap();
        waitpid(engine, Some(WaitPidFlag::__WALL)).unwrap();
        while manager.hear().is_some() {}
        let silent = Instant::now();
        while silent.elapsed() < Duration::from_millis(600) {
            assert_eq!(manager.hear(), None, "the engine does not turn");
        }
        ptrace::detach(engine, None).unwrap();
        manager.wait_for("WATCHDOG=1");

        lab.signal("-TERM");
        manager.wait_for("STOPPING=1");
        assert_eq!(lab.daemon.take().unwrap().wait().unwrap().code(), Some(0));
    });
}

#[test]
fn every_thread_has_given_up_what_it_does_not_need() {
    in_netns(|| {
        let mut lab = Lab::new("root", "");
        lab.start(&[]);
        // NET_ADMIN, SYS_PTRACE, CHECKPOINT_RESTORE and DAC_READ_SEARCH, of what root has here.
        let kept = NET_ADMIN | 1 << 19 | 1 << 40 | 1 << 2;
        for key in ["CapPrm", "CapEff", "CapBnd"] {
            let sets = lab.of_threads(key);
            assert!(sets.len() >= 4, "{sets:?}");
            for set in sets {
                let set = u64::from_str_radix(&set, 16).unwrap();
                assert_eq!(set & !kept, 0, "{key} {set:x}");
                assert_ne!(set & NET_ADMIN, 0, "{key} {set:x}");
            }
        }
        for key in ["CapInh", "CapAmb"] {
            assert!(
                lab.of_threads(key)
                    .iter()
                    .all(|set| set == "0000000000000000")
            );
        }
        assert!(lab.of_threads("NoNewPrivs").iter().all(|set| set == "1"));
        assert_eq!(lab.end(), Some(0));
        assert!(!lab.socket().exists());

        // In the directory of the service root would be like anybody else.
        lab.own_run(SERVICE);
        lab.start(&[]);
        assert_eq!(lab.end(), Some(0));
        assert!(!lab.log().contains("can't be saved"), "{}", lab.log());
        assert!(!lab.socket().exists());
    });
}

#[test]
fn a_user_with_net_admin_alone_writes_routes_rules_and_sysctls() {
    in_netns(|| {
        if !has_setpriv() {
            return;
        }
        ip("link add eth0 type veth peer name p0");
        for link in ["eth0", "p0"] {
            ip(&format!("link set {link} up"));
        }
        let config =
            "kernel.multipath_hash = 'l4'\noffload = { mode = 'skip_hw', ports = ['eth0'] }";
        let mut lab = Lab::new("user", config);
        lab.own_run(SERVICE);

        // Without it, nothing is begun.
        let output = lab.run(&as_user(SERVICE, "0"), "run");
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("CAP_NET_ADMIN is missing"), "{said}");

        lab.start(&as_service("0", &ONLY_NET_ADMIN));
        for set in lab.of_threads("CapPrm") {
            assert_eq!(u64::from_str_radix(&set, 16).unwrap(), NET_ADMIN);
        }
        let mut zebra = lab.command(&[], "replay --generate 200 --groups 10 --dev eth0 --hold");
        lab.zebra = Some(zebra.stdout(Stdio::null()).spawn().unwrap());
        eventually("the routes", || {
            (lab.json("show status --json")?["kernel"]["installed"] == 200).then_some(())
        });
        // Absent in a kernel without multipath routes.
        if let Ok(policy) = fs::read_to_string("/proc/sys/net/ipv4/fib_multipath_hash_policy") {
            assert_eq!(policy.trim(), "1");
        }
        assert!(!lab.log().contains("can't be saved"), "{}", lab.log());
        let verdict = |lab: &Lab| {
            let ports = lab.json("show ports --json").unwrap();
            let port = |port: &&Value| port["name"] == "eth0";
            let ports = ports.as_array().unwrap();
            ports.iter().find(port).map(ToString::to_string)
        };
        let with = eventually("the port", || verdict(&lab));
        assert!(!with.contains("can't be read"), "{with}");
        assert_eq!(lab.end(), Some(0));

        // What the group root is for.
        if Path::new("/proc/thread-self/net/ip_tables_names").exists() {
            lab.start(&as_service("", &ONLY_NET_ADMIN));
            eventually("what can't be read", || {
                verdict(&lab).filter(|port| port.contains("can't be read"))
            });
            assert_eq!(lab.end(), Some(0));
        } else {
            eprintln!("SKIPPED in part: this kernel has no ip_tables");
        }
    });
}

#[test]
fn the_group_may_look_and_only_the_other_one_may_change_things() {
    in_netns(|| {
        if !has_setpriv() {
            return;
        }
        let groups = format!("admin.group = '{READER}'\nadmin.write_group = '{WRITER}'");
        let mut lab = Lab::new("groups", &groups);
        lab.start(&[]);
        let socket = fs::metadata(lab.socket()).unwrap();
        assert_eq!(socket.mode() & 0o777, 0o660);
        assert_eq!(socket.gid().to_string(), READER);

        let reader = as_user("64110", READER);
        let both = format!("{READER},{WRITER}");
        let writer = as_user("64110", &both);
        let code = |before: &[&str], args| lab.run(before, args).status.code();
        for args in ["show status", "show routes --json", "plan", "show events"] {
            assert_eq!(code(&reader, args), Some(0), "{args}");
        }
        for args in ["resync", "log debug"] {
            let refused = lab.run(&reader, args);
            assert_eq!(refused.status.code(), Some(1), "{args}");
            let said = String::from_utf8(refused.stderr).unwrap();
            assert!(
                said.contains("you may look") && said.lines().count() == 1,
                "{said}"
            );
            assert_eq!(code(&writer, args), Some(0), "{args}");
            assert_eq!(code(&[], args), Some(0), "root, {args}");
        }
        let stranger = lab.run(&as_user("64110", ""), "show status");
        assert_eq!(stranger.status.code(), Some(3));
        let said = String::from_utf8(stranger.stderr).unwrap();
        assert!(said.contains("only root and the group 64102 may"), "{said}");
        let writer_only = as_user("64110", WRITER);
        assert_eq!(code(&writer_only, "resync"), Some(3), "who may not look");
    });
}

#[test]
fn where_the_socket_or_the_configuration_cant_be_used_nothing_is_begun() {
    in_netns(|| {
        if !has_setpriv() {
            return;
        }
        let lab = Lab::new("bad", "");
        let main = lab.dir.join("config.toml");
        let refused = |before: &[&str], what: &str| {
            let output = lab.command(before, "run").output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            let faults: Vec<_> = said.lines().filter(|line| line.contains(what)).collect();
            assert_eq!(faults.len(), 1, "{what}: {said}");
            assert!(!lab.socket().exists());
        };
        let net_admin = as_service("", &ONLY_NET_ADMIN);

        refused(&net_admin, "run/admin.sock: Permission denied");
        lab.own_run(SERVICE);
        lab.configure(&format!("admin.group = '{READER}'"));
        refused(
            &net_admin,
            "to the group 64102, of which the daemon is no member",
        );
        fs::write(&main, "admin.socket = '/proc/none/admin.sock'").unwrap();
        refused(&[], "can't listen on /proc/none/admin.sock: ");
        fs::write(&main, format!("admin.socket = '/{}'", "x".repeat(107))).unwrap();
        refused(&[], "admin.socket: ");
        lab.configure("admin.group = 'no-such-group'");
        refused(&[], "admin.group: there is no group no-such-group");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        lab.configure(&format!("admin.metrics = '{addr}'"));
        refused(&[], &format!("admin.metrics: can't listen on {addr}"));

        fs::write(&main, b"setup = '\xff'").unwrap();
        refused(&[], "config.toml: not UTF-8 text (byte 9)");
        lab.configure("");
        fs::set_permissions(&main, Permissions::from_mode(0o600)).unwrap();
        refused(&net_admin, "config.toml: can't be read: permission denied");
        fs::remove_file(&main).unwrap();
        refused(&[], "config.toml: no such file");

        let long = format!("run --socket /tmp/{}", "x".repeat(120));
        fs::write(&main, "").unwrap();
        let output = lab.run(&[], &long);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(
            said.contains("a socket's path has at most 107 bytes"),
            "{said}"
        );
    });
}

/// The score that docs/operations.md states; systemd's own opinion of the unit, the lower the better.
#[test]
fn the_unit_is_as_closed_as_is_documented() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/frr-offload.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager", unit])
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: needs systemd-analyze");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let Some((_, score)) = text.split_once("exposure level for frr-offload.service: ") else {
        eprintln!("SKIPPED: this systemd-analyze can't judge a file: {text}");
        return;
    };
    let score: f64 = score.split_whitespace().next().unwrap().parse().unwrap();
    let stated = include_str!("../docs/operations.md")
        .split_once("systemd-analyze security` says ")
        .unwrap()
        .1;
    let stated: f64 = stated.split_whitespace().next().unwrap().parse().unwrap();
    assert!(score <= stated, "{score} is worse than {stated}:\n{text}");
}

#[test]
fn the_unit_says_what_the_daemon_does() {
    for line in [
        "Type=notify",
        "WatchdogSec=30",
        "RestartPreventExitStatus=2",
        "NoNewPrivileges=yes",
        "AmbientCapabilities=CAP_NET_ADMIN",
        "CapabilityBoundingSet=CAP_NET_ADMIN",
    ] {
        assert!(UNIT.lines().any(|have| have == line), "{line}");
    }
}

#[test]
fn the_configuration_to_begin_with_shows_the_defaults() {
    let text = include_str!("../packaging/frr-offload.toml");
    let shown = text.lines().filter_map(|line| line.strip_prefix("# "));
    let shown: Vec<_> = shown
        .filter(|line| line.starts_with('[') || line.contains(" = "))
        .collect();
    assert!(shown.len() > 5, "{shown:?}");
    for text in [text.to_owned(), shown.join("\n")] {
        let file = ConfigText {
            file: Path::new("config.toml").into(),
            text,
        };
        assert_eq!(config::parse(&[file]).unwrap(), Config::default());
    }
}
