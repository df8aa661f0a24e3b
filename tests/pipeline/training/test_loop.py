"""The loop: settings worked out by hand, the same seed the same bytes, nothing lost when it is killed."""

import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import params
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint, fingerprint
from pipeline.training.loop import Progress
from tests import tiny
from tests.imports import ROOT


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", {"train": 12, "val": 3})


def settings(folder: Path, **changes: object) -> Params:
    return params.load(tiny.write_params(folder, **changes))


def train(folder: Path, prepared: Path, **changes: object) -> tuple[bytes, list[loop.Epoch]]:
    """Weights as bytes, and the history without what the machine decides."""
    chosen = settings(folder, **changes)
    model, history = loop.train(chosen, prepared, Checkpoint(folder / "state"), Progress())
    return as_bytes(model), seeded(history)


def as_bytes(model: torch.nn.Module) -> bytes:
    return b"".join(v.contiguous().numpy().tobytes() for v in model.state_dict().values())


def seeded(history: list[loop.Epoch]) -> list[loop.Epoch]:
    return [{k: v for k, v in r.items() if k not in loop.MEASURED} for r in history]


# --- learning ---------------------------------------------------------------------------------


def test_it_learns(tmp_path: Path, prepared: Path) -> None:
    _, history = train(tmp_path, prepared, train__epochs=8, train__learning_rate=0.02)
    assert [record["epoch"] for record in history] == list(range(1, 9))
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    assert history[-1]["train_accuracy"] > 80


def test_same_seed_same_weights(tmp_path: Path, prepared: Path) -> None:
    runs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        runs.append(train(tmp_path / name, prepared, seed=seed))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_images_read_by_workers_are_the_same(tmp_path: Path, prepared: Path) -> None:
    kept = train(tmp_path, prepared)
    (tmp_path / "b").mkdir()
    assert kept == train(tmp_path / "b", prepared, train__cache_mib=0, train__workers=2)


@pytest.mark.parametrize("method", ["ass", "ahd", "rcam"])
def test_every_method_trains(tmp_path: Path, prepared: Path, method: str) -> None:
    _, history = train(tmp_path, prepared, method=method, train__epochs=2)
    assert math.isfinite(history[-1]["train_loss"])


def test_hiding_is_counted_per_plug_point_and_epoch(tmp_path: Path, prepared: Path) -> None:
    _, history = train(tmp_path, prepared, method="ass", train__epochs=2)
    for record in history:
        for point in ("stride8", "stride16_early", "stride16_late"):
            branches = [record[f"ass/{point}/{b}"] for b in ("dispersed", "passed", "hidden")]
            assert sum(branches) == pytest.approx(1)


def test_fewer_images_than_a_batch(tmp_path: Path, prepared: Path) -> None:
    _, history = train(tmp_path, prepared, train__batch_size=64)
    assert len(history) == 3


def test_a_loss_that_is_not_finite_stops_with_step_and_rate(tmp_path: Path, prepared: Path) -> None:
    with pytest.raises(UserError, match=r"not finite at epoch \d, step \d of 4, learning rate"):
        train(tmp_path, prepared, train__learning_rate=1e30)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_stops_too(
    value: float, tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = loop._validate

    def broken(*given: Any) -> Any:
        found = plain(*given)
        return {**found, "val_loss": value} if len(list(tmp_path.rglob("state.pt"))) else found

    monkeypatch.setattr(loop, "_validate", broken)
    for _ in range(2):  # and again for who tries again
        with pytest.raises(UserError) as raised:
            train(tmp_path, prepared, train__epochs=2)
        assert str(raised.value).startswith("val_loss is not finite at epoch 2, learning rate 0.0")
        assert str(raised.value).endswith(
            "; the last good state is that of epoch 1; lower train.learning_rate in params.yaml"
        )


def losses(folder: Path, prepared: Path, **changes: object) -> list[float]:
    folder.mkdir()
    _, history = train(folder, prepared, train__epochs=2, **changes)
    return [record[name] for record in history for name in ("train_loss", "val_loss")]


def test_bf16_agrees_with_fp32(tmp_path: Path, prepared: Path) -> None:
    plain = losses(tmp_path / "fp32", prepared)
    half = losses(tmp_path / "bf16", prepared, train__precision="bf16")
    assert half != plain
    assert half == pytest.approx(plain, rel=0.03)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_a_compiled_step_agrees_with_a_plain_one(tmp_path: Path, prepared: Path) -> None:
    plain = losses(tmp_path / "plain", prepared)
    compiled = losses(tmp_path / "compiled", prepared, train__compile=True)
    assert compiled == pytest.approx(plain, rel=1e-3)


# --- resuming ---------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from pipeline import params
from pipeline.training import loop as training
from pipeline.training.checkpoint import Checkpoint

def stop(epoch, step, steps):
    if (epoch, step) == (int(sys.argv[3]), int(sys.argv[4])):
        os.kill(os.getpid(), signal.SIGKILL)

training.train(
    params.load(Path(sys.argv[1]) / "params.yaml"), Path(sys.argv[2]),
    Checkpoint(Path(sys.argv[1]) / "state"), training.Progress(on_step=stop),
)
"""


@pytest.mark.parametrize(("epoch", "step"), [(1, 2), (2, 4), (3, 1)])
def test_a_killed_training_ends_as_if_it_had_not_been(
    tmp_path: Path, prepared: Path, epoch: int, step: int
) -> None:
    (tmp_path / "whole").mkdir()
    whole = train(tmp_path / "whole", prepared, method="ahd")
    tiny.write_params(tmp_path, method="ahd")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, prepared, str(epoch), str(step)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    resumed: list[int] = []
    model, history = loop.train(
        params.load(tmp_path / "params.yaml"),
        prepared,
        Checkpoint(tmp_path / "state"),
        Progress(on_resume=resumed.append),
    )
    assert resumed == ([epoch - 1] if epoch > 1 else [])
    assert (as_bytes(model), seeded(history)) == whole


def test_finished_weights_are_found_again(tmp_path: Path, prepared: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state")
    assert checkpoint.finished() is None
    model, history = loop.train(settings(tmp_path), prepared, checkpoint, Progress())
    checkpoint.finish(model, history)
    found = checkpoint.finished()
    assert found is not None
    assert found[1] == history
    assert all(torch.equal(found[0][k], v) for k, v in model.state_dict().items())
    assert checkpoint.load() is None


def test_the_fingerprint_names_what_decides_the_weights(tmp_path: Path, prepared: Path) -> None:
    def name(**changes: object) -> str:
        return fingerprint(settings(tmp_path, method="rcam", **changes), prepared)

    base = name()
    assert base == name(box__threshold=0.5) == name(methods__rcam__recombine=False)
    assert base == name(train__workers=2)
    different = [
        name(seed=1),
        name(train__learning_rate=0.5),
        name(methods__rcam__pooling="gap"),
        name(input__crop=48),
    ]
    assert len({base, *different}) == 5


# --- settings by hand -------------------------------------------------------------------------


def rates(tmp_path: Path, **changes: object) -> list[float]:
    chosen = settings(tmp_path, **{f"train__{k}": v for k, v in changes.items()}).train
    return [loop.learning_rate(chosen, step, 2) for step in range(2 * chosen.epochs)]


def test_learning_rates(tmp_path: Path) -> None:
    base = {"epochs": 3, "learning_rate": 0.4, "warmup_epochs": 1}
    assert rates(tmp_path, **base, schedule="constant") == pytest.approx(
        [0.2, 0.4, 0.4, 0.4, 0.4, 0.4]
    )
    cosine = [0.2 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    assert rates(tmp_path, **base, schedule="cosine") == pytest.approx([0.2, 0.4, *cosine])
    step = base | {"warmup_epochs": 0, "schedule": "step", "step_epochs": 2}
    assert rates(tmp_path, **step) == pytest.approx([0.4] * 4 + [0.04] * 2)


def test_mean_squared_error_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    by_hand = ((0.3**2 + 0.2**2 + 0.1**2) + (0.25**2 + 0.25**2 + 0.5**2)) / 2
    targets = torch.tensor([0, 2])
    assert loop.mean_squared_error(logits, targets).item() == pytest.approx(by_hand)
    soft = torch.nn.functional.one_hot(targets, 3).float()
    assert loop.mean_squared_error(logits, soft).item() == pytest.approx(by_hand)
    assert loop.criterion_of("mse") is loop.mean_squared_error


def test_frozen_batchnorm_stays_as_it_is(tmp_path: Path, prepared: Path) -> None:
    chosen = settings(tmp_path, train__batchnorm="frozen")
    model, _ = loop.train(chosen, prepared, Checkpoint(tmp_path / "state"), Progress())
    norms = [m for m in model.backbone.trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_mean.eq(0).all()
        assert norm.weight.eq(1).all()
