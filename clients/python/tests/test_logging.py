"""The settings of the log, read and changed while the server runs."""

import pytest
from tritonclient.utils import InferenceServerException

SETTINGS = {"log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"}


def settings(client, answer):
    """The settings in an answer, whichever the protocol."""
    if not client.is_grpc:
        return answer
    # gRPC wraps each value in a message of one field, which JSON leaves empty for zero or false.
    return {name: next(iter(value.values()), None) for name, value in answer["settings"].items()}


def test_settings_are_read_and_changed(client):
    before = settings(client, client.describe("get_log_settings"))
    assert SETTINGS <= set(before)
    try:
        changed = settings(client, client.describe("update_log_settings", {"log_verbose_level": 1, "log_info": False}))
        assert int(changed["log_verbose_level"]) == 1
        assert changed["log_info"] is False
        assert int(settings(client, client.describe("get_log_settings"))["log_verbose_level"]) == 1
    finally:
        client.describe("update_log_settings", {"log_verbose_level": 0, "log_info": True})
    assert settings(client, client.describe("get_log_settings")) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"log_file": "elsewhere.log"}, "log file location"),
        ({"log_colour": "red"}, "log_colour"),
        ({"log_info": "perhaps"}, "log_info"),
        ({"log_format": "runes"}, "log_format"),
    ],
)
def test_settings_that_cannot_be_changed(client, change, words):
    before = client.describe("get_log_settings")
    # The gRPC clients refuse a value of the wrong type, or a name they do not know, by themselves.
    refused = (InferenceServerException, TypeError) if client.is_grpc else InferenceServerException
    with pytest.raises(refused) as error:
        client.describe("update_log_settings", change)
    if isinstance(error.value, InferenceServerException):
        assert words in str(error.value)
    assert client.describe("get_log_settings") == before
