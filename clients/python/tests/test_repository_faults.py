"""What goes wrong in a repository while a server runs: what serves goes on, and the index says why the rest does not."""

import shutil
import threading

import pytest
from controlled import Repository, adder, answer, ask, control, index, k_of, late_adder, load
from event_stream import EventStream

POLLING = ("--model-control-mode=poll", "--repository-poll-secs=0.2", "--repository-settle-secs=0")
# What no permission stops may be root's; without it, the tests would see nothing.
PLAIN_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path)
    repository.put_model("adder", {1: adder(1)})
    return repository


def everything(server):
    """Each entry of the index: model, version, state and reason."""
    entries = server.post("/v2/repository/index").json()
    return [tuple(entry.get(key, "") for key in ("name", "version", "state", "reason")) for entry in entries]


def poll_twice(server, repository):
    """Waits until a change that came after all others was followed."""
    repository.put_model("marker", {1: adder(9, name="marker")})
    server.wait_until(lambda: k_of(server, "marker") == 9, "the model that came last")


@pytest.mark.parametrize("what", ["version", "model"])
def test_what_is_removed_while_it_is_loaded_changes_nothing(start, repository, what):
    server = start(repository.path, options=POLLING).wait_until_ready()
    with EventStream(server) as events:
        repository.put("adder", 2, late_adder(2))
        if what == "model":
            repository.put_model("other", {1: late_adder(3, name="other")})
            events.wait_for("other", "1", "LOADING")
            repository.take("other")
        else:
            events.wait_for("adder", "2", "LOADING")
            repository.take("adder", 2)
        model, version = ("other", "1") if what == "model" else ("adder", "2")
        if what == "version":
            assert answer(server) == (1.0, "1")
        events.wait_for(model, version, "UNAVAILABLE")
        (why,) = [event["reason"] for event in events.events if event["model"] == model and event["state"] == "UNAVAILABLE"]
        assert f"{model}/{version}" in why
    poll_twice(server, repository)
    assert (model, version, "READY", "") not in everything(server)
    assert answer(server)[0] == (2.0 if what == "model" else 1.0)
    assert ask(server, model, version=version).status_code != 200


def test_files_that_are_removed_one_by_one_while_they_are_loaded_leave_what_serves(start, repository):
    options = ("--model-control-mode=explicit", "--load-model=adder")
    server = start(repository.path, options=options).wait_until_ready()
    repository.put("adder", 2, late_adder(2))
    refused = []
    with EventStream(server) as events:
        loading = threading.Thread(target=lambda: refused.append(control(server, "adder", "load")))
        loading.start()
        events.wait_for("adder", "2", "LOADING")
        repository.remove("adder", 2)
        loading.join()
    assert refused[0].status_code == 400 and "adder/2" in refused[0].json()["error"], refused[0].text
    assert answer(server) == (1.0, "1")
    state, reason = index(server)["1"]
    assert state == "READY" and "what served goes on" in reason and "adder/2" in reason
    load(server)
    assert answer(server) == (1.0, "1")


def test_a_name_that_comes_in_a_second_repository_leaves_what_serves_and_says_where_both_are(start, repository, tmp_path):
    (tmp_path / "second").mkdir()
    second = Repository(tmp_path / "second")
    server = start(repository.path, second.path, options=POLLING).wait_until_ready()
    second.put_model("adder", {2: adder(2)})
    both = [str(each.path) for each in (repository, second)]

    def told():
        return [reason for name, *_, reason in everything(server) if name == "adder" and all(path in reason for path in both)]

    server.wait_until(told, "the reason")
    assert answer(server) == (1.0, "1"), "what served serves"
    second.take("adder")
    server.wait_until(lambda: not told(), "the end of it")
    assert answer(server) == (1.0, "1")
    repository.put("adder", 3, adder(3))
    server.wait_until(lambda: k_of(server) == 3, "being followed again")


@pytest.mark.parametrize("below", ["", "1", "1/model.onnx", "config.pbtxt"])
def test_what_may_not_be_read_is_named_and_what_served_serves(start, repository, below):
    repository.put_model("closed", {1: adder(4, name="closed")}, "max_batch_size: 0\n")
    server = start(repository.path, options=POLLING, under=PLAIN_USER).wait_until_ready()
    assert answer(server, "closed") == (4.0, "1")
    path = repository.path / "closed" / below
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        repository.put("closed", 2, adder(5, name="closed")) if below in ("1/model.onnx", "config.pbtxt") else None
        poll_twice(server, repository)
        assert answer(server, "closed")[0] in (4.0, 5.0)
        fresh = start(repository.path, options=("--strict-readiness=false",), under=PLAIN_USER).wait_until_ready()
        fresh.wait_until(lambda: k_of(fresh, "adder") == 1, "the other model")

        def unreadable():
            return [each for each in everything(fresh) if each[0] == "closed" and each[2] == "UNAVAILABLE"]

        if below == "1/model.onnx":
            assert answer(fresh, "closed") == (5.0, "2"), "only the latest version is read"
        else:
            fresh.wait_until(unreadable, "the reason")
            (*_, reason), *_ = unreadable()
            assert "Permission denied" in reason and "closed" in reason, reason
    finally:
        path.chmod(mode)
    server.wait_until(lambda: k_of(server, "closed") in (4.0, 5.0), "serving")


def test_a_repository_that_is_closed_and_opened_again_is_followed(start, repository):
    server = start(repository.path, options=POLLING, under=PLAIN_USER).wait_until_ready()
    repository.path.chmod(0)
    server.wait_until(lambda: "cannot read the model repository" in server.text(), "the line")
    assert answer(server) == (1.0, "1")
    repository.path.chmod(0o755)
    repository.put("adder", 2, adder(2))
    server.wait_until(lambda: k_of(server) == 2, "the next version")


def test_links_are_followed_and_one_that_leads_nowhere_is_no_model(start, repository, tmp_path):
    elsewhere = tmp_path / "releases" / "7"
    elsewhere.mkdir(parents=True)
    (elsewhere / "model.onnx").write_bytes(adder(7))
    server = start(repository.path, options=POLLING).wait_until_ready()
    (repository.path / "adder" / "7").symlink_to(elsewhere)
    server.wait_until(lambda: k_of(server) == 7, "the version behind a link")
    (repository.path / "nowhere").symlink_to(tmp_path / "not_there")
    (repository.path / "again").symlink_to(repository.path)
    shutil.rmtree(elsewhere)  # the link leads nowhere now
    poll_twice(server, repository)
    assert answer(server)[0] in (1.0, 7.0)
    assert not [each for each in everything(server) if each[0] == "nowhere"]


def test_ten_thousand_versions_are_one_model(start, repository):
    source = repository.path / "adder" / "1" / "model.onnx"
    aside = repository.aside()
    for version in range(2, 10_001):
        (aside / str(version)).mkdir(parents=True)
    for version in (9_999, 10_000):
        (aside / str(version) / "model.onnx").hardlink_to(source)
    (aside / "1").mkdir()
    (aside / "1" / "model.onnx").hardlink_to(source)
    repository.take("adder")
    aside.rename(repository.path / "adder")
    server = start(repository.path, options=POLLING).wait_until_ready()
    assert answer(server) == (1.0, "10000")
    assert [each[1:3] for each in everything(server)] == [("10000", "READY")]
    repository.take("adder", 10_000)
    server.wait_until(lambda: k_of(server) == 1 and answer(server)[1] == "9999", "the version before")
