"""CSV files as spreadsheets and editors write them, and what is wrong with others."""

from pathlib import Path

import pytest

from pipeline import tables
from pipeline.errors import UserError

TEXT = "id,name\n1,\u00e9t\u00e9\n2,b\n"
ROWS = [{"id": "1", "name": "\u00e9t\u00e9"}, {"id": "2", "name": "b"}]


def read(path: Path, content: bytes | str) -> list[dict[str, str]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [line.values for line in tables.read(path, ["id", "name"])]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_encoding_and_line_end(tmp_path: Path, encoding: str, end: str) -> None:
    assert read(tmp_path / "x", TEXT.replace("\n", end).encode(encoding)) == ROWS


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nid;name\r\n1;\u00e9t\u00e9\r\n2;b\r\n",
        "id\tname\n1\t\u00e9t\u00e9\n2\tb",
        " id , name \n 1 , \u00e9t\u00e9 \n\n,,\n2,b,\n",
        'name,other,"id"\n"\u00e9t\u00e9","a,b",1\n"b",,2\n',
        "id,name\n1,\u00e9t\u00e9\nid,name\n2,b\n",
    ],
)
def test_delimiters_spaces_empty_rows_and_quotes(tmp_path: Path, text: str) -> None:
    found = [{key: row[key] for key in ("id", "name")} for row in read(tmp_path / "x", text)]
    assert found == ROWS


def test_line_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("sep=,\n\nid,name\n\n1,a\n")
    assert [line.number for line in tables.read(tmp_path / "x", ["id"])] == [5]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "has no column id, name; its columns are none; needed: id,name"),
        ("id,nam\n", "has no column name; its columns are id, nam; needed: id,name"),
        ("id,name,id\n", "has the column id twice"),
        ("id,name\n1,a,b\n", "line 2 has 3 cells, and the header 2"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text in UTF-8, UTF-16 or Windows-1252"),
        (b"id,name\n1,\x81\x8d\n", "is not text in UTF-8, UTF-16 or Windows-1252"),
        (b"\xff\xfei\0d\0,", "is not text in UTF-8"),
        ('id,name\n1,"' + "a" * 200_000 + '"\n', "line 2 is not CSV: field larger"),
    ],
)
def test_what_is_not_such_a_table_is_one_line(
    tmp_path: Path, content: bytes | str, told: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path / "x", content)
    assert str(caught.value).startswith(str(tmp_path / "x"))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, reason in (
        ("nowhere", "No such file or directory"),
        ("link", "it is a link to nothing"),
        (".", "Is a directory"),
    ):
        with pytest.raises(UserError, match=f"cannot be read: {reason}"):
            tables.read(tmp_path / name, ["id"])


def test_numbers() -> None:
    assert [tables.number(text) for text in ("1", "-2.5", "3,5", "1e2")] == [1, -2.5, 3.5, 100]
    for text in ("", "x", "nan", "inf", "1,2,3", "1.000,5"):
        with pytest.raises(ValueError, match="is not a number"):
            tables.number(text)
