//! A TCP connection, with TLS or without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hydrant_core::capture::Failure;
use postgres_protocol::message::frontend;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::{Access, ServerError};

/// How long a connection is silent before the kernel asks whether the server is still there, how
/// often it asks, and how many unanswered times end the connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

pub(super) enum Socket {
    Plain(Line),
    Tls(Box<TlsStream<Line>>),
}

impl Socket {
    /// Connects and encrypts. The caller bounds the time.
    pub(super) async fn dial(access: &Access) -> Result<Self, ServerError> {
        let Access { host, port, .. } = access;
        let unreachable = |error: io::Error| {
            ServerError::Transient(format!("cannot reach {host} port {port}: {error}"))
        };
        let mut stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let Some(config) = access.tls.clone() else { return Ok(Self::Plain(Line::new(stream))) };

        let name = ServerName::try_from(host.clone())
            .map_err(|_| refused(format!("'{host}' is no name that a certificate can have")))?;
        let mut request = bytes::BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await?;
        // Exactly one byte is read: anything a stranger put behind it becomes part of the handshake.
        match stream.read_u8().await? {
            b'S' => {}
            b'N' => {
                return Err(refused(
                    "the server has no TLS: set ssl = on there, or create the connection with SSL \
                     MODE 'disable' if the network between is trusted"
                        .into(),
                ));
            }
            _ => return Err(ServerError::unexpected("it answered neither S nor N to SSLRequest")),
        }
        let stream = TlsConnector::from(config).connect(name, Line::new(stream)).await;
        stream.map(|stream| Self::Tls(Box::new(stream))).map_err(|error| handshake(&error, host))
    }

    pub(super) fn encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Wakes nobody, whatever arrives, until it is read or written next.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(line) => line.leave(),
            Self::Tls(stream) => stream.get_mut().0.leave(),
        }
    }
}

/// A TCP connection that is watched for what arrives, unless it is left alone.
pub(super) struct Line {
    watched: Option<TcpStream>,
    alone: Option<std::net::TcpStream>,
}

impl Line {
    fn new(stream: TcpStream) -> Self {
        Self { watched: Some(stream), alone: None }
    }

    fn leave(&mut self) -> io::Result<()> {
        if let Some(stream) = self.watched.take() {
            self.alone = Some(stream.into_std()?);
        }
        Ok(())
    }

    fn watch(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Some(stream) = self.alone.take() {
            self.watched = Some(TcpStream::from_std(stream)?);
        }
        self.watched.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().watch()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().watch()?.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written to a TCP connection is on its way.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().watch()?.poll_shutdown(cx)
    }
}

fn refused(text: String) -> ServerError {
    ServerError::failed(Failure::Tls, text)
}

fn handshake(error: &io::Error, host: &str) -> ServerError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let Some(cause) = cause else {
        return ServerError::Transient(format!("the TLS handshake with {host} broke: {error}"));
    };
    let advice = match cause {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            ". Give the connection the certificate of the server's authority with SSL CERTIFICATE \
             AUTHORITY"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => ". Connect by a name that the certificate has, or use SSL MODE 'verify-ca'",
        _ => "",
    };
    refused(format!("the TLS handshake with {host} failed: {cause}{advice}"))
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
