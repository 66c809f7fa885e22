"""The commands of the model repository, as people and scripts run them: load, unload, rollback, events, push."""

import ctypes
import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import time

import boto3
import numpy as np
import onnx
import pytest
from controlled import Repository, adder, answer, index, k_of, large_adder
from event_stream import EventStream
from onnx import TensorProto
from relay import Relay
from server_process import BINARY, DEADLINE, SAMPLES

POLL = ("--model-control-mode=poll", "--repository-poll-secs=0.2", "--repository-settle-secs=0.05")
EXPLICIT = ("--model-control-mode=explicit", "--load-model=*")
# How often a push is killed.
KILLS = int(os.environ.get("VOLLEY_PUSH_KILLS", "25"))


def volley(*arguments, **options):
    """Runs a command to its end."""
    command = [BINARY, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, **options)


def well(*arguments, **options):
    """The output of a command that must succeed."""
    done = volley(*arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def badly(*arguments, code=1, **options):
    """What a command that must fail says about it, in one line."""
    done = volley(*arguments, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == "", done.stdout
    told = [line for line in done.stderr.splitlines() if not line.startswith("volley: note: ")]
    if code == 1:
        assert len(told) == 1 and told[0].startswith("volley: "), done.stderr
    return done.stderr


def at(server):
    return f"--url=http://{server.http}"


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path)
    repository.put_model("adder", {1: adder(1)})
    return repository


@pytest.fixture
def new(tmp_path):
    """Writes a model's file beside the repository."""

    def new(content, name="new.onnx"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return new


def push(repository, file, *options, model="adder"):
    return "push", model, file, f"--repository={repository.path}", *options


def versions(repository, model="adder"):
    """What is in the model's directory, but for files beside the versions."""
    return sorted(path.name for path in (repository.path / model).iterdir() if path.name != "config.pbtxt")


def verify(directory):
    """The version is what its checksums say, and nothing else."""
    files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    lines = (directory / "SHA256SUMS").read_text().splitlines()
    sums = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    assert files == sums.keys() | {"SHA256SUMS"}
    for path, digest in sums.items():
        assert hashlib.sha256((directory / path).read_bytes()).hexdigest() == digest, path


# Model control.


def test_load_tells_what_serves_or_why_not(start, repository, tmp_path, new):
    server = start(repository.path, options=EXPLICIT).wait_until_ready()
    assert well("load", "adder", at(server)) == "ready     adder 1\n"
    repository.put("adder", 2, adder(2))
    assert answer(server) == (1, "1")
    assert well("load", "adder", at(server)) == "ready     adder 2\n"
    assert answer(server) == (2, "2")
    repository.put("adder", 3, b"no model")
    said = badly("load", "adder", at(server))
    assert "load failed for model 'adder': version 3" in said and "(version 2 serves as before)" in said
    assert answer(server) == (2, "2")
    said = badly("load", "missing", at(server))
    assert "'missing'" in said and "no repository has a directory of that name" in said


def test_load_takes_a_configuration_and_files(start, repository, tmp_path, new):
    server = start(repository.path, options=EXPLICIT).wait_until_ready()
    text, as_json = new(b"max_batch_size: 2", "small.pbtxt"), new(b'{"max_batch_size": 3}', "small.json")
    well("load", "adder", f"--config={text}", at(server))
    assert server.get("/v2/models/adder/config").json()["max_batch_size"] == 2
    well("load", "adder", f"--config={as_json}", at(server))
    assert server.get("/v2/models/adder/config").json()["max_batch_size"] == 3
    file = new(adder(7))
    told = well("load", "trial", f"--config={as_json}", f"--file=5/model.onnx={file}", at(server))
    assert told == "ready     trial 5\n"
    assert answer(server, "trial") == (7, "5")
    assert "--config" in badly("load", "trial", f"--file=5/model.onnx={file}", at(server), code=2)
    wrong = new(b"max_batch_sise: 2", "wrong.pbtxt")
    assert "max_batch_sise" in badly("load", "adder", f"--config={wrong}", at(server))
    assert "no/such/file" in badly("load", "adder", "--config=no/such/file", at(server))
    outside = f"--file=../model.onnx={file}"
    assert "leaves the model's directory" in badly("load", "trial", f"--config={as_json}", outside, at(server))


def test_unload_tells_what_is_gone(start, repository):
    repository.put_model("many", {1: adder(1), 2: adder(2)}, "version_policy: { all: {} }")
    server = start(repository.path, options=EXPLICIT).wait_until_ready()
    assert well("unload", "many", "--unload-dependents", at(server)) == "unloaded  many 1\nunloaded  many 2\n"
    assert k_of(server, "many") is None and answer(server) == (1, "1")
    assert well("unload", "many", at(server)) == "unloaded  many: it was not loaded\n"
    # Over HTTP it is done without a word; who mistyped the name should know.
    assert "no model \"mnay\"" in badly("unload", "mnay", at(server))
    assert well("load", "many", at(server)) == "ready     many 1\nready     many 2\n"


def test_rollback_tells_what_serves_again(start, repository):
    server = start(repository.path, options=(*EXPLICIT, "--keep-previous=1")).wait_until_ready()
    assert "--keep-previous" in badly("rollback", "adder", at(server))
    repository.put("adder", 2, adder(2))
    well("load", "adder", at(server))
    assert well("rollback", "adder", at(server)) == "ready     adder 1\n"
    assert answer(server) == (1, "1")
    assert "'missing'" in badly("rollback", "missing", at(server))


@pytest.mark.parametrize(
    "mode, words",
    [("poll", ("--model-control-mode=poll", "`volley push`")), ("none", ("--model-control-mode=none", "start it again"))],
)
def test_a_server_that_is_not_asked_for_models_says_its_mode(start, repository, mode, words):
    server = start(repository.path, options=(f"--model-control-mode={mode}",)).wait_until_ready()
    for verb in "load", "unload":
        said = badly(verb, "adder", at(server))
        assert all(word in said for word in words) and "--model-control-mode=explicit" in said, said
    assert answer(server) == (1, "1")


def test_a_server_that_is_not_there_is_told(repository, new):
    nowhere = "--url=http://127.0.0.1:9"
    commands = [("load", "adder"), ("unload", "adder"), ("rollback", "adder"), ("events",)]
    for command in [*commands, push(repository, new(adder(2)), "--load")]:
        assert "cannot connect to http://127.0.0.1:9" in badly(*command, nowhere)
    assert versions(repository) == ["1"]


# Events.


class Lines:
    """The lines of a pipe, each of which must come in time."""

    def __init__(self, pipe):
        self._pipe, self._held = pipe, b""

    def next(self):
        while b"\n" not in self._held and self._more():
            pass
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    def rest(self):
        while self._more():
            pass
        return self._held.decode()

    def _more(self):
        assert select.select([self._pipe], [], [], DEADLINE)[0], f"no line came after {self._held!r}"
        piece = os.read(self._pipe.fileno(), 1 << 16)
        self._held += piece
        return piece


class Following:
    """`volley events`, as it runs."""

    def __init__(self, *options):
        command = [BINARY, "events", *map(str, options)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, bufsize=0, **pipes)
        self._out, self._err = Lines(self.process.stdout), Lines(self.process.stderr)

    def line(self):
        return self._out.next()

    def told(self):
        """The next line on stderr."""
        return self._err.next()

    def ended(self):
        """How it ended, what was left on stdout, and all that was on stderr."""
        return self.process.wait(DEADLINE), self._out.rest(), self._err.rest()


@pytest.fixture
def following(request):
    def following(*options):
        follower = Following(*options)
        request.addfinalizer(follower.process.wait)
        request.addfinalizer(follower.process.kill)
        return follower

    return following


def test_events_are_lines_as_they_come(start, repository, following):
    repository.put_model("other", {1: adder(1)})
    server = start(repository.path, options=EXPLICIT).wait_until_ready()
    everything = following("--after=0", at(server))
    seen = sorted(tuple(everything.line().split()[1:]) for _ in range(4))
    assert seen == [(name, "1", state) for name in ("adder", "other") for state in ("LOADING", "READY")]
    alone = following("--model=adder", "--json", "--until=unavailable", "--after=0", at(server))
    assert [json.loads(alone.line())["state"] for _ in range(2)] == ["LOADING", "READY"]
    well("unload", "other", at(server))
    well("unload", "adder", at(server))
    told = [everything.line().split() for _ in range(4)]
    # In which order the two are gone is up to the server.
    assert sorted(columns[1:] for columns in told) == [
        [name, "1", state, "unloaded"] for name in ("adder", "other") for state in ("UNAVAILABLE", "UNLOADING")
    ]
    assert all(columns[0].endswith("Z") for columns in told)
    code, rest, err = alone.ended()
    last = [json.loads(line) for line in rest.splitlines()]
    assert (code, err) == (0, "") and [event["state"] for event in last] == ["UNLOADING", "UNAVAILABLE"]
    # The fields are the server's.
    with EventStream(server, "?after=0&model=adder") as events:
        events.wait_for("adder", "1", "UNAVAILABLE")
        assert events.events[-1] == last[-1]


def test_events_end_with_an_interrupt(start, repository, following):
    server = start(repository.path, options=EXPLICIT).wait_until_ready()
    for options, code in [((), 0), (("--until=UNLOADING",), 1)]:
        follower = following("--after=0", *options, at(server))
        assert follower.line() and follower.line()
        follower.process.send_signal(signal.SIGINT)
        ended, rest, err = follower.ended()
        assert (ended, rest) == (code, ""), err
        assert ("--until" in err) == bool(options)


def test_events_end_when_nobody_reads_them(start, repository, following):
    server = start(repository.path, options=EXPLICIT).wait_until_ready()
    # Nothing happens any more: it notices without having to write.
    follower = following("--after=0", at(server))
    assert follower.line()
    follower.process.stdout.close()
    assert follower.process.wait(DEADLINE) == 0
    assert follower.process.stderr.read() == b""
    shell = f"'{BINARY}' events --after=0 {at(server)} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1 and done.stderr == ""


def test_events_go_on_when_the_server_comes_back(start, repository, following):
    first = start(repository.path, options=EXPLICIT).wait_until_ready()
    follower = following("--model=adder", "--after=1", at(first))
    assert follower.line().split()[1:] == ["adder", "1", "READY"]
    first.stop()
    assert "has gone away (it has ended the connection)" in follower.told()
    # As many events as before, so that their numbers do not tell that it is another life.
    port = f"--http-port={first.http.rpartition(':')[2]}"
    second = start(repository.path, options=(*EXPLICIT, port)).wait_until_ready()
    assert "was started anew" in follower.told()
    assert [follower.line().split()[3] for _ in range(2)] == ["LOADING", "READY"]
    second.process.kill()
    assert second.process.wait(DEADLINE)
    assert "has gone away" in follower.told()
    follower.process.send_signal(signal.SIGINT)
    assert follower.ended()[0] == 0


def test_events_go_on_where_they_were_when_the_connection_breaks(start, repository, following):
    server = start(repository.path, options=EXPLICIT).wait_until_ready()
    relay = Relay(server.http)
    follower = following(f"--url=http://127.0.0.1:{relay.port}")
    relay.wait_for_one()
    relay.cut()
    assert "has gone away" in follower.told()
    # What happens meanwhile is not lost, although nothing had come before.
    well("unload", "adder", at(server))
    relay.mend()
    assert "is back" in follower.told()
    assert [follower.line().split()[3] for _ in range(2)] == ["UNLOADING", "UNAVAILABLE"]
    relay.cut()
    assert "has gone away" in follower.told()
    well("load", "adder", at(server))
    relay.mend()
    assert [follower.line().split()[3] for _ in range(2)] == ["LOADING", "READY"]
    relay.cut()


# Push.


def test_a_push_is_the_next_version(start, repository, new):
    server = start(repository.path, options=POLL).wait_until_ready()
    assert well(*push(repository, new(adder(2)))) == "pushed    adder 2\n"
    server.wait_until(lambda: k_of(server) == 2, "the version that was pushed")
    verify(repository.path / "adder/2")
    assert well(*push(repository, new(adder(7)), "--version=7", "--no-sha256sums")) == "pushed    adder 7\n"
    assert [path.name for path in (repository.path / "adder/7").iterdir()] == ["model.onnx"]
    assert well(*push(repository, new(adder(8)))) == "pushed    adder 8\n"
    assert versions(repository) == ["1", "2", "7", "8"]
    # Others than the one who pushes may have to read it.
    assert (repository.path / "adder/8").stat().st_mode & 0o777 == 0o777 & ~umask()
    assert (repository.path / "adder/8/model.onnx").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_number_that_is_taken_is_refused(repository, new):
    before = (repository.path / "adder/1/model.onnx").read_bytes()
    said = badly(*push(repository, new(adder(2)), "--version=1"))
    assert "version 1 of adder is there already and is not overwritten" in said
    assert (repository.path / "adder/1/model.onnx").read_bytes() == before and versions(repository) == ["1"]


def test_a_version_that_is_a_link_has_its_number(repository, new, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/model.onnx").write_bytes(adder(4))
    (repository.path / "adder/4").symlink_to(tmp_path / "elsewhere")
    (repository.path / "adder/9").symlink_to("nowhere")
    assert "version 4 of adder is there" in badly(*push(repository, new(adder(5)), "--version=4"))
    assert "version 9 of adder is there" in badly(*push(repository, new(adder(5)), "--version=9"))
    assert well(*push(repository, new(adder(5)))) == "pushed    adder 10\n"
    assert (tmp_path / "elsewhere/model.onnx").read_bytes() == adder(4)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["model.onnx"]


def test_a_model_that_is_a_link_is_pushed_to_where_it_leads(start, repository, new, tmp_path):
    (repository.path / "adder").rename(tmp_path / "elsewhere")
    (repository.path / "adder").symlink_to(tmp_path / "elsewhere")
    well(*push(repository, new(adder(2))))
    verify(tmp_path / "elsewhere/2")
    assert sorted(path.name for path in repository.path.iterdir()) == ["adder"]


def test_a_new_model_is_there_all_at_once(start, repository, new):
    server = start(repository.path, options=POLL).wait_until_ready()
    config = new(b'max_batch_size: 4 default_model_filename: "graph.onnx"', "config.pbtxt")
    with EventStream(server) as events:
        well(*push(repository, new(adder(3)), f"--config={config}", model="fresh"))
        events.wait_for("fresh", "1", "READY")
        assert events.told() == [("fresh", "1", "LOADING"), ("fresh", "1", "READY")]
    assert answer(server, "fresh") == (3, "1")
    assert server.get("/v2/models/fresh/config").json()["max_batch_size"] == 4
    assert (repository.path / "fresh/1/graph.onnx").exists()
    assert sorted(path.name for path in repository.path.iterdir()) == ["adder", "fresh"]


def test_a_configuration_that_is_given_takes_the_place_of_the_one_there(start, repository, new):
    repository.configure("adder", "max_batch_size: 2")
    server = start(repository.path, options=("--repository-settle-secs=1", *POLL[:2])).wait_until_ready()
    config = new(b"max_batch_size: 6", "config.pbtxt")
    with EventStream(server) as events:
        well(*push(repository, new(adder(2)), f"--config={config}"))
        events.wait_for("adder", "1", "UNAVAILABLE")
        # Version 1 is not loaded with the new configuration in between.
        assert ("adder", "1", "LOADING") not in events.told()
    assert server.get("/v2/models/adder/config").json()["max_batch_size"] == 6
    assert (repository.path / "adder/config.pbtxt").read_text() == "max_batch_size: 6"


def with_weights_beside(directory, k, location="model.onnx.data"):
    """X + K, whose K is in another file."""
    made = onnx.load_model_from_string(adder(k))
    (tensor,) = made.graph.initializer
    (directory / location).parent.mkdir(parents=True, exist_ok=True)
    (directory / location).write_bytes(np.array(k, np.float32).tobytes())
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in [("location", location), ("offset", "0"), ("length", "4")]:
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (directory / "model.onnx").write_bytes(made.SerializeToString())
    return directory / "model.onnx"


@pytest.mark.parametrize("location", ["model.onnx.data", "weights/k.bin"])
def test_weights_in_other_files_come_with_the_model(start, repository, tmp_path, location):
    server = start(repository.path, options=EXPLICIT).wait_until_ready()
    file = with_weights_beside(tmp_path / "export", 5, location)
    (file.parent / "notes.txt").write_text("of no concern")
    assert well(*push(repository, file, "--load", at(server))) == "pushed    adder 2\nready     adder 2\n"
    assert answer(server) == (5, "2")
    verify(repository.path / "adder/2")
    assert (repository.path / "adder/2" / location).exists()
    assert not (repository.path / "adder/2/notes.txt").exists()


def test_weights_that_are_missing_or_elsewhere_are_told(repository, tmp_path):
    file = with_weights_beside(tmp_path / "gone", 5)
    (file.parent / "model.onnx.data").unlink()
    assert "it has weights in \"model.onnx.data\", beside it: cannot read" in badly(*push(repository, file))
    file = with_weights_beside(tmp_path / "up/here", 5, "../k.bin")
    assert "it has weights in \"../k.bin\", which leaves its directory" in badly(*push(repository, file))
    file = with_weights_beside(tmp_path / "short", 5)
    (file.parent / "model.onnx.data").write_bytes(b"12")
    assert "cannot be served as adder, so nothing was pushed" in badly(*push(repository, file))
    assert versions(repository) == ["1"]


def test_what_cannot_be_served_is_not_pushed(repository, new):
    repository.configure("adder", 'input { name: "Z" data_type: TYPE_FP32 dims: [ 1 ] }')
    cases = [
        (new(adder(2)), "cannot be served as adder, so nothing was pushed: adder/config.pbtxt: "),
        (new(b"no model", "text.onnx"), "text.onnx cannot be pushed: the file is not a valid ONNX model"),
        (new(b"", "empty.onnx"), "it is no ONNX file"),
        (new(adder(2)[:-9], "cut.onnx"), "cut.onnx cannot be pushed"),
        (repository.path, "is not a file"),
    ]
    for file, words in cases:
        assert words in badly(*push(repository, file))
    assert "\"Z\"" in badly(*push(repository, cases[0][0]))
    wrong = new(b"max_batch_sise: 2", "wrong.pbtxt")
    assert "max_batch_sise" in badly(*push(repository, cases[0][0], f"--config={wrong}"))
    assert versions(repository) == ["1"]
    # A graph that is whole as a file and is no model of what it names.
    made = onnx.load_model_from_string(adder(2))
    made.graph.node[0].op_type = "NoSuchOperator"
    said = badly(*push(repository, new(made.SerializeToString(), "odd.onnx"), model="odd"))
    assert "NoSuchOperator" in said
    assert not (repository.path / "odd").exists()


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "../adder", "a\\b", "a\nb", "x" * 256])
def test_a_name_that_is_none_is_refused(repository, new, name):
    assert "is not a model name" in badly(*push(repository, new(adder(2)), model=name))
    assert sorted(path.name for path in repository.path.iterdir()) == ["adder"]
    assert sorted(path.name for path in repository.path.parent.iterdir()) == ["aside", "models", "new.onnx"]


def test_a_version_that_its_policy_passes_over_is_told(repository, new):
    done = volley(*push(repository, new(adder(2)), "--version=5"))
    assert (done.returncode, done.stderr) == (0, "")
    done = volley(*push(repository, new(adder(2)), "--version=3"))
    assert done.returncode == 0 and "will not serve version 3" in done.stderr
    repository.configure("adder", "version_policy: { specific: { versions: [1] } }")
    done = volley(*push(repository, new(adder(2))))
    assert done.returncode == 0 and "does not name version 6" in done.stderr
    # It was tried all the same.
    repository.configure("adder", 'version_policy: { specific: { versions: [1] } } input { name: "Z" }')
    assert "cannot be served" in badly(*push(repository, new(adder(2))))


def test_a_new_model_brings_what_its_configuration_names(repository):
    file, config = SAMPLES / "digits/2/model.onnx", SAMPLES / "digits/config.pbtxt"
    assert well(*push(repository, file, f"--config={config}", model="digits")) == "pushed    digits 1\n"
    assert versions(repository, "digits") == ["1", "labels.txt"]
    assert (repository.path / "digits/labels.txt").read_bytes() == (SAMPLES / "digits/labels.txt").read_bytes()


def test_labels_and_samples_beside_the_versions_are_tried_too(repository, tmp_path):
    shutil.copytree(SAMPLES / "digits", repository.path / "digits")
    file = SAMPLES / "digits/2/model.onnx"
    assert well(*push(repository, file, model="digits")) == "pushed    digits 3\n"
    (repository.path / "digits/labels.txt").unlink()
    assert "digits/labels.txt" in badly(*push(repository, file, model="digits"))


def without_privilege():
    """Makes even root heed the rights of files."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def test_a_repository_that_may_not_be_written_to_is_told(repository, new):
    file = new(adder(2))
    (repository.path / "adder").chmod(0o555)
    repository.path.chmod(0o555)
    try:
        for model in "adder", "fresh":
            said = badly(*push(repository, file, model=model), preexec_fn=without_privilege)
            assert "cannot write to" in said and "Permission denied" in said
    finally:
        repository.path.chmod(0o755)
        (repository.path / "adder").chmod(0o755)
    said = badly("push", "adder", file, f"--repository={repository.path / 'missing'}")
    assert "make it, or name another with --repository" in said
    assert "is not a directory" in badly("push", "adder", file, f"--repository={file}")


def test_a_disk_that_is_full_leaves_nothing_behind(repository, new):
    file = new(large_adder(2))

    def full():
        # As a full disk, a file that may not grow fails in the middle.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))

    said = badly(*push(repository, file), preexec_fn=full)
    assert "cannot write" in said and "File too large" in said
    assert versions(repository) == ["1"]


def test_a_push_has_the_server_load_it(start, repository, new, tmp_path):
    explicit = start(repository.path, options=EXPLICIT).wait_until_ready()
    assert well(*push(repository, new(adder(2)), "--load", at(explicit))) == "pushed    adder 2\nready     adder 2\n"
    assert answer(explicit) == (2, "2")
    polling = start(repository.path, options=POLL).wait_until_ready()
    assert well(*push(repository, new(adder(3)), "--load", at(polling))) == "pushed    adder 3\nready     adder 3\n"
    assert answer(polling) == (3, "3")
    fixed = start(repository.path, options=("--model-control-mode=none",)).wait_until_ready()
    done = volley(*push(repository, new(adder(4)), "--load", at(fixed)))
    assert done.returncode == 1 and done.stdout == "pushed    adder 4\n"
    assert f"version 4 is in {repository.path}, but does not serve: " in done.stderr
    assert "--model-control-mode=none" in done.stderr
    elsewhere = Repository(tmp_path / "elsewhere")
    elsewhere.put_model("adder", {1: adder(1)})
    done = volley(*push(elsewhere, new(adder(9)), "--load", at(explicit)))
    assert done.returncode == 1 and "does not know of version 2" not in done.stderr
    done = volley(*push(elsewhere, new(adder(9)), "--version=77", "--load", at(explicit)))
    assert done.returncode == 1 and "does not know of version 77: is this the repository" in done.stderr


def leftovers(repository):
    return [path for path in repository.path.rglob(".*")]


def test_pushes_that_are_killed_leave_nothing_that_a_server_sees(start, repository, new):
    server = start(repository.path, options=POLL).wait_until_ready()
    seed = int(os.environ.get("VOLLEY_PUSH_SEED", random.randrange(1 << 32)))
    print(f"VOLLEY_PUSH_SEED={seed}")
    chance = random.Random(seed)
    file = new(large_adder(2))
    began = time.monotonic()
    well(*push(repository, file))
    takes = time.monotonic() - began
    halves = 0
    with EventStream(server, "?after=0") as events:
        for _ in range(KILLS):
            process = subprocess.Popen([BINARY, *map(str, push(repository, file))], stderr=subprocess.PIPE)
            try:
                process.wait(chance.uniform(0, takes))
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()
            halves += len(leftovers(repository)) > 0
            assert answer(server)[1] in [path for path in versions(repository) if path.isdigit()]
            for version in versions(repository):
                if version not in ("1",) and version.isdigit():
                    verify(repository.path / "adder" / version)
        last = well(*push(repository, new(large_adder(9), "last.onnx"))).split()[-1]
        server.wait_until(lambda: k_of(server) == 9, "the last version")
        events.wait_for("adder", last, "READY")
        # A version that failed would have said why.
        reasons = {event["reason"] for event in events.events if event["state"] != "LOADING"}
        assert reasons <= {"", "replaced", "unloaded"}, reasons
        assert {event["model"] for event in events.events} == {"adder"}
    assert leftovers(repository) == []
    assert halves > KILLS / 4, "it was hardly ever killed in the middle"
    assert "failed to load" not in server.text()


def test_two_pushes_at_once_have_two_numbers(start, repository, new):
    server = start(repository.path, options=POLL).wait_until_ready()
    files = {k: new(adder(k), f"{k}.onnx") for k in range(10, 18)}
    command = lambda file, *options: [BINARY, *map(str, push(repository, file, *options))]
    pushes = {k: subprocess.Popen(command(file), stdout=subprocess.PIPE, text=True) for k, file in files.items()}
    numbers = {k: process.communicate(timeout=DEADLINE)[0].split()[-1] for k, process in pushes.items()}
    assert sorted(map(int, numbers.values())) == list(range(2, 10))
    for k, number in numbers.items():
        assert (repository.path / "adder" / number / "model.onnx").read_bytes() == files[k].read_bytes()
        verify(repository.path / "adder" / number)
    # Of those that want one number, one has it.
    pushes = [subprocess.Popen(command(file, "--version=50"), stderr=subprocess.PIPE) for file in files.values()]
    codes = [(process.communicate(timeout=DEADLINE), process.returncode)[1] for process in pushes]
    assert sorted(codes) == [0] + [1] * 7
    verify(repository.path / "adder/50")
    # And of those that make one model, each has a version of it.
    new_ones = [
        subprocess.Popen([BINARY, *map(str, push(repository, file, model="fresh"))], stderr=subprocess.PIPE)
        for file in files.values()
    ]
    codes = [(process.communicate(timeout=DEADLINE), process.returncode)[1] for process in new_ones]
    assert codes == [0] * 8
    assert sorted(map(int, versions(repository, "fresh"))) == list(range(1, 9))
    assert leftovers(repository) == []
    server.wait_until(lambda: index(server).get("50", ("",))[0] == "READY", "version 50")
    server.wait_until(lambda: index(server, "fresh").get("8", ("",))[0] == "READY", "version 8")
    assert "failed to load" not in server.text()


# Push to object storage.


@pytest.fixture(scope="module")
def moto():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


class Bucket:
    """A bucket with a repository in it, as its owner sees it."""

    def __init__(self, address, name):
        self.url = f"s3://{address}/{name}/models"
        self.environment = {
            **os.environ, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"
        }
        keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
        self._name, self._s3 = name, boto3.client("s3", endpoint_url=f"http://{address}", **keys)
        self._s3.create_bucket(Bucket=name)

    def put(self, path, content):
        self._s3.put_object(Bucket=self._name, Key=f"models/{path}", Body=content)

    def remove(self, path):
        self._s3.delete_object(Bucket=self._name, Key=f"models/{path}")

    def get(self, path):
        return self._s3.get_object(Bucket=self._name, Key=f"models/{path}")["Body"].read()

    def names(self):
        found = self._s3.list_objects_v2(Bucket=self._name, Prefix="models/").get("Contents", [])
        return sorted(each["Key"].removeprefix("models/") for each in found)

    def push(self, file, *options, model="adder"):
        return ("push", model, file, f"--repository={self.url}", *options), {"env": self.environment}

    def verify(self, version):
        lines = self.get(f"{version}/SHA256SUMS").decode().splitlines()
        for digest, path in (line.split("  ", 1) for line in lines):
            assert hashlib.sha256(self.get(f"{version}/{path}")).hexdigest() == digest, path


@pytest.fixture
def bucket(moto, request):
    return Bucket(moto, hashlib.sha256(request.node.name.encode()).hexdigest()[:20])


def test_a_push_goes_to_object_storage(bucket, new, tmp_path):
    def pushed(file, *options, **others):
        command, environment = bucket.push(file, *options, **others)
        return well(*command, **environment)

    assert pushed(new(adder(1))) == "pushed    adder 1\n"
    assert bucket.names() == ["adder/1/SHA256SUMS", "adder/1/model.onnx"]
    bucket.put("adder/config.pbtxt", 'default_model_filename: "graph.onnx"')
    assert pushed(with_weights_beside(tmp_path / "export", 2)) == "pushed    adder 2\n"
    assert bucket.names()[2:] == [f"adder/2/{name}" for name in ("SHA256SUMS", "graph.onnx", "model.onnx.data")] + [
        "adder/config.pbtxt"
    ]
    for version in "adder/1", "adder/2":
        bucket.verify(version)
    digits = SAMPLES / "digits"
    assert pushed(digits / "1/model.onnx", f"--config={digits / 'config.pbtxt'}", model="digits") == "pushed    digits 1\n"
    # Its labels are tried from there.
    assert pushed(digits / "2/model.onnx", "--version=5", model="digits") == "pushed    digits 5\n"
    names = [name for name in bucket.names() if name.startswith("digits")]
    assert names == [
        "digits/1/SHA256SUMS", "digits/1/model.onnx", "digits/5/SHA256SUMS", "digits/5/model.onnx",
        "digits/config.pbtxt", "digits/labels.txt",
    ]


def test_what_object_storage_has_is_not_overwritten(bucket, new):
    command, environment = bucket.push(new(adder(1)), "--version=3")
    assert well(*command, **environment) == "pushed    adder 3\n"
    # What was cut off is whole once the same is pushed again.
    bucket.remove("adder/3/model.onnx")
    assert well(*command, **environment) == "pushed    adder 3\n"
    bucket.verify("adder/3")
    other, environment = bucket.push(new(adder(2), "other.onnx"), "--version=3")
    assert "is in s3://" in badly(*other, **environment)
    assert bucket.get("adder/3/model.onnx") == adder(1)
    bad, environment = bucket.push(new(b"no model", "bad.onnx"))
    assert "not a valid ONNX model" in badly(*bad, **environment)
    bucket.put("adder/config.pbtxt", 'input { name: "Z" }')
    bad, environment = bucket.push(new(adder(2)))
    assert "cannot be served as adder, so nothing was pushed: adder/config.pbtxt" in badly(*bad, **environment)
    sums, environment = bucket.push(new(adder(2)), "--no-sha256sums")
    assert "--no-sha256sums" in badly(*sums, **environment)
    assert bucket.names() == ["adder/3/SHA256SUMS", "adder/3/model.onnx", "adder/config.pbtxt"]
    missing = "push", "adder", new(adder(2)), f"--repository={bucket.url.replace('/models', '-none/models')}"
    assert "is not there" in badly(*missing, **environment)


def test_two_pushes_at_once_to_object_storage_have_two_numbers(bucket, new):
    files = {k: new(adder(k), f"{k}.onnx") for k in range(4)}
    commands = [bucket.push(file) for file in files.values()]
    pushes = [
        subprocess.Popen([BINARY, *map(str, command)], stdout=subprocess.PIPE, text=True, **environment)
        for command, environment in commands
    ]
    numbers = [process.communicate(timeout=DEADLINE)[0].split()[-1] for process in pushes]
    assert sorted(map(int, numbers)) == [1, 2, 3, 4]
    for number, k in zip(numbers, files):
        assert bucket.get(f"adder/{number}/model.onnx") == adder(k)
        bucket.verify(f"adder/{number}")
