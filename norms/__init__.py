"""Normalisation layers, usable alone. `python -m norms` lists them."""

from norms.build import build, convert, names, options
from norms.diminishing import (
    DiminishingBatchNorm1d,
    DiminishingBatchNorm2d,
    DiminishingBatchNorm3d,
    parse_alpha,
)
from norms.dyt import DynamicTanh
from norms.frn import FilterResponseNorm1d, FilterResponseNorm2d, FilterResponseNorm3d
from norms.l1 import L1BatchNorm1d, L1BatchNorm2d, L1BatchNorm3d
from norms.mean_only import MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d, MeanOnlyBatchNorm3d
from norms.renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from norms.rms import ChannelRMSNorm

__all__ = [
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "ChannelRMSNorm",
    "DiminishingBatchNorm1d",
    "DiminishingBatchNorm2d",
    "DiminishingBatchNorm3d",
    "DynamicTanh",
    "FilterResponseNorm1d",
    "FilterResponseNorm2d",
    "FilterResponseNorm3d",
    "L1BatchNorm1d",
    "L1BatchNorm2d",
    "L1BatchNorm3d",
    "MeanOnlyBatchNorm1d",
    "MeanOnlyBatchNorm2d",
    "MeanOnlyBatchNorm3d",
    "build",
    "convert",
    "names",
    "options",
    "parse_alpha",
]
