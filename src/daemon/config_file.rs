//! Reads the configuration files: the main file, then `config.d/*.toml` beside it in the order of their names.
//! What they mean is `config`'s business. A missing default file means defaults; a file that somebody named must be there.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::config::{self, Config, ConfigText, DEFAULT_PATH, Fault, FaultKind, Faults};

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigFiles {
    /// The files that could be read, in order.
    pub texts: Vec<ConfigText>,
    /// One for each that could not.
    pub faults: Vec<Fault>,
}

impl ConfigFiles {
    /// Reads `path`, or the default one.
    pub fn read(path: Option<&Path>) -> Self {
        let mut files = Self::default();
        let main = path.unwrap_or(Path::new(DEFAULT_PATH));
        files.add(main, path.is_none());
        match drop_ins(main) {
            Ok(paths) => {
                for path in paths {
                    // Opening a pipe would wait until somebody writes to it.
                    match fs::metadata(&path) {
                        Ok(metadata) if !metadata.is_file() => {
                            files.fault(&path, FaultKind::NotAFile);
                        }
                        _ => files.add(&path, false),
                    }
                }
            }
            Err((dir, error)) => files.fault(&dir, FaultKind::Unreadable(error.kind())),
        }
        files
    }

    /// Reads them again, for a daemon that runs: a main file that is a pipe (`--config <(...)`) can be read only once, and
    /// opening it would wait until somebody writes to it.
    pub fn read_again(path: Option<&Path>) -> Self {
        let main = path.unwrap_or(Path::new(DEFAULT_PATH));
        let is_pipe = |metadata: fs::Metadata| metadata.file_type().is_fifo();
        if fs::metadata(main).is_ok_and(is_pipe) {
            let mut files = Self::default();
            files.fault(main, FaultKind::NotAFile);
            return files;
        }
        Self::read(path)
    }

    /// The configuration, or every fault of reading and of meaning.
    pub fn parse(self) -> Result<Config, Faults> {
        match self.parse_lenient() {
            (config, faults) if faults.is_empty() => Ok(config),
            (_, faults) => Err(Faults(faults)),
        }
    }

    /// The configuration with defaults in place of what is faulty, and every fault.
    pub fn parse_lenient(self) -> (Config, Vec<Fault>) {
        let (config, mut faults) = config::parse_lenient(&self.texts);
        faults.splice(0..0, self.faults);
        (config, faults)
    }

    fn add(&mut self, path: &Path, may_be_missing: bool) {
        match fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => self.texts.push(ConfigText {
                file: path.into(),
                text,
            }),
            Ok(Err(error)) => {
                let offset = error.utf8_error().valid_up_to();
                self.fault(path, FaultKind::NotUtf8 { offset });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !may_be_missing {
                    self.fault(path, FaultKind::Missing);
                }
            }
            Err(error) => self.fault(path, FaultKind::Unreadable(error.kind())),
        }
    }

    fn fault(&mut self, path: &Path, kind: FaultKind) {
        self.faults.push(Fault {
            file: path.into(),
            line: None,
            key: None,
            kind,
        });
    }
}

fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let dir = main.with_file_name("config.d");
    let mut paths = Vec::new();
    match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err((dir, error)),
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(|error| (dir.clone(), error))?.path();
                // Editors keep locks and copies in dot files.
                let hidden = path
                    .file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                if path.extension() == Some(OsStr::new("toml")) && !hidden {
                    paths.push(path);
                }
            }
        }
    }
    paths.sort_unstable();
    Ok(paths)
}
