"""Tracking with a real MLflow: nothing is lost, nothing is mixed up, nothing stops a training."""

import contextlib
import json
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from pipeline import tracking
from pipeline.cache import project_root
from pipeline.errors import UserError
from pipeline.evaluation import logged
from pipeline.tracking import journal, serving, store
from pipeline.tracking.store import Store
from tests import mlflow_session, trained_model
from tests.imports import ROOT, imported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SHA = "a" * 64


@pytest.fixture(autouse=True, scope="module")
def _server_warms_up() -> None:
    mlflow_session.server()


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WSOL_TRACKING", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with a migrated database; the working directory is inside it."""
    made = mlflow_session.repository(tmp_path / "repo")
    monkeypatch.chdir(made)
    yield made
    store.disconnect()


def opened(key: str = "k", **changed: Any) -> tracking.Run:
    given: dict[str, Any] = {"name": "cam-s0", "params": {"train.epochs": 2}, "tags": {}}
    return tracking.Run.open(key=key, **{**given, **changed})


def evaluated(evaluation: str = "e1", **changed: Any) -> tracking.Run:
    given: dict[str, Any] = {"name": "cam-s0", "params": {"box.threshold": 0.2}, "tags": {}}
    return tracking.Run.find_or_open(
        model_sha256=SHA, evaluation_sha256=evaluation, **{**given, **changed}
    )


def trained() -> None:
    with opened() as run:
        run.metrics({"train_loss": 2.0}, step=1)
        run.metrics({"train_loss": 1.0}, step=2)
        run.tag("model.sha256", SHA)


def all_runs(target: Store | None = None) -> list[Any]:
    """MLflow's runs, the oldest first."""
    client, experiment = store.connect(target or store.current(project_root()))
    return list(client.search_runs([experiment], order_by=["attributes.start_time ASC"]))


def history(run: Any, key: str, target: Store | None = None) -> list[tuple[int, float]]:
    client, _ = store.connect(target or store.current(project_root()))
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]


# --- an ordinary run ------------------------------------------------------------------------------


def test_many_processes_may_be_the_first_to_use_a_database() -> None:
    assert mlflow_session.first_use() == [0, 0, 0, 0]


def test_what_is_logged_is_in_mlflow(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with opened(tags={"data.checksum": "md5"}, description="CAM") as run:
        run.metrics({"train_loss": 2, "val_loss": None, "box@0.5": 1.0}, step=1)
        run.metrics({"train_loss": math.nan}, step=2)
        run.params({"train.seed": 0})
        run.tag("model.sha256", SHA)
    (found,) = all_runs()
    assert found.info.run_name == "cam-s0"
    assert found.info.status == "FINISHED"
    assert found.data.params == {"train.epochs": "2", "train.seed": "0"}
    assert found.data.metrics["box_0.5"] == 1.0
    (one, two) = history(found, "train_loss")
    assert one == (1, 2.0)
    assert math.isnan(two[1])
    assert "val_loss" not in found.data.metrics
    tags = found.data.tags
    assert (tags["data.checksum"], tags["model.sha256"], tags["training.key"]) == ("md5", SHA, "k")
    assert tags["mlflow.note.content"].startswith("CAM")
    folder = root / "mlartifacts" / found.info.run_id / "artifacts" / "provenance"
    came = json.loads((folder / "training.json").read_text())
    assert came["host"] == socket.gethostname()
    assert len(came["code.sha256"]) == 64
    assert came["torch"].startswith("2.")
    assert not {"host", "code.sha256", "torch", "python"} & tags.keys()
    assert capfd.readouterr().err == ""


def test_a_run_says_its_dvc_experiment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "grid-12")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "c0ffee")
    with opened():
        pass
    tags = all_runs()[0].data.tags
    assert (tags["dvc.experiment"], tags["dvc.batch"], tags["git.commit"]) == (
        "grid-12",
        "grid",
        "c0ffee",
    )


def test_artifacts_stay_below_the_root_from_a_temporary_copy(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    (copy / ".dvc").mkdir(parents=True)
    (copy / "epochs.csv").write_text("epoch\n1\n")
    (copy / "pictures").mkdir()
    (copy / "pictures" / "best.png").write_bytes(b"png")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(root))
    with opened() as run:
        run.artifact(Path("epochs.csv"), "training")
        run.artifact(Path("pictures"), "pictures")
        run.table([{"class": "bird", "images": 3}], "localization/per_class.json")
    (found,) = all_runs()
    artifacts = root / "mlartifacts" / found.info.run_id / "artifacts"
    files = {p.relative_to(artifacts).as_posix() for p in artifacts.rglob("*") if p.is_file()}
    files.remove("provenance/training.json")
    assert files == {"training/epochs.csv", "pictures/best.png", "localization/per_class.json"}
    assert json.loads((artifacts / "localization/per_class.json").read_text()) == {
        "columns": ["class", "images"],
        "data": [["bird", 3]],
    }
    assert {p.name for p in copy.iterdir()} == {".dvc", "epochs.csv", "pictures"}
    assert {p.name for p in (root / ".journal").iterdir()} == {"k.jsonl", "k.sent"}


def test_a_dataset_is_an_input_of_the_run(root: Path) -> None:
    with opened() as run:
        run.dataset("cub", "f" * 64, "https://data.example/CUB.tgz", "train")
        run.dataset("synthetic", "0" * 8, "made by pipeline/datasets/synthetic/__init__.py", "test")
    inputs = {i.dataset.name: i for i in all_runs()[0].inputs.dataset_inputs}
    assert inputs["cub"].dataset.digest == "f" * 36
    assert inputs["cub"].dataset.source_type == "http"
    assert inputs["synthetic"].tags[0].value == "test"


def test_a_store_may_refuse_one_value_and_take_the_others(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with opened() as run:
        run.metrics({"x" * 300: 1.0, "fine": 2.0}, step=1)
    assert all_runs()[0].data.metrics == {"fine": 2.0}
    assert "MLflow refused metrics xxx" in capfd.readouterr().err


def test_tracking_can_be_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOL_TRACKING", "off")
    with opened() as run:
        run.metrics({"train_loss": 1.0}, step=1)
        run.artifact(Path("absent"))
    assert not (root / ".journal").exists()


def test_a_run_that_is_not_live_waits_for_sync(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipeline.tracking import sync

    with opened(live=False) as run:
        run.metrics({"train_loss": 1.0}, step=1)
    assert all_runs() == []
    assert capfd.readouterr().err == ""
    sync.sync(root, print)
    assert all_runs()[0].data.metrics == {"train_loss": 1.0}


# --- how runs end and go on -----------------------------------------------------------------------


def test_a_failed_run_is_failed_and_goes_on_as_the_same_run(root: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"), opened() as run:
        run.metrics({"train_loss": 3.0, "seconds": 1.5}, step=1)
        raise RuntimeError("out of memory")
    assert all_runs()[0].info.status == "FAILED"
    with opened(params={"train.epochs": 2, "train.workers": 4}) as run:
        run.metrics({"train_loss": 3.0, "seconds": 1.7}, step=1)  # repeated after the checkpoint
        assert all_runs()[0].info.status == "RUNNING"
        run.metrics({"train_loss": 2.0}, step=2)
    (found,) = all_runs()
    assert found.info.status == "FINISHED"
    assert history(found, "train_loss") == [(1, 3.0), (2, 2.0)]
    assert sorted(history(found, "seconds")) == [(1, 1.5), (1, 1.7)]
    assert found.data.params == {"train.epochs": "2", "train.workers": "4"}


def test_a_param_changed_by_a_resumed_run_becomes_a_tag(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt), opened():
        raise KeyboardInterrupt
    assert all_runs()[0].info.status == "KILLED"
    with opened(params={"train.epochs": 3}):
        pass
    (found,) = all_runs()
    assert found.data.params == {"train.epochs": "2"}
    assert found.data.tags["params.train.epochs"] == "3"


def test_a_finished_run_is_not_gone_on_with_unless_asked(root: Path) -> None:
    trained()
    with opened(reopen=True) as run:
        run.metrics({"train_loss": 2.0}, step=1)
        run.metrics({"train_loss": 1.0}, step=2)
    (found,) = all_runs()
    assert history(found, "train_loss") == [(1, 2.0), (2, 1.0)]
    trained()
    assert len(all_runs()) == 2


def test_two_processes_with_one_key_have_two_runs(root: Path) -> None:
    with opened() as one, opened() as two:
        one.metrics({"train_loss": 1.0}, step=1)
        two.metrics({"train_loss": 2.0}, step=1)
    assert sorted(r.data.metrics["train_loss"] for r in all_runs()) == [1.0, 2.0]


def script(root: Path, body: str) -> "subprocess.Popen[str]":
    """A process that trains in `root`, without MLflow, which takes long to import."""
    code = "import os, sys, time, signal\nsys.modules['mlflow'] = None\n"
    code += "from pipeline import tracking\n" + body
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def events(root: Path, key: str = "k") -> list[dict[str, Any]]:
    return [event for event, _ in journal.read(root / ".journal" / f"{key}.jsonl")]


def test_sigterm_ends_a_run_as_killed_and_a_child_leaves_it_alone(root: Path) -> None:
    body = """
with tracking.Run.open(key="k", name="n", params={}, tags={}) as run:
    if os.fork() == 0:
        run.metrics({"child": 1}, step=1)
        os.kill(os.getpid(), signal.SIGTERM)
        sys.exit()
    os.wait()
    run.metrics({"parent": 1}, step=1)
    try:
        print("training", flush=True)
        time.sleep(60)
    finally:
        print("unwound", flush=True)
"""
    process = script(root, body)
    assert process.stdout
    assert process.stdout.readline() == "training\n"
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "unwound\n")
    said = events(root)
    assert [e["values"] for e in said if "values" in e and "parent" in e["values"]]
    assert not [e for e in said if "child" in e.get("values", {})]
    assert [e["status"] for e in said if e["event"] == "end"] == ["KILLED"]
    assert err.count("cannot be reached") == 1
    assert err.count("no more system metrics") == 1
    assert "Traceback" not in err


def test_a_line_cut_in_half_by_sigkill_is_forgotten(root: Path) -> None:
    with opened():
        pass
    path = root / ".journal" / "k.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + b'{"event": "end", "stat')
    with opened() as run:
        run.metrics({"train_loss": 1.0}, step=1)
    assert [e["event"] for e in events(root)] == ["open", "open", "metrics", "end"]
    (found,) = all_runs()
    assert found.data.metrics == {"train_loss": 1.0}


# --- evaluation -----------------------------------------------------------------------------------


def test_an_evaluation_continues_the_run_of_its_model(root: Path) -> None:
    trained()
    before = all_runs()[0].info
    with evaluated() as run:
        run.metrics({"loc/top1_loc_err": 40.0})
    with pytest.raises(ValueError, match="broken"), evaluated():
        raise ValueError("broken")
    (found,) = all_runs()
    assert (found.info.status, found.info.end_time) == ("FINISHED", before.end_time)
    assert found.data.metrics == {"train_loss": 1.0, "loc/top1_loc_err": 40.0}
    assert found.data.params == {"train.epochs": "2", "box.threshold": "0.2"}
    assert found.data.tags["evaluation.status"] == "FAILED"
    folder = root / "mlartifacts" / found.info.run_id / "artifacts" / "provenance"
    assert json.loads((folder / "evaluation.json").read_text())["host"] == socket.gethostname()


@pytest.mark.parametrize(
    "other",
    [{"evaluation": "e2"}, {"params": {"box.threshold": 0.3}}],
    ids=["settings", "params"],
)
def test_another_evaluation_of_the_model_is_a_sibling(root: Path, other: dict[str, Any]) -> None:
    trained()
    with evaluated() as run:
        run.metrics({"loc/top1_loc_err": 40.0})
    for figure in (30.0, 31.0):
        with evaluated(**other) as run:
            run.metrics({"loc/top1_loc_err": figure})
    training, sibling = all_runs()
    assert training.data.metrics["loc/top1_loc_err"] == 40.0
    assert sibling.data.tags["mlflow.parentRunId"] == training.info.run_id
    assert sibling.data.tags["training.key"] == "k"
    assert sibling.data.metrics == {"train_loss": 1.0, "loc/top1_loc_err": 31.0}
    assert history(sibling, "train_loss") == [(1, 2.0), (2, 1.0)]
    assert sibling.data.params["train.epochs"] == "2"
    assert sibling.info.status == "FINISHED"


def test_how_the_same_weights_were_trained_is_no_other_evaluation(root: Path) -> None:
    trained()
    with evaluated(params={"train.epochs": 9, "box.threshold": 0.2}):
        pass
    (found,) = all_runs()
    assert found.data.params == {"train.epochs": "2", "box.threshold": "0.2"}
    assert found.data.tags["params.train.epochs"] == "9"


def test_an_evaluation_of_an_unknown_model_has_its_own_run(root: Path) -> None:
    with evaluated() as run:
        run.metrics({"loc/top1_loc_err": 40.0})
    (found,) = all_runs()
    assert found.data.tags["model.sha256"] == SHA
    assert found.info.status == "FINISHED"


def write_evaluation(folder: Path) -> None:
    folder.mkdir(parents=True)
    figures = {"top1_loc_err": 40.0, "intervals": {"top1_loc_err": [35.0, 45.0]}}
    (folder / "localization.json").write_text(json.dumps({**figures, "model_sha256": SHA}))
    (folder / "per_image.csv").write_text("id,iou_true\n1,\n")
    (folder / "per_class.csv").write_text("class,images,top1_loc_err\nbird,3,\ncat,1,50.0\n")
    (folder / "threshold_curve.csv").write_text("threshold,box_acc_50\n0.0,10\n0.29,80.5\n")


def test_an_evaluations_files_become_figures_a_description_and_a_table(root: Path) -> None:
    write_evaluation(root / "metrics")
    with evaluated() as run:
        run.outcome(logged.outcome(root / "metrics"))
    (found,) = all_runs()
    assert found.data.metrics == {
        "loc/top1_loc_err": 40.0,
        "loc/top1_loc_err_low": 35.0,
        "loc/top1_loc_err_high": 45.0,
    }
    assert "| top1_loc_err | 40.0 | 35.0 – 45.0 |" in found.data.tags["mlflow.note.content"]
    artifacts = root / "mlartifacts" / found.info.run_id / "artifacts"
    table = json.loads((artifacts / "localization/per_class.json").read_text())
    assert table["data"] == [["bird", 3, None], ["cat", 1, 50.0]]
    assert found.data.tags["mlflow.loggedArtifacts"] == json.dumps(
        [{"path": "localization/per_class.json", "type": "table"}]
    )


# --- servers that do not answer -------------------------------------------------------------------


def test_a_dead_server_is_noticed_quickly_and_told_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    port = mlflow_session.free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    start = time.monotonic()
    with opened() as run:
        for step in range(50):
            run.metrics({"train_loss": step}, step=step)
    assert time.monotonic() - start < 5
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"MLflow (http://127.0.0.1:{port}) cannot be reached: Connection refused" in said
    assert str(root / ".journal" / "k.jsonl") in said
    assert "wsol track sync" in said
    assert "secret" not in said + (root / ".journal" / "k.jsonl").read_text()
    assert len(events(root)) == 52


def test_a_hanging_server_holds_a_run_up_for_seconds_only(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "LIVE_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with opened() as run:
            noticed = time.monotonic() - start
            for step in range(5):
                run.metrics({"train_loss": 1.0}, step=step)
    assert 1 <= noticed < 2
    assert time.monotonic() - start < 4  # a second try at the end
    assert "timed out" in capfd.readouterr().err


def test_a_store_that_answers_a_byte_a_second_holds_a_run_and_sync_up_for_seconds_only(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipeline.tracking import sync

    def trickle(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b"x" * 500:
                connection.send(bytes([byte]))
                time.sleep(0.3)

    store._load_client()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=trickle, args=(server,), daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with opened() as run:
            run.metrics({"train_loss": 1.0}, step=1)
        assert time.monotonic() - start < 6
        said = capfd.readouterr().err
        assert said.count("\n") == 1 and "cannot be reached: timed out" in said
        start = time.monotonic()
        with pytest.raises(UserError, match="cannot be reached: timed out; start it"):
            sync.sync(root, print)
        assert time.monotonic() - start < 6


@pytest.mark.parametrize("fault", ["garbage", "locked", "a folder", "short"])
def test_a_database_that_cannot_be_opened_holds_a_run_up_for_seconds_only(
    fault: str, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = root / "mlflow.db"
    lock = sqlite3.connect(file, isolation_level=None)
    if fault == "locked":
        lock.execute("BEGIN EXCLUSIVE")
    elif fault == "garbage":
        file.write_bytes(b"no database at all" * 500)
    elif fault == "short":
        file.write_bytes(file.read_bytes()[:5000])
    else:
        file.unlink()
        file.mkdir()
    store._load_client()
    start = time.monotonic()
    with opened() as run:
        run.metrics({"train_loss": 1.0}, step=1)
    assert time.monotonic() - start < 5.5
    said = capfd.readouterr().err
    assert said.count("\n") == 1, said
    assert f"{file} cannot be opened: " in said
    assert ("end the process that holds it" in said) == (fault == "locked")
    assert "kept in" in said
    lock.close()
    if fault == "locked":
        from pipeline.tracking import sync

        sync.sync(root, print)
        assert all_runs()[0].data.metrics == {"train_loss": 1.0}


def test_a_deleted_experiment_is_named_and_its_runs_are_there_after_it_is_restored(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipeline.tracking import sync

    with opened("first"):
        pass
    client, experiment = store.connect(store.current(root))
    with opened("second") as run:
        run.metrics({"train_loss": 2.0}, step=1)
        client.delete_experiment(experiment)  # while a training is running
        run.metrics({"train_loss": 1.0}, step=2)
    store.disconnect()
    with opened("third"):
        pass
    lines = capfd.readouterr().err.splitlines()
    command = (
        f"MLFLOW_TRACKING_URI=sqlite:///{root}/mlflow.db "
        f"mlflow experiments restore --experiment-id {experiment}"
    )
    assert len(lines) == 2
    for line in lines:
        assert "the experiment 'wsol' was deleted; restore it: " in line and command in line
        assert "start it" not in line and "kept in" in line
    with pytest.raises(UserError, match="the experiment 'wsol' was deleted; restore it"):
        sync.sync(root, print)
    subprocess.run(
        [sys.executable, "-m", *command.split()[1:]],
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"},
        check=True,
        capture_output=True,
    )
    sync.sync(root, print)
    found = {run.data.tags["training.key"]: run for run in all_runs()}
    assert set(found) == {"first", "second", "third"}
    assert history(found["second"], "train_loss") == [(1, 2.0), (2, 1.0)]


@pytest.mark.parametrize(
    "name", ["what?", "a#b", "50% off", "mode=rw?cache=x", "Vögel und 鳥", "%3F", "a+b&c"]
)
def test_runs_stay_inside_a_clone_whatever_its_path_holds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mlflow_session.repository(tmp_path / "outside" / name / "clone")
    monkeypatch.chdir(made)
    (made / "epochs.csv").write_text("epoch\n1\n")
    around = {path for path in tmp_path.rglob("*") if not path.is_relative_to(made)}
    with opened() as run:
        run.metrics({"train_loss": 1.0}, step=1)
        run.artifact(Path("epochs.csv"), "training")
    (found,) = all_runs()
    assert found.data.metrics == {"train_loss": 1.0}
    artifacts = made / "mlartifacts" / found.info.run_id / "artifacts"
    assert (artifacts / "training" / "epochs.csv").exists()
    client, _ = store.connect(store.current(made))
    files = [file.path for file in client.list_artifacts(found.info.run_id)]
    assert files == ["provenance", "training"]
    with contextlib.closing(sqlite3.connect(made / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert around == {path for path in tmp_path.rglob("*") if not path.is_relative_to(made)}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    shutil.copy(made / "mlflow.db", made / "other.db")
    with opened("other"):
        pass
    assert len(all_runs()) == 2 and (made / "other.db").exists()
    assert around == {path for path in tmp_path.rglob("*") if not path.is_relative_to(made)}
    store.disconnect()


def test_a_fresh_database_in_a_clone_with_a_question_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "is it?" / "clone #1"
    (made / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(made)
    with opened():
        pass
    assert len(all_runs()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["is it?"]
    client, _ = store.connect(store.current(made))
    (experiment,) = client.search_experiments()  # MLflow's own, empty one is deleted
    assert experiment.name == "wsol" and "in percent" in experiment.tags["mlflow.note.content"]
    assert (made / "mlflow.db").stat().st_size > 0
    store.disconnect()


def test_a_full_disk_does_not_stop_a_training(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (root / ".journal").write_text("no folder can be made here")
    with opened() as run:
        run.metrics({"train_loss": 1.0}, step=1)
    assert "nothing of this run is kept" in capfd.readouterr().err


def test_a_damaged_line_costs_that_line_only(root: Path) -> None:
    (root / ".journal").mkdir()
    (root / ".journal" / "k.jsonl").write_text("no JSON\n")
    with opened() as run:
        run.metrics({"train_loss": 1.0}, step=1)
    assert all_runs()[0].data.metrics == {"train_loss": 1.0}


def test_a_wrong_value_does_not_stop_a_training(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with opened() as run:
        run.metrics({"train_loss": "high"}, step=1)  # type: ignore[dict-item]
        run.artifact(Path("absent.csv"))
        run.metrics({"train_loss": 1.0}, step=2)
    assert all_runs()[0].data.metrics == {"train_loss": 1.0}
    said = capfd.readouterr().err
    assert "metrics: ValueError" in said
    assert "artifact: FileNotFoundError" in said


# --- machine use ----------------------------------------------------------------------------------


def test_a_short_run_has_system_metrics_also_of_the_gpu(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.system_metrics.metrics import gpu_monitor
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

    class FakeGpu(BaseMetricsMonitor):
        def collect_metrics(self) -> None:
            self._metrics["gpu_0_utilization_percentage"].append(97.0)

        def aggregate_metrics(self) -> dict[str, float]:
            return {key: values[-1] for key, values in self._metrics.items()}

    monkeypatch.setattr(gpu_monitor, "GPUMonitor", FakeGpu)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with opened():
        time.sleep(0.5)
    found = all_runs()[0].data.metrics
    assert found["system/gpu_0_utilization_percentage"] == 97.0
    assert 0 <= found["system/system_memory_usage_percentage"] <= 100


# --- the model ------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


CLASSES = ["wren", "finch", "tern", "gull", "crow"]


def write_model(root: Path) -> None:
    """A model, and an evaluation that says how its boxes are read."""
    reading = trained_model.write(root / "models", CLASSES)
    said = root / "metrics" / "localization.json"
    said.write_text(json.dumps({**json.loads(said.read_text()), "reading": reading}))


def predicted(uri: str, monkeypatch: pytest.MonkeyPatch, address: str) -> list[list[Any]]:
    import base64

    import mlflow
    import pandas as pd

    monkeypatch.setattr(sys, "path", list(sys.path))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)
    try:
        model = mlflow.pyfunc.load_model(uri)
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    assert model.metadata.signature.inputs.to_dict() == [
        {"type": "binary", "name": "image", "required": True}
    ]
    images = [png(40, 20), base64.b64encode(png(10, 30)).decode()]
    table = model.predict(pd.DataFrame({"image": images}))
    assert list(table.columns) == ["label", "score", "x0", "y0", "x1", "y1", "error"]
    assert table.pop("error").isna().all()
    rows: list[list[Any]] = table.values.tolist()
    return rows


def are_predictions(rows: list[list[Any]]) -> bool:
    """One row for each of the two images: a class, a probability, a box inside the image."""
    return len(rows) == 2 and all(
        label in CLASSES and 0 < score <= 1 and 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        for (label, score, x0, y0, x1, y1), (width, height) in zip(
            rows, ((40, 20), (10, 30)), strict=True
        )
    )


def test_the_model_can_be_loaded_from_mlflow(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_evaluation(root / "metrics")
    write_model(root)
    with evaluated() as run:
        run.metrics({"loc/top1_loc_err": 40.0})
        run.model(root / "models", root / "metrics" / "localization.json", root / "localizer")
    (found,) = all_runs()
    (output,) = found.outputs.model_outputs
    client, _ = store.connect(store.current(root))
    logged = client.get_logged_model(output.model_id)
    assert logged.status == "READY"
    assert [(m.key, m.value) for m in logged.metrics] == [("loc/top1_loc_err", 40.0)]
    assert logged.artifact_location.startswith((root / "mlartifacts").as_uri())
    address = store.current(root).uri
    assert are_predictions(predicted(f"models:/{output.model_id}", monkeypatch, address))


def test_the_served_model_names_every_package_its_code_imports() -> None:
    import ast

    code = {ROOT / "pipeline" / "tracking" / "served_model.py"} | imported(
        ROOT / "pipeline" / "model" / "predictor.py"
    )
    code |= set((ROOT / "pipeline" / "methods").glob("*.py"))
    names = set()
    for path in code:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    third = names - set(sys.stdlib_module_names) - {"pipeline"}
    known = packages_distributions()
    missing = {name for name in third if not set(known[name]) & set(serving.PACKAGES)}
    assert missing <= {
        "PIL",
        "yaml",
        "annotated_types",
        "sklearn",
    }  # Pillow, PyYAML, part of pydantic; training only
    pinned = [line.partition("==") for line in serving.requirements()]
    assert all(version and "+" not in version for _, _, version in pinned)


# --- a real server --------------------------------------------------------------------------------


def test_a_server_killed_during_training_misses_nothing_in_the_end(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipeline.tracking import sync

    server = mlflow_session.server()
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    target = Store(root, "wsol", server.address)
    write_evaluation(root / "metrics")
    write_model(root)
    with opened() as run:
        run.metrics({"train_loss": 3.0}, step=1)
        server.kill()
        start = time.monotonic()
        run.metrics({"train_loss": 2.0}, step=2)
        assert time.monotonic() - start < store.LIVE_SECONDS + 1
        run.metrics({"train_loss": 1.0}, step=3)
        run.tag("model.sha256", SHA)
        run.artifact(root / "metrics" / "per_class.csv", "training")
    with evaluated() as run:
        run.outcome(logged.outcome(root / "metrics"))
        run.model(root / "models", root / "metrics" / "localization.json", root / "localizer")
    (root / "metrics" / "per_class.csv").write_text("of another experiment")
    ended = events(root)[-1]["t"]
    assert capfd.readouterr().err.count("cannot be reached") == 2  # one per run

    server.start()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # another shell: journals know their server
    sync.sync(root, print)
    assert "events delivered" in capfd.readouterr().out
    (found,) = all_runs(target)
    assert found.info.status == "FINISHED"
    assert found.info.end_time == ended
    assert history(found, "train_loss", target) == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert found.data.metrics["loc/top1_loc_err"] == 40.0
    client, _ = store.connect(target)
    local = client.download_artifacts(found.info.run_id, "training/per_class.csv", str(root))
    assert Path(local).read_text().startswith("class,images")
    (output,) = found.outputs.model_outputs
    assert are_predictions(predicted(f"models:/{output.model_id}", monkeypatch, server.address))

    sync.sync(root, print)
    assert capfd.readouterr().out == ""
    for path in journal.all_journals(root):
        sync.forget(path, target)
    sync.sync(root, print)
    (again,) = all_runs(target)
    assert history(again, "train_loss", target) == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert again.info.status == "FINISHED"
    server.kill()


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sqlite:///runs.db", "sqlite:////r/runs.db"),
        ("sqlite+pysqlite:///a/b.db?x=1", "sqlite+pysqlite:////r/a/b.db?x=1"),
        ("sqlite:////abs/runs.db", "sqlite:////abs/runs.db"),
        ("http://host:5000", "http://host:5000"),
        ("", ""),
    ],
)
def test_a_relative_database_is_below_the_root(given: str, meant: str) -> None:
    assert store.absolute(given, Path("/r")) == meant


def test_the_root_is_that_of_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert project_root() == tmp_path
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "a"))
    assert project_root() == tmp_path / "a"


def test_passwords_are_used_but_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db/runs")
    target = store.current(Path("/r"))
    assert target.address == "postgresql://db/runs"
    assert target.uri == "postgresql://me:secret@db/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other")
    assert target.uri == "postgresql://db/runs"
