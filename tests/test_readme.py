"""The README's tables are what the files of benchmarks/ say."""

from benchmarks import tables
from tests.imports import ROOT


def test_every_table_comes_out_of_its_file() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(tables.BLOCK.findall(text)) >= 2
    assert tables.filled(text) == text, "python -m benchmarks.tables rewrites them"
