//! Logging in: the startup message, the password in the form the server wants, and a pinned session.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hydrant_core::capture::Failure;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use super::super::connect::VERSION_MIN;
use super::super::error::{During, Report};
use super::super::{Access, ServerError};
use super::pace::Pace;
use super::socket::Socket;
use super::{FRAME_BYTES_MAX, Frame, LOGIN_FRAME_BYTES_MAX, Purpose, Wire};

/// Longest time from the first packet to a session that can be used.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// What every session has, whatever the server, the database or the role prefer: the text of a value
/// is the same from a snapshot and from the stream, and nothing but us ends a session.
const PINNED: &str = "-c DateStyle=ISO -c IntervalStyle=iso_8601 -c TimeZone=UTC \
     -c extra_float_digits=3 -c bytea_output=hex -c xmlbinary=base64 \
     -c standard_conforming_strings=on -c search_path= -c row_security=off \
     -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0";

/// Timeouts that not every version has; a startup option that a server does not know ends the login.
const PINNED_WHERE_KNOWN: &str = "SELECT pg_catalog.set_config(name, '0', false) \
     FROM pg_catalog.pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')";

impl Wire {
    /// Connects, encrypts, logs in and pins the session.
    pub(in super::super) async fn open(
        access: &Access,
        purpose: Purpose,
    ) -> Result<Self, ServerError> {
        // Boxed: the handshake's state is far larger than what stays.
        match timeout(LOGIN_TIMEOUT, Box::pin(Self::log_in(access, purpose))).await {
            Ok(opened) => opened,
            Err(_) => Err(ServerError::Transient(format!(
                "{} port {} has not answered for {} seconds",
                access.host,
                access.port,
                LOGIN_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn log_in(access: &Access, purpose: Purpose) -> Result<Self, ServerError> {
        let mut wire = Self {
            socket: Socket::dial(access).await?,
            pace: Pace::new(),
            read: BytesMut::new(),
            out: BytesMut::new(),
            frame_bytes_max: LOGIN_FRAME_BYTES_MAX,
            pid: 0,
            version: 0,
            asked: false,
        };
        let mut parameters = vec![
            ("user", access.role.as_str()),
            ("database", access.database.as_str()),
            ("application_name", access.application.as_str()),
            ("client_encoding", "UTF8"),
            ("options", PINNED),
        ];
        if purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        wire.queue(|out| frontend::startup_message(parameters, out)).await?;
        wire.authenticate(access).await?;
        wire.settle().await?;
        wire.frame_bytes_max = FRAME_BYTES_MAX;
        if wire.version < VERSION_MIN {
            let text = format!(
                "the server is PostgreSQL {}; 14 or later is needed",
                wire.version / 10_000
            );
            return Err(ServerError::failed(Failure::Other, text));
        }
        wire.simple(PINNED_WHERE_KNOWN, During::Login).await?;
        Ok(wire)
    }

    async fn authenticate(&mut self, access: &Access) -> Result<(), ServerError> {
        let mut scram: Option<ScramSha256> = None;
        loop {
            let Frame { tag: b'R', mut body } = self.login_frame().await? else { continue };
            let kind = body.try_get_u32().map_err(|_| odd())?;
            match kind {
                0 if scram.is_none() => return Ok(()),
                0 => return Err(odd()),
                // A password in the open is for encrypted connections only.
                3 if self.socket.encrypted() => {
                    let password = password(access)?;
                    self.queue(|out| frontend::password_message(password, out)).await?;
                }
                5 => {
                    let salt = body.first_chunk::<4>().copied().ok_or_else(odd)?;
                    let answer = md5_hash(access.role.as_bytes(), password(access)?, salt);
                    self.queue(|out| frontend::password_message(answer.as_bytes(), out)).await?;
                }
                10 if offers(&body, SCRAM_SHA_256) => {
                    let begun = ScramSha256::new(password(access)?, ChannelBinding::unsupported());
                    let first = begun.message();
                    self.queue(|out| frontend::sasl_initial_response(SCRAM_SHA_256, first, out))
                        .await?;
                    scram = Some(begun);
                }
                11 => {
                    let scram = scram.as_mut().ok_or_else(odd)?;
                    scram.update(&body).map_err(|error| unproven(&error))?;
                    self.queue(|out| frontend::sasl_response(scram.message(), out)).await?;
                }
                12 => {
                    let mut scram = scram.take().ok_or_else(odd)?;
                    scram.finish(&body).map_err(|error| unproven(&error))?;
                }
                other => return Err(unsupported(other)),
            }
        }
    }

    /// Reads what follows a login, up to the server's being ready.
    async fn settle(&mut self) -> Result<(), ServerError> {
        loop {
            let mut frame = self.login_frame().await?;
            match frame.tag {
                b'K' => self.pid = frame.body.try_get_i32().map_err(|_| odd())?,
                b'S' => {
                    let mut fields = frame.body.split(|byte| *byte == 0);
                    if fields.next() == Some(b"server_version") {
                        self.version = version(fields.next().unwrap_or_default());
                    }
                }
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    async fn login_frame(&mut self) -> Result<Frame, ServerError> {
        let frame = self.next().await?;
        match frame.tag {
            b'E' => Err(Report::read(&frame.body).classify(During::Login)),
            _ => Ok(frame),
        }
    }
}

/// `15.18 (Debian 15.18-1)` is 150018, `18beta1` is 180000.
fn version(text: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(text);
    let number = |digits: &str| {
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse::<u32>().unwrap_or(0).min(9_999)
    };
    let (major, minor) = text.split_once('.').unwrap_or((&text, ""));
    number(major) * 10_000 + number(minor)
}

fn password(access: &Access) -> Result<&[u8], ServerError> {
    let found = access.password.as_ref().map(|password| password.reveal().as_bytes());
    found.ok_or_else(|| {
        let text = format!(
            "the server asks role '{}' for a password: give the connection a PASSWORD SECRET",
            access.role
        );
        ServerError::failed(Failure::Authentication, text)
    })
}

fn offers(body: &Bytes, mechanism: &str) -> bool {
    body.split(|byte| *byte == 0).any(|name| name == mechanism.as_bytes())
}

fn odd() -> ServerError {
    ServerError::unexpected("the login took a turn that it cannot take")
}

fn unproven(error: &std::io::Error) -> ServerError {
    let text = format!(
        "the server could not prove that it knows the password's verifier, so it may not be the one \
         that is meant: {error}"
    );
    ServerError::failed(Failure::Authentication, text)
}

fn unsupported(kind: u32) -> ServerError {
    let text = match kind {
        3 => "the server asks for the password in the open, and the connection is not encrypted: \
              use another SSL MODE than 'disable', or scram-sha-256 in pg_hba.conf"
            .to_owned(),
        7 | 8 => "the server asks for GSSAPI: use scram-sha-256 in pg_hba.conf".to_owned(),
        9 => "the server asks for SSPI: use scram-sha-256 in pg_hba.conf".to_owned(),
        other => format!(
            "the server asks for a kind of authentication that is not known here ({other}): use \
             scram-sha-256 in pg_hba.conf"
        ),
    };
    ServerError::failed(Failure::Authentication, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version(b"15.18 (Debian 15.18-0+deb12u1)"), 150_018);
        assert_eq!(version(b"18beta1"), 180_000);
        assert_eq!(version(b"9.6.24"), 90_006);
        assert_eq!(version(b""), 0);
    }
}
