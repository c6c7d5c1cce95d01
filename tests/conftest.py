"""Fixtures of the acceptance tests, and what `cargo xtask test` reads of their outcome."""

import os
import uuid
from pathlib import Path

import pytest

import capture
import hydrant
import postgres

CI = os.environ.get("CI") == "true"
# What the tests need besides boto3, and how to see that it is there.
CLIENTS = {
    "aws": lambda: hydrant.which("aws"),
    "psql": lambda: hydrant.which("psql"),
    "node": lambda: hydrant.which("node") and os.environ.get("HYDRANT_TEST_NODE"),
    "psycopg": lambda: importable("psycopg"),
    "snowflake": lambda: importable("snowflake.connector"),
    "driver4": lambda: hydrant.DRIVER4.is_dir(),
    "aio": lambda: hydrant.AIO.is_dir(),
    "aggregation": lambda: importable("aws_kinesis_agg"),
    "java sdk": lambda: os.environ.get("HYDRANT_TEST_JAVA_SDK"),
    "java kcl": lambda: os.environ.get("HYDRANT_TEST_JAVA_KCL"),
    "java kpl": lambda: os.environ.get("HYDRANT_TEST_JAVA_KPL"),
    "rust sdk": lambda: os.environ.get("HYDRANT_TEST_RUST_SDK"),
    # Any version, with the tools that come beside the server; and one version each.
    "postgres": lambda: postgres.tools(),
    **{f"postgres {version}": lambda version=version: version in postgres.installed()
       for version in postgres.VERSIONS},
}


def importable(module):
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def pytest_collection_modifyitems(items):
    reasons = {}
    for item in items:
        for mark in item.iter_markers("needs"):
            for name in mark.args:
                if name not in reasons:
                    reasons[name] = missing(name)
                if reasons[name]:
                    item.user_properties.append(("missing", reasons[name]))


def missing(name):
    """Why a client is not there; None if it is."""
    if CLIENTS[name]():
        return None
    told = os.environ.get("HYDRANT_TEST_MISSING", "")
    return f"{name} is not installed" + (f" ({told})" if told else "")


@pytest.fixture(autouse=True)
def clients(request):
    """Skips a test whose client is missing, by name and reason; in CI that is a failure."""
    for name, reason in request.node.user_properties:
        if name == "missing":
            (pytest.fail if CI else pytest.skip)(reason)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server without credentials that the tests share; none of them stops it."""
    running = hydrant.Server(tmp_path_factory.mktemp("shared") / "data").start()
    yield running
    code = running.stop()
    assert code == 0, f"a graceful stop ended with {code}\n{running.said()}"


@pytest.fixture
def tls(server):
    """The shared server as clients see it that speak TLS."""
    return hydrant.Tls(server)


@pytest.fixture
def start(tmp_path):
    """Starts servers of a test's own; whatever still runs at its end is killed."""
    mine = []

    def start(*arguments, data=tmp_path / "data", env=None):
        mine.append(hydrant.Server(data, *arguments, env=env))
        return mine[-1].start()

    yield start
    for one in mine:
        one.kill()
        hydrant.Server.every.remove(one)


@pytest.fixture
def start_postgres():
    """Starts PostgreSQL servers of a test's own, which are gone at its end."""
    mine = []

    def start(*arguments, **settings):
        mine.append(postgres.Postgres(*arguments, **settings))
        return mine[-1].start()

    yield start
    for one in mine:
        one.remove()


@pytest.fixture
def pg():
    """A PostgreSQL server that the tests share; none of them stops it."""
    return postgres.shared()


@pytest.fixture
def source(server, pg, name):
    """A capture from a database of its own on the shared servers, dropped at the test's end."""
    pg.execute(f"CREATE DATABASE {name}")
    with capture.Source(server, pg, name, database=name) as source:
        yield source
        source.drop()
    pg.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def kinesis(server):
    return server.client("kinesis")


@pytest.fixture
def firehose(server):
    return server.client("firehose")


@pytest.fixture
def s3(server):
    return server.client("s3")


@pytest.fixture
def name():
    """A name that no other test uses, good for a stream, a bucket and a database."""
    return "t" + uuid.uuid4().hex[:12]


@pytest.fixture
def bucket(s3, name):
    s3.create_bucket(Bucket=name)
    return name


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for one in hydrant.Server.every:
            if one.process:
                report.sections.append((f"hydrant, {one.data}", one.said(3000)))
        for one in postgres.Postgres.every:
            report.sections.append((f"PostgreSQL {one.version}, {one.data}", one.said(2000)))


def pytest_sessionfinish(session):
    """Leaves the counts where `cargo xtask test` looks for them."""
    target = os.environ.get("HYDRANT_TEST_COUNTS")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if target and reporter:
        counted = {kind: len(reporter.stats.get(kind, [])) for kind in
                   ("passed", "failed", "error", "skipped")}
        failed = counted["failed"] + counted["error"]
        Path(target).write_text(f"{counted['passed']} {failed} {counted['skipped']}\n")
