"""A hydrant server started from its binary, and clients for it."""

import base64
import contextlib
import gzip
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import botocore.config

BINARY = os.environ.get("HYDRANT_BINARY", "hydrant")
REGION = "us-east-1"
ACCOUNT = "000000000000"
KEY = ("test", "test")
# Packages that contradict those of this Python, installed beside them: the generation of Snowflake's
# driver before its rewrite, and clients on aiobotocore.
DRIVER4 = Path(sys.prefix) / "driver4"
AIO = Path(sys.prefix) / "aio"
TESTS = Path(__file__).parent
ANYWHERE = "127.0.0.1:0"
START_SECONDS = 30
STOP_SECONDS = 30


class Server:
    """One data directory, and the process that serves it."""

    every = []

    def __init__(self, data, *arguments, env=None):
        self.data = Path(data)
        self.log = self.data.with_name(self.data.name + ".log")
        self.arguments = arguments
        self.env = env or {}
        self.process = None
        self.endpoints = {}
        Server.every.append(self)

    def command(self, verb="serve"):
        return [BINARY, *serve(self.data, verb), *self.arguments]

    def spawn(self):
        """Starts the process, and does not wait."""
        (self.data / "endpoints.json").unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment(self.env), start_new_session=True,
            )

    def start(self):
        """Starts it and waits until it is ready."""
        self.spawn()
        described = self.data / "endpoints.json"
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"hydrant ended with {self.process.returncode}\n{self.said()}")
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                self.endpoints = json.loads(described.read_text())
                if self.endpoints["pid"] == self.process.pid and self.ready():
                    return self
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"hydrant was not ready after {START_SECONDS} s\n{self.said()}")

    def ready(self):
        return self.get("/readyz")[0] == 200

    def get(self, path):
        """Status and text of a page of the admin address."""
        try:
            with urllib.request.urlopen(self.endpoints["admin"] + path, timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def stop(self):
        """Asks it to stop, as an init system does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self):
        """Ends it at once, as `kill -9` does."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def said(self, characters=6000):
        """The end of what it logged."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text(errors="replace")[-characters:]
        return ""

    def peak_bytes(self):
        """The most memory it has had resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

    @property
    def aws(self):
        return self.endpoints["aws"]

    @property
    def aws_address(self):
        host, _, port = self.aws.removeprefix("http://").rpartition(":")
        return host, int(port)

    @property
    def sql_address(self):
        host, _, port = self.endpoints["sql"].rpartition(":")
        return host, int(port)

    def client(self, service, key=KEY, region=REGION, **config):
        """A boto3 client that tries once, so that a test sees every error."""
        config = {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 60,
            "max_pool_connections": 32,
            **config,
        }
        return boto3.client(
            service, endpoint_url=self.aws, region_name=region, aws_access_key_id=key[0],
            aws_secret_access_key=key[1], config=botocore.config.Config(**config),
        )

    def shell(self, more=None):
        """The environment of a terminal session with this server."""
        return environment({
            "AWS_ENDPOINT_URL": self.aws,
            "AWS_ACCESS_KEY_ID": KEY[0],
            "AWS_SECRET_ACCESS_KEY": KEY[1],
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            **(more or {}),
        })

    def snowflake(self, database=None, schema=None, user="hydrant", password="hydrant", **more):
        """A connection of Snowflake's own driver."""
        import snowflake.connector

        host, port = self.aws_address
        return snowflake.connector.connect(
            user=user, password=password, account="any", host=host, port=port, protocol="http",
            database=database, schema=schema, login_timeout=15,
            enable_server_session_keep_alive_auto_detection=False, **more,
        )


class Tls:
    """A server as clients see it that speak TLS: on the same port, with a certificate of its own."""

    def __init__(self, server):
        self.server = server
        self.authority = server.data / "tls" / "ca.pem"
        self.aws = server.aws.replace("http://127.0.0.1", "https://localhost")
        self.aws_address = "localhost", server.aws_address[1]
        # What Node.js reads.
        self.trusting = {"NODE_EXTRA_CA_CERTS": str(self.authority)}

    def client(self, service):
        return boto3.client(
            service, endpoint_url=self.aws, region_name=REGION, verify=str(self.authority),
            aws_access_key_id=KEY[0], aws_secret_access_key=KEY[1],
        )


def environment(more):
    """This process's environment, without what would change how a client or hydrant behaves."""
    kept = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("AWS_", "HYDRANT_", "PG", "SNOWFLAKE_"))
    }
    # The clients that were installed for these tests come first on the path.
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    kept["AWS_CONFIG_FILE"] = kept["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    kept["AWS_PAGER"] = ""
    kept.update(more)
    return kept


def node(script, *arguments, folder, env=None):
    """Runs a script of tests/js in a folder, with the modules that were installed; its output."""
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(Path(os.environ["HYDRANT_TEST_NODE"]) / "node_modules")
    shutil.copy(TESTS / "js" / script, folder)
    done = subprocess.run(
        ["node", script, *arguments], cwd=folder, env=environment(env or {}), timeout=90,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def java(program, main, *options):
    """The command that runs the main class of a program of tests/java."""
    folder = Path(os.environ[f"HYDRANT_TEST_JAVA_{program.upper()}"])
    # Short programs on few cores: the second compiler and parallel collectors cost more than they
    # bring.
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"]
    return ["java", *quick, *options, "-cp", f"{folder}/classes:{folder}/lib/*", main]


@contextlib.contextmanager
def aio(script, *arguments):
    """A running script of tests/aio, talked to by lines; ended, whatever happens."""
    env = environment({
        "PYTHONPATH": str(AIO), "AWS_ACCESS_KEY_ID": KEY[0], "AWS_SECRET_ACCESS_KEY": KEY[1],
        "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
    })
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "aio" / script), *arguments], env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def user_records(records):
    """Key and data of each user record in records as boto3 gives them."""
    from aws_kinesis_agg.deaggregator import deaggregate_records

    as_lambda_has_them = [{"kinesis": {
        "kinesisSchemaVersion": "1.0",
        "sequenceNumber": record["SequenceNumber"],
        "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
        "partitionKey": record["PartitionKey"],
        "data": base64.b64encode(record["Data"]),
    }} for record in records]
    users = [one["kinesis"] for one in deaggregate_records(as_lambda_has_them)]
    return [(one["partitionKey"], base64.b64decode(one["data"])) for one in users]


def serve(data, verb="serve", **addresses):
    """The words that start a server, each address on a port of its own unless said otherwise."""
    addresses = dict(listen=ANYWHERE, pg_listen=ANYWHERE, admin_listen=ANYWHERE) | addresses
    flags = [("--" + name.replace("_", "-"), value) for name, value in addresses.items()]
    return [verb, "--data-dir", str(data), *(word for flag in flags for word in flag)]


def run(*arguments, env=None, timeout=60):
    """Runs the binary to its end; its exit status, and what it said."""
    done = subprocess.run([BINARY, *map(str, arguments)], env=environment(env or {}),
                          timeout=timeout, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    said = done.stdout + done.stderr
    assert "panicked" not in said, said
    return done.returncode, said


def refuses(*arguments, env=None):
    """Runs a server that cannot start; its last words. It ends by itself, with an error."""
    status, said = run(*arguments, env=env)
    assert status not in (0, -signal.SIGABRT, -signal.SIGSEGV), said
    return said


def sh(script, env, timeout=60):
    """Runs what a person would type; its output. Any command that fails fails it."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=env, timeout=timeout, text=True,
        stdin=subprocess.DEVNULL, capture_output=True,
    )
    assert done.returncode == 0, f"$ {script}\nexit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def eventually(check, seconds=20, every=0.1):
    """Calls `check` until it returns something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        seen = check()
        if seen or time.monotonic() > end:
            assert seen, f"not within {seconds} s: {check.__doc__ or check.__name__}"
            return seen
        time.sleep(every)


def make_stream(kinesis, name, shards=1):
    """Creates a stream and waits until it is there; its ARN."""
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    kinesis.get_waiter("stream_exists").wait(
        StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    summary = kinesis.describe_stream_summary(StreamName=name)
    return summary["StreamDescriptionSummary"]["StreamARN"]


def make_delivery(firehose, name, bucket, stream_arn=None, seconds=1, **destination):
    """Creates a delivery stream to a bucket and waits until it is there."""
    role = f"arn:aws:iam::{ACCOUNT}:role/firehose"
    source = {"DeliveryStreamType": "DirectPut"}
    if stream_arn:
        source = {
            "DeliveryStreamType": "KinesisStreamAsSource",
            "KinesisStreamSourceConfiguration": {"KinesisStreamARN": stream_arn, "RoleARN": role},
        }
    firehose.create_delivery_stream(
        DeliveryStreamName=name,
        ExtendedS3DestinationConfiguration={
            "RoleARN": role,
            "BucketARN": f"arn:aws:s3:::{bucket}",
            "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": seconds},
            **destination,
        },
        **source,
    )

    def active():
        """the delivery stream is ACTIVE"""
        seen = firehose.describe_delivery_stream(DeliveryStreamName=name)
        return seen["DeliveryStreamDescription"]["DeliveryStreamStatus"] == "ACTIVE"

    eventually(active)


def read_shard(kinesis, stream, shard, kind="TRIM_HORIZON", **more):
    """Every record of a shard up to its end."""
    iterator = kinesis.get_shard_iterator(
        StreamName=stream, ShardId=shard, ShardIteratorType=kind, **more
    )["ShardIterator"]
    records = []
    while iterator:
        page = kinesis.get_records(ShardIterator=iterator)
        records += page["Records"]
        iterator = page.get("NextShardIterator")
        if not page["Records"] and page["MillisBehindLatest"] == 0:
            break
    return records


def read_stream(kinesis, stream):
    """Every record of a stream, by shard."""
    shards = kinesis.list_shards(StreamName=stream)["Shards"]
    return {s["ShardId"]: read_shard(kinesis, stream, s["ShardId"]) for s in shards}


def keys(s3, bucket, prefix=""):
    """The keys in a bucket, in order."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def body(s3, bucket, key):
    """An object's bytes, unpacked if its name says that they are packed."""
    raw = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return gzip.decompress(raw) if key.endswith(".gz") else raw


def files_with(folder, *secrets):
    """The files below a folder that have one of these texts in them, or in base64."""
    forms = [text.encode() for text in secrets]
    forms += [base64.b64encode(form).rstrip(b"=") for form in forms]
    return [path for path in folder.rglob("*") if path.is_file()
            and any(form in path.read_bytes() for form in forms)]


# From one process to another they start elsewhere.
PORTS = itertools.cycle(20_000 + (os.getpid() * 97 + n) % 10_000 for n in range(10_000))


def free_port():
    """A port that was free just now: none of those that systems give to connections, one of which could
    take it before its server does."""
    for port in PORTS:
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port


def which(program):
    """Where a program is, beside our Python first."""
    return shutil.which(program, path=environment({})["PATH"])
