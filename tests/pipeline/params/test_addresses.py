"""Secrets in addresses are found wherever they stand, and nothing else is taken for one."""

import pytest

from pipeline import params
from pipeline.params import addresses
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


@pytest.mark.parametrize("text", [*PASSWORDS, *TOKENS])
def test_secrets_are_found_and_taken_out(text: str) -> None:
    problem = addresses.problem(text)
    assert problem is not None
    assert "hush" not in problem + addresses.without_secrets(f"at {text} (refused)")
    assert ("~/.netrc" in problem) == (text in PASSWORDS)
    assert ("WSOL_DOWNLOAD_QUERY" in problem) == (text in TOKENS)


@pytest.mark.parametrize("text", OPEN)
def test_other_addresses_and_texts_stay(text: str) -> None:
    assert addresses.problem(text) is None
    assert addresses.without_secrets(text) == text


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
