//! The whole daemon in a folder of its own, and a zebra that is played: for tests in private network namespaces.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::netns::{eventually, ip};

/// A folder, a configuration, a daemon and a zebra that is played.
pub struct Lab {
    pub dir: PathBuf,
    pub daemon: Option<Child>,
    pub zebra: Option<Child>,
}

impl Lab {
    /// With a link, `eth0`, for the routes of a zebra that is played.
    pub fn with_link(name: &str, config: &str) -> Self {
        ip("link add eth0 type veth peer name p0");
        for link in ["eth0", "p0"] {
            ip(&format!("link set {link} up"));
        }
        Self::new(name, config)
    }

    pub fn new(name: &str, config: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("fo-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let lab = Self {
            dir,
            daemon: None,
            zebra: None,
        };
        lab.configure(config);
        lab
    }

    pub fn configure(&self, config: &str) {
        let socket = self.dir.join("admin.sock");
        let text = format!("admin.socket = \"{}\"\n{config}", socket.display());
        fs::write(self.dir.join("config.toml"), text).unwrap();
    }

    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frr-offload"));
        command
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .args(args.split_whitespace());
        command.env_remove("FRR_OFFLOAD_SOCKET");
        command
    }

    pub fn run(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn json(&self, args: &str) -> Option<Value> {
        let output = self.run(args);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    pub fn start(&mut self) {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        self.daemon = Some(self.command("run").stderr(log).spawn().unwrap());
        eventually("the daemon", || self.json("show status --json"));
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.daemon.take().unwrap().wait().unwrap().code()
    }

    pub fn zebra(&mut self, args: &str) {
        let mut command = self.command(&format!("replay --generate {args} --dev eth0 --hold"));
        self.zebra = Some(command.stdout(Stdio::null()).spawn().unwrap());
    }

    pub fn installed(&self, count: u64) {
        eventually("all routes", || {
            let status = self.json("show status --json")?;
            (status["kernel"]["installed"] == count && status["kernel"]["wanted"] == count)
                .then_some(())
        });
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
