"""`auto` is measured once, then remembered; what is asked for by name is taken as it is."""

import json
from pathlib import Path

import pytest
import torch

from pipeline import params
from pipeline.runtime import precision
from tests import tiny


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def settings(tmp_path: Path, name: str) -> params.Params:
    return params.load(tiny.write_params(tmp_path, train__precision=name))


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_name_is_taken(tmp_path: Path, name: str) -> None:
    assert precision.resolved(settings(tmp_path, name)).train.precision == name
    assert not (tmp_path / ".checkpoints").exists()


@pytest.mark.parametrize(
    ("seconds", "chosen"), [((1.0, 0.5), "bf16"), ((1.0, 0.9), "fp32"), ((1.0, 2.0), "fp32")]
)
def test_bf16_must_be_worth_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: tuple[float, float],
    chosen: str,
) -> None:
    asked: list[str] = []

    def measure(backbone: str, crop: int, device: torch.device) -> dict[str, float]:
        asked.append(backbone)
        return dict(zip(("fp32", "bf16"), seconds, strict=True))

    monkeypatch.setattr(precision, "measure", measure)
    for _ in range(2):
        assert precision.resolved(settings(tmp_path, "auto")).train.precision == chosen
    assert asked == ["vgg_small"]


def test_it_is_measured_here(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert precision.resolved(settings(tmp_path, "auto")).train.precision in ("fp32", "bf16")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    known = json.loads((tmp_path / ".checkpoints" / "precision.json").read_text())
    (entry,) = known.values()
    assert min(entry["seconds"].values()) > 0
