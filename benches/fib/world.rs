//! A private network namespace with the links p0, p1, ... that are up, and a peer on each in another namespace that
//! answers neighbour discovery as the generated table expects. Nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use crate::load::LINKS;
use crate::netns::{Peer, in_netns, ip};

/// Where something is measured.
pub struct World {
    /// For files; removed at the end.
    pub dir: PathBuf,
    _peer: Peer,
}

impl World {
    /// Runs something in a new one. `None` without root.
    pub fn visit<T: Send + 'static>(visit: impl FnOnce(&World) -> T + Send + 'static) -> Option<T> {
        let (sender, result) = mpsc::channel();
        in_netns(move || {
            let world = Self::new();
            sender.send(visit(&world)).unwrap();
        });
        result.recv().ok()
    }

    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!(
            "frr-offload-bench.{}.{}",
            std::process::id(),
            nix::unistd::gettid()
        ));
        fs::create_dir(&dir).unwrap();
        let peer = Peer::new();
        let (mut here, mut there) = (String::new(), String::new());
        for n in 0..LINKS {
            here += &format!(
                "link add p{n} index {index} type veth peer name q{n} address 02:00:00:10:00:{mac:02x} netns {netns}\n\
                 link set p{n} up\n\
                 address add 10.255.{n}.1/24 dev p{n}\n",
                index = 100 + n,
                mac = n + 1,
                netns = peer.tid,
            );
            there += &format!("link set q{n} up\n");
        }
        // For a BGP session with ourselves.
        here += "address add 10.254.0.1/32 dev lo\naddress add 10.254.0.2/32 dev lo\n";
        batch(&dir, &here, ip);
        batch(&dir, &there, |args| peer.ip(args));
        Self { dir, _peer: peer }
    }

    /// Runs a list of `ip` commands.
    pub fn ip(&self, commands: &str) {
        batch(&self.dir, commands, ip);
    }

    /// A file in the directory.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Else the kernel takes a namespace full of routes apart behind our back, and slowly, while the next is measured.
        ip("nexthop flush");
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

fn batch(dir: &Path, commands: &str, ip: impl Fn(&str) -> String) {
    let file = dir.join("commands");
    fs::write(&file, commands).unwrap();
    ip(&format!("-batch {}", file.display()));
}
