"""The non-local block: attention between all positions of a feature map."""

import torch.nn.functional as F
from torch import Tensor, nn


class NonLocal(nn.Module):
    """X + BN(W·softmax(QᵀK)V), [B, C, h, w] → the same shape; the identity at initialization.

    NL-CCAM's form (Yang et al., WACV 2020): queries and keys of C/8 channels, no division by √d.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (conv(x).flatten(2).mT for conv in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        update: Tensor = self.norm(self.out(attended.mT.unflatten(2, x.shape[2:])))
        return x + update
