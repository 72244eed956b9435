//! What a step cost: wall clock, CPU by thread, memory; and when a process has become quiet.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether a process still works: the resolution of every wall time.
const LOOK: Duration = Duration::from_millis(3);
/// A process that used less than [`IDLE_CPU`] for so long is quiet, unless it says that it is not done.
const QUIET: Duration = Duration::from_millis(90);
const IDLE_CPU: Duration = Duration::from_micros(300);
/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(1200);

/// CPU time by name of thread.
pub type Cpu = BTreeMap<String, Duration>;

/// What the threads of processes have had of the CPUs.
#[derive(Debug, Clone, Default)]
struct Usage {
    cpu: Cpu,
    waited: Duration,
}

/// What a step cost.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    pub wall: Duration,
    pub cpu: Cpu,
    /// How long threads were ready and had no CPU: because of each other, or of what else runs on this machine.
    pub waited: Duration,
}

impl Cost {
    pub fn cpu_total(&self) -> Duration {
        self.cpu.values().sum()
    }
}

impl Usage {
    fn of(processes: &[u32]) -> Self {
        let mut usage = Self::default();
        for process in processes {
            let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
                continue;
            };
            for task in tasks.flatten() {
                let read = |file| fs::read_to_string(task.path().join(file));
                // A thread may end while we look.
                if let (Ok(name), Ok(stat)) = (read("comm"), read("schedstat")) {
                    let [ran, waited] = nanos(&stat);
                    *usage.cpu.entry(name.trim().to_owned()).or_default() += ran;
                    usage.waited += waited;
                }
            }
        }
        usage
    }

    fn total(&self) -> Duration {
        self.cpu.values().sum()
    }

    fn since(self, before: &Self, wall: Duration) -> Cost {
        let cpu = self.cpu.into_iter().map(|(name, cpu)| {
            let old = before.cpu.get(&name).copied().unwrap_or_default();
            (name, cpu.saturating_sub(old))
        });
        Cost {
            wall,
            cpu: cpu.collect(),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

/// `/proc/PID/schedstat`: time on a CPU, and time waiting for one.
fn nanos(stat: &str) -> [Duration; 2] {
    let mut fields = stat.split(' ').map(|n| n.parse().unwrap_or(0));
    [(); 2].map(|()| Duration::from_nanos(fields.next().unwrap_or(0)))
}

/// Measures what the calling thread does itself.
pub fn here(name: &str, act: impl FnOnce()) -> Cost {
    let usage = || {
        let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let [ran, waited] = nanos(&stat);
        Usage {
            cpu: [(name.to_owned(), ran)].into(),
            waited,
        }
    };
    let before = usage();
    let started = Instant::now();
    act();
    let wall = started.elapsed();
    usage().since(&before, wall)
}

/// `VmHWM` or another line of `/proc/PID/status`, in bytes.
pub fn memory(process: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let value = status.lines().find_map(|l| l.strip_prefix(line));
    let kib = value.and_then(|v| {
        v.trim_matches([':', ' ', '\t'])
            .split(' ')
            .next()?
            .parse()
            .ok()
    });
    kib.map_or(0, |kib: u64| kib * 1024)
}

/// Does something that processes then work on, and waits until they are quiet and `done` agrees.
pub fn until_quiet<T>(
    processes: &[u32],
    act: impl FnOnce() -> T,
    mut done: impl FnMut() -> bool,
) -> (Cost, T) {
    let before = Usage::of(processes);
    let started = Instant::now();
    let result = act();
    let mut seen = Usage::of(processes).total();
    let mut at_work = Instant::now();
    loop {
        thread::sleep(LOOK);
        let now = Usage::of(processes);
        let total = now.total();
        if total > seen + IDLE_CPU {
            (seen, at_work) = (total, Instant::now());
        } else if at_work.elapsed() >= QUIET {
            if done() {
                return (now.since(&before, at_work - started), result);
            }
            seen = Usage::of(processes).total();
            at_work = Instant::now();
        }
        assert!(started.elapsed() < PATIENCE, "never done");
    }
}

pub fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    percentile(values, 50)
}

pub fn percentile<T: Ord + Copy>(values: &mut [T], percent: usize) -> T {
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
