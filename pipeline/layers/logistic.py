"""Linear models fitted by L-BFGS: the same rows give the same weights, without a learning rate.

Penalties are on the weights of standardised channels, so that they mean the same for every network.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**16
"""Rows whose loss is computed at a time, so that many rows need no memory beside their own."""

Loss = Callable[[Tensor, Tensor, slice], Tensor]
"""The loss of weight [K, D] and bias [K] on some of the rows; the whole loss is the sum over all parts."""


def standardised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and scale [D] of rows [N, D]; channels that hardly vary are not blown up."""
    mean = rows.mean(0, dtype=torch.float32)
    squares = sum((part.float() - mean).square().sum(0) for part in rows.split(CHUNK))
    deviation = (squares / len(rows)).sqrt()
    return mean, deviation + 1e-3 * deviation.mean() + 1e-6


def folded(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [K, D] and bias [K] for rows as they are, from those for (rows − mean) / scale."""
    raw = weight / scale
    return raw, bias - raw @ mean


def multinomial(
    rows: Tensor, labels: Tensor, classes: int, *, penalty: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Weight [K, D] and bias [K], for raw rows [N, D], of least mean cross-entropy + penalty/2 · ‖weight‖².

    The softmax regression of `labels` int64 [N]; classes without rows get low scores.
    """
    mean, scale = standardised(rows)

    def loss(weight: Tensor, bias: Tensor, part: slice) -> Tensor:
        logits = F.linear((rows[part].float() - mean) / scale, weight, bias)
        return F.cross_entropy(logits, labels[part], reduction="sum") / len(rows)

    fitted = minimised(loss, classes, rows, penalty=penalty, iterations=iterations)
    return folded(*fitted, mean, scale)


def binary(
    rows: Tensor, positive: Tensor, weights: Tensor, *, penalty: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Weight [D] and bias [] of least Σ weights · softplus(∓(rows·w + b)) + penalty/2 · ‖w‖².

    rows [N, D], standardised; positive bool [N]; weights [N], of each row's loss.
    """
    sign = 1 - 2 * positive.float()

    def loss(weight: Tensor, bias: Tensor, part: slice) -> Tensor:
        logits = (
            rows[part] @ weight[0] + bias
        )  # much faster than a product with a matrix of one row
        return (weights[part] * F.softplus(sign[part] * logits)).sum()

    weight, bias = minimised(loss, 1, rows, penalty=penalty, iterations=iterations)
    return weight[0], bias[0]


def minimised(
    loss: Loss, outputs: int, rows: Tensor, *, penalty: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Weight [K, D] and bias [K] of least loss + penalty/2 · ‖weight‖², from zero; K is `outputs`."""
    weight = torch.zeros(outputs, rows.shape[1], device=rows.device, requires_grad=True)
    bias = torch.zeros(outputs, device=rows.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = penalty / 2 * weight.square().sum()
        total.backward()
        total = total.detach()
        for start in range(0, len(rows), CHUNK):
            part = loss(weight, bias, slice(start, start + CHUNK))
            part.backward()
            total += part.detach()
        return total

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach(), bias.detach()
