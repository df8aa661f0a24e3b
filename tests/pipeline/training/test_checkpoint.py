"""Checkpoints on a bad day: damaged files are noticed, set aside, and the training starts afresh."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline import params
from pipeline.training.checkpoint import Checkpoint
from tests.tiny import write_params

HISTORY = [{"epoch": 1.0, "train_loss": 0.5}]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    made = Checkpoint(tmp_path / "store" / "mine")
    made.save({"epoch": torch.tensor(1)})
    made.save({"epoch": torch.tensor(2)})
    return made


def flip(path: Path, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x80garbage" * 99),
    "truncated": shorten,
    "one bit": flip,
    "one bit in the middle": lambda path: flip(path, path.stat().st_size // 2),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_set_aside(checkpoint: Checkpoint, damage: str) -> None:
    state = checkpoint.load()
    assert state is not None
    assert state["epoch"] == 2
    DAMAGE[damage](checkpoint.state)
    for _ in range(2):  # a second one takes the first one's place
        said: list[str] = []
        assert checkpoint.load(said.append) is None
        (line,) = said
        assert "state.pt is damaged: set aside as state.pt.damaged; this training starts" in line
        assert checkpoint.load(said.append) is None
        assert len(said) == 1
        checkpoint.save({"epoch": torch.tensor(1)})
        DAMAGE[damage](checkpoint.state)


def test_a_kill_between_the_two_files_loses_nothing(checkpoint: Checkpoint) -> None:
    """The list of digests is written first: the state is then still the old one."""
    before = checkpoint.state.read_bytes()
    checkpoint.save({"epoch": torch.tensor(3)})
    checkpoint.state.write_bytes(before)
    state = checkpoint.load()
    assert state is not None
    assert state["epoch"] == 2


FINISHED = ("weights.safetensors", "history.json")


@pytest.mark.parametrize("file", FINISHED)
@pytest.mark.parametrize("damage", [*DAMAGE, "gone"])
def test_damaged_finished_weights_are_noticed(
    checkpoint: Checkpoint, damage: str, file: str
) -> None:
    checkpoint.finish(torch.nn.Linear(2, 3), HISTORY)
    found = checkpoint.finished()
    assert found is not None
    assert found[1] == HISTORY
    path = checkpoint.weights.with_name(file)
    if damage.startswith("one bit") and file == "history.json":
        flip(path, path.read_bytes().index(b"sha256") + 12)
    else:
        (Path.unlink if damage == "gone" else DAMAGE[damage])(path)
    said: list[str] = []
    assert checkpoint.finished(said.append) is None
    (line,) = said
    assert "finished is damaged: set aside as finished.damaged; this training is done again" in line
    assert not checkpoint.weights.exists()
    checkpoint.finish(torch.nn.Linear(2, 3), HISTORY)
    assert [path.name for path in checkpoint.folder.iterdir()] == ["finished"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"dataset": ', "\x00\xff"])
def test_damaged_settings_of_another_training_stop_nothing(tmp_path: Path, text: str) -> None:
    other = Checkpoint(tmp_path / "store" / "other")
    other.save({})
    (other.folder / "settings.json").write_text(text, "latin-1")
    settings = params.load(write_params(tmp_path))
    assert Checkpoint(tmp_path / "store" / "mine").begin(settings) is None
