//! The TOML as written: files merged into one tree that remembers file and line of every key.
//!
//! A later file wins: its values and lists replace, its tables are merged key by key. Meanings are not known here;
//! `keys` and `validate` judge.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, FaultKind};

/// A configuration file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigText {
    /// Its path, for faults.
    pub file: Arc<Path>,
    /// Its text.
    pub text: String,
}

/// Names to entries. Sorted, so that faults come in a stable order.
pub(super) type Table = BTreeMap<String, Entry>;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    file: Arc<Path>,
    line: usize,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Whole(i64),
    /// An integer that does not fit; its digits.
    Huge(String),
    Float,
    Bool(bool),
    Date,
    List(Vec<Entry>),
    Table(Table),
}

impl Entry {
    /// A fault at this place.
    pub(super) fn fault(&self, key: String, kind: FaultKind) -> Fault {
        Fault {
            file: Arc::clone(&self.file),
            line: Some(self.line),
            key: Some(key),
            kind,
        }
    }
}

impl Value {
    /// What it is, in words.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Whole(_) | Self::Huge(_) => "a number",
            Self::Float => "a number with a fraction",
            Self::Bool(_) => "true or false",
            Self::Date => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// The merged tree.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Raw {
    pub(super) root: Table,
}

impl Raw {
    /// Reads and merges. What can be read of a file with syntax errors is kept, so that its other faults are found too.
    pub(super) fn read(texts: &[ConfigText]) -> (Self, Vec<Fault>) {
        let mut raw = Self::default();
        let mut faults = Vec::new();
        for text in texts {
            let lines = Lines::of(text);
            let (table, errors) = DeTable::parse_recoverable(&text.text);
            faults.extend(errors.into_iter().map(|error| Fault {
                file: Arc::clone(&text.file),
                line: error.span().map(|span| lines.number(&span)),
                key: None,
                kind: FaultKind::Syntax(error.message().trim().replace('\n', "; ")),
            }));
            merge(&mut raw.root, lines.table(table.into_inner()));
        }
        (raw, faults)
    }

    /// The entry of a key such as `kernel.metric`.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        let mut names = key.split('.');
        let mut entry = self.root.get(names.next()?)?;
        for name in names {
            match &entry.value {
                Value::Table(table) => entry = table.get(name)?,
                _ => return None,
            }
        }
        Some(entry)
    }
}

fn merge(into: &mut Table, later: Table) {
    for (name, entry) in later {
        match (into.get_mut(&name).map(|e| &mut e.value), entry.value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(name, Entry { value, ..entry });
            }
        }
    }
}

/// The path of a key. Names that are no bare keys are quoted, so that `"a.b"` is never taken for `a.b`.
pub(super) fn join(parent: &str, name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let dot = if parent.is_empty() { "" } else { "." };
    if bare {
        format!("{parent}{dot}{name}")
    } else {
        format!("{parent}{dot}{name:?}")
    }
}

/// Line numbers of one file.
struct Lines {
    file: Arc<Path>,
    /// Offsets at which lines start, without the first.
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &ConfigText) -> Self {
        let newlines = text.text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Self {
            file: Arc::clone(&text.file),
            starts: newlines.map(|(at, _)| at + 1).collect(),
        }
    }

    fn number(&self, span: &Range<usize>) -> usize {
        self.starts.partition_point(|start| *start <= span.start) + 1
    }

    fn table(&self, table: DeTable<'_>) -> Table {
        let entries = table.into_iter().map(|(name, value)| {
            let line = self.number(&name.span());
            let entry = self.entry(line, value.into_inner());
            (name.into_inner().into_owned(), entry)
        });
        entries.collect()
    }

    fn entry(&self, line: usize, value: DeValue<'_>) -> Entry {
        let value = match value {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(digits) => {
                match i64::from_str_radix(digits.as_str(), digits.radix()) {
                    Ok(number) => Value::Whole(number),
                    Err(_) => Value::Huge(digits.as_str().to_owned()),
                }
            }
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(value) => Value::Bool(value),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(items) => {
                let item = |item: Spanned<DeValue<'_>>| {
                    let line = self.number(&item.span());
                    self.entry(line, item.into_inner())
                };
                Value::List(items.into_iter().map(item).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Entry {
            file: Arc::clone(&self.file),
            line,
            value,
        }
    }
}
