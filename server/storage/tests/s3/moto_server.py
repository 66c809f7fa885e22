"""S3 for the tests beside this file, as moto plays it.

It prints its port, then obeys one JSON object a line and answers each with one. It ends when its input does.
Objects are put into moto itself and not over the network, since clients tidy up the names that are to be refused.
"""

import json
import logging
import sys

import boto3
from moto import settings
from moto.s3.models import FakeKey, s3_backends
from moto.server import ThreadedMotoServer

ACCOUNT = "123456789012"
PERIOD = bytes(range(251))

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
s3 = s3_backends[ACCOUNT]["aws"]


def etag_alone(key: FakeKey) -> str:
    """An object's ETag. moto works it out when it is first asked for, from a file that others read at that time."""
    with key.lock:
        return etag_of(key)


etag_of = FakeKey.etag.fget
FakeKey.etag = property(etag_alone)


def content(size: int, seed: int) -> bytes:
    """`size` bytes that differ by `seed`."""
    period = PERIOD[seed % 251 :] + PERIOD[: seed % 251]
    return (period * (size // 251 + 1))[:size]


def obey(order: dict):
    match order["do"]:
        case "create":
            s3.create_bucket(order["bucket"], "us-east-1")
        case "delete":
            for key in [*s3.buckets[order["bucket"]].keys]:
                s3.delete_object(order["bucket"], key)
            s3.delete_bucket(order["bucket"])
        case "put":
            value = order["text"].encode() if "text" in order else content(order["size"], order["seed"])
            for key in order["keys"]:
                s3.put_object(order["bucket"], key, value)
        case "remove":
            s3.delete_object(order["bucket"], order["key"])
        case "authenticate":
            return user_who_may_read()


def user_who_may_read() -> dict:
    """The credentials of a user, who alone may read from now on."""
    iam = boto3.client(
        "iam", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
        aws_access_key_id="any", aws_secret_access_key="any",
    )
    iam.create_user(UserName="reader")
    reading = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [reading]}
    iam.put_user_policy(UserName="reader", PolicyName="reading", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    return {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


print(port, flush=True)
for line in sys.stdin:
    print(json.dumps(obey(json.loads(line)) or {}), flush=True)
