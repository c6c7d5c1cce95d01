"""Puts numbered user records with aiokpl, in two parts. Arguments: endpoint, stream, how many.

After each part it says on standard output, as a line of JSON, what became of it, and waits for a
line on standard input; `fresh` has the next part put by a producer that asks for the shards anew.
"""

import json
import sys

import anyio
from aiokpl import Config, Producer

endpoint, stream, count = sys.argv[1], sys.argv[2], int(sys.argv[3])


def config():
    return Config(
        region="us-east-1", endpoint_url=endpoint, aws_access_key_id="test",
        aws_secret_access_key="test", record_max_buffered_time_ms=50, record_ttl_ms=20_000,
    )


async def put(producer, first, many):
    """Puts that many records and waits for each of them."""
    outcomes = []
    for n in range(first, first + many):
        outcomes.append(await producer.put_record(
            stream=stream, partition_key=f"key-{n % 97}", data=b"%d" % n,
        ))
    await producer.flush()
    results = [await outcome.wait() for outcome in outcomes]
    failed = {attempt.error_code for result in results for attempt in result.attempts
              if not attempt.success}
    print(json.dumps({
        "acknowledged": sum(result.success for result in results),
        "shards": sorted({result.shard_id for result in results if result.success}),
        "errors": sorted(map(str, failed)),
    }), flush=True)


async def main():
    part = count // 3
    async with Producer(config()) as producer:
        await put(producer, 0, part)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        await put(producer, part, part)
        await anyio.to_thread.run_sync(sys.stdin.readline)
    async with Producer(config()) as producer:
        await put(producer, 2 * part, count - 2 * part)


anyio.run(main)
