"""A frozen trunk: what is new learns from features that one pass gives.

Where all that is new is a linear classifier of pooled features, the least loss is found by L-BFGS, in seconds;
any other method is trained by the loop, with the trunk's weights and statistics as they were loaded.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipeline import packed
from pipeline.layers import logistic
from pipeline.methods import base
from pipeline.methods.base import Method
from pipeline.model import features
from pipeline.params import Params
from pipeline.runtime.devices import autocast

OWN = ("add_head", "on_batch", "on_feature", "head", "loss", "begin_training", "forward")
"""What a method has as it is in the base class if only a linear classifier of pooled features learns."""
Say = Callable[[str], None]
AT_ONCE = 32
"""Images whose maps are in memory at a time."""
ITERATIONS = 60
PENALTY = 0.01
"""Of the standardised features' squared weights."""


def is_linear(method: Method) -> bool:
    """Whether, the trunk being frozen, a linear classifier of pooled features is all that learns."""
    own = all(getattr(type(method), name) is getattr(base.Method, name) for name in OWN)
    return own and method.backbone.neck is None


@torch.no_grad()
def pooled(
    method: Method, prepared: Path, params: Params, progress: features.Progress, say: Say
) -> tuple[Tensor, Tensor]:
    """Pooled features, half precision [N, C], of all training images, and their labels [N].

    Where all maps fit in `localize.features_mib`, the pass also writes those that localizers read.
    """
    backbone = method.backbone
    source = features.of_trunk(backbone, params)
    deep = ["deep"] if "deep" in backbone.channels else []
    depths = list(dict.fromkeys(("last", backbone.native, *deep)))
    images = features.chosen([(source, depths)], prepared, params)
    labels = packed.Split.open(prepared, "train").labels
    rows = []
    if len(images) == len(labels):
        with features.collected(
            source, depths, images, prepared, params, say=say, progress=progress
        ) as maps:
            for some in torch.arange(len(images)).split(AT_ONCE):
                rows.append(method.pool(maps("last", some)).half())
            return torch.cat(rows), maps.labels.to(rows[0].device)
    for done, batch in features.inputs(prepared, params, next(method.parameters()).device):
        with autocast(params.train.precision, batch.device):
            last = backbone(batch)
        rows.append(method.pool(last.float()).half())
        progress(done, len(labels))
    return torch.cat(rows), torch.from_numpy(labels).to(rows[0].device)


def fit(method: Method, rows: Tensor, labels: Tensor) -> None:
    """Set the method's classifier to the one of least cross-entropy."""
    weight, bias = logistic.multinomial(
        rows, labels, method.num_classes, penalty=PENALTY, iterations=ITERATIONS
    )
    with torch.no_grad():
        method.classifier.weight.copy_(weight)
        method.classifier.bias.copy_(bias)


@torch.no_grad()
def scores(method: Method, rows: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in percent."""
    logits = torch.cat([method.classifier(part.float()) for part in rows.split(logistic.CHUNK)])
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    return loss, 100 * (logits.argmax(1) == labels).float().mean().item()
