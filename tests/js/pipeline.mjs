// Drives a stream, a delivery stream and a bucket with the SDK as it comes, and tells as JSON what
// it saw. Arguments: the endpoint, and a name to use for all three.

import {
  CreateStreamCommand, DescribeStreamSummaryCommand, GetRecordsCommand, GetShardIteratorCommand,
  KinesisClient, PutRecordsCommand, waitUntilStreamExists,
} from "@aws-sdk/client-kinesis";
import {
  CreateDeliveryStreamCommand, DescribeDeliveryStreamCommand, FirehoseClient,
  PutRecordBatchCommand,
} from "@aws-sdk/client-firehose";
import {
  CreateBucketCommand, GetObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client,
} from "@aws-sdk/client-s3";

const [endpoint, name] = process.argv.slice(2);
const common = {
  endpoint, region: "us-east-1", maxAttempts: 1,
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
};
const told = {};

// The HTTP version that was really spoken, as the SDK's own stack saw the reply.
const kinesis = new KinesisClient(common);
kinesis.middlewareStack.add((next) => async (args) => {
  const result = await next(args);
  told.httpVersion ??= kinesis.config.requestHandler.metadata.handlerProtocol === "h2" ? "2.0" : "1";
  return result;
}, { step: "deserialize" });

await kinesis.send(new CreateStreamCommand({ StreamName: name, ShardCount: 1 }));
await waitUntilStreamExists({ client: kinesis, maxWaitTime: 20, minDelay: 1 }, { StreamName: name });
await kinesis.send(new PutRecordsCommand({
  StreamName: name,
  Records: ["first", "second"].map((text) => ({ Data: Buffer.from(text), PartitionKey: "k" })),
}));
const iterator = await kinesis.send(new GetShardIteratorCommand({
  StreamName: name, ShardId: "shardId-000000000000", ShardIteratorType: "TRIM_HORIZON",
}));
const page = await kinesis.send(new GetRecordsCommand({ ShardIterator: iterator.ShardIterator }));
told.records = page.Records.map((record) => Buffer.from(record.Data).toString());
try {
  await kinesis.send(new DescribeStreamSummaryCommand({ StreamName: "nowhere" }));
} catch (error) {
  told.missing = { name: error.name, message: error.message };
}

const s3 = new S3Client({ ...common, forcePathStyle: true });
await s3.send(new CreateBucketCommand({ Bucket: name }));
const large = Buffer.alloc(1 << 20, 7);
await s3.send(new PutObjectCommand({ Bucket: name, Key: "round/trip ü", Body: large }));
const back = await s3.send(new GetObjectCommand({ Bucket: name, Key: "round/trip ü" }));
told.roundTrip = large.equals(Buffer.from(await back.Body.transformToByteArray()));

const firehose = new FirehoseClient(common);
await firehose.send(new CreateDeliveryStreamCommand({
  DeliveryStreamName: name,
  ExtendedS3DestinationConfiguration: {
    RoleARN: "arn:aws:iam::000000000000:role/firehose",
    BucketARN: `arn:aws:s3:::${name}`,
    Prefix: "delivered/",
    BufferingHints: { SizeInMBs: 1, IntervalInSeconds: 1 },
  },
}));
const pause = () => new Promise((resolve) => setTimeout(resolve, 100));
const until = async (check) => {
  for (let n = 0; n < 200; n += 1) {
    const seen = await check();
    if (seen) return seen;
    await pause();
  }
  throw new Error(`not within 20 s: ${check}`);
};
await until(async () => {
  const seen = await firehose.send(new DescribeDeliveryStreamCommand({ DeliveryStreamName: name }));
  return seen.DeliveryStreamDescription.DeliveryStreamStatus === "ACTIVE";
});
await firehose.send(new PutRecordBatchCommand({
  DeliveryStreamName: name,
  Records: ["one\n", "two\n"].map((text) => ({ Data: Buffer.from(text) })),
}));
const key = await until(async () => {
  const seen = await s3.send(new ListObjectsV2Command({ Bucket: name, Prefix: "delivered/" }));
  return seen.Contents?.[0]?.Key;
});
const object = await s3.send(new GetObjectCommand({ Bucket: name, Key: key }));
told.object = await object.Body.transformToString();

console.log(JSON.stringify(told));
process.exit(0);
