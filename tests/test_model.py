"""Every operation, every constraint and every error that the newest SDK's model of Data Streams has."""

import re
import time
import tomllib
from pathlib import Path

import pytest

import hydrant
import model
from hydrant import ACCOUNT, REGION

ROOT = Path(__file__).parent.parent
SHARD = "shardId-000000000000"
OTHERS = "arn:aws:kinesis:us-east-1:999999999999:stream/theirs"
# What is told to a caller who called too often.
RATES = ("LimitExceededException", "ProvisionedThroughputExceededException")
# Long enough for a test to meet a stream in a state that ends by itself.
STATE_MS = 20_000


class World:
    """A server, and a stream of the test's own."""

    def __init__(self, server, name, shards=2, mode="PROVISIONED", wait=True):
        self.server, self.name, self.wire = server, name, model.Wire(server)
        self.arn = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}"
        made = {"StreamName": name, "StreamModeDetails": {"StreamMode": mode}}
        self.ok("CreateStream", made | ({"ShardCount": shards} if mode == "PROVISIONED" else {}))
        if wait:
            self.active()

    def ok(self, operation, members):
        """The reply; waits where AWS's rates hold and it was too early."""
        for _ in range(50):
            status, reply = self.wire.call(operation, members)
            if status == 200 or reply["__type"] not in RATES:
                break
            time.sleep(0.2)
        assert status == 200, reply
        return reply

    def active(self):
        def active():
            """the stream is ACTIVE"""
            told = self.ok("DescribeStreamSummary", {"StreamName": self.name})
            return told["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"

        hydrant.eventually(active, every=0.02)

    def stream(self, **more):
        return {"StreamName": self.name, **more}

    def consumer(self):
        made = self.ok("RegisterStreamConsumer", {"StreamARN": self.arn, "ConsumerName": "c"})
        arn = made["Consumer"]["ConsumerARN"]

        def active():
            """the consumer is ACTIVE"""
            told = self.ok("DescribeStreamConsumer", {"ConsumerARN": arn})
            return told["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE"

        hydrant.eventually(active, every=0.02)
        return arn

    def iterator(self):
        return self.ok("GetShardIterator", self.stream(
            ShardId=SHARD, ShardIteratorType="TRIM_HORIZON"))["ShardIterator"]

    def prepared(self, operation, members):
        """The members, once another operation has been called."""
        self.ok(operation, members)
        self.active()
        return self.stream()


def name_of(request):
    """A stream's name from the test's: legible in a log, and no other's."""
    text = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name)[-90:]
    return f"{text}-{time.time_ns()}"


@pytest.fixture(scope="session")
def wire(server):
    return model.Wire(server)


@pytest.fixture
def world(server, request):
    return World(server, name_of(request))


def started(tmp_path_factory, name, *arguments):
    running = hydrant.Server(tmp_path_factory.mktemp(name) / "data", *arguments).start()
    yield running
    running.kill()


def master_key(tmp_path_factory):
    """The setting that lets a server encrypt."""
    key = tmp_path_factory.mktemp("keys") / "master-key"
    key.write_text("07" * 32)
    key.chmod(0o600)
    return "--master-key-file", str(key)


@pytest.fixture(scope="session")
def strict(tmp_path_factory):
    """A server with AWS's rates and quotas."""
    yield from started(tmp_path_factory, "strict", "--limits", "aws", *master_key(tmp_path_factory))


@pytest.fixture(scope="session")
def slow(tmp_path_factory):
    """A server whose streams take their time."""
    yield from started(tmp_path_factory, "slow", "--stream-state-delay-ms", str(STATE_MS),
                       *master_key(tmp_path_factory))


@pytest.fixture(scope="session")
def sealing(tmp_path_factory):
    """A server that can encrypt."""
    yield from started(
        tmp_path_factory, "sealing", *master_key(tmp_path_factory), "--kms-key", "alias/off=disabled",
        "--kms-key", "alias/going=pending-deletion",
    )


# ---- valid requests -------------------------------------------------------------------------------

HALF = str(1 << 126)
METRICS = ["IncomingBytes", "OutgoingRecords"]
KEY = {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}
POLICY = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::999999999999:root"},
    "Action": ["kinesis:DescribeStreamSummary", "kinesis:GetRecords"], "Resource": "%s"}]}"""

VALID = {
    "AddTagsToStream": lambda w: w.stream(Tags={"team": "data", "empty": ""}),
    "CreateStream": lambda w: {"StreamName": w.name + "-2", "ShardCount": 1, "Tags": {"a": "b"}},
    "DecreaseStreamRetentionPeriod": lambda w: w.prepared(
        "IncreaseStreamRetentionPeriod", w.stream(RetentionPeriodHours=48)
    ) | {"RetentionPeriodHours": 24},
    "DeleteResourcePolicy": lambda w: w.prepared(
        "PutResourcePolicy", {"ResourceARN": w.arn, "Policy": POLICY % w.arn}
    ) and {"ResourceARN": w.arn},
    "DeleteStream": lambda w: w.stream(EnforceConsumerDeletion=True),
    "DeregisterStreamConsumer": lambda w: {"ConsumerARN": w.consumer()},
    "DescribeAccountSettings": lambda w: {},
    "DescribeLimits": lambda w: {},
    "DescribeStream": lambda w: w.stream(Limit=1, ExclusiveStartShardId=SHARD),
    "DescribeStreamConsumer": lambda w: {"ConsumerARN": w.consumer()},
    "DescribeStreamSummary": lambda w: {"StreamARN": w.arn},
    "DisableEnhancedMonitoring": lambda w: w.prepared(
        "EnableEnhancedMonitoring", w.stream(ShardLevelMetrics=METRICS)
    ) | {"ShardLevelMetrics": METRICS[:1]},
    "EnableEnhancedMonitoring": lambda w: w.stream(ShardLevelMetrics=["ALL"]),
    "GetRecords": lambda w: w.ok("PutRecord", w.stream(
        Data=b"x", PartitionKey="k", ExplicitHashKey="0")) and {
        "ShardIterator": w.iterator(), "Limit": 10},
    "GetResourcePolicy": lambda w: {"ResourceARN": w.arn},
    "GetShardIterator": lambda w: w.stream(
        ShardId=SHARD, ShardIteratorType="AT_TIMESTAMP", Timestamp=1_700_000_000.5),
    "IncreaseStreamRetentionPeriod": lambda w: w.stream(RetentionPeriodHours=8760),
    "ListShards": lambda w: w.stream(MaxResults=1, ShardFilter={"Type": "AT_LATEST"}),
    "ListStreamConsumers": lambda w: w.consumer() and {"StreamARN": w.arn, "MaxResults": 1},
    "ListStreams": lambda w: {"Limit": 1},
    "ListTagsForResource": lambda w: {"ResourceARN": w.arn},
    "ListTagsForStream": lambda w: w.prepared(
        "AddTagsToStream", w.stream(Tags={"a": "b", "c": "d"})) | {"Limit": 1},
    "MergeShards": lambda w: w.stream(
        ShardToMerge=SHARD, AdjacentShardToMerge="shardId-000000000001"),
    "PutRecord": lambda w: w.stream(Data=b"x", PartitionKey="k", ExplicitHashKey=HALF),
    "PutRecords": lambda w: w.stream(Records=[{"Data": b"x", "PartitionKey": "k"}] * 2),
    "PutResourcePolicy": lambda w: {"ResourceARN": w.arn, "Policy": POLICY % w.arn},
    "RegisterStreamConsumer": lambda w: {
        "StreamARN": w.arn, "ConsumerName": "c", "Tags": {"a": "b"}},
    "RemoveTagsFromStream": lambda w: w.stream(TagKeys=["team"]),
    "SplitShard": lambda w: w.stream(ShardToSplit=SHARD, NewStartingHashKey=HALF),
    "StartStreamEncryption": lambda w: w.stream(**KEY),
    "StopStreamEncryption": lambda w: w.prepared("StartStreamEncryption", w.stream(**KEY)) | KEY,
    "SubscribeToShard": lambda w: {
        "ConsumerARN": w.consumer(), "ShardId": SHARD, "StartingPosition": {"Type": "LATEST"}},
    "TagResource": lambda w: {"ResourceARN": w.arn, "Tags": {"a": "b"}},
    "UntagResource": lambda w: {"ResourceARN": w.arn, "TagKeys": ["a"]},
    "UpdateAccountSettings": lambda w: {"MinimumThroughputBillingCommitment": {
        "Status": "DISABLED"}},
    "UpdateMaxRecordSize": lambda w: {"StreamARN": w.arn, "MaxRecordSizeInKiB": 10240},
    "UpdateShardCount": lambda w: w.stream(TargetShardCount=4, ScalingType="UNIFORM_SCALING"),
    "UpdateStreamMode": lambda w: {
        "StreamARN": w.arn, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}},
    "UpdateStreamRecordDistributionStrategy": lambda w: {
        "StreamARN": on_demand(w).arn, "RecordDistributionStrategy": "AUTO"},
    "UpdateStreamWarmThroughput": lambda w: {
        "StreamName": committed(on_demand(w)).name, "WarmThroughputMiBps": 10},
}


def on_demand(world):
    return World(world.server, world.name + "-od", mode="ON_DEMAND")


def committed(world):
    """Has the account commit itself to a minimum throughput, which warm throughput needs."""
    world.ok("UpdateAccountSettings", {"MinimumThroughputBillingCommitment": {
        "Status": "ENABLED"}})
    return world


# shows: each operation
@pytest.mark.parametrize("operation", model.OPERATIONS)
def test_a_valid_request(sealing, request, operation):
    world = World(sealing, name_of(request))
    if operation in model.REFUSED:
        name, text = world.wire.error(operation, {})
        assert name == "UnsupportedOperationException"
        assert operation in text
        return
    members = VALID[operation](world)
    if operation == "SubscribeToShard":
        events = world.server.client("kinesis").subscribe_to_shard(**members)["EventStream"]
        put = world.ok("PutRecord", world.stream(Data=b"x", PartitionKey="k", ExplicitHashKey="0"))
        pushed = next(e["SubscribeToShardEvent"] for e in events
                      if e["SubscribeToShardEvent"]["Records"])
        assert pushed["Records"][0]["SequenceNumber"] == put["SequenceNumber"]
        events.close()
        return
    status, reply = world.wire.call(operation, members)
    assert status == 200, reply
    shape = model.SERVICE.operation_model(operation).output_shape
    if shape is None:
        assert reply == {}
    else:
        model.conforms(shape, reply)


def test_the_list_of_what_has_to_be_shown_is_the_models():
    listed = tomllib.loads((ROOT / "docs/kinesis-limits.toml").read_text())
    assert listed["operations"] == model.OPERATIONS


# ---- constraints ----------------------------------------------------------------------------------

BREAKS = [one for operation in model.SUPPORTED for one in model.breaks(operation)]


# shows: limit:model-constraints
@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.id)
def test_a_broken_constraint_is_told_as_aws_tells_it(wire, broken):
    name, text = wire.error(broken.operation, broken.request)
    assert name == "ValidationException", text
    assert model.same(text, broken.text), f"\n  got:  {text[:600]}\n  want: {broken.text[:600]}"


# ---- declared errors ------------------------------------------------------------------------------

ERRORS = [
    (operation, shape.name)
    for operation in model.SUPPORTED
    for shape in model.SERVICE.operation_model(operation).error_shapes
]
TESTS = "crates/kinesis/src/tests"

# Where the clock has to be moved, or the store has to fail, a test of the crate shows the error.
ELSEWHERE = {
    "ExpiredIteratorException": f"{TESTS}/records.rs::an_iterator_lives_five_minutes_over_a_restart"
                                "_and_in_quotes",
    "InternalFailureException": f"{TESTS}/stream_state.rs::a_failure_of_the_store_delays_and_loses"
                                "_nothing",
    ("ListShards", "ExpiredNextTokenException"):
        f"{TESTS}/stream_state.rs::lists_come_in_pages_whose_tokens_end",
    ("ListStreams", "ExpiredNextTokenException"):
        f"{TESTS}/stream_state.rs::lists_come_in_pages_whose_tokens_end",
    ("ListStreamConsumers", "ExpiredNextTokenException"):
        f"{TESTS}/consumers.rs::consumers_are_listed_in_pages_whose_tokens_end",
    **{
        (operation, f"KMS{why}Exception"): f"{TESTS}/encryption.rs::without_its_key_a_stream_answers"
                                           "_with_the_exceptions_of_kms"
        for operation in ("GetRecords", "PutRecord", "PutRecords")
        for why in ("AccessDenied", "Disabled", "InvalidState", "NotFound")
    },
    ("StartStreamEncryption", "KMSAccessDeniedException"):
        f"{TESTS}/encryption.rs::keys_that_are_not_there_are_refused",
    # A thousand calls in a second are more than a test can be sure to make.
    ("ListShards", "LimitExceededException"):
        f"{TESTS}/rates.rs::operations_are_called_as_often_as_aws_lets_them_be",
    # Only a stream that is encrypted is stopped, so the starts of the day are used up first.
    ("StopStreamEncryption", "LimitExceededException"):
        f"{TESTS}/rates.rs::some_changes_of_a_stream_are_counted_by_the_day",
    # Each call needs another consumer.
    ("DeregisterStreamConsumer", "LimitExceededException"):
        f"{TESTS}/rates.rs::operations_are_called_as_often_as_aws_lets_them_be",
}

TAG_OPERATIONS = ("AddTagsToStream", "ListTagsForResource", "RemoveTagsFromStream", "TagResource",
                  "UntagResource")
NO_RATE = ("ListTagsForResource", "SubscribeToShard", "TagResource", "UntagResource",
           "UpdateMaxRecordSize", "UpdateStreamRecordDistributionStrategy")
# What cannot happen here, and why.
NEVER = {
    "KMSOptInRequired": "there is no key service to opt into",
    "KMSThrottlingException": "keys are in memory: nothing is throttled",
    **{(operation, "ResourceInUseException"): "tags are read and changed in every state of a stream"
       for operation in TAG_OPERATIONS},
    ("UpdateAccountSettings", "InvalidArgumentException"):
        "its one member has two values, which the model checks (ValidationException)",
    **{(f"{verb}ResourcePolicy", "ResourceInUseException"):
       "policies are read and changed in every state of a stream"
       for verb in ("Delete", "Get", "Put")},
    **{(operation, "LimitExceededException"): "AWS documents no rate or quota of this operation"
       for operation in NO_RATE},
}


def wrong_names(operation):
    """Names of two streams in one request, where it takes two ways of naming one."""
    def scenario(get):
        world = get("server")
        members = model.request(operation)
        shape = model.SERVICE.operation_model(operation).input_shape
        assert {"StreamName", "StreamARN"} <= shape.members.keys(), "needs a scenario of its own"
        return world, members | {"StreamName": world.name, "StreamARN": model.ARN}
    return scenario


def someone_elses(operation):
    def scenario(get):
        world = get("server")
        members = {k: v for k, v in model.request(operation).items() if k not in model.NAMES}
        shape = model.SERVICE.operation_model(operation).input_shape
        for member in ("ConsumerARN", "ResourceARN", "StreamARN"):
            if member in shape.members:
                arn = OTHERS + ("/consumer/c:1700000000" if member == "ConsumerARN" else "")
                members[member] = arn
                break
        if operation == "GetRecords":
            members["ShardIterator"] = world.iterator()
        return world, members
    return scenario


def nobodys(operation):
    return lambda get: (get("server"), model.request(operation))


def broken(operation):
    return lambda get: (get("server"), model.breaks(operation)[0].request)


def not_active(operation):
    """A stream that is CREATING still."""
    def scenario(get):
        world = get("slow", wait=False)
        made = VALID[operation]
        return world, made(world)
    return scenario


def too_often(operation):
    """The same request; the test repeats it until there were too many of them."""
    def scenario(get):
        world = get("strict")
        return world, VALID[operation](world)
    return scenario


def too_much(operation):
    """More than a shard gives or takes in a second, if it is repeated."""
    def scenario(get):
        world = get("strict", shards=1)
        members = VALID[operation](world)
        if operation == "PutRecord":
            members["Data"] = b"x" * 1_000_000
        return world, members
    return scenario


def dry(operation):
    def scenario(get):
        world = get("server")
        return world, VALID[operation](world) | {"DryRun": True}
    return scenario


GENERIC = {
    "AccessDeniedException": someone_elses,
    "DryRunOperationException": dry,
    "InvalidArgumentException": wrong_names,
    "LimitExceededException": too_often,
    "ProvisionedThroughputExceededException": too_much,
    "ResourceInUseException": not_active,
    "ResourceNotFoundException": nobodys,
    "ValidationException": broken,
}

def no_name(operation):
    """An ARN of the right pattern, but of a stream that cannot be."""
    def scenario(get):
        world = get("server")
        members = dict(model.request(operation))
        shape = model.SERVICE.operation_model(operation).input_shape
        for name in ("ConsumerARN", "ResourceARN", "StreamARN", "StreamName"):
            members.pop(name, None)
        members["ResourceARN" if "ResourceARN" in shape.members else "StreamARN"] = model.ARN + "/!"
        if "ConsumerName" in shape.members:
            members["ConsumerName"] = "c"
        return world, members
    return scenario


def crowded(get):
    """Records of a PutRecords fail on their own: the call as a whole does not."""
    world = get("strict", shards=1)
    entry = {"Data": b"x" * 900_000, "PartitionKey": "k"}
    reply = world.ok("PutRecords", world.stream(Records=[entry] * 3))
    codes = [record.get("ErrorCode") for record in reply["Records"]]
    assert codes[0] is None and "ProvisionedThroughputExceededException" in codes
    assert reply["FailedRecordCount"] == len(codes) - codes.count(None)


def with_world(server, members, **more):
    """Members that are made for a stream."""
    def scenario(get):
        world = get(server, **more)
        return world, members(world)
    return scenario


def deleted_under_its_iterator(get):
    world = get("server")
    iterator = world.iterator()
    world.ok("DeleteStream", world.stream())

    def gone():
        """the stream is gone"""
        return world.wire.call("DescribeStreamSummary", world.stream())[0] == 400

    hydrant.eventually(gone, every=0.02)
    return world, {"ShardIterator": iterator}


def subscribed_already(get):
    world = get("server")
    members = VALID["SubscribeToShard"](world)
    world.keep = world.server.client("kinesis").subscribe_to_shard(**members)
    return world, members


def registered_already(get):
    world = get("server")
    world.consumer()
    return world, {"StreamARN": world.arn, "ConsumerName": "c"}


def many_times(wanted, *operations):
    """Changes to and fro until there were too many of them."""
    def scenario(get):
        world = get("strict")
        for n in range(120):
            operation, members = operations[n % len(operations)](world)
            world.active()
            status, reply = world.wire.call(operation, members)
            if status != 200 and reply["__type"] == LIMIT and operation == wanted:
                break
            assert status == 200 or reply["__type"] == LIMIT, reply
        return world, members
    return scenario


ARN_OPERATIONS = (
    "DeleteResourcePolicy", "DeregisterStreamConsumer", "DescribeStreamConsumer",
    "GetResourcePolicy", "ListStreamConsumers", "ListTagsForResource", "PutResourcePolicy",
    "RegisterStreamConsumer", "TagResource", "UntagResource", "UpdateMaxRecordSize",
    "UpdateStreamMode", "UpdateStreamRecordDistributionStrategy",
)
INVALID, IN_USE = "InvalidArgumentException", "ResourceInUseException"
LIMIT, NOT_FOUND = "LimitExceededException", "ResourceNotFoundException"

SPECIAL = {
    **{(operation, INVALID): no_name(operation) for operation in ARN_OPERATIONS},
    ("PutRecords", "ProvisionedThroughputExceededException"): crowded,
    ("ListStreamConsumers", IN_USE): with_world(
        "slow", lambda w: {"StreamARN": w.arn}, wait=False),
    ("CreateStream", INVALID): with_world("server", lambda w: {
        "StreamName": w.name + "-2", "ShardCount": 1, "Tags": {"a;b": "c"}}),
    ("CreateStream", IN_USE): with_world("server", lambda w: w.stream(ShardCount=1)),
    ("GetRecords", INVALID): with_world("server", lambda w: {"ShardIterator": "none"}),
    ("ListStreams", INVALID): with_world("server", lambda w: {"NextToken": "none"}),
    ("SubscribeToShard", INVALID): with_world("server", lambda w: VALID["SubscribeToShard"](w) | {
        "StartingPosition": {"Type": "AT_SEQUENCE_NUMBER"}}),
    ("GetRecords", NOT_FOUND): deleted_under_its_iterator,
    ("DeregisterStreamConsumer", NOT_FOUND): with_world("server", lambda w: {
        "StreamARN": w.arn, "ConsumerName": "nobody"}),
    ("DescribeStreamConsumer", NOT_FOUND): with_world("server", lambda w: {
        "StreamARN": w.arn, "ConsumerName": "nobody"}),
    ("StartStreamEncryption", NOT_FOUND): with_world("sealing", lambda w: {
        "StreamName": "nobody", **KEY}),
    ("StopStreamEncryption", NOT_FOUND): with_world("sealing", lambda w: {
        "StreamName": "nobody", **KEY}),
    ("StartStreamEncryption", "KMSDisabledException"): with_world("sealing", lambda w: w.stream(
        EncryptionType="KMS", KeyId="alias/off")),
    ("StartStreamEncryption", "KMSInvalidStateException"): with_world("sealing", lambda w: w.stream(
        EncryptionType="KMS", KeyId="alias/going")),
    ("StartStreamEncryption", "KMSNotFoundException"): with_world("sealing", lambda w: w.stream(
        EncryptionType="KMS", KeyId="alias/nobodys")),
    ("StartStreamEncryption", LIMIT): many_times(
        "StartStreamEncryption", lambda w: ("StartStreamEncryption", w.stream(**KEY))),
    ("UpdateStreamMode", LIMIT): many_times(
        "UpdateStreamMode", lambda w: ("UpdateStreamMode", {
            "StreamARN": w.arn, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}),
        lambda w: ("UpdateStreamMode", {
            "StreamARN": w.arn, "StreamModeDetails": {"StreamMode": "PROVISIONED"}})),
    ("DecreaseStreamRetentionPeriod", IN_USE): with_world(
        "slow", lambda w: w.stream(RetentionPeriodHours=24), wait=False),
    ("DeleteStream", IN_USE): with_world("server", lambda w: w.consumer() and w.stream()),
    ("DisableEnhancedMonitoring", IN_USE): with_world(
        "slow", lambda w: w.stream(ShardLevelMetrics=METRICS), wait=False),
    ("StopStreamEncryption", IN_USE): with_world(
        "slow", lambda w: w.stream(**KEY), wait=False),
    ("RegisterStreamConsumer", IN_USE): registered_already,
    ("SubscribeToShard", IN_USE): subscribed_already,
    ("UpdateStreamRecordDistributionStrategy", IN_USE): with_world("slow", lambda w: {
        "StreamARN": w.arn, "RecordDistributionStrategy": "USER_PARTITION_KEY"}, wait=False),
    ("UpdateStreamWarmThroughput", IN_USE): with_world("slow", lambda w: committed(w).stream(
        WarmThroughputMiBps=10), wait=False, mode="ON_DEMAND"),
}


@pytest.mark.parametrize("operation, error", ERRORS, ids=map("-".join, ERRORS))
def test_a_declared_error(request, operation, error):
    for key in ((operation, error), error):
        if key in NEVER:
            assert NEVER[key]
            return
        if key in ELSEWHERE:
            path, name = ELSEWHERE[key].split("::")
            assert re.search(rf"\bfn {name}\(", (ROOT / path).read_text()), ELSEWHERE[key]
            return

    def get(server, suffix="", **more):
        return World(request.getfixturevalue(server), name_of(request) + suffix, **more)

    scenario = SPECIAL.get((operation, error)) or GENERIC[error](operation)
    made = scenario(get)
    if made is None:
        return
    world, members = made
    # A rate takes some calls to be exceeded.
    for _ in range(400 if error in RATES else 1):
        status, reply = world.wire.call(operation, members)
        if status != 200 and reply["__type"] == error:
            break
    assert status == 400, (status, reply)
    assert reply["__type"] == error, reply
    assert reply["message"]
