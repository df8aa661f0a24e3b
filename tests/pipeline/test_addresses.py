"""Secrets in addresses are found wherever they stand, and nothing else is taken for one."""

import sys

import pytest

from pipeline import addresses, params, text
from tests.pipeline.params.made_params import made, told, write  # noqa: F401

PASSWORDS = [
    "https://me:hush@host.org/x.tgz",
    "http://hush@host.org/x.tgz",
    "https://me:hu@sh@host.org:8080/x",
    "HTTPS://me:hush@host.org",
    "ftp://me:hush@host.org/x",
    "postgresql://me:hush@db/mlflow",
    "s3://hush:hush@bucket/x",
    "//me:hush@host/x",
]
TOKENS = [
    "https://host.org/x?token=hush",
    "https://host.org/x?a=1&access_token=hush",
    "https://host.org/x?X-Amz-Signature=hush&X-Amz-Date=1",
    "https://host.org/x?sv=2020&sig=hush",
    "https://host.org/x?api_key=hush",
    "https://host.org/x?apikey=hush",
    "https://host.org/x?key=hush",
    "https://host.org/x?password=hush;b=2",
    "https://host.org/x?AWSAccessKeyId=hush",
    "https://host.org/x?private-token=hush",
    "https://host.org/x?rlkey=hush&dl=1",
    "https://host.org/x#access_token=hush",
    "https://host.org/x?q=hushhushhushhushhushhushhushhushhushhush1",
]
OPEN = [
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "https://zenodo.org/record/1/files/x.zip?download=1",
    "https://host.org/x?id=0B7EVK8r0v71pY0NSMzRuSXJEVkE&export=download",
    "https://host.org/x?keyword=birds&design=2&compass=n&author=me",
    "data/cub@home.tgz",
    "~/photos/a=b?token.tgz",
    "cam",
]


@pytest.mark.parametrize("given", [*PASSWORDS, *TOKENS])
def test_secrets_are_found_and_taken_out(given: str) -> None:
    problem = addresses.problem(given)
    assert problem is not None
    assert "hush" not in problem + addresses.without_secrets(f"at {given} (refused)")
    assert ("~/.netrc" in problem) == (given in PASSWORDS)
    assert ("WSOL_DOWNLOAD_QUERY" in problem) == (given in TOKENS)


@pytest.mark.parametrize("given", OPEN)
def test_other_addresses_and_texts_stay(given: str) -> None:
    assert addresses.problem(given) is None
    assert addresses.without_secrets(given) == given


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("secret", ["https://me:hush@host/x.csv", "https://host/x.csv?token=hush"])
@pytest.mark.parametrize("key", ["datasets.other.boxes", "weights", "backbone", "dataset"])
def test_params_with_a_secret_are_refused_without_showing_it(key: str, secret: str) -> None:
    write({key: secret})
    (problem,) = told(params.load_all)
    assert problem.startswith(f"{key}: 'https://")
    assert "hush" not in problem
    assert told(params.load) == [problem]


@pytest.mark.usefixtures("made")
def test_a_secret_in_a_variant_is_refused() -> None:
    write({"ablate.variants.hide-late.set": {"weights": "https://me:hush@host/x.pth"}})
    (problem,) = told(params.load_all)
    assert problem.startswith("ablate.variants.hide-late.set.weights: 'https://***@host/x.pth'")


def test_nothing_printed_shows_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever prints it: our lines, a library's warning, a traceback."""
    with text.screened():
        for address in (*PASSWORDS, *TOKENS):
            print(f"Max retries exceeded with {address}")
            print(f"error: ({address!r},)", file=sys.stderr)
    shown = capsys.readouterr()
    assert "hush" not in shown.out + shown.err
    assert shown.out.count("host") + shown.out.count("db") >= len(TOKENS)
