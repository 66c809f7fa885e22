"""What the server's process takes over time, and whether it grows once it is warm."""

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from metrics import Metrics

# The first part of a run, in which buffers, caches and sessions come to their size.
WARM_UP = 0.25
# A third of what is left; the second and the last are compared, which are as far apart.
THIRD = (1 - WARM_UP) / 3


@dataclass(frozen=True)
class Sample:
    """The process at one moment of a run."""

    at: float  # share of the run, 0 to 1
    memory: float  # bytes
    threads: int
    files: int


def sample(server, at):
    """Looks at the process now."""
    memory = Metrics(server).value("volley_process_resident_memory_bytes")
    return Sample(at, memory, threads(server), open_files(server))


def threads(server):
    """How many threads the process has; 0 where the system does not say."""
    return _entries(server, "task")


def open_files(server):
    """How many files and sockets it has open; 0 where the system does not say."""
    return _entries(server, "fd")


def _entries(server, what):
    directory = Path("/proc") / str(server.process.pid) / what
    return len(os.listdir(directory)) if directory.exists() else 0


def parts(samples):
    """The samples of the second and of the last third of the time after the warm-up. The first third is left out:
    the system's allocator and the largest requests take their time to show what they need."""
    second = [each for each in samples if 1 - 2 * THIRD <= each.at < 1 - THIRD]
    return second, [each for each in samples if 1 - THIRD <= each.at <= 1]


def growth(samples, of):
    """How much the median of `of`, a name of `Sample`, rose from the one third to the other."""
    second, last = ([getattr(each, of) for each in part] for part in parts(samples))
    return median(last) - median(second)
