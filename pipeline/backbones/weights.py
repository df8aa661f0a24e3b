"""Fill a backbone's trunk from a file or from published weights."""

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.errors import UserError


class Classifier(NamedTuple):
    """The linear layer behind the average of a backbone's last feature map: [K, C] and [K]."""

    weight: Tensor
    bias: Tensor


def load_weights(backbone: Backbone, weights: str) -> Classifier | None:
    """Fill the trunk; a neck keeps its random weights.

    Returns the classifier that comes with the weights where it is one linear layer on the trunk's last map,
    as in ResNet and MobileNetV2, and not in VGG.

    weights: `none` (nothing happens), `imagenet` (downloaded once, checksum verified) or the path of a
    state dict in the layout of the trunk's library: `.safetensors`, else a `torch.save` file that loads
    without running code. The trunk takes no entry of the classifier; half precision becomes float32.
    Raises UserError when the weights cannot be had or do not fit.
    """
    if weights == "none":
        return None
    state = _download(backbone) if weights == "imagenet" else _read(Path(weights))
    for name, tensor in state.items():
        if reason := _unusable(tensor):
            raise _refusal(weights, f"its entry {name} {reason}", backbone)
    expected = backbone.trunk.state_dict()
    given = {k: v for k, v in state.items() if not k.startswith(backbone.classifier)}
    # Batch norm's step counters play no part, and files older than PyTorch 0.4.1 lack them.
    missing = [k for k in expected if k not in given and not k.endswith("num_batches_tracked")]
    unknown = [k for k in given if k not in expected]
    reshaped = [k for k in given if k in expected and given[k].shape != expected[k].shape]
    misfits = [
        f"{len(keys)} {what} (first: {keys[0]})"
        for what, keys in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", reshaped),
        )
        if keys
    ]
    if misfits:
        reason = f"its entries do not fit {backbone.name}: {', '.join(misfits)}"
        raise _refusal(weights, reason, backbone)
    backbone.trunk.load_state_dict(given, strict=False)
    return _linear({k: v for k, v in state.items() if k not in given}, backbone)


def _linear(entries: Mapping[str, Tensor], backbone: Backbone) -> Classifier | None:
    by_name = {name.rpartition(".")[2]: tensor.float() for name, tensor in entries.items()}
    if len(entries) != 2 or by_name.keys() != {"weight", "bias"} or backbone.neck is not None:
        return None
    fits = by_name["weight"].shape[1:] == (backbone.out_channels,)
    return Classifier(by_name["weight"], by_name["bias"]) if fits else None


def imagenet_rows(class_names: Sequence[str], outputs: int) -> list[int] | None:
    """The outputs of an ImageNet classifier that stand for classes named by their WordNet ids.

    The 1,000 outputs are in the order of the sorted ids. None where a class is not among them or the
    classifier has another number of outputs.
    """
    if outputs != 1000 or not all(re.fullmatch(r"n\d{8}", name) for name in class_names):
        return None
    if len(set(class_names)) == outputs:
        known = sorted(class_names)
    else:
        from timm.data import ImageNetInfo  # here: importing timm takes seconds

        known = ImageNetInfo("imagenet-1k").label_names()
    index = {name: row for row, name in enumerate(known)}
    return [index[name] for name in class_names] if index.keys() >= set(class_names) else None


def torchvision_weights(name: str) -> Mapping[str, Tensor]:
    """torchvision's weights of ImageNet, the ones of the original papers."""
    from torchvision.models import get_model_weights

    published = get_model_weights(name)["IMAGENET1K_V1"]
    state: Mapping[str, Tensor] = published.get_state_dict(check_hash=True)
    return state


def _download(backbone: Backbone) -> Mapping[str, Tensor]:
    if backbone.imagenet is None:
        raise _refusal("imagenet", f"there are none for {backbone.name}", backbone)
    try:
        return backbone.imagenet()
    except (OSError, RuntimeError) as error:
        raise _refusal("imagenet", f"the download failed ({_line(error)})", backbone) from error


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise _refusal(str(path), "there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(
            str(path), "it would run code when loaded, or is not a PyTorch file"
        ) from error
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise _refusal(str(path), f"it cannot be read ({_line(error)})") from error
    if not isinstance(state, Mapping):
        raise _refusal(str(path), "it is not a dict of tensors by name")
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        names = ", ".join(map(str, state))[:80]
        raise _refusal(str(path), f"it holds a dict of {names}, not tensors by name")
    return state


def _unusable(tensor: Tensor) -> str:
    """Why a network cannot be filled with `tensor`; empty if it can."""
    if tensor.is_meta:
        return "has no values (a meta tensor)"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "is sparse or nested"
    if tensor.is_quantized or tensor.is_complex():
        return f"holds {str(tensor.dtype).removeprefix('torch.')}, not real numbers"
    if tensor.is_floating_point() and not tensor.float().isfinite().all():
        return "holds NaN or infinity"
    return ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _refusal(weights: str, reason: str, backbone: Backbone | None = None) -> UserError:
    published = "" if backbone is not None and backbone.imagenet is None else ", imagenet"
    return UserError(
        f"params.yaml: weights is {weights}; {reason}; "
        f"allowed: none{published} or the file of a state dict (.safetensors, .pth)"
    )
