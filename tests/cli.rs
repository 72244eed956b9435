//! The program from outside: output, exit codes, and what becomes of a reader who leaves.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("frr-offload-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is no reason to fail a test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frr-offload"));
    command.args(args).env_remove("FRR_OFFLOAD_SOCKET");
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn check(file: &Path, more: &[&str]) -> Output {
    let mut args = vec!["check", "--config", file.to_str().unwrap()];
    args.extend(more);
    run(&args)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn check_says_ok_and_what_is_in_force() {
    let dir = Folder::new("ok");
    let main = dir.write("config.toml", "setup = 'takeover'\nkernel.metric = 5\n");
    dir.write("config.d/20-late.toml", "kernel.metric = 8\n");
    dir.write("config.d/10-early.toml", "kernel.metric = 7\n");
    dir.write("config.d/30-not-toml.bak", "???");
    let output = check(&main, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.starts_with("ok: ") && text.contains("metric 8"),
        "{text}"
    );
    assert!(text.contains("takeover"), "{text}");
    let offload = "\n  offload  auto, switches auto, ports *\n           \
                   layout auto, capacity auto, first priority auto, hosts yes, ECMP in up to 256 buckets\n";
    assert!(text.contains(offload), "{text}");

    let output = check(&main, &["--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], true);
    let files = answer["files"].as_array().unwrap();
    let names: Vec<_> = files
        .iter()
        .map(|f| f.as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(names, ["config.toml", "10-early.toml", "20-late.toml"]);
}

#[test]
fn only_files_of_config_d_are_read() {
    let dir = Folder::new("odd");
    let main = dir.write("config.toml", "");
    // What editors leave behind for a moment.
    dir.write("config.d/.#10.toml", "???");
    let output = check(&main, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    // Whoever opened it would wait for somebody to write.
    let fifo = main.with_file_name("config.d").join("20.toml");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let output = check(&main, &[]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.starts_with(&format!("{}: is not a file\n", fifo.display())),
        "{text}"
    );
}

#[test]
fn check_reports_every_fault_and_exits_2() {
    let dir = Folder::new("bad");
    let main = dir.write("config.toml", "setup = 'both'\n[xdp]\nmode = 'off'\n");
    let more = dir.write("config.d/a.toml", "kernel.metrc = 10\n");
    let output = check(&main, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    let text = stderr(&output);
    let (main, more) = (main.display(), more.display());
    assert_eq!(
        text,
        format!(
            "{main}:1: setup: \"both\" is not allowed (allowed: takeover, beside, observe)\n\
             {main}:3: xdp.mode: not in this release\n\
             {more}:1: kernel.metrc: unknown key; did you mean kernel.metric?\n\
             3 faults in the configuration\n"
        )
    );

    let output = run(&["check", "--json", "--config", &main.to_string()]);
    assert_eq!(output.status.code(), Some(2));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["faults"][1]["key"], "xdp.mode");
    assert_eq!(answer["faults"][1]["line"], 3);
    assert_eq!(answer["faults"][0]["allowed"], "takeover, beside, observe");
}

#[test]
fn a_daemon_with_a_faulty_configuration_does_not_start() {
    let dir = Folder::new("run");
    let main = dir.write("config.toml", "kernel.protocol = 186\n");
    let output = run(&["run", "--config", main.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("kernel.protocol"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn files_that_are_no_text_or_not_there_are_one_line_each() {
    let dir = Folder::new("files");
    let missing = check(&dir.0.join("none.toml"), &[]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("none.toml: no such file"));

    let binary = check(&dir.write("config.toml", b"setup = '\xff'"), &[]);
    assert_eq!(binary.status.code(), Some(2));
    assert!(
        stderr(&binary).contains("not UTF-8 text (byte 9)"),
        "{}",
        stderr(&binary)
    );

    let folder = check(&dir.0, &[]);
    assert_eq!(folder.status.code(), Some(2));
    assert!(
        stderr(&folder).contains("can't be read"),
        "{}",
        stderr(&folder)
    );

    let empty = check(&dir.write("config.toml", ""), &[]);
    assert_eq!(empty.status.code(), Some(0));
}

#[test]
fn an_absent_daemon_is_exit_3_and_says_where_it_was_looked_for() {
    let dir = Folder::new("absent");
    let configured = dir.0.join("configured.sock");
    let main = dir.write(
        "config.toml",
        format!("admin.socket = '{}'", configured.display()),
    );
    let main = main.to_str().unwrap();
    for args in [
        &["show", "routes"][..],
        &["show", "status", "--json"],
        &["show", "offload", "--summary"],
        &["show", "ports"],
        &["show", "counters"],
        &["show", "counters", "eth0", "--json"],
        &["explain", "192.0.2.1"],
        &["plan"],
        &["plan", "--full", "--json"],
        &["doctor"],
        &["log", "debug"],
    ] {
        let output = command(args).args(["--config", main]).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert_eq!(stdout(&output), "");
        assert!(
            stderr(&output).contains("configured.sock: No such file"),
            "{}",
            stderr(&output)
        );
    }

    let mut show = command(&["show", "status", "--config", main]);
    let output = show
        .env("FRR_OFFLOAD_SOCKET", dir.0.join("env.sock"))
        .output()
        .unwrap();
    assert!(stderr(&output).contains("env.sock"), "{}", stderr(&output));
    let output = show
        .arg("--socket")
        .arg(dir.0.join("given.sock"))
        .output()
        .unwrap();
    assert!(
        stderr(&output).contains("given.sock"),
        "{}",
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn wrong_usage_is_exit_2() {
    for args in [
        &[][..],
        &["shwo"],
        &["show"],
        &["show", "routes", "10.0.0.1/8"],
        &["show", "routes", "--longer"],
        &["show", "offload", "--kind", "rule"],
        &["show", "counters", "eth0", "eth1"],
        &["explain", "router"],
        &["explain", "192.0.2.1", "--vrf", "red", "--table", "5"],
        &["plan", "10.0.0.0/8"],
        &["log", "inof"],
    ] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn help_lists_what_works_and_nothing_else() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for word in [
        "run",
        "check",
        "show",
        "explain",
        "doctor",
        "plan",
        "resync",
        "flush",
        "decode",
        "replay",
        "log",
        "completions",
    ] {
        assert!(text.contains(&format!("\n  {word} ")), "{word} in {text}");
    }
    for word in ["top", "man"] {
        assert!(!text.contains(&format!("\n  {word} ")), "{word} in {text}");
    }
    let show = stdout(&run(&["show", "--help"]));
    for word in ["offload", "ports", "acl", "counters"] {
        assert!(show.contains(&format!("\n  {word} ")), "{word} in {show}");
    }
}

#[test]
fn decode_tells_a_whole_stream_from_a_damaged_one() {
    let dir = Folder::new("decode");
    let whole = dir.write("whole.bin", []);
    let output = run(&["decode", "--rib", "--json", whole.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(table["routes"], Value::Array(Vec::new()));

    let damaged = dir.write("damaged.bin", [9, 1, 0, 4]);
    let output = run(&["decode", "--rib", "--json", damaged.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(table["errors"][0]["offset"], 0);

    let missing = dir.0.join("none.bin");
    let output = run(&["decode", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("No such file"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn replay_needs_a_listener() {
    let dir = Folder::new("replay");
    let stream = dir.write("whole.bin", []);
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = unused.local_addr().unwrap();
    drop(unused);
    let main = dir.write("config.toml", format!("fpm.listen = '{addr}'"));
    let args = [
        "replay",
        stream.to_str().unwrap(),
        "--config",
        main.to_str().unwrap(),
    ];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    assert!(text.contains(&format!("can't connect to {addr}")), "{text}");
}

#[test]
fn the_version_is_told() {
    let text = stdout(&run(&["-V"]));
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        text.starts_with(&format!("frr-offload {version}")),
        "{text}"
    );
}

#[test]
fn completions_and_manual_pages_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output);
        assert!(
            text.contains("neighbours") && text.contains("nexthops"),
            "{text}"
        );
    }
    assert_eq!(run(&["completions", "csh"]).status.code(), Some(2));

    let dir = Folder::new("manual");
    let output = run(&["man", dir.0.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let page = |name: &str| fs::read_to_string(dir.0.join(name)).unwrap();
    let main = page("frr-offload.8");
    for words in [
        "frr\\-offload\\-show(8)",
        "SH FILES",
        "can\\*(Aqt be reached",
    ] {
        assert!(main.contains(words), "{words} in {main}");
    }
    assert!(!main.contains("offload\\-man"), "{main}");
    assert!(page("frr-offload-show-routes.8").contains("\\-\\-longer"));
    assert!(!dir.0.join("frr-offload-man.8").exists());
    let nowhere = run(&["man", "/nowhere/at/all"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("/nowhere/at/all"));
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let dir = Folder::new("pipe");
    let main = dir.write("config.toml", "");
    let mut child = command(&["check", "--config", main.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}
