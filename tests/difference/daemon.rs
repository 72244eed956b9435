//! The daemon under test, with a configuration and folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;

use super::netns::eventually;

const BINARY: &str = env!("CARGO_BIN_EXE_frr-offload");

pub struct Daemon {
    dir: PathBuf,
    child: Child,
}

impl Daemon {
    pub fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("fo-difference-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("admin.sock");
        let text = format!(
            "setup = \"takeover\"\n[admin]\nsocket = \"{}\"\n",
            socket.display()
        );
        fs::write(dir.join("config.toml"), text).unwrap();
        let daemon = Self {
            child: spawn(&dir),
            dir,
        };
        eventually("the daemon", || daemon.json("show status --json"));
        daemon
    }

    /// Killed without a warning, and another one started; it takes a while.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.dir);
    }

    pub fn json(&self, args: &str) -> Option<Value> {
        let output = command(&self.dir)
            .args(args.split_whitespace())
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    pub fn text(&self, args: &str) -> String {
        let output = command(&self.dir)
            .args(args.split_whitespace())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn spawn(dir: &Path) -> Child {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"));
    command(dir)
        .arg("run")
        .stderr(log.unwrap())
        .spawn()
        .unwrap()
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("--config").arg(dir.join("config.toml"));
    command.env_remove("FRR_OFFLOAD_SOCKET");
    command
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended already can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the end of the daemon's log:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
