//! One port for every HTTP protocol, plain or in TLS: accepts, bounds and ends connections. What a request means is
//! the [`router`](crate::router)'s affair.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::patience::{Patient, Waiting};
use crate::router::Router;
use crate::tls::Tls;

/// How long a client may take to send a request's head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take from connecting to its first request, which HTTP/2 has no limit for.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a TLS handshake may take. There are as many at once as there may be connections.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What every TLS connection begins with: a record of the handshake (RFC 8446). No HTTP request does.
const TLS_HANDSHAKE: u8 = 0x16;
/// Largest head of a request.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Most headers of a request.
const HEADERS_MAX: usize = 128;
/// Requests that one HTTP/2 connection may have under way.
const H2_STREAMS_MAX: u32 = 256;
/// Window of one HTTP/2 stream: a `PutRecords` body without waiting for the window to open.
const H2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Window of one HTTP/2 connection.
const H2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How often an HTTP/2 connection is asked whether it is alive.
const H2_PING_EVERY: Duration = Duration::from_secs(60);
/// How long requests under way may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(20);

/// Listens on `address`; the error says which setting to change.
pub(crate) async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("another program listens there; stop it, or choose another {flag}")
            }
            std::io::ErrorKind::PermissionDenied => format!("choose a port above 1023 for {flag}"),
            std::io::ErrorKind::AddrNotAvailable => {
                format!("this machine has no such address; change {flag}")
            }
            _ => format!("change {flag}"),
        };
        anyhow!("cannot listen on {address}: {error}; {hint}")
    })
}

/// How the connections of a listener are served.
struct Serving {
    http: Builder<TokioExecutor>,
    router: Arc<Router>,
    tls: Arc<Tls>,
    watcher: Watcher,
}

/// Serves until `shutdown`, then lets requests under way end.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Arc<Router>,
    tls: Arc<Tls>,
    connections_max: u32,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections_max as usize));
    let graceful = GracefulShutdown::new();
    let http = builder();
    loop {
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (Ok(place), Ok(stream)) = (place, accepted(stream).await) else { continue };
        let serving = Serving {
            http: http.clone(),
            router: Arc::clone(&router),
            tls: Arc::clone(&tls),
            watcher: graceful.watcher(),
        };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            serving.greet(stream, shutdown).await;
            drop(place);
        });
    }
    drop(listener);
    if timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests still under way after {} s were cut off", GRACE.as_secs());
    }
}

impl Serving {
    /// Serves a connection, in TLS if that is what it begins with. The place of one that says nothing
    /// is not held for it.
    async fn greet(self, stream: TcpStream, shutdown: CancellationToken) {
        let mut first = [0];
        let spoken = tokio::select! {
            () = shutdown.cancelled() => return,
            spoken = timeout(FIRST_REQUEST_TIMEOUT, stream.peek(&mut first)) => spoken,
        };
        let Ok(Ok(1..)) = spoken else { return };
        let socket = Patient::new(stream);
        if first[0] != TLS_HANDSHAKE {
            return self.run(socket).await;
        }
        let shaken = tokio::select! {
            () = shutdown.cancelled() => return,
            shaken = timeout(HANDSHAKE_TIMEOUT, self.tls.acceptor().accept(socket)) => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => self.run(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let asked = Arc::new(Notify::new());
        let asks = Arc::clone(&asked);
        let waiting = Arc::new(Waiting::default());
        let replies = Arc::clone(&waiting);
        let router = self.router;
        let service = service_fn(move |request| {
            asks.notify_one();
            let (router, replies) = (Arc::clone(&router), Arc::clone(&replies));
            async move {
                let reply = router.answer(request).await;
                Ok::<_, Infallible>(reply.map(|body| replies.watch(body)))
            }
        });
        let serving = self.http.serve_connection(TokioIo::new(stream), service).into_owned();
        let serving = self.watcher.watch(serving);
        let mut serving = pin!(serving);
        let idle = async {
            if timeout(FIRST_REQUEST_TIMEOUT, asked.notified()).await.is_ok() {
                waiting.too_long().await;
            }
        };
        tokio::select! {
            ended = &mut serving => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended with an error");
                }
            }
            // One that asks for nothing may not hold a place, one that reads nothing no replies.
            () = idle => tracing::debug!("a connection whose client does nothing was ended"),
        }
    }
}

async fn accepted(result: std::io::Result<(TcpStream, SocketAddr)>) -> std::io::Result<TcpStream> {
    match result {
        Ok((stream, _)) => {
            // A reply is one write; waiting to fill a packet only adds latency.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Err(error) => {
            // Out of descriptors, most likely: without a pause this loop would spin.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(error)
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_headers(HEADERS_MAX)
        // Without `pipeline_flush`, which copies a reply whole into a buffer of the connection's, as
        // fast as it is made and whether or not the client reads.
        .max_buf_size(HEADER_BYTES_MAX.max(8192));
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(H2_PING_EVERY);
    http
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures::stream;
    use http::{Request, Response};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use hyper::body::Incoming;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];
    const PIECES: usize = 64;

    #[tokio::test]
    async fn a_reply_is_made_no_faster_than_its_client_reads() {
        let (mut client, ours) = duplex(1 << 10);
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let service = service_fn(move |_: Request<Incoming>| {
            let counter = Arc::clone(&counter);
            let pieces = (0..PIECES).map(move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(&PIECE)))
            });
            async move { Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(pieces)))) }
        });
        let http = builder();
        let serving = http.serve_connection(TokioIo::new(Patient::new(ours)), service);
        let serving = async { serving.await.map_err(|error| error.to_string()) };
        let reading = async {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
            let mut read = 0;
            let mut buffer = vec![0; 16 << 10];
            loop {
                // As many as fit the connection's buffer, and the one that is written from.
                let ahead = made.load(Ordering::SeqCst).saturating_sub(read / PIECE.len());
                assert!(ahead <= 3, "{ahead} pieces ahead of {read} bytes");
                match client.read(&mut buffer).await? {
                    0 => return std::io::Result::Ok(read),
                    bytes => read += bytes,
                }
            }
        };
        let (served, read) = tokio::join!(serving, reading);
        assert_eq!(served, Ok(()));
        assert!(read.unwrap() > PIECES * PIECE.len());
    }
}
