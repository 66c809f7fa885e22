"""What the tests share: a server with every model that loads, and the public clients connected to it."""

import os
import shutil
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

    def start(*repositories, **how):
        server = Server(*repositories, **how)
        request.addfinalizer(lambda: server.process.poll() is None and server.stop())
        return server

    return start


@pytest.fixture
def serve_edited(start, tmp_path):
    """Serves a copy of the model in a directory with a configuration of the test's own, which runs nothing until
    `hold` requests wait."""

    def serve(source, edit, *, hold=0, ready=True):
        directory = tmp_path / "models" / source.name
        shutil.copytree(source, directory)
        config = directory / "config.pbtxt"
        config.write_text(edit(config.read_text()))
        server = start(tmp_path / "models", options=(f"--delay-scheduler={hold}", "--strict-readiness=false"))
        server.wait_until(lambda: server.get("/v2/health/ready").status_code == 200, "being ready")
        if ready:
            server.wait_until(lambda: server.get(f"/v2/models/{source.name}/ready").status_code == 200, "the model")
        return server

    return serve


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
