// How long a record takes to reach every one of many fan-out consumers of one shard, over HTTP/2.
//
//   hydrant serve --subscription-seconds 10 &
//   node tests/js/bench_fanout.mjs http://127.0.0.1:4566 [consumers 50] [records/s 200] [seconds 30]
//
// Each consumer has a connection of its own and subscribes again, behind what it has, whenever its
// subscription ends. Each record is 1 KiB and tells when its put began. Fails if a consumer misses a
// record, or gets one twice. Needs nothing but Node.

import http2 from "node:http2";
import { randomBytes } from "node:crypto";

const [endpoint, ...numbers] = process.argv.slice(2);
const [consumers = 50, rate = 200, seconds = 30] = numbers.map(Number);
const total = rate * seconds;
const name = `bench-${randomBytes(4).toString("hex")}`;
const shard = "shardId-000000000000";
const now = () => performance.timeOrigin + performance.now();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Without configured keys the server takes any well-formed signature.
const head = (operation) => {
  const date = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
  return {
    ":method": "POST", ":path": "/", "content-type": "application/x-amz-json-1.1",
    "x-amz-target": `Kinesis_20131202.${operation}`, "x-amz-date": date,
    authorization: `AWS4-HMAC-SHA256 Credential=test/${date.slice(0, 8)}/us-east-1/kinesis/`
      + `aws4_request, SignedHeaders=host;x-amz-date;x-amz-target, Signature=${"0".repeat(64)}`,
  };
};

const ask = (connection, operation, body) => {
  const request = connection.request(head(operation));
  request.end(JSON.stringify(body));
  return request;
};

// One call, and its whole reply.
const call = (connection, operation, body) => new Promise((resolve, reject) => {
  const request = ask(connection, operation, body);
  const chunks = [];
  let status;
  request.on("response", (headers) => { status = headers[":status"]; });
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("error", reject);
  request.on("end", () => {
    const text = Buffer.concat(chunks).toString();
    const reply = text ? JSON.parse(text) : {};
    if (status === 200) resolve(reply);
    else reject(Object.assign(new Error(reply.message), { code: reply.__type }));
  });
});

// The frames of an event stream: their headers' text, and their payload.
async function* frames(request) {
  let rest = Buffer.alloc(0);
  for await (const chunk of request) {
    rest = rest.length ? Buffer.concat([rest, chunk]) : chunk;
    while (rest.length >= 16) {
      const whole = rest.readUInt32BE(0);
      if (rest.length < whole) break;
      const payload = 12 + rest.readUInt32BE(4);
      yield [rest.toString("latin1", 12, payload), rest.subarray(payload, whole - 4)];
      rest = rest.subarray(whole);
    }
  }
}

const connect = () => http2.connect(endpoint, { settings: { initialWindowSize: 4 << 20 } });
const control = connect();
const delays = [];
const told = { subscriptions: 0, repeated: 0, refused: 0 };

const subscribeOnce = async (connection, reader) => {
  const request = ask(connection, "SubscribeToShard", {
    ConsumerARN: reader.arn, ShardId: shard, StartingPosition: reader.position,
  });
  const [headers] = await new Promise((resolve, reject) => {
    request.once("response", (...seen) => resolve(seen));
    request.once("error", reject);
  });
  if (headers[":status"] !== 200) {
    request.resume();
    told.refused += 1;
    // Within five seconds of the last one that succeeded.
    await pause(100);
    return;
  }
  told.subscriptions += 1;
  for await (const [headers, payload] of frames(request)) {
    const seen = now();
    if (headers.includes("exception")) throw new Error(payload.toString());
    if (headers.includes("initial-response")) continue;
    const event = JSON.parse(payload);
    reader.ready = true;
    for (const record of event.Records) {
      const [number, stamp] = Buffer.from(record.Data, "base64").toString("latin1", 0, 64).split(" ");
      if (Number(number) !== reader.next) told.repeated += 1;
      reader.next = Number(number) + 1;
      delays.push(seen - Number(stamp));
    }
    const SequenceNumber = event.ContinuationSequenceNumber;
    reader.position = { Type: "AFTER_SEQUENCE_NUMBER", SequenceNumber };
    if (reader.next >= total) break;
  }
};

const read = async (reader) => {
  const connection = connect();
  while (reader.next < total) await subscribeOnce(connection, reader);
  connection.close();
};

const setUp = async () => {
  // More than 20 consumers a stream are for on-demand streams of accounts that have committed.
  const many = consumers > 20;
  if (many) {
    await call(control, "UpdateAccountSettings", {
      MinimumThroughputBillingCommitment: { Status: "ENABLED" },
    });
  }
  const shape = many ? { StreamModeDetails: { StreamMode: "ON_DEMAND" } } : { ShardCount: 1 };
  await call(control, "CreateStream", { StreamName: name, ...shape });
  let arn;
  for (;;) {
    const { StreamDescriptionSummary: seen } =
      await call(control, "DescribeStreamSummary", { StreamName: name });
    arn = seen.StreamARN;
    if (seen.StreamStatus === "ACTIVE") break;
    await pause(20);
  }
  const readers = [];
  while (readers.length < consumers) {
    try {
      const { Consumer } = await call(control, "RegisterStreamConsumer", {
        StreamARN: arn, ConsumerName: `c${readers.length}`,
      });
      const position = { Type: "TRIM_HORIZON" };
      readers.push({ arn: Consumer.ConsumerARN, next: 0, position, ready: false });
    } catch (error) {
      if (error.code !== "LimitExceededException" || !error.message.includes("CREATING")) throw error;
      await pause(20);
    }
  }
  for (;;) {
    const { Consumers } = await call(control, "ListStreamConsumers", { StreamARN: arn });
    if (Consumers.every((consumer) => consumer.ConsumerStatus === "ACTIVE")) break;
    await pause(20);
  }
  return readers;
};

const write = async () => {
  const connection = connect();
  const puts = [];
  const began = now();
  const acks = [];
  for (let n = 0; n < total; n += 1) {
    const due = began + (n * 1000) / rate;
    if (due > now()) await pause(due - now());
    const stamp = now();
    const data = Buffer.alloc(1024, 32);
    data.write(`${n} ${stamp} `);
    const put = call(connection, "PutRecord", {
      StreamName: name, PartitionKey: "k", ExplicitHashKey: "0", Data: data.toString("base64"),
    });
    puts.push(put.then(() => acks.push(now() - stamp)));
    // In order: each put waits for the one before.
    await puts[n];
  }
  connection.close();
  return { acks, took: (now() - began) / 1000 };
};

const spread = (values) => {
  values.sort((a, b) => a - b);
  const at = (share) => values[Math.min(values.length - 1, Math.floor(values.length * share))];
  return `p50 ${at(0.5).toFixed(1)} ms, p99 ${at(0.99).toFixed(1)} ms, `
    + `max ${values[values.length - 1].toFixed(1)} ms`;
};

const readers = await setUp();
const reading = Promise.all(readers.map(read));
while (!readers.every((reader) => reader.ready)) {
  await Promise.race([pause(20), reading]);
}
const { acks, took } = await write();
await reading;
await call(control, "DeleteStream", { StreamName: name, EnforceConsumerDeletion: true });
const wanted = total * consumers;
console.log(`${total} records of 1 KiB in ${took.toFixed(1)} s, to ${consumers} consumers`);
console.log(`puts acknowledged:  ${spread(acks)}`);
console.log(`records delivered:  ${spread(delays)}, from the beginning of the put`);
console.log(`${delays.length} deliveries of ${wanted}, ${told.repeated} lost or repeated, `
  + `${told.subscriptions} subscriptions`);
process.exit(delays.length === wanted && told.repeated === 0 ? 0 : 1);
