"""Model control by request: load, unload, reload, override, roll back and follow, over the wire."""

import base64
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from controlled import (
    Repository,
    adder,
    answer,
    ask,
    control,
    index,
    k_of,
    large_adder,
    late_adder,
    load,
    slow_adder,
)
from event_stream import EventStream
from metrics import Metrics
from tritonclient.utils import InferenceServerException

ONE_INSTANCE = "max_batch_size: 1\ninstance_group { count: 1 }\n"
# How many multiplications take long enough that others happen meanwhile.
LONG = 2000
CONFIG = '{"name": "adder", "backend": "onnxruntime", "max_batch_size": 8}'


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


@pytest.fixture
def explicit(start, repository):
    """Starts a server whose models are loaded by request."""

    def explicit(*options):
        return start(repository.path, options=("--model-control-mode=explicit", *options)).wait_until_ready()

    return explicit


@pytest.fixture(params=["http", "grpc"])
def connect(request):
    """Connects one of the public clients."""
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]
    clients = []

    def connect(server):
        clients.append(module.InferenceServerClient(getattr(server, request.param)))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def listed(client):
    """The index as a public client shows it: state and reason by model and version."""
    grpc = isinstance(client, tritonclient.grpc.InferenceServerClient)
    answered = client.get_model_repository_index(**({"as_json": True} if grpc else {}))
    entries = answered.get("models", []) if grpc else answered
    return {(entry["name"], entry.get("version", "")): entry.get("state", "") for entry in entries}


def inferred(client, x=0.0):
    """The K of the version that answers a public client."""
    grpc = isinstance(client, tritonclient.grpc.InferenceServerClient)
    tensor = (tritonclient.grpc if grpc else tritonclient.http).InferInput("X", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.full((1, 1), x, np.float32))
    return float(client.infer("adder", [tensor]).as_numpy("Y")[0, 0]) - x


def test_nothing_is_loaded_before_it_is_asked_for(explicit, repository, connect):
    repository.put("adder", 1, adder(1))
    server = explicit()
    client = connect(server)
    assert client.is_server_ready() and not client.is_model_ready("adder")
    assert set(listed(client).values()) == {""}
    refused = ask(server)
    assert refused.status_code == 404
    assert refused.json()["error"] == "Request for unknown model: 'adder' has no available versions"
    client.load_model("adder")
    assert client.is_model_ready("adder") and client.is_model_ready("adder", "1")
    assert listed(client) == {("adder", "1"): "READY"}
    assert inferred(client) == 1


@pytest.mark.parametrize(("wanted", "loaded"), [("adder", {"adder"}), ("*", {"adder", "other"})])
def test_load_model_names_what_is_loaded_at_start(explicit, repository, wanted, loaded):
    repository.put("adder", 1, adder(1))
    repository.put("other", 1, adder(2))
    server = explicit(f"--load-model={wanted}")
    ready = {name for name in ("adder", "other") if server.get(f"/v2/models/{name}/ready").status_code == 200}
    assert ready == loaded


def test_a_model_to_load_at_start_that_is_not_there_keeps_the_server_from_being_ready(start, repository):
    repository.put("adder", 1, adder(1))
    options = ("--model-control-mode=explicit", "--load-model=adder", "--load-model=nope")
    server = start(repository.path, options=options)
    server.wait_until(lambda: k_of(server) == 1, "the one that is there")
    server.wait_until(lambda: index(server, "nope"), "the reason")
    assert server.get("/v2/health/ready").status_code == 400
    assert index(server, "nope") == {"": ("UNAVAILABLE", "no repository has a directory of that name")}


def test_unknown_models(explicit, connect):
    client = connect(explicit())
    with pytest.raises(InferenceServerException, match="failed to load 'nope', failed to poll from model repository"):
        client.load_model("nope")
    client.unload_model("nope")
    assert listed(client) == {}


def test_a_name_that_leaves_the_repository_is_not_loaded(explicit, repository):
    elsewhere = Repository(repository.path.parent / "elsewhere")
    elsewhere.put("adder", 1, adder(1))
    server = explicit()
    for name in ("..%2felsewhere%2fmodels%2fadder", "..", ".", "%2fetc", "adder%00"):
        response = server.post(f"/v2/repository/models/{name}/load")
        assert response.status_code in (400, 404), (name, response.text)
    assert index(server) == {}


@pytest.mark.parametrize(
    ("mode", "words"), [("none", "--model-control-mode=explicit"), ("poll", "if polling is enabled")]
)
def test_models_are_not_loaded_by_request_in_another_mode(start, repository, connect, mode, words):
    repository.put("adder", 1, adder(1))
    server = start(repository.path, options=(f"--model-control-mode={mode}",)).wait_until_ready()
    client = connect(server)
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="explicit model load / unload is not allowed") as refused:
            change("adder")
        assert words in str(refused.value)
    for verb in ("load", "unload"):
        assert control(server, "adder", verb).status_code == 503
    assert inferred(client) == 1


def test_after_an_unload_requests_are_refused_as_triton_does(explicit, repository, connect):
    repository.put("adder", 1, adder(1))
    server = explicit("--load-model=adder")
    client = connect(server)
    client.unload_model("adder")
    assert not client.is_model_ready("adder")
    refused = ask(server)
    assert refused.status_code == 404
    assert refused.json() == {"error": "Request for unknown model: 'adder' has no available versions"}
    assert server.get("/v2/models/adder/ready").status_code == 400
    named = ask(server, version=1)
    assert named.status_code == 503 and "'adder' version 1 is not at ready state" in named.json()["error"]
    server.wait_until(lambda: index(server) == {"1": ("UNAVAILABLE", "unloaded")}, "its end")
    client.load_model("adder")
    assert inferred(client) == 1


def test_unload_answers_what_it_took(explicit, repository):
    repository.put("adder", 1, slow_adder(1), ONE_INSTANCE)
    server = explicit("--load-model=adder")
    with EventStream(server) as events, ThreadPoolExecutor() as threads:
        taken = [threads.submit(answer, server, x=LONG) for _ in range(2)]
        server.wait_until(lambda: waiting(server) == 1, "the requests arriving")
        assert control(server, "adder", "unload").status_code == 200
        assert ask(server).status_code == 404
        events.wait_for("adder", "1", "UNLOADING")
        assert not any(one.done() for one in taken)
        assert ("adder", "1", "UNAVAILABLE") not in events.told()
        assert [one.result() for one in taken] == [(1, "1"), (1, "1")]
        events.wait_for("adder", "1", "UNAVAILABLE")


def waiting(server, version=1):
    return Metrics(server).value("nv_inference_pending_request_count", model="adder", version=str(version))


def test_unload_dependents_changes_nothing(explicit, repository):
    repository.put("adder", 1, adder(1))
    server = explicit("--load-model=adder")
    assert control(server, "adder", "unload", {"unload_dependents": "yes"}).status_code == 400
    assert k_of(server) == 1
    assert control(server, "adder", "unload", {"unload_dependents": True}).status_code == 200
    assert k_of(server) is None


def test_a_reload_of_what_has_not_changed_does_nothing(explicit, repository, connect):
    repository.put("adder", 1, adder(1))
    repository.put("other", 1, adder(2))
    server = explicit("--load-model=adder")
    client = connect(server)
    with EventStream(server) as events:
        client.load_model("adder")
        client.load_model("adder")
        client.load_model("other")
        events.wait_for("other", "1", "READY")
        assert {event["model"] for event in events.events} == {"other"}


def test_the_index_names_models_that_came_after_the_start(explicit, repository, connect):
    repository.put("adder", 1, adder(1))
    server = explicit()
    client = connect(server)
    repository.put("later", 1, adder(2))

    def names():
        index = client.get_model_repository_index()
        models = index if isinstance(index, list) else index.models
        return [model["name"] if isinstance(model, dict) else model.name for model in models]

    assert names() == ["adder", "later"]
    repository.take("later")
    assert names() == ["adder"]


def test_a_new_version_takes_over_and_the_old_one_answers_what_it_took(explicit, repository, connect):
    repository.put("adder", 1, slow_adder(1), ONE_INSTANCE)
    server = explicit("--load-model=adder")
    with EventStream(server) as events, ThreadPoolExecutor() as threads:
        taken = [threads.submit(answer, server, x=LONG) for _ in range(2)]
        server.wait_until(lambda: waiting(server) == 1, "the requests arriving")
        repository.put("adder", 2, slow_adder(2))
        connect(server).load_model("adder")
        assert answer(server) == (2, "2")
        assert not any(one.done() for one in taken)
        assert [one.result() for one in taken] == [(1, "1"), (1, "1")]
        events.wait_for("adder", "1", "UNAVAILABLE")
        assert events.told() == [
            ("adder", "2", "LOADING"),
            ("adder", "2", "READY"),
            ("adder", "1", "UNLOADING"),
            ("adder", "1", "UNAVAILABLE"),
        ]
    assert index(server) == {"1": ("UNAVAILABLE", "unloaded"), "2": ("READY", "")}


def test_new_files_of_the_same_version_take_over(explicit, repository):
    repository.put("adder", 1, adder(1))
    server = explicit("--load-model=adder")
    repository.put("adder", 1, adder(5))
    assert answer(server) == (1, "1")
    load(server)
    assert answer(server) == (5, "1")
    server.wait_until(lambda: index(server) == {"1": ("READY", "")}, "the index")


def test_only_the_difference_is_loaded_when_the_version_policy_changes(explicit, repository):
    versions = {k: adder(k) for k in (1, 2, 3)}
    repository.put_model("adder", versions, "version_policy { specific { versions: [1, 2] } }")
    server = explicit("--load-model=adder")
    with EventStream(server) as events:
        repository.configure("adder", "version_policy { specific { versions: [2, 3] } }")
        load(server)
        events.wait_for("adder", "1", "UNAVAILABLE")
        assert {version for _, version, _ in events.told()} == {"1", "3"}
    assert (answer(server, version=2), answer(server)) == ((2, "2"), (3, "3"))


@pytest.mark.parametrize("broken", [b"no model", adder(2)[:60], b""])
def test_a_broken_version_leaves_the_old_one_serving_and_says_why(explicit, repository, connect, broken):
    repository.put("adder", 1, adder(1))
    server = explicit("--load-model=adder")
    client = connect(server)
    repository.put("adder", 2, broken)
    text = "load failed for model 'adder': version 2 is at UNAVAILABLE state: .*;"
    with pytest.raises(InferenceServerException, match=text):
        client.load_model("adder")
    assert inferred(client) == 1 and client.is_server_ready()
    states = index(server)
    assert states["2"][0] == "UNAVAILABLE" and states["2"][1]
    assert states["1"][0] == "READY" and states["2"][1] in states["1"][1]
    # Once it is mended it serves, and nothing is said any more.
    repository.put("adder", 2, adder(2))
    client.load_model("adder")
    server.wait_until(lambda: index(server)["1"] == ("UNAVAILABLE", "unloaded"), "the end of the old one")
    assert index(server)["2"] == ("READY", "") and inferred(client) == 2


def test_one_broken_version_of_two_lets_neither_serve(explicit, repository):
    every = "version_policy { all {} }"
    repository.put_model("adder", {1: adder(1)}, every)
    server = explicit("--load-model=adder")
    repository.put("adder", 2, adder(2))
    repository.put("adder", 3, b"no model")
    assert control(server, "adder", "load").status_code == 400
    assert answer(server) == (1, "1")
    assert {version: state for version, (state, _) in index(server).items() if state == "READY"} == {"1": "READY"}


def test_a_configuration_that_cannot_be_read_leaves_what_serves(explicit, repository):
    repository.put("adder", 1, adder(1))
    server = explicit("--load-model=adder")
    repository.configure("adder", "max_batchsize: 3")
    refused = control(server, "adder", "load")
    assert refused.status_code == 400 and "max_batchsize" in refused.json()["error"]
    assert k_of(server) == 1
    state, reason = index(server)["1"]
    assert state == "READY" and "max_batchsize" in reason


@pytest.mark.parametrize(("policy", "gap"), [("availability", False), ("resource", True)])
def test_the_swap_policy_says_whether_both_are_loaded_at_once(explicit, repository, policy, gap):
    config = f'parameters {{ key: "swap_policy" value {{ string_value: "{policy}" }} }}\n'
    repository.put("adder", 1, adder(1), config)
    server = explicit("--load-model=adder")
    with EventStream(server) as events:
        repository.put("adder", 2, adder(2))
        load(server)
        events.wait_for("adder", "1", "UNAVAILABLE").wait_for("adder", "2", "READY")
        told = [told[1:] for told in events.told()]
    assert (told.index(("1", "UNAVAILABLE")) < told.index(("2", "LOADING"))) == gap
    # What had to leave comes back when the next cannot be loaded.
    repository.put("adder", 3, b"no model")
    assert control(server, "adder", "load").status_code == 400
    assert answer(server) == (2, "2")


def test_a_swap_policy_that_is_not_known_is_refused(explicit, repository):
    repository.put("adder", 1, adder(1), 'parameters { key: "swap_policy" value { string_value: "quick" } }')
    refused = control(explicit(), "adder", "load")
    assert refused.status_code == 400 and "swap_policy" in refused.json()["error"]


def test_a_configuration_that_is_given_is_used_instead(explicit, repository, connect):
    repository.put("adder", 1, adder(1))
    repository.put("adder", 2, adder(2))
    server = explicit("--load-model=adder")
    client = connect(server)
    assert inferred(client) == 2
    client.load_model("adder", config='{"max_batch_size": 4, "version_policy": {"specific": {"versions": [1]}}}')
    assert inferred(client) == 1
    assert server.get("/v2/models/adder/config").json()["max_batch_size"] == 4
    # Without one its files count again.
    client.load_model("adder")
    assert inferred(client) == 2


def test_files_that_are_given_take_the_place_of_the_model(explicit, repository, connect):
    repository.put("adder", 1, adder(1))
    server = explicit("--load-model=adder")
    client = connect(server)
    client.load_model("adder", config=CONFIG, files={"file:7/model.onnx": adder(7)})
    assert answer(server) == (7, "7") and inferred(client) == 7
    client.load_model("adder", config=CONFIG, files={"file:7/model.onnx": adder(8)})
    assert answer(server) == (8, "7")
    client.load_model("adder")
    assert answer(server) == (1, "1")


def test_a_given_file_may_be_as_large_as_a_request(explicit, connect):
    client = connect(explicit())
    client.load_model("adder", config=CONFIG, files={"file:1/model.onnx": large_adder(4)})
    assert inferred(client) == 4


def test_a_model_may_be_of_given_files_alone(explicit, connect):
    server = explicit()
    client = connect(server)
    client.load_model("adder", config=CONFIG, files={"file:1/model.onnx": adder(3)})
    assert client.is_model_ready("adder") and inferred(client) == 3
    client.unload_model("adder")
    assert not client.is_model_ready("adder")


@pytest.mark.parametrize(
    ("config", "files", "words"),
    [
        (CONFIG, {"file:../x/model.onnx": b"x"}, "leaves the model's directory"),
        (CONFIG, {"file:/tmp/x": b"x"}, "leaves the model's directory"),
        (CONFIG, {"file:1/../../x": b"x"}, "leaves the model's directory"),
        (CONFIG, {"file:": b"x"}, "leaves the model's directory"),
        (None, {"file:1/model.onnx": b"x"}, "without the parameter 'config'"),
        ("{", {}, "the parameter 'config' is no configuration"),
        ('{"max_batchsize": 1}', {}, "max_batchsize"),
        ('{"name": "other"}', {}, "other"),
        (CONFIG, {"file:1/model.onnx": b"no model"}, "version 1 is at UNAVAILABLE state"),
        (CONFIG, {"file:model.onnx": b"x"}, "version"),
    ],
)
def test_an_override_that_is_wrong_is_refused_and_what_serves_goes_on(
    explicit, repository, connect, config, files, words
):
    repository.put("adder", 1, adder(1))
    client = connect(explicit("--load-model=adder"))
    before = set(repository.path.parent.rglob("*"))
    with pytest.raises(InferenceServerException, match=words):
        client.load_model("adder", config=config, files=files)
    assert inferred(client) == 1 and client.is_server_ready()
    assert set(repository.path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"config": CONFIG, "file:1/model.onnx": "not base64!"}, "is not base64"),
        ({"config": CONFIG, "file:1/model.onnx": 3}, "must be a string"),
        ({"config": {}}, "'config' must be a string"),
        ({"confg": "{}"}, "'confg'"),
        ([], "'parameters' must be an object"),
    ],
)
def test_a_load_that_is_not_understood_is_refused(explicit, repository, parameters, words):
    repository.put("adder", 1, adder(1))
    server = explicit()
    refused = control(server, "adder", "load", parameters)
    assert refused.status_code == 400 and words in refused.json()["error"]
    assert k_of(server) is None


def test_a_body_that_is_no_json_is_refused(explicit, repository):
    repository.put("adder", 1, adder(1))
    server = explicit()
    for body in (b"{", b"[]", b'"load"'):
        refused = server.post("/v2/repository/models/adder/load", data=body)
        assert refused.status_code in (400, 500) and refused.json()["error"]
    assert k_of(server) is None
    assert server.post("/v2/repository/models/adder/load", data=b"{}").status_code == 200


def test_a_raw_load_gives_files_in_base64(explicit):
    server = explicit()
    parameters = {"config": CONFIG, "file:1/model.onnx": base64.b64encode(adder(4)).decode()}
    assert control(server, "adder", "load", parameters).status_code == 200
    assert k_of(server) == 4


def test_what_is_kept_is_rolled_back_to_at_once(explicit, repository):
    repository.put("adder", 1, adder(1))
    server = explicit("--load-model=adder", "--keep-previous=1")
    nothing = control(server, "adder", "rollback")
    assert nothing.status_code == 400 and "no earlier versions" in nothing.json()["error"]
    for k in (2, 3):
        repository.put("adder", k, adder(k))
        load(server)
    repository.take("adder", 2)
    with EventStream(server) as events:
        back = control(server, "adder", "rollback")
        assert (back.status_code, back.json()) == (200, {"name": "adder", "versions": ["2"]})
        assert answer(server) == (2, "2")
        events.wait_for("adder", "2", "READY").wait_for("adder", "3", "UNAVAILABLE")
        assert "LOADING" not in {state for _, _, state in events.told()}
    assert control(server, "adder", "rollback").status_code == 400
    assert answer(server) == (2, "2")
    assert control(server, "nope", "rollback").status_code == 404


def test_a_rollback_brings_back_the_files_of_the_same_version(explicit, repository):
    repository.put("adder", 1, adder(1))
    server = explicit("--load-model=adder", "--keep-previous=2")
    for k in (5, 6):
        repository.put("adder", 1, adder(k))
        load(server)
    for k in (5, 1):
        assert control(server, "adder", "rollback").status_code == 200
        assert answer(server) == (k, "1")
    # The files are still the last ones.
    load(server)
    assert answer(server) == (6, "1")


def test_nothing_is_kept_unless_it_is_asked_for(explicit, repository):
    repository.put("adder", 1, adder(1))
    server = explicit("--load-model=adder")
    repository.put("adder", 2, adder(2))
    load(server)
    assert control(server, "adder", "rollback").status_code == 400
    assert answer(server) == (2, "2")


def test_the_events_are_told_in_order_and_taken_up_where_they_were_left(explicit, repository):
    repository.put("adder", 1, adder(1))
    repository.put("other", 1, adder(1))
    server = explicit()
    with EventStream(server) as events:
        assert events.content_type == "text/event-stream" and events.retry.startswith("retry:")
        load(server)
        load(server, "other")
        control(server, "adder", "unload")
        events.wait_for("adder", "1", "UNAVAILABLE").wait_for("other", "1", "READY")
        assert events.ids() == list(range(1, len(events.ids()) + 1))
        seen = [event for event in events.events]
    assert [event["state"] for event in seen if event["model"] == "adder"] == [
        "LOADING",
        "READY",
        "UNLOADING",
        "UNAVAILABLE",
    ]
    for query, headers in (("?after=2", {}), ("", {"Last-Event-ID": "2"}), ("?after=0", {"Last-Event-ID": "2"})):
        with EventStream(server, query, headers) as again:
            server.wait_until(lambda again=again: len(again.events) >= len(seen) - 2, "the rest")
            assert again.events == seen[2:]
    with EventStream(server, "?model=other&after=0") as other:
        other.wait_for("other", "1", "READY")
        assert other.events == [event for event in seen if event["model"] == "other"]


def test_events_that_are_asked_for_wrongly(explicit):
    server = explicit()
    for query, words in (("?after=x", "'after' is 'x'"), ("?modle=m", "has 'modle'"), ("?after=-1", "'-1'")):
        refused = server.get(f"/v2/repository/events{query}")
        assert refused.status_code == 400 and words in refused.json()["error"]
    assert server.get("/v2/repository/events", headers={"Last-Event-ID": "x"}).status_code == 400
    assert server.post("/v2/repository/events").status_code == 405


def test_the_events_end_when_the_server_stops(explicit):
    server = explicit()
    with EventStream(server) as events:
        server.terminate()
        assert events.ended.wait(20)
        assert not events.failed
    assert server.exit_code() == 0, server.text()


def test_a_stop_during_a_load_answers_it_and_those_in_flight(explicit, repository):
    repository.put("adder", 1, slow_adder(1), ONE_INSTANCE)
    repository.put("other", 1, late_adder(2))
    server = explicit("--load-model=adder")
    with EventStream(server) as events, ThreadPoolExecutor() as threads:
        taken = threads.submit(answer, server, x=LONG)
        loading = threads.submit(control, server, "other", "load")
        events.wait_for("other", "1", "LOADING")
        server.terminate()
        assert taken.result() == (1, "1")
        assert loading.result().status_code == 200, loading.result().text
    assert server.exit_code() == 0, server.text()


def test_loads_of_one_model_wait_for_each_other_and_of_others_do_not(explicit, repository):
    repository.put("adder", 1, late_adder(1))
    repository.put("other", 1, adder(2))
    server = explicit()
    with EventStream(server) as events, ThreadPoolExecutor() as threads:
        loads = [threads.submit(control, server, "adder", "load") for _ in range(4)]
        events.wait_for("adder", "1", "LOADING")
        load(server, "other")
        assert k_of(server, "other") == 2 and not any(one.done() for one in loads)
        unloading = threads.submit(control, server, "adder", "unload")
        assert {one.result().status_code for one in [*loads, unloading]} == {200}
        # It was loaded once, or once more after it was unloaded.
        server.wait_until(lambda: ("adder", "1", "UNAVAILABLE") in events.told(), "the unload")
        assert events.told().count(("adder", "1", "LOADING")) <= 2
