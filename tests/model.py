"""Requests made from the newest SDK's model of Data Streams, and what AWS says of those that break it.

Nothing of the model stands here: operations, shapes and constraints are read from the botocore that
is installed. What stands here is how AWS words a violation, one good value for each shape that has a
pattern, and the places where AWS says something else than the model would have it.
"""

import base64
import copy
import http.client
import json
import re

import botocore.loaders
import botocore.model

SERVICE = botocore.model.ServiceModel(
    botocore.loaders.Loader().load_service_model("kinesis", "service-2"), "kinesis"
)
TARGET = SERVICE.metadata["targetPrefix"]
OPERATIONS = sorted(SERVICE.operation_names)
ACCOUNT = "000000000000"
ARN = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/nobody"

# The rest of the API, which hydrant refuses by name.
REFUSED = {name for name in OPERATIONS if re.search("Channels?$|Queues?|Queue[A-Z]", name)}
SUPPORTED = [name for name in OPERATIONS if name not in REFUSED]

# A good value for each shape whose pattern, or whose meaning, a made-up one would not have.
GOOD = {
    "StreamName": "nobody",
    "ConsumerName": "nobody",
    "StreamARN": ARN,
    "ResourceARN": ARN,
    "ConsumerARN": f"{ARN}/consumer/nobody:1700000000",
    "StreamId": "abcdefghij0123456789-abc",
    "ShardId": "shardId-000000000000",
    "HashKey": "0",
    "SequenceNumber": "0",
    "Policy": "{}",
}
# A value that is of the right length, but not of the pattern.
BAD = {"StreamId": "ABCDEFGHIJ0123456789-abc"}

# AWS prints these patterns without their anchors (kinesalite's tests, recorded from AWS).
PATTERNS = {
    "HashKey": r"0|([1-9]\d{0,38})",
    "SequenceNumber": r"0|([1-9]\d{0,128})",
}
# What AWS does not repeat, because it is no text: of `data` it says `Value at 'data'`; of a long
# `records` it prints the addresses of its own objects, which nobody can.
SILENT = {"Data", "PutRecordsRequestEntryList"}
# Longest part of a value that hydrant repeats.
SHOWN_BYTES_MAX = 4_096

# Members that a provisioned stream with partition keys wants.
WANTED = ("PartitionKey", "ShardCount")
# Inputs that may name a stream in several ways: AWS misses the name if there is none of them.
NAMES = ("StreamName", "StreamARN", "StreamId")


def lower(name):
    return name[0].lower() + name[1:]


def good(shape):
    """A value of the shape that breaks nothing."""
    limits = shape.metadata
    if shape.name in GOOD:
        value = GOOD[shape.name]
        assert fits(shape, value), shape
        return value
    match shape.type_name:
        case "string":
            assert not limits.get("pattern"), f"{shape.name} needs a good value"
            return limits["enum"][0] if "enum" in limits else "x" * max(1, limits.get("min", 1))
        case "integer" | "long":
            return max(1, limits.get("min", 1))
        case "boolean":
            return False
        case "timestamp":
            return 1_700_000_000.5
        case "blob":
            return b"x" * max(1, limits.get("min", 1))
        case "list":
            return good_list(shape, max(1, limits.get("min", 1)))
        case "map":
            return {f"key{n}": good(shape.value) for n in range(max(1, limits.get("min", 1)))}
        case "structure":
            return {name: good(shape.members[name]) for name in shape.required_members}
    raise AssertionError(shape.type_name)


def whole(shape):
    """A structure with what a stream of the usual kind wants, too."""
    return {**good(shape), **{name: good(shape.members[name]) for name in WANTED
                              if name in shape.members}}


def fits(shape, value):
    pattern = shape.metadata.get("pattern")
    return pattern is None or re.fullmatch(pattern, value) is not None


def request(operation):
    """The smallest request of the operation that breaks no constraint. Its stream does not exist."""
    shape = SERVICE.operation_model(operation).input_shape
    made = whole(shape)
    if not any(name in made for name in NAMES):
        for name in NAMES:
            if name in shape.members:
                made[name] = good(shape.members[name])
                break
    return made


class Break:
    """A request with one member that breaks one constraint, and what AWS says to it."""

    def __init__(self, operation, request, at, kind, violations):
        self.operation, self.request, self.kind = operation, request, kind
        many = "" if len(violations) == 1 else "s"
        self.text = f"{len(violations)} validation error{many} detected: {'; '.join(violations)}"
        self.id = f"{operation}-{at}-{kind}"


def breaks(operation):
    """Every way to break the model's constraints on the operation's input, one at a time."""
    shape = SERVICE.operation_model(operation).input_shape
    base = request(operation)
    found = []

    def add(edit, at, kind, violations):
        changed = copy.deepcopy(base)
        edit(changed)
        found.append(Break(operation, changed, at, kind, violations))

    for name in [*shape.required_members, *unwritten_required(shape)]:
        add(lambda r, name=name: r.pop(name), lower(name), "required", [null(lower(name))])
    for name, member in shape.members.items():
        for kind, value, violations in wrong(member, lower(name)):
            add(lambda r, n=name, v=value: r.__setitem__(n, v), *place(violations, lower(name)),
                kind, [text for _, text in violations])
    return found


def place(violations, default):
    return (violations[0][0] if violations else default,)


def unwritten_required(shape):
    """AWS wants one of the names, which the model cannot say; without any it misses the first."""
    names = [name for name in NAMES if name in shape.members]
    if not names or any(name in shape.required_members for name in NAMES):
        return []
    if "NextToken" in shape.members or "ShardIterator" in shape.members:
        return []
    if "ConsumerARN" in shape.members or "ResourceARN" in shape.members:
        return []
    return names[:1]


def null(at):
    return f"Value null at '{at}' failed to satisfy constraint: Member must not be null"


def wrong(shape, at):
    """Values that break the shape: the kind, the value, and each violation with its place."""
    for kind, value in wrong_alone(shape):
        yield kind, value, [(at, text) for text in violations(shape, value, at)]
    if shape.type_name == "structure":
        for name in shape.required_members:
            value = whole(shape)
            del value[name]
            below = f"{at}.{lower(name)}"
            yield "required", value, [(below, null(below))]
        for name, member in shape.members.items():
            for kind, value, texts in wrong(member, f"{at}.{lower(name)}"):
                yield kind, {**whole(shape), name: value}, texts
    elif shape.type_name == "list" and shape.member.type_name == "structure":
        for kind, value, texts in wrong(shape.member, f"{at}.1.member"):
            yield kind, [value], texts
    elif shape.type_name == "list":
        # Of scalars AWS says what all of them have to be.
        for kind, value in wrong_alone(shape.member):
            items = [good(shape.member), value]
            rules = f"Member must satisfy constraint: [{', '.join(rules_of(shape.member))}]"
            place = f"{at}.member"
            yield kind, items, [(place, says(at, shown(items), rules))]
    elif shape.type_name == "map":
        for part, member in (("keys", shape.key), ("value", shape.value)):
            for kind, value in wrong_alone(member):
                pairs = {value: "x"} if part == "keys" else {"key0": value}
                rules = f"Map {part} must satisfy constraint: [{', '.join(rules_of(member))}]"
                yield kind, pairs, [(f"{at}.{part}", says(at, shown(pairs), rules))]


def wrong_alone(shape):
    """Values that break one of the shape's own constraints."""
    limits = shape.metadata
    low, high = limits.get("min"), limits.get("max")
    match shape.type_name:
        case "string":
            if low:
                yield "min", good(shape)[:low - 1] if low > 1 else ""
            if high:
                yield "max", long(shape, high + 1)
            if limits.get("pattern"):
                value = BAD.get(shape.name, "!" * max(1, low or 1))
                assert not fits(shape, value), shape
                yield "pattern", value
            if limits.get("enum"):
                yield "enum", "NOT_ONE_OF_THEM"
        case "integer" | "long":
            if low is not None:
                yield "min", low - 1
            if high is not None:
                yield "max", high + 1
        case "blob":
            if high is not None:
                yield "max", b"x" * (high + 1)
        case "list":
            if low:
                yield "min", good_list(shape, low - 1)
            if high:
                yield "max", good_list(shape, high + 1)
        case "map":
            if low:
                yield "min", {}
            if high:
                yield "max", {f"key{n}": good(shape.value) for n in range(high + 1)}


def good_list(shape, length):
    make = whole if shape.member.type_name == "structure" else good
    return [make(shape.member) for _ in range(length)]


def long(shape, length):
    """A text of this length that breaks nothing else, if there is one."""
    value = good(shape)
    for filler in ("x", "0"):
        longer = value + filler * (length - len(value))
        if fits(shape, longer):
            return longer
    return longer


def violations(shape, value, at):
    """What AWS says of one value: pattern, least, most, words, in this order."""
    limits = shape.metadata
    texts = []
    told = None if shape.name in SILENT and not isinstance(value, (str, int)) and value \
        else shown(value)
    if shape.type_name == "string":
        if not fits(shape, value):
            texts.append(rule("pattern", limits, shape.name))
        if len(value) < limits.get("min", 0):
            texts.append(rule("min", limits))
        if len(value) > limits.get("max", len(value)):
            texts.append(rule("max", limits))
        if "enum" in limits and value not in limits["enum"]:
            texts.append(rule("enum", limits))
    elif shape.type_name in ("integer", "long"):
        if value < limits.get("min", value):
            texts.append(f"Member must have value greater than or equal to {limits['min']}")
        if value > limits.get("max", value):
            texts.append(f"Member must have value less than or equal to {limits['max']}")
    else:
        if len(value) < limits.get("min", 0):
            texts.append(rule("min", limits))
        if len(value) > limits.get("max", len(value)):
            texts.append(rule("max", limits))
    return [says(at, told, text) for text in texts]


def rules_of(shape):
    """All that the members of a list, the keys or the values of a map have to be."""
    limits = shape.metadata
    return [rule(kind, limits, shape.name) for kind in ("enum", "max", "min", "pattern")
            if kind in limits]


def rule(kind, limits, name=None):
    match kind:
        case "pattern":
            pattern = PATTERNS.get(name, limits["pattern"])
            return f"Member must satisfy regular expression pattern: {pattern}"
        case "min":
            return f"Member must have length greater than or equal to {limits['min']}"
        case "max":
            return f"Member must have length less than or equal to {limits['max']}"
        case "enum":
            return f"Member must satisfy enum value set: [{', '.join(limits['enum'])}]"
    raise AssertionError(kind)


def says(at, told, constraint):
    told = "" if told is None else f" '{told.encode()[:SHOWN_BYTES_MAX].decode(errors='ignore')}'"
    return f"Value{told} at '{at}' failed to satisfy constraint: {constraint}"


def shown(value):
    """A value as Java prints it."""
    match value:
        case list():
            return f"[{', '.join(map(shown, value))}]"
        case dict():
            return "{" + ", ".join(f"{key}={shown(one)}" for key, one in value.items()) + "}"
        case _:
            return str(value)


def same(one, other):
    """Whether two texts are the same but for the order of a set of words, which AWS does not keep."""
    sets = r"enum value set: \[([^\]]*)\]"
    sort = lambda found: f"enum value set: {sorted(found[1].split(', '))}"  # noqa: E731
    return re.sub(sets, sort, one) == re.sub(sets, sort, other)


def conforms(shape, value, at="reply"):
    """Whether a reply is of the model's shape: what is required is there, nothing is null."""
    assert value is not None, at
    match shape.type_name:
        case "structure":
            assert isinstance(value, dict), at
            for name in shape.required_members:
                # Of a stream without a policy AWS answers an empty object, whatever the model says.
                assert name in value or name == "Policy", f"{at}: no {name}"
            for name, one in value.items():
                assert name in shape.members, f"{at}: {name} is not of the model"
                conforms(shape.members[name], one, f"{at}.{name}")
        case "list":
            assert isinstance(value, list), at
            for one in value:
                conforms(shape.member, one, f"{at}[]")
        case "string":
            assert isinstance(value, str), at
            assert "enum" not in shape.metadata or value in shape.metadata["enum"], f"{at}: {value}"
            assert fits(shape, value), f"{at}: {value}"
        case "integer" | "long":
            assert type(value) is int, at
            limits = shape.metadata
            # Of no failed record AWS tells a zero, whatever the model says.
            low = 0 if at.endswith("FailedRecordCount") else limits.get("min", value)
            assert low <= value <= limits.get("max", value), f"{at}: {value}"
        case "timestamp":
            assert isinstance(value, (int, float)), at
        case "boolean":
            assert isinstance(value, bool), at
        case "blob":
            base64.b64decode(value, validate=True)


class Wire:
    """Sends requests as they are, which an SDK would check first. For a server without keys."""

    def __init__(self, server, region="us-east-1", key="test"):
        self.address = server.aws_address
        self.scope = f"{key}/20260102/{region}/kinesis/aws4_request"
        self.connection = None

    def call(self, operation, members):
        """Status, and the reply; of an error its name and text."""
        body = json.dumps(members, default=lambda b: base64.b64encode(b).decode())
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": f"{TARGET}.{operation}",
            "x-amz-date": "20260102T030405Z",
            "authorization": f"AWS4-HMAC-SHA256 Credential={self.scope}, "
                             f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}",
        }
        for attempt in range(2):
            if self.connection is None:
                self.connection = http.client.HTTPConnection(*self.address, timeout=30)
            try:
                self.connection.request("POST", "/", body, headers)
                reply = self.connection.getresponse()
                text = reply.read()
            except (http.client.HTTPException, OSError):
                # The server may have closed what was idle.
                self.connection.close()
                self.connection = None
                if attempt:
                    raise
                continue
            break
        return reply.status, json.loads(text) if text else {}

    def error(self, operation, members):
        """Name and text of the error that there has to be."""
        status, reply = self.call(operation, members)
        assert status in (400, 500), (status, reply)
        return reply["__type"], reply.get("message", "")
