//! [`Fault`]: one thing that is wrong with the configuration, with file, line and key path; and [`Faults`], all of them.
//! The texts are for the operator: what is wrong, and what is allowed instead.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In which file.
    pub file: Arc<Path>,
    /// In which line, from 1, where that is known.
    pub line: Option<usize>,
    /// The path of the key: `kernel.metric`.
    pub key: Option<String>,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The file that was asked for is not there.
    Missing,
    /// A directory, a pipe, a device.
    NotAFile,
    /// The file can't be read.
    Unreadable(io::ErrorKind),
    /// The file is not UTF-8, from this byte on.
    NotUtf8 {
        /// Offset of the first bad byte.
        offset: usize,
    },
    /// Not TOML, in the parser's words.
    Syntax(String),
    /// No such key.
    UnknownKey {
        /// A key that was perhaps meant.
        suggestion: Option<&'static str>,
    },
    /// A key of the contract whose feature does not exist yet.
    NotInThisRelease,
    /// A value of another type.
    Type {
        /// What is there: `a list`.
        found: &'static str,
        /// What should be there.
        allowed: String,
    },
    /// A value that is not among those allowed.
    Value {
        /// What is there.
        found: String,
        /// What may be there.
        allowed: String,
    },
    /// A value of the contract whose feature does not exist yet.
    ValueNotInThisRelease {
        /// What is there.
        found: String,
        /// What may be there.
        allowed: String,
    },
    /// A key that has no default is not there.
    Required {
        /// What may be there.
        allowed: String,
    },
    /// The value alone is fine, but not here.
    Conflict {
        /// What it collides with.
        why: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl FaultKind {
    /// What may stand there instead, where that can be said.
    pub fn allowed(&self) -> Option<&str> {
        match self {
            Self::Type { allowed, .. }
            | Self::Required { allowed }
            | Self::Value { allowed, .. }
            | Self::ValueNotInThisRelease { allowed, .. } => Some(allowed),
            Self::Conflict { allowed, .. } => Some(allowed),
            Self::Missing
            | Self::NotAFile
            | Self::Unreadable(_)
            | Self::NotUtf8 { .. }
            | Self::Syntax(_)
            | Self::UnknownKey { .. }
            | Self::NotInThisRelease => None,
        }
    }
}

impl fmt::Display for FaultKind {
    /// What is wrong, without what is allowed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no such file"),
            Self::NotAFile => f.write_str("is not a file"),
            Self::Unreadable(kind) => write!(f, "can't be read: {kind}"),
            Self::NotUtf8 { offset } => write!(f, "not UTF-8 text (byte {offset})"),
            Self::Syntax(text) => write!(f, "not TOML: {text}"),
            Self::UnknownKey {
                suggestion: Some(key),
            } => write!(f, "unknown key; did you mean {key}?"),
            Self::UnknownKey { suggestion: None } => f.write_str("unknown key"),
            Self::NotInThisRelease => f.write_str("not in this release"),
            Self::Type { found, .. } => write!(f, "{found} can't stand here"),
            Self::Value { found, .. } => write!(f, "{found:?} is not allowed"),
            Self::ValueNotInThisRelease { found, .. } => {
                write!(f, "{found:?} is not in this release")
            }
            Self::Required { .. } => f.write_str("is missing"),
            Self::Conflict { why, .. } => f.write_str(why),
        }
    }
}

impl fmt::Display for Fault {
    /// `FILE:LINE: KEY: what is wrong (allowed: ...)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.kind)?;
        if let Some(allowed) = self.kind.allowed() {
            write!(f, " (allowed: {allowed})")?;
        }
        Ok(())
    }
}

/// Every fault of a configuration, in the order of files and lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    /// A line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}
