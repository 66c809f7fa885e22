"""One reading of the metrics of a server."""

import re

import requests

TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


class Metrics:
    """The samples by name and labels, and the kind of each family."""

    def __init__(self, server):
        text = requests.get(f"http://{server.metrics}/metrics", timeout=60).text
        self.kinds = dict(TYPE.findall(text))
        self._samples = {
            (name, frozenset(LABEL.findall(labels))): float(value) for name, labels, value in SAMPLE.findall(text)
        }

    def value(self, name, **labels):
        """A sample that has exactly these labels; one that is not there counts nothing."""
        return self._samples.get((name, frozenset(labels.items())), 0)

    def total(self, name, **labels):
        """The sum of all samples of that name that have these labels, whatever others they have."""
        return sum(
            value
            for (each, having), value in self._samples.items()
            if each == name and having.issuperset(labels.items())
        )
