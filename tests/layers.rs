//! Imports point down, and the pure core knows no sockets, no clock and no netlink crate. Reads the `use` lines and paths.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// The pure core in the order of a turn: none imports a later one.
const PURE: [&str; 8] = [
    "model",
    "config",
    "rib",
    "view",
    "resolve",
    "plan",
    "reconcile",
    "engine",
];

/// What the other modules may see of this crate.
const OTHERS: [(&str, &[&str]); 5] = [
    ("wire", &["model"]),
    ("source", &["wire", "model"]),
    ("kernel", &["wire", "model"]),
    ("admin", &["engine", "config", "model", "wire", "daemon"]),
    ("state", &["resolve", "model"]),
];

/// What no pure module names.
const IMPURE: [&str; 14] = [
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::io::Read",
    "std::thread",
    "std::os",
    "Instant::now",
    "SystemTime",
    "tokio::",
    "tonic::",
    "prost::",
    "netlink_",
    "nix::",
    "socket2",
];

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The module's code without comments and without tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap().to_owned();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn modules_named(code: &str) -> Vec<&str> {
    let names = code.match_indices("crate::").map(|(at, found)| {
        let rest = &code[at + found.len()..];
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        &rest[..end]
    });
    names
        .filter(|name| {
            PURE.contains(name)
                || OTHERS.iter().any(|(other, _)| other == name)
                || *name == "daemon"
        })
        .collect()
}

#[test]
fn imports_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (at, module) in PURE.iter().enumerate() {
        check(&src, module, &PURE[..=at], &mut wrong);
    }
    for (module, seen) in OTHERS {
        let mut allowed = seen.to_vec();
        allowed.push(module);
        check(&src, module, &allowed, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(src: &Path, module: &str, allowed: &[&str], wrong: &mut Vec<String>) {
    let mut list = Vec::new();
    files(&src.join(module), &mut list);
    for path in list {
        let code = code(&path);
        for name in modules_named(&code) {
            if !allowed.contains(&name) {
                wrong.push(format!("{} names crate::{name}", path.display()));
            }
        }
    }
}

#[test]
fn the_core_is_pure() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for module in PURE {
        let mut list = Vec::new();
        files(&src.join(module), &mut list);
        for path in list {
            let code = code(&path);
            for word in IMPURE {
                assert!(!code.contains(word), "{} names {word}", path.display());
            }
        }
    }
}
