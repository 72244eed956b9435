//! `frr-offload decode`: what an FPM byte stream, or an answer of FRR's northbound gRPC, says, without a daemon.
//!
//! Either a line a message, or (`--rib`) the table that is left at its end. Reads the stream once, in pieces;
//! the line form keeps nothing, the table form keeps the table. Keys of the JSON forms are stable. Unlike the daemon it
//! keys routes by the table as sent (FRR 10's `zebra_fpm` withdraws without one: that is counted and matches no
//! route), applies no filter, and goes on after a damaged message, as the frame after it can be found. It also reads
//! protobuf frames, which the daemon refuses. Here is the reading; what is shown of it is in `lines` and `rib`, and `northbound` has
//! the answers of gRPC.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use thiserror::Error;

use self::lines::decode_lines;
use self::northbound::decode_northbound;
use self::rib::decode_rib;
use crate::model::{MessageKind, Reason};
use crate::wire::fpm::{FpmError, FpmMessage, Frame, FrameDecoder, Payload};
use crate::wire::fpm_pb::{PbMessage, decode_protobuf};
use crate::wire::rtnl_route::Dialect;

mod lines;
mod northbound;
mod rib;

/// How much is read from the file at once.
const READ_LEN: usize = 256 * 1024;
/// What to decode and how to show it.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    /// The stream; `-` is standard input.
    pub file: PathBuf,
    /// The table at the end instead of a line a message.
    pub rib: bool,
    /// The file is the JSON of a northbound answer.
    pub northbound: bool,
    /// JSON instead of text.
    pub json: bool,
}

/// How the stream was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Whole.
    Fine,
    /// Damaged or cut; the output says where.
    Damaged,
}

impl Answer {
    /// For the shell: 1 is bad news.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Damaged => 1,
        }
    }
}

/// Why nothing could be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The file can't be opened.
    #[error("{}: can't open it", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file can't be read.
    #[error("{}: can't read it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output can't be written.
    #[error("can't write the output")]
    Write(#[source] io::Error),
}

/// Decodes a file. A closed pipe on the output is no error.
pub fn run(options: &DecodeOptions, out: &mut dyn Write) -> Result<Answer, DecodeError> {
    let path = &options.file;
    let mut input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|source| DecodeError::Open {
            path: path.clone(),
            source,
        })?)
    };
    let result = if options.northbound {
        decode_northbound(&mut input, options, out)
    } else if options.rib {
        decode_rib(&mut input, options.json, out)
    } else {
        decode_lines(&mut input, options.json, out)
    };
    match result {
        Ok(answer) => Ok(answer),
        Err(Failure::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Answer::Fine),
        Err(Failure::Write(error)) => Err(DecodeError::Write(error)),
        Err(Failure::Read(source)) => Err(DecodeError::Read {
            path: path.clone(),
            source,
        }),
    }
}

/// A failure of this side, not of the stream.
#[derive(Debug)]
enum Failure {
    Read(io::Error),
    Write(io::Error),
}

/// Ends the reading of a stream: its own damage, or a failure of ours.
enum Stop {
    Stream(FpmError),
    Failure(Failure),
}

impl From<FpmError> for Stop {
    fn from(error: FpmError) -> Self {
        Self::Stream(error)
    }
}

/// What the reader of a stream meets, in order.
type Item<'a> = Result<Met<'a>, FpmError>;

/// A message.
enum Met<'a> {
    /// With who is known to speak by now.
    Netlink(MessageKind, FpmMessage<'a>, Dialect),
    Protobuf(PbMessage),
}

/// Where it is met.
#[derive(Clone, Copy)]
struct Place {
    /// Of the frame's header in the stream.
    offset: u64,
    /// Number of the frame, from 1.
    frame: u64,
}

/// Reads a stream to its end, or to where the framing breaks; returns the number of whole frames.
fn read_stream(
    input: &mut dyn Read,
    mut on_item: impl FnMut(Place, Item<'_>) -> Result<(), io::Error>,
) -> Result<u64, Failure> {
    let mut decoder = FrameDecoder::new();
    let mut buffer = vec![0; READ_LEN];
    let mut dialect = Dialect::Unknown;
    let mut frames = 0;
    let mut on_frame = |frame: Frame<'_>| {
        frames += 1;
        let place = Place {
            offset: frame.offset,
            frame: frames,
        };
        let offset = frame.offset;
        let mut on_item = |item: Item<'_>| {
            on_item(place, item).map_err(|error| Stop::Failure(Failure::Write(error)))
        };
        let messages = match frame.payload() {
            Payload::Netlink(messages) => messages,
            Payload::Protobuf(payload) => {
                let message = decode_protobuf(payload).map(Met::Protobuf);
                return on_item(message.map_err(|error| FpmError::NotProtobuf { offset, error }));
            }
        };
        for message in messages {
            on_item(match message {
                Ok(message) => {
                    let kind = MessageKind(message.kind);
                    let classified = FpmMessage::classify(&message, &mut dialect);
                    Ok(Met::Netlink(kind, classified, dialect))
                }
                Err(error) => Err(FpmError::Message { offset, error }),
            })?;
        }
        Ok(())
    };
    let broken = loop {
        let len = match input.read(&mut buffer) {
            Ok(0) => break decoder.finish().err(),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Read(error)),
        };
        match decoder.push(&buffer[..len], &mut on_frame) {
            Ok(()) => {}
            Err(Stop::Stream(error)) => break Some(error),
            Err(Stop::Failure(failure)) => return Err(failure),
        }
    };
    if let Some(error) = broken {
        let place = Place {
            offset: error.offset(),
            frame: frames + 1,
        };
        on_item(place, Err(error)).map_err(Failure::Write)?;
    }
    Ok(frames)
}

/// A message of a right form that is only not supported is no damage of the stream.
const fn is_damage(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::SourceSpecific | Reason::Encapsulation | Reason::BadFamily
    )
}

/// What is wrong with the stream, without the offset that the error's text begins with.
fn reason_of(error: &FpmError) -> String {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((_, reason)) => reason.into(),
        None => text,
    }
}
