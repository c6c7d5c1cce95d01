"""PostgreSQL servers of the tests' own, each in its own directory and on its own port of loopback.

PostgreSQL refuses to run as root; where the tests do, its servers run as a system user.
"""

import atexit
import contextlib
import ctypes
import functools
import glob
import ipaddress
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from hydrant import free_port

# The versions hydrant reads from.
VERSIONS = ("14", "15", "16", "17", "18")
FOLDER = "hydrant-pg-"
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
START_SECONDS = 30
STOP_SECONDS = 30
PASSWORD = "s3cret pass"
# What every server has, unless a test says otherwise. Nothing here survives a power cut; killing
# processes is another matter, and the tests do it.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "timezone": "America/New_York",
    "log_line_prefix": "%m [%p] %a ",
    "log_checkpoints": "off",
    "wal_level": "logical",
}
AUTHENTICATION = """\
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


def installed():
    """The folder of programs of each version that is there."""
    told = os.environ.get("HYDRANT_TEST_POSTGRES", "").splitlines()
    found = dict(line.split("=", 1) for line in told if "=" in line)
    for postgres in glob.glob("/usr/lib/postgresql/*/bin/postgres"):
        found.setdefault(Path(postgres).parent.parent.name, str(Path(postgres).parent))
    return {version: Path(folder) for version, folder in found.items()}


def tools():
    """The folder that also has pg_basebackup and pg_recvlogical; None if there is none."""
    having = [v for v, folder in installed().items() if (folder / "pg_basebackup").exists()]
    return installed()[max(having, key=int)] if having else None


def everyday():
    """The version that tests run on that are not about versions: the one with the tools."""
    return tools().parent.name


@functools.cache
def account():
    """Who runs the servers, as arguments of subprocess: somebody else where we are root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("root may not run PostgreSQL, and there is no other user to run it")


@functools.cache
def home():
    """A folder for all servers of this run that their user can reach; removed at the end."""
    for old in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        # A run that was killed could not remove its own.
        if not Path("/proc", old.name.removeprefix(FOLDER).split("-")[0]).exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
    folder.chmod(0o755)
    atexit.register(end, folder)
    return folder


def end(folder):
    for one in Postgres.every:
        one.kill()
    shutil.rmtree(folder, ignore_errors=True)


def dies_with_us():
    """Asks Linux to stop this process when the thread that started it ends, whatever ends that."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def given(path):
    """Gives a path to the servers' user."""
    if account():
        os.chown(path, account()["user"], account()["group"])
    return path


@functools.cache
def programs(version):
    """A version's programs, where its user can reach them: home folders are often closed."""
    folder = installed()[version]
    if not account() or all(up.stat().st_mode & 0o005 == 0o005 for up in folder.resolve().parents):
        return folder
    copy = home() / f"programs-{version}"
    shutil.copytree(folder.parent, copy, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
    return copy / "bin"


def run(command, **more):
    """Runs a program as the servers' user; its output. Failing fails."""
    done = subprocess.run(
        list(map(str, command)), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=120, **account(), **more,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def initialized(version, data):
    """Makes a new cluster, with a system identifier of its own."""
    given(data.parent)
    password = data.parent / "password"
    password.write_text(PASSWORD)
    run([programs(version) / "initdb", "--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust",
         "--username=postgres", f"--pwfile={password}", f"--pgdata={data}"])
    return data


@functools.cache
def template(version):
    """A cluster of a version that nobody starts: copying it is quicker than making one."""
    folder = home() / f"template-{version}"
    folder.mkdir()
    return initialized(version, folder / "data")


@functools.cache
def shared():
    """A server for all tests that leave it as it was."""
    return Postgres().start()


class Postgres:
    """One cluster, and the process that serves it."""

    every = []

    def __init__(self, version=None, tls=None, fresh=False, **settings):
        self.version = version or everyday()
        self.folder = given(Path(tempfile.mkdtemp(prefix=f"{self.version}-", dir=home())))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.port = free_port()
        self.process = None
        if fresh:
            initialized(self.version, self.data)
        else:
            run(["cp", "-a", template(self.version), self.data])
        if tls:
            settings |= tls.install(self)
        self.configure(**SETTINGS | settings)
        self.authenticate(AUTHENTICATION)
        Postgres.every.append(self)

    def configure(self, **settings):
        """Writes settings for the next start (or reload)."""
        with open(self.data / "postgresql.conf", "a") as file:
            for name, value in settings.items():
                file.write(f"{name} = '{value}'\n")

    def authenticate(self, rules):
        (self.data / "pg_hba.conf").write_text(rules)

    def start(self):
        """Starts it and waits until it takes connections. What holds its memory yet is waited for.

        Only the main thread starts servers: they end with the thread that started them.
        """
        import psycopg

        end = time.monotonic() + START_SECONDS
        while True:
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    [programs(self.version) / "postgres", "-D", self.data, "-p", str(self.port),
                     "-c", "listen_addresses=127.0.0.1", "-k", self.folder],
                    cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, preexec_fn=dies_with_us, **account(),
                )
            while self.process.poll() is None and time.monotonic() < end:
                with contextlib.suppress(psycopg.OperationalError):
                    self.connect().close()
                    return self
                time.sleep(0.02)
            if self.process.poll() is None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"PostgreSQL did not start\n{self.said()}")
            time.sleep(0.1)

    def stop(self, how="fast"):
        """Stops it as `pg_ctl stop -m fast`, or `-m immediate`."""
        if self.process and self.process.poll() is None:
            self.process.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[how])
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def restart(self, how="fast"):
        self.stop(how)
        return self.start()

    def kill(self):
        """Ends every process of it at once, as `kill -9` does."""
        if self.process and self.process.poll() is None:
            pid = self.process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children")
            mine = [int(child) for child in children.read_text().split()]
            self.process.kill()
            for child in mine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self.process.wait()

    def remove(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        Postgres.every.remove(self)

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def said(self, characters=6000):
        """The end of what it logged."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text(errors="replace")[-characters:]
        return ""

    def connect(self, database="postgres", user="postgres", autocommit=True, **more):
        """A connection on the socket, which asks for no password."""
        import psycopg

        return psycopg.connect(
            host=str(self.folder), port=self.port, dbname=database, user=user,
            autocommit=autocommit, connect_timeout=5, **more,
        )

    def execute(self, sql, *parameters, database="postgres", user="postgres"):
        """The rows of one statement, on a connection of its own."""
        with self.connect(database, user) as connection:
            cursor = connection.execute(sql, *parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, sql, *parameters, **more):
        """The one value of a query."""
        (row,) = self.execute(sql, *parameters, **more)
        (value,) = row
        return value

    def psql(self, script, database="postgres", user="postgres"):
        """Types a script into psql, as a person does; its output and errors."""
        done = subprocess.run(
            ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", str(self.port), "-U",
             user, database], input=script, capture_output=True, text=True, timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def slot(self, name):
        """A slot's row of pg_replication_slots by column; None if there is no such slot."""
        import psycopg.rows

        with self.connect(row_factory=psycopg.rows.dict_row) as connection:
            sql = "SELECT * FROM pg_replication_slots WHERE slot_name = %s"
            return connection.execute(sql, [name]).fetchone()

    def occupy(self, slot, publication, database="postgres"):
        """Streams from a slot as another program, without confirming anything; finish() ends it."""
        from psycopg import pq

        told = (f"host={self.folder} port={self.port} user=postgres dbname={database} "
                "replication=database application_name=another")
        connection = pq.PGconn.connect(told.encode())
        result = connection.exec_(
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0 "
            f"(proto_version '1', publication_names '{publication}')".encode())
        assert result.status == pq.ExecStatus.COPY_BOTH, connection.get_error_message()
        return connection

    def write(self, mebibytes, database="postgres"):
        """Writes that much log and ends with a checkpoint, at which slots are looked at."""
        with self.connect(database) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS filler (x text)")
            for _ in range(mebibytes):
                connection.execute("INSERT INTO filler SELECT repeat('x', 1000) "
                                   "FROM generate_series(1, 950)")
            connection.execute("DROP TABLE filler")
            connection.execute("CHECKPOINT")

    def slots(self):
        return [name for (name,) in self.execute("SELECT slot_name FROM pg_replication_slots")]

    def backup(self):
        """A base backup of it, as a cluster that is not started; what was made after it is not in
        there, its system identifier is."""
        copy = object.__new__(Postgres)
        copy.version, copy.process, copy.port = self.version, None, free_port()
        copy.folder = given(Path(tempfile.mkdtemp(prefix=f"{self.version}-", dir=home())))
        copy.data, copy.log = copy.folder / "data", copy.folder / "log"
        run([tools() / "pg_basebackup", "-h", self.folder, "-p", self.port, "-U", "postgres", "-D",
             copy.data, "--checkpoint=fast", "--no-sync", "--wal-method=stream"])
        Postgres.every.append(copy)
        return copy


    def copied(self):
        """A copy of it while it is stopped, as a cluster that is not started, without its slots."""
        copy = object.__new__(Postgres)
        copy.version, copy.process, copy.port = self.version, None, free_port()
        copy.folder = given(Path(tempfile.mkdtemp(prefix=f"{self.version}-", dir=home())))
        copy.data, copy.log = copy.folder / "data", copy.folder / "log"
        run(["cp", "-a", self.data, copy.data])
        for slot in (copy.data / "pg_replslot").iterdir():
            shutil.rmtree(slot)
        Postgres.every.append(copy)
        return copy


class Authority:
    """A certificate authority made for one test."""

    def __init__(self, name="hydrant tests"):
        from cryptography.hazmat.primitives.asymmetric import ec

        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name
        self.certificate = self.sign(name, self.key, None)

    @property
    def pem(self):
        from cryptography.hazmat.primitives.serialization import Encoding

        return self.certificate.public_bytes(Encoding.PEM).decode()

    def sign(self, name, key, hosts):
        """A certificate: of a server for its hosts, or of the authority itself without any."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import NameOID

        def called(text):
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder().subject_name(called(name)).issuer_name(called(self.name))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=not hosts, path_length=None), critical=True)
        )
        if hosts:
            names = x509.SubjectAlternativeName(hosts)
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def tls(self, *names, addresses=("127.0.0.1",)):
        """A server's certificate for names and addresses."""
        return Tls(self, names or ("localhost",), addresses)


class Tls:
    """What a server needs to speak TLS."""

    def __init__(self, authority, names, addresses):
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import (
            Encoding, NoEncryption, PrivateFormat,
        )

        key = ec.generate_private_key(ec.SECP256R1())
        hosts = [x509.DNSName(name) for name in names]
        hosts += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        certificate = authority.sign(names[0], key, hosts)
        self.certificate = certificate.public_bytes(Encoding.PEM)
        self.key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def install(self, cluster):
        """Writes the files; the settings that go with them."""
        for name, text in [("server.crt", self.certificate), ("server.key", self.key)]:
            path = cluster.data / name
            path.write_bytes(text)
            path.chmod(0o600)
            given(path)
        return {"ssl": "on"}


class Proxy:
    """A TCP proxy before a server, that cuts connections when told to."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.pairs = set()
        self.cuts = 0
        self.budget = None
        # Whether the server is not told of clients that go, as when a machine loses its power.
        self.holding = False
        self.flowing = threading.Event()
        self.flowing.set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                self.reset(client)
                continue
            server.settimeout(None)
            pair = (client, server)
            with self.lock:
                self.pairs.add(pair)
            for source, target, down in [(client, server, False), (server, client, True)]:
                copying = (pair, source, target, down)
                threading.Thread(target=self.copy, args=copying, daemon=True).start()

    def copy(self, pair, source, target, down):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.flowing.wait()
                if down and self.spent(len(data)):
                    self.cut()
                    break
                target.sendall(data)
        if not self.holding:
            self.close(pair)

    def spent(self, count):
        """Whether the budget of bytes from the server ends here."""
        with self.lock:
            if self.budget is None:
                return False
            self.budget -= count
            if self.budget > 0:
                return False
            self.budget = None
            return True

    def cut_after(self, count):
        """Cuts every connection once the server has sent that many further bytes."""
        with self.lock:
            self.budget = count

    def cut(self):
        """Cuts every connection now, as a router that reboots does."""
        with self.lock:
            pairs = list(self.pairs)
            self.cuts += 1
        for pair in pairs:
            self.close(pair)
        return len(pairs)

    def close(self, pair):
        with self.lock:
            self.pairs.discard(pair)
        for end in pair:
            self.reset(end)

    @staticmethod
    def reset(end):
        with contextlib.suppress(OSError):
            # Without lingering, closing sends RST.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.shutdown(socket.SHUT_RDWR)
        end.close()

    def end(self):
        self.flowing.set()
        self.listener.close()
        self.cut()
