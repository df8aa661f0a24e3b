"""The one training loop: any method on any backbone, resumable after every epoch, no name of a method in it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline import methods, packed
from pipeline.errors import UserError
from pipeline.loading import geometry
from pipeline.loading.loader import Loader
from pipeline.methods.base import Images, Method
from pipeline.params import Params, Train
from pipeline.runtime import distributed
from pipeline.runtime.devices import autocast, make_deterministic, pick_device
from pipeline.training import frozen
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.meter import Meter

Epoch = dict[str, float]
COMPILER = ("torch._dynamo", "torch._inductor")
MEASURED = (
    *("images_per_second", "images_per_second_per_device", "data_wait", "seconds"),
    *("device_hours", "peak_memory_mib", "energy_wh"),
)
"""What the machine decides of an epoch's record, and not the seed."""


@dataclass
class Progress:
    """What a caller may watch; each is called with plain numbers."""

    on_note: Callable[[str], None] = field(default=lambda line: None)
    on_resume: Callable[[int], None] = field(default=lambda epoch: None)
    on_step: Callable[[int, int, int], None] = field(default=lambda epoch, step, steps: None)
    on_epoch: Callable[[Epoch], None] = field(default=lambda record: None)


def train(
    params: Params, prepared: Path, checkpoint: Checkpoint, progress: Progress
) -> tuple[Method, list[Epoch]]:
    """Train `params.method` on the prepared images; return the model and one record per epoch.

    The last epoch's weights are returned; `val` is only watched and `test` is not opened. A training
    that was cut short continues from `checkpoint`, and ends with the same weights, bit for bit on CPU.
    Under torch.distributed each process computes a part of every batch, and all return the same.

    Raises UserError when the loss stops being finite, naming epoch, step and learning rate.
    """
    device = pick_device(params.train.device)
    make_deterministic(device)
    torch.manual_seed(params.seed)
    meta = packed.read_meta(prepared)
    model = methods.build(
        params.method,
        params.backbone,
        params.weights,
        len(meta.class_names),
        params.method_params,
        meta.class_names,
    ).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if params.train.trunk == "frozen":
        if frozen.is_linear(model) and params.train.loss == "cross_entropy":
            return _fitted(model, params, prepared, progress, device)
        model.backbone.trunk.requires_grad_(False)
    distributed.synchronise_batchnorm(model)
    optimizer = torch.optim.SGD(
        model.parameter_groups(params.train.learning_rate, params.train.head_multiplier),
        lr=params.train.learning_rate,
        momentum=params.train.momentum,
        weight_decay=params.train.weight_decay,
        nesterov=params.train.momentum > 0,
    )
    train_loader = _loader(params, prepared, "train", params.input.resize, device)
    val_loader = _loader(params, prepared, "val", params.input.resize, device)
    _check_batches(len(train_loader), params.train, progress)

    images = _by_class(train_loader, params, device)
    history: list[Epoch] = []
    state = checkpoint.load(progress.on_note) if distributed.share().leads else None
    if (state := distributed.agreed(state)) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"], device)
        history = state["history"]
        progress.on_resume(len(history))
    else:
        if model.pretrained_classifier:
            progress.on_note("the classes are ImageNet's: the pretrained classifier is kept")
        for line in model.eval().begin_training(meta.class_names, images):
            progress.on_note(line)

    step: nn.Module = Step(model, params.train, device)
    if params.train.compile:
        step = torch.compile(step)  # type: ignore[assignment]
    step = distributed.parallel(step)
    for epoch in range(len(history) + 1, params.train.epochs + 1):
        with _refusals_told(params.train, epoch):
            record = _epoch(model, step, optimizer, train_loader, params, epoch, device, progress)
        record |= _validate(model, val_loader, params, device)
        _refuse_non_finite_record(record, params.train)
        history.append(record)
        if distributed.share().leads:
            checkpoint.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "rng": torch.get_rng_state(),
                    "device_rng": torch.cuda.get_rng_state(device)
                    if device.type == "cuda"
                    else None,
                    "history": history,
                }
            )
        progress.on_epoch(record)
    model.eval().end_training(images)
    return model, history


@contextmanager
def _refusals_told(settings: Train, epoch: int) -> Iterator[None]:
    """Turn a full device and a compiler that will not into a UserError that says what to change."""
    good = f"the last good state is that of epoch {epoch - 1}"
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device's memory is full at epoch {epoch}, with batches of {settings.batch_size} in "
            f"{settings.precision}; {good}; lower train.batch_size or set train.precision to bf16 in params.yaml"
        ) from error
    except Exception as error:
        if not settings.compile or not type(error).__module__.startswith(COMPILER):
            raise
        line = " ".join(str(error).split())[:100]
        raise UserError(
            f"torch.compile fails here ({line}); {good}; set train.compile to false in params.yaml"
        ) from error


def _fitted(
    model: Method, params: Params, prepared: Path, progress: Progress, device: torch.device
) -> tuple[Method, list[Epoch]]:
    """A linear classifier on a frozen trunk: one pass over the images, then the fit; one record."""
    meter, started = Meter(device), time.perf_counter()
    model.eval()
    state = None
    if distributed.share().leads:
        rows, labels = frozen.pooled(
            model,
            prepared,
            params,
            lambda done, total: progress.on_step(1, done, total),
            progress.on_note,
        )
        frozen.fit(model, rows, labels)
        state = model.state_dict(), *frozen.scores(model, rows, labels), len(labels)
    state = distributed.agreed(state)
    assert state is not None
    model.load_state_dict(state[0])
    seconds = time.perf_counter() - started
    record: Epoch = {
        "epoch": 1,
        "learning_rate": 0.0,
        "train_loss": state[1],
        "train_accuracy": state[2],
        "images_per_second": state[3] / seconds,
        "images_per_second_per_device": state[3] / seconds,
        "data_wait": 0.0,
        "seconds": seconds,
        **_used(meter),
    }
    val_loader = _loader(params, prepared, "val", params.input.resize, device)
    record |= _validate(model, val_loader, params, device)
    progress.on_epoch(record)
    return model, [record]


def _check_batches(images: int, settings: Train, progress: Progress) -> None:
    """Every process needs a row of every batch; a set smaller than a batch is said to be one."""
    smallest, processes = min(images, settings.batch_size), distributed.share().processes
    if smallest < processes:
        raise UserError(
            f"{processes} processes share batches of {smallest} images; allowed: at most one process per "
            "image, see train.processes and train.batch_size in params.yaml"
        )
    if images < settings.batch_size:
        progress.on_note(
            f"{images} training images are fewer than train.batch_size, {settings.batch_size}: each "
            "epoch is one step on all of them"
        )


def _by_class(loader: Loader, params: Params, device: torch.device) -> Images:
    """The training images one class after another, at the test geometry and without chance."""

    def images() -> Iterator[tuple[Tensor, Tensor]]:
        for batch, labels, _ in loader.batches(loader.labels.argsort(stable=True)):
            inputs = geometry.test_batch(batch.to(device, non_blocking=True), params.input.crop)
            yield (
                inputs.contiguous(memory_format=torch.channels_last),
                labels.to(device, non_blocking=True),
            )

    return images


def _loader(params: Params, prepared: Path, split: str, side: int, device: torch.device) -> Loader:
    return Loader(
        prepared,
        split,
        (side, side),
        batch_size=params.train.batch_size,
        workers=params.train.workers,
        cache_mib=params.train.cache_mib,
        pin=device.type == "cuda",
    )


class Step(nn.Module):
    """Forward pass and loss of a batch: what is compiled, and shared by processes."""

    def __init__(self, model: Method, settings: Train, device: torch.device) -> None:
        super().__init__()
        self.model, self.precision, self.device = model, settings.precision, device
        self.criterion = criterion_of(settings.loss)

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the logits it came from, without gradient."""
        with autocast(self.precision, self.device):
            outputs = self.model(inputs, targets)
            loss = self.model.loss(outputs, targets, self.criterion)
        return loss, outputs.logits.detach()


def _epoch(
    model: Method,
    step: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    params: Params,
    epoch: int,
    device: torch.device,
    progress: Progress,
) -> Epoch:
    """One pass over the training images. Nothing here waits for the device until the pass is over."""
    settings, share = params.train, distributed.share()
    generator = torch.Generator().manual_seed(hash_seed(params.seed, epoch))
    order = torch.randperm(len(loader), generator=generator)
    steps = steps_per_epoch(len(loader), settings.batch_size)
    order = order[: steps * settings.batch_size]
    whole = min(len(order), settings.batch_size)
    model.train()
    if "frozen" in (settings.batchnorm, settings.trunk):
        freeze_batchnorm(model.backbone.trunk)  # those that a method adds have yet to learn
    model.begin_epoch((epoch - 1) / settings.epochs)

    losses = torch.zeros(steps, device=device)
    correct = torch.zeros((), device=device)
    meter, waited, started = Meter(device), loader.waited, time.perf_counter()
    for number, (images, labels, _) in enumerate(loader.batches(order, share=share)):
        rate = learning_rate(settings, (epoch - 1) * steps + number, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        # What is drawn at random is drawn for the whole batch, regardless of rank.
        model.rows, model.whole = share.rows(whole), whole
        inputs = geometry.train_batch(images, params.input.crop, generator, model.rows, whole)
        inputs, targets = model.on_batch(inputs, labels, generator)
        loss, logits = step(inputs.contiguous(memory_format=torch.channels_last), targets)
        # The mean over the batch, of which this process has a part.
        loss = loss * (len(labels) / whole)
        optimizer.zero_grad(set_to_none=True)
        (loss * share.processes if share.processes > 1 else loss).backward()
        optimizer.step()
        losses[number] = loss.detach()
        correct += (logits[: len(labels)].argmax(1) == labels).sum()
        progress.on_step(epoch, number + 1, steps)

    losses = distributed.summed(losses)
    _refuse_non_finite(losses, settings, epoch, steps)
    seconds = time.perf_counter() - started
    return {
        "epoch": epoch,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "train_loss": losses.mean().item(),
        "train_accuracy": 100 * distributed.summed(correct).item() / len(order),
        "images_per_second": len(order) / seconds,
        "images_per_second_per_device": len(order) / seconds / share.processes,
        "data_wait": 100 * (loader.waited - waited) / seconds,
        "seconds": seconds,
        **distributed.averaged(model.statistics(), device),
        **_used(meter),
    }


def _used(meter: Meter) -> Epoch:
    """What the epoch took: hours and energy of all devices together, peak memory of the busiest."""
    each = distributed.gathered(meter.read())
    return {
        name: max(of) if name.startswith("peak") else sum(of)
        for name in each[0]
        if (of := [used[name] for used in each if name in used])
    }


def _refuse_non_finite(losses: Tensor, settings: Train, epoch: int, steps: int) -> None:
    finite = torch.isfinite(losses).cpu()
    if not finite.all():
        step = int((~finite).int().argmax())
        rate = learning_rate(settings, (epoch - 1) * steps + step, steps)
        raise UserError(
            f"the loss is not finite at epoch {epoch}, step {step + 1} of {steps}, learning rate "
            f"{rate:g}; the last good state is that of epoch {epoch - 1}; "
            "lower train.learning_rate in params.yaml"
        )


def _refuse_non_finite_record(record: Epoch, settings: Train) -> None:
    """The validation loss and what a method counts, which no JSON file could hold either."""
    if bad := [name for name, value in record.items() if not math.isfinite(value)]:
        epoch = int(record["epoch"])
        raise UserError(
            f"{', '.join(bad)} is not finite at epoch {epoch}, learning rate "
            f"{record['learning_rate']:g}; the last good state is that of epoch {epoch - 1}; "
            "lower train.learning_rate in params.yaml"
        )


@torch.no_grad()
def _validate(model: Method, loader: Loader, params: Params, device: torch.device) -> Epoch:
    """Loss and accuracy on the held-out images: watched, never chosen by."""
    if not len(loader):
        return {}
    model.eval()
    loss = torch.zeros((), device=device)
    correct = torch.zeros((), device=device)
    for images, labels, _ in loader.batches(share=distributed.share()):
        labels = labels.to(device, non_blocking=True)
        inputs = geometry.test_batch(images.to(device, non_blocking=True), params.input.crop)
        with autocast(params.train.precision, device):
            logits = model(inputs.contiguous(memory_format=torch.channels_last)).logits.float()
        loss += F.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    loss, correct = (distributed.summed(x) for x in (loss, correct))
    return {
        "val_loss": loss.item() / len(loader),
        "val_accuracy": 100 * correct.item() / len(loader),
    }


# --- settings ---------------------------------------------------------------------------------


def long_enough(params: Params, images: int) -> Params:
    """The params with as many epochs as `train.min_steps` takes on so many images, if those are more."""
    train = params.train
    least = -(-train.min_steps // steps_per_epoch(images, train.batch_size))
    if train.trunk == "frozen" or least <= train.epochs:
        return params
    every = max(1, round(train.step_epochs * least / train.epochs))
    changed = train.model_copy(update={"epochs": least, "step_epochs": every})
    return replace(params, train=changed)


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches of one pass; a set smaller than a batch is one smaller batch."""
    return max(1, images // batch_size)


def learning_rate(settings: Train, step: int, steps: int) -> float:
    """The trunk's learning rate at `step` (from 0, over all epochs) with `steps` per epoch."""
    warmup, total = settings.warmup_epochs * steps, settings.epochs * steps
    base = settings.learning_rate
    if step < warmup:
        return base * (step + 1) / warmup
    match settings.schedule:
        case "cosine":
            return base * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2
        case "step":
            return base * 0.1 ** (step // steps // settings.step_epochs)
        case _:
            return base


Criterion = Callable[[Tensor, Tensor], Tensor]


def criterion_of(name: str) -> Criterion:
    """`cross_entropy` (Eq. 8 in its multi-class form) or `mse` (Eq. 9), by name."""
    return mean_squared_error if name == "mse" else F.cross_entropy


def mean_squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the predicted probabilities from the targets, mean over images.

    logits: [B, K]; targets: int64 [B] or probabilities [B, K]. Eq. 9 leaves open what is averaged:
    the sum is over classes, so that the gradient does not fade with their number. Source: thesis §2.2.4.
    """
    if targets.dim() == 1:
        targets = F.one_hot(targets, logits.shape[1])
    return (logits.float().softmax(1) - targets.float()).square().sum(1).mean()


def freeze_batchnorm(model: nn.Module) -> None:
    """Keep statistics and affine parameters of every batch norm in `model` as they are."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.requires_grad_(False)


def hash_seed(seed: int, epoch: int) -> int:
    """A seed per (experiment, epoch), so that a resumed epoch shuffles as it would have."""
    return (seed * 1_000_003 + epoch) % 2**63
