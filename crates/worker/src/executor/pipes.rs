//! The pipes between a worker and a program.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::spool::{Capture, Channel};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Reads of one pipe before others have a turn.
const READS_MAX: usize = 16;

/// The pipes of a program.
pub(super) struct Pipes {
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
}

/// What is still to be written to a process.
pub(super) struct Input {
    pipe: Sender,
    data: Vec<u8>,
    done: usize,
}

/// What a process still writes.
pub(super) struct Output {
    pipe: Pipe,
    channel: Channel,
}

/// The reading end of a pipe. Does not block.
enum Pipe {
    /// Looked at when its process ends, or when that takes too long: until then the system keeps what is written.
    Unwatched(OwnedFd),
    /// An event of the reactor.
    Watched(Receiver),
    Closed,
}

impl Pipes {
    /// Connects a command that is about to be started: its input if it gets any, and its two outputs.
    pub(super) fn connect(command: &mut Command, input: &[u8]) -> io::Result<Self> {
        let mut stdin = None;
        if input.is_empty() {
            command.stdin(Stdio::null());
        } else {
            let (theirs, ours) = io::pipe()?;
            command.stdin(Stdio::from(theirs));
            let pipe = Sender::from_owned_fd(ours.into())?;
            stdin = Some(Input { pipe, data: input.to_vec(), done: 0 });
        }
        let (stdout, theirs) = Output::pipe(Channel::Stdout)?;
        command.stdout(theirs);
        let (stderr, theirs) = Output::pipe(Channel::Stderr)?;
        command.stderr(theirs);
        Ok(Self { stdin, stdout, stderr })
    }

    /// Takes what is there of both outputs.
    pub(super) fn pump(&mut self, capture: &Capture) {
        self.stdout.pump(capture);
        self.stderr.pump(capture);
    }

    /// Makes both outputs events of the reactor. What can't be watched is lost, and noted.
    pub(super) fn watch(&mut self, notes: &mut Vec<String>) {
        for output in [&mut self.stdout, &mut self.stderr] {
            if let Err(error) = output.watch() {
                notes.push(format!("output not kept: {error}"));
            }
        }
    }

    /// Whether somebody may still write.
    pub(super) fn are_open(&self) -> bool {
        self.stdout.is_open() || self.stderr.is_open()
    }

    /// Waits until the program takes input; for ever if it gets none.
    pub(super) async fn ready_for_input(stdin: Option<&Input>) {
        match stdin {
            Some(input) => drop(input.pipe.writable().await),
            None => std::future::pending().await,
        }
    }

    /// Gives the program what it takes of its input.
    pub(super) fn feed(&mut self) {
        let Some(Input { pipe, data, done }) = &mut self.stdin else { return };
        match pipe.try_write(data.get(*done..).unwrap_or_default()) {
            Ok(written) => *done += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => *done = data.len(), // it does not want the rest
        }
        if *done >= data.len() {
            self.stdin = None;
        }
    }
}

impl Output {
    fn pipe(channel: Channel) -> io::Result<(Self, Stdio)> {
        let (ours, theirs) = io::pipe()?;
        rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        Ok((Self { pipe: Pipe::Unwatched(ours.into()), channel }, Stdio::from(theirs)))
    }

    fn is_open(&self) -> bool {
        !matches!(self.pipe, Pipe::Closed)
    }

    fn watch(&mut self) -> io::Result<()> {
        self.pipe = match std::mem::replace(&mut self.pipe, Pipe::Closed) {
            Pipe::Unwatched(pipe) => Pipe::Watched(Receiver::from_owned_fd_unchecked(pipe)?),
            other => other,
        };
        Ok(())
    }

    /// Waits until there is something to read; for ever if nobody watches the pipe.
    pub(super) async fn ready(&self) {
        match &self.pipe {
            Pipe::Watched(pipe) => drop(pipe.readable().await),
            Pipe::Unwatched(_) | Pipe::Closed => std::future::pending().await,
        }
    }

    /// Takes what is there, but not so much that nobody else has a turn.
    pub(super) fn pump(&mut self, capture: &Capture) {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
        }
        BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..READS_MAX {
                let read = match &self.pipe {
                    Pipe::Unwatched(pipe) => {
                        rustix::io::read(pipe, &mut *buffer).map_err(io::Error::from)
                    }
                    Pipe::Watched(pipe) => pipe.try_read(buffer),
                    Pipe::Closed => return,
                };
                match read {
                    Ok(length @ 1..) => {
                        capture.write(self.channel, buffer.get(..length).unwrap_or_default());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Ok(0) | Err(_) => self.pipe = Pipe::Closed,
                }
            }
        });
    }
}
