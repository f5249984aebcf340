//! The first bytes of a connection have to come in time: until they tell HTTP/1.1 from HTTP/2, nothing else watches the clock.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What a client of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that breaks off if it is not known in time what is spoken on it.
pub(super) struct FirstBytes<S> {
    stream: S,
    /// How much of the preface has come.
    matched: usize,
    /// Gone as soon as all of the preface has come, or anything else.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> FirstBytes<S> {
    /// Has to be called within a Tokio runtime.
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, matched: 0, deadline: Some(Box::pin(sleep(limit))) }
    }

    fn saw(&mut self, bytes: &[u8]) {
        let rest = &PREFACE[self.matched..];
        let common = rest.len().min(bytes.len());
        self.matched += common;
        if self.matched == PREFACE.len() || rest[..common] != bytes[..common] {
            self.deadline = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(deadline) = &mut self.deadline {
            if read.is_pending() && deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.saw(&buffer.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_millis(20);

    /// What a reader finds after these bytes, on a connection that stays open. `None` if it goes on waiting.
    async fn read_behind(first: &[&[u8]]) -> Option<io::ErrorKind> {
        let (mut client, server) = tokio::io::duplex(1_024);
        let mut server = FirstBytes::new(server, LIMIT);
        for part in first {
            client.write_all(part).await.unwrap();
            let mut found = vec![0; part.len()];
            server.read_exact(&mut found).await.unwrap();
            assert_eq!(found, *part);
        }
        let more = timeout(10 * LIMIT, server.read_u8()).await;
        more.ok().map(|more| more.unwrap_err().kind())
    }

    #[tokio::test]
    async fn whoever_does_not_say_what_it_speaks_is_cut_off() {
        let late = Some(io::ErrorKind::TimedOut);
        assert_eq!(read_behind(&[]).await, late);
        assert_eq!(read_behind(&[b"PRI * "]).await, late);
        assert_eq!(read_behind(&[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r"]).await, late);
    }

    #[tokio::test]
    async fn whoever_has_said_it_may_take_its_time() {
        assert_eq!(read_behind(&[PREFACE]).await, None);
        assert_eq!(read_behind(&[b"PRI * HTTP/2.0\r\n\r\n", b"SM\r\n\r\n"]).await, None);
        assert_eq!(read_behind(&[b"G"]).await, None);
        assert_eq!(read_behind(&[b"PRI * ", b"PROBABLY"]).await, None);
    }
}
