"""Versions come and go under traffic, memory is given back, and a server that was killed starts again."""

import os
import signal
import threading
import time

import pytest
import requests
from controlled import Repository, adder, answer, control, index, k_of, large_adder, late_adder, load
from event_stream import EventStream
from swapping import EXPLICIT, MODES, Askers, Changes, Served

SECONDS = float(os.environ.get("VOLLEY_SWAP_SECONDS", "5"))
# Loads of the large model.
CYCLES = 200
# Its weights, in kilobytes.
WEIGHTS = 20_000


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_no_request_fails_while_versions_come_and_go(start, repository, mode):
    repository.put_model("adder", {1: adder(1)})
    server = start(repository.path, options=(*MODES[mode], "--keep-previous=1")).wait_until_ready()
    served = Served(1)
    changes = Changes(server, repository, served, mode)
    until = time.monotonic() + SECONDS
    with Askers(server, served) as askers:
        while time.monotonic() < until and not askers.wrong:
            changes.round()
    answers = sum(askers.answers.values())
    models = len(askers.answers)
    print(f"{mode}: {changes.count} changes, {answers} answers of {models} models, {len(askers.wrong)} wrong")
    assert not askers.wrong, askers.wrong[:5]
    assert changes.count >= 7 and answers > 100 and models >= 3


def resident(server):
    """Kilobytes."""
    with open(f"/proc/{server.process.pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmRSS:")]
    return int(line.split()[1])


def unload(server):
    """Unloads the model, and waits until its memory was given back."""
    assert control(server, "adder", "unload").status_code == 200
    server.wait_until(lambda: index(server)["1"] == ("UNAVAILABLE", "unloaded"), "the end")


def test_the_memory_of_a_model_comes_back_after_each_of_many_loads(start, repository):
    # The first session of a process brings what the runtime keeps for all, 20 MB: operators, and the library's pages.
    repository.put_model("first", {1: adder(9, name="first")})
    repository.put("adder", 1, large_adder(1))
    server = start(repository.path, options=(*EXPLICIT, "--load-model=first")).wait_until_ready()
    assert answer(server, "first") == (9.0, "1") and k_of(server) is None
    before, loaded, unloaded = resident(server), [], []
    for _ in range(CYCLES):
        load(server)
        assert k_of(server) == 1
        loaded.append(resident(server))
        unload(server)
        unloaded.append(resident(server))
    print(f"kB: {before} before; unloaded {unloaded[0]} at first, {max(unloaded)} at most, {unloaded[-1]} at last")
    print(f"kB: loaded {min(loaded)} at least, {max(loaded)} at most")
    assert min(loaded) > before + 0.9 * WEIGHTS
    assert max(unloaded) < 1.1 * before


@pytest.mark.parametrize("mode", MODES)
def test_a_server_that_is_killed_while_it_loads_starts_again_and_serves_the_same(start, repository, mode):
    repository.put_model("adder", {1: adder(1)})
    for k in (2, 3):
        server = start(repository.path, options=MODES[mode]).wait_until_ready()
        assert answer(server) == (k - 1, str(k - 1))
        with EventStream(server) as events:
            repository.put("adder", k, late_adder(k))
            if mode == "explicit":
                loading = threading.Thread(target=lambda: load_and_lose(server), daemon=True)
                loading.start()
            events.wait_for("adder", str(k), "LOADING")
            server.process.send_signal(signal.SIGKILL)
            assert server.exit_code() == -signal.SIGKILL
    server = start(repository.path, options=MODES[mode]).wait_until_ready()
    assert answer(server) == (3, "3")
    assert index(server) == {"3": ("READY", "")}


def load_and_lose(server):
    with pytest.raises(requests.ConnectionError):
        control(server, "adder", "load")
