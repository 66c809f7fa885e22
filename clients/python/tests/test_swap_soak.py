"""Versions come and go under traffic, memory is given back, and a server that was killed starts again."""

import os
import random
import signal
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from controlled import Repository, adder, answer, ask, control, index, k_of, large_adder, late_adder, load
from event_stream import EventStream

SECONDS = float(os.environ.get("VOLLEY_SWAP_SECONDS", "5"))
EXPLICIT = ("--model-control-mode=explicit",)
MODES = {
    "explicit": (*EXPLICIT, "--load-model=adder"),
    "poll": ("--model-control-mode=poll", "--repository-poll-secs=0.2", "--repository-settle-secs=0.02"),
}
CYCLES = 40
# The weights of a large model, in kilobytes.
WEIGHTS = 20_000


class Served:
    """Which K may be answered when."""

    def __init__(self, k):
        self._lock, self._times = threading.Lock(), {k: [[0.0, None]]}

    def begin(self, k):
        """From now on K may be answered."""
        with self._lock:
            self._times.setdefault(k, []).append([time.monotonic(), None])

    def only(self, k):
        """From now on no request that comes may be answered with anything else."""
        with self._lock:
            for other, times in self._times.items():
                if other != k and times[-1][1] is None:
                    times[-1][1] = time.monotonic()

    def allows(self, k, asked, answered):
        with self._lock:
            times = self._times.get(k, ())
            return any(begin <= answered and (end is None or asked <= end) for begin, end in times)


class Askers:
    """Threads that ask without a pause, each through a client of its own; none may be refused or answered wrongly."""

    def __init__(self, server, served):
        self._server, self._served, self._stopped = server, served, threading.Event()
        self.wrong, self.answers = [], {}
        kinds = [self._over_http, self._over_grpc, self._raw, self._raw]
        self._threads = [threading.Thread(target=self._ask, args=(kind,)) for kind in kinds]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, kind):
        with ExitStack() as open_clients:
            ask = kind(open_clients)
            while not self._stopped.is_set():
                asked, x = time.monotonic(), float(random.randrange(1000))
                try:
                    k = ask(x) - x
                except Exception as error:  # every failure counts
                    self.wrong.append(repr(error))
                    continue
                if not self._served.allows(k, asked, time.monotonic()):
                    self.wrong.append(f"answered with {k}")
                self.answers[k] = self.answers.get(k, 0) + 1

    def _over_http(self, clients):
        return self._public(clients, tritonclient.http, self._server.http)

    def _over_grpc(self, clients):
        return self._public(clients, tritonclient.grpc, self._server.grpc)

    def _public(self, clients, module, address):
        client = clients.enter_context(module.InferenceServerClient(address))

        def ask(x):
            tensor = module.InferInput("X", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.full((1, 1), x, np.float32))
            return float(client.infer("adder", [tensor]).as_numpy("Y")[0, 0])

        return ask

    def _raw(self, clients):
        session = clients.enter_context(requests.Session())

        def answered(x):
            response = ask(self._server, x=x, session=session)
            assert response.status_code == 200, response.text
            return response.json()["outputs"][0]["data"][0]

        return answered


class Changes:
    """What is done to the model again and again; each change is over when it returns."""

    def __init__(self, server, repository, served, mode):
        self._server, self._repository, self._served = server, repository, served
        self._explicit = mode == "explicit"
        self._version, self._k, self._kept = 1, 1, None
        self.count = 0

    def _serve(self, version, k):
        """Waits until K of `version` is answered."""
        if self._explicit:
            load(self._server)
        self._server.wait_until(lambda: answer(self._server) == (k, str(version)), f"{k} of {version}")
        self._served.only(k)
        self.count += 1

    def add(self):
        """The next version, by its rename."""
        before = self._version, self._k
        self._version, self._k = self._version + 1, self._k + 1
        self._served.begin(self._k)
        self._repository.put("adder", self._version, adder(self._k))
        self._serve(self._version, self._k)
        return before

    def roll_back(self, before):
        version, k = before
        self._served.begin(k)
        rolled = control(self._server, "adder", "rollback")
        assert rolled.status_code == 200, rolled.text
        assert answer(self._server) == (k, str(version))
        self._served.only(k)
        self.count += 1

    def _put_broken(self, version):
        self._repository.put("adder", version, b"no model")
        if self._explicit:
            assert control(self._server, "adder", "load").status_code == 400
        self._server.wait_until(
            lambda: index(self._server).get(str(version), ("", ""))[0] == "UNAVAILABLE", "being refused"
        )

    def break_next(self):
        """A version that cannot be loaded, which is then removed."""
        broken = self._version + 1
        self._put_broken(broken)
        self._repository.take("adder", broken)
        if self._explicit:
            load(self._server)
        self._server.wait_until(lambda: str(broken) not in index(self._server), "being forgotten")
        self.count += 1

    def remove(self, before):
        """The latest version; the one before takes over."""
        self._served.begin(before[1])
        self._repository.remove("adder", self._version)
        self._serve(*before)
        self._version = before[0]

    def round(self):
        self.add()
        before = self.add()
        self.roll_back(before)
        self.break_next_of_rolled_back()
        before = self.add()
        self.break_next()
        self.remove(before)

    def break_next_of_rolled_back(self):
        """What was rolled back stays so when the next cannot be loaded."""
        broken = self._version + 1
        rolled_back_to = answer(self._server)
        self._put_broken(broken)
        assert answer(self._server) == rolled_back_to
        self._repository.take("adder", broken)
        self.count += 1


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
