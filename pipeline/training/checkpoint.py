"""Training that survives: an epoch's state on disk, and finished weights found again.

A training is named by the fingerprint of all that decides its weights: parameters, code, data and
library versions. Its folder `<root>/.checkpoints/<fingerprint>/` holds the last finished epoch while it runs, and
afterwards the finished weights, so that the same training asked for twice (by the main run and by an
ablation, or by variants that differ only in how boxes are read) is done once.
"""

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipeline import backbones, cache, code
from pipeline.files import read_json, translate_errors, whole_directory, whole_file, write_json
from pipeline.params import Params, leaves
from pipeline.params.section import names_files
from pipeline.runtime.distributed import share


def training_params(params: Params) -> dict[str, Any]:
    """The parameters that decide the weights: no boxes, no evaluation, no number of workers."""
    method = {}
    for name, value in params.method_params.model_dump(mode="json").items():
        field = type(params.method_params).model_fields[name]
        marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        named = value is not None and names_files(field.annotation, field.metadata)
        if named and Path(value).is_file():
            value = cache.digest_file(Path(value))
        if marks.get("when") != "evaluation":
            method[name] = value
    weights = params.weights
    if Path(weights).is_file():
        weights = cache.digest_file(Path(weights))
    train = params.train.model_dump(mode="json", exclude={"workers", "cache_mib"})
    return {
        "dataset": params.dataset,
        "method": params.method,
        "method_params": method,
        "backbone": params.backbone,
        "weights": weights,
        "seed": params.seed,
        "input": params.input.model_dump(mode="json"),
        # Sums come out differently, in their last digits, by the number of processes that share them.
        "train": {**train, "processes": share().processes},
    }


def fingerprint(params: Params, prepared: Path) -> str:
    """Name of a training: the same name promises the same weights on the same kind of machine."""
    return cache.fingerprint(
        training_params(params),
        [
            (prepared / "meta.json").read_bytes(),
            *code.fingerprints(
                "pipeline.training.loop",
                f"pipeline.methods.{params.method}",
                backbones.module(params.backbone),
            ),
            *environment(),
        ],
    )


def environment() -> list[bytes]:
    """What the figures depend on outside the project: libraries and the kind of machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    texts = [version("torch"), version("torchvision"), platform.machine(), device]
    return [text.encode() for text in texts]


@dataclass(frozen=True)
class Checkpoint:
    """The folder of one training."""

    folder: Path

    @classmethod
    def of(cls, fingerprint: str) -> "Checkpoint":
        return cls(cache.store(fingerprint))

    @property
    def fingerprint(self) -> str:
        return self.folder.name

    @property
    def weights(self) -> Path:
        """The finished weights."""
        return self.folder / "finished" / "weights.safetensors"

    @property
    def state(self) -> Path:
        """The state after the last finished epoch."""
        return self.folder / "state.pt"

    def load(self) -> dict[str, Any] | None:
        """The state after the last finished epoch, on the CPU, or None."""
        if not self.state.exists():
            return None
        state: dict[str, Any] = torch.load(self.state, map_location="cpu", weights_only=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state by `state`, whole or not at all, also at a power cut.

        Raises UserError when the disk is full; the state before it stays.
        """
        with (
            translate_errors(self.state),
            whole_file(self.state) as partial,
            partial.open("wb") as file,
        ):
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    def begin(self, params: Params) -> str | None:
        """Note what the training is of; a line about one that was cut short and is like it, or None.

        Such a one has the same dataset, method, backbone and seed, but other settings, code or data: its
        state is no state of this training.
        """
        mine = training_params(params)
        line = None
        if not self.state.exists():
            same = ("dataset", "method", "backbone", "seed")
            for path in self.folder.parent.glob("*/settings.json"):
                theirs = read_json(path)
                left = Checkpoint(path.parent)
                if left.state.exists() and all(theirs[key] == mine[key] for key in same):
                    line = (
                        "a training that was cut short is left as it is, since it differs in "
                        f"{differences(theirs, mine)}; this one starts afresh"
                    )
        write_json(self.folder / "settings.json", mine)
        return line

    def finished(self) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]] | None:
        """Weights and history of a training that has ended, or None."""
        if not self.weights.exists():
            return None
        return load_file(self.weights), read_json(self.weights.with_name("history.json"))["epochs"]

    def finish(self, model: torch.nn.Module, history: list[dict[str, float]]) -> None:
        """Keep the finished weights in place of the running state."""
        with whole_directory(self.weights.parent) as partial:
            save_weights(model, partial / self.weights.name)
            write_json(partial / "history.json", {"epochs": history})
        self.state.unlink(missing_ok=True)
        _forget_old(self.folder.parent)


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a model's state as safetensors: the same weights give the same bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, path)


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Where two trainings' params differ, as `key (before → now)`; code or data if nowhere."""
    old, new = leaves(before), leaves(now)
    found = [
        f"{key} ({old.get(key)} → {new.get(key)})"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    return ", ".join(found) or "its code, data or libraries"


def _forget_old(store: Path, keep_bytes: int = 4 * 2**30) -> None:
    """Drop the trainings not used for longest, beyond `keep_bytes` in all;"""
    total = 0
    states = [*store.glob("*/finished/weights.safetensors"), *store.glob("*/state.pt")]
    for path in sorted(states, key=lambda path: path.stat().st_mtime, reverse=True):
        total += path.stat().st_size
        if total > keep_bytes:
            shutil.rmtree(store / path.relative_to(store).parts[0], ignore_errors=True)
