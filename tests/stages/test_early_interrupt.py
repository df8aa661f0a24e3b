"""Ctrl-C in a command's first seconds, while PyTorch and the rest are imported: one line, no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.interrupts import interruptible
from tests.tiny import write_params

pytestmark = pytest.mark.slow


COMMANDS = {
    "train": ["-m", "stages.train"],
    "evaluate": ["-m", "stages.evaluate"],
    "ablate": ["-m", "stages.ablate", "methods-cam"],
    "check": ["-m", "stages.check"],
    "report": ["-m", "stages.report"],
    "predict": [str(Path(sys.executable).with_name("wsol")), "predict", "photos"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_modules_are_imported(tmp_path: Path, name: str) -> None:
    write_params(tmp_path)
    said = tmp_path / "said"
    for delay in (0.0, 0.2, 0.8):
        with said.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-X", "importtime", *COMMANDS[name]],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
                preexec_fn=interruptible,
            )
            began = time.monotonic()
            while "stages.early" not in said.read_text() and time.monotonic() < began + 60:
                time.sleep(0.01)
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=60)
        lines = [line for line in said.read_text().splitlines() if "import time:" not in line]
        if code == 2:  # it had ended before, for want of photographs or data
            assert [line[:7] for line in lines] == ["error: "] * len(lines)
            continue
        assert code == 130
        assert [line for line in lines if not line.startswith("error")][-1].startswith(
            "interrupted: "
        )
        assert "Traceback" not in "\n".join(lines)
