"""Feature maps of training images on disk, in half precision, mapped into memory: what localizers are fitted to.

One pass of one network writes them, and continues where it was cut short. Of more images than the disk that
may be used holds, an even sample of each class is written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import backbones, cache, code, packed
from pipeline.backbones import Backbone
from pipeline.files import read_json, write_json
from pipeline.loading import geometry, placement
from pipeline.loading.loader import Loader
from pipeline.params import Params
from pipeline.runtime.devices import autocast
from pipeline.training.checkpoint import environment

FOLDER = "features"
PROGRESS = "progress.json"
Progress = Callable[[int, int], None]
Memory = np.memmap[tuple[int, ...], np.dtype[np.float16]]


@dataclass(frozen=True)
class Source:
    """A network whose feature maps are wanted, and all that decides them beside data and geometry."""

    backbone: Backbone
    forward: Callable[[Tensor], object]
    """Runs the network, and the backbone in it, on normalised images."""
    identity: Mapping[str, Any]
    modules: Sequence[str]
    """Dotted names of the code that the maps depend on."""


def weights_identity(params: Params) -> str:
    """The weights that the trunk is loaded with, by name or content."""
    file = Path(params.weights)
    return cache.digest_file(file) if file.is_file() else params.weights


def of_trunk(backbone: Backbone, params: Params) -> Source:
    """The trunk as it was loaded."""
    known = {"weights": weights_identity(params), "backbone": backbone.name}
    return Source(backbone, backbone, known, [backbones.module(backbone.name)])


def as_loaded(params: Params, device: torch.device) -> Source | None:
    """The trunk as it was loaded, built anew, in evaluation mode; None where its weights were random."""
    if params.weights == "none":
        return None
    backbone = backbones.build(params.backbone)
    backbones.load_weights(backbone, params.weights)
    backbone.remove_neck()
    backbone.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return of_trunk(backbone.eval(), params)


@dataclass(frozen=True)
class Features:
    """Maps by depth of some images, in the order of `images`, their indices in the split."""

    folder: Path
    images: Tensor
    labels: Tensor
    device: torch.device

    def __call__(self, depth: str, rows: slice | Tensor) -> Tensor:
        """Float32 maps [n, C, h, w] of some of the images, on the device."""
        index = rows if isinstance(rows, slice) else rows.numpy()
        part = np.array(np.load(self.folder / f"{depth}.npy", mmap_mode="r")[index])
        return torch.from_numpy(part).to(self.device).float()


@contextmanager
def collected(
    source: Source,
    depths: Sequence[str],
    images: Tensor,
    prepared: Path,
    params: Params,
    *,
    say: Callable[[str], None],
    progress: Progress = lambda done, total: None,
) -> Iterator[Features]:
    """The maps at `depths` of some training `images`, from an earlier pass or by one now.

    The folder is held while the block runs.
    """
    device = next(source.backbone.parameters()).device
    loader = _loader(prepared, params)
    sizes = _sizes(source, depths, params)
    name = cache.fingerprint(
        {
            "network": source.identity,
            "images": len(images),
            "seed": params.seed,
            "input": params.input.model_dump(mode="json"),
            "precision": params.train.precision,
            "device": str(device),
        },
        [
            (prepared / "meta.json").read_bytes(),
            *code.fingerprints(__name__, *source.modules),
            *environment(),
        ],
    )
    with cache.held(FOLDER, name, say) as folder:
        features = Features(folder, images, loader.labels[images], device)
        missing = {depth: s for depth, s in sizes.items() if not (folder / f"{depth}.npy").exists()}
        if missing:
            _write(source, missing, features, loader, params, progress)
        yield features
        cache.keep_latest(folder.parent, 2 * params.localize.features_mib * 2**20, folder)


def chosen(
    wanted: Sequence[tuple[Source, Sequence[str]]], prepared: Path, params: Params
) -> Tensor:
    """The training images whose maps, by all networks together, fit in `localize.features_mib`."""
    sizes = [size for source, at in wanted for size in _sizes(source, at, params).values()]
    each = sum(2 * int(np.prod(size)) for size in sizes)
    labels = torch.from_numpy(packed.Split.open(prepared, "train").labels)
    count = params.localize.features_mib * 2**20 // max(1, each)
    return sample(labels, max(1, count), params.seed)


def sample(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices int64 [≤ count], by class: as even a share of each class as its images allow."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    own = labels[by_class]
    first = torch.searchsorted(own, own)  # where the image's class begins
    rank = torch.arange(len(own)) - first
    chosen = by_class[rank.argsort(stable=True)[:count]].sort().values
    return chosen[labels[chosen].argsort(stable=True)]


def inputs(prepared: Path, params: Params, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """All training images at the test geometry, normalised [B, 3, H, W], and how many came so far."""
    done = 0
    for batch, _, _ in _loader(prepared, params).batches():
        done += len(batch)
        given = geometry.test_batch(batch.to(device), params.input.crop)
        yield done, given.contiguous(memory_format=torch.channels_last)


def _loader(prepared: Path, params: Params) -> Loader:
    return Loader(
        prepared,
        "train",
        placement.test_size(params.input),
        batch_size=params.evaluate.batch_size,
        workers=params.train.workers,
        cache_mib=0,  # one pass
    )


def _sizes(source: Source, depths: Sequence[str], params: Params) -> dict[str, tuple[int, ...]]:
    """[C, h, w] of the maps by depth."""
    device = next(source.backbone.parameters()).device
    blank = torch.zeros(1, 3, params.input.crop, params.input.crop, device=device)
    maps = _maps(source, tuple(depths), blank, params)
    return {depth: tuple(x.shape[1:]) for depth, x in maps.items()}


@torch.no_grad()
def _maps(
    source: Source, depths: tuple[str, ...], inputs: Tensor, params: Params
) -> dict[str, Tensor]:
    with source.backbone.captured(depths) as maps, autocast(params.train.precision, inputs.device):
        source.forward(inputs.contiguous(memory_format=torch.channels_last))
    return {depth: maps[depth] for depth in depths}


def _write(
    source: Source,
    sizes: Mapping[str, tuple[int, ...]],
    features: Features,
    loader: Loader,
    params: Params,
    progress: Progress,
) -> None:
    """Pass over the images; what was written before a kill is not computed again."""
    folder, count = features.folder, len(features.images)
    begun = folder / PROGRESS
    names, done = sorted(sizes), 0
    if begun.exists() and (before := read_json(begun))["depths"] == names:
        done = int(before["done"])
    files: dict[str, Memory] = {
        depth: np.lib.format.open_memmap(
            folder / f".{depth}.npy",
            mode="r+" if done else "w+",
            dtype=np.float16,
            shape=(count, *size),
        )
        for depth, size in sizes.items()
    }
    progress(done, count)
    for batch, _, indices in loader.batches(features.images[done:]):
        inputs = geometry.test_batch(batch.to(features.device), params.input.crop)
        for depth, maps in _maps(source, tuple(sizes), inputs, params).items():
            files[depth][done : done + len(indices)] = maps.float().cpu().numpy()
            files[depth].flush()
        done += len(indices)
        write_json(begun, {"depths": names, "done": done})
        progress(done, count)
    for depth in sizes:
        (folder / f".{depth}.npy").replace(folder / f"{depth}.npy")
    begun.unlink()
