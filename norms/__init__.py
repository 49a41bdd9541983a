"""Normalisation layers, usable alone. `python -m norms` lists them with paper, equation and options.

``norms.build(name, num_features, dim)`` makes a layer, ``norms.convert(model, name)`` exchanges those of a
model. By name:

    none                  nn.Identity
    batch                 nn.BatchNorm1d, 2d, 3d
    layer                 nn.GroupNorm with one group
    group                 nn.GroupNorm
    instance              nn.InstanceNorm1d, 2d, 3d
    rms                   ChannelRMSNorm
    diminishing           DiminishingBatchNorm1d, 2d, 3d
    renorm                BatchRenorm1d, 2d, 3d
    l1                    L1BatchNorm1d, 2d, 3d
    mean_only             MeanOnlyBatchNorm1d, 2d, 3d
    frn                   FilterResponseNorm1d, 2d, 3d
    dyt                   DynamicTanh
    domain                DomainSpecificBatchNorm1d, 2d, 3d

and, by `convert` alone:

    weight_norm           weight_norm
    centered_weight_norm  centered_weight_norm, CenteredWeightNorm
    cosine                CosineLinear, CosineConv2d
    normprop              NormPropLinear, NormPropConv2d
    snn                   nn.SELU, nn.AlphaDropout
    lstm_batch            BatchNormLSTM
    lstm_recurrent_batch  RecurrentBatchNormLSTM
    lstm_layer            LayerNormLSTM
"""

from norms.adabn import adapt_batch_statistics, adapted
from norms.build import build, convert, names, options
from norms.coral import Coral, coral_loss
from norms.cosine import CosineConv2d, CosineLinear
from norms.diminishing import (
    DiminishingBatchNorm1d,
    DiminishingBatchNorm2d,
    DiminishingBatchNorm3d,
    parse_alpha,
)
from norms.domain import (
    DomainSpecificBatchNorm1d,
    DomainSpecificBatchNorm2d,
    DomainSpecificBatchNorm3d,
    use_domain,
)
from norms.dyt import DynamicTanh
from norms.frn import FilterResponseNorm1d, FilterResponseNorm2d, FilterResponseNorm3d
from norms.grassmann import GrassmannAdam, GrassmannSGD, grassmann_parameters, orthogonality_penalty
from norms.l1 import L1BatchNorm1d, L1BatchNorm2d, L1BatchNorm3d
from norms.lstm import BatchNormLSTM, LayerNormLSTM, RecurrentBatchNormLSTM
from norms.mean_only import MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d, MeanOnlyBatchNorm3d
from norms.normprop import (
    BatchDataNormalization,
    GlobalDataNormalization,
    NormPropConv2d,
    NormPropLinear,
    activation_constants,
    unit_norm_,
)
from norms.renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from norms.rms import ChannelRMSNorm
from norms.snn import lecun_normal_, self_normalizing, selu_jacobian, selu_moments
from norms.weight import CenteredWeightNorm, centered_weight_norm, data_dependent_init_, weight_norm

__all__ = [
    "BatchDataNormalization",
    "BatchNormLSTM",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "CenteredWeightNorm",
    "ChannelRMSNorm",
    "Coral",
    "CosineConv2d",
    "CosineLinear",
    "DiminishingBatchNorm1d",
    "DiminishingBatchNorm2d",
    "DiminishingBatchNorm3d",
    "DomainSpecificBatchNorm1d",
    "DomainSpecificBatchNorm2d",
    "DomainSpecificBatchNorm3d",
    "DynamicTanh",
    "FilterResponseNorm1d",
    "FilterResponseNorm2d",
    "FilterResponseNorm3d",
    "GlobalDataNormalization",
    "GrassmannAdam",
    "GrassmannSGD",
    "L1BatchNorm1d",
    "L1BatchNorm2d",
    "L1BatchNorm3d",
    "LayerNormLSTM",
    "MeanOnlyBatchNorm1d",
    "MeanOnlyBatchNorm2d",
    "MeanOnlyBatchNorm3d",
    "NormPropConv2d",
    "NormPropLinear",
    "RecurrentBatchNormLSTM",
    "activation_constants",
    "adapt_batch_statistics",
    "adapted",
    "build",
    "centered_weight_norm",
    "convert",
    "coral_loss",
    "data_dependent_init_",
    "grassmann_parameters",
    "lecun_normal_",
    "names",
    "options",
    "orthogonality_penalty",
    "parse_alpha",
    "self_normalizing",
    "selu_jacobian",
    "selu_moments",
    "unit_norm_",
    "use_domain",
    "weight_norm",
]
