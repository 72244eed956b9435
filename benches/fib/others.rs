//! Others that write the same routes: `ip -batch`, BIRD, and zebra fed by BGP.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::load::{LINKS, Load, Route};
use crate::measure::{Cost, until_quiet};
use crate::netns::{eventually, ip};
use crate::world::World;

/// What a routing daemon did.
pub struct Routed {
    pub steps: Vec<(&'static str, Cost)>,
    /// The process that writes the routes, and still runs.
    pub pid: u32,
    _processes: Vec<Process>,
}

/// Ends with its owner.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(|_| ())) {
            eprintln!("{error}");
        }
    }
}

/// `ip -batch`: adds, replaces, deletes.
pub fn ip_batch(world: &World, load: &Load) -> Vec<(&'static str, Cost)> {
    world.ip(&super::ceiling::objects(load));
    [
        ("add", "add", Some(0)),
        ("replace", "replace", Some(1)),
        ("delete", "del", None),
    ]
    .map(|(step, verb, round)| {
        let mut commands = String::new();
        for route in &load.routes {
            commands += &format!("route {verb} {}/{}", route.addr, route.len);
            if let Some(round) = round {
                commands += &format!(" nhid {}", route.groups[round]);
            }
            commands += " proto 1 metric 10\n";
        }
        let file = world.file("routes", &commands);
        let (cpu, started) = (children(), Instant::now());
        ip(&format!("-batch {}", file.display()));
        let cost = Cost {
            wall: started.elapsed(),
            cpu: [("ip".to_owned(), children().saturating_sub(cpu))].into(),
            ..Cost::default()
        };
        (step, cost)
    })
    .into()
}

/// CPU of all children that have ended. Nothing else ends meanwhile.
fn children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|t| Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()).cast_unsigned()))
        .sum()
}

/// A gateway of a route, one of the links' peers: programs that know no groups spread the routes over these.
fn gateway(route: &Route, round: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, (route.groups[round] as usize % LINKS) as u8, 2)
}

/// BIRD: static routes to the kernel. `None` if it isn't installed.
pub fn bird(world: &World, load: &Load) -> Option<Routed> {
    let bird = find("bird")?;
    let (socket, config) = (world.dir.join("bird.ctl"), world.dir.join("bird.conf"));
    let text = |round: Option<usize>| {
        let mut text = "router id 10.254.0.1;\nprotocol device {}\nprotocol direct { ipv4; }\n\
             protocol kernel { ipv4 { import none; export where source = RTS_STATIC; }; metric 10; }\n\
             protocol static { ipv4;\n"
            .to_owned();
        for route in load.routes.iter().filter(|_| round.is_some()) {
            let via = gateway(route, round.unwrap_or_default());
            text += &format!("route {}/{} via {via};\n", route.addr, route.len);
        }
        text + "}\n"
    };
    fs::write(&config, text(None)).unwrap();
    let process = Process::start(
        Command::new(bird)
            .args(["-f", "-c"])
            .arg(&config)
            .arg("-s")
            .arg(&socket)
            .stderr(Stdio::null()),
    );
    let pid = process.0.id();
    eventually("bird", || socket.exists().then_some(()));
    let steps = [("add", Some(0)), ("replace", Some(1)), ("delete", None)].map(|(step, round)| {
        fs::write(&config, text(round)).unwrap();
        let configure = || {
            let output = Command::new(find("birdc").unwrap())
                .arg("-s")
                .arg(&socket)
                .arg("configure")
                .output();
            assert!(output.unwrap().status.success());
        };
        let wanted = if round.is_some() {
            load.routes.len()
        } else {
            0
        };
        let (cost, ()) = until_quiet(&[pid], configure, || routes_of("bird") == wanted);
        (step, cost)
    });
    Some(Routed {
        steps: steps.into(),
        pid,
        _processes: vec![process],
    })
}

/// zebra with bgpd, and a BGP speaker that knows all routes; one next hop a route. `None` if FRR isn't installed.
pub fn zebra(world: &World, load: &Load) -> Option<Routed> {
    if !PathBuf::from("/usr/lib/frr/zebra").exists() {
        return None;
    }
    for dir in ["run/frr", "etc", "lib", "tmp"] {
        fs::create_dir_all(world.dir.join(dir)).unwrap();
    }
    world.file("etc/zebra.conf", "");
    world.file(
        "etc/bgpd.conf",
        "router bgp 65000\n bgp router-id 10.254.0.1\n neighbor 10.254.0.2 remote-as 65000\n \
         neighbor 10.254.0.2 passive\n neighbor 10.254.0.2 timers 0 0\n",
    );
    // The daemons run as their own user.
    let status = Command::new("chmod")
        .args(["-R", "a+rwX"])
        .arg(&world.dir)
        .status();
    assert!(status.unwrap().success());
    let start = |name: &str| {
        let process = Process::start(
            Command::new("unshare")
                .arg("-m")
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/inside"))
                .arg(&world.dir)
                .arg("/")
                .arg(format!("/usr/lib/frr/{name}"))
                .args(["-A", "127.0.0.1", "-f"])
                .arg(format!("/etc/frr/{name}.conf"))
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let vty = world.dir.join(format!("run/frr/{name}.vty"));
        eventually(name, || vty.exists().then_some(()));
        process
    };
    let zebra = start("zebra");
    let bgpd = start("bgpd");
    let processes = [zebra.0.id(), bgpd.0.id()];
    let mut speaker = Speaker::connect();
    let mut steps = Vec::new();
    for (step, round) in [("add", Some(0)), ("replace", Some(1)), ("delete", None)] {
        let messages = updates(&load.routes, round);
        let wanted = if round.is_some() {
            load.routes.len()
        } else {
            0
        };
        let (cost, ()) = until_quiet(
            &processes,
            || speaker.0.write_all(&messages).unwrap(),
            || routes_of("bgp") == wanted,
        );
        steps.push((step, cost));
    }
    Some(Routed {
        steps,
        pid: processes[0],
        _processes: vec![zebra, bgpd],
    })
}

/// A session with bgpd.
struct Speaker(TcpStream);

impl Speaker {
    fn connect() -> Self {
        let addr = |last| SockAddr::from(std::net::SocketAddr::from(([10, 254, 0, last], 0)));
        let mut to: std::net::SocketAddr = addr(1).as_socket().unwrap();
        to.set_port(179);
        // bgpd hangs up on whom it does not expect yet.
        let (stream, mut reader) = eventually("a BGP session", || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
            socket.bind(&addr(2)).ok()?;
            socket.connect(&to.into()).ok()?;
            let mut stream: TcpStream = socket.into();
            // Version 4, AS 65000, no hold time, router id; no capabilities.
            let open = [4, 0xfd, 0xe8, 0, 0, 10, 254, 0, 2, 0];
            stream.write_all(&message(1, &open)).ok()?;
            stream.write_all(&message(4, &[])).ok()?;
            let mut reader = stream.try_clone().ok()?;
            let mut header = [0; 19];
            // OPEN and KEEPALIVE; whatever comes later is thrown away.
            for kind in [1, 4] {
                reader.read_exact(&mut header).ok()?;
                if header[18] != kind {
                    return None;
                }
                let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
                reader.read_exact(&mut vec![0; len - 19]).ok()?;
            }
            Some((stream, reader))
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while matches!(reader.read(&mut buffer), Ok(1..)) {}
        });
        Self(stream)
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&((body.len() + 19) as u16).to_be_bytes());
    message.push(kind);
    message.extend_from_slice(body);
    message
}

/// As a router packs them: routes of the same next hop together.
fn updates(routes: &[Route], round: Option<usize>) -> Vec<u8> {
    let mut stream = Vec::new();
    let prefix = |out: &mut Vec<u8>, route: &Route| {
        out.push(route.len);
        out.extend_from_slice(&route.addr.octets()[..usize::from(route.len.div_ceil(8))]);
    };
    let Some(round) = round else {
        for part in routes.chunks(800) {
            let mut list = Vec::new();
            for route in part {
                prefix(&mut list, route);
            }
            let mut body = (list.len() as u16).to_be_bytes().to_vec();
            body.extend_from_slice(&list);
            body.extend_from_slice(&[0, 0]);
            stream.extend_from_slice(&message(2, &body));
        }
        return stream;
    };
    for link in 0..LINKS {
        let via = Ipv4Addr::new(10, 255, link as u8, 2);
        let of: Vec<_> = routes.iter().filter(|r| gateway(r, round) == via).collect();
        for part in of.chunks(800) {
            // ORIGIN, AS_PATH, NEXT_HOP, LOCAL_PREF.
            let [a, b, c, d] = via.octets();
            let attributes = [
                0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, a, b, c, d, 0x40, 5, 4, 0, 0, 0, 100,
            ];
            let mut body = vec![0, 0, 0, attributes.len() as u8];
            body.extend_from_slice(&attributes);
            for route in part {
                prefix(&mut body, route);
            }
            stream.extend_from_slice(&message(2, &body));
        }
    }
    stream
}

/// How many routes of a protocol are in the kernel.
pub fn routes_of(protocol: &str) -> usize {
    ip(&format!("-4 route show proto {protocol}"))
        .lines()
        .filter(|line| !line.starts_with(['\t', ' ']))
        .count()
}

fn find(program: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin"]
        .iter()
        .map(|dir| PathBuf::from(dir).join(program))
        .find(|path| path.exists())
}
