"""Whole batches by index, without a DataLoader: the sets of this suite are plain tensors in memory."""

import torch
from torch import Tensor


def take(x: Tensor, index: Tensor) -> Tensor:
    """x[index] as floats ready for a network.

    x: uint8 images [N, C, H, W], which become float32 in [0, 1] (x / 255), or floating rows [N, ...], as is.
    index: int64 of any shape [...], on x's device. Result: [*index.shape, *x.shape[1:]].
    """
    rows = x.index_select(0, index.reshape(-1)).view(*index.shape, *x.shape[1:])
    if x.dtype == torch.uint8:
        return rows.to(torch.float32).div_(255)
    return rows
