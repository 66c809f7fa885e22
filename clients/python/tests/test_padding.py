"""Requests of different length in one batch: `pad_batch` and `pad_to_sizes`.

`padded_sums` says at which length it ran; xtask/python/test_models.py has its graph.
"""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from metrics import Metrics
from test_batching import executions

MODEL = "padded_sums"


@pytest.fixture
def serve(serve_edited, test_models):
    """A server of `padded_sums`, with more in its configuration."""

    def serve(more="", *, hold=0, replace=(), ready=True):
        def edit(config):
            for old, new in replace:
                assert old in config
                config = config.replace(old, new)
            return config + more

        return serve_edited(test_models / "sound" / MODEL, edit, hold=hold, ready=ready)

    return serve


def sizes(text):
    return f'parameters {{ key: "pad_to_sizes" value {{ string_value: "{text}" }} }}'


def body(numbers):
    """A request that keeps every number, in JSON."""
    shape = list(numbers.shape)
    ones = np.ones(shape).tolist()
    return {
        "inputs": [
            {"name": "NUMBERS", "datatype": "INT64", "shape": shape, "data": numbers.tolist()},
            {"name": "MASK", "datatype": "FP32", "shape": shape, "data": ones},
        ]
    }


def check(outputs, numbers):
    """Holds what came back against what the numbers alone give; returns the length that the model ran at."""
    np.testing.assert_array_equal(outputs["SUM"], numbers.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(outputs["TWICE"], numbers * 2)
    np.testing.assert_array_equal(outputs["PRODUCTS"], numbers[:, :, None] * numbers[:, None, :])
    assert outputs["LENGTH"].shape == (numbers.shape[0], 1)
    return set(outputs["LENGTH"].ravel().tolist())


def from_json(answer):
    assert answer.status_code == 200, answer.text
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in answer.json()["outputs"]}


@pytest.mark.parametrize("module", [tritonclient.http, tritonclient.grpc])
def test_requests_are_padded_to_the_next_size_and_each_gets_its_own(serve, module):
    requests = [np.arange(rows * length).reshape(rows, length) + 10 * rows for rows, length in [(1, 3), (2, 1), (3, 4)]]
    server = serve(sizes("4, 16"), hold=len(requests))
    address = server.grpc if module is tritonclient.grpc else server.http

    def ask(numbers):
        inputs = [
            module.InferInput("NUMBERS", numbers.shape, "INT64"),
            module.InferInput("MASK", numbers.shape, "FP32"),
        ]
        inputs[0].set_data_from_numpy(numbers)
        inputs[1].set_data_from_numpy(np.ones(numbers.shape, np.float32))
        with module.InferenceServerClient(address) as client:
            result = client.infer(MODEL, inputs)
        return check({name: result.as_numpy(name) for name in ("SUM", "TWICE", "PRODUCTS", "LENGTH")}, numbers)

    with ThreadPoolExecutor(len(requests)) as pool:
        assert list(pool.map(ask, requests)) == [{4}] * len(requests)
    assert executions(server, MODEL) == {6: 1}
    metrics = Metrics(server)
    labels = {"model": MODEL, "version": "1"}
    assert metrics.value("volley_inference_padded_input_elements_total", **labels) == 2 * 6 * 4
    assert metrics.value("volley_inference_padding_elements_total", **labels) == 2 * (6 * 4 - 3 - 2 - 12)
    assert "not acted on" not in server.text()


def test_one_request_alone_is_padded_to_a_size_too_and_a_longer_one_is_refused(serve):
    server = serve(sizes("4,16"))
    for length, ran_at in [(1, 4), (4, 4), (5, 16), (16, 16), (0, 4)]:
        numbers = np.arange(length).reshape(1, length)
        assert check(from_json(server.infer(MODEL, body(numbers))), numbers) == {ran_at}
    answer = server.infer(MODEL, body(np.zeros((1, 17), np.int64)))
    assert answer.status_code == 400
    assert "input 'NUMBERS' has length 17, but the model takes 16 at most" in answer.json()["error"]


def test_the_padding_is_what_the_configuration_says(serve):
    """A mask that keeps the padding shows it: each element of it is 7."""
    server = serve(sizes("4"), replace=[("MASK=0", "MASK=1")])
    answer = from_json(server.infer(MODEL, body(np.array([[1]]))))
    assert answer["SUM"].tolist() == [[1 + 3 * 7]]


def test_a_request_has_one_length(serve):
    server = serve()
    request = body(np.array([[1, 2]]))
    request["inputs"][1].update(shape=[1, 3], data=[1, 1, 1])
    answer = server.infer(MODEL, request)
    assert answer.status_code == 400
    assert "input 'MASK' has length 3, but 'NUMBERS' has 2" in answer.json()["error"]


def test_an_output_that_is_not_as_long_as_the_inputs_shows_at_once(serve):
    """An answer would be cut where nothing was padded: also one that runs alone is refused."""
    wrong = [("dims: [ 1 ]", "dims: [ -1 ]"), ("TWICE=cut", "SUM=cut, LENGTH=cut, TWICE=cut")]
    server = serve(replace=wrong)
    answer = server.infer(MODEL, body(np.array([[1, 2, 3]])))
    assert answer.status_code == 500
    assert "output 'SUM' came in shape [1,1], whose dimension 1 is not the length of the inputs, 3" in answer.text
    assert "leave out pad_batch" in answer.text


def test_a_size_that_no_memory_holds_keeps_the_model_from_loading(serve):
    """A request for such a model ended the server."""
    server = serve(sizes("8, 99999999999999"), ready=False)
    reason = server.post("/v2/repository/index").json()[0]["reason"]
    assert 'has 99999999999999, at which input "NUMBERS" takes more than 2 GiB' in reason


def test_what_is_learned_of_the_cost_lets_lengths_run_together(serve):
    """Many clients at once, until some were padded: every answer is exact, whoever it ran with."""
    server = serve()
    padded = threading.Event()

    def ask(seed):
        choose = random.Random(seed)
        while not padded.is_set():
            numbers = np.array([[choose.randrange(100) for _ in range(choose.randrange(1, 30))]])
            check(from_json(server.infer(MODEL, body(numbers))), numbers)

    def padding():
        return Metrics(server).value("volley_inference_padding_elements_total", model=MODEL, version="1") > 0

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(ask, seed) for seed in range(8)]
        try:
            server.wait_until(padding, "requests of different length in one batch")
        finally:
            padded.set()
        [client.result() for client in clients]
    assert "a batch failed" not in server.text()


@pytest.mark.parametrize(
    ("replace", "reason"),
    [
        ("NUMBERS=7, ", 'has no value for input "NUMBERS", whose dims [-1] are open'),
        (", PRODUCTS=cut", 'whether output "PRODUCTS", whose dims [-1, -1] are open'),
    ],
)
def test_what_is_not_spoken_of_keeps_the_model_from_loading(serve, replace, reason):
    server = serve(replace=[(replace, "")], ready=False)
    index = server.post("/v2/repository/index").json()[0]
    assert index["state"] == "UNAVAILABLE"
    assert reason in index["reason"]
