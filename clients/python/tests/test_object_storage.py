"""Model repositories in object storage, over the wire: S3 as moto plays it, and the real server."""

import hashlib
import os
import re
import socket
import subprocess
import threading
import time

import pytest
from controlled import Repository, adder, answer, ask, control, index, k_of, large_adder, load
from event_stream import EventStream
from metrics import Metrics
from object_storage import Bucket, Moto, manifest
from server_process import BINARY

POLL = ("--model-control-mode=poll", "--repository-poll-secs=0.2", "--repository-settle-secs=0.05")
EXPLICIT = ("--model-control-mode=explicit",)


@pytest.fixture(scope="session")
def moto():
    moto = Moto()
    yield moto
    moto.stop()


@pytest.fixture
def bucket(moto):
    bucket = Bucket(moto)
    yield bucket
    moto.meanwhile = lambda method, path: None


@pytest.fixture
def serve(start, bucket, tmp_path):
    """Starts a server over the bucket, and whatever else is given; it keeps what it brings in `cache`."""

    def serve(*options, repositories=(), environment=None, ready=True):
        options = (f"--repository-cache-dir={tmp_path / 'cache'}", *options)
        environment = {**bucket.environment, **(environment or {})}
        server = start(bucket.url, *repositories, options=options, environment=environment)
        return server.wait_until_ready() if ready else server

    return serve


def wait_for(server, k, model="adder"):
    server.wait_until(lambda: k_of(server, model) == k, f"{model} answering with {k}")


def wait_for_reason(server, words, version="1", model="adder"):
    server.wait_until(
        lambda: words in index(server, model).get(version, ("", ""))[1], f"{words!r} in the index: {index(server)}"
    )


def wait_until_loaded(server):
    """Waits until the first load is over, and all is told that went wrong in it."""

    def is_over():
        over = re.search(r"the first load is over ready=\d+ failed=(\d+)", server.text())
        return over and server.text().count(" not served ") == int(over[1])

    server.wait_until(is_over, "the first load")


def is_ready(server):
    return server.get("/v2/health/ready").status_code == 200


def test_models_are_served_and_only_the_versions_that_are_chosen_are_brought(serve, bucket, tmp_path):
    bucket.put_model("adder", {1: adder(1), 2: adder(2)}, "max_batch_size: 3")
    bucket.put("adder/labels.txt", "one\ntwo\n")
    local = Repository(tmp_path / "local")
    local.put_model("beside", {5: adder(5)})
    server = serve(repositories=[local.path])
    assert answer(server) == (2, "2") and answer(server, "beside") == (5, "5")
    assert server.get("/v2/models/adder/config").json()["max_batch_size"] == 3
    assert sorted(bucket.fetched()) == ["adder/2/model.onnx", "adder/config.pbtxt", "adder/labels.txt"]
    assert "brought its files" in server.text()


def test_the_endpoint_may_be_in_the_url_and_several_repositories_may_be_there(start, bucket, moto, tmp_path):
    other = Bucket(moto)
    bucket.put_model("adder", {1: adder(1)})
    other.put_model("other", {1: adder(7)})
    directory = tmp_path / "directory"
    (directory / "third/1").mkdir(parents=True)
    (directory / "third/1/model.onnx").write_bytes(adder(9))
    urls = [f"s3://{moto.endpoint}/{each.name}/models" for each in (bucket, other)] + [f"file://{directory}"]
    environment = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "XDG_CACHE_HOME": str(tmp_path)}
    server = start(*urls, environment=environment).wait_until_ready()
    assert (answer(server)[0], answer(server, "other")[0], answer(server, "third")[0]) == (1, 7, 9)
    assert (tmp_path / "volley/models/snapshots").is_dir()  # the usual place


def test_a_restart_with_a_warm_cache_brings_nothing(serve, bucket):
    bucket.put_model("adder", {1: large_adder(1)}, "max_batch_size: 2")
    serve().stop()
    # In parts, each once.
    assert bucket.fetched().count("adder/1/model.onnx") == 3
    server = serve()
    assert answer(server) == (1, "1")
    assert bucket.fetched() == []
    bucket.put_model("adder", {2: adder(2)})
    server.stop()
    server = serve()
    assert answer(server) == (2, "2")
    assert bucket.fetched() == ["adder/2/model.onnx"]


def test_models_are_loaded_by_request_and_not_brought_before(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    bucket.put_model("other", {1: adder(7)})
    server = serve(*EXPLICIT, "--load-model=other")
    assert bucket.fetched() == ["other/1/model.onnx"]
    assert index(server) == {"": ("", "")}
    load(server)
    assert answer(server) == (1, "1") and bucket.fetched() == ["adder/1/model.onnx"]
    bucket.put_model("adder", {2: adder(2)})
    load(server)
    assert answer(server) == (2, "2") and bucket.fetched() == ["adder/2/model.onnx"]
    load(server)
    assert bucket.fetched() == []
    assert control(server, "adder", "unload").status_code == 200
    assert ask(server).status_code != 200
    load(server)
    assert answer(server) == (2, "2") and bucket.fetched() == []
    bucket.put("adder/config.pbtxt", "max_batch_size: 5")
    load(server)
    assert server.get("/v2/models/adder/config").json()["max_batch_size"] == 5
    assert bucket.fetched() == ["adder/config.pbtxt"]
    response = control(server, "nobody", "load")
    assert response.status_code == 404 and "no repository has a directory of that name" in response.text


def test_polling_brings_what_is_new_and_drops_what_is_gone(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*POLL)
    with EventStream(server) as events:
        bucket.put("adder/2/model.onnx", adder(2))
        wait_for(server, 2)
        events.wait_for("adder", "1", "UNAVAILABLE")
        assert [told[1:] for told in events.told()] == [
            ("2", "LOADING"),
            ("2", "READY"),
            ("1", "UNLOADING"),
            ("1", "UNAVAILABLE"),
        ]
        bucket.put("adder/2/model.onnx", adder(3))
        wait_for(server, 3)
        bucket.put_model("other", {1: adder(7)})
        wait_for(server, 7, "other")
        # The same bytes once more are no change, for all that they are younger.
        bucket.put("adder/2/model.onnx", adder(3))
        count = len(events.events)
        bucket.put("adder/config.pbtxt", "max_batch_size: 3")
        server.wait_until(lambda: most(server) == 3, "the configuration")
        assert events.told()[count:].count(("adder", "2", "LOADING")) == 1
        bucket.remove("adder/2/model.onnx")
        wait_for(server, 1)
        bucket.remove("other/1/model.onnx")
        server.wait_until(lambda: ask(server, "other").status_code == 404, "its end")
    assert is_ready(server)


def most(server):
    return server.get("/v2/models/adder/config").json()["max_batch_size"]


def listings(bucket):
    """How often the bucket has been listed."""
    return bucket.moto.requests.count(("GET", f"/{bucket.name}"))


def wait_for_listings(server, bucket, count=2):
    """Waits until so many more listings were asked for, and all but the last have had their effect."""
    before = listings(bucket)
    server.wait_until(lambda: listings(bucket) >= before + count, "listings")


def test_the_repository_is_asked_as_often_as_it_was_said(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    server = serve("--model-control-mode=poll", "--repository-poll-secs=1")
    began, before = time.monotonic(), listings(bucket)
    wait_for_listings(server, bucket, 3)
    asked, took = listings(bucket) - before, time.monotonic() - began
    assert asked - 1 <= took and bucket.fetched().count("adder/1/model.onnx") == 1


def test_a_version_with_a_manifest_is_not_loaded_before_all_of_it_is_there(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*POLL)
    bucket.put("adder/2/SHA256SUMS", manifest({"model.onnx": adder(2), "data.bin": b"data"}))
    bucket.put("adder/2/model.onnx", adder(2))
    with EventStream(server, "?after=0") as events:
        wait_for_listings(server, bucket, 4)
        assert answer(server) == (1, "1") and ("adder", "2", "LOADING") not in events.told()
        bucket.put("adder/2/data.bin", b"data")
        wait_for(server, 2)
        assert ("adder", "2", "UNAVAILABLE") not in events.told()


def test_a_satisfied_manifest_counts_at_once_and_other_versions_settle(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    server = serve("--model-control-mode=poll", "--repository-poll-secs=0.2", "--repository-settle-secs=3600")
    bucket.put("adder/2/model.onnx", adder(2))
    wait_for_listings(server, bucket, 3)
    assert answer(server) == (1, "1")
    bucket.put("adder/2/SHA256SUMS", manifest({"model.onnx": adder(2)}))
    wait_for(server, 2)


def test_what_is_not_as_its_manifest_says_is_named_and_what_served_goes_on(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*POLL)
    bucket.put("adder/2/model.onnx", adder(3))
    bucket.put("adder/2/SHA256SUMS", manifest({"model.onnx": adder(2)}))
    expected, found = (hashlib.sha256(adder(k)).hexdigest() for k in (2, 3))
    wait_for_reason(server, "adder/2/model.onnx", "2")
    state, reason = index(server)["2"]
    assert state == "UNAVAILABLE" and expected in reason and found in reason
    assert answer(server) == (1, "1") and is_ready(server)
    # It is tried once, until it changes.
    wait_for_listings(server, bucket, 4)
    assert server.text().count("has the SHA-256") == 1
    bucket.put("adder/2/model.onnx", adder(2))
    wait_for(server, 2)


@pytest.mark.parametrize("mode", ["none", "explicit", "poll"])
def test_manifests_of_directories_are_kept_in_every_mode(start, tmp_path, mode):
    repository = Repository(tmp_path)
    sums = {"1/SHA256SUMS": manifest({"model.onnx": adder(2)}).encode()}
    repository.put_model("adder", {1: adder(3)}, files=sums)
    repository.put_model("good", {1: adder(2)}, files=sums)
    missing = {"1/SHA256SUMS": manifest({"model.onnx": adder(2), "w.bin": b"w"}).encode()}
    repository.put_model("missing", {1: adder(2)}, files=missing)
    named = ("--load-model=*",) if mode == "explicit" else ()
    server = start(repository.path, options=(f"--model-control-mode={mode}", *named))
    wait_until_loaded(server)
    state, reason = index(server)["1"]
    expected, found = (hashlib.sha256(adder(k)).hexdigest() for k in (2, 3))
    assert state == "UNAVAILABLE" and "model.onnx" in reason and expected in reason and found in reason
    assert "w.bin" in index(server, "missing")["1"][1]
    assert answer(server, "good") == (2, "1") and not is_ready(server)


def test_a_directory_waits_for_what_its_manifest_names(start, tmp_path):
    repository = Repository(tmp_path)
    repository.put_model("adder", {1: adder(1)})
    server = start(repository.path, options=POLL).wait_until_ready()
    version = repository.path / "adder/2"
    version.mkdir()
    (version / "SHA256SUMS").write_text(manifest({"model.onnx": adder(2), "w.bin": b"w"}))
    (version / "model.onnx").write_bytes(adder(2))
    with EventStream(server, "?after=0") as events:
        repository.put_model("other", {1: adder(3)})
        wait_for(server, 3, "other")
        assert answer(server) == (1, "1") and ("adder", "2", "LOADING") not in events.told()
        (version / "w.bin").write_bytes(b"w")
        wait_for(server, 2)
        assert ("adder", "2", "UNAVAILABLE") not in events.told()


def test_how_far_a_version_has_come_is_in_the_index_the_log_and_the_events(serve, bucket, moto):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*EXPLICIT, "--load-model=*")
    bucket.put_model("adder", {2: large_adder(2)})
    parts, go_on = [], threading.Event()

    def one_part_late(method, path):
        if path.endswith("/2/model.onnx"):
            parts.append(path)
            if len(parts) == 1:
                go_on.wait(60)
            else:
                time.sleep(1.5)  # longer than what is not told

    moto.meanwhile = one_part_late
    with EventStream(server) as events:
        loading = threading.Thread(target=load, args=(server,))
        loading.start()
        server.wait_until(lambda: "MiB" in index(server).get("2", ("", ""))[1], "how far it has come")
        state, reason = index(server)["2"]
        assert state == "LOADING" and reason.startswith("bringing its files: ") and reason.endswith(" %)")
        go_on.set()
        loading.join()
        server.wait_until(
            lambda: any("bringing its files" in event["reason"] for event in events.events), "it being told"
        )
    assert answer(server) == (2, "2") and "bringing its files" in server.text()


def test_what_is_being_brought_keeps_nobody_else_from_loading(serve, bucket, moto, tmp_path):
    bucket.put_model("adder", {1: adder(1)})
    local = Repository(tmp_path / "local")
    local.put_model("beside", {5: adder(5)})
    server = serve(*EXPLICIT, "--model-load-thread-count=1", repositories=[local.path])
    go_on = threading.Event()
    moto.meanwhile = lambda method, path: path.endswith("model.onnx") and go_on.wait(60)
    loading = threading.Thread(target=load, args=(server,))
    loading.start()
    try:
        server.wait_until(lambda: index(server).get("1", ("",))[0] == "LOADING", "its being brought")
        load(server, "beside")
        assert answer(server, "beside") == (5, "5") and index(server)["1"][0] == "LOADING"
    finally:
        go_on.set()
        loading.join()
    assert answer(server) == (1, "1")


def test_a_file_that_is_replaced_while_it_is_brought_is_no_mixture(serve, bucket, moto):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*POLL)
    replaced = threading.Event()

    def replace(method, path):
        if method == "GET" and path.endswith("/2/model.onnx") and not replaced.is_set():
            replaced.set()
            bucket.put("adder/2/model.onnx", large_adder(3))

    moto.meanwhile = replace
    bucket.put("adder/2/model.onnx", large_adder(2))
    wait_for(server, 3)
    assert replaced.is_set() and "was replaced or removed while it was fetched" in server.text()


def test_what_served_goes_on_while_its_bucket_is_gone_and_can_be_rolled_back(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*POLL, "--keep-previous=1")
    bucket.put("adder/2/model.onnx", adder(2))
    wait_for(server, 2)
    bucket.disappear()
    wait_for_reason(server, "is not there: the service knows no such bucket", "2")
    assert index(server)["2"][0] == "READY" and answer(server) == (2, "2") and is_ready(server)
    assert "cannot look through a repository" in server.text()
    assert control(server, "adder", "rollback").json()["versions"] == ["1"]
    assert answer(server) == (1, "1")
    bucket.come_back()
    bucket.put_model("adder", {1: adder(1), 3: adder(3)})
    wait_for(server, 3)
    assert index(server)["3"] == ("READY", "")


def test_a_service_that_is_lost_takes_nothing_down_and_directories_are_followed(start, bucket, tmp_path):
    moto = Moto()
    bucket = Bucket(moto)
    bucket.put_model("adder", {1: adder(1)})
    local = Repository(tmp_path / "local")
    local.put_model("beside", {1: adder(5)})
    options = (*POLL, f"--repository-cache-dir={tmp_path / 'cache'}")
    server = start(bucket.url, local.path, options=options, environment=bucket.environment).wait_until_ready()
    assert away(server) == 0
    moto.stop()
    wait_for_reason(server, "cannot be reached")
    assert answer(server) == (1, "1") and is_ready(server) and away(server) == 1
    # While nobody answers, what is local is followed.
    local.put("beside", 2, adder(6))
    wait_for(server, 6, "beside")
    assert index(server)["1"][0] == "READY"


@pytest.mark.parametrize("mode", [(), POLL, (*EXPLICIT, "--load-model=adder")], ids=["none", "poll", "explicit"])
def test_a_start_without_the_service_serves_what_was_served_before(start, tmp_path, mode):
    moto = Moto()
    bucket = Bucket(moto)
    bucket.put_model("adder", {1: adder(1)}, "max_batch_size: 2")
    options = (*mode, f"--repository-cache-dir={tmp_path / 'cache'}")

    def serve():
        return start(bucket.url, options=options, environment=bucket.environment).wait_until_ready()

    server = serve()
    if not mode:
        bucket.put_model("adder", {2: adder(2)})
        server.stop()
        server = serve()
    k = answer(server)[0]
    server.process.kill()
    assert server.exit_code() != 0
    moto.stop()
    server = serve()
    assert answer(server) == (k, str(int(k))) and is_ready(server)
    assert "until it answers, what is kept of it is served" in server.text()
    assert away(server) == 1
    index(server)  # it says so, and does not wait for the service


def test_a_version_that_was_not_brought_before_the_service_was_lost_is_left_out(start, tmp_path):
    moto = Moto()
    bucket = Bucket(moto)
    bucket.put_model("adder", {1: adder(1)})
    options = (*POLL, f"--repository-cache-dir={tmp_path / 'cache'}")
    server = start(bucket.url, options=options, environment=bucket.environment).wait_until_ready()
    # It is listed, and its file cannot be had.
    moto.meanwhile = lambda method, path: method == "GET" and path.endswith("2/model.onnx") and server.process.kill()
    bucket.put_model("adder", {2: adder(2)})
    assert server.exit_code() != 0
    moto.stop()
    server = start(bucket.url, options=options, environment=bucket.environment).wait_until_ready()
    assert answer(server) == (1, "1")


def away(server):
    """How many repositories are away, as metrics have it."""
    return Metrics(server).value("volley_repositories_away")


def test_a_request_to_load_says_that_nobody_answers(start, moto, tmp_path):
    gone = Moto()
    bucket = Bucket(gone)
    bucket.put_model("adder", {1: adder(1)})
    options = (*EXPLICIT, "--load-model=*", f"--repository-cache-dir={tmp_path / 'cache'}")
    server = start(bucket.url, options=options, environment=bucket.environment).wait_until_ready()
    gone.stop()
    response = control(server, "adder", "load")
    assert response.status_code == 400 and "cannot be reached" in response.text
    assert answer(server) == (1, "1") and "cannot be reached" in index(server)["1"][1]
    assert "cannot be reached" in control(server, "nobody", "load").text
    assert index(server, "nobody") == {}


def unused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_an_endpoint_that_nobody_listens_on_leaves_the_server_up_and_not_ready(serve, bucket, tmp_path):
    local = Repository(tmp_path / "local")
    local.put_model("beside", {1: adder(5)})
    nobody = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused_port()}"}
    options = (*EXPLICIT, "--load-model=adder", "--load-model=beside")
    server = serve(*options, repositories=[local.path], environment=nobody, ready=False)
    wait_until_loaded(server)
    assert not is_ready(server) and server.get("/v2/health/live").status_code == 200
    assert answer(server, "beside") == (5, "1")
    assert "cannot be reached" in server.text() and "cannot be reached" in index(server)[""][1]


def test_an_endpoint_that_says_nothing_is_left_after_a_while(serve, bucket):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        server = serve(environment=nobody, ready=False)
        wait_until_loaded(server)
    assert "took too long" in server.text() and not is_ready(server)


@pytest.mark.parametrize("when", ["at start", "midway"])
def test_a_stop_waits_for_no_service(serve, bucket, moto, when):
    go_on = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        if when == "midway":
            bucket.put_model("adder", {1: adder(1)})
            moto.meanwhile = lambda method, path: path.endswith("model.onnx") and go_on.wait(60)
            nobody = {}
        server = serve(environment=nobody, ready=False)
        if when == "midway":
            server.wait_until(lambda: index(server).get("1", ("",))[0] == "LOADING", "its being brought")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 10
    go_on.set()


def test_a_repository_that_is_there_later_is_served_then(serve, bucket, moto):
    bucket.disappear()
    server = serve(*POLL, ready=False)
    wait_until_loaded(server)
    assert "is not there: the service knows no such bucket" in server.text() and not is_ready(server)
    bucket.come_back()
    bucket.put_model("adder", {1: adder(1)})
    wait_for(server, 1)
    server.wait_until(lambda: is_ready(server), "being ready")


def test_wrong_credentials_are_told_and_not_shown(serve, bucket, moto):
    bucket.put_model("adder", {1: adder(1)})
    with moto.guarded() as right:
        wrong = {**right, "AWS_SECRET_ACCESS_KEY": "WRONGSECRET"}
        server = serve(*EXPLICIT, "--load-model=adder", environment=wrong, ready=False)
        wait_until_loaded(server)
        assert not is_ready(server)
        reason = index(server)[""][1]
        assert "may not be read: SignatureDoesNotMatch" in reason and "AWS_SECRET_ACCESS_KEY" in reason
        assert "SignatureDoesNotMatch" in server.text() and "WRONGSECRET" not in server.text()
        server.stop()
        assert answer(serve(environment=right)) == (1, "1")


@pytest.mark.parametrize("key", ["adder/../../etc/passwd", "/etc/passwd", "adder\\..\\1", "adder/1/a\x01b"])
def test_a_key_that_would_escape_is_refused_by_name(serve, bucket, tmp_path, key):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*POLL)
    bucket.put_as_it_is(key)
    wait_for_reason(server, "whose name is refused")
    assert answer(server) == (1, "1") and is_ready(server)
    assert not list(tmp_path.rglob("passwd"))
    server.stop()
    # At a start it is why nothing of the repository is served.
    server = serve(ready=False)
    wait_until_loaded(server)
    assert "whose name is refused" in server.text() and not is_ready(server)


def test_a_model_in_two_repositories_is_refused_at_start_and_leaves_what_serves(serve, bucket, tmp_path):
    bucket.put_model("adder", {1: adder(1)})
    bucket.put_model("twice", {1: adder(1)})
    local = Repository(tmp_path / "local")
    local.put_model("twice", {1: adder(2)})
    server = serve(*POLL, repositories=[local.path], ready=False)
    wait_until_loaded(server)
    assert "appears in two or more repositories" in index(server, "twice")[""][1] and not is_ready(server)
    local.put_model("adder", {1: adder(2)})
    wait_for_reason(server, "appears in two or more repositories")
    assert answer(server) == (1, "1")
    local.take("twice")
    wait_for(server, 1, "twice")
    server.wait_until(lambda: is_ready(server), "being ready")


def test_a_cache_that_is_too_small_for_a_version_says_so(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*POLL, "--repository-cache-bytes=1000000")
    bucket.put_model("adder", {2: large_adder(2)})
    wait_for_reason(server, "has no room", "2")
    state, reason = index(server)["2"]
    assert state == "UNAVAILABLE" and "its size is 1000000" in reason
    assert answer(server) == (1, "1") and is_ready(server)
    bucket.put("adder/2/model.onnx", adder(2))
    wait_for(server, 2)


def test_the_cache_gives_up_what_is_not_used_and_keeps_to_its_size(serve, bucket, tmp_path):
    size = len(large_adder(1))
    bucket.put_model("adder", {1: large_adder(1)})
    server = serve(*POLL, f"--repository-cache-bytes={size * 5 // 2}")
    for version in range(2, 5):
        bucket.put_model("adder", {version: large_adder(version)})
        wait_for(server, version)
    kept = sum(path.stat().st_size for path in (tmp_path / "cache/files").iterdir())
    assert kept <= size * 5 // 2


def test_a_version_that_failed_takes_no_room_from_the_next(serve, bucket):
    size = len(large_adder(1))
    bucket.put_model("adder", {1: large_adder(1)})
    server = serve(*POLL, f"--repository-cache-bytes={size * 5 // 2}")
    bucket.put_model("adder", {2: b"no model" * (size // 8)})
    server.wait_until(lambda: index(server).get("2", ("",))[0] == "UNAVAILABLE", "its failure")
    bucket.put_model("adder", {3: large_adder(3)})
    wait_for(server, 3)
    assert "has no room" not in server.text()


def test_a_cache_that_cannot_be_written_ends_the_start(bucket, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    command = [BINARY, "--http-port=0", "--grpc-port=0", "--metrics-port=0", f"--model-repository={bucket.url}"]
    ended = subprocess.run(
        [*command, f"--repository-cache-dir={blocked}/cache"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1 and "--repository-cache-dir" in ended.stderr and "blocked" in ended.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://", "it names no bucket"),
        ("ftp://models", "its scheme is none of"),
        ("s3://key:SECRET@host:9000/models", "credentials come from the environment"),
    ],
)
def test_a_url_that_names_no_repository_ends_the_start(url, words):
    ended = subprocess.run([BINARY, f"--model-repository={url}"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 64 and words in ended.stderr and "SECRET" not in ended.stderr


def test_check_reads_object_storage(bucket, tmp_path):
    bucket.put_model("adder", {1: adder(1)})
    environment = {**os.environ, **bucket.environment, "XDG_CACHE_HOME": str(tmp_path)}
    checked = subprocess.run(
        [BINARY, "check", bucket.url], capture_output=True, text=True, timeout=60, env=environment
    )
    assert checked.returncode == 0 and "ok     adder 1" in checked.stdout, checked


@pytest.mark.parametrize("mode", ["none", "explicit", "poll"])
def test_a_version_that_is_being_put_there_keeps_no_server_from_starting(serve, bucket, mode):
    bucket.put_model("adder", {1: adder(1)})
    bucket.put("adder/2/SHA256SUMS", manifest({"model.onnx": adder(2), "w.bin": b"w"}))
    bucket.put("adder/2/model.onnx", adder(2))
    options = {"none": (), "explicit": (*EXPLICIT, "--load-model=*"), "poll": POLL}[mode]
    server = serve(*options)
    assert answer(server) == (1, "1")
    assert "passing over a version" in server.text() and "2/model.onnx" not in bucket.fetched()
    bucket.put("adder/2/w.bin", b"w")
    if mode == "poll":
        wait_for(server, 2)
    if mode == "explicit":
        load(server)
        assert answer(server) == (2, "2")


def test_a_model_on_demand_answers_while_a_version_is_being_put_there(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    bucket.put("adder/2/SHA256SUMS", manifest({"model.onnx": adder(2)}))
    server = serve("--load-on-demand=wait")
    assert answer(server) == (1, "1")


def test_what_serves_goes_on_when_an_unfinished_version_is_asked_for_and_the_request_says_so(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*EXPLICIT, "--load-model=*")
    bucket.put("adder/2/SHA256SUMS", manifest({"model.onnx": adder(2)}))
    response = control(server, "adder", "load")
    assert response.status_code == 400 and '"model.onnx", which it names, is not there' in response.json()["error"]
    assert answer(server) == (1, "1")


def test_a_manifest_beside_the_versions_is_nobodys(serve, bucket):
    bucket.put_model("adder", {1: adder(1), 2: adder(2)})
    sums = {"1/model.onnx": adder(1), "2/model.onnx": adder(2), "config.pbtxt": b""}
    bucket.put("adder/SHA256SUMS", manifest(sums))
    assert answer(serve()) == (2, "2")


def test_a_configuration_that_is_too_large_is_not_brought(serve, bucket):
    bucket.put_model("adder", {1: adder(1)})
    server = serve(*POLL)
    bucket.put("adder/config.pbtxt", b"#" * (17 << 20))
    wait_for_reason(server, "has at most 16777216")
    assert "adder/config.pbtxt" not in bucket.fetched() and answer(server) == (1, "1")


def test_a_cache_removes_nothing_that_is_not_its_own(bucket, tmp_path):
    bucket.put_model("adder", {1: adder(1)})
    theirs = tmp_path / "theirs/kept"
    theirs.mkdir(parents=True)
    (theirs / "file").write_text("mine")
    (tmp_path / "volley/models").mkdir(parents=True)
    (tmp_path / "volley/models/incoming").symlink_to(tmp_path / "theirs")
    environment = {**os.environ, **bucket.environment, "TMPDIR": str(tmp_path), "HOME": "", "XDG_CACHE_HOME": ""}
    command = [BINARY, "--http-port=0", "--grpc-port=0", "--metrics-port=0", f"--model-repository={bucket.url}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (theirs / "file").read_text() == "mine"
    assert ended.returncode == 1 and "--repository-cache-dir" in ended.stderr and "incoming" in ended.stderr
