"""Devices: what is there, and memory that is kept."""

import platform
import subprocess
import sys

import pytest

from pipeline.errors import UserError
from pipeline.runtime.devices import pick_device


def test_a_device_that_is_not_there() -> None:
    missing = "mps" if sys.platform == "linux" else "cuda"
    with pytest.raises(UserError, match=f"train.device is {missing}"):
        pick_device(missing)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_memory_of_freed_tensors_is_not_asked_for_again() -> None:
    script = """
import resource, torch
from pipeline.runtime.devices import pick_device

pick_device("cpu")
def faults():
    torch.ones(2**24)  # 64 MiB: 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    before = faults()
print(faults() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1000
