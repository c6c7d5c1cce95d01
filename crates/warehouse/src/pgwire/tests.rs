//! The endpoint over loopback, by hand and with psql.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::Random;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::serve;
use crate::stand_in::{PASSWORD, StandIn};

async fn started(open_to_all: bool) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let sessions = Arc::new(StandIn { open_to_all });
    tokio::spawn(serve(listener, sessions, Arc::new(Random::from_seed(7)), stop.clone()));
    (address, stop.drop_guard())
}

/// A client of raw messages.
struct Client(TcpStream);

/// A backend message: its type and its body.
type Message = (u8, Vec<u8>);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let mut client = Self(TcpStream::connect(address).await.unwrap());
        client.opening(196_608, b"user\0tester\0database\0twitter\0\0").await;
        client.until(b'Z').await;
        client
    }

    async fn opening(&mut self, code: u32, body: &[u8]) {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(body);
        self.0.write_all(&bytes).await.unwrap();
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        let mut bytes = vec![kind];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        self.0.write_all(&bytes).await.unwrap();
    }

    async fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(b'Q', format!("{sql}\0").as_bytes()).await;
        self.until(b'Z').await
    }

    async fn next(&mut self) -> Option<Message> {
        let kind = self.0.read_u8().await.ok()?;
        let length = self.0.read_u32().await.ok()? as usize - 4;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.ok()?;
        Some((kind, body))
    }

    async fn until(&mut self, last: u8) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.next()).await;
            let message = message.expect("an answer in time").expect("an open connection");
            let kind = message.0;
            all.push(message);
            if kind == last {
                return all;
            }
        }
    }
}

fn kinds(messages: &[Message]) -> String {
    messages.iter().map(|(kind, _)| char::from(*kind)).collect()
}

fn text(messages: &[Message], kind: u8) -> String {
    let bodies: Vec<_> = messages.iter().filter(|m| m.0 == kind).map(|m| m.1.clone()).collect();
    String::from_utf8_lossy(&bodies.concat()).into_owned()
}

#[tokio::test]
async fn simple_queries_and_their_tags() {
    let (address, _stop) = started(true).await;
    let mut client = Client::connect(address).await;
    let answer = client.query("create pipe p; insert x; select series 2").await;
    assert_eq!(kinds(&answer), "CCTDDDDCZ");
    assert_eq!(text(&answer, b'C'), "CREATE PIPE\0INSERT 0 3\0SELECT 4\0");
    assert_eq!(kinds(&client.query(" -- nothing").await), "IZ");
    assert_eq!(kinds(&client.query("create table if").await), "NCZ");
    let answer = client.query("select types; missing; select types").await;
    assert_eq!(kinds(&answer), "TDDCEZ");
    let error = text(&answer, b'E');
    assert!(error.contains("C02000\0") && error.contains("DSnowflake error 002003.\0"), "{error}");
    let names = text(&client.query("select names").await, b'D');
    assert!(names.contains("database: Some(\"TWITTER\")"), "{names}");
}

#[tokio::test]
async fn extended_queries() {
    let (address, _stop) = started(true).await;
    let mut client = Client::connect(address).await;
    // `$n` are values where a Bind brings some: an int4 in binary, a text, a NULL.
    client.send(b'P', b"s\0echo $1 $2 $3\0\x00\x01\x00\x00\x00\x17").await;
    client.send(b'D', b"Ss\0").await;
    let bind = b"\0s\0\x00\x03\x00\x01\x00\x00\x00\x00\x00\x03\
                 \x00\x00\x00\x04\xff\xff\xff\xfe\x00\x00\x00\x01x\xff\xff\xff\xff\x00\x00";
    client.send(b'B', bind).await;
    client.send(b'E', b"\0\x00\x00\x00\x00").await;
    client.send(b'S', b"").await;
    let answer = client.until(b'Z').await;
    assert_eq!(kinds(&answer), "1tT2DCZ");
    let row = b"\x00\x03\x00\x00\x00\x02-2\x00\x00\x00\x01x\xff\xff\xff\xff";
    assert_eq!(answer[4].1, row);
    // Rows by portions, and the types as the rows have them: int8 for NUMBER(38,0) here.
    client.query("begin").await;
    client.send(b'P', b"\0select series 2\0\x00\x00").await;
    client.send(b'B', b"p\0\0\x00\x00\x00\x00\x00\x01\x00\x01").await;
    client.send(b'D', b"Pp\0").await;
    client.send(b'E', b"p\0\x00\x00\x00\x03").await;
    client.send(b'S', b"").await;
    let answer = client.until(b'Z').await;
    assert_eq!(kinds(&answer), "12TDDDsZ");
    assert_eq!(answer[4].1, b"\x00\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01");
    client.send(b'E', b"p\0\x00\x00\x00\x00").await;
    client.send(b'S', b"").await;
    let answer = client.until(b'Z').await;
    assert_eq!(kinds(&answer), "DCZ");
    assert_eq!(answer[2].1, b"T");
    // An error skips everything up to Sync.
    client.send(b'P', b"\0missing\0\x00\x00").await;
    client.send(b'B', b"\0\0\x00\x00\x00\x00\x00\x00").await;
    client.send(b'D', b"P\0").await;
    client.send(b'H', b"").await;
    client.send(b'E', b"\0\x00\x00\x00\x00").await;
    client.send(b'S', b"").await;
    assert_eq!(kinds(&client.until(b'Z').await), "12EZ");
}

#[tokio::test]
async fn a_block_that_changed_something_does_not_roll_back() {
    let (address, _stop) = started(true).await;
    let mut client = Client::connect(address).await;
    assert_eq!(kinds(&client.query("begin; select types; rollback").await), "CTDDCCZ");
    assert_eq!(kinds(&client.query("begin; insert x; rollback").await), "CCEZ");
    assert_eq!(kinds(&client.query("rollback").await), "NCZ");
    assert_eq!(kinds(&client.query("begin isolation level serializable").await), "EZ");
}

#[tokio::test]
async fn a_cancel_request_stops_the_statement_it_names() {
    let (address, _stop) = started(true).await;
    let mut client = Client(TcpStream::connect(address).await.unwrap());
    client.opening(196_608, b"user\0tester\0\0").await;
    let hello = client.until(b'Z').await;
    let key = &hello.iter().find(|(kind, _)| *kind == b'K').unwrap().1;
    client.send(b'Q', b"select forever\0").await;
    let mut wrong = key.clone();
    wrong[7] ^= 1;
    for body in [&wrong, key] {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut other = Client(TcpStream::connect(address).await.unwrap());
        other.opening(80_877_102, body).await;
        assert_eq!(other.next().await, None);
    }
    let answer = client.until(b'Z').await;
    assert!(text(&answer, b'E').contains("C57014\0"));
    let answer = client.query("set statement_timeout = 20; select forever").await;
    assert!(text(&answer, b'E').contains("statement timeout"));
}

#[tokio::test]
async fn what_lies_about_its_length_ends_its_own_connection_only() {
    let (address, stop) = started(true).await;
    let mut healthy = Client::connect(address).await;
    for bytes in [
        &b"\x00\x00\x00\x03"[..],
        b"\x7f\xff\xff\xff",
        b"\x00\x00\x00\x08\x00\x02\x00\x00",
        b"\x00\x00\x00\x0c\x00\x03\x00\x00user",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = Client(TcpStream::connect(address).await.unwrap());
        client.0.write_all(bytes).await.unwrap();
        assert!(text(&client.until(b'E').await, b'E').contains("C08P01\0"), "{bytes:?}");
        assert_eq!(client.next().await, None);
    }
    for (kind, body) in
        [(b'B', &b"\0\0\x00\x00\x00\x01\x7f\xff\xff\xff"[..]), (b'P', b"a"), (b'?', b"")]
    {
        let mut client = Client::connect(address).await;
        client.send(kind, body).await;
        assert!(text(&client.until(b'E').await, b'E').contains("C08P01\0"), "{kind}");
    }
    let mut client = Client::connect(address).await;
    client.send(b'Q', b"select panic\0").await;
    assert_eq!(client.next().await, None);
    assert_eq!(kinds(&healthy.query("select types").await), "TDDCZ");
    drop(stop);
    assert!(text(&healthy.until(b'E').await, b'E').contains("C57P01\0"));
    assert_eq!(healthy.next().await, None);
}

/// What psql prints of a script, or `None` where there is no psql.
async fn psql(address: SocketAddr, user: &str, password: &str, script: &str) -> Option<String> {
    let mut command = Command::new("psql");
    command
        .args(["-X", "-A", "-h", "127.0.0.1", "-p", &address.port().to_string(), "-U", user])
        .args(["-d", "Twitter", "-c", script])
        .env("PGPASSWORD", password)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ran = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
    let output = match ran.expect("psql ends") {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => panic!("{e}"),
    };
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn psql_sees_every_type() {
    let (address, _stop) = started(true).await;
    let Some(out) = psql(address, "tester", "", "select types").await else { return };
    assert_eq!(
        out,
        "ID|BIG|PRICE|RATIO|NAME|OK|DAY|AT_TIME|NTZ|LTZ|RAW|V\n\
         42|12345678901234567890123|-12.50|0.1|Żółw's|t|2023-11-14|22:13:20.123456|\
         2023-11-14 22:13:20.123456|2023-11-14 22:13:20.123456+00|\\x00ff|{\"a\":[1,\"x\"]}\n\
         |||||||||||\n(2 rows)\n"
    );
    assert_eq!(psql(address, "tester", "", "create pipe p").await.unwrap(), "CREATE PIPE\n");
    let out = psql(address, "tester", "", "set timezone = 'nowhere'").await.unwrap();
    assert!(out.starts_with("ERROR:  invalid value for parameter"), "{out}");
}

#[tokio::test]
async fn psql_proves_its_password() {
    let (address, _stop) = started(false).await;
    let Some(out) = psql(address, "alice", PASSWORD, "insert x").await else { return };
    assert_eq!(out, "INSERT 0 3\n");
    for (user, password) in [("alice", "wrong"), ("mallory", PASSWORD)] {
        let out = psql(address, user, password, "insert x").await.unwrap();
        let expected = format!("FATAL:  password authentication failed for user \"{user}\"");
        assert!(out.contains(&expected), "{out}");
    }
}
