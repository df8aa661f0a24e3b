"""`auto` follows the device's capability; a precision by name is taken as it is."""

from pathlib import Path

import pytest
import torch

from pipeline import params
from pipeline.runtime import precision
from tests import tiny


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def settings(tmp_path: Path, name: str, device: str = "cpu") -> params.Params:
    path = tiny.write_params(tmp_path, train__precision=name, train__device=device)
    return params.load(path)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_name_is_taken(tmp_path: Path, name: str) -> None:
    assert precision.resolved(settings(tmp_path, name)).train.precision == name


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({"architecture": "aarch64", "bf16": True}, "bf16"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_on_a_cpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capabilities: dict[str, object],
    chosen: str,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision.resolved(settings(tmp_path, "auto")).train.precision == chosen
    assert not (tmp_path / ".checkpoints").exists()


@pytest.mark.parametrize(
    ("capability", "chosen"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: str
) -> None:
    monkeypatch.setattr(precision, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.resolved(settings(tmp_path, "auto")).train.precision == chosen
