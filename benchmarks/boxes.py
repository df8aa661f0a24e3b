"""Boxes from heatmaps: is the sweep exact, and how much faster is it than one labelling per threshold?

python -m benchmarks.boxes                 all parts, written to benchmarks/boxes.json
python -m benchmarks.boxes scaling         one part, the file's others stay
python -m benchmarks.boxes speed --short   a few maps, not written

exact      every box at every threshold against scipy.ndimage.label and cv2.findContours
speed      one thread, 224 × 224: full curves against one labelling per threshold (nothing but finding
           the boxes is asked of the others; the sweep also scores them)
scaling    throughput by threads
v2         MaxBoxAccV2 of a test set of CUB's size
two_stage  against the forward pass of MobileNetV2, and against plain loops

Times of one thread are CPU seconds, the least of several rounds in which the contenders take turns,
so that other work on the machine disturbs them little and alike. --maps adds real heatmaps: a folder of
.npy files [height, width].
"""

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from pipeline import backbones, boxes
from pipeline.boxes import wsoleval
from pipeline.boxes.rules import two_stage
from pipeline.evaluation import metrics
from pipeline.files import read_json, write_json
from pipeline.params import TwoStage
from pipeline.runtime.devices import keep_freed_memory
from tests.pipeline.boxes.box_references import EIGHT, opencv_boxes, plain_two_stage, scipy_boxes

SIDE = 224
KINDS = ("cam", "rough", "noise")
MAPS = 4  # of each kind
Maps = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--short", action="store_true", help="few maps and rounds; not written")
    parser.add_argument("--maps", type=Path, help="folder of real heatmaps, .npy")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/boxes.json"))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    result: dict[str, Any] = {"machine": machine()}
    for name in options.parts or PARTS:
        result[name] = PARTS[name](options)
    if not options.short:
        before = read_json(options.out) if options.parts and options.out.exists() else {}
        write_json(options.out, before | result)


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": torch.get_num_threads(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "torch": torch.__version__,
    }


def make_map(kind: str, rng: np.random.Generator, height: int = SIDE, width: int = SIDE) -> Maps:
    """`cam`: a few blobs on 14 × 14, upsampled; `rough`: noise on 14 × 14, upsampled; `noise`: per pixel."""
    if kind == "noise":
        raw = rng.random((height, width))
    else:
        y, x = np.mgrid[:14, :14]
        raw = rng.random((14, 14)) * (1.0 if kind == "rough" else 0.1)
        for _ in range(0 if kind == "rough" else 3):
            cy, cx, spread = *rng.uniform(2, 12, 2), rng.uniform(2, 20)
            raw += rng.random() * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / spread)
    maps = torch.from_numpy(raw.astype(np.float32))[None]
    return boxes.normalise(boxes.resize(maps, (height, width)))[0].numpy()


def odd_map(rng: np.random.Generator) -> NDArray[Any]:
    """A small map of any size and of a kind that breaks careless code."""
    height, width = rng.integers(1, 40, 2)
    values: NDArray[Any] = rng.random((height, width))
    kind = rng.integers(8)
    if kind == 0:  # plateaus
        values = np.round(values * rng.integers(1, 6))
    elif kind == 1:  # negative
        values = -values - rng.integers(0, 2)
    elif kind == 2:  # constant
        values[:] = rng.choice([-1.0, 0.0, 1.0])
    elif kind == 3:  # smooth
        values = cv2.GaussianBlur(values, (5, 5), rng.uniform(0.5, 3)).reshape(height, width)
    elif kind == 4:  # thin rings and lines
        values[:] = 0
        for _ in range(rng.integers(1, 12)):
            corner = rng.integers(0, [width, height])
            far = corner + rng.integers(0, 12, 2)
            cv2.rectangle(values, corner.tolist(), far.tolist(), float(rng.random()), 1)
    elif kind == 5:  # few pixels on
        values[rng.random((height, width)) < 0.9] = 0
    elif kind == 6:  # one pixel or one line
        values = values[: rng.integers(1, 3), : rng.integers(1, 3)]
    return np.ascontiguousarray(values)


def real_maps(options: argparse.Namespace) -> list[NDArray[Any]]:
    return [np.load(path) for path in sorted(options.maps.rglob("*.npy"))] if options.maps else []


def exact(options: argparse.Namespace) -> dict[str, int]:
    """Compare largest boxes and all boxes on random and real maps, at thresholds of many kinds."""
    rng = np.random.default_rng(0)
    real = [wsoleval.heatmaps(values[None])[0] for values in real_maps(options)]
    count = 200 if options.short else 10_000
    counted = {"maps": 0, "real_maps": len(real), "thresholds": 0, "boxes": 0, "unequal": 0}
    for i in tqdm(range(count + len(real)), desc="exact", unit="map", leave=False):
        values = odd_map(rng) if i < count else real[i - count]
        taus = np.sort(rng.random(12)) if i % 2 else np.arange(20) / 20
        scaled = wsoleval.normalise(values[None])[0]
        counted["maps"] += 1
        comparisons: tuple[tuple[boxes.Protocol, NDArray[Any], Any], ...] = (
            ("classic", values, scipy_boxes),
            ("wsoleval", wsoleval.quantise(scaled), opencv_boxes),
        )
        for protocol, of, plain in comparisons:
            largest = boxes.sweep(of[None], taus, protocol)[0].tolist()
            spans = boxes.components(of, taus, protocol)
            for k, tau in enumerate(taus):
                best, every = plain(of, tau)
                here = spans[(spans[:, 4] <= k) & (k <= spans[:, 5]), :4]
                equal = largest[k] == list(best) and sorted(map(tuple, here.tolist())) == sorted(
                    every
                )
                counted["thresholds"] += 1
                counted["boxes"] += len(every)
                counted["unequal"] += not equal
    print("exact:", ", ".join(f"{n} {name}" for name, n in counted.items()))
    return counted


def least(
    contenders: dict[str, Callable[[], float]], rounds: int, budget: float
) -> dict[str, float]:
    """Least seconds of each in turns; a contender over its budget of seconds sits out."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            if sum(times[name]) < budget:
                times[name].append(run())
    return {name: min(of) for name, of in times.items()}


def seconds(run: Callable[[], Any]) -> float:
    """CPU seconds of this thread."""
    start = time.thread_time()
    run()
    return time.thread_time() - start


def seconds_of_each(run: Callable[[Any], Any], masks: list[NDArray[Any]]) -> float:
    """CPU seconds for all masks, each fresh in the cache as right after thresholding."""
    return sum(seconds(partial(run, mask.copy())) for mask in masks)


def speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds per map and full curve, and how many times faster than each contender."""
    rng = np.random.default_rng(0)
    real = [wsoleval.heatmaps(values[None])[0].astype(np.float32) for values in real_maps(options)]
    kinds = {kind: [make_map(kind, rng) for _ in range(MAPS)] for kind in KINDS}
    if real:
        kinds["real"] = real[:: max(1, len(real) // MAPS)][:MAPS]
    rows = []
    print(f"{'map':6}{'T':>6}" + "".join(f"{name:>12}" for name in CONTENDERS) + "   times faster")
    for kind, some in kinds.items():
        for thresholds in (20, 100) if options.short else (20, 100, 1000):
            taus = np.arange(thresholds) / thresholds
            runs = contenders(np.stack(some), taus)
            for ours in RIVALS:  # compiles
                runs[ours]()
            times = least(runs, 30, 5 if options.short else 30)
            ms = {name: 1000 * times[name] / len(some) for name in CONTENDERS}
            ratios = {
                f"{ours} over {theirs}": ms[theirs] / ms[ours]
                for ours, others in RIVALS.items()
                for theirs in others
            }
            rows.append({"map": kind, "thresholds": thresholds, "ms": ms, "ratios": ratios})
            cells = "".join(f"{ms[name]:12.2f}" for name in CONTENDERS)
            print(
                f"{kind:6}{thresholds:6}{cells}   "
                + ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items())
            )
    return rows


CONTENDERS = ("classic", "wsoleval", "label", "label+box", "findContours", "opencv")
RIVALS = {
    "classic": ("label", "label+box", "findContours"),
    "wsoleval": ("label", "findContours", "opencv"),
}


def contenders(maps: Maps, taus: NDArray[np.float64]) -> dict[str, Callable[[], float]]:
    """CPU seconds of the sweep under both protocols, and of one labelling per threshold, bare and with its
    boxes. Each is handed all maps [B, H, W], as in a scoring; the bare labellings binary masks.
    """
    truth = [np.array([[40.0, 50, 170, 180]])] * len(maps)
    bytes_ = wsoleval.quantise(maps)
    masks = [values >= tau * values.max() for values in maps for tau in taus]
    binary = [
        (values > int(tau * values.max())).astype(np.uint8) for values in bytes_ for tau in taus
    ]
    label = partial(ndimage.label, structure=EIGHT)
    contours = partial(cv2.findContours, mode=cv2.RETR_TREE, method=cv2.CHAIN_APPROX_SIMPLE)
    runs: dict[str, Callable[[], Any]] = {
        "classic": lambda: boxes.curve(maps, truth, taus, threads=1),
        "wsoleval": lambda: boxes.curve(maps, truth, taus, "wsoleval", threads=1),
        "label+box": lambda: [scipy_boxes(values, tau) for values in maps for tau in taus],
        "opencv": lambda: [peer_boxes(values, tau) for values in bytes_ for tau in taus],
    }
    return {
        **{name: partial(seconds, run) for name, run in runs.items()},
        "label": partial(seconds_of_each, label, masks),
        "findContours": partial(seconds_of_each, contours, binary),
    }


def peer_boxes(values: NDArray[np.uint8], tau: float) -> NDArray[Any]:
    """Boxes of all contours as clovaai/wsolevaluation asks OpenCV for them, for MaxBoxAccV2.

    No areas: for MaxBoxAcc it takes them in a sweep of its own.
    """
    height, width = values.shape
    limit = int(tau * values.max())
    binary = cv2.threshold(values, limit, 255, cv2.THRESH_BINARY)[1]
    found = []
    for contour in cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]:
        x, y, w, h = cv2.boundingRect(contour)
        found.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
    return np.array(found or [[0, 0, 0, 0]])


def scaling(options: argparse.Namespace) -> dict[str, float]:
    """Maps per second by the clock, 1,000 thresholds, by number of threads."""
    rng = np.random.default_rng(0)
    maps = np.stack([make_map("rough", rng) for _ in range(32 if options.short else 256)])
    truth = [np.array([[40.0, 50, 170, 180]])] * len(maps)
    taus = np.arange(1000) / 1000
    cores = torch.get_num_threads()
    counts = sorted({1, 2, cores} | {2**p for p in range(8) if 2**p <= cores})
    rates = dict.fromkeys(map(str, counts), 0.0)
    for _ in range(5):
        for threads in counts:
            start = time.perf_counter()
            boxes.curve(maps, truth, taus, threads=threads)
            rate = len(maps) / (time.perf_counter() - start)
            rates[str(threads)] = max(rates[str(threads)], rate)
    print("scaling:", ", ".join(f"{n} threads {rate:.0f} maps/s" for n, rate in rates.items()))
    return rates


def v2(options: argparse.Namespace) -> dict[str, float]:
    """Seconds by the clock for MaxBoxAccV2 of 5,794 rough maps at 1,000 thresholds, and for OpenCV.

    OpenCV does a part of the maps; its time is scaled up.
    """
    rng = np.random.default_rng(0)
    images = 200 if options.short else 5794
    raw = rng.random((images, 14, 14))
    corner = rng.uniform(0, 110, (images, 2))
    truth = [
        np.trunc(box)[None]
        for box in np.hstack([corner, corner + rng.uniform(40, 110, (images, 2))])
    ]
    taus = np.arange(1000) / 1000
    start = time.perf_counter()
    parts = [
        boxes.curve(wsoleval.heatmaps(raw[i : i + 64]), truth[i : i + 64], taus, "wsoleval").any
        for i in range(0, images, 64)
    ]
    accuracy = np.mean(
        [metrics.box_accuracy(np.concatenate(parts), d).max() for d in metrics.IOU_V2]
    )
    ours = time.perf_counter() - start
    few = 2 if options.short else 5
    start = time.perf_counter()
    for values in wsoleval.quantise(wsoleval.heatmaps(raw[:few])):
        for tau in taus:
            peer_boxes(values, tau)
    theirs = (time.perf_counter() - start) / few * images
    print(
        f"v2: {images} maps, MaxBoxAccV2 {accuracy:.2f}: {ours:.1f} s; "
        f"OpenCV {theirs / 60:.1f} min ({few} maps, scaled up): {theirs / ours:.0f} times faster"
    )
    return {"images": images, "seconds": ours, "opencv_seconds": theirs, "ratio": theirs / ours}


def two_stage_part(options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds per image by the clock: forward pass of MobileNetV2, selection, plain loops."""
    keep_freed_memory()  # as in training and evaluation on a CPU
    torch.manual_seed(0)
    network = backbones.build("mobilenet_v2").eval().to(memory_format=torch.channels_last)
    images = torch.randn(16, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    params = TwoStage(step=0.05, min_seeds=4, seeds="sides", center=True)
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(np.stack([make_map("cam", rng) for _ in images]))
    with torch.inference_mode():
        features = network(images)
        runs = {
            "forward": lambda: network(images),
            "select": lambda: two_stage.select(maps, features, params),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(3 if options.short else 20):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append((time.perf_counter() - start) / len(images) * 1000)
        few = 1 if options.short else 3
        start = time.perf_counter()
        plain = [plain_two_stage(maps[i].numpy(), features[i].numpy(), params) for i in range(few)]
        loops = (time.perf_counter() - start) / few * 1000
        picked = two_stage.select(maps, features, params)[0].tolist()
    assert all(of is None or of[0] == picked[i] for i, of in enumerate(plain))
    forward, select = (float(np.median(of)) for of in times.values())
    print(
        f"two_stage: forward {forward:.2f} ms, select {select:.2f} ms per image: "
        f"{100 * select / forward:.1f} % on top; plain loops {loops:.0f} ms: "
        f"{loops / select:.0f} times faster"
    )
    return {"forward_ms": forward, "select_ms": select, "loops_ms": loops}


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "exact": exact,
    "speed": speed,
    "scaling": scaling,
    "v2": v2,
    "two_stage": two_stage_part,
}

if __name__ == "__main__":
    main()
