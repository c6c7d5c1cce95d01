//! How long a client may leave a reply unread. A reply is handed on in pieces; one whose next piece is
//! not asked for in time ends its connection, and so does a socket that takes nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a client may take for the next piece of a reply of known length.
const PIECE_PATIENCE: Duration = Duration::from_secs(60);
/// How long for that of a stream, whose reader may pause: no subscription lives longer.
const STREAM_PATIENCE: Duration = Duration::from_secs(330);
/// How long a socket may take none of what is to be written.
const SOCKET_PATIENCE: Duration = Duration::from_secs(60);
/// How often the replies of a connection are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Largest piece of a reply.
const PIECE_BYTES: usize = 256 << 10;

/// The replies of one connection that wait for their client, by number, and until when.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    until: Mutex<(u64, BTreeMap<u64, Instant>)>,
}

impl Waiting {
    /// Ends when a reply has waited for its client for too long.
    pub(crate) async fn too_long(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            let now = Instant::now();
            if self.until.lock().1.values().any(|until| *until <= now) {
                return;
            }
        }
    }

    /// A reply whose client is waited for from now on.
    pub(crate) fn watch<B: Body<Data = Bytes>>(self: &Arc<Self>, body: B) -> Watched<B> {
        let patience = match body.size_hint().exact() {
            Some(_) => PIECE_PATIENCE,
            None => STREAM_PATIENCE,
        };
        let mut until = self.until.lock();
        until.0 += 1;
        let number = until.0;
        until.1.insert(number, Instant::now() + patience);
        drop(until);
        Watched { body, left: Bytes::new(), number, patience, waiting: Arc::clone(self) }
    }
}

/// A reply's body, in pieces.
pub(crate) struct Watched<B> {
    body: B,
    /// What is left of a frame that is more than a piece.
    left: Bytes,
    number: u64,
    patience: Duration,
    waiting: Arc<Waiting>,
}

impl<B> Watched<B> {
    fn client_is_waited_for(&self) {
        self.waiting.until.lock().1.insert(self.number, Instant::now() + self.patience);
    }

    fn client_waits(&self) {
        self.waiting.until.lock().1.remove(&self.number);
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        self.client_waits();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.left.is_empty() {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                self.client_waits();
                return Poll::Pending;
            };
            self.client_is_waited_for();
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if data.len() > PIECE_BYTES => self.left = data,
                Some(Ok(Ok(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        self.client_is_waited_for();
        let piece = if self.left.len() > PIECE_BYTES {
            self.left.split_to(PIECE_BYTES)
        } else {
            // A copy, so that the last piece, which nobody watches, does not hold all of them.
            Bytes::copy_from_slice(&std::mem::take(&mut self.left))
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, left) = (self.body.size_hint(), self.left.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(left)) {
            hint.set_upper(upper);
        }
        hint.set_lower(rest.lower().saturating_add(left).min(hint.upper().unwrap_or(u64::MAX)));
        hint
    }
}

/// A socket that fails once it has taken nothing of what is to be written for too long.
pub(crate) struct Patient<S> {
    socket: S,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, stalled: None }
    }

    /// What a write came to, unless it has come to nothing for too long.
    fn judge<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(SOCKET_PATIENCE)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.judge(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.judge(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.judge(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};
    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(1_000);

    #[tokio::test(start_paused = true)]
    async fn a_reply_is_whole_and_in_pieces() {
        let waiting = Arc::new(Waiting::default());
        let sent: Vec<u8> = (0..600_000_u32).map(|n| n as u8).collect();
        let mut body = waiting.watch(Full::new(Bytes::from(sent.clone())));
        assert_eq!(body.size_hint().exact(), Some(600_000));
        let mut got = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PIECE_BYTES);
            got.extend(data);
            assert_eq!(body.size_hint().exact(), Some(600_000 - got.len() as u64));
            assert_eq!(body.is_end_stream(), got.len() == 600_000);
        }
        assert_eq!(got, sent);
        drop(body);
        assert!(timeout(LONG, waiting.too_long()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_nobody_reads_is_noticed() {
        let waiting = Arc::new(Waiting::default());
        // Not read at all, and read in part.
        let body = waiting.watch(Full::new(Bytes::from(vec![0; 600_000])));
        assert!(timeout(PIECE_PATIENCE / 2, waiting.too_long()).await.is_err());
        assert!(timeout(PIECE_PATIENCE, waiting.too_long()).await.is_ok());
        drop(body);
        let mut body = waiting.watch(Full::new(Bytes::from(vec![0; 600_000])));
        for _ in 0..2 {
            assert!(timeout(PIECE_PATIENCE - LOOK_EVERY, waiting.too_long()).await.is_err());
            body.frame().await.unwrap().unwrap();
        }
        assert!(timeout(PIECE_PATIENCE + LOOK_EVERY, waiting.too_long()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_has_nothing_to_say_is_not_the_clients_fault() {
        let waiting = Arc::new(Waiting::default());
        let silent = futures::stream::pending::<Result<Frame<Bytes>, io::Error>>();
        let mut body = waiting.watch(StreamBody::new(silent));
        assert!(timeout(LONG, body.frame()).await.is_err());
        assert!(timeout(LONG, waiting.too_long()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_fails() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let mut socket = Patient::new(ours);
        socket.write_all(b"12345678").await.unwrap();
        let before = Instant::now();
        assert_eq!(socket.write(b"9").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() >= SOCKET_PATIENCE);
    }
}
