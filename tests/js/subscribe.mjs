// A consumer with the SDK as it comes, from its registration to the end of a shard that is split
// while it is subscribed. Tells as JSON what it was pushed. Arguments: the endpoint, and a name to
// use for the stream.

import {
  CreateStreamCommand, DescribeStreamConsumerCommand, DescribeStreamSummaryCommand, KinesisClient,
  PutRecordsCommand, RegisterStreamConsumerCommand, SplitShardCommand, SubscribeToShardCommand,
  waitUntilStreamExists,
} from "@aws-sdk/client-kinesis";

const [endpoint, name] = process.argv.slice(2);
const kinesis = new KinesisClient({
  endpoint, region: "us-east-1", maxAttempts: 1,
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
});
const told = { records: [], children: [], places: 0, pushed: 0 };
const put = (texts) => kinesis.send(new PutRecordsCommand({
  StreamName: name,
  Records: texts.map((text) => ({ Data: Buffer.from(text), PartitionKey: "k" })),
}));

await kinesis.send(new CreateStreamCommand({ StreamName: name, ShardCount: 1 }));
await waitUntilStreamExists({ client: kinesis, maxWaitTime: 20, minDelay: 1 }, { StreamName: name });
const summary = await kinesis.send(new DescribeStreamSummaryCommand({ StreamName: name }));
const { Consumer } = await kinesis.send(new RegisterStreamConsumerCommand({
  StreamARN: summary.StreamDescriptionSummary.StreamARN, ConsumerName: "subscribe",
}));
for (let n = 0; n < 200; n += 1) {
  const seen = await kinesis.send(new DescribeStreamConsumerCommand({
    ConsumerARN: Consumer.ConsumerARN,
  }));
  if (seen.ConsumerDescription.ConsumerStatus === "ACTIVE") break;
  await new Promise((resolve) => setTimeout(resolve, 50));
}
await put(["first", "second"]);
const subscription = await kinesis.send(new SubscribeToShardCommand({
  ConsumerARN: Consumer.ConsumerARN, ShardId: "shardId-000000000000",
  StartingPosition: { Type: "TRIM_HORIZON" },
}));
for await (const { SubscribeToShardEvent: some } of subscription.EventStream) {
  if (!some) continue;
  told.records.push(...some.Records.map((record) => Buffer.from(record.Data).toString()));
  told.children.push(...(some.ChildShards ?? []).map((child) => child.ShardId));
  if (some.ContinuationSequenceNumber) told.places += 1;
  if (told.pushed === 0 && told.records.length === 2) {
    told.pushed = 1;
    await put(["pushed"]);
  } else if (told.pushed === 1 && told.records.length === 3) {
    told.pushed = 2;
    await kinesis.send(new SplitShardCommand({
      StreamName: name, ShardToSplit: "shardId-000000000000",
      NewStartingHashKey: String(2n ** 127n),
    }));
  }
}
console.log(JSON.stringify(told));
process.exit(0);
