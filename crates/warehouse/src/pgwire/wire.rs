//! The messages of the PostgreSQL protocol 3.0: those of a client decoded, ours encoded.
//!
//! Written here because a length that lies must be an error, never a panic, and because what may be
//! read before a client has proved who it is must be small.
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest packet of a client that has not proved who it is (PostgreSQL's own bound).
pub(super) const STARTUP_BYTES_MAX: usize = 10_000;
/// Largest message of a client that has: a statement with its values.
pub(super) const CLIENT_BYTES_MAX: usize = 16 << 20;
/// Most bytes of a message taken from the socket at once: memory follows what has arrived, not what
/// a header promises.
const READ_BYTES_MAX: usize = 64 << 10;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Why a client's bytes cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Malformed(&'static str),
    #[error("message of {0} bytes is longer than {1}")]
    TooLong(usize, usize),
}

/// What a client may send first, without a type byte.
#[derive(Debug)]
pub(super) enum Opening {
    /// Wants TLS or GSS encryption; the answer is one byte.
    Encryption,
    /// Wants another connection's statement stopped.
    Cancel { process: u32, secret: u32 },
    /// Wants a session.
    Startup { minor: u16, parameters: BTreeMap<String, String> },
}

/// A client's message after the start.
#[derive(Debug)]
pub(super) enum Frontend {
    Password(Bytes),
    Query(String),
    Parse {
        statement: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        portal: bool,
        name: String,
    },
    Execute {
        portal: String,
        rows_max: usize,
    },
    Close {
        portal: bool,
        name: String,
    },
    Flush,
    Sync,
    Terminate,
    /// COPY data outside of a COPY, which PostgreSQL ignores.
    Copy,
}

/// A client's Bind.
#[derive(Debug)]
pub(super) struct Bind {
    pub(super) portal: String,
    pub(super) statement: String,
    pub(super) formats: Vec<i16>,
    pub(super) values: Vec<Option<Bytes>>,
    pub(super) results: Vec<i16>,
}

/// Reads the first packet, of at most [`STARTUP_BYTES_MAX`]. `None`: the client left.
pub(super) async fn read_opening(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Opening>, WireError> {
    let Some(length) = read_length(from).await? else { return Ok(None) };
    let mut body = read_body(from, length, STARTUP_BYTES_MAX).await?;
    match body.u32()? {
        SSL_REQUEST | GSS_REQUEST => Ok(Some(Opening::Encryption)),
        CANCEL_REQUEST => Ok(Some(Opening::Cancel { process: body.u32()?, secret: body.u32()? })),
        version if version >> 16 == 3 => {
            let mut parameters = BTreeMap::new();
            loop {
                let name = body.string()?;
                if name.is_empty() {
                    break;
                }
                parameters.insert(name, body.string()?);
            }
            Ok(Some(Opening::Startup { minor: version as u16, parameters }))
        }
        _ => Err(WireError::Malformed("unsupported frontend protocol: this server speaks 3.0")),
    }
}

/// Reads one message of at most `bytes_max`. `None`: the client left between two messages.
pub(super) async fn read_message(
    from: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> Result<Option<Frontend>, WireError> {
    let kind = match from.read_u8().await {
        Ok(kind) => kind,
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let length = from.read_u32().await? as usize;
    let body = read_body(from, length, bytes_max).await?;
    decode(kind, body).map(Some)
}

async fn read_length(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<usize>, WireError> {
    match from.read_u32().await {
        Ok(length) => Ok(Some(length as usize)),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn read_body(
    from: &mut (impl AsyncRead + Unpin),
    length: usize,
    bytes_max: usize,
) -> Result<Body, WireError> {
    let Some(length) = length.checked_sub(4) else {
        return Err(WireError::Malformed("invalid message length"));
    };
    if length > bytes_max {
        return Err(WireError::TooLong(length, bytes_max));
    }
    let mut body = BytesMut::with_capacity(length.min(READ_BYTES_MAX));
    while body.len() < length {
        let mut rest = from.take((length - body.len()) as u64);
        if rest.read_buf(&mut body).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(Body(body.freeze()))
}

fn decode(kind: u8, mut body: Body) -> Result<Frontend, WireError> {
    let decoded = match kind {
        b'p' => return Ok(Frontend::Password(body.0)),
        b'd' | b'c' | b'f' => return Ok(Frontend::Copy),
        b'Q' => Frontend::Query(body.string()?),
        b'P' => {
            let (statement, sql) = (body.string()?, body.string()?);
            let types = body.list(|body| body.u32())?;
            Frontend::Parse { statement, sql, types }
        }
        b'B' => Frontend::Bind(Bind {
            portal: body.string()?,
            statement: body.string()?,
            formats: body.list(|body| body.u16().map(|format| format as i16))?,
            values: body.list(Body::value)?,
            results: body.list(|body| body.u16().map(|format| format as i16))?,
        }),
        b'D' => Frontend::Describe { portal: body.is_portal()?, name: body.string()? },
        b'C' => Frontend::Close { portal: body.is_portal()?, name: body.string()? },
        b'E' => Frontend::Execute { portal: body.string()?, rows_max: body.u32()? as i32 as usize },
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        b'F' => return Err(WireError::Malformed("the function call protocol is not supported")),
        _ => return Err(WireError::Malformed("invalid frontend message type")),
    };
    if body.0.has_remaining() {
        return Err(WireError::Malformed("invalid message format"));
    }
    Ok(decoded)
}

/// A message's body, read from the front.
struct Body(Bytes);

impl Body {
    const SHORT: WireError = WireError::Malformed("insufficient data left in message");

    fn u8(&mut self) -> Result<u8, WireError> {
        self.0.try_get_u8().map_err(|_| Self::SHORT)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.0.try_get_u16().map_err(|_| Self::SHORT)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.0.try_get_u32().map_err(|_| Self::SHORT)
    }

    fn bytes(&mut self, length: usize) -> Result<Bytes, WireError> {
        if length > self.0.len() {
            return Err(Self::SHORT);
        }
        Ok(self.0.split_to(length))
    }

    fn string(&mut self) -> Result<String, WireError> {
        let end = self.0.iter().position(|&b| b == 0).ok_or(Self::SHORT)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(text.into())
            .map_err(|_| WireError::Malformed("invalid byte sequence for encoding \"UTF8\""))
    }

    fn value(&mut self) -> Result<Option<Bytes>, WireError> {
        match self.u32()? as i32 {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Self::SHORT)?;
                self.bytes(length).map(Some)
            }
        }
    }

    fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.u16()?;
        (0..count).map(|_| each(self)).collect()
    }

    fn is_portal(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            b'P' => Ok(true),
            b'S' => Ok(false),
            _ => Err(WireError::Malformed("invalid Describe or Close message subtype")),
        }
    }
}

/// The name and password-exchange data of a SASLInitialResponse.
pub(super) fn sasl_initial(body: Bytes) -> Result<(String, Bytes), WireError> {
    let mut body = Body(body);
    let mechanism = body.string()?;
    let data = body.value()?.unwrap_or_default();
    Ok((mechanism, data))
}

/// A column, as RowDescription tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) oid: u32,
    pub(super) size: i16,
    pub(super) modifier: i32,
    pub(super) format: i16,
}

/// How loud an ErrorResponse or a NoticeResponse is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Fatal,
    Error,
    Warning,
    Notice,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// Messages to the client, until they are flushed.
#[derive(Debug, Default)]
pub(super) struct Backend {
    pub(super) buffer: BytesMut,
}

impl Backend {
    /// A message of a type byte and a body; the length is filled in afterwards.
    pub(super) fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        self.buffer.put_u8(kind);
        let start = self.buffer.len();
        self.buffer.put_u32(0);
        body(&mut self.buffer);
        let length = (self.buffer.len() - start) as u32;
        self.buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    pub(super) fn bare(&mut self, kind: u8) {
        self.message(kind, |_| {});
    }

    pub(super) fn authentication(&mut self, code: u32, data: &[u8]) {
        self.message(b'R', |b| {
            b.put_u32(code);
            b.put_slice(data);
        });
    }

    pub(super) fn negotiate_version(&mut self, options: &[&str]) {
        self.message(b'v', |b| {
            b.put_u32(0);
            b.put_u32(options.len() as u32);
            options.iter().for_each(|option| put_string(b, option));
        });
    }

    pub(super) fn parameter(&mut self, name: &str, value: &str) {
        self.message(b'S', |b| {
            put_string(b, name);
            put_string(b, value);
        });
    }

    pub(super) fn key(&mut self, process: u32, secret: u32) {
        self.message(b'K', |b| {
            b.put_u32(process);
            b.put_u32(secret);
        });
    }

    /// `in_block`: whether a BEGIN is open.
    pub(super) fn ready(&mut self, in_block: bool) {
        self.message(b'Z', |b| b.put_u8(if in_block { b'T' } else { b'I' }));
    }

    pub(super) fn complete(&mut self, tag: &str) {
        self.message(b'C', |b| put_string(b, tag));
    }

    pub(super) fn parameter_types(&mut self, types: &[u32]) {
        self.message(b't', |b| {
            b.put_u16(types.len() as u16);
            types.iter().for_each(|&oid| b.put_u32(oid));
        });
    }

    pub(super) fn fields(&mut self, fields: &[Field]) {
        self.message(b'T', |b| {
            b.put_u16(fields.len() as u16);
            for field in fields {
                put_string(b, &field.name);
                b.put_u32(0);
                b.put_u16(0);
                b.put_u32(field.oid);
                b.put_i16(field.size);
                b.put_i32(field.modifier);
                b.put_i16(field.format);
            }
        });
    }

    pub(super) fn diagnostic(&mut self, severity: Severity, report: &Report) {
        let kind = match severity {
            Severity::Fatal | Severity::Error => b'E',
            Severity::Warning | Severity::Notice => b'N',
        };
        self.message(kind, |b| {
            for (code, text) in [
                (b'S', severity.word()),
                (b'V', severity.word()),
                (b'C', report.sqlstate),
                (b'M', &report.message),
                (b'D', report.detail.as_deref().unwrap_or_default()),
            ] {
                if !text.is_empty() {
                    b.put_u8(code);
                    put_string(b, text);
                }
            }
            b.put_u8(0);
        });
    }
}

/// What an ErrorResponse or a NoticeResponse says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) sqlstate: &'static str,
    pub(super) message: String,
    pub(super) detail: Option<String>,
}

impl Report {
    pub(super) fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), detail: None }
    }
}

impl From<crate::session::SqlError> for Report {
    fn from(e: crate::session::SqlError) -> Self {
        let detail = Some(format!("Snowflake error {:06}.", e.code));
        Self { sqlstate: e.sqlstate, message: e.message, detail }
    }
}

/// A C string. A zero byte inside would end it early, and the rest be read as something else.
fn put_string(to: &mut BytesMut, text: &str) {
    for part in text.split('\0') {
        to.put_slice(part.as_bytes());
    }
    to.put_u8(0);
}
