"""Normalisation layers, usable alone. `python -m norms` lists them."""

from norms.build import build, convert, names, options
from norms.diminishing import (
    DiminishingBatchNorm1d,
    DiminishingBatchNorm2d,
    DiminishingBatchNorm3d,
    parse_alpha,
)
from norms.rms import ChannelRMSNorm

__all__ = [
    "ChannelRMSNorm",
    "DiminishingBatchNorm1d",
    "DiminishingBatchNorm2d",
    "DiminishingBatchNorm3d",
    "build",
    "convert",
    "names",
    "options",
    "parse_alpha",
]
