//! The program: arguments in, then the daemon, the configuration's check, or the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use frr_offload::admin::BindError;
use frr_offload::admin::args::{Args, Command};
use frr_offload::admin::command::{self, CommandError, Exit};
use frr_offload::admin::decode::DecodeOptions;
use frr_offload::admin::manual;
use frr_offload::admin::metrics::MetricsBindError;
use frr_offload::config::{Config, Faults};
use frr_offload::daemon::{self, config_file::ConfigFiles};

fn main() -> ExitCode {
    let Args {
        config,
        socket,
        command,
    } = Args::parse();
    let files = || ConfigFiles::read(config.as_deref());
    // The other commands report every fault of the configuration themselves.
    let asks = !matches!(
        command,
        Command::Run | Command::Check { .. } | Command::Flush { .. }
    );
    if let Some(path) = config.as_deref().filter(|path| asks && !path.exists()) {
        eprintln!("frr-offload: {}: no such file", path.display());
        return Exit::Usage.into();
    }
    let socket_of = || {
        let given = socket.clone().filter(|path| !path.as_os_str().is_empty());
        given.unwrap_or_else(|| configured_socket(files()))
    };
    let result = match command {
        Command::Run => run(config.clone(), socket.clone()),
        Command::Check { json } => check(files(), json).map_err(anyhow::Error::from),
        Command::Show { what, json } => ask(command::show(&socket_of(), what, json)),
        Command::Explain { question, json } => ask(command::explain(&socket_of(), question, json)),
        Command::Decode {
            file,
            rib,
            northbound,
            json,
        } => command::decode(&DecodeOptions {
            file,
            rib,
            northbound,
            json,
        })
        .map_err(anyhow::Error::from),
        Command::Replay { what, json } => {
            let listener = || files().parse_lenient().0.fpm.listen[0];
            command::replay(what, listener, json).map_err(anyhow::Error::from)
        }
        Command::Doctor { json } => ask(command::doctor(&socket_of(), json)),
        Command::Plan { full, json } => ask(command::plan(&socket_of(), full, json)),
        Command::Resync { json } => ask(command::resync(&socket_of(), json)),
        Command::Flush { dry_run } => flush(files(), dry_run),
        Command::Log { filter } => ask(command::log(&socket_of(), filter)),
        Command::Completions { shell } => manual::completions(shell)
            .map(|()| Exit::Fine)
            .map_err(|error| CommandError::from(error).into()),
        Command::Man { folder } => manual::write_pages(&folder)
            .map(|()| Exit::Fine)
            .with_context(|| folder.display().to_string()),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            let known = error.downcast_ref::<CommandError>();
            if !known.is_some_and(CommandError::is_silent) {
                eprintln!("frr-offload: {error:#}");
            }
            known.map_or(Exit::BadNews, CommandError::exit).into()
        }
    }
}

/// A faulty file must not keep in the kernel what nobody else knows: its faults are told, and defaults stand for them.
fn flush(files: ConfigFiles, dry_run: bool) -> anyhow::Result<Exit> {
    let (config, faults) = files.parse_lenient();
    if !faults.is_empty() {
        command::report_faults(&faults)?;
        eprintln!("frr-offload: going on, with defaults in place of what is faulty");
    }
    daemon::flush::run(config, dry_run).map(|()| Exit::Fine)
}

fn run(path: Option<PathBuf>, socket: Option<PathBuf>) -> anyhow::Result<Exit> {
    let parse = move |files: ConfigFiles| {
        let mut config = files.parse()?;
        if let Some(socket) = &socket {
            config.admin.socket.clone_from(socket);
        }
        Ok(config)
    };
    let first: Result<Config, Faults> = parse(ConfigFiles::read(path.as_deref()));
    let again: daemon::ReadConfig =
        Box::new(move || parse(ConfigFiles::read_again(path.as_deref())));
    match first {
        Ok(config) => match daemon::run(config, &again) {
            Ok(()) => Ok(Exit::Fine),
            // Trying again helps as little as with a file that is wrong.
            Err(error) if is_lasting(&error) => {
                eprintln!("frr-offload: {error}");
                Ok(Exit::Usage)
            }
            Err(error) => Err(error),
        },
        Err(faults) => {
            command::report_faults(&faults.0)?;
            Ok(Exit::Usage)
        }
    }
}

/// Whether an address, a path or a group of the configuration can't be used here.
fn is_lasting(error: &anyhow::Error) -> bool {
    let socket = error.downcast_ref::<BindError>();
    error.is::<MetricsBindError>() || socket.is_some_and(BindError::is_lasting)
}

fn check(files: ConfigFiles, json: bool) -> Result<Exit, CommandError> {
    let paths: Vec<_> = files.texts.iter().map(|text| text.file.clone()).collect();
    let paths: Vec<_> = paths.iter().map(AsRef::as_ref).collect();
    let (config, faults) = files.parse_lenient();
    command::check(&config, &paths, &faults, json)
}

/// A faulty configuration may still say where the daemon is, which perhaps runs with an older one.
fn configured_socket(files: ConfigFiles) -> PathBuf {
    files.parse_lenient().0.admin.socket
}

fn ask(answer: impl Future<Output = Result<Exit, CommandError>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(answer)?)
}
