"""Models of torchvision and timm, converted to every method, trained, saved, loaded and evaluated."""

import copy
import io

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import norms
from norms.build import METHODS

# Those that apply to a network of residual and branching blocks: normprop wants plain chains, the LSTMs an
# LSTM.
METHODS_HERE = [name for name, method in METHODS.items() if method.make] + ["weight_norm", "cosine"]
# Those that fix the scale of what is then added up block by block, where 20 steps do not diverge: they do
# with SELU in resnet18 and mobilenet_v2 (googlenet has its ReLUs in functional calls), with centred weights
# in resnet18.
BY_CHANCE = [("timm mobilenetv3", "snn")]
BY_CHANCE += [(m, "centered_weight_norm") for m in ("googlenet", "mobilenet_v2", "timm mobilenetv3")]
OPTIONS = {"renorm": {"warmup_steps": 2, "r_steps": 10, "d_steps": 6}, "diminishing": {"reading": "B"}}


def timm_model(num_classes):
    timm = pytest.importorskip("timm")
    return timm.create_model(
        "mobilenetv3_small_050", num_classes=num_classes
    )  # its BatchNorm holds activations


MODELS = {
    "resnet18": torchvision.models.resnet18,
    "googlenet": lambda num_classes: torchvision.models.googlenet(
        num_classes=num_classes, aux_logits=False, init_weights=False
    ),
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "timm mobilenetv3": timm_model,
}


def train(model, steps=20):
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(steps):
        y = torch.randint(4, (4,), generator=generator)
        x = torch.randn(4, 3, 64, 64, generator=generator) + y.view(-1, 1, 1, 1)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture, method",
    [(model, method) for model in MODELS for method in METHODS_HERE] + BY_CHANCE,
)
def test_convert_train_save_load_evaluate(architecture, method):
    torch.manual_seed(0)
    options = OPTIONS.get(method, {})
    model = MODELS[architecture](num_classes=4)
    before = copy.deepcopy(model)
    norms.convert(model, method, **options)
    left = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(left) == (method in ("batch", "domain"))  # the latter is made of them
    losses = train(model)
    assert all(torch.isfinite(torch.tensor(losses)))
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    loaded = norms.convert(before, method, **options)
    loaded.load_state_dict(torch.load(saved, weights_only=True))
    x = torch.randn(3, 3, 64, 64)
    assert torch.equal(model.eval()(x), loaded.eval()(x))
    assert torch.isfinite(model(x)).all()
