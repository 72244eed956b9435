//! README and docs against the program: links lead somewhere, what is typed is understood, TOML is accepted, and every key,
//! command and reason that there is stands where it is looked for.
//!
//! What the commands do is shown by labs (`tests/lab/documented.sh`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use frr_offload::admin::args::Args;
use frr_offload::config;
use frr_offload::model::Reason;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All texts for readers, by their path in the project.
fn texts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs"), root().join("frr-conf")];
    folders.extend([root().join("docker"), root().join("packaging")]);
    let mut files = vec![root().join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
    }
    found
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// A fenced block: what stands after the fence, and its lines.
struct Block {
    line: usize,
    info: String,
    lines: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match (line.trim_start().strip_prefix("```"), open) {
            (Some(_), Some(_)) => open = None,
            (Some(info), None) => {
                open = Some(indent);
                found.push(Block {
                    line: number + 1,
                    info: info.to_owned(),
                    lines: Vec::new(),
                });
            }
            (None, Some(indent)) => {
                let line = line.get(indent..).unwrap_or_default();
                found.last_mut().unwrap().lines.push(line.to_owned());
            }
            (None, None) => {}
        }
    }
    found
}

/// As renderers of Markdown make anchors: words in small letters, with dashes.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let kept: String = heading.to_lowercase().chars().filter(kept).collect();
    kept.replace(' ', "-")
}

fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    for (file, text) in texts() {
        for target in text.split("](").skip(1) {
            let target = target.split(')').next().unwrap();
            if target.contains("://") || target.contains(' ') {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                root().join(&file)
            } else {
                root().join(file.parent().unwrap()).join(path)
            };
            let found = path.exists()
                && (fragment.is_empty()
                    || fs::read_to_string(&path)
                        .is_ok_and(|text| anchors(&text).iter().any(|have| have == fragment)));
            if !found {
                faults.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// `run=r1` and `run=sw` are run by labs; `run=lab/NAME` says that a lab of that name does what the block says, `run=none why=...`
/// that none can.
#[test]
fn every_block_of_commands_says_what_runs_it() {
    let mut faults = Vec::new();
    for (file, text) in texts() {
        for block in blocks(&text) {
            let mut words = block.info.split(' ');
            if !matches!(words.next(), Some("sh" | "bash" | "console" | "shell")) {
                continue;
            }
            let run = words.find_map(|word| word.strip_prefix("run="));
            let known = match run {
                Some("r1" | "sw") => true,
                Some("none") => block.info.contains(" why="),
                Some(lab) => ["tests/lab", "tests/vm-lab", "tests"].iter().any(|folder| {
                    lab.strip_prefix("lab/")
                        .is_some_and(|name| root().join(folder).join(name).is_dir())
                }),
                None => false,
            };
            if !known {
                faults.push(format!("{}:{}: {}", file.display(), block.line, block.info));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What follows `frr-offload` in a line that is typed, up to where the shell takes over.
fn arguments(line: &str) -> Option<Vec<&str>> {
    let typed = line.trim_start();
    let typed = typed.split_once("# ").map_or(typed, |(before, after)| {
        // A prompt, `# ` or `sw# `; or a comment after the command.
        if before.contains(' ') { before } else { after }
    });
    let typed = typed
        .trim_start_matches("$ ")
        .trim_start_matches("sudo ")
        .trim();
    let rest = typed.strip_prefix("frr-offload ")?;
    let ends =
        |word: &&str| !(word.starts_with(['|', '>', '&', ';', '<', '(']) || word.starts_with("2>"));
    Some(
        rest.split_whitespace()
            .take_while(ends)
            .map(|word| word.trim_end_matches(';'))
            .collect(),
    )
}

#[test]
fn what_is_typed_is_understood() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for (file, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let typed = line.trim_start();
            let prompt = typed.starts_with("# frr-offload ")
                || typed.starts_with("$ frr-offload ")
                || typed.split_once("# ").is_some_and(|(host, rest)| {
                    !host.contains([' ', '`', '|']) && rest.starts_with("frr-offload ")
                });
            let inside = blocks(&text).iter().any(|block| {
                (block.info.starts_with("sh ") || block.info == "sh")
                    && (block.line..=block.line + block.lines.len()).contains(&(number + 1))
            });
            if !(prompt
                || inside
                    && typed
                        .trim_start_matches("sudo ")
                        .starts_with("frr-offload "))
            {
                continue;
            }
            seen += 1;
            let words = arguments(line).unwrap();
            let parsed =
                Args::try_parse_from(std::iter::once("frr-offload").chain(words.iter().copied()));
            if let Err(error) = parsed
                && !matches!(
                    error.kind(),
                    ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
                )
            {
                faults.push(format!(
                    "{}:{}: {words:?}: {error}",
                    file.display(),
                    number + 1
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 40, "only {seen} commands: are they looked for?");
}

#[test]
fn configuration_that_is_shown_is_accepted() {
    let folder = std::env::temp_dir().join(format!("frr-offload-docs-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for (file, text) in texts() {
        for block in blocks(&text) {
            if block.info != "toml" {
                continue;
            }
            let path = folder.join("config.toml");
            fs::write(&path, block.lines.join("\n")).unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_frr-offload"))
                .args(["check", "--config", path.to_str().unwrap()])
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}:{}: {}",
                file.display(),
                block.line,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn everything_is_documented() {
    let (readme, troubleshooting) = (text("README.md"), text("docs/troubleshooting.md"));
    let mut missing: Vec<String> = Vec::new();
    let options: Vec<_> = readme
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for key in config::keys() {
        let row = [format!("| `{key}` "), format!("| `[[{key}]]` ")];
        if !options
            .iter()
            .any(|line| row.iter().any(|row| line.starts_with(row)))
        {
            missing.push(format!("README.md: {key}"));
        }
    }
    for command in Args::command().get_subcommands() {
        let name = command.get_name();
        if !command.is_hide_set()
            && !options
                .iter()
                .any(|line| line.starts_with(&format!("| `{name}")))
        {
            missing.push(format!("README.md: {name}"));
        }
    }
    for reason in Reason::ALL {
        if !troubleshooting.contains(&format!("`{}`", reason.code())) {
            missing.push(format!("| `{}` | {} | |", reason.code(), reason.text()));
        }
    }
    assert!(missing.is_empty(), "not documented: {missing:#?}");
}
