"""Two processes share a training and its evaluation, by gloo on the CPU: the figures of one, told once."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pipeline.training.loop import MEASURED
from tests import tiny
from tests.stages.trained import command, environment, place, until_an_epoch_is_done

pytestmark = pytest.mark.slow


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Sizes that two processes, batches of 8 and batches of 16 do not divide
    counts = {"train": 9, "val": 3, "test": 7}
    return tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", counts)


def run(folder: Path, prepared: Path, launcher: tuple[str, ...], **changes: object) -> str:
    """Train and evaluate; what both say."""
    place(folder, prepared, train__batch_size=7, **changes)
    said = ""
    for stage in ("stages.train", "stages.evaluate"):
        done = command(folder, *launcher, "-m", stage)
        assert done.returncode == 0, done.stdout
        said += done.stdout
    return said


def figures(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics" / name).read_text())
    return {key: value for key, value in found.items() if key not in MEASURED}


@pytest.mark.parametrize(
    ("method", "launcher", "processes"),
    [("cam", (sys.executable,), 2), ("has", TORCHRUN, 1)],  # the second draws for each image
)
def test_two_processes_are_one(
    tmp_path: Path, prepared: Path, method: str, launcher: tuple[str, ...], processes: int
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    settings = {"method": method, "evaluate__pictures": 1}
    run(one, prepared, (sys.executable,), **settings)
    said = run(two, prepared, launcher, train__processes=processes, **settings)
    assert said.count("forward pass over 21 images") == 1
    assert figures(two, "train.json") == pytest.approx(figures(one, "train.json"), rel=1e-3)
    theirs, ours = (figures(folder, "localization.json") for folder in (one, two))
    for name in ("n", "top1_cls_err", "top1_loc_err", "gt_known_loc_err", "max_box_acc"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-3), name
    weights = (load_file(folder / "models" / "weights.safetensors") for folder in (one, two))
    for (name, a), b in zip(next(weights).items(), next(weights).values(), strict=True):
        assert (a - b).abs().max() <= 1e-3 * a.abs().max() + 3e-5, name


def test_a_mistake_is_told_once(tmp_path: Path, prepared: Path) -> None:
    folder = place(
        tmp_path / "p", prepared, train__batch_size=7, train__processes=2, train__learning_rate=1e30
    )
    done = command(folder, sys.executable, "-m", "stages.train")
    assert done.returncode == 2
    assert done.stdout.count("error: the loss is not finite at epoch") == 1
    assert "Traceback" not in done.stdout


def test_no_process_outlives_its_launcher_and_the_training_goes_on(
    tmp_path: Path, prepared: Path
) -> None:
    settings = {"train__processes": 2, "train__epochs": 40}
    folder = place(tmp_path / "p", prepared, train__batch_size=7, **settings)
    words = (sys.executable, "-m", "stages.train")
    with subprocess.Popen(
        words,
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as launcher:
        until_an_epoch_is_done(folder, launcher)
        members = children(launcher.pid)
        assert len(members) == 2
        launcher.send_signal(signal.SIGKILL)
    ended = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in members) and time.monotonic() < ended:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in members)
    done = command(folder, *words)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("continues after epoch") == 1


def children(pid: int) -> list[int]:
    """Those of a process that are Python, by number."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]
