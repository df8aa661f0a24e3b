"""What grows with the number of images, and what does not: real `dvc repro` on stand-ins of ILSVRC.

python -m benchmarks.scale                        1,000 and 100,000 images, written to benchmarks/scale.json
python -m benchmarks.scale --images 60 600 --classes 3 --per-file 20 --out other.json

The archives are made on the spot with the official layout (a tar of a tar per class, a tar of test images,
XML files of boxes; a tenth are test images) and the official names, of small JPEGs. In a scratch Git and DVC
project of this code:

kill       SIGKILL to `dvc repro preprocess` and all its processes when half of the files are finished; the
           same command again; the bytes against those of a run from nothing
preprocess the stage from its start to its end: images per second; the most memory that it and its workers
           held at a time (RSS counts shared pages in every process, PSS once; sampled ten times a second)
no-op      `dvc repro preprocess` with nothing to do, the least of five; its CPU seconds are less disturbed by others
push       `dvc push` to a folder; how many files it holds
start      what a training waits for after its imports: the split opened, workers started, the first batch
"""

import argparse
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from PIL import Image

from benchmarks.boxes import machine
from pipeline.files import write_json
from tests.made import many_ilsvrc
from tests.stages.project import Project, make

SIDES = (120, 160)  # height, width of the stand-ins
FIRST_BATCH = """
import json, time
from pathlib import Path
import torch
from pipeline import packed
from pipeline.loading.loader import Loader
prepared = Path("data/prepared")
started = time.perf_counter()
split = packed.Split.open(prepared, "train")
split.encoded(len(split) - 1)
opened = time.perf_counter()
loader = Loader(prepared, "train", (96, 96), batch_size=32, workers=2, cache_mib=0)
next(loader.batches(torch.randperm(len(loader))))
print(json.dumps({"open_s": opened - started, "first_batch_s": time.perf_counter() - opened}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--per-file", type=int, help="images per Arrow file; default: as the code")
    parser.add_argument(
        "--scratch", type=Path, help="folder for all of it; default: a temporary one"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/scale.json"))
    options = parser.parse_args()
    rows = []
    for images in options.images:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            rows.append(measure(Path(folder), images, options.classes, options.per_file))
        print(json.dumps(rows[-1], indent=2))
    height, width = SIDES
    settings = {"stand_in": f"{width} x {height}", "classes": options.classes}
    write_json(
        options.out, {"machine": machine() | {"cores": os.cpu_count()}, **settings, "runs": rows}
    )


def measure(
    folder: Path, images: int, classes: int, per_file: int | None = None, rounds: int = 5
) -> dict[str, Any]:
    """All figures for `images` images, of which a tenth are test images; leaves a project in `folder`."""
    test = max(1, images // classes // 10)
    train = images // classes - test
    many_ilsvrc(folder / "archives", classes, train, test, photo)
    (folder / "project").mkdir()
    project = made(folder / "project", folder / "archives", per_file)
    files = {path.name: path.stat().st_size for path in (folder / "archives").iterdir()}
    row: dict[str, Any] = {
        "images": classes * (train + test),
        "archives_mb": mb(sum(files.values())),
    }
    row["download_s"], _ = timed(project, "dvc", "repro", "download")

    row["kill"] = killed(project)
    after_kill = digest(project)
    shutil.rmtree(project.folder / ".checkpoints")
    with Watch(project.folder) as watch:
        row["repro_s"], _ = timed(project, "dvc", "repro", "-f", "preprocess")
    row["preprocess"] = watch.figures(row["images"])
    row["kill"]["same_bytes"] = digest(project) == after_kill
    for unit in ("s", "cpu_s"):
        saved = row["preprocess"][unit] - row["kill"]["preprocess_again"][unit]
        row["kill"][f"saved_{unit}"] = round(saved, 2)
    prepared = list((project.folder / "data" / "prepared").iterdir())
    row["prepared"] = {
        "files": len(prepared),
        "mb": mb(sum(path.stat().st_size for path in prepared)),
    }

    noops = []
    for _ in range(rounds):
        before = children_cpu()
        seconds, output = timed(project, "dvc", "repro", "preprocess")
        assert output.count("Running stage") == 1, output  # `inputs`, which runs each time
        noops.append((seconds, children_cpu() - before))
    row["noop_s"], row["noop_cpu_s"] = (
        round(min(column), 2) for column in zip(*noops, strict=True)
    )
    project.run("dvc", "remote", "add", "-d", "-f", "shared", str(folder / "remote"))
    seconds, _ = timed(project, "dvc", "push", "preprocess", "download")
    pushed = [path for path in (folder / "remote").rglob("*") if path.is_file()]
    row["push"] = {
        "seconds": seconds,
        "files": len(pushed),
        "mb": mb(sum(path.stat().st_size for path in pushed)),
    }
    starts = [json.loads(project.run("python", "-c", FIRST_BATCH).stdout) for _ in range(rounds)]
    row["start"] = {name: round(min(start[name] for start in starts), 4) for name in starts[0]}
    return row


@cache
def encoded(seed: int) -> bytes:
    """A JPEG of coarse noise, which costs what a photograph costs."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize(SIDES[::-1], Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def photo(i: int) -> bytes:
    return encoded(i % 97)


def made(folder: Path, archives: Path, per_file: int | None) -> Project:
    """A project of this code on the stand-ins; `per_file`: another number of images per Arrow file."""
    project = make(folder)
    project.set(dataset="ilsvrc", datasets__ilsvrc__root=str(archives), prepare__short_side=96)
    if per_file:
        code = folder / "pipeline" / "packed.py"
        text = code.read_text()
        assert "IMAGES_PER_FILE = 10_000\n" in text
        code.write_text(
            text.replace("IMAGES_PER_FILE = 10_000\n", f"IMAGES_PER_FILE = {per_file}\n")
        )
    project.run("dvc", "config", "core.analytics", "false")
    project.commit("Stand-ins of ILSVRC")
    return project


def killed(project: Project) -> dict[str, Any]:
    """Kill `dvc repro preprocess` half-way, run it again."""
    with Watch(project.folder) as first:
        running = subprocess.Popen(
            ["dvc", "repro", "preprocess"],
            cwd=project.folder,
            env=project.environment(),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        while running.poll() is None and not half_way(project):
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    kept = finished(project)
    with Watch(project.folder) as again:
        seconds, output = timed(project, "dvc", "repro", "preprocess")
    lines = [line for line in output.splitlines() if line.startswith("continues")]
    return {
        "files_finished": kept,
        "preprocess_until": first.times(),
        "preprocess_again": again.times(),
        "repro_again_s": seconds,
        "said": lines[0] if lines else "",
    }


def finished(project: Project) -> int:
    return len(list(project.folder.glob(".checkpoints/preprocess/*/*.notes.json")))


def half_way(project: Project) -> bool:
    """Whether half of the files of training images are finished; their names say how many there will be."""
    names = [
        path.name for path in project.folder.glob(".checkpoints/preprocess/*/train-*.notes.json")
    ]
    return bool(names) and len(names) >= int(names[0].split(".")[0].rsplit("-", 1)[1]) // 2


def digest(project: Project) -> str:
    """DVC's checksum of data/prepared."""
    (out,) = yaml.safe_load(project.read("dvc.lock"))["stages"]["preprocess"]["outs"]
    return str(out["md5"])


def timed(project: Project, *command: str) -> tuple[float, str]:
    started = time.perf_counter()
    output = project.run(*command).stdout
    return round(time.perf_counter() - started, 2), output


def children_cpu() -> float:
    """CPU seconds of all the processes that this one has waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def mb(size: int) -> float:
    return round(size / 1e6, 1)


class Watch:
    """How long `stages.preprocess` of a project ran, and the most memory it held with its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = self.cpu = 0.0
        self.processes = 0
        self.peak = {"stage_rss": 0, "all_rss": 0, "all_pss": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        stage, started = None, 0.0
        while not self._stop.wait(0.1):
            stage = stage or self._find()
            if stage is None:
                continue
            started = started or stage.create_time()
            try:
                self._sample([stage, *stage.children(recursive=True)])
                if stage.status() == psutil.STATUS_ZOMBIE:
                    raise psutil.NoSuchProcess(stage.pid)
                self.seconds = time.time() - started
            except psutil.Error:
                return

    def _find(self) -> psutil.Process | None:
        for process in psutil.process_iter():
            try:
                if process.cmdline()[1:] == ["-m", "stages.preprocess"] and (
                    Path(process.cwd()) == self.folder.resolve()
                ):
                    return process
            except psutil.Error:
                continue
        return None

    def _sample(self, processes: list[psutil.Process]) -> None:
        own = [process.memory_full_info() for process in processes]
        now = {
            "stage_rss": own[0].rss,
            "all_rss": sum(memory.rss for memory in own),
            "all_pss": sum(getattr(memory, "pss", 0) for memory in own),
        }
        self.processes = max(self.processes, len(processes))
        times = [process.cpu_times() for process in processes]
        ended = times[0].children_user + times[0].children_system
        self.cpu = max(self.cpu, ended + sum(spent.user + spent.system for spent in times))
        self.peak = {name: max(value, now[name]) for name, value in self.peak.items()}

    def times(self) -> dict[str, float]:
        return {"s": round(self.seconds, 2), "cpu_s": round(self.cpu, 2)}

    def figures(self, images: int) -> dict[str, Any]:
        return {
            **self.times(),
            "images_per_s": round(images / self.seconds, 1),
            "processes": self.processes,
            **{f"{name}_mb": mb(value) for name, value in self.peak.items()},
        }


if __name__ == "__main__":
    main()
