//! The daemon as a user runs it, fed over TCP as zebra does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::measure::{Cost, until_quiet};
use crate::netns::eventually;
use crate::world::World;

/// What zebra hands to one `write` at most is about this.
const WRITE: usize = 64 << 10;

/// A running daemon, and the connection of "zebra".
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    stream: TcpStream,
}

impl Daemon {
    pub fn start(world: &World, kernel: &str) -> Self {
        // zebra reads what it is told; here nobody cares.
        Self::start_heard(world, kernel, |_| {})
    }

    /// The same; `hear` is given what it answers, as it comes.
    pub fn start_heard(
        world: &World,
        kernel: &str,
        mut hear: impl FnMut(&[u8]) + Send + 'static,
    ) -> Self {
        let socket = world.dir.join("admin.sock");
        let config = world.file(
            "config.toml",
            &format!(
                "[kernel]\n{kernel}\n[admin]\nsocket = {:?}\n[log]\nfilter = \"warn\"\n",
                socket.display().to_string()
            ),
        );
        let child = Command::new(env!("CARGO_BIN_EXE_frr-offload"))
            .arg("run")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let stream = eventually("the daemon", || TcpStream::connect("127.0.0.1:2620").ok());
        stream.set_nodelay(true).unwrap();
        let mut reader = stream.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                hear(&buffer[..len]);
            }
        });
        Self {
            child,
            socket,
            stream,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn status(&self) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_frr-offload"))
            .arg("--socket")
            .arg(&self.socket)
            .args(["show", "status", "--json"])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Whether it says that `routes` are wanted, and all that can be are in the kernel.
    pub fn is_done(&self, routes: usize) -> bool {
        let status = self.status();
        let kernel = &status["kernel"];
        kernel["wanted"] == routes && kernel["pending"] == 0
    }

    /// Sends frames; gives the longest that a single write was held up.
    pub fn send(&mut self, frames: &[u8]) -> Duration {
        let mut stall = Duration::ZERO;
        for part in frames.chunks(WRITE) {
            let started = Instant::now();
            self.stream.write_all(part).unwrap();
            stall = stall.max(started.elapsed());
        }
        stall
    }

    /// Sends frames and waits until their routes are in the kernel.
    pub fn play(&mut self, frames: &[u8], routes: usize) -> (Cost, Duration) {
        let pid = self.pid();
        let mut stall = Duration::ZERO;
        let this = std::cell::RefCell::new(self);
        let (cost, ()) = until_quiet(
            &[pid],
            || stall = this.borrow_mut().send(frames),
            || this.borrow().is_done(routes),
        );
        (cost, stall)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Killed, not ended: it would take its time to save its state.
        if let Err(error) = self.child.kill() {
            eprintln!("the daemon: {error}");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("the daemon: {error}");
        }
    }
}
