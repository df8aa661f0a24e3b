"""The boxes are those of what is drawn, the beetles stand out, and all of them shows the species."""

from colorsys import rgb_to_hsv
from dataclasses import replace

import numpy as np
import pytest

from pipeline.datasets.synthetic import backgrounds, objects


def test_species_are_all_different_and_stay_when_more_are_asked_for() -> None:
    every = objects.species(len(objects.HUES) * len(objects.TEXTURES))
    assert len({kind.name for kind in every}) == 32
    assert len({(kind.shell, kind.texture) for kind in every}) == 32
    assert all(kind.shell != kind.head for kind in every)
    assert objects.species(8) == every[:8]
    # The default's differ in the shell's colour and in the head's.
    assert len({kind.shell for kind in every[:8]}) == len({kind.head for kind in every[:8]}) == 8
    assert {kind.texture for kind in every[:8]} == set(objects.TEXTURES)


@pytest.mark.parametrize("size", [(64, 64), (48, 90), (96, 40)])
def test_the_box_is_exactly_that_of_the_animal(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On white ground without a shadow, whatever is not white is animal."""
    monkeypatch.setattr(backgrounds, "draw", lambda h, w, rng: np.ones((h, w, 3), np.float32))
    monkeypatch.setattr(objects, "_lay_shadow", lambda canvas, cover: None)
    for seed in range(12):
        kind = objects.species(12)[seed]
        image, box = objects.draw(kind, *size, np.random.default_rng(seed))
        assert image.shape == (*size, 3)
        assert image.dtype == np.uint8
        rows, columns = np.nonzero(image.min(-1) < 255)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        grown = np.array(seen) - box
        # Pixels covered by less than half do not count: at most one more on each side.
        assert (grown[:2] <= 0).all() and (grown[:2] >= -1).all()
        assert (grown[2:] >= 0).all() and (grown[2:] <= 1).all()
        longest = max(box[2] - box[0], box[3] - box[1]) / min(size)
        assert objects.SHARES[0] - 0.06 < longest < objects.SHARES[1] + 0.06
        # And all of the animal lies in the image, not only what fits.
        assert (box[:2] >= 1).all() and box[2] <= size[1] - 1 and box[3] <= size[0] - 1


@pytest.mark.parametrize("seed", range(4))
def test_shell_and_head_both_show_the_species(seed: int) -> None:
    """Another head, another hue of the shell, another texture: each changes pixels of its own."""
    kind, other = objects.species(2)

    def changed(**parts: object) -> np.ndarray:
        first, box = objects.draw(kind, 96, 96, np.random.default_rng(seed))
        second, same = objects.draw(replace(kind, **parts), 96, 96, np.random.default_rng(seed))  # type: ignore[arg-type]
        assert (box == same).all()
        return np.abs(first.astype(int) - second).max(-1) > 60

    head, shell = changed(head=other.head), changed(shell=kind.shell + 0.3)
    assert head.sum() > 20 and shell.sum() > 3 * head.sum()
    assert (head & shell).sum() < 0.25 * head.sum()  # their common edge
    assert changed(texture=other.texture).sum() > 20


def test_nothing_on_the_ground_is_as_saturated_as_a_beetle() -> None:
    ground = np.concatenate(
        [backgrounds.draw(64, 64, np.random.default_rng(seed)).reshape(-1, 3) for seed in range(12)]
    )
    assert _saturation(ground).max() < 0.6
    shell = objects._colour(0.2, 0.75)
    assert rgb_to_hsv(*shell.tolist())[1] > 0.85


def _saturation(colours: np.ndarray) -> np.ndarray:
    return 1 - colours.min(-1) / np.maximum(colours.max(-1), 0.1)


def test_the_same_numbers_draw_the_same_picture() -> None:
    kind = objects.species(1)[0]
    pictures = [objects.draw(kind, 50, 70, np.random.default_rng(seed))[0] for seed in (3, 3, 4)]
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] != pictures[2]).any()
