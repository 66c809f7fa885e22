"""`model_warmup`: what runs on each instance before a version is ready, and what keeps it from being so."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from controlled import Repository, control, index, slow_adder
from event_stream import EventStream
from metrics import Metrics
from onnx import TensorProto, helper

REQUIRE_FINITE = 'parameters { key: "warmup_require_finite" value { string_value: "true" } }\n'


@pytest.fixture
def serve(start, tmp_path):
    """A server of `logs`, two instances of a model that answers with the logarithm of X, with more in its
    configuration and files in its folder `warmup`."""

    def serve(more, files=(), options=()):
        directory = tmp_path / "models" / "logs"
        (directory / "1").mkdir(parents=True)
        (directory / "warmup").mkdir()
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "XY")
        graph = helper.make_graph([helper.make_node("Log", ["X"], ["Y"])], "logs", [x], [y])
        model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
        onnx.save(model, directory / "1" / "model.onnx")
        for name, data in dict(files).items():
            (directory / "warmup" / name).write_bytes(data)
        (directory / "config.pbtxt").write_text("max_batch_size: 8\ninstance_group { count: 2 }\n" + more)
        return started(start, tmp_path / "models", options)

    return serve


def started(start, repository, options=()):
    return start(repository, options=["--strict-readiness=false", *options]).wait_until_ready()


def sample(value, *, name="w", batch_size=4, more="", data_type="TYPE_FP32", dims="2", key="X"):
    inputs = f'inputs {{ key: "{key}" value {{ data_type: {data_type} dims: [ {dims} ] {value} }} }}'
    return f'model_warmup {{ name: "{name}" batch_size: {batch_size} {more} {inputs} }}\n'


def reason(server, model="logs"):
    """Why the model is unavailable."""
    (entry,) = [entry for entry in server.post("/v2/repository/index").json() if entry["name"] == model]
    assert entry["state"] == "UNAVAILABLE"
    assert server.get(f"/v2/models/{model}/ready").status_code != 200
    return entry["reason"]


def lines(server, words):
    return [line for line in server.text().splitlines() if words in line]


def ready_line(server):
    """What is said of the load; it may come a moment after the model is ready."""
    server.wait_until(lambda: lines(server, "ready model=logs"), "the line of the load")
    (line,) = lines(server, "ready model=logs")
    return line


def test_every_instance_is_warmed_up_and_nothing_is_counted(serve):
    values = np.array([1, np.e], np.float32)
    config = sample("random_data: true", more="count: 3")
    config += sample('input_data_file: "x.bin"', name="file", batch_size=1)
    config += sample("zero_data: true", name="off", batch_size=0)
    server = serve(config + REQUIRE_FINITE, {"x.bin": values.tobytes()}, ["--log-verbose=1"])
    ready = ready_line(server)
    assert "took=" in ready and "warm_up=" in ready
    for instance in range(2):
        warmed = [line for line in lines(server, "warmed up") if f"instance={instance} " in line]
        assert len(warmed) == 2, server.text()
        assert "sample=w " in warmed[0] and "requests=4 runs=3" in warmed[0]
        assert "sample=file " in warmed[1] and "requests=1 runs=1" in warmed[1]
    assert "sample=off" not in server.text() and "not acted on" not in server.text()
    (statistics,) = server.get("/v2/models/logs/stats").json()["model_stats"]
    assert (statistics["inference_count"], statistics["execution_count"], statistics["batch_stats"]) == (0, 0, [])
    assert statistics["inference_stats"]["success"]["count"] == 0
    assert Metrics(server).value("nv_inference_exec_count", model="logs", version="1") == 0
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": values.tolist()}]}
    (output,) = server.infer("logs", body).json()["outputs"]
    np.testing.assert_allclose(output["data"], [0, 1], atol=1e-6)
    assert server.get("/v2/models/logs/stats").json()["model_stats"][0]["execution_count"] == 1


def test_without_samples_nothing_is_said_of_warm_up(serve):
    assert "warm_up" not in ready_line(serve(""))


def test_an_output_that_is_not_finite_fails_the_load_when_asked_to(serve):
    server = serve(sample("zero_data: true") + REQUIRE_FINITE)
    assert reason(server) == (
        'model_warmup "w": output "Y" of shape [1,2] holds -inf at element 0, which '
        'parameters["warmup_require_finite"] refuses (on instance 0)'
    )


def test_nan_is_not_finite_either(serve):
    file = np.array([1, -1], np.float32).tobytes()
    server = serve(sample('input_data_file: "x.bin"', batch_size=1) + REQUIRE_FINITE, {"x.bin": file})
    assert 'output "Y" of shape [1,2] holds NaN at element 1' in reason(server)


def test_an_output_that_is_not_finite_is_no_matter_unless_asked(serve):
    assert serve(sample("zero_data: true")).get("/v2/models/logs/ready").status_code == 200


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (sample('input_data_file: "missing.bin"'), 'model_warmup "w": inputs["X"].input_data_file is "missing.bin"'),
        (sample('input_data_file: "../config.pbtxt"'), 'is "../config.pbtxt", which leaves logs/warmup'),
        (sample('input_data_file: "short.bin"'), "which has 4 bytes, but dims [2] of TYPE_FP32 take 8"),
        (sample("zero_data: true", dims="3"), 'inputs["X"].dims is [3], but the model\'s is [2]'),
        (sample("zero_data: true", data_type="TYPE_INT8"), ".data_type is TYPE_INT8, but the model's is TYPE_FP32"),
        (sample("zero_data: true", key="Z"), 'inputs has "Z", which is none of the model\'s, "X"'),
        (sample("zero_data: true", batch_size=9), "batch_size is 9, but max_batch_size is 8"),
        (sample(""), 'inputs["X"] has no data'),
        ('model_warmup { name: "w" batch_size: 1 }', 'inputs lacks "X"'),
        (sample("zero_data: true") + REQUIRE_FINITE.replace("true", "yes"), '"yes", but must be "true" or "false"'),
    ],
)
def test_a_sample_that_cannot_run_fails_the_load_and_says_why(serve, config, words):
    server = serve(sample("random_data: true", name="sound") + config, {"short.bin": bytes(4)}, ["--log-verbose=1"])
    assert words in reason(server)
    assert lines(server, "warmed up") == [], "what is wrong is told before anything runs"


def test_finite_outputs_of_no_sample_cannot_be_required(serve):
    assert 'parameters["warmup_require_finite"] is "true", but without a sample' in reason(serve(REQUIRE_FINITE))


def copy(source, tmp_path, more):
    """A repository of the model in `source`, with more in its configuration."""
    directory = tmp_path / "models" / source.name
    shutil.copytree(source, directory)
    with (directory / "config.pbtxt").open("a") as config:
        config.write("\n" + more)
    return tmp_path / "models"


def test_a_run_that_fails_fails_the_load(start, test_models, tmp_path):
    """It has three rows, and the sample asks for another."""
    row = sample('input_data_file: "row"', key="INPUT0", data_type="TYPE_INT64", dims="1", batch_size=1)
    models = copy(test_models / "sound" / "fails_to_run", tmp_path, row)
    (models / "fails_to_run" / "warmup").mkdir()
    (models / "fails_to_run" / "warmup" / "row").write_bytes(np.int64(99).tobytes())
    said = reason(started(start, models), "fails_to_run")
    assert said.startswith('model_warmup "w": ') and said.endswith("(on instance 0)")
    assert "indices element out of data bounds" in said


RAGGED = sample("random_data: true", key="VALUES", dims="3", batch_size=2)
PADDED = """model_warmup { name: "w" batch_size: 2
    inputs { key: "NUMBERS" value { data_type: TYPE_INT64 dims: 3 random_data: true } }
    inputs { key: "MASK" value { data_type: TYPE_FP32 dims: 3 random_data: true } } }"""


@pytest.mark.parametrize(("model", "more"), [("ragged_sums", RAGGED), ("padded_sums", PADDED)])
def test_ragged_and_padded_models_are_warmed_up_as_requests_run(start, test_models, tmp_path, model, more):
    server = started(start, copy(test_models / "sound" / model, tmp_path, more), ["--log-verbose=1"])
    assert server.get(f"/v2/models/{model}/ready").status_code == 200, server.text()
    assert lines(server, "warmed up") and all("requests=2" in line for line in lines(server, "warmed up"))


def test_how_far_a_long_warm_up_has_come_is_told(start, tmp_path):
    repository = Repository(tmp_path)
    rounds = np.array([1000], np.float32).tobytes()
    samples = sample('input_data_file: "rounds"', batch_size=1, more="count: 8", dims="1")
    config = "max_batch_size: 1\ninstance_group { count: 1 }\n" + samples
    repository.put_model("slow", {1: slow_adder(1.0, name="slow")}, config, {"warmup/rounds": rounds})
    server = start(repository.path, options=("--model-control-mode=explicit",)).wait_until_ready()
    with EventStream(server) as events, ThreadPoolExecutor() as threads:
        loading = threads.submit(control, server, "slow", "load")
        seen = set()

        def ended():
            seen.add(index(server, "slow").get("1"))
            return loading.done()

        server.wait_until(ended, "the load")
        assert loading.result().status_code == 200
        events.wait_for("slow", "1", "READY")
        told = [event["reason"] for event in events.events if event["state"] == "LOADING"]
    reasons = [reason for state, reason in filter(None, seen) if state == "LOADING"]
    assert any(re.fullmatch(r"warming up: [1-7] of 8 runs \(\d+ %\)", reason) for reason in reasons), seen
    assert told[0] == "" and told[1].startswith("warming up: "), told
    assert lines(server, 'doing="warming up: ')
    assert index(server, "slow")["1"] == ("READY", "")
