"""Training that survives: an epoch's state on disk, and finished weights found again.

A training is named by the fingerprint of all that decides its weights: parameters, code, data and
library versions. Its folder `<root>/.checkpoints/<fingerprint>/` holds the last finished epoch while it runs, and
afterwards the finished weights, so that the same training asked for twice (by the main run and by an
ablation, or by variants that differ only in how boxes are read) is done once.
"""

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline import backbones, cache, code
from pipeline.files import read_json, recover, whole_directory, whole_file, write_json, write_text
from pipeline.params import Params, leaves
from pipeline.params.section import names_files
from pipeline.runtime.distributed import share

Say = Callable[[str], None]
Finished = tuple[dict[str, torch.Tensor], list[dict[str, float]]]


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

    def load(self, say: Say = lambda line: None) -> dict[str, Any] | None:
        """The state after the last finished epoch, on the CPU, or None.

        A damaged one is set aside, and the training starts afresh.
        """
        if not self.state.exists():
            return None
        if cache.digest_file(self.state) not in self._digests():
            self._set_aside(self.state, say, "this training starts afresh")
            return None
        state: dict[str, Any] = torch.load(self.state, map_location="cpu", weights_only=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state by `state`, whole or not at all, also at a power cut.

        Raises UserError when the disk is full; the state before it stays.
        """
        with whole_file(self.state) as partial:
            with partial.open("wb") as file:
                torch.save(state, file)
            # Both digests, since the two files cannot be replaced at one moment.
            digests = [*self._digests()[-1:], cache.digest_file(partial)]
            write_text(self._digest_list, "\n".join(digests))

    @property
    def _digest_list(self) -> Path:
        return self.folder / "state.sha256"

    def _digests(self) -> list[str]:
        try:
            return self._digest_list.read_text("utf-8").split()
        except (OSError, ValueError):
            return []

    def _set_aside(self, path: Path, say: Say, therefore: str) -> None:
        aside = path.with_name(f"{path.name}.damaged")
        _remove(aside)
        path.rename(aside)
        say(f"{path} is damaged: set aside as {aside.name}; {therefore}")

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
                try:
                    theirs = read_json(path)
                    alike = all(theirs[key] == mine[key] for key in same)
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # damaged, and another training's
                if alike and Checkpoint(path.parent).state.exists():
                    line = (
                        "a training that was cut short is left as it is, since it differs in "
                        f"{differences(theirs, mine)}; this one starts afresh"
                    )
        write_json(self.folder / "settings.json", mine)
        return line

    def finished(self, say: Say = lambda line: None) -> Finished | None:
        """Weights and history of a training that has ended, or None; damaged ones are set aside."""
        folder = self.weights.parent
        recover(folder)
        if not folder.exists():
            return None
        try:
            history = read_json(folder / "history.json")
            if cache.digest_file(self.weights) == history["sha256"]:
                return load_file(self.weights), history["epochs"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            pass
        self._set_aside(folder, say, "this training is done again")
        return None

    def finish(self, model: torch.nn.Module, history: list[dict[str, float]]) -> None:
        """Keep the finished weights in place of the running state."""
        with whole_directory(self.weights.parent) as partial:
            save_weights(model, partial / self.weights.name)
            sha256 = cache.digest_file(partial / self.weights.name)
            write_json(partial / "history.json", {"sha256": sha256, "epochs": history})
        for left in (self.state, self._digest_list, *self.folder.glob("*.damaged")):
            _remove(left)
        _forget_old(self.folder.parent)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


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
    """Drop the trainings not used for longest, beyond `keep_bytes` in all."""
    total = 0
    states = [*store.glob("*/finished/weights.safetensors"), *store.glob("*/state.pt")]
    for path in sorted(states, key=lambda path: path.stat().st_mtime, reverse=True):
        total += path.stat().st_size
        if total > keep_bytes:
            shutil.rmtree(store / path.relative_to(store).parts[0], ignore_errors=True)
