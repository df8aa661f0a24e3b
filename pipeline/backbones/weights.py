"""Fill a backbone's trunk from a file or from published weights."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.errors import UserError


def load_weights(backbone: Backbone, weights: str) -> None:
    """Fill the trunk; a neck keeps its random weights.

    weights: `none` (nothing happens), `imagenet` (downloaded once, checksum verified) or the path of a
    state dict in the layout of the trunk's library: `.safetensors`, else a `torch.save` file that loads
    without running code. Classifier entries are ignored, half precision becomes float32.
    Raises UserError when the weights cannot be had or do not fit.
    """
    if weights == "none":
        return
    state = _download(backbone) if weights == "imagenet" else _read(Path(weights))
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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _refusal(weights: str, reason: str, backbone: Backbone | None = None) -> UserError:
    published = "" if backbone is not None and backbone.imagenet is None else ", imagenet"
    return UserError(
        f"params.yaml: weights is {weights}; {reason}; "
        f"allowed: none{published} or the file of a state dict (.safetensors, .pth)"
    )
