"""The networks of Table 10: a small convolutional one for pictures, GoogLeNet as torchvision has it, and a
layer of batch normalisation on features that are given.

Each has `features(x)`, its penultimate layer [B, D], and is called for logits [B, classes].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.models.inception import scaled

MAPS = (32, 64, 128)
IMAGENET = (
    "1378be20"  # googlenet's weights in torchvision: the beginning of their sha256, as their name has it
)


class HalfScale(nn.Module):
    """Pictures in [0, 1] -> [-1, 1], which torchvision's weights of GoogLeNet were trained on (its own
    `transform_input` brings ImageNet's standardisation back to that).
    """

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - 1


class Reversed(torch.autograd.Function):
    """x, and -strength times the gradient: the gradient reversal layer (Ganin & Lempitsky, ICML 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * upstream, None


class Net(nn.Module):
    """body: x -> [B, D]; head: [B, D] -> logits."""

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head

    def features(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def domain_net(
    shape: Sequence[int], classes: int, norm: Callable[[int, int], nn.Module], width: float = 1
) -> Net:
    """Pictures [C, H, W], at least 8x8: three blocks of conv 3x3 - norm - ReLU, twice, and max pooling by 2,
    with 32, 64 and 128 maps times `width`, then their mean over positions. Weights by He et al., no biases
    where a normaliser shifts. The fact sheet's stand-in for networks with pre-trained weights.
    """
    channels = shape[0]
    if min(shape[1:]) < 8:
        raise ValueError(f"pictures of {shape[1]}x{shape[2]}: this network wants at least 8x8")
    body = nn.Sequential()
    for maps in (scaled(m, width) for m in MAPS):
        for inputs in (channels, maps):
            layer = norm(maps, 2)
            bias = not any(name.endswith("bias") for name, _ in layer.named_parameters())
            body.extend([nn.Conv2d(inputs, maps, 3, padding=1, bias=bias), layer, nn.ReLU()])
        body.append(nn.MaxPool2d(2))
        channels = maps
    body.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    net = Net(body, nn.Linear(channels, classes))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net


def on_features(shape: Sequence[int], classes: int, norm: Callable[[int, int], nn.Module]) -> Net:
    """Given features [D] - norm - linear: the block of fixed GoogLeNet features."""
    (size,) = shape
    return Net(norm(size, 1), nn.Linear(size, classes))


def googlenet(classes: int, weights: str | None) -> Net:
    """GoogLeNet of torchvision, which has batch normalisation, without its auxiliary heads; a new last layer.
    `weights`: null (initial ones) or imagenet, where torch's hub folder or the user's data root has the file.
    ValueError, one line, where neither has.

    The three groups of inception modules that the source freezes and those that it trains are `groups`.
    """
    from torchvision.models import googlenet as build

    net: Any = build(weights=None, aux_logits=False, init_weights=weights is None, transform_input=False)
    if weights is not None:
        net.load_state_dict(read_weights(found()), strict=True)
    head = nn.Linear(net.fc.in_features, classes)
    net.fc = nn.Identity()
    return Net(net, head)


def found() -> Path:
    """The file of ImageNet weights, in torch's hub folder or the data root."""
    name = f"googlenet-{IMAGENET}.pth"
    folders = [Path(torch.hub.get_dir()) / "checkpoints", Path(os.environ.get("BN_WEIGHTS_ROOT") or ".")]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(
        f"weights=imagenet: put {name} from https://download.pytorch.org/models/ into {folders[0]} or"
        " into the data root (data.root=DIR)"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    import hashlib

    try:
        content = path.read_bytes()
    except OSError as e:
        raise ValueError(
            f"{path}: {e.strerror}; get googlenet-{IMAGENET}.pth from https://download.pytorch.org/models/"
        ) from e
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(IMAGENET):
        raise ValueError(
            f"{path} is not torchvision's googlenet-{IMAGENET}.pth (its sha256 begins with {found[:8]});"
            " get it from https://download.pytorch.org/models/"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {k: v for k, v in state.items() if not k.startswith("aux")}


def groups(net: Net) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Of a GoogLeNet: what the source keeps (up to inception 3b), trains at a tenth of the rate (4 and 5) and
    at the rate (the new layer).
    """
    slow = ("inception4", "inception5")
    kept: list[nn.Parameter] = []
    tenth: list[nn.Parameter] = []
    for name, parameter in net.body.named_parameters():
        (tenth if name.startswith(slow) else kept).append(parameter)
    return kept, tenth, list(net.head.parameters())
