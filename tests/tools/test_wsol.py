"""The console command: help that runs nothing, one-line mistakes, exit codes, completion, speed."""

import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.imports import ROOT
from tools import __version__, wsol


def shell(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`wsol` with `arguments` in `folder`, as its own process."""
    code = "import sys; from tools.wsol import main; sys.argv[0] = 'wsol'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_help_names_every_command_and_is_quick(tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = shell(tmp_path, "--help")
        seconds.append(time.perf_counter() - start)
    assert done.returncode == 0 and done.stderr == ""
    assert [name for name in wsol.COMMANDS if f"\n    {name} " not in done.stdout] == []
    assert min(seconds) < 2  # importing torch or mlflow takes several


@pytest.mark.parametrize("name", wsol.COMMANDS)
def test_a_commands_help_has_an_example_loads_no_framework_and_does_nothing(
    name: str, tmp_path: Path
) -> None:
    code = (
        "import sys; from tools import wsol\n"
        f"try: wsol.run(['{name}', '-h'])\n"
        "finally: print(sorted({'torch', 'mlflow', 'dvc', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: wsol {name}")
    assert f"\nwsol {name}" in done.stdout
    assert done.stdout.endswith("[]\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["predcit", "x"], r"^unknown command 'predcit'; allowed: .*; did you mean predict\?$"),
        ([], r"^no command given; allowed: predict, "),
        (["predict"], r"images; allowed: see wsol predict -h$"),
        (["score", "--nope"], r"; allowed: see wsol score -h$"),
        (["compare", "a", "b", "--bootstrap", "0"], r"^--bootstrap is 0; allowed: 1 or more$"),
        (["heatmaps", "nope"], r"^heatmap is 'nope'; allowed: cam, "),
        (["track"], r"; allowed: see wsol track -h$"),
        (["track", "nope"], r"; allowed: see wsol track -h$"),
        (["ui", "--port", "x"], r"'x'; allowed: see wsol ui -h$"),
        (["preset", "birds", "--set", "seed=1"], r"; allowed: see wsol preset -h$"),  # no guesses
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as raised:
        wsol.run(arguments)
    assert len(raised.value.problems) == 1 and "\n" not in str(raised.value)


def test_exit_codes(tmp_path: Path) -> None:
    assert shell(tmp_path, "preset").returncode == 0
    mistake = shell(tmp_path, "predict", "nothing-here")
    assert (mistake.returncode, mistake.stdout) == (2, "")
    assert mistake.stderr.startswith("error: no image in nothing-here")
    version = shell(tmp_path, "--version")
    assert (version.returncode, version.stdout) == (0, f"wsol {__version__}\n")


def test_a_reader_that_has_seen_enough_is_no_traceback(tmp_path: Path) -> None:
    code = "import sys; from tools.wsol import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "preset"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_completion_knows_commands_and_options(name: str, tmp_path: Path) -> None:
    done = shell(tmp_path, "--print-completion", name)
    assert done.returncode == 0
    assert "heatmaps" in done.stdout and "--no-pictures" in done.stdout
    if name == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_the_package_installs_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"] == {"wsol": "tools.wsol:main"}


def test_every_command_is_listed() -> None:
    modules = {
        path.stem
        for path in (ROOT / "tools").glob("*.py")
        if "\ndef arguments(" in path.read_text("utf-8")
    }
    assert modules == set(wsol.COMMANDS)
