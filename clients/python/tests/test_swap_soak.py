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
CYCLES = 40
# The weights of a large model, in kilobytes.
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


def cycles(server, repository):
    """Loads and unloads a large model again and again: what is resident before, while it is loaded, and after."""
    repository.put("adder", 1, large_adder(1))
    assert k_of(server) is None
    fresh, loaded, unloaded = resident(server), [], []
    for _ in range(CYCLES):
        load(server)
        assert k_of(server) == 1
        loaded.append(resident(server))
        unload(server)
        unloaded.append(resident(server))
    print(f"kB: {fresh} fresh; unloaded {unloaded[0]} at first, {max(unloaded)} at most, {unloaded[-1]} at last")
    print(f"kB: loaded {loaded[0]} at first, {max(loaded)} at most")
    assert min(loaded) > fresh + WEIGHTS
    return loaded, unloaded


def test_memory_does_not_grow_with_loads(start, repository):
    loaded, unloaded = cycles(start(repository.path, options=EXPLICIT).wait_until_ready(), repository)
    # The C library keeps some weights in the arenas of its threads. If each load left its own, it would be forty.
    assert max(unloaded) < unloaded[0] + 5 * WEIGHTS
    assert max(loaded) < unloaded[0] + 8 * WEIGHTS


def test_memory_is_given_back_by_each_unload_where_large_blocks_are_mapped(start, repository, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1048576")
    loaded, unloaded = cycles(start(repository.path, options=EXPLICIT).wait_until_ready(), repository)
    assert all(before - after > WEIGHTS / 2 for before, after in zip(loaded, unloaded, strict=True))
    # The first load brings what the runtime keeps; no later one adds to it.
    assert max(unloaded[1:]) < unloaded[0] * 1.1


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
