"""Other ways to read a class's heatmap off a trained model, without training it again.

All work on a feature map A [B, C, h, w] (the last one, or a plug point's) and the logit Y of a class before the
softmax; g = ∂Y/∂A. Images do not see each other, so one backward pass serves a whole batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import UserError
from pipeline.layers.class_maps import min_max
from pipeline.methods.base import Method, Outputs, full_precision
from pipeline.params import Heatmaps

LAST = "last"
"""The plug point in front of the pooling."""

Weigh = Callable[[Tensor, Tensor], Tensor]
"""Features and gradients [B, C, h, w] → a map [B, h, w] that is not yet rectified."""


def gradcam(A: Tensor, g: Tensor) -> Tensor:
    """Σ_k (mean_ij g_k) A_k. R. R. Selvaraju et al., "Grad-CAM", ICCV 2017, Eq. 1 and 2."""
    return (g.mean((2, 3), keepdim=True) * A).sum(1)


def gradcam_pp(A: Tensor, g: Tensor) -> Tensor:
    """Σ_k (Σ_ij α relu(g)) A_k, α = g² / (2g² + (Σ_ab A) g³) = 1 / (2 + (Σ_ab A) g).

    A. Chattopadhyay et al., "Grad-CAM++", WACV 2018, Eq. 19.
    The factor exp(Y) of the paper is a positive scale. Where g is 0, relu(g) is, whatever α.
    """
    # Divided by g²: its third power is lost in float32 where maps are large and gradients small.
    denominator = 2 + A.sum((2, 3), keepdim=True) * g
    weight = torch.where((g > 0) & (denominator != 0), g / denominator, 0.0)
    return (weight.sum((2, 3), keepdim=True) * A).sum(1)


def layercam(A: Tensor, g: Tensor) -> Tensor:
    """Σ_k relu(g_k) · A_k, pixel by pixel. P.-T. Jiang et al., "LayerCAM", TIP 2021, Eq. 5 and 6."""
    return (g.relu() * A).sum(1)


BY_GRADIENT: dict[str, Weigh] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_pp,
    "smooth_gradcam++": gradcam_pp,
    "layercam": layercam,
}


def check(name: str, settings: Heatmaps) -> None:
    """Raise UserError for a layer that the heatmap has no use for."""
    if name in ("cam", "scorecam") and settings.layer != LAST:
        raise UserError(
            f"params.yaml: heatmaps.layer is {settings.layer!r}, which {name} cannot use; "
            f"allowed: {LAST}, or heatmap gradcam, gradcam++, smooth_gradcam++, layercam"
        )


def passes(name: str, settings: Heatmaps, channels: int) -> int:
    """Forward passes of the whole network per image."""
    if name == "scorecam":
        return 1 + (min(settings.channels, channels) or channels)
    if name == "smooth_gradcam++":
        return 1 + settings.samples
    return 1 if name == "cam" or settings.layer == LAST else 2


def class_maps(
    name: str,
    settings: Heatmaps,
    method: Method,
    inputs: Tensor,
    outputs: Outputs,
    classes: Tensor,
) -> Tensor:
    """Raw heatmaps float32 [B, Q, h, w] of the asked `classes` int64 [B, Q].

    inputs [B, 3, H, W], normalised, and what the model, in evaluation mode, said of them.
    """
    with full_precision(inputs):
        match name:
            case "cam":
                return method.class_maps(outputs, classes)
            case "scorecam":
                return scorecam(method, inputs, outputs.features, classes, settings)
            case "smooth_gradcam++":
                maps = [
                    _by_gradient(gradcam_pp, settings.layer, method, noisy, None, classes)
                    for noisy in noisy_copies(inputs, settings)
                ]
                return torch.stack(maps).mean(0)
            case _:
                features = outputs.features if settings.layer == LAST else None
                weigh = BY_GRADIENT[name]
                return _by_gradient(weigh, settings.layer, method, inputs, features, classes)


def noisy_copies(inputs: Tensor, settings: Heatmaps) -> Tensor:
    """[n, B, 3, H, W]: Gaussian noise of `noise` times each image's range, the same n fields for every image.

    D. Omeiza et al., "Smooth Grad-CAM++", 2019, which averages what it sees in them.
    """
    low, high = (getattr(inputs, end)((1, 2, 3), keepdim=True) for end in ("amin", "amax"))
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(settings.samples, 1, *inputs.shape[1:], generator=generator)
    return inputs + settings.noise * (high - low) * fields.to(inputs)


def _by_gradient(
    weigh: Weigh,
    layer: str,
    method: Method,
    inputs: Tensor,
    features: Tensor | None,
    classes: Tensor,
) -> Tensor:
    with torch.enable_grad():
        if layer == LAST:
            if features is None:
                with torch.no_grad():
                    features = method(inputs).features
            A = features.detach().float().requires_grad_()
            logits = method.head(A, None).logits
        else:
            A, logits = _from_layer(method, layer, inputs)
        maps = []
        for asked in classes.unbind(1):
            score = logits.gather(1, asked[:, None]).sum()
            (g,) = torch.autograd.grad(score, A, retain_graph=True)
            maps.append(weigh(A.detach().float(), g.float()).relu())
    return torch.stack(maps, 1)


def _from_layer(method: Method, layer: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """A plug point's tensor as a leaf, and the logits that follow from it."""
    leaf: list[Tensor] = []

    def cut(module: torch.nn.Module, given: object, output: Tensor) -> Tensor:
        leaf.append(output.detach().requires_grad_())
        # Layers behind may work in place, which a leaf does not allow.
        return leaf[0].clone()

    handle = method.backbone.segment(layer).register_forward_hook(cut)
    try:
        logits = method(inputs).logits
    finally:
        handle.remove()
    return leaf[0], logits


def scorecam(
    method: Method, inputs: Tensor, features: Tensor, classes: Tensor, settings: Heatmaps
) -> Tensor:
    """Σ_k softmax_k(Y(X ∘ M_k)) A_k, M_k the upsampled, min–max normalised A_k, rectified.

    H. Wang et al., "Score-CAM", CVPR Workshops 2020, Eq. 6 to 8; the baseline's logit is the same for every
    channel and drops out of the softmax. With `channels`, of each image the most active ones only.
    """
    A = features.float()
    count = min(settings.channels, A.shape[1]) or A.shape[1]
    best = A.mean((2, 3)).topk(count, dim=1).indices
    A = A.gather(1, best[:, :, None, None].expand(-1, -1, *A.shape[2:]))
    image = torch.arange(len(A), device=A.device).repeat_interleave(count)
    channel = torch.arange(count, device=A.device).repeat(len(A))
    scores = []
    for i, k in zip(
        image.split(settings.batch_size), channel.split(settings.batch_size), strict=True
    ):
        masks = F.interpolate(
            A[i, k][:, None], size=inputs.shape[2:], mode="bilinear", align_corners=False
        )
        logits = method(inputs[i] * min_max(masks)).logits
        scores.append(logits.float().gather(1, classes[i]))
    weights = torch.cat(scores).unflatten(0, (len(A), count)).softmax(1)  # [B, n, Q]
    return torch.einsum("bnq,bnhw->bqhw", weights, A).relu()
