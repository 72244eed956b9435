//! Generates the protobuf code and the version string; nothing else.
//! Needs no `protoc`, and no git: a build from a tarball has a version without commit, or the one in
//! `FRR_OFFLOAD_COMMIT`, which packagers may set.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROTOS: [&str; 2] = ["proto/admin.proto", "proto/fpm.proto"];
const NORTHBOUND_PROTO: &str = "proto/northbound.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    generate_protobuf()?;
    generate_northbound()?;
    set_version();
    Ok(())
}

fn generate_protobuf() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let files = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        // The command line's JSON is the message itself.
        .type_attribute(".frr_offload.admin", "#[derive(serde::Serialize)]")
        // Sorted keys, so that output is stable.
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}

fn generate_northbound() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={NORTHBOUND_PROTO}");
    let files = protox::compile([NORTHBOUND_PROTO], ["proto"])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        // A view of the message that was received, not a copy.
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}

fn set_version() {
    println!("cargo::rerun-if-env-changed=FRR_OFFLOAD_COMMIT");
    let version = env!("CARGO_PKG_VERSION");
    let commit = std::env::var("FRR_OFFLOAD_COMMIT").ok().or_else(commit);
    match commit.filter(|commit| !commit.is_empty()) {
        Some(commit) => println!("cargo::rustc-env=FRR_OFFLOAD_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=FRR_OFFLOAD_VERSION={version}"),
    }
}

/// The commit, if this folder is the top of a git work tree and not a tarball unpacked inside of one.
fn commit() -> Option<String> {
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if top.canonicalize().ok()? != here.canonicalize().ok()? {
        return None;
    }
    // HEAD names the branch, its log grows with every commit. Naming a file that is not there would rebuild always.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=7", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
