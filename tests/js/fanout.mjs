// Subscribes to a shard with the SDK as it comes, over HTTP/2, and tells as JSON what it saw.
// Arguments: the endpoint, and a name for the stream.

import {
  CreateStreamCommand, DeleteStreamCommand, DescribeStreamConsumerCommand,
  DescribeStreamSummaryCommand, KinesisClient, PutRecordCommand, RegisterStreamConsumerCommand,
  SplitShardCommand, SubscribeToShardCommand, waitUntilStreamExists,
} from "@aws-sdk/client-kinesis";

const [endpoint, name] = process.argv.slice(2);
const kinesis = new KinesisClient({
  endpoint, region: "us-east-1", maxAttempts: 1,
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
});
const told = { data: [] };

const until = async (check) => {
  for (let n = 0; n < 200; n += 1) {
    if (await check()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`not within 20 s: ${check}`);
};
const put = (text) => kinesis.send(new PutRecordCommand({
  StreamName: name, PartitionKey: "k", Data: Buffer.from(text),
}));

await kinesis.send(new CreateStreamCommand({ StreamName: name, ShardCount: 1 }));
await waitUntilStreamExists({ client: kinesis, maxWaitTime: 20, minDelay: 1 }, { StreamName: name });
const summary = await kinesis.send(new DescribeStreamSummaryCommand({ StreamName: name }));
const stream = summary.StreamDescriptionSummary.StreamARN;
const { Consumer } = await kinesis.send(new RegisterStreamConsumerCommand({
  StreamARN: stream, ConsumerName: "c", Tags: { colour: "red" },
}));
const consumer = Consumer.ConsumerARN;
await until(async () => {
  const seen = await kinesis.send(new DescribeStreamConsumerCommand({ ConsumerARN: consumer }));
  return seen.ConsumerDescription.ConsumerStatus === "ACTIVE";
});
const subscribe = async (shard) => {
  const reply = await kinesis.send(new SubscribeToShardCommand({
    ConsumerARN: consumer, ShardId: shard, StartingPosition: { Type: "TRIM_HORIZON" },
  }));
  told.protocol = kinesis.config.requestHandler.metadata.handlerProtocol;
  return reply.EventStream;
};

await put("before");
let last;
for await (const { SubscribeToShardEvent: event } of await subscribe("shardId-000000000000")) {
  for (const record of event.Records) told.data.push(Buffer.from(record.Data).toString());
  if (told.data.length < 4 && event.Records.length) {
    await put(["one", "two", "three"][told.data.length - 1]);
  } else if (told.data.length === 4 && event.Records.length) {
    await kinesis.send(new SplitShardCommand({
      StreamName: name, ShardToSplit: "shardId-000000000000",
      NewStartingHashKey: (1n << 127n).toString(),
    }));
  }
  last = event;
}
told.children = last.ChildShards.map((child) => child.ShardId);
told.continuationAtEnd = last.ContinuationSequenceNumber ?? null;

try {
  for await (const event of await subscribe(told.children[0])) {
    if (!event.SubscribeToShardEvent) throw new Error(JSON.stringify(event));
    if (!told.asked) {
      told.asked = true;
      await until(async () => {
        const seen = await kinesis.send(new DescribeStreamSummaryCommand({ StreamName: name }));
        return seen.StreamDescriptionSummary.StreamStatus === "ACTIVE";
      });
      await kinesis.send(new DeleteStreamCommand({
        StreamName: name, EnforceConsumerDeletion: true,
      }));
    }
  }
} catch (error) {
  told.deleted = error.name;
}
console.log(JSON.stringify(told));
process.exit(0);
