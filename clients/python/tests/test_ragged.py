"""Requests of different shapes in one batch: `allow_ragged_batch`, `batch_input`, `batch_output`.

`ragged_sums` sums the numbers of each request, and `ragged_kinds` answers with what the server told the model;
xtask/python/test_models.py has their graphs.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from metrics import Metrics
from test_batching import executions, one_after_the_other, pending


@pytest.fixture
def serve(serve_edited, test_models):
    """A server of one ragged model, which runs nothing until `hold` requests wait."""

    def serve(model, *, hold=0, replace=(), ready=True):
        def edit(config):
            for old, new in replace:
                assert old in config
                config = config.replace(old, new)
            return config

        return serve_edited(test_models / "sound" / model, edit, hold=hold, ready=ready)

    return serve


def numbers(values, outputs=("SUM", "TWICE")):
    """A request to `ragged_sums`, in JSON."""
    tensor = {"name": "VALUES", "datatype": "FP32", "shape": list(values.shape), "data": values.tolist()}
    return {"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}


def texts(shape, first):
    """A request to `ragged_kinds`, in JSON, whose strings are numbers from `first`."""
    data = [str(first + number) for number in range(int(np.prod(shape)))]
    return {"inputs": [{"name": "TEXTS", "datatype": "BYTES", "shape": shape, "data": data}]}


def answered(answer):
    """The outputs of an answer in JSON, by name: shape and data."""
    assert answer.status_code == 200, answer.text
    return {output["name"]: (output["shape"], output["data"]) for output in answer.json()["outputs"]}


@pytest.mark.parametrize("module", [tritonclient.http, tritonclient.grpc])
def test_requests_of_any_length_run_as_one_batch_and_each_gets_its_own(serve, module):
    lengths = [3, 1, 7, 0, 4]
    server = serve("ragged_sums", hold=len(lengths))
    address = server.grpc if module is tritonclient.grpc else server.http

    def ask(number, length):
        values = np.arange(100 * number, 100 * number + length, dtype=np.float32).reshape(1, length)
        tensor = module.InferInput("VALUES", [1, length], "FP32")
        tensor.set_data_from_numpy(values)
        with module.InferenceServerClient(address) as client:
            result = client.infer("ragged_sums", [tensor])
        np.testing.assert_array_equal(result.as_numpy("SUM"), [[values.sum()]])
        np.testing.assert_array_equal(result.as_numpy("TWICE"), values * 2)
        return result.as_numpy("TWICE").shape

    with ThreadPoolExecutor(len(lengths)) as pool:
        assert list(pool.map(ask, range(len(lengths)), lengths)) == [(1, length) for length in lengths]
    assert executions(server, "ragged_sums") == {len(lengths): 1}
    stats = server.get("/v2/models/ragged_sums/stats").json()["model_stats"][0]["inference_stats"]
    assert {stats[phase]["count"] for phase in ("success", "queue", "compute_infer")} == {len(lengths)}
    assert "not acted on" not in server.text()
    assert "a batch failed" not in server.text()


def test_a_batch_of_one_has_its_batch_inputs_too(serve):
    server = serve("ragged_sums")
    for values in (np.float32([[1, 2, 3]]), np.float32([[5]]), np.zeros((1, 0), np.float32)):
        outputs = answered(server.infer("ragged_sums", numbers(values)))
        assert outputs["SUM"] == ([1, 1], [values.sum()])
        assert outputs["TWICE"] == (list(values.shape), (values * 2).ravel().tolist())
    assert executions(server, "ragged_sums") == {1: 3}


def test_requests_may_ask_for_different_outputs(serve):
    server = serve("ragged_sums", hold=2)
    sums = numbers(np.float32([[1, 2]]), ["SUM"])
    doubles = numbers(np.float32([[3, 4], [5, 6]]), ["TWICE"])
    with ThreadPoolExecutor(2) as pool:
        sums, doubles = pool.map(lambda body: server.infer("ragged_sums", body), [sums, doubles])
    # A sum for each request is none for each item, so this batch cannot be taken apart; alone each gets its answer.
    assert answered(sums) == {"SUM": ([1, 1], [3])}
    assert answered(doubles) == {"TWICE": ([2, 2], [6, 8, 10, 12])}
    assert executions(server, "ragged_sums") == {1: 1, 2: 1}
    assert "whose first dimension is not the batch of 3" in server.text()


def test_an_output_for_each_request_is_none_for_each_item(serve):
    server = serve("ragged_sums")
    answer = server.infer("ragged_sums", numbers(np.ones((2, 3), np.float32), ["SUM"]))
    assert answer.status_code == 500
    assert "output 'SUM' came in shape [1,1], whose first dimension is not the batch of 2" in answer.json()["error"]


def test_every_kind_tells_the_model_of_the_batch(serve):
    """The counts as FP32, INT64 and INT32; the input is of strings."""
    server = serve("ragged_kinds", hold=3)
    shapes = [[1, 2, 3], [1, 1, 2], [1, 3, 3]]
    bodies = [texts(shape, 10**index) for index, shape in enumerate(shapes)]
    answers = one_after_the_other(server, "ragged_kinds", bodies)
    counts, sums, starts = [6, 2, 9], [6, 8, 17], [0, 6, 8]
    for index, (shape, answer) in enumerate(zip(shapes, answers, strict=True)):
        assert answered(answer) == {
            "SAID": (shape, bodies[index]["inputs"][0]["data"]),
            "TOLD_COUNT": ([1, 1], [counts[index]]),
            "TOLD_SUM": ([1, 1], [sums[index]]),
            "TOLD_START": ([1, 1], [starts[index]]),
            "TOLD_MOST": ([1, 1], [9]),
            "TOLD_ITEMS": ([1, 2], shape[1:]),
            "TOLD_FLAT": ([1, 2], shape[1:]),
        }
    assert executions(server, "ragged_kinds") == {3: 1}


def test_counts_are_of_requests_and_shapes_are_of_items(serve):
    server = serve("ragged_kinds", hold=2)
    asked = {"outputs": [{"name": name} for name in ("TOLD_ITEMS", "TOLD_FLAT", "SAID")]}
    bodies = [texts([2, 3, 1], 0) | asked, texts([1, 2, 2], 100) | asked]
    first, second = one_after_the_other(server, "ragged_kinds", bodies)
    assert answered(first)["TOLD_ITEMS"] == answered(first)["TOLD_FLAT"] == ([2, 2], [3, 1, 3, 1])
    assert answered(second)["TOLD_ITEMS"] == answered(second)["TOLD_FLAT"] == ([1, 2], [2, 2])
    assert answered(first)["SAID"] == ([2, 3, 1], list("012345"))
    assert executions(server, "ragged_kinds") == {3: 1}
    server.wait_until(lambda: pending(server, "ragged_kinds") == 0, "nothing waiting")
    rows = Metrics(server).value("nv_inference_count", model="ragged_kinds", version="1")
    assert rows == 3


def test_what_the_server_fills_is_no_input_of_clients(serve):
    server = serve("ragged_sums")
    metadata = server.get("/v2/models/ragged_sums").json()
    assert metadata["inputs"] == [{"name": "VALUES", "datatype": "FP32", "shape": [-1, -1]}]
    assert [output["shape"] for output in metadata["outputs"]] == [[-1, 1], [-1, -1]]
    body = numbers(np.ones((1, 2), np.float32))
    body["inputs"].append({"name": "BOUNDS", "datatype": "INT32", "shape": [1, 2], "data": [0, 2]})
    answer = server.infer("ragged_sums", body)
    assert answer.status_code == 400
    assert "unexpected inference input 'BOUNDS'" in answer.json()["error"]
    config = server.get("/v2/models/ragged_sums/config").json()
    assert config["input"][0]["allow_ragged_batch"] is True
    assert config["batch_input"][0]["target_name"] == ["BOUNDS"]
    assert config["batch_output"][0]["source_input"] == ["VALUES"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("max_batch_size: 8", "max_batch_size: 0", 'input "VALUES" has allow_ragged_batch, but max_batch_size is 0'),
        ('target_name: "BOUNDS"', 'target_name: "ENDS"', 'batch_input "ENDS" is not in the model'),
        ("data_type: TYPE_INT32", "data_type: TYPE_FP32", 'batch_input "BOUNDS" is TYPE_FP32'),
        ('source_input: "VALUES"', 'source_input: "OTHER"', 'batch_input "BOUNDS" has source_input "OTHER"'),
        ('target_name: "TWICE"', 'target_name: "THRICE"', 'batch_output "THRICE" is none of the outputs'),
    ],
)
def test_a_contradiction_is_why_the_model_is_unavailable(serve, old, new, reason):
    server = serve("ragged_sums", replace=[(old, new)], ready=False)

    def entry():
        return server.post("/v2/repository/index").json()[0]

    server.wait_until(lambda: entry().get("state") == "UNAVAILABLE", "the model failing")
    assert reason in entry()["reason"]


def test_a_model_that_is_not_flat_takes_no_ragged_input(start, test_models, tmp_path):
    directory = tmp_path / "models" / "no_config"
    shutil.copytree(test_models / "sound" / "no_config", directory)
    (directory / "config.pbtxt").write_text(
        'max_batch_size: 8 input { name: "INPUT0" data_type: TYPE_FP32 dims: 3 allow_ragged_batch: true }'
    )
    server = start(tmp_path / "models", options=("--strict-readiness=false",))
    server.wait_until(lambda: server.post("/v2/repository/index").json()[0].get("state") == "UNAVAILABLE", "failing")
    reason = server.post("/v2/repository/index").json()[0]["reason"]
    assert "the model's shape must be [-1], but is [-1,3]" in reason
