"""What a dead server missed is delivered; results out of the DVC cache get runs; the pages come up."""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import tracking
from pipeline.errors import UserError
from pipeline.evaluation import logged
from pipeline.restore import deliver_rest, restore_all
from pipeline.tracking import journal, store
from pipeline.tracking.store import Store
from stages.layout import METRICS, MODELS
from tests import mlflow_session
from tests.imports import ROOT
from tests.interrupts import interruptible
from tools import ui, wsol

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SHA = "b" * 64


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("WSOL_TRACKING", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    made = mlflow_session.repository(tmp_path / "repo")
    monkeypatch.chdir(made)
    yield made
    store.disconnect()


def all_runs(root: Path) -> list[Any]:
    client, experiment = store.connect(Store(root, "wsol"))
    return list(client.search_runs([experiment], order_by=["attributes.start_time ASC"]))


def missed(monkeypatch: pytest.MonkeyPatch) -> str:
    """A run whose server was dead all the time; the server's address."""
    address = f"http://127.0.0.1:{mlflow_session.free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with tracking.Run.open(key="k", name="cam-s0", params={}, tags={}) as run:
        run.metrics({"train_loss": 1.0}, step=1)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    return address


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    wsol.run(["track", *arguments])


# --- journals -------------------------------------------------------------------------------------


def test_status_says_what_waits_and_for_whom(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "status")
    assert capsys.readouterr().out == "every run is in MLflow\n"
    address = missed(monkeypatch)
    call(monkeypatch, "status")
    waits, end = capsys.readouterr().out.splitlines()
    assert waits == f"cam-s0: 3 events for MLflow ({address}), in {root}/.journal/k.jsonl"
    assert end == "waiting: 1; to deliver: wsol track sync"


def test_sync_says_that_the_server_is_still_dead(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = missed(monkeypatch)
    with pytest.raises(UserError) as error:
        call(monkeypatch, "sync")
    (problem,) = error.value.problems
    assert problem.startswith(f"MLflow ({address}) cannot be reached: Connection refused; start it")


def test_sync_can_deliver_to_another_store_and_once_more(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missed(monkeypatch)
    call(monkeypatch, "sync", "--to", "sqlite:///mlflow.db")
    target = Store(root, "wsol", f"sqlite:///{root}/mlflow.db")
    assert f"cam-s0: 3 events delivered to MLflow ({target})" in capsys.readouterr().out
    (found,) = all_runs(root)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"train_loss": 1.0})

    client, _ = store.connect(target)
    client.delete_run(found.info.run_id)
    call(monkeypatch, "sync", "--to", "sqlite:///mlflow.db")
    assert all_runs(root) == []  # deleted on purpose
    call(monkeypatch, "sync", "--to", "sqlite:///mlflow.db", "--again")
    (found,) = all_runs(root)
    assert found.data.metrics == {"train_loss": 1.0}


def test_sync_ends_a_killed_run_and_leaves_a_living_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking.Run.open(key="k", name="cam-s0", params={}, tags={}) as run:
        run.metrics({"train_loss": 1.0}, step=1)
        call(monkeypatch, "sync")
        assert capsys.readouterr().out == "cam-s0: still running; it delivers by itself\n"
    path = root / ".journal" / "k.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))  # as after SIGKILL
    path.with_suffix(".sent").unlink()
    call(monkeypatch, "sync")
    (found,) = all_runs(root)
    assert found.info.status == "KILLED"
    assert found.info.end_time == json.loads(lines[-2])["t"]


# --- results without a run ------------------------------------------------------------------------


def write_results(folder: Path, *, lock: bool = True) -> None:
    """What `dvc pull` brings: metrics and the lock file that names them."""
    metrics = folder / "metrics"
    metrics.mkdir(parents=True, exist_ok=True)
    values = {
        "method": "ass",
        "backbone": "vgg16",
        "dataset": "cub",
        "seed": 3,
        "top1_loc_err": 40.0,
        "intervals": {"top1_loc_err": [35.0, 45.0]},
        "model_sha256": SHA,
    }
    (metrics / "localization.json").write_text(json.dumps(values))
    (metrics / "epochs.csv").write_text("epoch,train_loss,val_loss\n1,2.5,\n2,1.5,1.75\n")
    (metrics / "per_image.csv").write_text("id,iou_true\n1,0.7\n")
    (metrics / "per_class.csv").write_text("class,images\nbird,1\n")
    (metrics / "threshold_curve.csv").write_text("threshold,box_acc_50\n0.0,10\n")
    md5 = hashlib.md5((metrics / "localization.json").read_bytes()).hexdigest()
    outputs = [{"path": "metrics/localization.json", "md5": md5 if lock else "0" * 32}]
    used = {"seed": 3, "train": {"epochs": 2}, "methods.ass": {"plug_points": ["pool3", "pool4"]}}
    stages = {
        "train": {"params": {"params.yaml": used}},
        "evaluate": {"outs": outputs, "params": {"params.yaml": {"box": {"threshold": 0.2}}}},
    }
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def test_results_out_of_the_cache_get_a_run_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(root)
    call(monkeypatch, "sync")
    assert capsys.readouterr().out == "workspace: a run was made for the results in metrics/\n"
    (found,) = all_runs(root)
    assert (found.info.run_name, found.info.status) == ("ass-vgg16-cub-s3", "FINISHED")
    assert found.data.metrics["train_loss"] == 1.5
    assert found.data.metrics["val_loss"] == 1.75
    assert found.data.metrics["loc/top1_loc_err"] == 40.0
    assert found.data.params == {
        "seed": "3",
        "train.epochs": "2",
        "methods.ass.plug_points": "pool3,pool4",
        "box.threshold": "0.2",
    }
    assert found.data.tags["restored"].startswith("from the DVC cache")
    assert "host" not in found.data.tags
    call(monkeypatch, "sync")
    assert capsys.readouterr().out == ""
    assert len(all_runs(root)) == 1


def test_results_of_an_evaluation_that_ran_here_get_no_other_run(root: Path) -> None:
    write_results(root)
    with tracking.Run.find_or_open(
        model_sha256=SHA, evaluation_sha256="e", name="n", params={}, tags={}
    ) as run:
        run.outcome(logged.outcome(root / "metrics"))
    restore_all(METRICS, MODELS, print)
    assert len(all_runs(root)) == 1


def draw_pictures(folder: Path, content: bytes, *, of_these_figures: bool = True) -> None:
    """What `report` leaves, and its entry in the lock file."""
    (folder / "metrics" / "pictures").mkdir(exist_ok=True)
    (folder / "metrics" / "pictures" / "best.png").write_bytes(content)
    localization = folder / "metrics" / "localization.json"
    md5 = hashlib.md5(localization.read_bytes()).hexdigest() if of_these_figures else "0" * 32
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    lock["stages"]["report"] = {"deps": [{"path": "metrics/localization.json", "md5": md5}]}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))


def logged_picture(root: Path) -> bytes | None:
    (found,) = all_runs(root)
    file = root / "mlartifacts" / found.info.run_id / "artifacts" / "pictures" / "best.png"
    return file.read_bytes() if file.exists() else None


def test_pictures_follow_the_figures_they_are_of(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(root)
    call(monkeypatch, "sync")
    assert logged_picture(root) is None
    draw_pictures(root, b"old figures", of_these_figures=False)
    call(monkeypatch, "sync")
    assert logged_picture(root) is None
    for content in (b"first", b"drawn anew"):
        draw_pictures(root, content)
        call(monkeypatch, "sync")
        assert logged_picture(root) == content
    client, _ = store.connect(Store(root, "wsol"))
    sent: list[str] = []
    monkeypatch.setattr(client, "log_artifacts", lambda run, *_: sent.append(run))
    call(monkeypatch, "sync")
    assert sent == []  # the run has them


def test_a_stage_gives_its_pictures_to_the_run_of_the_evaluation(root: Path) -> None:
    write_results(root)
    with tracking.Run.find_or_open(
        model_sha256=SHA, evaluation_sha256="e", name="n", params={}, tags={}
    ) as run:
        run.outcome(logged.outcome(root / "metrics"))
    draw_pictures(
        root, b"png", of_these_figures=False
    )  # dvc.lock speaks of `report` when that ends
    deliver_rest(METRICS, MODELS)
    assert logged_picture(root) == b"png"


def test_results_that_dvc_lock_does_not_speak_of_get_no_run(root: Path) -> None:
    write_results(root, lock=False)
    restore_all(METRICS, MODELS, print)
    assert all_runs(root) == []


def test_every_dvc_experiment_gets_a_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        asked = ["git", *identity, *arguments]
        return subprocess.run(asked, cwd=root, check=True, capture_output=True, text=True).stdout

    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (root / ".gitignore").write_text("mlflow.db\n.journal\n.mlflow.lock\nmlartifacts\n")
    git("init", "--quiet", "--initial-branch=main")
    git("add", ".")
    git("commit", "--quiet", "-m", "baseline")
    baseline = git("rev-parse", "HEAD").strip()
    write_results(root)
    git("add", ".")
    git("commit", "--quiet", "-m", "experiment")
    git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/grid-4", "HEAD")
    git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    git("reset", "--quiet", "--hard", baseline)

    call(monkeypatch, "sync", "--experiments")
    assert capsys.readouterr().out == "grid-4: a run was made\n"
    (found,) = all_runs(root)
    tags = found.data.tags
    assert (tags["dvc.experiment"], tags["git.commit"]) == ("grid-4", baseline)
    assert found.data.metrics["loc/top1_loc_err"] == 40.0
    call(monkeypatch, "sync", "--experiments")
    assert capsys.readouterr().out == "grid-4: has a run, or no results\n"


# --- the pages ------------------------------------------------------------------------------------


def test_a_port_in_use_is_told_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} .*in use.*wsol ui --port 5001"):
            ui.check_free(port)
    ui.check_free(mlflow_session.free_port())
    with pytest.raises(UserError, match="port 70000"):
        ui.check_free(70000)


def test_a_remote_servers_runs_are_looked_at_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@team.example")
    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI is http://team\.example: "):
        wsol.run(["ui"])


@contextlib.contextmanager
def pages(root: Path) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """`wsol ui` as a process of its own, ready; its address."""
    port = mlflow_session.free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", "from tools.wsol import main; main()", "ui", "--port", str(port)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )
    try:
        assert server.stdout
        lines = iter(server.stdout.readline, "")
        assert any("MLflow is ready" in line for line in lines), server.communicate()[1]
        yield server, f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.communicate()


def asked(address: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Status and text, or address, of an answer; redirections are not followed."""
    host, _, path = address.removeprefix("http://").partition("/")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=30)) as connection:
        connection.request("POST" if body else "GET", f"/{path}", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("location") or answer.read().decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_pages_take_writes_from_themselves_alone_and_end_with_their_command(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WSOL_TRACKING", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    root = mlflow_session.repository(tmp_path / "clone #1?")
    with pages(root) as (server, address):
        with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
            find = "SELECT experiment_id FROM experiments WHERE name = 'wsol'"
            (number_of,) = database.execute(find).fetchone()
        runs = f"/?wsol#/experiments/{number_of}/runs?workflowType=machine_learning"
        assert asked(f"{address}/") == (302, runs)
        status, page = asked(f"{address}/?wsol")
        assert status == 200 and "<title>MLflow</title>" in page
        api = f"{address}/ajax-api/2.0/mlflow/experiments/create"
        kind = {"Content-Type": "application/json"}
        port = int(address.rpartition(":")[2])
        foreign = ("http://localhost:8888", "http://127.0.0.1:1", "http://[::1]:80", "null")
        for k, origin in enumerate((*foreign, "http://localhost", f"https://localhost:{port}")):
            body = json.dumps({"name": f"foreign-{k}"}).encode()
            assert asked(api, body, Origin=origin, **kind)[0] == 403, origin
        for k, origin in enumerate((address, f"http://localhost:{port}")):
            body = json.dumps({"name": f"own-{k}"}).encode()
            assert asked(api, body, Origin=origin, **kind)[0] == 200, origin
        assert asked(api, b'{"name": "a program"}', **kind)[0] == 200
        with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
            names = {name for (name,) in database.execute("SELECT name FROM experiments")}
        assert {"own-0", "own-1", "a program"} <= names
        assert not [name for name in names if name.startswith("foreign")]
        server.send_signal(number)
        assert server.wait(20) == (-signal.SIGTERM if number == signal.SIGTERM else 0)
        with pytest.raises(ProcessLookupError):
            os.killpg(server.pid, 0)  # nothing of its group is left
        assert server.stderr and server.stderr.read() == ""
        ui.check_free(port)


def test_journals_are_delivered_in_the_order_they_began(root: Path) -> None:
    for key, t in (("b", 2), ("a", 3), ("c", 1)):
        path = root / ".journal" / f"{key}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"event": "open", "t": t}) + "\n")
    (root / ".journal" / "half.jsonl").write_text('{"event"')
    assert [path.stem for path in journal.all_journals(root)] == ["c", "b", "a"]
