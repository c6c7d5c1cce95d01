"""Puts numbered records with async-kinesis and reads them all back, across a reshard.

Arguments: endpoint, stream, how many. Half way it prints a line and waits for one on standard input;
at the end it says as JSON what it read, in the order it came.
"""

import asyncio
import json
import sys

from kinesis import Consumer, Producer, StringProcessor

endpoint, stream, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
PATIENCE = 60


async def put(first, many):
    async with Producer(stream, endpoint_url=endpoint, region_name="us-east-1",
                        processor=StringProcessor(), buffer_time=0.1) as producer:
        for n in range(first, first + many):
            await producer.put(f"{n % 10}:{n}", partition_key=str(n % 10))
        await producer.flush()


async def read(seen, enough):
    consumer = Consumer(stream, endpoint_url=endpoint, region_name="us-east-1",
                        processor=StringProcessor(), iterator_type="TRIM_HORIZON",
                        sleep_time_no_records=0.2, shard_fetch_rate=5)
    # It looks for new shards once a minute; nobody wants to wait for that in a test.
    consumer._shard_refresh_interval = 1
    async with consumer:
        while len(seen) < enough:
            async for text in consumer:
                seen.append(text)


async def main():
    seen = []
    reading = asyncio.create_task(read(seen, count))
    await put(0, count // 2)
    while len(seen) < count // 2:
        await asyncio.sleep(0.1)
    print("half", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await put(count // 2, count - count // 2)
    await asyncio.wait_for(reading, PATIENCE)
    print(json.dumps(seen))


asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE))
