"""What a server acknowledged, and whether it still has it.

One journal belongs to one data directory. Writers say what they are about to put, then what was
acknowledged; checks read the server and hold it to that: every acknowledged record at its sequence
number, once, in order, with its own bytes; unacknowledged ones whole or absent; nothing that a
reader saw is gone; objects, streams and rows as they were acknowledged.
"""

import bisect
import collections
import threading
import zlib

# Records are cut from here, so that no two are alike and none has to be kept.
BLOCK = b"".join(zlib.crc32(b"%d" % n).to_bytes(4, "big") for n in range(1 << 17))
STREAM = "s"
BUCKET = "lake"
TABLE = "db.public.t"


class Lost(AssertionError):
    """The server does not have what it acknowledged, or has what nobody gave it."""


class Journal:
    def __init__(self):
        self.lock = threading.Lock()
        self.frozen = False
        # Of records: the next number of each key, the place of those acknowledged since the last
        # check, what readers saw since then, and everything a check has found.
        self.issued = collections.Counter()
        self.acknowledged = {}
        self.read = {}
        self.known = collections.defaultdict(list)
        self.last = {}
        # Of objects and streams: what may be there, each with the acknowledged state first.
        self.objects = {}
        self.streams = {}
        self.unsure = set()
        self.unsure_streams = set()
        # Of the table.
        self.rows = collections.Counter()
        self.kept_rows = set()
        self.counts = collections.Counter()

    def freeze(self):
        """From here on nothing counts as acknowledged: the power is about to be cut."""
        with self.lock:
            self.frozen = True

    def thaw(self):
        with self.lock:
            self.frozen = False

    def note(self, change):
        """Enters what was acknowledged, unless the power may have been cut by now."""
        with self.lock:
            if not self.frozen:
                change()

    # Records.

    def issue(self, key):
        """The number of the next record under a key, never given again."""
        self.issued[key] += 1
        return self.issued[key]

    def acknowledge(self, key, n, shard, sequence):
        def change():
            self.acknowledged[key, n] = (shard, int(sequence))
            self.counts["records acknowledged"] += 1

        self.note(change)

    def saw(self, shard, records):
        """What a reader was given."""
        def change():
            for record in records:
                self.read[shard, int(record["SequenceNumber"])] = identity(record)
                self.counts["records read"] += 1

        self.note(change)

    def check_records(self, read_from, shards, whole):
        """Reads on from the last check, or everything, and compares. `read_from(shard, sequence)`
        gives the records of a shard after that sequence number, or all of them."""
        found = {}
        for shard in shards:
            known = self.known[shard]
            after = None if whole or not known else known[-1][0]
            records = [(int(r["SequenceNumber"]), *identity(r)) for r in read_from(shard, after)]
            if after is None:
                if records[:len(known)] != known:
                    gone = next(k for k, r in zip(known, records + [None] * len(known)) if k != r)
                    raise Lost(f"{shard}: {gone} was there at an earlier check, and is not now")
                records = records[len(known):]
            for sequence, key, n in records:
                if known and sequence <= known[-1][0]:
                    raise Lost(f"{shard}: {sequence} comes after {known[-1][0]}")
                if n <= self.last.get(key, 0):
                    raise Lost(f"{shard}: {key} {n} is there twice or late, after {self.last[key]}")
                if n > self.issued[key]:
                    raise Lost(f"{shard}: nobody has put {key} {n}")
                self.last[key] = n
                found[key, n] = (shard, sequence)
                known.append((sequence, key, n))
        for (key, n), place in self.acknowledged.items():
            if found.get((key, n)) != place:
                raise Lost(f"{key} {n} was acknowledged at {place}, and is at {found.get((key, n))}")
        for (shard, sequence), (key, n) in self.read.items():
            known = self.known[shard]
            at = bisect.bisect_left(known, (sequence,))
            if at == len(known) or known[at] != (sequence, key, n):
                raise Lost(f"{shard}: a reader saw {key} {n} at {sequence}, and it is gone")
        self.counts["unacknowledged records kept"] += len(found) - len(self.acknowledged)
        self.acknowledged, self.read = {}, {}

    # Objects: a version of each, or None where it was deleted.

    def try_object(self, name, version):
        """Says what is about to be put (a number) or deleted (None)."""
        self.objects.setdefault(name, [None]).append(version)
        self.unsure.add(name)

    def acknowledge_object(self, name, version):
        def change():
            self.objects[name] = [version]
            self.counts["objects acknowledged"] += 1

        self.note(change)

    def check_objects(self, get, whole):
        """`get(name)` gives an object's bytes, or None. Without `whole`, only those that may have
        changed are looked at."""
        for name, versions in self.objects.items():
            if not whole and name not in self.unsure:
                continue
            body = get(name)
            seen = [v for v in versions if body == (None if v is None else content(name, v))]
            if not seen:
                length = None if body is None else len(body)
                raise Lost(f"object {name} of {length} bytes is none of the versions {versions}")
            self.objects[name] = seen[-1:]
        self.unsure.clear()

    # Streams beside the one with the records, made, changed and deleted.

    def acknowledge_stream(self, name, **changes):
        def change():
            self.streams.setdefault(name, {"tags": {}, "shards": 1, "hours": 24})
            state = self.streams[name]
            state["tags"].update(changes.pop("tags", {}))
            state["shards"] += changes.pop("more_shards", 0)
            state.update(changes)
            self.unsure_streams.add(name)
            self.counts["stream changes acknowledged"] += 1

        self.note(change)

    def try_deletion(self, name):
        """Says that a stream is about to be deleted."""
        self.streams[name]["doomed"] = True
        self.unsure_streams.add(name)

    def check_streams(self, describe, whole):
        """`describe(name)` gives tags, shards and hours as here, or None where it is gone."""
        for name, state in self.streams.items():
            if not whole and name not in self.unsure_streams:
                continue
            seen = describe(name)
            if seen is None and state.get("doomed"):
                state["deleted"] = True
            elif seen is None:
                raise Lost(f"stream {name} is gone")
            elif state.get("deleted"):
                raise Lost(f"stream {name} is back after it was deleted")
            elif (
                not state["tags"].items() <= seen["tags"].items()
                or seen["shards"] < state["shards"] or seen["hours"] < state["hours"]
            ):
                raise Lost(f"stream {name} is {seen}, and was acknowledged as {state}")
        self.unsure_streams.clear()

    # Rows.

    def acknowledge_rows(self, numbers):
        def change():
            self.rows.update(numbers)
            self.counts["rows acknowledged"] += len(numbers)

        self.note(change)

    def check_rows(self, rows):
        """`rows` are the numbers in the table."""
        seen = collections.Counter(rows)
        twice = [n for n, count in seen.items() if count > 1]
        if twice:
            raise Lost(f"rows {twice[:5]} are in the table twice")
        missing = (self.rows.keys() | self.kept_rows) - seen.keys()
        if missing:
            raise Lost(f"{len(missing)} rows are not in the table, such as {sorted(missing)[:5]}")
        self.kept_rows = set(seen)
        self.rows.clear()


def content(key, n):
    """The bytes of a record or object, the same whenever asked for."""
    name = f"{key} {n} ".encode()
    mark = zlib.crc32(name)
    # Mostly small, some large; one in a thousand fills a good part of a group.
    size = mark % 400 if mark % 16 else mark % 20_000 if mark % 1024 else mark % 400_000
    at = mark % (len(BLOCK) - 400_000)
    return name + BLOCK[at:at + size]


def identity(record):
    """Key and number of a record, if its bytes are what was put under them."""
    data = record["Data"]
    try:
        key, n, _ = data.split(b" ", 2)
        key, n = key.decode(), int(n)
    except ValueError:
        raise Lost(f"a record of nobody's: {data[:60]!r}") from None
    if data != content(key, n) or record["PartitionKey"] != key:
        raise Lost(f"{key} {n} has other bytes or another key than it was put with")
    return key, n
