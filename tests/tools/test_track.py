"""What a dead server missed is delivered; results out of the DVC cache get runs; the pages come up."""

import contextlib
import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import tracking
from pipeline.errors import UserError
from pipeline.tracking import journal, store
from pipeline.tracking.restore import restore_all
from pipeline.tracking.store import Store
from stages.layout import METRICS, MODELS
from tests import mlflow_session
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
        run.evaluation(root / "metrics")
    restore_all(METRICS, MODELS, print)
    assert len(all_runs(root)) == 1


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


def test_the_server_is_the_repositorys_and_a_small_one(root: Path) -> None:
    words = ui.command(store.current(root), 5001)
    pairs = dict(itertools.pairwise(words))
    assert pairs["--backend-store-uri"] == f"sqlite:///{root}/mlflow.db"
    assert pairs["--artifacts-destination"] == f"file://{root}/mlartifacts"
    assert (pairs["--host"], pairs["--port"], pairs["--workers"]) == ("127.0.0.1", "5001", "1")
    assert ui.ENVIRONMENT["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


SERVER = """
import http.server, os, sys
if os.fork() == 0:  # a worker, as MLflow's
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), type(
        "Handler", (http.server.BaseHTTPRequestHandler,),
        {"do_GET": lambda self: self.send_response(200) or self.end_headers()},
    )).serve_forever()
os.wait()
"""


def test_ctrl_c_ends_the_server_with_its_workers(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = mlflow_session.free_port()
    program = [sys.executable, "-c", SERVER, str(port)]
    monkeypatch.setattr(ui, "command", lambda target, port: program)

    def press() -> None:
        while "is ready" not in capsys.readouterr().out:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell that starts the tests in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    presser = threading.Thread(target=press, daemon=True)
    presser.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            ui.serve(store.current(root), port)
    finally:
        signal.signal(signal.SIGINT, before)
    presser.join()
    for _ in range(50):
        with contextlib.suppress(UserError):
            return ui.check_free(port)
        time.sleep(0.1)
    pytest.fail("the worker still listens")


def test_a_server_that_fails_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(ui, "command", lambda target, port: program)
    with pytest.raises(UserError, match="ended with 3"):
        ui.serve(store.current(root), mlflow_session.free_port())


def test_journals_are_delivered_in_the_order_they_began(root: Path) -> None:
    for key, t in (("b", 2), ("a", 3), ("c", 1)):
        path = root / ".journal" / f"{key}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"event": "open", "t": t}) + "\n")
    (root / ".journal" / "half.jsonl").write_text('{"event"')
    assert [path.stem for path in journal.all_journals(root)] == ["c", "b", "a"]
