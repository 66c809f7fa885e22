"""Model control by the files themselves: what comes, changes, breaks and goes is followed, over the wire."""

import time

import numpy as np
import pytest
from controlled import Repository, adder, answer, ask, control, index, k_of, slow_adder, write_slowly
from event_stream import EventStream

# Most changes are seen when the file system tells of them, and the others as often as this.
POLL = "--repository-poll-secs=0.2"
SETTLE = 0.5


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path)
    repository.put_model("adder", {1: adder(1)})
    return repository


@pytest.fixture
def polling(start, repository):
    """Starts a server that follows the repository; what is renamed into it is old enough after `settle` seconds."""

    def polling(*options, settle=0.05):
        options = ("--model-control-mode=poll", POLL, f"--repository-settle-secs={settle}", *options)
        return start(repository.path, options=options).wait_until_ready()

    return polling


def wait_for(server, k, model="adder"):
    server.wait_until(lambda: k_of(server, model) == k, f"{model} answering with {k}")


def test_a_version_that_is_renamed_into_its_place_serves_soon(polling, repository):
    server = polling("--repository-poll-secs=3600")
    with EventStream(server) as events:
        began = time.monotonic()
        repository.put("adder", 2, adder(2))
        wait_for(server, 2)
        # The file system told of it: nobody looks otherwise within the hour.
        assert time.monotonic() - began < 20
        events.wait_for("adder", "1", "UNAVAILABLE")
        assert [told[1:] for told in events.told()] == [
            ("2", "LOADING"),
            ("2", "READY"),
            ("1", "UNLOADING"),
            ("1", "UNAVAILABLE"),
        ]


def test_a_version_that_is_copied_slowly_is_never_seen_half(polling, repository):
    server = polling(settle=SETTLE)
    with EventStream(server) as events:
        paused = []

        def pause():
            # Long enough to be looked at in between, and shorter than what counts as written.
            until = time.monotonic() + SETTLE / 3
            while time.monotonic() < until:
                paused.append(answer(server))

        write_slowly(repository.path / "adder/2/model.onnx", adder(2), 8, pause)
        assert set(paused) == {(1, "1")} and len(paused) > 8
        wait_for(server, 2)
        assert ("adder", "2", "UNAVAILABLE") not in events.told()
        assert events.told().count(("adder", "2", "LOADING")) == 1


def test_a_model_that_takes_long_to_load_keeps_no_other_from_being_followed(polling, repository):
    server = polling()
    rounds = np.array([1000], np.float32).tobytes()
    long = 'inputs { key: "X" value { data_type: TYPE_FP32 dims: 1 input_data_file: "rounds" } }'
    config = f'max_batch_size: 1\ninstance_group {{ count: 1 }}\nmodel_warmup {{ name: "w" batch_size: 1 count: 12 {long} }}'
    with EventStream(server) as events:
        repository.put_model("slow", {1: slow_adder(9, name="slow")}, config, {"warmup/rounds": rounds})
        events.wait_for("slow", "1", "LOADING")
        repository.put("adder", 2, adder(2))
        events.wait_for("adder", "2", "READY")
        repository.put_model("other", {1: adder(5, name="other")})
        events.wait_for("other", "1", "READY")
        assert ("slow", "1", "READY") not in events.told()
        repository.put("slow", 2, adder(10, name="slow"), "max_batch_size: 1")
        events.wait_for("slow", "1", "READY")
        wait_for(server, 10, "slow")
        repository.take("other")
        events.wait_for("other", "1", "UNAVAILABLE")


def test_a_broken_version_leaves_the_old_one_serving_and_the_server_ready(polling, repository):
    server = polling()
    repository.put("adder", 2, b"no model")
    server.wait_until(lambda: index(server).get("2", ("", ""))[0] == "UNAVAILABLE", "the reason")
    assert answer(server) == (1, "1")
    assert server.get("/v2/health/ready").status_code == 200
    states = index(server)
    assert states["2"][1] and states["1"][0] == "READY" and states["2"][1] in states["1"][1]
    # It is tried once, until it changes.
    with EventStream(server, "?after=0") as events:
        repository.put_model("other", {1: adder(3)})
        wait_for(server, 3, "other")
        assert events.told().count(("adder", "2", "LOADING")) == 1
    repository.take("adder", 2)
    server.wait_until(lambda: index(server) == {"1": ("READY", "")}, "what is wrong being over")
    repository.put("adder", 2, adder(2))
    wait_for(server, 2)


def test_a_version_that_is_removed_hands_back_to_the_one_before(polling, repository):
    repository.put("adder", 2, adder(2))
    server = polling()
    assert answer(server) == (2, "2")
    repository.remove("adder", 2)
    server.wait_until(lambda: answer(server) == (1, "1"), "the version before")


def test_a_model_that_is_removed_is_unloaded_and_one_that_comes_is_loaded(polling, repository):
    server = polling()
    repository.take("adder")
    server.wait_until(lambda: ask(server).status_code == 404, "its end")
    server.wait_until(lambda: index(server)["1"][0] == "UNAVAILABLE", "its end in the index")
    assert index(server)["1"][1] in ("its directory was removed", "unloaded")
    assert server.get("/v2/health/ready").status_code == 200
    repository.put_model("other", {4: adder(4)})
    wait_for(server, 4, "other")
    repository.put_model("adder", {1: adder(9)})
    wait_for(server, 9)


def test_a_repository_that_is_away_for_a_while_loses_no_model(polling, repository):
    server = polling()
    aside = repository.path.with_name("away")
    with EventStream(server) as events:
        repository.path.rename(aside)
        server.wait_until(lambda: "cannot look through a repository" in server.text(), "being noticed")
        assert answer(server) == (1, "1")
        aside.rename(repository.path)
        # It is followed again, and what it still has was left alone.
        repository.put_model("other", {1: adder(3)})
        wait_for(server, 3, "other")
        assert {event["model"] for event in events.events} == {"other"}
    repository.put("adder", 2, adder(2))
    wait_for(server, 2)


def test_a_configuration_that_changes_is_followed_and_a_broken_one_is_not(polling, repository):
    server = polling()
    repository.configure("adder", "max_batch_size: 3")
    server.wait_until(lambda: most(server) == 3, "the configuration")
    repository.configure("adder", "max_batchsize: 4")
    server.wait_until(lambda: "max_batchsize" in index(server)["1"][1], "the reason")
    assert most(server) == 3 and answer(server) == (1, "1")
    assert server.get("/v2/health/ready").status_code == 200


def most(server):
    """The largest batch of the configuration that serves."""
    return server.get("/v2/models/adder/config").json()["max_batch_size"]


def test_what_is_rolled_back_stays_so_until_the_files_change(polling, repository):
    server = polling("--keep-previous=1")
    repository.put("adder", 2, adder(2))
    wait_for(server, 2)
    assert control(server, "adder", "rollback").json()["versions"] == ["1"]
    assert answer(server) == (1, "1")
    # A look through the repository that changes something else does not bring it back.
    repository.put_model("other", {1: adder(3)})
    wait_for(server, 3, "other")
    assert answer(server) == (1, "1")
    repository.put("adder", 3, adder(3))
    wait_for(server, 3)
