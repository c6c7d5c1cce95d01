"""The bucket as boto3 and the AWS CLI see it."""

import hashlib
import io
import os
import re
import socket
import time
from pathlib import Path

import boto3
import pytest
import urllib3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from hydrant import KEY, REGION, keys, sh

MIB = 1 << 20


def code(call, **arguments):
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]["Code"]


def test_buckets(s3, name):
    assert code(s3.head_bucket, Bucket=name) == "404"
    assert code(s3.list_objects_v2, Bucket=name) == "NoSuchBucket"
    s3.create_bucket(Bucket=name)
    s3.head_bucket(Bucket=name)
    assert name in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    s3.put_object(Bucket=name, Key="a", Body=b"1")
    assert code(s3.delete_bucket, Bucket=name) == "BucketNotEmpty"
    s3.delete_object(Bucket=name, Key="a")
    s3.delete_bucket(Bucket=name)
    assert name not in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    assert code(s3.put_object, Bucket=name, Key="a", Body=b"1") == "NoSuchBucket"


def test_an_object_from_put_to_delete(s3, bucket):
    data = os.urandom(100_000)
    put = s3.put_object(Bucket=bucket, Key="a/b c/ü+%.bin", Body=data, ContentType="x/y",
                        Metadata={"who": "me"})
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="a/b c/ü+%.bin")
    assert got["Body"].read() == data
    assert got["ETag"] == put["ETag"] and got["ContentLength"] == len(data)
    assert got["ContentType"] == "x/y" and got["Metadata"] == {"who": "me"}
    head = s3.head_object(Bucket=bucket, Key="a/b c/ü+%.bin")
    assert head["ContentLength"] == len(data) and head["LastModified"] == got["LastModified"]
    s3.delete_object(Bucket=bucket, Key="a/b c/ü+%.bin")
    assert code(s3.get_object, Bucket=bucket, Key="a/b c/ü+%.bin") == "NoSuchKey"
    assert code(s3.head_object, Bucket=bucket, Key="a/b c/ü+%.bin") == "404"
    s3.delete_object(Bucket=bucket, Key="never there")


def test_ranges(s3, bucket):
    data = bytes(range(256)) * 40
    s3.put_object(Bucket=bucket, Key="k", Body=data)

    def part(asked):
        got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={asked}")
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        return got["Body"].read(), got["ContentRange"]

    assert part("0-0") == (data[:1], "bytes 0-0/10240")
    assert part("100-199") == (data[100:200], "bytes 100-199/10240")
    assert part("10000-") == (data[10000:], "bytes 10000-10239/10240")
    assert part("-16") == (data[-16:], "bytes 10224-10239/10240")
    assert part("10239-999999") == (data[-1:], "bytes 10239-10239/10240")
    assert code(s3.get_object, Bucket=bucket, Key="k", Range="bytes=10240-") == "InvalidRange"


def test_lists(s3, bucket):
    names = [f"logs/2024/{n:02d}.json" for n in range(12)] + ["a.txt", "logs.txt", "z/ü", "z/é"]
    for one in names:
        s3.put_object(Bucket=bucket, Key=one, Body=b"x")
    pages = list(s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 5}))
    found = [o["Key"] for page in pages for o in page["Contents"]]
    assert found == sorted(names, key=str.encode) and len(pages) == 4
    assert all(o["Size"] == 1 for page in pages for o in page["Contents"])
    folders = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [p["Prefix"] for p in folders["CommonPrefixes"]] == ["logs/", "z/"]
    assert [o["Key"] for o in folders["Contents"]] == ["a.txt", "logs.txt"]
    inside = s3.list_objects_v2(Bucket=bucket, Prefix="logs/", Delimiter="/")
    assert [p["Prefix"] for p in inside["CommonPrefixes"]] == ["logs/2024/"]
    after = s3.list_objects_v2(Bucket=bucket, StartAfter="logs/2024/10.json", MaxKeys=2)
    assert [o["Key"] for o in after["Contents"]] == ["logs/2024/11.json", "z/é"]
    gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in names]})
    assert len(gone["Deleted"]) == len(names)
    assert keys(s3, bucket) == []


def test_a_large_file_goes_up_in_parts_and_comes_down_in_ranges(s3, bucket):
    data = os.urandom(20 * MIB)
    parts = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(io.BytesIO(data), bucket, "big", Config=parts)
    head = s3.head_object(Bucket=bucket, Key="big")
    sums = b"".join(hashlib.md5(data[n:n + 5 * MIB]).digest() for n in range(0, 20 * MIB, 5 * MIB))
    assert head["ETag"] == f'"{hashlib.md5(sums).hexdigest()}-4"'
    back = io.BytesIO()
    s3.download_fileobj(bucket, "big", back, Config=parts)
    assert back.getvalue() == data


def test_an_upload_that_is_given_up_leaves_nothing(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=bytes(5 * MIB))
    assert keys(s3, bucket) == []
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    assert code(s3.upload_part, Bucket=bucket, Key="k", UploadId=upload, PartNumber=2,
                Body=b"x") == "NoSuchUpload"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    assert code(s3.complete_multipart_upload, Bucket=bucket, Key="k", UploadId=upload,
                MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": '"x"'}]}) == "InvalidPart"
    assert keys(s3, bucket) == []


# boto3 presigns with the older version unless told otherwise.
SIGNATURES = pytest.mark.parametrize("version", [None, "s3v4"], ids=["default", "s3v4"])


@SIGNATURES
def test_presigned_urls(server, bucket, version):
    s3 = server.client("s3", signature_version=version)
    where = {"Bucket": bucket, "Key": "shared file.txt"}
    put = s3.generate_presigned_url("put_object", Params=where, ExpiresIn=60)
    assert urllib3.request("PUT", put, body=b"by link").status == 200
    get = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=60)
    assert urllib3.request("GET", get).data == b"by link"


@SIGNATURES
def test_presigned_urls_are_verified(start, version):
    server = start("--access-key", "AKIDGOOD:verysecret", "--sql-user", "ann:pw")
    s3 = server.client("s3", key=("AKIDGOOD", "verysecret"), signature_version=version)
    s3.create_bucket(Bucket="lake")
    for key in ["k", "other"]:
        s3.put_object(Bucket="lake", Key=key, Body=b"private")
    where = {"Bucket": "lake", "Key": "k"}
    url = s3.generate_presigned_url("get_object", Params=where)
    assert urllib3.request("GET", url).data == b"private"
    stranger = server.client("s3", key=("AKIDGOOD", "guess"), signature_version=version)
    forged = stranger.generate_presigned_url("get_object", Params=where)
    expired = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=1)
    for wrong in [url.replace("/k?", "/other?"), forged, url.partition("?")[0]]:
        refused = urllib3.request("GET", wrong)
        assert refused.status == 403 and b"private" not in refused.data, wrong
    assert urllib3.request("PUT", url, body=b"x").status == 403
    time.sleep(2.1)
    assert urllib3.request("GET", expired).status == 403


def test_the_bucket_in_the_host_name(server, bucket, monkeypatch):
    """Virtual-host addressing; the names below localhost are this machine's by RFC 6761, whatever
    its resolver knows of that."""
    real = socket.getaddrinfo

    def local(host, *more, **named):
        host = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if host and host.endswith(".localhost") else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    port = server.aws_address[1]
    s3 = boto3.client(
        "s3", endpoint_url=f"http://localhost:{port}", region_name=REGION,
        aws_access_key_id=KEY[0], aws_secret_access_key=KEY[1],
        config=Config(s3={"addressing_style": "virtual"}, retries={"total_max_attempts": 1}),
    )
    seen = []
    s3.meta.events.register("before-send.s3", lambda request, **_: seen.append(request.url))
    s3.put_object(Bucket=bucket, Key="k", Body=b"by host")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"by host"
    assert all(url.startswith(f"http://{bucket}.localhost:") for url in seen), seen


@pytest.mark.parametrize("key", [
    "../escaped", "a/../../../escaped", "../" * 12 + "escaped-far", "/escaped", "..", ".", "a/./b", "a//b", "\\..\\escaped",
    "a/\x01/escaped", "..%2f..%2fescaped", "con", "x" * 1024, "a/" * 511 + "b", "endpoints.json",
])
def test_keys_cannot_leave_the_bucket(start_once, key):
    """A key is a name, not a path: it is refused or it is kept as it is, and no file appears
    outside the data directory."""
    server, outside = start_once
    s3 = server.client("s3")
    before = outside()
    try:
        s3.put_object(Bucket="lake", Key=key, Body=b"mine")
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    else:
        assert s3.get_object(Bucket="lake", Key=key)["Body"].read() == b"mine"
        assert key in keys(s3, "lake")
    assert outside() == before
    assert server.ready()


def test_a_key_that_is_too_long(s3, bucket):
    assert code(s3.put_object, Bucket=bucket, Key="x" * 1025, Body=b"") == "KeyTooLongError"


@pytest.fixture(scope="module")
def start_once(tmp_path_factory):
    import hydrant

    root = tmp_path_factory.mktemp("keys")
    data = root / "deep" / "inside" / "data"
    data.parent.mkdir(parents=True)
    server = hydrant.Server(data).start()
    server.client("s3").create_bucket(Bucket="lake")

    # What a server may write: its data files have random names, so a key is never one of them.
    own = re.compile(r"(bucket/data(/[0-9a-f]{2}(/[0-9a-f]{30})?)?|bucket|hydrant\.db.*|lock|log(/.*)?"
                     r"|endpoints\.json|warehouse(/.*)?)")

    def outside():
        strangers = [path for path in root.rglob("*")
                     if not (data in path.parents and own.fullmatch(str(path.relative_to(data))))]
        beside = [Path("/escaped"), Path("/escaped-far")]
        return sorted(map(str, strangers)) + [str(path) for path in beside if path.exists()]

    yield server, outside
    server.kill()


@pytest.mark.needs("aws")
def test_the_cli_copies_and_syncs(server, bucket, tmp_path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.txt").write_text("a")
    (tmp_path / "up" / "big").write_bytes(os.urandom(9 * MIB))
    for one in (tmp_path / "up").iterdir():
        # S3 keeps whole seconds: a file of this very second would look newer than its object.
        os.utime(one, (1_700_000_000, 1_700_000_000))
    env = server.shell()
    sh(f"aws s3 sync {tmp_path}/up s3://{bucket}/dir", env)
    sh(f"aws s3 cp --recursive s3://{bucket}/dir {tmp_path}/down", env)
    for one in ["a.txt", "big"]:
        assert (tmp_path / "down" / one).read_bytes() == (tmp_path / "up" / one).read_bytes()
    assert sh(f"aws s3 sync {tmp_path}/up s3://{bucket}/dir", env).strip() == ""
    sh(f"aws s3 rb --force s3://{bucket}", env)
    assert bucket not in sh("aws s3 ls", env)
