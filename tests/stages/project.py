"""A copy of this repository as a user has it: a Git and DVC project of its own, made small."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.imports import ROOT

SMALL: dict[str, Any] = {
    "datasets.synthetic.classes": 3,
    "datasets.synthetic.train_per_class": 10,
    "datasets.synthetic.test_per_class": 6,
    "datasets.synthetic.side": 64,
    "prepare.short_side": 64,
    "input.resize": 64,
    "input.crop": 56,
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.workers": 0,
    "evaluate.thresholds": 20,
    "evaluate.bootstrap": 50,
    "evaluate.pictures": 2,
}
CORE = ["methods-cam", "methods-ass", "rcam-two_stage"]


@dataclass(frozen=True)
class Project:
    """Commands run in `folder`, with this environment's programs and nothing of the outer project."""

    folder: Path

    def run(
        self, *command: str, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; its output, both streams together, is in `stdout`."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment() | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}"
        return done

    def run_stages(self, *command: str) -> list[str]:
        """The stages that a DVC command runs."""
        return re.findall(r"Running stage '([^']+)'", self.run(*command).stdout)

    def changed(self, *targets: str) -> set[str]:
        """Stages that DVC calls changed; `inputs`, which it always does, is left out."""
        status = json.loads(self.run("dvc", "status", "--json", *targets).stdout)
        return {stage for stage, why in status.items() if why != ["always changed"]}

    def environment(self) -> dict[str, str]:
        outer = {
            k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))
        }
        return outer | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SHELL": "/bin/bash",
            "DVC_SITE_CACHE_DIR": str(self.folder / ".site-cache"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.com",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.com",
        }

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def read(self, path: str) -> str:
        return (self.folder / path).read_text()

    def set(self, **changes: object) -> None:
        """Change params.yaml: dotted keys, `__` for a dot."""
        values = yaml.safe_load(self.read("params.yaml"))
        for key, value in changes.items():
            put(values, key.replace("__", "."), value)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def put(values: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for part in parents:
        values = values[part]
    assert last in values, key
    values[last] = value


def make(folder: Path) -> Project:
    """Copy what Git knows of this repository to `folder`, make the experiment small, commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if name != "dvc.lock" and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    project = Project(folder)
    values = yaml.safe_load(project.read("params.yaml"))
    for key, value in SMALL.items():
        put(values, key, value)
    values["ablate"]["core"] = CORE
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with (folder / ".gitignore").open("a") as ignored:
        ignored.write(".site-cache/\n")
    project.run("git", "init", "-q", "-b", "main")
    project.commit("A small experiment")
    return project
