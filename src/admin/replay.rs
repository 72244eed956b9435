//! `frr-offload replay`: plays zebra, sends an FPM byte stream to a daemon.
//!
//! The file is looked through first, so that a damaged one is refused with the offset before anything is sent. Frames
//! then go out as they are, as fast as the daemon takes them or at a rate. What the daemon says is read and counted, as
//! zebra does. Knows nothing of what the frames mean.

use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::wire::fpm::{FpmError, Frame, FrameDecoder};

const READ_LEN: usize = 256 * 1024;
/// How long the daemon has to read what is left and close, after everything was sent.
const LINGER: Duration = Duration::from_secs(30);
/// How often the reading side looks whether that time is over.
const READ_PATIENCE: Duration = Duration::from_millis(100);

/// What to send, and how.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The stream.
    pub stream: ReplayStream,
    /// The daemon.
    pub to: SocketAddr,
    /// Frames a second; `None`: as fast as it goes.
    pub rate: Option<NonZeroU32>,
    /// Keep the connection up until the daemon closes it (or the command is interrupted), as zebra does: a daemon keeps
    /// the routes of a closed connection only for a while. Else close and wait until everything was read.
    pub hold: bool,
}

/// A stream of whole frames.
#[derive(Debug, Clone)]
pub enum ReplayStream {
    /// A file.
    File(PathBuf),
    /// One that was generated.
    Generated(Vec<u8>),
}

trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayReport {
    /// Frames sent.
    pub frames: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Bytes that the daemon said.
    pub answered: u64,
    /// From the first byte sent to the last one handed to the system.
    pub sending: Duration,
    /// Whether the daemon has closed its side too: everything was read.
    pub closed: bool,
}

/// Why a replay failed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The file can't be read.
    #[error("{}: can't read it", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no whole FPM stream.
    #[error("{}: not a whole FPM stream", path.display())]
    Stream {
        /// Which.
        path: PathBuf,
        /// Where, and why.
        source: FpmError,
    },
    /// Nobody listens there.
    #[error("can't connect to {to}")]
    Connect {
        /// Where.
        to: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The daemon closed, or the network failed.
    #[error("{to}: the connection broke after {frames} frames")]
    Send {
        /// Where.
        to: SocketAddr,
        /// Frames that were on their way.
        frames: u64,
        /// Why.
        source: io::Error,
    },
}

/// Sends the stream.
pub fn run(options: &ReplayOptions) -> Result<ReplayReport, ReplayError> {
    let ReplayOptions {
        stream,
        to,
        rate,
        hold,
    } = options;
    let generated = Path::new("generated");
    let (path, mut file): (&Path, Box<dyn Source>) = match stream {
        ReplayStream::File(path) => {
            let file = File::open(path).map_err(|source| ReplayError::File {
                path: path.clone(),
                source,
            })?;
            (path, Box::new(file))
        }
        ReplayStream::Generated(bytes) => (generated, Box::new(Cursor::new(bytes))),
    };
    let file_error = |source| ReplayError::File {
        path: path.to_owned(),
        source,
    };
    each_frame(&mut *file, |_| Ok(())).map_err(|error| error.of_file(path))?;
    file.seek(SeekFrom::Start(0)).map_err(file_error)?;

    let to = *to;
    let connect_error = |source| ReplayError::Connect { to, source };
    let stream = TcpStream::connect(to).map_err(connect_error)?;
    stream.set_nodelay(true).map_err(connect_error)?;
    stream
        .set_read_timeout(Some(READ_PATIENCE))
        .map_err(connect_error)?;
    let mut answers = stream.try_clone().map_err(connect_error)?;

    let sent = AtomicBool::new(false);
    let mut report = ReplayReport {
        frames: 0,
        bytes: 0,
        answered: 0,
        sending: Duration::ZERO,
        closed: false,
    };
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_answers(&mut answers, &sent));
        let started = Instant::now();
        let mut pace = Pace {
            started,
            rate: *rate,
        };
        let mut out = BufWriter::with_capacity(READ_LEN, &stream);
        let result = each_frame(&mut *file, |frame| {
            pace.wait(report.frames, &mut out)?;
            out.write_all(frame.bytes)?;
            report.frames += 1;
            report.bytes += frame.bytes.len() as u64;
            Ok(())
        })
        .and_then(|()| out.flush().map_err(Fault::Send))
        .and_then(|()| {
            if *hold {
                Ok(())
            } else {
                stream.shutdown(Shutdown::Write).map_err(Fault::Send)
            }
        });
        // What could not be sent is not tried again when this goes.
        let (_, _unsent) = out.into_parts();
        report.sending = started.elapsed();
        sent.store(result.is_err() || !hold, Ordering::Release);
        let answers = reader.join().unwrap_or_default();
        report.answered = answers.bytes;
        report.closed = answers.closed;
        result
    })
    .map_err(|fault| match fault {
        Fault::Send(source) => ReplayError::Send {
            to,
            frames: report.frames,
            source,
        },
        fault => fault.of_file(path),
    })?;
    Ok(report)
}

/// Ends the reading of the file.
enum Fault {
    Stream(FpmError),
    Read(io::Error),
    Send(io::Error),
}

impl From<FpmError> for Fault {
    fn from(error: FpmError) -> Self {
        Self::Stream(error)
    }
}

impl Fault {
    fn of_file(self, path: &Path) -> ReplayError {
        let path = path.to_owned();
        match self {
            Self::Stream(source) => ReplayError::Stream { path, source },
            Self::Read(source) | Self::Send(source) => ReplayError::File { path, source },
        }
    }
}

fn each_frame(
    file: &mut dyn Source,
    mut on_frame: impl FnMut(Frame<'_>) -> io::Result<()>,
) -> Result<(), Fault> {
    let mut decoder = FrameDecoder::new();
    let mut buffer = vec![0; READ_LEN];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(decoder.finish()?),
            Ok(len) => {
                decoder.push(&buffer[..len], |frame| on_frame(frame).map_err(Fault::Send))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Read(error)),
        }
    }
}

/// Keeps frames from going out before their time.
struct Pace {
    started: Instant,
    rate: Option<NonZeroU32>,
}

impl Pace {
    fn wait(&mut self, frame: u64, out: &mut impl Write) -> io::Result<()> {
        let Some(rate) = self.rate else {
            return Ok(());
        };
        let due = Duration::from_nanos(frame.saturating_mul(1_000_000_000) / u64::from(rate.get()));
        let ahead = due.saturating_sub(self.started.elapsed());
        // Sleeps are not exact below a millisecond: short ones are saved up.
        if ahead > Duration::from_millis(1) {
            out.flush()?;
            thread::sleep(ahead);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Answers {
    bytes: u64,
    closed: bool,
}

/// Reads what the daemon says until it closes; once all was sent, not for ever.
fn read_answers(stream: &mut TcpStream, sent: &AtomicBool) -> Answers {
    let mut answers = Answers::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut deadline = None;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                answers.closed = true;
                return answers;
            }
            Ok(len) => answers.bytes += len as u64,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut => {}
                _ => {
                    answers.closed = true;
                    return answers;
                }
            },
        }
        if sent.load(Ordering::Acquire) {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + LINGER);
            if Instant::now() >= deadline {
                return answers;
            }
        }
    }
}
