"""BatchNorm of layers that see one value a channel: with a batch of one, nothing can be normalised by the batch."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class _OfOne(_BatchNorm):
    """In training, a batch with one value a channel is normalised by the running statistics and leaves them alone.

    PyTorch refuses such a batch, which the last one of an epoch may be.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalised features (B, C) or (B, C, h, w), same shape."""
        if self.training and features.numel() == self.num_features:
            return F.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(features)


class BatchNorm1d(_OfOne, nn.BatchNorm1d):
    """`nn.BatchNorm1d` for vectors (B, C), a batch of one too."""


class BatchNorm2d(_OfOne, nn.BatchNorm2d):
    """`nn.BatchNorm2d` for maps (B, C, h, w), a batch of one place too."""
