//! The log: text or JSON lines on stderr, or fields for journald, with a filter that can be changed while the daemon runs.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, reload};

use super::journal::Journal;
use crate::config::{LogConfig, LogFormat};

/// Changes the filter of the running daemon.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// The error is for the operator.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

/// Starts logging; gives what changes the filter.
pub fn start(config: &LogConfig) -> anyhow::Result<LogHandle> {
    let filter = EnvFilter::try_new(&config.filter).context("log.filter")?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let journal = Journal::of_this_service();
    // Whoever reads standard error there has its own time stamps.
    let stamped = std::env::var_os("JOURNAL_STREAM").is_some();
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false);
    let started = match config.format {
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .with_writer(std::io::stderr)
                    .json()
                    .flatten_event(true),
            )
            .try_init(),
        LogFormat::Auto if journal.is_some() => registry.with(journal).try_init(),
        LogFormat::Auto if stamped => registry.with(text.without_time()).try_init(),
        LogFormat::Auto | LogFormat::Text => registry.with(text).try_init(),
    };
    started.context("can't start logging")?;
    Ok(LogHandle(handle))
}
