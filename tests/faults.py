"""Disks that fail: one whose fsync fails once and then succeeds, and one that is full.

    python3 faults.py fsync put_records        (as root; or another part of the load)
    python3 faults.py full

HYDRANT_BINARY names the server. Mounts are of this process alone, and end with it.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hydrant
import load
import volume
from journal import Journal, Lost, content

# An image that promises more than there is behind it: a write that the kernel took fails later.
IMAGE_BYTES = 800 << 20
BEHIND_IT = "192m"
# The file system's own blocks are there, so that it does not end itself before the server does.
NO_JOURNAL = ["-b", "4096", "-O", "^has_journal"]
METADATA_BYTES = 32 << 20
BEHIND_IT_LATER = "720m"
# Left behind it after the first load, which must not have met the failure.
ROOM_LEFT_BYTES = 32 << 20
FULL_BYTES = 400 << 20
# What SDKs repeat.
RETRIED = ("ProvisionedThroughputExceededException", "InternalFailure", "SlowDown", "LimitExceeded",
           "InternalError", "ServiceUnavailable", "ThrottlingException")
ABORTED = -6
PATIENCE_SECONDS = 60
LOAD_SECONDS = 1
REFUSALS = 50
OTHER = "other"
KEY = "w0.0"


def serve(folder, data):
    server = hydrant.Server(data, "--segment-mib", "16")
    server.log = folder / "server.log"
    return server


def fsync(folder, only):
    """The first fsync that fails ends the server, though the kernel calls the next one a success."""
    behind = folder / "behind"
    behind.mkdir()
    volume.run("mount", "-t", "tmpfs", "-o", f"size={BEHIND_IT}", "none", str(behind))
    disk = volume.Volume(
        "ext4", folder, size=IMAGE_BYTES, image=behind / "image", make=NO_JOURNAL,
        written=METADATA_BYTES,
    )
    journal = Journal()
    server = serve(folder, disk.path / "data")
    server.start()
    load.prepare(server)
    writers = load.Load(server, journal, "before")
    time.sleep(LOAD_SECONDS)
    server.kill()
    writers.join(PATIENCE_SECONDS)
    server.start()
    load.check(server, journal, True)
    # What was there before is on the disk, whether or not anybody relies on it.
    volume.run("sync", "-f", str(disk.path))
    assert shutil.disk_usage(behind).free > ROOM_LEFT_BYTES, "the disk failed too early"
    errors = take_what_is_behind(disk.path / "ballast")

    writers = load.Load(server, journal, "after", only=only)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.process.wait(PATIENCE_SECONDS)
    code = server.process.poll()
    server.kill()
    writers.join(PATIENCE_SECONDS)
    said = server.said()
    if code != ABORTED or "stopping" not in said:
        raise Lost(f"the server ended with {code} when its disk failed:\n{said}")
    # A disk with room for what the old one promised, and everything acknowledged is there.
    disk.unmount()
    volume.run("mount", "-o", f"remount,size={BEHIND_IT_LATER}", "none", str(behind))
    disk.mount()
    server.start()
    load.check(server, journal, True)
    print(f"fsync of a ballast: {errors}; {only} ended the server; {dict(journal.counts)}")
    assert server.stop() == 0


def take_what_is_behind(ballast):
    """Writes until an fsync fails, and then the same fsync again; what the two said."""
    with open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 262_144)
            try:
                os.fsync(file.fileno())
            except OSError as error:
                try:
                    os.fsync(file.fileno())
                except OSError as again:
                    return f"{error.strerror}, then {again.strerror}"
                return f"{error.strerror}, then success"


def full(folder):
    """A full disk refuses what would need room, serves reads, and goes on when there is room."""
    disk = volume.Volume("ext4", folder, size=FULL_BYTES)
    journal = Journal()
    server = serve(folder, disk.path / "data")
    server.start()
    load.prepare(server)
    client = load.Raw(server)

    client.kinesis("CreateStream", StreamName=OTHER, ShardCount=1)
    hydrant.eventually(lambda: load.shards(client, OTHER, "ACTIVE"), PATIENCE_SECONDS, 0.01)
    put(client, journal)
    take_all_room(disk.path / "ballast")

    # What is at hand is used up, and then all is refused, in words that an SDK repeats after.
    for size in (200_000, 5_000, 100):
        end = time.monotonic() + PATIENCE_SECONDS
        refused = 0
        while refused < REFUSALS:
            if time.monotonic() > end:
                raise Lost("a full disk takes all it is given")
            refused += not fill(client, size)
    before = journal.counts["records acknowledged"]
    never = [n for n in [put(client, journal) for _ in range(20)] if n]
    if not never:
        raise Lost("a full disk takes small records on and on")
    refuses(lambda: load.Sdk(server).put_object("large", os.urandom(8 << 20)))
    if server.process.poll() is not None:
        raise Lost(f"the server ended on a full disk:\n{server.said()}")
    # Reads go on, from the memory and from the disk.
    load.check(server, journal, True)
    if not sum(1 for _ in load.records(client, OTHER, "shardId-000000000000")):
        raise Lost("nothing is read from a full disk")

    (disk.path / "ballast").unlink()
    hydrant.eventually(lambda: put(client, journal) is None, PATIENCE_SECONDS)
    hydrant.eventually(lambda: fill(client, 200_000), PATIENCE_SECONDS)
    client.put_object("large", b"x" * (8 << 20))
    client.kinesis("CreateStream", StreamName="after", ShardCount=1)
    load.check(server, journal, True)
    assert server.stop() == 0
    server.start()
    load.check(server, journal, True)
    back = [n for _, key, n in sum(journal.known.values(), []) if key == KEY and n in never]
    if back:
        raise Lost(f"{back} were refused, and are there")
    print(f"{before} records were acknowledged, {len(never)} of 20 refused that were not put again")
    assert server.stop() == 0


def put(client, journal):
    """Puts one record; its number if it was refused."""
    n = journal.issue(KEY)
    try:
        told = client.kinesis(
            "PutRecord", StreamName=load.STREAM, PartitionKey=KEY, Data=content(KEY, n)
        )
    except load.Refused as refused:
        retried(refused)
        return n
    journal.acknowledge(KEY, n, told["ShardId"], told["SequenceNumber"])
    return None


def fill(client, size):
    """Whether a record of this size is taken."""
    try:
        data = os.urandom(size)
        client.kinesis("PutRecord", StreamName=OTHER, PartitionKey="k", Data=data)
    except load.Refused as refused:
        retried(refused)
        return False
    return True


def refuses(call):
    try:
        call()
    except load.Refused as refused:
        return retried(refused)
    raise Lost("taken, though there is no room for it")


def retried(refused):
    """Fails unless SDKs try again after this answer."""
    if not any(name in str(refused) for name in RETRIED):
        raise Lost(f"a full disk answers {refused}, which no SDK repeats")


def take_all_room(ballast):
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())


def main():
    fault, more = {"fsync": fsync, "full": full}[sys.argv[1]], sys.argv[2:]
    volume.enter_namespace()
    with tempfile.TemporaryDirectory(prefix="faults-", dir=volume.roomy()) as folder:
        try:
            fault(Path(folder), *more)
        finally:
            for server in hydrant.Server.every:
                server.kill()
            for below in ("volume", "behind"):
                with contextlib.suppress(OSError):
                    volume.run("umount", str(Path(folder, below)))


if __name__ == "__main__":
    main()
