"""What the server counts: the statistics of both protocols and the metrics agree, exactly."""

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton
from metrics import Metrics

MODEL, VERSION = "simple", "1"
BATCHES = [1, 1, 3, 8]
COUNTERS = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
}


def value(metrics, name):
    return metrics.value(name, model=MODEL, version=VERSION)


def statistics(server):
    return server.get(f"/v2/models/{MODEL}/versions/{VERSION}/stats").json()["model_stats"][0]


def send(server, rows):
    inputs = [
        {"name": name, "datatype": "INT32", "shape": [rows, 16], "data": [1] * 16 * rows}
        for name in ("INPUT0", "INPUT1")
    ]
    assert server.infer(MODEL, {"inputs": inputs}).status_code == 200


def test_statistics_grow_by_what_was_sent(server):
    before = statistics(server)
    for rows in BATCHES:
        send(server, rows)
    after = statistics(server)

    assert after["inference_count"] - before.get("inference_count", 0) == sum(BATCHES)
    assert after["execution_count"] - before.get("execution_count", 0) == len(BATCHES)
    assert after["last_inference"] >= before["last_inference"]
    for phase in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        counted = after["inference_stats"][phase]["count"] - before["inference_stats"][phase]["count"]
        assert counted == len(BATCHES), phase
        assert after["inference_stats"][phase]["ns"] >= before["inference_stats"][phase]["ns"], phase
    assert after["inference_stats"]["fail"] == before["inference_stats"]["fail"]

    def executions(stats, rows):
        return sum(each["compute_infer"]["count"] for each in stats["batch_stats"] if each["batch_size"] == rows)

    for rows in set(BATCHES):
        assert executions(after, rows) - executions(before, rows) == BATCHES.count(rows), rows


def test_the_phases_of_a_request_fit_into_its_time(server):
    send(server, 1)
    stats = statistics(server)["inference_stats"]
    phases = sum(stats[phase]["ns"] for phase in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < phases <= stats["success"]["ns"]


def test_both_protocols_give_the_same_statistics(server):
    with triton.InferenceServerClient(server.grpc) as client:
        over_grpc = client.get_inference_statistics(as_json=True)["model_stats"]
    over_http = server.get("/v2/models/stats").json()["model_stats"]
    for each in over_http:
        assert each.pop("learned_cost")["executions"] == each["execution_count"]  # which Triton's client does not know
    assert by_version(over_grpc) == by_version(over_http)


def by_version(stats):
    return {(each["name"], each["version"]): plain(each) for each in stats}


def plain(value):
    """A value of either JSON: gRPC's writes whole numbers as text and leaves zeros out."""
    if isinstance(value, dict):
        pairs = {key: plain(each) for key, each in value.items()}
        return {key: each for key, each in pairs.items() if each not in (0, "", {}, [])}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return int(value) if isinstance(value, str) and value.isdigit() else value


def test_failures_are_counted(server):
    def failures():
        stats = server.get("/v2/models/fails_to_run/stats").json()["model_stats"][0]["inference_stats"]
        labels = {"model": "fails_to_run", "version": "1", "reason": "BACKEND"}
        return stats["fail"]["count"], Metrics(server).value("nv_inference_request_failure", **labels)

    in_statistics, in_metrics = failures()
    body = {"inputs": [{"name": "INPUT0", "datatype": "INT64", "shape": [1], "data": [7]}]}
    assert server.infer("fails_to_run", body).status_code == 500
    assert failures() == (in_statistics + 1, in_metrics + 1)


def test_the_metrics_have_the_names_of_triton(server):
    send(server, 1)
    kinds = Metrics(server).kinds
    assert {name: kinds.get(name) for name in COUNTERS} == dict.fromkeys(COUNTERS, "counter")
    assert kinds["nv_inference_pending_request_count"] == "gauge"


def test_the_metrics_grow_by_what_was_sent(server):
    before = Metrics(server)
    for rows in BATCHES:
        send(server, rows)
    after = Metrics(server)

    def grown(name):
        return value(after, name) - value(before, name)

    assert grown("nv_inference_request_success") == len(BATCHES)
    assert grown("nv_inference_count") == sum(BATCHES)
    assert grown("nv_inference_exec_count") == len(BATCHES)
    assert value(after, "nv_inference_pending_request_count") == 0
    # Latencies of the request, the queue and the execution, and the sizes of batches.
    histograms = [name for name, kind in after.kinds.items() if kind == "histogram"]
    grew = [name for name in histograms if grown(f"{name}_count") == len(BATCHES)]
    assert len(grew) >= 4, histograms


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_the_port_of_the_metrics(server, path):
    response = requests.get(f"http://{server.metrics}{path}", timeout=60)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert requests.post(f"http://{server.metrics}{path}", timeout=60).status_code == 405


def test_real_requests_are_counted_for_the_version_that_answered(server, digits):
    images, _ = digits

    def counts():
        stats = server.get("/v2/models/digits/stats").json()["model_stats"]
        return np.array([each["inference_count"] for each in sorted(stats, key=lambda each: each["version"])])

    before = counts()
    shape, data = [5, 8, 8], images[:5].ravel().tolist()
    body = {"inputs": [{"name": "image", "datatype": "FP32", "shape": shape, "data": data}]}
    for model in ("digits", "digits/versions/1", "digits/versions/2"):
        assert server.infer(model, body).status_code == 200
    assert (counts() - before).tolist() == [5, 10]
