"""The stage `train` when it is stopped: what it says, and what the same command does next."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.interrupts import interruptible
from tests.stages.trained import command, environment, place, until_an_epoch_is_done

pytestmark = pytest.mark.slow


TRAIN = (sys.executable, "-m", "stages.train")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", {"train": 9, "val": 3})


def stopped(folder: Path, number: signal.Signals, *, group: bool = False) -> tuple[int, str]:
    """Start a training, send it a signal after its first epoch; how it ended and what it said.

    group: send it to the decoding processes as well, as a terminal does.
    """
    with subprocess.Popen(
        TRAIN,
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=interruptible,
        start_new_session=True,
    ) as process:
        until_an_epoch_is_done(folder, process)
        (os.killpg if group else os.kill)(process.pid, number)
        said, _ = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("group", [False, True])
def test_ctrl_c_says_one_line_and_the_same_command_goes_on(
    tmp_path: Path, prepared: Path, group: bool
) -> None:
    settings = {"train__epochs": 60, "train__workers": 3, "train__cache_mib": 0}
    folder = place(tmp_path / "p", prepared, **settings)
    code, said = stopped(folder, signal.SIGINT, group=group)
    assert code == 130
    assert "interrupted: finished epochs are kept; the same command continues after them" in said
    assert "Traceback" not in said
    assert not (folder / "models").exists()
    again = command(folder, *TRAIN)
    assert again.returncode == 0, again.stdout
    assert "continues after epoch" in again.stdout


def test_other_settings_start_afresh_and_say_so(tmp_path: Path, prepared: Path) -> None:
    folder = place(tmp_path / "p", prepared, train__epochs=60)
    assert stopped(folder, signal.SIGKILL)[0] == -signal.SIGKILL
    tiny.write_params(folder, train__epochs=2, train__learning_rate=0.01)
    done = command(folder, *TRAIN)
    assert done.returncode == 0, done.stdout
    assert (
        "it differs in train.epochs (60 → 2), train.learning_rate (0.02 → 0.01); this one starts afresh"
        in done.stdout
    )
    assert "continues after" not in done.stdout


def test_fewer_images_than_a_batch_are_said(tmp_path: Path, prepared: Path) -> None:
    folder = place(tmp_path / "p", prepared, train__batch_size=64, train__epochs=2)
    done = command(folder, *TRAIN)
    assert done.returncode == 0, done.stdout
    assert "27 training images are fewer than train.batch_size, 64" in done.stdout


def test_a_full_device_is_said(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU can be filled here: the step raises what PyTorch raises there."""
    import torch

    from pipeline import params
    from pipeline.errors import UserError
    from pipeline.training import loop
    from pipeline.training.checkpoint import Checkpoint

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop.Step, "forward", full)
    settings = params.load(tiny.write_params(tmp_path))
    with pytest.raises(UserError, match="memory is full at epoch 1, with batches of 8 in fp32"):
        loop.train(settings, prepared, Checkpoint(tmp_path / "state"), loop.Progress())


@pytest.mark.parametrize("stage", [("train",), ("ablate", "methods-cam")])
def test_no_threshold_is_chosen_on_val_without_boxes(
    tmp_path: Path, stage: tuple[str, ...]
) -> None:
    """Said before anything is trained, also of a variant."""
    boxless = tiny.prepare(tmp_path / "prepared", {"train": 3, "val": 2, "test": 2}, boxes=False)
    folder = place(tmp_path / "place", boxless, box__selection="val")
    done = command(folder, sys.executable, "-m", f"stages.{stage[0]}", *stage[1:])
    (error,) = [line for line in done.stdout.splitlines() if not line.startswith("methods-")]
    assert done.returncode == 2
    assert "box.selection is 'val', and none of the " in error
    assert not (folder / "models").exists()
