"""The terminal session of the first page, typed into a shell: the AWS CLI, zcat and psql."""

import json

import pytest

from hydrant import ACCOUNT, eventually, sh

pytestmark = [pytest.mark.needs("aws", "psql"), pytest.mark.timeout(180)]

ROLE = f"arn:aws:iam::{ACCOUNT}:role/firehose"

# The two statements of the notes that hydrant is built from, verbatim but for the bucket and keys.
STAGE = """create or replace stage twitter_stream.public.twitter_stage
url='s3://lake/'
credentials = (AWS_KEY_ID='test' AWS_SECRET_KEY='test');
"""
PIPE = """create or replace pipe twitter_stream.public.snowpipe auto_ingest=true as
copy into twitter_stream.public.tweets
from @twitter_stream.public.twitter_stage
file_format = (type = 'JSON');
"""
TABLE = "create or replace table twitter_stream.public.tweets (tweet variant)"


def test_the_session_from_put_record_to_select(start):
    server = start()
    env = server.shell()
    host, port = server.sql_address
    psql = f"psql -X -v ON_ERROR_STOP=1 -h {host} -p {port} -U hydrant twitter_stream"

    def aws(command):
        text = sh(f"aws {command}", env)
        return json.loads(text) if text.strip().startswith("{") else text

    # Streams: the CLI's own waiter, both shards, and the record as it was put.
    aws("kinesis create-stream --stream-name tweets --shard-count 2")
    aws("kinesis wait stream-exists --stream-name tweets")
    put = aws("kinesis put-record --stream-name tweets --partition-key a "
              """--data '{"id":1,"text":"hi"}'""")
    assert put["SequenceNumber"].isdigit() and len(put["SequenceNumber"]) == 56
    iterator = aws("kinesis get-shard-iterator --stream-name tweets "
                   f"--shard-id {put['ShardId']} --shard-iterator-type TRIM_HORIZON")
    page = aws(f"kinesis get-records --shard-iterator '{iterator['ShardIterator']}'")
    record, = page["Records"]
    assert record["SequenceNumber"] == put["SequenceNumber"]
    assert record["PartitionKey"] == "a"
    assert page["MillisBehindLatest"] == 0 and page["NextShardIterator"]
    told = aws("kinesis describe-stream-summary --stream-name tweets")["StreamDescriptionSummary"]
    assert told["OpenShardCount"] == 2 and told["StreamStatus"] == "ACTIVE"

    # The warehouse, into a database that does not exist when psql connects.
    aws("s3 mb s3://lake")
    sh(f"""{psql} -c "create database if not exists twitter_stream" -c "{TABLE}" """
       """-c "$STAGE" -c "$PIPE" """, env | {"STAGE": STAGE, "PIPE": PIPE})
    assert sh(f"""{psql} -At -c "select count(*) from tweets" """, env).strip() == "0"

    # Delivery: one that taps the stream from its beginning, one that is put to.
    destination = ('{"RoleARN":"%s","BucketARN":"arn:aws:s3:::lake","Prefix":"%s",'
                   '"BufferingHints":{"SizeInMBs":1,"IntervalInSeconds":1},'
                   '"CompressionFormat":"GZIP"}')
    stream_arn = told["StreamARN"]
    aws("firehose create-delivery-stream --delivery-stream-name tweets-to-lake "
        "--delivery-stream-type KinesisStreamAsSource --kinesis-stream-source-configuration "
        f"KinesisStreamARN={stream_arn},RoleARN={ROLE} "
        f"--extended-s3-destination-configuration '{destination % (ROLE, 'tapped/')}'")
    aws("firehose create-delivery-stream --delivery-stream-name direct "
        "--delivery-stream-type DirectPut "
        f"--extended-s3-destination-configuration '{destination % (ROLE, 'direct/')}'")
    listed = aws("firehose list-delivery-streams")["DeliveryStreamNames"]
    assert sorted(listed) == ["direct", "tweets-to-lake"]

    def active(name):
        told = aws(f"firehose describe-delivery-stream --delivery-stream-name {name}")
        return told["DeliveryStreamDescription"]["DeliveryStreamStatus"] == "ACTIVE"

    eventually(lambda: active("direct") and active("tweets-to-lake"))
    aws("kinesis put-record --stream-name tweets --partition-key b "
        """--data '{"id":2,"text":"later","user":{"name":"ada"},"tags":["x","y"]}'""")
    batch = aws(
        "firehose put-record-batch --delivery-stream-name direct --records "
        """'[{"Data":"{\\"id\\":10,\\"text\\":\\"ten\\"}\\n"},{"Data":"{\\"id\\":11}\\n"}]'"""
    )
    assert batch["FailedPutCount"] == 0 and len(batch["RequestResponses"]) == 2

    # Rows arrive within seconds. What was put before the tap was made is not in it: as with AWS, a
    # delivery stream reads its source from the moment it becomes ACTIVE.
    def rows():
        """ids 2, 10 and 11 in the table"""
        out = sh(f"""{psql} -At -c "select tweet:id::number as id, tweet:text::string as text, """
                 """tweet:user.name::string, tweet:tags[1]::string from tweets order by id" """,
                 env)
        found = out.splitlines()
        return found if {line.split("|")[0] for line in found} >= {"2", "10", "11"} else None

    found = eventually(rows, 20, 0.3)
    assert found == ["2|later|ada|y", "10|ten||", "11|||"]

    # The bucket: the objects, and one of them unpacked.
    listing = sh("aws s3 ls s3://lake --recursive", env)
    objects = [line.split()[3] for line in listing.splitlines()]
    assert {key.split("/")[0] for key in objects} == {"tapped", "direct"}
    assert all(key.endswith(".gz") for key in objects), objects
    direct, = [key for key in objects if key.startswith("direct/")]
    text = sh(f"aws s3 cp s3://lake/{direct} - | zcat", env)
    assert text == '{"id":10,"text":"ten"}\n{"id":11}\n'
    assert "lake" in sh("aws s3 ls", env)

