//! PostgreSQL servers of a test's own: each in its own directory and on its own port of loopback.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failed expectation in a harness is a failed test")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hydrant_core::capture::{Connection, Secret, SecretText, SslMode};
use hydrant_core::clock::{SystemClock, Timestamp};
use hydrant_postgres::{Access, Row, Server};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Password of the role `postgres`.
pub const PASSWORD: &str = "s3cret pass";
const FOLDER: &str = "hydrant-cdc-";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// For tests: nothing here survives a power cut.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("autovacuum", "off"),
    ("shared_buffers", "16MB"),
    ("max_connections", "40"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("max_prepared_transactions", "5"),
    ("timezone", "America/New_York"),
    ("datestyle", "SQL, DMY"),
    ("listen_addresses", "127.0.0.1"),
    ("wal_level", "logical"),
];
const AUTHENTICATION: &str = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// Below the ports that systems give to connections, one of which could take it before the server does.
const PORTS: std::ops::Range<u32> = 10_000..20_000;

/// A port that was free just now, and that nobody else in this process is given soon.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    let mut tried = PORTS.map(|_| {
        let next = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        (PORTS.start + next % PORTS.len() as u32) as u16
    });
    tried.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A running server. Dropping it stops it at once and removes its files.
pub struct Postgres {
    pub port: u16,
    pub version: String,
    folder: TempDir,
    programs: PathBuf,
    process: Option<Child>,
}

/// The user that runs the servers where we are root, which PostgreSQL does not run as.
fn other_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let id = |name: &str| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
        Some((ids.next()?, ids.next()?))
    };
    Some(id("postgres").or_else(|| id("nobody")).expect("a user that is not root"))
}

/// The folders of programs by version: what `cargo xtask setup` has told, and Debian's.
fn installed() -> BTreeMap<String, PathBuf> {
    let told = std::env::var("HYDRANT_TEST_POSTGRES").unwrap_or_default();
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_string_lossy().into_owned();
        found.insert(version, entry.path().join("bin"));
    }
    for (version, folder) in told.lines().filter_map(|line| line.split_once('=')) {
        found.entry(version.to_owned()).or_insert_with(|| folder.into());
    }
    found.retain(|_, programs| programs.join("postgres").exists());
    found
}

/// Every version that is there. None ends the test, which then says why; with CI=true it fails.
pub fn versions() -> Vec<String> {
    let found: Vec<String> = installed().into_keys().collect();
    if found.is_empty() {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "no PostgreSQL on this machine: install Debian's postgresql");
        println!("skipped: no PostgreSQL on this machine");
    }
    found
}

/// The version for tests that are not about versions.
pub fn everyday() -> Option<String> {
    let mut versions = versions();
    let debian = versions.iter().position(|v| Path::new("/usr/lib/postgresql").join(v).exists());
    match (debian, versions.pop()) {
        (Some(at), last) => versions.get(at).cloned().or(last),
        (None, last) => last,
    }
}

fn run(command: &mut Command) {
    if let Some((user, group)) = other_user() {
        use std::os::unix::process::CommandExt;
        command.uid(user).gid(group);
    }
    let done = command.current_dir("/").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}");
}

fn given(path: &Path) {
    if let Some((user, group)) = other_user() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

fn open_to_all(path: &Path) -> bool {
    let folders = path.ancestors().skip(1);
    folders.into_iter().all(|up| fs::metadata(up).is_ok_and(|m| m.permissions().mode() & 5 == 5))
}

/// A new folder that the servers' user can use.
fn folder() -> TempDir {
    let folder = TempDir::with_prefix(format!("{FOLDER}{}-", std::process::id())).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    given(folder.path());
    folder
}

/// Removes folders of test binaries that have ended: a static is never dropped.
fn remove_leftovers() {
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(FOLDER).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A cluster that nobody starts, and the programs where their user can reach them: made once in a
/// test binary, because copying is quicker than making.
fn template(version: &str) -> (PathBuf, PathBuf) {
    static MADE: OnceLock<Mutex<BTreeMap<String, (TempDir, PathBuf)>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap();
    let (folder, programs) = made.entry(version.to_owned()).or_insert_with(|| {
        remove_leftovers();
        let folder = folder();
        let mut programs = fs::canonicalize(&installed()[version]).unwrap();
        if other_user().is_some() && !open_to_all(&programs) {
            let copy = folder.path().join("programs");
            let mut command = Command::new("cp");
            let copied = command.args(["-a"]).arg(programs.parent().unwrap()).arg(&copy).status();
            assert!(copied.unwrap().success());
            programs = copy.join("bin");
        }
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        run(Command::new(programs.join("initdb"))
            .args(["--no-sync", "--no-locale", "--encoding=UTF8", "--username=postgres"])
            .args(["--auth=scram-sha-256", "--wal-segsize=1", "--pwfile"])
            .arg(password)
            .arg("-D")
            .arg(folder.path().join("data")));
        (folder, programs)
    });
    (folder.path().join("data"), programs.clone())
}

impl Postgres {
    /// Starts a server of a version with further settings, `None` if there is no PostgreSQL here.
    pub async fn everyday(settings: &[(&str, &str)]) -> Option<Self> {
        Some(Self::of(&everyday()?, settings).await)
    }

    /// Starts a server of a version, with the settings of all tests and further ones.
    pub async fn of(version: &str, settings: &[(&str, &str)]) -> Self {
        let mut server = Self::stopped(version, settings);
        server.start().await;
        server
    }

    /// A server that is not started yet.
    pub fn stopped(version: &str, settings: &[(&str, &str)]) -> Self {
        let (data, programs) = template(version);
        let folder = folder();
        run(Command::new("cp").arg("-a").arg(data).arg(folder.path().join("data")));
        let port = free_port();
        let server = Self { port, version: version.to_owned(), folder, programs, process: None };
        server.configure(SETTINGS);
        server.configure(settings);
        server.authenticate(AUTHENTICATION);
        server
    }

    /// The cluster's directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes settings for the next start or reload.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let mut text = fs::read_to_string(self.data().join("postgresql.conf")).unwrap();
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        fs::write(self.data().join("postgresql.conf"), text).unwrap();
    }

    /// Writes pg_hba.conf for the next start or reload.
    pub fn authenticate(&self, rules: &str) {
        fs::write(self.data().join("pg_hba.conf"), rules).unwrap();
    }

    /// Writes a file of the cluster that only the server may read.
    pub fn keep(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        given(&path);
    }

    /// Starts it and waits until it takes connections.
    pub async fn start(&mut self) {
        let log =
            File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(self.programs.join("postgres"));
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        command.args(["-p", &self.port.to_string()]).current_dir("/").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some((user, group)) = other_user() {
            use std::os::unix::process::CommandExt;
            command.uid(user).gid(group);
        }
        self.process = Some(command.spawn().unwrap());
        let end = Instant::now() + START_TIMEOUT;
        // The server says in its own file when it takes connections.
        loop {
            let told = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            if told.lines().nth(7).is_some_and(|state| state.trim() == "ready") {
                return;
            }
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "no server:\n{}", self.said());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops it as `pg_ctl stop -m` does: `fast` or `immediate`.
    pub async fn stop(&mut self, how: &str) {
        let Some(mut process) = self.process.take() else { return };
        signal(process.id(), if how == "fast" { "INT" } else { "QUIT" });
        let end = Instant::now() + STOP_TIMEOUT;
        while process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it does not stop:\n{}", self.said());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads its files again.
    pub fn reload(&self) {
        signal(self.process.as_ref().unwrap().id(), "HUP");
    }

    /// What it logged.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// How a source reaches it as `postgres`, in plaintext.
    pub fn connection(&self) -> Connection {
        Connection {
            name: "PG".into(),
            host: "127.0.0.1".into(),
            port: self.port,
            database: "postgres".into(),
            user: Some("postgres".into()),
            secret: Some("PG_PASSWORD".into()),
            ssl_mode: SslMode::Disable,
            ssl_authority: None,
            created: Timestamp::ZERO,
            comment: String::new(),
        }
    }

    /// As a source of this name goes in.
    pub async fn access(&self, source: &str) -> Access {
        access(&self.connection(), source).await
    }

    /// A connection of the user's own, as `postgres`, with the schema `public`.
    pub async fn session(&self) -> Server {
        let mut session = Server::connect(&self.access("the user").await).await.unwrap();
        session.query("SET search_path = public").await.unwrap();
        session
    }

    /// Runs statements as `postgres`, all in one transaction; their rows.
    pub async fn run(&self, sql: &str) -> Vec<Row> {
        let mut session = self.session().await;
        let rows = session.query(sql).await.unwrap();
        session.close().await;
        rows
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(process.id(), "QUIT");
            let _ = process.wait();
        }
    }
}

fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
}

/// The secret that goes with a connection of a test.
pub fn secret(password: &str) -> Secret {
    Secret {
        name: "PG_PASSWORD".into(),
        user: None,
        password: SecretText::new(password),
        created: Timestamp::ZERO,
        comment: String::new(),
    }
}

/// As a source of this name goes in by a connection, with the usual password.
pub async fn access(connection: &Connection, source: &str) -> Access {
    let secret = secret(PASSWORD);
    Access::new(connection, Some(&secret), source, Arc::new(SystemClock)).await.unwrap()
}
