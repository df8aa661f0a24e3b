"""Where a run comes from: commit, DVC experiment, code, machine."""

import getpass
import hashlib
import os
import platform
import re
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

CODE = Path(__file__).parents[2]  # in `dvc exp run --temp`, the copy that runs


SEARCHED = ("git.commit", "dvc.experiment", "dvc.batch", "restored")  # tags; the rest is a file


def here() -> dict[str, str]:
    """Where this process comes from; what cannot be known is left out."""
    experiment = os.environ.get("DVC_EXP_NAME", "")
    torch = sys.modules.get("torch")  # its own version says which build it is
    found = {
        "git.commit": os.environ.get("DVC_EXP_BASELINE_REV") or _head(),
        "code.sha256": code_sha256(),
        "dvc.experiment": experiment,
        # A queued grid named with -n is <name>-1, <name>-2, …
        "dvc.batch": re.sub(r"-\d+$", "", experiment),
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "torch": str(getattr(torch, "__version__", "")) or version("torch"),
    }
    return {key: value for key, value in found.items() if value}


def tags(found: dict[str, str]) -> dict[str, str]:
    """What runs are searched by."""
    return {key: value for key, value in found.items() if key in SEARCHED}


def again(found: dict[str, str]) -> str:
    """How to have the results in the working directory once more; empty if that is not known."""
    commit = found.get("git.commit", "")
    if name := found.get("dvc.experiment"):
        return f"To have it again: `dvc exp apply {name} && dvc repro --pull`"
    return f"To have it again: `git checkout {commit[:10]} && dvc repro --pull`" if commit else ""


def mlflow_tags(found: dict[str, str], description: str | None) -> dict[str, str]:
    """What MLflow's own columns show of a new run: user, source, version, description."""
    commit = found.get("git.commit", "")
    stage = found.get("dvc.stage", "").partition("@")[0]
    shown = {
        "mlflow.user": _user(),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": f"stages.{stage}" if stage else Path(sys.argv[0]).name,
        "mlflow.source.git.commit": commit,
        "mlflow.note.content": "\n\n".join(filter(None, [description, again(found)])),
    }
    return {key: value for key, value in shown.items() if value}


def code_sha256() -> str:
    """SHA-256 over the paths and contents of pipeline/ and stages/, uncommitted changes included."""
    sha = hashlib.sha256()
    for path in sorted(CODE.glob("pipeline/**/*.py")) + sorted(CODE.glob("stages/**/*.py")):
        content = path.read_bytes()
        sha.update(f"{path.relative_to(CODE).as_posix()} {len(content)}\n".encode() + content)
    return sha.hexdigest()


def _head() -> str:
    try:
        asked = ["git", "-C", str(CODE), "rev-parse", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return ""
