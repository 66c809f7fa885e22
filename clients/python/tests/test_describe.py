"""What a server says about itself and its models, through every public client."""

import pytest
from tritonclient.utils import InferenceServerException

EXTENSIONS = {
    "classification",
    "model_repository",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
}


def test_the_server_and_its_models_are_live_and_ready(client):
    assert client.is_server_live() is True
    assert client.is_server_ready() is True
    assert client.is_model_ready("simple") is True
    assert client.is_model_ready("digits", "1") is True
    assert client.is_model_ready("digits", "2") is True


@pytest.mark.parametrize("model, version", [("nope", ""), ("simple", "9")])
def test_what_is_not_there_is_not_ready(client, model, version):
    try:
        assert client.is_model_ready(model, version) is False
    except InferenceServerException as error:
        assert client.is_grpc and "unknown model" in error.message()


def test_server_metadata(client):
    metadata = client.describe("get_server_metadata")
    assert metadata["name"] == "volley"
    assert metadata["version"]
    assert EXTENSIONS <= set(metadata["extensions"])


def test_model_metadata_shows_the_batch_dimension(client):
    metadata = client.describe("get_model_metadata", "simple")
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("simple", ["1"], "onnxruntime_onnx")
    assert numbers(metadata["inputs"]) == [
        {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]},
        {"name": "INPUT1", "datatype": "INT32", "shape": [-1, 16]},
    ]
    assert numbers(metadata["outputs"]) == [
        {"name": "OUTPUT0", "datatype": "INT32", "shape": [-1, 16]},
        {"name": "OUTPUT1", "datatype": "INT32", "shape": [-1, 16]},
    ]


def test_model_metadata_without_batches_shows_the_dimensions_alone(client):
    metadata = client.describe("get_model_metadata", "no_config_fixed")
    assert numbers(metadata["inputs"]) == [{"name": "INPUT0", "datatype": "FP32", "shape": [2, 3]}]


def test_model_metadata_lists_the_versions(client):
    assert sorted(client.describe("get_model_metadata", "digits")["versions"]) == ["1", "2"]
    assert client.describe("get_model_metadata", "digits", "1")["versions"] == ["1"]
    assert sorted(client.describe("get_model_metadata", "two_versions_specific")["versions"]) == ["1", "3"]


def test_config_is_complete(client):
    config = configuration(client, "digits")
    assert (config["name"], config["backend"], int(config["max_batch_size"])) == ("digits", "onnxruntime", 32)
    assert "all" in config["version_policy"]
    (output,) = config["output"]
    assert (output["data_type"], output["label_filename"]) == ("TYPE_FP32", "labels.txt")


def test_a_missing_config_is_completed_from_the_graph(client):
    config = configuration(client, "no_config")
    assert int(config["max_batch_size"]) == 4
    assert "dynamic_batching" in config
    assert numbers(config["input"])[0]["dims"] == [3]

    config = configuration(client, "no_config_fixed")
    assert int(config.get("max_batch_size", 0)) == 0
    assert numbers(config["input"])[0]["dims"] == [2, 3]

    (scalar,) = numbers(configuration(client, "reshape_scalar")["input"])
    assert scalar["dims"] == [1]
    assert "reshape" in scalar and not scalar["reshape"].get("shape")


def test_the_index_lists_the_versions_and_its_state(client):
    index = client.describe("get_model_repository_index")
    entries = index["models"] if client.is_grpc else index
    states = {(entry["name"], entry["version"]): entry["state"] for entry in entries}
    assert states["simple", "1"] == "READY"
    assert states["digits", "1"] == states["digits", "2"] == "READY"
    assert ("two_versions_specific", "2") not in states
    assert set(states.values()) == {"READY"}


def test_statistics_of_one_model_and_of_all(client):
    (one,) = client.describe("get_inference_statistics", "simple")["model_stats"]
    assert (one["name"], one["version"]) == ("simple", "1")
    everything = client.describe("get_inference_statistics")["model_stats"]
    assert {("simple", "1"), ("digits", "1"), ("digits", "2")} <= {
        (stats["name"], stats["version"]) for stats in everything
    }


@pytest.mark.parametrize(
    "method, model, version, words",
    [
        ("get_model_metadata", "nope", "", "Request for unknown model: 'nope' is not found"),
        ("get_model_metadata", "simple", "9", "'simple' version 9 is not found"),
        ("get_model_config", "nope", "", "Request for unknown model: 'nope' is not found"),
        ("get_model_config", "simple", "9", "'simple' version 9 is not found"),
        ("get_inference_statistics", "nope", "", "requested model 'nope' is not available"),
        ("get_inference_statistics", "nope", "1", "requested model 'nope' is not available"),
        ("get_inference_statistics", "simple", "9", "requested model version is not available for model 'simple'"),
    ],
)
def test_asking_about_what_is_not_there(client, method, model, version, words):
    with pytest.raises(InferenceServerException) as caught:
        client.describe(method, model, version)
    assert words in caught.value.message()


def configuration(client, model):
    answer = client.describe("get_model_config", model)
    return answer["config"] if client.is_grpc else answer


def numbers(tensors):
    """Tensor descriptions with numbers for dimensions, which gRPC's JSON writes as text."""
    return [
        {key: [int(dim) for dim in value] if key in ("shape", "dims") else value for key, value in tensor.items()}
        for tensor in tensors
    ]
