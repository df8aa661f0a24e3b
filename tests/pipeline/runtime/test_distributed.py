"""Who holds which rows; that two processes equal one is tested by tests/stages/test_sharing.py."""

from itertools import chain

import torch

from pipeline.runtime import distributed
from pipeline.runtime.distributed import Share


def test_rows_are_all_held_once_and_evenly() -> None:
    for total in (1, 7, 8, 33):
        for processes in (1, 2, 3, 8):
            parts = [
                list(range(total))[Share(rank, processes).rows(total)] for rank in range(processes)
            ]
            assert list(chain(*parts)) == list(range(total))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_nothing_is_exchanged() -> None:
    tensor = torch.tensor([1.0, 2.0])
    assert distributed.share() == Share(0, 1)
    assert distributed.summed(tensor) is tensor
    assert distributed.averaged({"a": 1.0}, tensor.device) == {"a": 1.0}
    assert distributed.gathered("x") == ["x"]
    assert distributed.agreed("x") == "x"
    module = torch.nn.BatchNorm2d(2)
    distributed.synchronise_batchnorm(module)
    assert type(module) is torch.nn.BatchNorm2d
    assert distributed.parallel(module) is module
