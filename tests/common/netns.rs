//! Network namespaces for tests on the real kernel. A test runs in a thread of its own that has left the host's namespace;
//! threads and processes that it starts inherit the new one, and it is gone when the last of them ends: nothing to clean up.

use std::panic::resume_unwind;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// Longer than anything that a test waits for; only a failing test reaches it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test in a namespace with `lo` up, or says aloud that it can't.
pub fn in_netns(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: needs root ({error})");
            return;
        }
        ip("link set lo up");
        // Addresses are usable at once.
        for which in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0").unwrap();
        }
        test();
    });
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Another namespace, to be the other end of a link.
pub struct Peer {
    /// A thread in it, which names it to `ip`.
    pub tid: i32,
    jobs: mpsc::Sender<Job>,
}

impl Peer {
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, tid) = mpsc::channel();
        thread::spawn(move || {
            in_netns(move || {
                ready.send(nix::unistd::gettid().as_raw()).unwrap();
                for job in queue {
                    job();
                }
            });
        });
        let tid = tid.recv().expect("a second namespace");
        Self { tid, jobs }
    }

    /// Runs `job` over there.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.jobs
            .send(Box::new(move || done.send(job()).unwrap()))
            .unwrap();
        result.recv().expect("the peer's job to succeed")
    }

    /// Runs `ip` over there.
    pub fn ip(&self, args: &str) -> String {
        let args = args.to_owned();
        self.run(move || ip(&args))
    }

    /// Joins the two namespaces by a veth pair that is up on both ends, and waits for carrier.
    pub fn connect(&self, here: &str, there: &str) {
        ip(&format!(
            "link add {here} type veth peer name {there} netns {}",
            self.tid
        ));
        self.ip(&format!("link set {there} up"));
        ip(&format!("link set {here} up"));
        eventually("carrier", || {
            (ip_json(&format!("link show {here}"))[0]["operstate"] == "UP").then_some(())
        });
    }

    /// The link-local address of a link over there.
    pub fn link_local(&self, dev: &str) -> String {
        eventually("a link-local address", || {
            let list = self.ip(&format!("-j -6 addr show dev {dev} scope link -tentative"));
            let list: Value = serde_json::from_str(&list).ok()?;
            Some(list[0]["addr_info"][0]["local"].as_str()?.to_owned())
        })
    }
}

/// Runs `ip` and asserts that it succeeds.
pub fn ip(args: &str) -> String {
    let output = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .expect("ip(8) to be installed");
    assert!(
        output.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `ip -j`; nothing at all is an empty list.
pub fn ip_json(args: &str) -> Value {
    let text = ip(&format!("-j -d {args}"));
    if text.trim().is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_str(&text).unwrap()
}

/// Asks until there is an answer.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
