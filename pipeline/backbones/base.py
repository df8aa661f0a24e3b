"""A network as named segments, each ending at a plug point.

The tensors at plug points have passed an activation that is at least about zero (see the families for
exceptions). Backbones keep 1/16 of the image's side in their last feature map, 224 px give 14 × 14;
vgg_small keeps 1/8.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline.params.plug_points import POINTS

Hook = Callable[[str, Tensor], Tensor]


def identity(point: str, features: Tensor) -> Tensor:
    """The hook that changes nothing."""
    return features


class Segment(NamedTuple):
    """The layers that end at a plug point, and the channels of its tensor."""

    layers: nn.Module
    channels: int


class Backbone(nn.Module):
    """A trunk cut into segments; on VGG the last one is a neck of new layers.

    `trunk` keeps the state-dict names of the library it comes from, without the classifier.
    `points` are the distinct tensors by depth. A depth in `same` is the tensor of another one, which is
    hooked under that name. `channels` has every depth; `out_channels` is that of the last feature map.
    `inner` are tensors inside a segment, for localizers that look at them: they are not hooked.
    `pixels`, a part of the first segment, takes images normalised with ImageNet's mean and deviation to the
    network's own. `imagenet` gets the published weights, if there are any; weights entries whose names begin
    with one of `classifier` are ignored.
    """

    def __init__(
        self,
        name: str,
        trunk: nn.Module,
        segments: Mapping[str, Segment],
        *,
        same: Mapping[str, str] | None = None,
        inner: Mapping[str, Segment] | None = None,
        neck: nn.Module | None = None,
        pixels: nn.Module | None = None,
        imagenet: Callable[[], Mapping[str, Tensor]] | None = None,
        classifier: tuple[str, ...] = ("classifier.", "fc."),
    ) -> None:
        super().__init__()
        self.name = name
        self.trunk = trunk
        self.neck = neck
        self.pixels = pixels
        self.imagenet = imagenet
        self.classifier = classifier
        # A dict hides the segments from nn.Module, which would list the trunk's weights twice.
        self._segments = {point: segment.layers for point, segment in segments.items()}
        self._same = dict(same or {})
        self._inner = {name: segment.layers for name, segment in (inner or {}).items()}
        self.channels = {point: segments[self.hooked(point)].channels for point in POINTS}
        self.channels |= {name: segment.channels for name, segment in (inner or {}).items()}

    @property
    def points(self) -> tuple[str, ...]:
        """The names that the hook is called with, by depth."""
        return tuple(self._segments)

    @property
    def out_channels(self) -> int:
        """Channels of the last feature map."""
        return self.channels["last"]

    def hooked(self, point: str) -> str:
        """The name that the hook is called with at this depth: `point`, or the one it is the same as."""
        return self._same.get(point, point)

    def segment(self, point: str) -> nn.Module:
        """The layers that end at a plug point, or at a tensor of `inner`."""
        return self._inner.get(point) or self._segments[self.hooked(point)]

    @contextmanager
    def captured(self, points: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
        """Yield a dictionary that holds the feature maps at `points` once the network was run on images."""
        features: dict[str, Tensor] = {}

        def keep(point: str) -> RemovableHandle:
            def hook(module: nn.Module, given: object, output: Tensor) -> None:
                features.setdefault(point, output)  # a method may run its last layers again

            return self.segment(point).register_forward_hook(hook)

        handles = [keep(point) for point in points]
        try:
            yield features
        finally:
            for handle in handles:
                handle.remove()

    @property
    def native(self) -> str:
        """The deepest map that has its native 1/16 resolution: behind it, a stride was removed."""
        late = "stride16_late"
        return late if self.hooked(late) != self.hooked("last") else "stride16_early"

    def remove_neck(self) -> None:
        """Make the trunk's last map the last one, for methods that train nothing."""
        if self.neck is not None:
            self.neck = None
            del self._segments["last"]
            self._same["last"] = self.points[-1]
            self.channels["last"] = self.channels[self.points[-1]]

    def forward(self, images: Tensor, at: Hook = identity, after: str | None = None) -> Tensor:
        """The last feature map [B, C, h, w]; each plug point's tensor is replaced by `at(point, it)`.

        images: [B, 3, H, W]. With `after`, `images` is that point's tensor and the rest is run, for
        methods whose streams share a part of the network.
        """
        start = 0 if after is None else self.points.index(self.hooked(after)) + 1
        features = images
        for point in self.points[start:]:
            features = at(point, self._segments[point](features))
        return features


def accept_channels(trunk: nn.Module, channels: int) -> None:
    """Replace the first convolution by one of `channels` inputs, unless it is one."""
    name, conv = next((n, m) for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d))
    if conv.in_channels != channels:
        new = nn.Conv2d(
            channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            bias=conv.bias is not None,
        )
        trunk.set_submodule(name, new)
