"""One training or evaluation shared by processes, under torch.distributed: who holds what, and what all agree on.

Every process has the whole model and a part of each batch. With one process nothing here does anything, so the
loops have no second road. torchrun's environment says who is who; `stages.sharing` starts the processes.
"""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """This process among those that share the work: number `rank` of `processes`."""

    rank: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, tracks and talks."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """The rows of a batch of `total` that are here; parts differ by one row at most."""
        return slice(total * self.rank // self.processes, total * (self.rank + 1) // self.processes)


def share() -> Share:
    """Who this process is."""
    return Share(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Share()


def begin(device: str) -> Share:
    """Join the processes that torchrun's environment names: NCCL on GPUs, one each, else gloo.

    Raises UserError if the machine has fewer GPUs than processes.
    """
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        if here > torch.cuda.device_count():
            raise UserError(
                f"params.yaml: train.processes is {here}, and this machine has {torch.cuda.device_count()} "
                "GPUs; allowed: at most one process per GPU, or train.device: cpu"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    return share()


def end() -> None:
    """Leave the processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, the same on each."""
    if share().processes > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def averaged(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """The mean over all processes of figures by name; every process has the same names."""
    if share().processes == 1 or not values:
        return values
    mean = summed(torch.tensor([*values.values()], device=device)) / share().processes
    return dict(zip(values, mean.tolist(), strict=True))


def gathered(value: T) -> list[T]:
    """Every process's value, in their order, on each."""
    if share().processes == 1:
        return [value]
    values: list[T | None] = [None] * share().processes
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def agreed(value: T) -> T:
    """What the leading process says; the others' values are dropped. None of them continues before."""
    if share().processes == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said)
    return said[0]


# --- the model ---------------------------------------------------------------------------------


def parallel(step: nn.Module) -> nn.Module:
    """A module whose `backward` leaves the gradients' mean over all processes."""
    if share().processes == 1:
        return step
    # A method may leave parameters out of some steps: MCI's fusion, frozen norms.
    return nn.parallel.DistributedDataParallel(
        step, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
    )


def synchronise_batchnorm(model: nn.Module) -> None:
    """Let every batch norm of `model` see the whole batch; names and weights stay as they are."""
    if share().processes > 1:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                # The class is changed in place: segments of a backbone hold the same modules.
                on_gpu = module.weight.is_cuda
                module.__class__ = nn.SyncBatchNorm if on_gpu else SharedBatchNorm  # type: ignore[assignment]
                module.process_group = None  # type: ignore[assignment]


class SharedBatchNorm(nn.BatchNorm2d):
    """What PyTorch's SyncBatchNorm is on GPUs, for processes on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        dims, shape = (0, 2, 3), (1, -1, 1, 1)
        wide = x.float()
        count = summed(torch.tensor(float(x.numel() // x.shape[1])))
        mean = _summed_with_gradient(wide.sum(dims)) / count
        centred = wide - mean.view(shape)
        variance = _summed_with_gradient(centred.square().sum(dims)) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.momentum is not None and self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        return (normed * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)


def _summed_with_gradient(tensor: Tensor) -> Tensor:
    from torch.distributed.nn.functional import all_reduce

    result: Tensor = all_reduce(tensor)
    return result
