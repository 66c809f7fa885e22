"""Versions that come and go while clients ask, each of which knows which of them may answer it."""

import random
import threading
import time
from contextlib import ExitStack

import numpy as np
import requests
import tritonclient.grpc
import tritonclient.http
from controlled import adder, answer, ask, control, index, load

EXPLICIT = ("--model-control-mode=explicit",)
MODES = {
    "explicit": (*EXPLICIT, "--load-model=adder"),
    "poll": ("--model-control-mode=poll", "--repository-poll-secs=0.2", "--repository-settle-secs=0.02"),
}


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
    """Threads that ask again and again, each through a client of its own; none may be refused or answered wrongly."""

    def __init__(self, server, served, pause=0.0):
        self._server, self._served, self._stopped = server, served, threading.Event()
        self._pause = pause
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
                if self._pause:
                    self._stopped.wait(self._pause)

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
        for step in self.steps():
            step()

    def steps(self):
        """The changes of a round, each to be made when it comes."""
        before = []
        yield self.add
        yield lambda: before.append(self.add())
        yield lambda: self.roll_back(before[-1])
        yield self.break_next_of_rolled_back
        yield lambda: before.append(self.add())
        yield self.break_next
        yield lambda: self.remove(before[-1])

    def break_next_of_rolled_back(self):
        """What was rolled back stays so when the next cannot be loaded."""
        broken = self._version + 1
        rolled_back_to = answer(self._server)
        self._put_broken(broken)
        assert answer(self._server) == rolled_back_to
        self._repository.take("adder", broken)
        self.count += 1
