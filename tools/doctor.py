"""What this machine has for the pipeline, and what to do about what is missing.

wsol doctor
"""

import argparse
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.text import line

FREE_GB = 5  # for the environment's caches, a data set and its packed copy
HOSTS = ("download.pytorch.org", "huggingface.co")  # published weights
Finding = tuple[bool, str, str]
"""Whether it is well, what was found, and what to do if it is not."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def main(options: argparse.Namespace) -> None:
    """Print a line for each check; exit 1 if something is missing that a run needs."""
    missing = 0
    for name, needed, check in CHECKS:
        for good, found, remedy in check():
            mark = "ok" if good else "MISSING" if needed else "note"
            missing += needed and not good
            print(line(f"{mark:8}{name:10}{found}" + ("" if good else f"; {remedy}")))
    if missing:
        sys.exit(1)


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield (
        good,
        platform.python_version(),
        "install Python 3.11 or newer, then `make setup PYTHON=…`",
    )


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield False, f"PyTorch cannot be imported ({error})", "run `make setup`"
        return
    yield True, f"PyTorch {torch.__version__}, {os.cpu_count()} processors", ""


def _gpu() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            yield True, f"{name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free", ""
    else:
        remedy = (
            "the default and the preset birds are made for a CPU; with an NVIDIA GPU see its driver"
        )
        yield False, "no GPU that PyTorch can use", remedy


def _git() -> Iterator[Finding]:
    for program in ("git", "dvc"):
        place = shutil.which(program)
        remedy = "install git" if program == "git" else "activate .venv, or run `make setup`"
        yield bool(place), f"{program}: {place or 'not found'}", remedy


def _project() -> Iterator[Finding]:
    good = Path("params.yaml").exists() and Path("dvc.yaml").exists()
    yield good, "params.yaml and dvc.yaml in this folder" if good else "no project here", "cd to it"


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield free >= FREE_GB, f"{free:.1f} GB free here", f"make room: {FREE_GB} GB or more"


def _weights() -> Iterator[Finding]:
    for host in HOSTS:
        try:
            socket.create_connection((host, 443), timeout=3).close()
            yield True, f"{host} answers", ""
        except OSError as error:
            remedy = "`-S weights=none`, or the file of a state dict from another machine"
            yield False, f"{host} cannot be reached ({error.strerror or error})", remedy


def _mlflow() -> Iterator[Finding]:
    from pipeline.cache import project_root
    from pipeline.tracking import store

    target = store.current(project_root())
    if target.file is not None and not target.file.exists():
        yield True, f"{target} is made by the first run", ""
        return
    try:
        store.connect(target)
        yield True, f"{target} answers", ""
    except UserError as error:
        yield False, str(error), "runs are kept in .journal meanwhile"


def _remote() -> Iterator[Finding]:
    try:
        asked = subprocess.run(
            ["dvc", "remote", "list"], capture_output=True, text=True, timeout=30
        )
        names = asked.stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        names = []
    found = f"DVC remote {names[0]}" if names else "no DVC remote"
    yield bool(names), found, "to share results: `dvc remote add -d NAME ADDRESS`"


CHECKS: tuple[tuple[str, bool, Callable[[], Iterator[Finding]]], ...] = (
    ("python", True, _python),
    ("torch", True, _torch),
    ("gpu", False, _gpu),
    ("programs", True, _git),
    ("project", True, _project),
    ("disk", True, _disk),
    ("weights", False, _weights),
    ("mlflow", False, _mlflow),
    ("remote", False, _remote),
)
