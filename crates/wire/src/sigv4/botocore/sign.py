"""Writes signed.ndjson: requests as botocore signs and sends them, one JSON object a line.

Run it with botocore 1.44 and boto3, its output to `signed.ndjson` beside it; the seed makes it
repeatable. Half are the requests that clients put on the wire for real operations, half are odd
paths, queries and headers handed to botocore's signers.
"""

import base64
import datetime
import json
import random
import sys
from unittest import mock
from urllib.parse import quote, urlsplit

import boto3
import botocore.auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import Credentials

SIGNED_AT = datetime.datetime(2026, 1, 2, 3, 4, 5)
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-2"]
ALPHABET = "abzAZ09-_.~ +%&=?#/:;,@!$'()*[]{}|\\^`\"<>\u00e4\u00df\u65e5\u672c\U0001f30a"
random = random.Random(20260102)


def text(least, most, alphabet=ALPHABET):
    return "".join(random.choice(alphabet) for _ in range(random.randint(least, most)))


def out(service, how, request):
    url = urlsplit(request.url)
    headers = []
    for name, value in request.headers.items():
        # Neither is signed, and both differ from machine to machine.
        if name.lower() == "user-agent" or name.lower().startswith("amz-sdk-"):
            continue
        value = value.decode() if isinstance(value, bytes) else str(value)
        headers.append([name.lower(), value])
    if not any(name == "host" for name, _ in headers):
        headers.append(["host", url.netloc])
    body = request.body if hasattr(request, "body") else request.data
    body = body.read() if hasattr(body, "read") else body or b""
    body = body.encode() if isinstance(body, str) else bytes(body)
    line = {
        "service": service,
        "how": how,
        "method": request.method,
        "uri": (url.path or "/") + ("?" + url.query if url.query else ""),
        "headers": headers,
        "body": base64.b64encode(body).decode(),
    }
    json.dump(line, sys.stdout, sort_keys=True)
    print()


def client(service, **config):
    return boto3.client(
        service,
        endpoint_url=random.choice(["http://127.0.0.1:4566", "http://localhost:4566"]),
        region_name=random.choice(REGIONS),
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(**config),
    )


def from_clients():
    class Sent(Exception):
        pass

    def send(service, operation, how="client", config=None, **arguments):
        made = client(service, **(config or {}))

        def caught(request, **_):
            out(service, how, request)
            raise Sent

        made.meta.events.register("before-send", caught)
        try:
            getattr(made, operation)(**arguments)
        except Sent:
            pass

    send("kinesis", "put_record", StreamName="s", Data=text(0, 40), PartitionKey=text(1, 9))
    send("kinesis", "list_streams")
    send("kinesis", "describe_stream", StreamARN="arn:aws:kinesis:us-east-1:000000000000:stream/a")
    send("firehose", "put_record", DeliveryStreamName="d", Record={"Data": text(0, 40)})
    send("firehose", "list_delivery_streams", Limit=3)
    paths = {"s3": {"addressing_style": "path"}}
    hosts = {"s3": {"addressing_style": "virtual"}}
    unsigned = {"s3": {"addressing_style": "path", "payload_signing_enabled": False}}
    plain = {"request_checksum_calculation": "when_required"}
    for config in [paths, hosts, unsigned, paths | plain]:
        for key in [text(1, 30) for _ in range(3)]:
            send("s3", "put_object", config=config, Bucket="lake", Key=key, Body=text(0, 40).encode(),
                 Metadata={"note": " two   blanks "}, ContentType="text/plain; charset=utf-8")
            send("s3", "get_object", config=config, Bucket="lake", Key=key, Range="bytes=0-3",
                 ResponseContentDisposition=f"attachment; filename=\"{text(1, 9, 'ab +%&')}\"")
        send("s3", "list_objects_v2", config=config, Bucket="lake", Prefix=text(1, 20),
             Delimiter="/", StartAfter=text(1, 9), EncodingType="url")
        send("s3", "delete_objects", config=config, Bucket="lake",
             Delete={"Objects": [{"Key": "a&<b>"}]})
    send("s3", "list_buckets", config=paths)
    send("s3", "upload_part", config=paths, Bucket="lake", Key=text(1, 9), UploadId="a+b/c==",
         PartNumber=7, Body=b"part")
    for config in [paths, hosts]:
        for operation, arguments in [
            ("get_object", {"ResponseContentType": "text/plain; a=b+c"}),
            ("put_object", {"ContentType": "text/plain", "Metadata": {"a": "b"}}),
            ("head_object", {}),
        ]:
            arguments |= {"Bucket": "lake", "Key": text(1, 30)}
            made = client("s3", signature_version="s3v4", **config)
            url = made.generate_presigned_url(operation, Params=arguments, ExpiresIn=600)
            method = {"get": "GET", "put": "PUT", "head": "HEAD"}[operation[:operation.index("_")]]
            headers = {}
            if operation == "put_object":
                headers = {"content-type": "text/plain", "x-amz-meta-a": "b"}
            out("s3", "presigned", AWSRequest(method, url, headers=headers))


def from_signers():
    def signed(service, signer, how, payload=None):
        s3 = service == "s3"
        path = "/" + quote(text(0, 25) + random.choice(["", "/", "//", "/../x", "/./"]), safe="/~.")
        pairs = [(text(1, 8), text(0, 12)) for _ in range(random.randint(0, 4))]
        query = "&".join(f"{quote(n, safe='~')}={quote(v, safe='~')}" for n, v in pairs)
        host = random.choice(["127.0.0.1:4566", "localhost:4566", "lake.s3.localhost:4566"])
        url = f"http://{host}{path}" + ("?" + query if query else "")
        body = text(0, 60).encode() if how == "header" else b""
        method = random.choice(["GET", "PUT", "DELETE", "POST"]) if s3 else "POST"
        request = AWSRequest(method, url, data=body)
        for n in range(random.randint(0, 3)):
            request.headers[f"x-amz-odd-{n}"] = text(1, 20, "ab09 ;,=/\"'") + "."
        if how == "header" and random.random() < 0.2:
            request.headers["Date"] = "replaced"
        if payload:
            request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
        made = signer(Credentials(KEY, SECRET), service, random.choice(REGIONS))
        with mock.patch.object(made, "payload", lambda r: payload) if payload else mock.MagicMock():
            made.add_auth(request)
        out(service, how, request.prepare())

    for service in ["kinesis", "firehose"]:
        for _ in range(10):
            signed(service, botocore.auth.SigV4Auth, "header")
        for _ in range(4):
            signed(service, botocore.auth.SigV4QueryAuth, "presigned")
    for _ in range(10):
        signed("s3", botocore.auth.S3SigV4Auth, "header")
        signed("s3", botocore.auth.S3SigV4QueryAuth, "presigned")
    for payload in ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
                    "STREAMING-UNSIGNED-PAYLOAD-TRAILER"]:
        for _ in range(3):
            signed("s3", botocore.auth.S3SigV4Auth, "header", payload)


with mock.patch.object(botocore.auth, "get_current_datetime", lambda *a, **k: SIGNED_AT):
    from_clients()
    from_signers()
