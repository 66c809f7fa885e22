"""Nothing is wrong, lost or leaked under a mixed load for as long as one likes: `VOLLEY_SOAK_SECONDS`.

Several processes of clients (soak/clients.py) of every manner ask models of every kind; each answer is one that its
request may get, and afterwards the server is as it was before. CONTRIBUTING.md says how to run an hour of it.

The memory may grow by `GROWTH` from the median of the second third of the warm time to that of the last, a quarter of
the run apart. At 4,000 requests a second this finds a leak of 840 bytes a request in 20 seconds, of 15 bytes in 10
minutes, and of 2.3 bytes in an hour; what is printed has the figure of the run.
"""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from metrics import Metrics
from server_process import DEADLINE
from soak import balance, models, over_http, watch
from soak.clients import PROCESSES
from soak.question import Answer, Question
from soak.refusals import Refusal
from soak.tally import ANSWERED, ROWS, UNKNOWN, Fault, Tally

SECONDS = float(os.environ.get("VOLLEY_SOAK_SECONDS", 20))
SEED = int(os.environ.get("VOLLEY_SOAK_SEED") or random.SystemRandom().randrange(1 << 32))
# How much the medians of resident memory may differ, in bytes: what they vary by from run to run, and, the shorter the
# run, what the allocators have not come to the size of yet.
GROWTH = (8 << 20) * (1 + 20 / SECONDS)
# And those of threads and of open files: as many connections come and go.
FLUCTUATION = 40
MOST = {"memory": GROWTH, "threads": FLUCTUATION, "files": FLUCTUATION}


def test_nothing_is_wrong_lost_or_leaked_under_a_mixed_load(start, test_models, tmp_path, monkeypatch):
    print(f"VOLLEY_SOAK_SEED={SEED} VOLLEY_SOAK_SECONDS={SECONDS:g}")
    # A huge page stays resident for the sake of any part of it: the memory would double, and vary by tens of megabytes.
    monkeypatch.setenv("MIMALLOC_ALLOW_THP", "0")
    models.write(tmp_path / "models", test_models / "sound")
    server = start(tmp_path / "models", options=models.OPTIONS).wait_until_ready()
    Metrics(server)  # are gathered on a thread that stays for a while
    files, threads = watch.open_files(server), watch.threads(server)
    tally, samples = soak(server, tmp_path)
    print(summary(tally, samples))

    assert left_over(server, files, threads) == {}
    metrics = Metrics(server)
    assert untried(tally, metrics) == []
    assert balance.differences(metrics, tally.outcomes, models.COUNTED_EXACTLY) == []
    assert metrics.total("volley_cache_bytes") <= models.CACHE
    assert {of: grew for of, most in MOST.items() if (grew := watch.growth(samples, of)) > most} == {}
    assert asyncio.run(crowded_out(server)) == []

    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 30, "the server did not stop within its --exit-timeout-secs"
    failed = sum(outcomes["failed"] for outcomes in tally.outcomes.values())
    errors = [line for line in server.log if re.match(r"E\d{4} ", line)]
    assert [line for line in errors if "] inference failed model=" not in line] == []
    assert metrics.total("volley_log_lines_dropped_total") == 0
    assert len(errors) == failed, "each request that its model cannot run is one line of level E"


def untried(tally, metrics):
    """What a load should have that checks anything and this one lacks: an answer of each model, each act, the usual
    refusals, answers from the cache and requests that were cancelled in time."""
    crowds = [crowd for process in PROCESSES.values() for crowd in process]
    acts = {f"{crowd.__name__}.{act.__name__}" for crowd in crowds for act in crowd.ACTS.keys() - crowd.LONG}
    answered = {served.split("/")[0] for served, seen in tally.outcomes.items() if seen[ANSWERED]}
    refused = {reason for seen in tally.outcomes.values() for reason in seen}
    expected = {"full", "expired", "contradicts", "failed", "unknown", UNKNOWN}
    hits = {model: metrics.total("nv_cache_num_hits_per_model", model=model) for model in models.REMEMBER}
    counted = hits | {"CANCELED": metrics.total("nv_inference_request_failure", reason="CANCELED")}
    never = {what for what, count in counted.items() if count == 0}
    return sorted((acts - set(tally.acts)) | (models.MODELS.keys() - answered) | (expected - refused) | never)


async def crowded_out(server):
    """Asks the models of which few may wait for as many answers at once as may; what is refused, though nobody else
    asks: a request that has gone has kept its place."""
    sent = {"INPUT0": np.float32([[-1]])}
    questions = [
        Question(model, sent, {}, parameters={"priority": 1} if model == "levels" else {})
        for model, places in models.PLACES.items()
        for _ in range(places)
    ]
    connections = [await over_http.Connection.open(server.http) for _ in questions]
    asked = [each.ask(over_http.request(question)) for each, question in zip(connections, questions, strict=True)]
    answers = [over_http.read(*each) for each in await asyncio.gather(*asked)]
    for each in connections:
        each.close()
    return [each for each in answers if isinstance(each, Refusal) and each.reason({"full"})]


def left_over(server, files, threads):
    """What the server still has of requests and connections once it has had time for them; `files` and `threads` is
    what it had before."""
    gauges = (
        "nv_inference_pending_request_count",
        "volley_inference_requests_in_flight",
        "volley_request_memory_bytes",
    )

    def now():
        # The metrics are only asked for once these are well: that takes a connection, and keeps threads from ending.
        found = {"files": watch.open_files(server) - files, "threads": watch.threads(server) - threads}
        if max(found.values()) <= 0:
            metrics = Metrics(server)
            found |= {gauge: metrics.total(gauge) for gauge in gauges}
        return {what: count for what, count in found.items() if count > 0}

    deadline = time.monotonic() + DEADLINE
    while (left := now()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def soak(server, directory):
    """Lets the clients ask for `SECONDS`; their tally, and samples of the server meanwhile."""
    command = [sys.executable, Path(__file__).parent / "soak" / "clients.py", f"--http={server.http}"]
    command += [f"--grpc={server.grpc}", f"--seconds={SECONDS}"]
    clients, said = {}, {name: directory / f"{name}.err" for name in PROCESSES}
    try:
        for number, name in enumerate(PROCESSES):
            options = [f"--process={name}", f"--seed={SEED + 100 * number}"]
            with said[name].open("w") as errors:
                clients[name] = subprocess.Popen(
                    [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
                )
        for name, client in clients.items():
            assert client.stdout.readline() == "ready\n", f"{name}: {said[name].read_text()}"
        for client in clients.values():
            client.stdin.write("begin\n")
            client.stdin.flush()
        samples, tally = sampled(server, clients), Tally()
        # Those that have failed first: the others may have an hour to go.
        for name, client in sorted(clients.items(), key=lambda each: not each[1].poll()):
            told, _ = client.communicate(timeout=2 * DEADLINE)
            assert client.returncode == 0, f"{name}: {said[name].read_text()}"
            tally.add(json.loads(told))
        return tally, samples
    finally:
        for client in clients.values():
            client.kill()


def sampled(server, clients):
    """Samples of the server until `SECONDS` are over or a client has failed."""
    begun, samples = time.monotonic(), []
    first = next(iter(clients.values()))
    while (at := (time.monotonic() - begun) / SECONDS) <= 1 and not any(each.poll() for each in clients.values()):
        assert server.process.poll() is None, server.text()
        samples.append(watch.sample(server, at))
        try:
            first.wait(min(1, SECONDS / 80))
        except subprocess.TimeoutExpired:
            pass
    return samples


def summary(tally, samples):
    """What was done, and what came of it, in some lines."""
    outcomes = Counter()
    for served in tally.outcomes.values():
        outcomes.update(served)
    requests = sum(outcomes.values()) - outcomes[ROWS]
    found = GROWTH / (requests * watch.THIRD)
    mebibytes = [f"{each.memory / (1 << 20):.1f}" for each in samples[:: max(1, len(samples) // 24)]]
    lines = [
        f"{requests} requests in {SECONDS:g} s: {dict(outcomes.most_common())}",
        *(f"  {served}: {dict(seen)}" for served, seen in sorted(tally.outcomes.items())),
        f"acts: {dict(sorted(tally.acts.items()))}",
        f"resident memory over time, MiB: {' '.join(mebibytes)}",
        *(f"{of} grew by {watch.growth(samples, of):.0f} of at most {most:.0f}" for of, most in MOST.items()),
        f"a leak of {found:.1f} bytes in each request would have been found",
    ]
    return "\n".join(lines)


# What the soak itself would say of a server that breaks its promises.


def asked(**more):
    sent = np.arange(6, dtype=np.float32).reshape(2, 3)
    return Question("identity", {"INPUT0": sent}, {"OUTPUT0": sent}, rows=2, id="mine", **more)


def answered(outputs, version="1", identity="mine"):
    return Answer({"OUTPUT0": outputs}, version, identity)


RIGHT = asked().expected["OUTPUT0"]


@pytest.mark.parametrize(
    ("came", "fault"),
    [
        (answered(RIGHT), None),
        (answered(RIGHT[::-1]), "6 of 6 differ, the first at [0, 0]: 3.0 instead of 0.0"),
        (answered(RIGHT[:1]), "float32[1, 3] came instead of float32[2, 3]"),
        (answered(RIGHT.astype(np.float64)), "float64[2, 3] came"),
        (answered(np.where(RIGHT == 4, np.nan, RIGHT)), "1 of 6 differ, the first at [1, 1]: nan instead of 4.0"),
        (answered(RIGHT, version="2"), "version '2' answered instead of '1'"),
        (answered(RIGHT, identity="another's"), "the answer to \"another's\" came"),
        (Answer({}, "1", "mine"), "outputs [] came instead of ['OUTPUT0']"),
        (Refusal(503, "Exceeds maximum queue size: 4 requests wait"), None),
        (Refusal(500, "Exceeds maximum queue size: 4 requests wait"), "['full'] may come"),
        (Refusal(503, "Request timeout expired"), "['full'] may come"),
        (Refusal(None, ""), "['full'] may come"),
    ],
    ids=range(12),
)
def test_an_answer_that_may_not_come_is_a_fault(came, fault):
    tally = Tally()
    if fault is None:
        tally.settle(asked(refusals=frozenset(["full"])), came)
        return
    with pytest.raises(Fault, match=re.escape(fault)):
        tally.settle(asked(refusals=frozenset(["full"])), came)


def test_near_is_right_only_where_it_may_be():
    near = RIGHT + np.float32(1e-3)
    assert asked().fault(answered(near)) and asked(tolerance=1e-4).fault(answered(near))
    assert asked(tolerance=1e-2).fault(answered(near)) is None


def test_classes_are_the_likeliest_in_their_order():
    values = np.float32([[0.1, 0.7, 0.2]])
    question = Question("digits", {}, {"OUTPUT0": values}, id="mine", classes=2, labels=tuple("abc"), tolerance=1e-6)

    def fault(*classes):
        return question.fault(answered(np.array([[each.encode() for each in classes]], object)))

    assert fault("0.700000:1:b", "0.200000:2:c") is None
    for wrong in (
        ("0.200000:2:c", "0.700000:1:b"),
        ("0.700000:1:b", "0.100000:0:a"),
        ("0.700000:1:b", "0.700000:1:b"),
        ("0.700000:1:a", "0.200000:2:c"),
        ("0.700000:1:b", "0.300000:2:c"),
        ("0.700000:1:b",),
    ):
        assert fault(*wrong), wrong


class Counted:
    """Metrics of one model."""

    def __init__(self, success, **failures):
        self.values = {"nv_inference_request_success": success, "nv_inference_count": 2 * success} | failures

    def value(self, name, model, version, reason=None):
        assert (model, version) == ("identity", "1")
        return self.values.get(reason or name, 0)


@pytest.mark.parametrize(
    ("unknown", "counted", "what"),
    [
        (0, Counted(3, REJECTED=1), None),
        (0, Counted(4, REJECTED=1), "4 counted as success, but clients saw 3 to 3"),
        (0, Counted(2, REJECTED=1), "2 counted as success, but clients saw 3 to 3"),
        (0, Counted(3), "0 counted as REJECTED, but clients saw 1 to 1"),
        (0, Counted(3, REJECTED=1, CANCELED=1), "1 counted as CANCELED, but clients saw 0 to 0"),
        (2, Counted(4, REJECTED=1, CANCELED=1), None),
        (2, Counted(4, REJECTED=1, CANCELED=2), "7 counted as requests, but clients saw 4 to 6"),
        (0, Counted(3, REJECTED=1, nv_cache_num_misses_per_model=4), None),
        (1, Counted(3, REJECTED=1, nv_cache_num_misses_per_model=5), "5 misses, but 4 requests counted"),
    ],
    ids=range(9),
)
def test_counts_that_do_not_add_up_are_told(unknown, counted, what):
    tally = Tally()
    for _ in range(3):
        tally.settle(asked(), answered(RIGHT))
    tally.settle(asked(refusals=frozenset(["full"])), Refusal(503, "Exceeds maximum queue size"))
    for _ in range(unknown):
        tally.lose_sight_of(asked())
    found = balance.differences(counted, tally.outcomes, exactly=set())
    assert any(what in each for each in found) if what else found == []


def test_who_waits_for_every_answer_has_no_unknown_outcome():
    tally = Tally()
    tally.lose_sight_of(asked())
    (found,) = balance.differences(Counted(0), tally.outcomes, exactly={"identity"})
    assert "1 requests have no known outcome" in found


@pytest.mark.parametrize(("leak", "found"), [(0, False), (GROWTH / 2, False), (GROWTH * 1.2, True)])
def test_a_leak_is_told_from_noise_and_from_the_warm_up(leak, found):
    """`leak` is what is lost in the time that the two thirds are apart."""
    noise, samples = random.Random(1), []
    for number in range(80):
        at = number / 80
        warming = 100e6 * min(at / watch.WARM_UP, 1)
        memory = 150e6 + warming + leak * at / watch.THIRD + noise.gauss(0, 1e6)
        samples.append(watch.Sample(at, memory, 30, 80))
    assert (watch.growth(samples, "memory") > GROWTH) == found
