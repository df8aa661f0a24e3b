"""A training killed at random moments: does it end with the weights of one that was not?

python -m benchmarks.kills               20 moments, written to benchmarks/kills.json
python -m benchmarks.kills --moments 3

Each time a short training (`python -m stages.train`, drawn squares, a few epochs) is started, gets SIGKILL at a
moment drawn from its whole duration, start-up and writing included, and the same command is given again.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import trange

from benchmarks.boxes import machine
from pipeline.files import write_json
from tests import tiny

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--method", default="ahd")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/kills.json"))
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tiny.prepare(folder / "data" / "prepared", {"train": 24, "val": 3})
        tiny.write_params(folder, method=options.method, train__epochs=options.epochs)
        began = time.monotonic()
        assert train(folder) is None
        whole = time.monotonic() - began
        expected = weights(folder)
        rows: list[dict[str, Any]] = []
        for _ in trange(options.moments, desc="kills", leave=False):
            for left in (".checkpoints", "models", "metrics"):
                shutil.rmtree(folder / left, ignore_errors=True)
            moment = float(rng.uniform(0, whole))
            said = train(folder, kill_after=moment)
            state = bool(list(folder.glob(".checkpoints/*/state.pt")))
            again = train(folder)
            assert again is None, again
            rows.append(
                {
                    "second": round(moment, 2),
                    "killed": said is not None,
                    "state_was_there": state,
                    "same_weights": weights(folder) == expected,
                }
            )
    same = sum(row["same_weights"] for row in rows)
    print(f"kills: {len(rows)} moments in {whole:.1f} s, {same} ended with the same weights")
    write_json(
        options.out,
        {
            "machine": machine(),
            "method": options.method,
            "epochs": options.epochs,
            "seconds": round(whole, 1),
            "weights_sha256": expected,
            "same": same,
            "moments": rows,
        },
    )


def train(folder: Path, kill_after: float | None = None) -> str | None:
    """Run the stage; None if it ended well, else how it ended."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    with subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT), "WSOL_TRACKING": "off"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if kill_after is not None:
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    return None if process.returncode == 0 else f"exit {process.returncode}: {said[-500:]}"


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "models" / "weights.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
