"""A folder with prepared images and small params, for stages that train, without DVC."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from tests import tiny
from tests.imports import ROOT


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def environment() -> dict[str, str]:
    outer = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    return {**outer, "PYTHONPATH": str(ROOT), "WSOL_TRACKING": "off", "OMP_NUM_THREADS": "1"}


def place(folder: Path, prepared: Path, **changes: object) -> Path:
    """A folder to run stages in."""
    folder.mkdir()
    shutil.copytree(prepared, folder / "data" / "prepared")
    tiny.write_params(folder, **changes)
    return folder


def until_an_epoch_is_done(folder: Path, process: subprocess.Popen[str]) -> None:
    """Return as soon as a state is on disk that a training can go on from."""
    began = time.monotonic()
    while not list(folder.glob(".checkpoints/*/state.pt")):
        assert process.poll() is None, "the training ended before its first epoch"
        assert time.monotonic() < began + 120
        time.sleep(0.05)
