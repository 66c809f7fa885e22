"""Inference through every public client."""

import threading

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from server_process import SAMPLES
from tritonclient.utils import InferenceServerException

BOTH_WAYS = [True, False]


def ramp(batch=1):
    """Inputs for `simple`: two different rows of numbers for each item."""
    first = np.arange(16 * batch, dtype=np.int32).reshape(batch, 16)
    return first, (first * 3 + 1)[:, ::-1].copy()


def simple_inputs(client, batch=1, **options):
    first, second = ramp(batch)
    return [client.input("INPUT0", first, **options), client.input("INPUT1", second, **options)]


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("binary_in", BOTH_WAYS)
@pytest.mark.parametrize("binary_out", BOTH_WAYS)
def test_sum_and_difference(client, batch, binary_in, binary_out):
    outputs = [client.output(name, binary_data=binary_out) for name in ("OUTPUT0", "OUTPUT1")]
    result = client.infer("simple", simple_inputs(client, batch, binary_data=binary_in), outputs=outputs)
    first, second = ramp(batch)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + second)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - second)
    assert result.as_numpy("OUTPUT0").dtype == np.int32


def test_json_and_binary_tensors_in_one_request(client):
    first, second = ramp()
    inputs = [client.input("INPUT0", first, binary_data=True), client.input("INPUT1", second, binary_data=False)]
    outputs = [client.output("OUTPUT0", binary_data=False), client.output("OUTPUT1", binary_data=True)]
    result = client.infer("simple", inputs, outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + second)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - second)


@pytest.mark.parametrize("binary", BOTH_WAYS)
def test_numbers_as_strings(client, binary):
    first, second = ramp(2)
    inputs = [
        client.input("INPUT0", first.astype(str).astype(object), binary_data=binary),
        client.input("INPUT1", second.astype(str).astype(object), binary_data=binary),
    ]
    outputs = [client.output(name, binary_data=binary) for name in ("OUTPUT0", "OUTPUT1")]
    result = client.infer("simple_string", inputs, outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0").astype(np.int32), first + second)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1").astype(np.int32), first - second)


def integers(dtype):
    limits = np.iinfo(dtype)
    return np.array([[limits.min, 0, 1], [limits.max // 2, limits.max - 1, limits.max]], dtype)


def floats(dtype):
    limits = ml_dtypes.finfo(dtype)
    return np.array([[0.0, -0.0, 1 / 3, limits.max], [limits.min, limits.tiny, -1.5, limits.smallest_subnormal]], dtype)


FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": ml_dtypes.bfloat16}


VALUES = {
    "BOOL": np.array([[True, False], [False, True]]),
    **{name: integers(name.lower()) for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
    **{name: integers(name.lower()) for name in ("INT8", "INT16", "INT32", "INT64")},
    **{name: floats(dtype) for name, dtype in FLOATS.items()},
    "BYTES": np.array([[b"", b"text"], ["zw\u00f6lf \U0001f600".encode(), b'"\\\n\t']], object),
}


@pytest.mark.parametrize("datatype", VALUES)
def test_every_data_type_comes_back_bit_for_bit(client, datatype):
    sent = VALUES[datatype]
    received = identity(client, datatype, sent, binary=True)
    assert (received.dtype, received.shape) == (sent.dtype, sent.shape)
    assert received.tolist() == sent.tolist()
    if datatype != "BYTES":
        assert received.tobytes() == sent.tobytes()


@pytest.mark.parametrize("datatype", [name for name in VALUES if name not in ("FP16", "BF16")])
def test_every_data_type_comes_back_bit_for_bit_as_json(client, datatype):
    sent = VALUES[datatype]
    received = identity(client, datatype, sent, binary=False)
    if datatype == "BYTES":
        # The clients leave strings of JSON as text.
        received = np.vectorize(lambda text: text if isinstance(text, bytes) else text.encode(), otypes=[object])(
            received
        )
        assert received.tolist() == sent.tolist()
    else:
        assert received.tobytes() == sent.tobytes()


@pytest.mark.parametrize("datatype", FLOATS)
def test_what_is_no_number_comes_back(client, datatype):
    sent = np.array([[np.nan, np.inf, -np.inf, 1.0]], FLOATS[datatype])
    assert identity(client, datatype, sent, binary=True).tobytes() == sent.tobytes()
    if datatype in ("FP32", "FP64"):
        np.testing.assert_array_equal(identity(client, datatype, sent, binary=False), sent)


def test_bytes_that_are_no_text_come_back(client):
    sent = np.array([[b"\x00\xff\xfe", bytes(range(256))]], object)
    assert identity(client, "BYTES", sent, binary=True).tolist() == sent.tolist()


def test_tensors_without_elements(client):
    for datatype in ("FP32", "BYTES"):
        sent = VALUES[datatype][:0]
        received = identity(client, datatype, sent, binary=True)
        assert received.size == 0, datatype


def identity(client, datatype, sent, binary):
    result = client.infer(
        f"identity_{datatype.lower()}",
        [client.input("INPUT0", sent, datatype, binary_data=binary)],
        outputs=[client.output("OUTPUT0", binary_data=binary)],
    )
    return result.as_numpy("OUTPUT0")


def test_a_megabyte_each_way(client):
    sent = np.random.default_rng(0).standard_normal((2, 150_000), np.float32)
    for binary in BOTH_WAYS:
        result = client.infer(
            "identity",
            [client.input("INPUT0", sent, binary_data=binary)],
            outputs=[client.output("OUTPUT0", binary_data=binary)],
        )
        assert result.as_numpy("OUTPUT0").tobytes() == sent.tobytes()


def answer(client, result):
    """What an answer says besides its tensors."""
    return result.get_response(as_json=True) if client.is_grpc else result.get_response()


def test_the_answer_names_the_request_the_model_and_the_version(client):
    said = answer(client, client.infer("simple", simple_inputs(client), request_id="number 5"))
    assert (said["id"], said["model_name"], said["model_version"]) == ("number 5", "simple", "1")
    assert not answer(client, client.infer("simple", simple_inputs(client))).get("id")


def test_only_the_outputs_asked_for(client):
    said = answer(client, client.infer("simple", simple_inputs(client), outputs=[client.output("OUTPUT1")]))
    assert [output["name"] for output in said["outputs"]] == ["OUTPUT1"]
    said = answer(client, client.infer("simple", simple_inputs(client)))
    assert sorted(output["name"] for output in said["outputs"]) == ["OUTPUT0", "OUTPUT1"]


def test_outputs_not_asked_for_are_not_computed(client):
    one = np.array([3], np.float32)

    def milliseconds(*names):
        before = compute_time(client, "optional_outputs")
        result = client.infer(
            "optional_outputs", [client.input("INPUT0", one)], outputs=[client.output(name) for name in names]
        )
        assert all(result.as_numpy(name) is not None for name in names)
        return (compute_time(client, "optional_outputs") - before) / 1e6

    all_of_them = milliseconds("PLUS", "TWICE", "EXPENSIVE")
    cheap = min(milliseconds("PLUS", "TWICE") for _ in range(3))
    assert cheap < all_of_them / 5


def compute_time(client, model):
    (stats,) = client.describe("get_inference_statistics", model)["model_stats"]
    return int(stats["inference_stats"].get("compute_infer", {}).get("ns", 0))


def test_request_parameters_are_accepted(client):
    parameters = {"text": "value", "whole": 7, "truth": True}
    result = client.infer("simple", simple_inputs(client), priority=1, timeout=60_000_000, parameters=parameters)
    assert result.as_numpy("OUTPUT0") is not None


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_of_the_request_and_of_the_answer(client, algorithm):
    options = (
        {"compression_algorithm": algorithm}
        if client.is_grpc
        else {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    )
    first, second = ramp(8)
    for binary in BOTH_WAYS:
        result = client.infer("simple", simple_inputs(client, 8, binary_data=binary), **options)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + second)


def test_external_weights(client):
    sent = np.ones((1, 4096), np.float32)
    for model in ("external_weights", "external_weights_directory"):
        result = client.infer(model, [client.input("INPUT0", sent)])
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0")[0], np.arange(1, 4097, dtype=np.float32))


def test_the_latest_version_answers_unless_one_is_named(client):
    zero = np.zeros(1, np.float32)
    for version, added in [("", 3), ("1", 1), ("3", 3)]:
        result = client.infer("two_versions_specific", [client.input("INPUT0", zero)], model_version=version)
        assert result.as_numpy("OUTPUT0")[0] == added
        assert answer(client, result)["model_version"] == str(added)
    result = client.infer("custom_filename", [client.input("INPUT0", zero)])
    assert result.as_numpy("OUTPUT0")[0] == 1


def test_models_completed_from_their_graphs(client):
    batch = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(client.infer("no_config", [client.input("INPUT0", batch)]).as_numpy("OUTPUT0"), batch)
    fixed = batch[:2]
    result = client.infer("no_config_fixed", [client.input("INPUT0", fixed)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), fixed)
    scalars = np.array([[1.0], [2.0], [3.0]], np.float32)
    result = client.infer("reshape_scalar", [client.input("INPUT0", scalars)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), scalars)


# Real input.


@pytest.mark.parametrize("version", ["1", "2", ""])
def test_real_digits_are_classified_as_they_are_in_process(client, digits, version):
    images, labels = digits
    session = onnxruntime.InferenceSession(
        SAMPLES / "digits" / (version or "2") / "model.onnx", providers=["CPUExecutionProvider"]
    )
    served, expected = [], []
    for start in range(0, len(images), 32):
        batch = images[start : start + 32]
        result = client.infer("digits", [client.input("image", batch)], model_version=version)
        served.append(result.as_numpy("probabilities"))
        expected += session.run(None, {"image": batch})
    served, expected = np.concatenate(served), np.concatenate(expected)
    np.testing.assert_allclose(served, expected, rtol=0, atol=1e-6)
    accuracy = np.mean(served.argmax(axis=1) == labels)
    assert accuracy == np.mean(expected.argmax(axis=1) == labels)
    assert accuracy > (0.8 if version == "1" else 0.95)


@pytest.mark.parametrize("binary", BOTH_WAYS)
def test_classification_names_the_likeliest_digits(client, digits, binary):
    images, _ = digits
    batch = images[:4]
    probabilities = client.infer("digits", [client.input("image", batch)]).as_numpy("probabilities")
    result = client.infer(
        "digits",
        [client.input("image", batch)],
        outputs=[client.output("probabilities", class_count=3, binary_data=binary)],
    )
    words = (SAMPLES / "digits" / "labels.txt").read_text().split()
    classes = texts(result.as_numpy("probabilities"))
    assert classes.shape == (4, 3)
    for item, row in zip(classes, probabilities, strict=True):
        likeliest = np.argsort(-row, kind="stable")[:3]
        assert list(item) == [f"{row[index]:f}:{index}:{words[index]}" for index in likeliest]


def test_classification_without_batches_and_with_too_few_labels(client):
    sent = np.array([-1.0, 2.5, 0.25, 7.0], np.float32)
    result = client.infer("classes", [client.input("INPUT0", sent)], outputs=[client.output("OUTPUT0", class_count=99)])
    assert list(texts(result.as_numpy("OUTPUT0"))) == [
        "7.000000:3",
        "2.500000:1:birch",
        "0.250000:2:cedar",
        "-1.000000:0:ash",
    ]


def test_strings_cannot_be_classified(client):
    sent = np.array([b"a", b"b", b"c", b"d"], object)
    with pytest.raises(InferenceServerException, match="OUTPUT0.*BYTES"):
        client.infer("string_labels", [client.input("INPUT0", sent)], outputs=[client.output("OUTPUT0", class_count=1)])


def texts(array):
    """Strings as text, whether a client gave them as text or as bytes."""
    return np.vectorize(lambda value: value.decode() if isinstance(value, bytes) else str(value), otypes=[object])(
        array
    )


# Requests that cannot be answered.


def test_requests_that_contradict_the_model(client):
    first, second = ramp()

    def refused(inputs, *words, model="simple", version="", outputs=None):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, inputs, model_version=version, outputs=outputs)
        for word in words:
            assert word in caught.value.message()

    good = simple_inputs(client)
    refused(good, "Request for unknown model: 'nope' is not found", model="nope")
    refused(good, "'simple' version 9 is not found", version="9")
    refused(good[:1], "expected 2 inputs but got 1 inputs for model 'simple'", "INPUT1")
    refused([good[0], client.input("INPUT9", second)], "INPUT9", "simple")
    refused([good[0], client.input("INPUT1", second.astype(np.float32))], "INPUT1", "FP32", "INT32")
    refused([good[0], client.input("INPUT1", second[:, :15])], "INPUT1", "15", "16")
    refused([good[0], client.input("INPUT0", second)], "INPUT0")
    refused(simple_inputs(client, 9), "inference request batch-size must be <= 8 for 'simple'")
    refused(good, "OUTPUT9", outputs=[client.output("OUTPUT9")])
    # The next request is untouched.
    np.testing.assert_array_equal(client.infer("simple", good).as_numpy("OUTPUT0"), first + second)


def test_a_model_that_fails_says_so_and_serves_on(client):
    good, bad = np.array([2]), np.array([7])
    with pytest.raises(InferenceServerException, match="fails_to_run"):
        client.infer("fails_to_run", [client.input("INPUT0", bad)])
    assert client.infer("fails_to_run", [client.input("INPUT0", good)]).as_numpy("OUTPUT0")[0] == 30


# The clients' own ways of sending many requests.


def test_requests_in_flight_at_once(client):
    if client.name not in ("http", "grpc"):
        pytest.skip("the asyncio clients have no async_infer")
    sent = [np.full((1, 16), number, np.int32) for number in range(20)]
    pairs = [[client.input("INPUT0", array), client.input("INPUT1", array)] for array in sent]
    if client.name == "http":
        waiting = [client.async_infer("simple", pair) for pair in pairs]
        results = [each.get_result() for each in waiting]
    else:
        results = in_callbacks(client, pairs)
    for array, result in zip(sent, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array * 2)


def in_callbacks(client, pairs):
    results, left = {}, threading.Semaphore(0)

    def keep(number):
        def callback(result, error):
            results[number] = error or result
            left.release()

        return callback

    for number, pair in enumerate(pairs):
        client.async_infer("simple", pair, keep(number))
    for _ in pairs:
        assert left.acquire(timeout=60)
    return [results[number] for number in range(len(pairs))]
