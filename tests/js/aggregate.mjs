// Aggregates and de-aggregates with aws-kinesis-agg. Arguments: the endpoint, a stream, and either
// `write N`, which puts N user records in aggregated ones, or `read`, which tells as JSON the user
// records of all shards.

import agg from "aws-kinesis-agg";
import {
  GetRecordsCommand, GetShardIteratorCommand, KinesisClient, ListShardsCommand, PutRecordCommand,
} from "@aws-sdk/client-kinesis";

const [endpoint, name, what, count] = process.argv.slice(2);
const kinesis = new KinesisClient({
  endpoint, region: "us-east-1", maxAttempts: 1,
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
});

async function write(many) {
  const users = Array.from({ length: many }, (_, n) => ({
    partitionKey: `key-${n % 7}`, data: Buffer.from(`js ${n}`),
  }));
  const put = [];
  await new Promise((resolve, reject) => {
    agg.aggregate(users, (whole, done) => {
      const one = kinesis.send(new PutRecordCommand({
        StreamName: name, PartitionKey: whole.partitionKey, Data: whole.data,
        ExplicitHashKey: whole.explicitHashKey,
      }));
      put.push(one);
      one.then((reply) => done(null, reply), done);
    }, resolve, reject);
  });
  await Promise.all(put);
  console.log(JSON.stringify(put.length));
}

async function read() {
  const users = [];
  const { Shards } = await kinesis.send(new ListShardsCommand({ StreamName: name }));
  for (const { ShardId } of Shards) {
    let { ShardIterator } = await kinesis.send(new GetShardIteratorCommand({
      StreamName: name, ShardId, ShardIteratorType: "TRIM_HORIZON",
    }));
    for (;;) {
      const page = await kinesis.send(new GetRecordsCommand({ ShardIterator }));
      for (const record of page.Records) {
        agg.deaggregateSync({
          kinesisSchemaVersion: "1.0", partitionKey: record.PartitionKey,
          sequenceNumber: record.SequenceNumber, data: Buffer.from(record.Data).toString("base64"),
        }, true, (error, found) => {
          if (error) throw error;
          users.push(...found.map((one) => [
            one.partitionKey, Buffer.from(one.data, "base64").toString(),
          ]));
        });
      }
      ShardIterator = page.NextShardIterator;
      if (!ShardIterator || (page.Records.length === 0 && page.MillisBehindLatest === 0)) break;
    }
  }
  console.log(JSON.stringify(users));
}

await (what === "write" ? write(Number(count)) : read());
process.exit(0);
