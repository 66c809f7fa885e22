"""S3 for the tests of model repositories in object storage: moto serves it in this process, and each request is seen
before it is answered."""

import contextlib
import hashlib
import logging
import threading
import uuid

import boto3
from botocore.config import Config
from moto import settings
from moto.s3.models import FakeKey, s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

ACCOUNT = "123456789012"
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}


def etag_alone(key):
    """An object's ETag. moto works it out when it is first asked for, from a file that others read at that time."""
    with key.lock:
        return etag_of(key)


etag_of = FakeKey.etag.fget
FakeKey.etag = property(etag_alone)


class Moto:
    """The service, on a free port."""

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = DomainDispatcherApplication(create_backend_app)
        # What is called with the method and the path of each request, before it is answered.
        self.meanwhile = lambda method, path: None
        self.requests, self._lock = [], threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self._server.port}"

    def _answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            self.requests.append((method, path))
        self.meanwhile(method, path)
        return self._moto(environ, start_response)

    def client(self, service="s3"):
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
        )

    def fetched(self, bucket):
        """The objects of the bucket that were asked for since the last call, once for each part of them."""
        with self._lock:
            seen, self.requests = self.requests, []
        prefix = f"/{bucket}/"
        return [
            path.removeprefix(prefix)
            for method, path in seen
            if method == "GET" and path.startswith(prefix) and path != prefix
        ]

    @contextlib.contextmanager
    def guarded(self):
        """A user, who alone may do anything meanwhile; the environment of who is that user."""
        iam, name = self.client("iam"), f"reader-{uuid.uuid4()}"
        iam.create_user(UserName=name)
        policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        before = settings.INITIAL_NO_AUTH_ACTION_COUNT
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        try:
            yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = before

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Bucket:
    """A bucket with a model repository below `models/`."""

    def __init__(self, moto):
        self.moto, self.name, self.s3 = moto, f"bucket-{uuid.uuid4()}", moto.client()
        self.s3.create_bucket(Bucket=self.name)

    @property
    def url(self):
        return f"s3://{self.name}/models"

    @property
    def environment(self):
        """What a server needs in its environment to read it."""
        return {**KEYS, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.moto.endpoint}

    def put(self, path, content):
        content = content.encode() if isinstance(content, str) else content
        self.s3.put_object(Bucket=self.name, Key=f"models/{path}", Body=content)

    def put_as_it_is(self, path, content=b"x"):
        """Puts an object of a name that clients would tidy up."""
        s3_backends[ACCOUNT]["aws"].put_object(self.name, f"models/{path}", content)

    def put_model(self, model, versions, config=None):
        if config is not None:
            self.put(f"{model}/config.pbtxt", config)
        for version, content in versions.items():
            self.put(f"{model}/{version}/model.onnx", content)

    def remove(self, path):
        self.s3.delete_object(Bucket=self.name, Key=f"models/{path}")

    def disappear(self):
        """The bucket goes with all that is in it, with nothing in between: one that is emptied first has lost its models."""
        backend = s3_backends[ACCOUNT]["aws"]
        backend.buckets[self.name].keys.clear()
        backend.delete_bucket(self.name)

    def come_back(self):
        self.s3.create_bucket(Bucket=self.name)

    def fetched(self):
        return [path.removeprefix("models/") for path in self.moto.fetched(self.name)]


def manifest(files):
    """What `sha256sum` writes of files, by their names."""
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
