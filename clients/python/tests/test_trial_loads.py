"""`--trial-loads`: a version whose load or warm-up ends its process does not end the one that serves."""

import json
import os
import select
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from controlled import Repository, adder, answer, constant, control, index, load, serialised, slow_adder
from event_stream import EventStream
from onnx import TensorProto, helper, numpy_helper
from server_process import DEADLINE
from swapping import MODES, Askers, Served

EXPLICIT = ("--model-control-mode=explicit",)
TRIALS = "--trial-loads"
SERVING = "max_batch_size: 8\ninstance_group { count: 1 }\n"
MINUS_ONE = {"warmup/x": np.array([-1], np.float32).tobytes()}
# A run that no test waits for: some million multiplications of matrices.
FOREVER = {"warmup/x": np.array([1 << 22], np.float32).tobytes()}
DIED = "the trial process of adder/2 died of signal 8 (SIGFPE) while it loaded or warmed up"
TRYING = "trying it in a process of its own"


def warmed_up(name="w"):
    """What runs the file `warmup/x`."""
    inputs = 'inputs { key: "X" value { data_type: TYPE_FP32 dims: [ 1 ] input_data_file: "x" } }'
    return f'{SERVING}model_warmup {{ name: "{name}" batch_size: 1 {inputs} }}\n'


def crasher(k):
    """X + K, by way of a quotient that does not exist where X is -1: the processor refuses to divide the lowest whole
    number by it, and the kernel ends the process."""
    lowest = numpy_helper.from_array(np.array(np.iinfo(np.int32).min, np.int32), "lowest")
    nodes = [
        helper.make_node("Cast", ["X"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Div", ["lowest", "whole"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["back"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["back", "zero"], ["nothing"]),
        helper.make_node("Add", ["K", "nothing"], ["sum"]),
        helper.make_node("Add", ["X", "sum"], ["Y"]),
    ]
    return serialised("adder", nodes, [constant("K", k), constant("zero", 0), lowest])


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


@pytest.fixture
def aside(tmp_path):
    """Where trials have what they need on the disk."""
    aside = tmp_path / "temporary"
    aside.mkdir()
    return aside


@pytest.fixture
def serve(start, repository, aside):
    """A server that tries what it loads, with the versions of the model `adder` that are given."""

    def serve(versions, *options, config=None, files=None):
        repository.put_model("adder", versions, config or warmed_up(), MINUS_ONE if files is None else files)
        if not options:
            options = (*EXPLICIT, "--load-model=*")
        server = start(repository.path, options=(TRIALS, *options), environment={"TMPDIR": str(aside)})
        return server.wait_until_ready()

    return serve


def processes_of(pid):
    """The processes that `pid` has begun."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue  # it is gone
        if f"\nPPid:\t{pid}\n" in text and "\nState:\tZ" not in text:
            found.append(int(status.parent.name))
    return found


def left_in(aside):
    """What trials have there; ONNX Runtime keeps a file of its own beside it."""
    return list(aside.glob("volley-*"))


def is_there(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def begin_a_long_trial(server, repository, threads):
    """Has a version 2 of `adder` loaded that warms up for ever; returns its process and the answer to come."""
    repository.put("adder", 2, slow_adder(2.0))
    loading = threads.submit(control, server, "adder", "load")
    found = []

    def begun():
        found[:] = processes_of(server.process.pid)
        return found and index(server).get("2") == ("LOADING", TRYING)

    server.wait_until(begun, "the trial")
    (process,) = found
    return process, loading


@pytest.mark.parametrize("mode", MODES)
def test_a_crash_ends_its_trial_and_what_serves_goes_on(serve, repository, aside, mode):
    server = serve({1: adder(1.0)}, *MODES[mode])
    by_request = mode == "explicit"
    served = Served(1.0)
    with Askers(server, served) as askers, EventStream(server) as events:
        repository.put("adder", 2, crasher(2.0))
        if by_request:
            response = control(server, "adder", "load")
            assert response.status_code == 400 and DIED in response.json()["error"], response.text
        events.wait_for("adder", "2", "UNAVAILABLE")
        (told,) = [event["reason"] for event in events.events if event["state"] == "UNAVAILABLE"]
        assert told.startswith(DIED) and "model_warmup" in told
        assert index(server)["2"] == ("UNAVAILABLE", told)
        state, reason = index(server)["1"]
        assert state == "READY" and told in reason
        assert answer(server) == (1.0, "1")

        served.begin(3.0)
        repository.put("adder", 3, adder(3.0))
        if by_request:
            load(server)
        events.wait_for("adder", "3", "READY")
        served.only(3.0)
        assert answer(server) == (3.0, "3")
        server.wait_until(lambda: askers.answers.get(3.0), "an answer of the next")
    assert not askers.wrong, askers.wrong
    assert server.get("/v2/health/ready").status_code == 200
    assert not processes_of(server.process.pid) and not left_in(aside)


def test_without_a_trial_it_ends_the_server(start, repository):
    repository.put_model("adder", {1: crasher(1.0)}, warmed_up(), MINUS_ONE)
    server = start(repository.path)
    assert server.exit_code() == -signal.SIGFPE


def test_a_model_that_crashes_at_the_start_keeps_none_of_the_others(start, repository):
    repository.put_model("adder", {2: crasher(2.0)}, warmed_up(), MINUS_ONE)
    repository.put_model("sound", {1: adder(1.0, name="sound")})
    server = start(repository.path, options=(TRIALS, "--strict-readiness=false")).wait_until_ready()
    assert answer(server, "sound") == (1.0, "1")
    state, reason = index(server)["2"]
    assert state == "UNAVAILABLE" and reason.startswith(DIED)


def test_weights_in_files_of_their_own_are_there_in_a_trial(start, repository, tmp_path):
    model = onnx.load_from_string(crasher(2.0))
    options = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save(model, tmp_path / "model.onnx", **options)
    files = {f"2/{name}": (tmp_path / name).read_bytes() for name in ("model.onnx", "weights")}
    assert len(files["2/weights"]) > 0
    repository.put_model("adder", {2: files["2/model.onnx"]}, warmed_up(), {**MINUS_ONE, **files})
    server = start(repository.path, options=(TRIALS, "--strict-readiness=false")).wait_until_ready()
    assert index(server)["2"][1].startswith(DIED)


def test_versions_that_are_brought_from_elsewhere_are_tried(start, repository, tmp_path):
    repository.put_model("adder", {1: adder(1.0)}, warmed_up(), MINUS_ONE)
    options = (TRIALS, *EXPLICIT, "--load-model=*", f"--repository-cache-dir={tmp_path / 'cache'}")
    server = start(f"file://{repository.path}", options=options).wait_until_ready()
    repository.put("adder", 2, crasher(2.0))
    assert DIED in control(server, "adder", "load").json()["error"]
    assert answer(server) == (1.0, "1")
    repository.put("adder", 3, adder(3.0))
    load(server)
    assert answer(server) == (3.0, "3")


def test_a_load_that_fails_in_good_order_says_why_as_without_a_trial(serve, start, repository):
    server = serve({1: adder(1.0)})
    other = start(repository.path, options=(*EXPLICIT, "--load-model=*")).wait_until_ready()
    repository.put("adder", 4, b"no model")
    answers = [control(each, "adder", "load") for each in (server, other)]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].json() == answers[1].json()
    assert index(server) == index(other) and "Protobuf" in index(server)["4"][1]
    assert "trial" not in index(server)["4"][1]
    assert answer(server) == (1.0, "1")


def test_what_a_request_gives_is_what_is_tried(serve, repository):
    server = serve({1: adder(1.0), 2: crasher(2.0)}, config=SERVING + "version_policy { specific { versions: 1 } }\n")
    x = {"data_type": "TYPE_FP32", "dims": [1], "input_data_file": "x"}
    warm_up = {"name": "w", "batch_size": 1, "inputs": {"X": x}}
    both = {"max_batch_size": 8, "version_policy": {"all": {}}}
    refused = control(server, "adder", "load", {"config": json.dumps({**both, "model_warmup": [warm_up]})})
    assert refused.status_code == 400 and DIED in refused.json()["error"], refused.text
    assert answer(server) == (1.0, "1")
    # Without the sample it is sound.
    accepted = control(server, "adder", "load", {"config": json.dumps(both)})
    assert accepted.status_code == 200, accepted.text
    assert answer(server, x=4.0) == (2.0, "2")


def test_the_configuration_of_the_servers_choice_is_what_is_tried(serve, repository):
    files = {**MINUS_ONE, "configs/warm.pbtxt": warmed_up().encode()}
    server = serve({1: adder(1.0)}, *EXPLICIT, "--load-model=*", "--model-config-name=warm", config=SERVING, files=files)
    repository.put("adder", 2, crasher(2.0))
    refused = control(server, "adder", "load")
    assert refused.status_code == 400 and DIED in refused.json()["error"], refused.text


def test_settings_in_the_environment_are_no_hindrance(start, repository, aside, tmp_path):
    settings = tmp_path / "volley.toml"
    settings.write_text('trial-loads = true\nmodel-control-mode = "explicit"\nload-model = ["*"]\n')
    repository.put_model("adder", {1: adder(1.0)}, warmed_up(), MINUS_ONE)
    server = start(repository.path, environment={"VOLLEY_CONFIG": str(settings), "TMPDIR": str(aside)})
    server.wait_until_ready()
    settings.write_text("it is no longer what it was")
    repository.put("adder", 2, crasher(2.0))
    assert DIED in control(server, "adder", "load").json()["error"]
    repository.put("adder", 3, adder(3.0))
    load(server)
    assert answer(server) == (3.0, "3")


def test_who_starts_the_server_may_have_children_ignored(serve, repository):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        server = serve({1: adder(1.0)})
    finally:
        signal.signal(signal.SIGCHLD, before)
    repository.put("adder", 2, crasher(2.0))
    assert DIED in control(server, "adder", "load").json()["error"]
    assert answer(server) == (1.0, "1")


def test_versions_that_left_for_one_that_crashes_are_loaded_again(serve, repository):
    resource = 'parameters { key: "swap_policy" value { string_value: "resource" } }\n'
    server = serve({1: adder(1.0)}, config=warmed_up() + resource)
    repository.put("adder", 2, crasher(2.0))
    assert DIED in control(server, "adder", "load").json()["error"]
    assert answer(server) == (1.0, "1")


def test_a_stop_ends_a_trial_and_leaves_nothing_of_it(serve, repository, aside):
    server = serve({1: adder(1.0)}, files=FOREVER)
    with ThreadPoolExecutor() as threads:
        process, loading = begin_a_long_trial(server, repository, threads)
        assert len(left_in(aside)) == 1
        server.terminate()
        assert server.process.wait(DEADLINE / 4) == 0
        assert loading.result().status_code == 503, loading.result().text
    assert not is_there(process) and not left_in(aside)
    assert server.exit_code() == 0
    assert "every request was answered" in server.text()
    assert not [line for line in server.text().splitlines() if line.startswith("E")], server.text()


def test_a_stop_while_models_load_at_the_start_leaves_nothing(start, repository, aside):
    repository.put_model("adder", {2: slow_adder(2.0)}, warmed_up(), FOREVER)
    server = start(repository.path, options=(TRIALS,), environment={"TMPDIR": str(aside)})
    server.wait_until(lambda: processes_of(server.process.pid), "the trial")
    server.terminate()
    assert server.process.wait(DEADLINE / 4) == 0, server.text()
    assert not left_in(aside)


def test_a_trial_that_is_killed_is_refused_and_can_be_tried_again(serve, repository, aside):
    server = serve({1: adder(1.0)}, files=FOREVER)
    with ThreadPoolExecutor() as threads:
        process, loading = begin_a_long_trial(server, repository, threads)
        # The kernel would choose it before the server, where memory is short.
        assert int(Path(f"/proc/{process}/oom_score_adj").read_text()) == 1000
        os.kill(process, signal.SIGKILL)
        error = loading.result().json()["error"]
    assert "the trial process of adder/2 died of signal 9 (SIGKILL)" in error and "memory" in error
    assert answer(server) == (1.0, "1") and server.get("/v2/health/ready").status_code == 200
    assert not left_in(aside)
    repository.put("adder", 2, adder(2.0))
    load(server)
    assert answer(server) == (2.0, "2")


def test_a_trial_does_not_outlive_its_server(serve, repository):
    server = serve({1: adder(1.0)}, files=FOREVER)
    with ThreadPoolExecutor() as threads:
        process, loading = begin_a_long_trial(server, repository, threads)
        ends = os.pidfd_open(process)
        server.process.kill()
        assert loading.exception() is not None
    assert select.select([ends], [], [], DEADLINE)[0], "the trial goes on"
    os.close(ends)


def test_trials_that_cannot_be_made_are_refusals(serve, repository, aside):
    server = serve({1: adder(1.0)})
    shutil.rmtree(aside)
    repository.put("adder", 2, adder(2.0))
    error = control(server, "adder", "load").json()["error"]
    assert "adder/2 cannot be tried in a process of its own" in error and str(aside) in error, error
    assert answer(server) == (1.0, "1")
    aside.mkdir()
    load(server)
    assert answer(server) == (2.0, "2")
