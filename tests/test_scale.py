"""benchmarks/scale.py on sixty images: what it measures is there, and what must be equal is."""

from pathlib import Path

import pytest

from benchmarks import scale

pytestmark = pytest.mark.slow


def test_a_killed_repro_goes_on_to_the_same_bytes_and_pushes_few_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = scale.measure(tmp_path, images=60, classes=3, per_file=8, rounds=1)
    assert row["images"] == 60
    assert row["kill"]["same_bytes"]
    assert row["kill"]["said"].startswith("continues where it was cut short: ")
    assert 2 <= row["kill"]["files_finished"] <= 8
    # 48 training images in 6 files, 6 of val in one, 6 test images in one, meta.json
    assert row["prepared"]["files"] == 9
    # DVC's lists of both folders, and of ILSVRC the list of its images and the archives' checksums
    assert row["push"]["files"] == 9 + 2 + 2
    assert row["preprocess"]["images_per_s"] > 0
    assert 30 < row["preprocess"]["all_rss_mb"] < 400
    assert row["start"]["open_s"] < 1
