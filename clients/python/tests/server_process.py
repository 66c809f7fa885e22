"""A running server: started on free ports, watched through what it logs, stopped as an orchestrator would."""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import requests

CHECKOUT = Path(__file__).parents[3]
BINARY = Path(os.environ.get("VOLLEY_BIN", CHECKOUT / "target" / "release" / "volley"))
SAMPLES = CHECKOUT / "model_repository"
LISTENERS = ("http", "grpc", "metrics")
# Far more than is ever needed, so that a machine under load fails no test.
DEADLINE = 60


def announced(line):
    """The listeners that a line of the log announces, as a dictionary from name to address."""
    return dict(re.findall(r"listening protocol=(http|grpc|metrics) address=([0-9.]+:[0-9]+)", line))


class Server:
    """The real binary over some model repositories, with the options given, with more in its environment, and run by
    the program `under`, if one is given."""

    def __init__(self, *repositories, options=(), environment=None, under=()):
        command = [*under, BINARY, "--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]
        command += [f"--{name}-port=0" for name in LISTENERS]
        command += [f"--model-repository={path}" for path in repositories]
        self.process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
        )
        self.log, self.addresses = [], {}
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(DEADLINE) or not self.addresses:
            self.process.kill()
            raise RuntimeError(f"the server announced no addresses:\n{self.text()}")
        self.http, self.grpc, self.metrics = (self.addresses[name] for name in LISTENERS)

    def _read(self):
        for line in self.process.stdout:
            self.log.append(line)
            self.addresses.update(announced(line))
            if len(self.addresses) == len(LISTENERS):
                self._listening.set()
        self._listening.set()

    def text(self):
        """All that was logged up to now."""
        return "".join(self.log)

    def url(self, path):
        return f"http://{self.http}{path}"

    def get(self, path, **options):
        return requests.get(self.url(path), timeout=DEADLINE, **options)

    def post(self, path, **options):
        return requests.post(self.url(path), timeout=DEADLINE, **options)

    def infer(self, model, body, **options):
        """POSTs a request to `model`, or to one version of it as in `digits/versions/1`."""
        return self.post(f"/v2/models/{model}/infer", json=body, **options)

    def wait_until(self, condition, what):
        """Asks until `condition` holds."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self.process.poll() is None, f"the server exited before {what}:\n{self.text()}"
            assert time.monotonic() < deadline, f"{what} took too long:\n{self.text()}"
            time.sleep(0.005)

    def wait_until_ready(self):
        self.wait_until(lambda: self.get("/v2/health/ready").status_code == 200, "being ready")
        return self

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self):
        """Waits for the end of the process and of its log."""
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def stop(self):
        """Stops the server; it must exit in good order and never have panicked."""
        self.terminate()
        try:
            assert self.exit_code() == 0, self.text()
        finally:
            self.process.kill()
        assert "panicked" not in self.text(), self.text()
