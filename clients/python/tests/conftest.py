"""What the tests share: a server with every model that loads, and the public clients connected to it."""

import os
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from public_clients import MODULES, Client
from server_process import CHECKOUT, SAMPLES, Server


@pytest.fixture(scope="session")
def test_models(tmp_path_factory):
    """The generated models: `sound/` holds those that load, `broken/` those that must not."""
    if given := os.environ.get("VOLLEY_TEST_MODELS"):
        return Path(given)
    out = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, CHECKOUT / "xtask/python/test_models.py", "--out", out], check=True)
    return out


@pytest.fixture(scope="session")
def server(test_models):
    """A server with the sample models and all others that load."""
    server = Server(SAMPLES, test_models / "sound")
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture
def start(request):
    """Starts servers of a test's own; those it leaves running are stopped."""

    def start(*repositories, options=()):
        server = Server(*repositories, options=options)
        request.addfinalizer(lambda: server.process.poll() is None and server.stop())
        return server

    return start


@pytest.fixture(scope="session", params=MODULES)
def client(request, server):
    """Each of the four public clients."""
    client = Client(request.param, server)
    yield client
    client.close()


@pytest.fixture(scope="session")
def channel(server):
    """A plain gRPC channel."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture(scope="session")
def digits():
    """The real images that no version of `digits` was trained on, and what they show."""
    directory = SAMPLES / "digits"
    return np.load(directory / "heldout_images.npy"), np.load(directory / "heldout_labels.npy")
