"""The pictures' boxes are those of what is drawn, and the species differ where they should."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.datasets.synthetic import backgrounds, objects


def test_species_are_all_different_and_stay_when_more_are_asked_for() -> None:
    every = objects.species(len(objects.HEADS) * len(objects.MARKS))
    assert len({kind.name for kind in every}) == 32
    assert objects.species(8) == every[:8]
    assert len({kind.head for kind in every[:8]}) == 8  # the default's differ in colour already
    assert {kind.mark for kind in every[:8]} == set(objects.MARKS)
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
        # And all of the animal lies in the image, not only what fits.
        assert (box[:2] >= 1).all() and box[2] <= size[1] - 1 and box[3] <= size[0] - 1


def test_the_head_tells_the_species_at_every_size() -> None:
    """Same animal, another head: only pixels around the head change, and those a lot."""
    one, other = objects.species(2)
    for seed in range(8):
        first, box = objects.draw(one, 96, 96, np.random.default_rng(seed))
        twin = replace(one, head=other.head, mark=other.mark)
        second, same = objects.draw(twin, 96, 96, np.random.default_rng(seed))
        assert (box == same).all()
        changed = np.abs(first.astype(int) - second).max(-1) > 20
        rows, columns = np.nonzero(changed)
        assert changed.sum() > 20
        longest = max(box[2] - box[0], box[3] - box[1])
        assert np.ptp(rows) < 0.5 * longest
        assert np.ptp(columns) < 0.5 * longest


def test_the_same_numbers_draw_the_same_picture() -> None:
    kind = objects.species(1)[0]
    pictures = [objects.draw(kind, 50, 70, np.random.default_rng(seed))[0] for seed in (3, 3, 4)]
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] != pictures[2]).any()
