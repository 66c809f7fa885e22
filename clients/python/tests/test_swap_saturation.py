"""Thirty-two clients at saturation while versions come and go: none fails, none is answered wrongly, and none waits much
longer than while nothing changes."""

import json
import os
import statistics
import subprocess
import threading
import time
from pathlib import Path

import pytest
from controlled import Repository, adder
from server_process import BINARY
from swapping import MODES, Askers, Changes, Served

SECONDS = float(os.environ.get("VOLLEY_SATURATION_SECONDS", "5"))
LOAD = Path(os.environ.get("VOLLEY_LOAD_BIN", BINARY.with_name("volley-load")))
# Beside the clients that check every answer.
CLIENTS = 28
# Of each window of load, and between two changes.
WINDOW, PAUSE = 5.0, 1.0
# What p99 may be while versions change, of what it is while none does; seen over so many seconds and more.
MOST, LONG_ENOUGH = 1.3, 60


def window(server, seconds, path):
    """What so many seconds of load came to."""
    command = [LOAD, "--quiet", f"--url=http://{server.http}", "--model=adder", f"--concurrency={CLIENTS}"]
    command += [f"--duration={seconds}s", "--warmup=0.2s", f"--json={path}", "--shape=X=1,1", "--range=X=0:1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(path.read_text())["runs"]
    assert run["unanswered"] == 0 and not run["errors"], run["errors"]
    return run


class Changing:
    """Changes versions every second, in a thread of its own, while it is let."""

    def __init__(self, changes):
        self._changes, self._may, self._stopped = changes, threading.Event(), threading.Event()
        self.failed = None
        self._thread = threading.Thread(target=self._change)

    def _change(self):
        try:
            while not self._stopped.is_set():
                self._may.wait()
                for step in self._changes.steps():
                    self._may.wait()
                    if self._stopped.is_set():
                        return
                    step()
                    self._stopped.wait(PAUSE)
        except BaseException as error:  # of the test that made it, which looks
            self.failed = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        self._may.set()
        self._thread.join(60)

    def let(self):
        self._may.set()

    def hold(self):
        self._may.clear()


@pytest.mark.skipif(not LOAD.exists(), reason="volley-load is not built; VOLLEY_LOAD_BIN names it")
def test_thirty_two_clients_notice_no_swap(start, tmp_path):
    repository = Repository(tmp_path)
    repository.put_model("adder", {1: adder(1)})
    server = start(repository.path, options=(*MODES["explicit"], "--keep-previous=1")).wait_until_ready()
    served = Served(1)
    changes = Changes(server, repository, served, "explicit")
    seconds = min(WINDOW, SECONDS / 4)
    calm, changed = [], []
    until = time.monotonic() + SECONDS
    with Askers(server, served, pause=0.005) as askers, Changing(changes) as changing:
        while time.monotonic() < until or not changed:
            calm.append(window(server, seconds, tmp_path / "calm.json"))
            changing.let()
            changed.append(window(server, seconds, tmp_path / "changed.json"))
            changing.hold()
            assert not askers.wrong, askers.wrong[:5]
            assert changing.failed is None, changing.failed
    assert not askers.wrong, askers.wrong[:5]
    p99 = [statistics.median(run["latency"]["p99"] for run in runs) / 1000 for runs in (calm, changed)]
    rates = [statistics.median(run["requests_per_second"] for run in runs) for runs in (calm, changed)]
    requests = sum(run["requests"] for run in calm + changed)
    print(
        f"{changes.count} changes, {requests} requests, {sum(askers.answers.values())} checked answers; p99 in ms "
        f"{p99[0]:.2f} calm, {p99[1]:.2f} changing; a second {rates[0]:.0f} and {rates[1]:.0f}"
    )
    assert changes.count > 0
    if SECONDS >= LONG_ENOUGH:
        assert p99[1] <= MOST * p99[0], p99
