"""Maxout, its balance, and the networks of Table 9, each against something independent: numpy, hand formulas,
torch's own operations, published counts of parameters.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import norms
from experiments.models import maxout as module
from experiments.models import nin
from experiments.models.maxout import MaxPieces, balance, maxout
from experiments.models.mim import MIM, MaxoutMNIST, equal_width, mean_square
from experiments.models.rcnn import RCL, RCNN
from norms.build import METHODS

F64 = torch.float64
SHAPE, DIGITS = (3, 32, 32), (1, 28, 28)
BATCH = partial(norms.build, "batch", dim=2)
LAST = torch.channels_last


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(model):
    return sum(p.numel() for p in model.parameters())


def convs(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


def sizes(model, shape, kinds):
    """Sizes [C, H, W] that the modules of the kinds put out, in order, for one image."""
    found = []
    for m in model.modules():
        if isinstance(m, kinds):
            m.register_forward_hook(lambda _, __, y: found.append(tuple(y.shape[1:])))
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return found


# ---- maxout -----------------------------------------------------------------------------------------------


def peer(x, pieces):
    """The largest of the blocks of channels; max over a dimension gives its gradient to the first."""
    n = x.shape[1] // pieces
    return torch.stack([x[:, j * n : (j + 1) * n] for j in range(pieces)]).max(0)[0]


@pytest.mark.parametrize("cached", [1, 100, 2**18])  # values that a core's cache takes: one image, some, all
@pytest.mark.parametrize(
    "size", [(5, 12), (5, 12, 7), (5, 12, 4, 6), (5, 12, 1, 1), (2, 12, 3, 2, 4), (0, 12, 3, 3)]
)
@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 6, 12])
def test_maxout(size, pieces, cached, monkeypatch):
    monkeypatch.setattr(module, "CACHED", cached)
    x = torch.randint(-2, 3, size).double()  # with many ties
    layouts = [x, torch.stack([x, x], -1)[..., 0]]  # the second one with gaps
    if len(size) == 4:
        layouts += [x.contiguous(memory_format=LAST), x.expand(2, *size)[0].transpose(2, 3).flip(3)]
    for given in layouts:
        one, other = given.detach().requires_grad_(), given.detach().clone().requires_grad_()
        y, expected = maxout(one, pieces), peer(other, pieces)
        assert torch.equal(y, expected)
        assert torch.equal(maxout(given, pieces), expected)  # without gradient
        g = torch.randn_like(y)
        assert torch.equal(*(torch.autograd.grad(z, x, g)[0] for z, x in ((y, one), (expected, other))))
        total = torch.autograd.grad(maxout(one, pieces).sum(), one)[0]  # of a gradient that is one number
        assert total.sum() == y.numel() and ((total == 0) | (total == 1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pieces", [2, 3, 255, 256])
def test_maxout_of_other_types(dtype, pieces):
    x = torch.randn(3, 2 * pieces, 2, 2).to(dtype)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = maxout(one, pieces), peer(other, pieces)
    assert torch.equal(y, expected) and y.dtype == dtype
    g = torch.randn_like(y)
    y.backward(g), expected.backward(g)
    assert torch.equal(one.grad, other.grad)


def test_a_tie_goes_to_the_first_piece():
    x = torch.tensor([[1.0, 5, 0], [7, 5, 0], [7, 5, 0], [2, 4, 0]]).view(1, 12).requires_grad_()  # 4 pieces
    maxout(x, 4).sum().backward()
    assert x.grad.view(4, 3).tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("pieces", [2, 3])
def test_derivatives(pieces):
    for size in ((3, 6), (2, 6, 3, 2)):
        x = torch.randn(size, dtype=F64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: maxout(x, pieces), x)
        assert torch.autograd.gradgradcheck(lambda x: maxout(x, pieces), x)
        # a second derivative that is not 0: of the square
        assert torch.autograd.gradgradcheck(lambda x: maxout(x, pieces).pow(3), x)


def test_transforms():
    x, w = torch.randn(4, 6, 3, dtype=F64), torch.randn(6, 6, dtype=F64)

    def loss(w, x):
        return maxout((w @ x)[None], 3).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(w, x)
    for one, dw in zip(x, found, strict=True):
        leaf = w.clone().requires_grad_()
        loss(leaf, one).backward()
        torch.testing.assert_close(dw, leaf.grad)


@pytest.mark.slow
def test_in_a_compiled_graph():
    x = torch.randint(-2, 3, (3, 6, 2, 2)).double().requires_grad_()
    compiled = torch.compile(lambda x: maxout(x * 1, 3).square(), backend="aot_eager", fullgraph=True)
    y, expected = compiled(x), maxout(x, 3).square()
    assert torch.equal(y, expected)
    assert torch.equal(*(torch.autograd.grad(z.sum(), x)[0] for z in (y, expected)))


def test_it_keeps_the_layout_and_one_byte_a_unit():
    kept = []

    def keep(t):
        kept.append(t.untyped_storage().nbytes())
        return t

    for layout in (LAST, torch.contiguous_format):
        for pieces in (2, 4):
            x = torch.randn(3, 8, 5, 4).contiguous(memory_format=layout).requires_grad_()
            kept.clear()
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
                y = maxout(x, pieces)
            assert kept == [y.numel()]
            (dx,) = torch.autograd.grad(y, x, torch.randn(y.shape))
            assert y.is_contiguous(memory_format=layout) and dx.is_contiguous(memory_format=layout)


def test_nins_maxout_is_the_same_in_another_order():
    x = torch.randn(2, 12, 3, 3)
    for k in (2, 3):
        blocks = x.unflatten(1, (-1, k)).transpose(1, 2).flatten(1, 2)
        assert torch.equal(nin.maxout(x, k), MaxPieces(k)(blocks))


def test_errors_of_maxout():
    with pytest.raises(ValueError, match=r"^6 channels are not a multiple of pieces=4$"):
        maxout(torch.zeros(2, 6, 3, 3), 4)
    for make in (lambda: maxout(torch.zeros(2, 6), 0), lambda: MaxPieces(0)):
        with pytest.raises(ValueError, match=r"^pieces=0: a maxout unit has one piece or more$"):
            make()
    assert "pieces=3" in repr(MaxPieces(3))


# ---- balance ----------------------------------------------------------------------------------------------


def of_shares(wins):
    """Entropy over ln k and share of degenerate units, from wins [samples, units] of k pieces."""
    winners, k = wins
    entropies, degenerate = [], []
    for unit in winners.reshape(-1, winners.shape[-1]).T:
        p = [float(np.mean(unit == j)) for j in range(k)]
        entropies.append(-sum(q * math.log(q) for q in p if q) / math.log(k))
        degenerate.append(max(p) > 0.95)
    return np.mean(entropies), np.mean(degenerate)


def test_balance_is_the_formula():
    model = nn.Sequential(nn.Conv2d(2, 12, 1), MaxPieces(3), nn.Dropout(0.5), nn.Conv2d(4, 6, 1), nn.ReLU(),
                          nn.Flatten(), nn.Linear(24, 10), nin.MaxPieces(2)).double()  # fmt: skip
    with torch.no_grad():
        model[0].bias[:3] += 3  # unbalanced: piece 0 of the units 0 to 2 wins most often
        model[3].bias.copy_(torch.tensor([-9, 9, 0, 0.3, -0.3, 1]))
    batches = [torch.randn(n, 2, 2, 2, dtype=F64) for n in (30, 17)]
    (w1, b1), (w2, b2), (w3, b3) = (
        [p.detach().numpy() for p in (m.weight.flatten(1), m.bias)] for m in (model[0], model[3], model[6])
    )
    x = torch.cat(batches).numpy()
    z = np.einsum("bchw,oc->bhwo", x, w1) + b1
    z = z.reshape(*z.shape[:3], 3, 4)  # piece, unit
    first = z.argmax(3), 3
    z = np.einsum("bhwc,oc->bhwo", z.max(3), w2) + b2
    second = np.where(z > 0, 0, 1), 2
    z = np.maximum(z, 0).transpose(0, 3, 1, 2).reshape(47, -1) @ w3.T + b3
    third = z.reshape(47, 5, 2).argmax(2), 2  # neighbours there

    found = balance(model, iter(batches))
    assert [(b.name, b.pieces) for b in found] == [("1", 3), ("4", 2), ("7", 2)]
    for b, wins in zip(found, (first, second, third), strict=True):
        np.testing.assert_allclose((b.entropy, b.degenerate), of_shares(wins), rtol=1e-12)
    assert 0 < found[0].entropy < 1 and found[1].degenerate >= 2 / 6


def test_balance_of_ties_and_of_one_piece():
    model = nn.Sequential(nn.Conv2d(1, 12, 1), MaxPieces(3), MaxPieces(1), nn.ReLU())
    nn.init.zeros_(model[0].weight), nn.init.zeros_(model[0].bias)
    found = balance(model, [torch.randn(4, 1, 3, 3)])
    assert [tuple(b)[1:] for b in found] == [(3, 0, 1), (1, 0, 1), (2, 0, 1)]


def test_balance_leaves_the_network_alone():
    model = MIM(SHAPE, 3, BATCH, width=1 / 16)
    model.layers[0].eval()
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one, again = (balance(model, [torch.randn(4, *SHAPE)] * 2) for _ in range(2))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert len(one) == len(again) == 9 and all(0 <= b.entropy <= 1 and 0 <= b.degenerate <= 1 for b in one)
    with pytest.raises(RuntimeError):
        balance(model, [torch.randn(4, 5, 32, 32)])
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert [m.training for m in model.modules()] == modes
    with pytest.raises(ValueError, match="no images"):
        balance(model, [])
    assert balance(nn.Flatten(), [torch.zeros(1, 2)]) == []


def test_balance_counts_every_call():
    layer = RCL(2, 4, iterations=2).double()
    x = torch.randn(3, 2, 4, 4, dtype=F64)
    (b,) = balance(layer, [x])
    states = [h > 0 for h in states_of(layer, x)]
    wins = np.where(np.stack(states).transpose(0, 1, 3, 4, 2), 0, 1), 2
    np.testing.assert_allclose((b.entropy, b.degenerate), of_shares(wins), rtol=1e-12)


# ---- MIM --------------------------------------------------------------------------------------------------

# (inputs, units, size), by hand from the fact sheet; mnist: Lin et al.'s
CIFAR = [(3, 192, 5), (192, 160, 1), (160, 96, 1), (96, 192, 5), (192, 192, 1), (192, 192, 1),
         (192, 192, 3), (192, 192, 1), (192, 10, 1)]  # fmt: skip
MNIST = [(1, 96, 5), (96, 64, 1), (64, 48, 1), (48, 128, 5), (128, 96, 1), (96, 48, 1),
         (48, 128, 5), (128, 96, 1), (96, 10, 1)]  # fmt: skip


@pytest.mark.parametrize(("size", "table", "shape"), [("cifar", CIFAR, SHAPE), ("mnist", MNIST, DIGITS)])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_parameters(size, table, shape, blocks, pieces):
    table = table[: 3 * blocks]
    table[-1] = (table[-1][0], 10, 1)  # the classes
    weights, outputs = sum(i * o * n * n for i, o, n in table), sum(o for _, o, _ in table)
    options = {"size": size, "blocks": blocks, "pieces": pieces}
    assert count(MIM(shape, 10, **options)) == pieces * (weights + outputs)
    assert count(MIM(shape, 10, BATCH, **options)) == pieces * (weights + 2 * outputs)
    assert count(MIM(shape, 10, BATCH, activation="relu", **options)) == weights + 2 * outputs


def test_parameters_in_figures():
    assert count(MIM(SHAPE, 10, BATCH)) == 2 * count(nin.LinNIN(SHAPE, 10, BATCH)) == 1_936_808
    assert count(MIM(SHAPE, 100, BATCH)) - count(MIM(SHAPE, 10, BATCH)) == 2 * 90 * (192 + 2)


@pytest.mark.parametrize("activation", ["maxout", "relu"])
def test_sizes(activation):
    kinds = nn.MaxPool2d | nn.AvgPool2d | (MaxPieces if activation == "maxout" else nn.ReLU)
    found = sizes(MIM(SHAPE, 7, BATCH, activation=activation, width=1 / 16), SHAPE, kinds)
    units = [
        (12, 32),
        (10, 32),
        (6, 32),
        (6, 16),
        (12, 16),
        (12, 16),
        (12, 16),
        (12, 8),
        (12, 8),
        (12, 8),
        (7, 8),
    ]
    assert found == [(c, n, n) for c, n in units]
    found = sizes(MIM(DIGITS, 7, BATCH, "mnist", activation=activation, width=1 / 16), DIGITS, kinds)
    units = [(6, 28), (4, 28), (3, 28), (3, 14), (8, 14), (6, 14), (3, 14), (3, 7), (8, 7), (6, 7), (7, 7)]
    assert found == [(c, n, n) for c, n in units]


def test_order_of_layers():
    model = MIM(SHAPE, 4, BATCH, width=1 / 16)
    unit, pools = nin.Unit, [(nn.MaxPool2d, nn.Dropout), (nn.AvgPool2d, nn.Dropout)]
    kinds = [type(m) if not isinstance(m, unit) else unit for m in model.layers]
    assert kinds == [*[unit] * 3, *pools[0], *[unit] * 3, *pools[1], *[unit] * 3]
    for unit in model.layers[0], model.layers[-1]:
        assert [type(m) for m in unit] == [nn.Conv2d, nn.BatchNorm2d, MaxPieces]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert [type(m) for m in MIM(SHAPE, 4, blocks=2, width=1 / 16).layers[3:5]] == list(pools[0])
    assert len(MIM(SHAPE, 4, blocks=1, width=1 / 16).layers) == 3
    drops = [m.p for m in MIM(SHAPE, 4, dropout=0.1, width=1 / 16).modules() if isinstance(m, nn.Dropout)]
    assert drops == [0.1, 0.1]


def written(model, x, pieces, normalised):
    """The network position by position in torch's functional operations; pieces 0: ReLU."""
    y = x
    for k, unit in enumerate(m for m in model.modules() if isinstance(m, nin.Unit)):
        w = unit.conv.weight
        y = F.conv2d(y, w, unit.conv.bias, padding=w.shape[-1] // 2)
        if normalised:
            gamma, beta = (p.view(-1, 1, 1) for p in (unit.norm.weight, unit.norm.bias))
            mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), keepdim=True, correction=0)
            y = (y - mean) / (var + unit.norm.eps).sqrt() * gamma + beta
        y = peer(y, pieces) if pieces else y.clamp(min=0)
        if k == 2:  # windows begin at 0, 2, 4, ...; the last one has two columns only
            y = F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=-math.inf), 3, 2)
        if k == 5:
            inside = F.pad(torch.ones_like(y), (0, 1, 0, 1))
            y = F.avg_pool2d(F.pad(y, (0, 1, 0, 1)), 3, 2) / F.avg_pool2d(inside, 3, 2)
    return y.mean((2, 3))


@pytest.mark.parametrize("norm", [nn.Identity, BATCH])
@pytest.mark.parametrize(("activation", "pieces"), [("maxout", 2), ("maxout", 3), ("relu", 2)])
@pytest.mark.parametrize(("size", "shape"), [("cifar", (3, 16, 16)), ("mnist", (1, 12, 12))])
def test_values(norm, activation, pieces, size, shape):
    model = MIM(shape, 4, norm, size, 3, pieces, activation, width=1 / 24, dropout=0.0).double()
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)
    x = torch.randn(4, *shape, dtype=F64)
    expected = written(model, x, pieces if activation == "maxout" else 0, norm is BATCH)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    if activation == "relu":
        assert (model(x) >= 0).all()  # behind the last 1x1, too


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 28, 28), (3, 40, 33), (2, 4, 4)])
@pytest.mark.parametrize("make", [
    MIM, partial(MIM, norm=BATCH, pieces=3), partial(MIM, size="mnist", blocks=2), RCNN,
])  # fmt: skip
def test_other_input_sizes_and_a_step(make, shape):
    model = make(shape, 5, width=1 / 16)
    y = model(torch.randn(4, *shape))
    assert y.shape == (4, 5)
    F.cross_entropy(y, torch.tensor([0, 1, 4, 2])).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.make])
def test_every_normaliser(name):
    norm = partial(norms.build, name, dim=2)
    for activation in ("maxout", "relu"):
        model = MIM(SHAPE, 4, norm, activation=activation, width=1 / 24)
        assert model(torch.randn(4, *SHAPE)).shape == (4, 4)
        for conv in convs(model):
            assert (conv.bias is None) == (name not in ("none", "rms"))  # these two do not shift


def test_largest_of_gaussians():
    assert [mean_square(k) for k in (1, 2, 3, 4)] == pytest.approx(
        [1, 1, 1 + math.sqrt(3) / (2 * math.pi), 1 + math.sqrt(3) / math.pi], rel=1e-5
    )
    simulated = np.random.default_rng(0).standard_normal((200_000, 5)).max(1)
    assert mean_square(5) == pytest.approx(np.mean(simulated**2), rel=0.01)


@pytest.mark.parametrize("width", [1 / 4, 1])
@pytest.mark.parametrize(("activation", "pieces"), [("maxout", 2), ("maxout", 5), ("relu", 2)])
def test_start(width, activation, pieces):
    model = MIM(SHAPE, 10, activation=activation, pieces=pieces, width=width)
    square = 0.5 if activation == "relu" else mean_square(pieces)
    for conv in convs(model):
        std = math.sqrt(1 / (square * conv.in_channels * conv.kernel_size[0] ** 2))
        assert conv.weight.std().item() == pytest.approx(std, rel=0.1)
        assert conv.weight.mean().abs() < 5 * std / math.sqrt(conv.weight.numel())
        assert (conv.bias == 0).all()
        beyond = (conv.weight.abs() > 2 * std).float().mean().item()  # of a Gaussian 4.55 %
        assert beyond == pytest.approx(0.0455, abs=0.02)


@pytest.mark.parametrize(("activation", "pieces"), [("maxout", 2), ("maxout", 4), ("relu", 2)])
def test_signals_neither_grow_nor_fall_at_the_start(activation, pieces):
    squares = []
    for _ in range(20):
        model = MIM(SHAPE, 100, blocks=1, activation=activation, pieces=pieces)
        y = model.layers[1:](torch.randn(20, 192, 4, 4))  # the 1x1, which have no border
        squares.append(y.square().mean().item())
    assert np.mean(squares) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("size", "shape"), [("cifar", SHAPE), ("mnist", DIGITS)])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_equal_width(size, shape, blocks, pieces):
    width = equal_width(shape, 10, size, blocks, pieces, 0.5)
    ours, relu = (
        sum(c.weight.numel() for c in convs(MIM(shape, 10, nn.Identity, size, blocks, pieces, a, w)))
        for a, w in (("maxout", width), ("relu", 0.5))
    )
    assert ours == pytest.approx(relu, rel=0.05)  # whole filters
    assert (width == pytest.approx(0.5)) == (pieces == 1)


def test_memory_is_channels_last():
    x = torch.randn(2, *SHAPE)
    for model in (MIM(SHAPE, 4, BATCH), RCNN(SHAPE, 4, width=1 / 4), MaxoutMNIST(SHAPE, 4)):
        assert all(c.weight.is_contiguous(memory_format=LAST) for c in convs(model))
        layouts = []
        for m in model.modules():
            if isinstance(m, nn.Conv2d | MaxPieces):
                m.register_forward_hook(
                    lambda _, __, y, f=layouts: f.append(y.is_contiguous(memory_format=LAST))
                )
        model(x)
        assert layouts and all(layouts)


def test_errors():
    with pytest.raises(ValueError, match=r"^size='svhn': choose one of cifar, mnist$"):
        MIM(SHAPE, 10, size="svhn")
    for blocks in (0, 4):
        with pytest.raises(ValueError, match=f"^blocks={blocks}: choose 1, 2 or 3$"):
            MIM(SHAPE, 10, blocks=blocks)
    with pytest.raises(ValueError, match=r"^pieces=0: a maxout unit has one piece or more$"):
        MIM(SHAPE, 10, pieces=0)
    with pytest.raises(ValueError, match=r"^activation='tanh': choose maxout or relu$"):
        MIM(SHAPE, 10, activation="tanh")
    for width in (0.01, 0, -1, math.nan):
        with pytest.raises(ValueError, match=f"^width={width}: of 96 filters less than 2 are left$"):
            MIM(SHAPE, 10, width=width)
    with pytest.raises(ValueError, match=r"^width=0.009: of 160 filters less than 2 are left$"):
        RCNN(SHAPE, 10, width=0.009)
    for make in (MIM, RCNN):
        with pytest.raises(ValueError, match=r"^images of 2x2 are too small: 1 positions reach P"):
            make((3, 2, 2), 10)
    with pytest.raises(ValueError, match=r"^images of 7x7 are too small: 7 positions reach C"):
        MaxoutMNIST((1, 7, 7), 10)
    with pytest.raises(ValueError, match=r"^size='stl': choose one of cifar, mnist$"):
        RCNN(SHAPE, 10, size="stl")
    with pytest.raises(ValueError, match=r"^iterations=-1: must be 0 or more$"):
        RCNN(SHAPE, 10, iterations=-1)


# ---- Goodfellow et al.'s network for MNIST ----------------------------------------------------------------


def test_maxout_for_mnist():
    # 28 -> 21 -> 10 -> 9 -> 4 -> 6 -> 3 positions: poolings of cuda-convnet count a window that sticks out
    model = MaxoutMNIST(DIGITS, 10)
    expected = [64 * 96, 96, 48 * 64 * 96, 96, 48 * 25 * 96, 96, 24 * 9 * 10, 10]
    assert [p.numel() for p in model.parameters()] == expected
    found = sizes(MaxoutMNIST(DIGITS, 10, width=1 / 4), DIGITS, nn.Conv2d | MaxPieces | nn.MaxPool2d)
    assert found == [(24, 21, 21), (12, 21, 21), (12, 10, 10), (24, 9, 9), (12, 9, 9), (12, 4, 4),
                     (24, 6, 6), (6, 6, 6), (6, 3, 3)]  # fmt: skip
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.2, 0.5, 0.5, 0.5]
    assert list(nin.rates(model)) == []


def test_maxout_for_mnist_is_torchs_layers():
    model = MaxoutMNIST(DIGITS, 4, width=1 / 8).double().eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    x = y = torch.randn(2, *DIGITS, dtype=F64)
    out = model.layers[-1]
    for layer, padding, pieces, pool, beyond in zip(
        convs(model), (0, 3, 3), (2, 2, 4), (4, 4, 2), (1, 1, 0), strict=True
    ):
        y = peer(F.conv2d(y, layer.weight, layer.bias, padding=padding), pieces)
        y = F.max_pool2d(F.pad(y, (0, beyond, 0, beyond), value=-math.inf), pool, 2)
    torch.testing.assert_close(model(x), y.flatten(1) @ out.weight.T + out.bias, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("width", [1 / 4, 1])
def test_start_and_limits_of_maxout_for_mnist(width):
    model = MaxoutMNIST(DIGITS, 10, width=width)
    assert all((p == 0).all() for name, p in model.named_parameters() if name.endswith("bias"))
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    for k, weight in enumerate(weights):
        bound = 0.005 / math.sqrt(width) if k else 0.005
        assert 0.97 * bound < weight.abs().max() <= bound
    with torch.no_grad():
        for weight in weights:
            weight.mul_(1000)
    nin.max_norm_(model)
    for weight, limit in zip(weights, (0.9, 1.9365, 1.9365, 1.9365), strict=True):
        torch.testing.assert_close(weight.flatten(1).norm(dim=1).max().item(), limit, rtol=1e-4, atol=0)


# ---- RCNN -------------------------------------------------------------------------------------------------


def convolved(x, w):
    """3x3 with a ring of zeros, position by position."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))  # [B, C, H, W, 3, 3]
    return np.einsum("bchwij,ocij->bohw", windows, w)


def states_of(layer, x):
    """h_0, ..., h_T of a recurrent convolution layer, map by map."""
    w_f, b = layer.conv.weight.detach().numpy(), layer.conv.bias.detach().numpy()
    fed = convolved(x.numpy(), w_f) + b[:, None, None]
    k, states = len(b), []
    n = k // 8 + 1
    for t in range(layer.iterations + 1):
        u = fed + convolved(states[-1], layer.recurrent.weight.detach().numpy()) if t else fed
        f = np.maximum(u, 0)
        h = np.empty_like(f)
        for c in range(k):
            near = f[:, max(0, c - n // 2) : c + n // 2 + 1]
            h[:, c] = f[:, c] / (1 + 0.001 / n * (near**2).sum(1)) ** 0.75
        states.append(h)
    return states


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("filters", [3, 16])
def test_rcl_is_the_loop_written_out(iterations, filters):
    layer = RCL(5, filters, iterations).double()
    for p in layer.parameters():
        nn.init.normal_(p)  # such that LRN matters
    x = 3 * torch.randn(2, 5, 6, 4, dtype=F64)
    y = layer(x).detach().numpy()
    np.testing.assert_allclose(y, states_of(layer, x)[-1], rtol=1e-9, atol=1e-9)
    if iterations:
        bound = np.maximum(convolved(x.numpy(), layer.conv.weight.detach().numpy()), 0)
        assert not np.allclose(y, bound)


def test_rcl_without_iterations_is_a_convolution():
    layer = RCL(5, 16, 0).double()
    nn.init.normal_(layer.conv.bias)
    x = torch.randn(2, 5, 6, 6, dtype=F64)
    y = F.relu(F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1))
    torch.testing.assert_close(layer(x), F.local_response_norm(y, 3, 0.001, 0.75, 1.0))
    assert layer.recurrent is None and count(layer) == 5 * 16 * 9 + 16


def test_rcl_shares_its_filters_and_has_gradients():
    layer = RCL(2, 3, 3).double()
    calls = []
    for name, conv in (("fed", layer.conv), ("recurrent", layer.recurrent)):
        conv.register_forward_hook(lambda *_, name=name: calls.append(name))
    x = torch.randn(2, 2, 3, 3, dtype=F64, requires_grad=True)
    layer(x).sum().backward()
    assert calls == ["fed", *["recurrent"] * 3]
    assert all((p.grad != 0).any() for p in (x, *layer.parameters()))

    def as_function(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    names, parameters = zip(*layer.named_parameters(), strict=True)
    assert torch.autograd.gradcheck(as_function, (x, *parameters))


@pytest.mark.parametrize(("k", "published"), [(96, "0.67"), (128, "1.19"), (160, "1.86")])
def test_parameters_of_rcnn(k, published):
    by_hand = 3 * k * 25 + k + 4 * (2 * k * k * 9 + k) + k * 10 + 10
    model = RCNN(SHAPE, 10, width=k / 160)
    assert count(model) == by_hand
    assert f"{by_hand / 1e6:.2f}" == published
    assert count(RCNN(SHAPE, 10, width=k / 160, iterations=9)) == by_hand
    assert count(RCNN(SHAPE, 10, width=k / 160, iterations=0)) == by_hand - 4 * k * k * 9
    if k == 96:
        assert count(RCNN(SHAPE, 10, size="mnist")) == by_hand


def test_layers_of_rcnn():
    model = RCNN(SHAPE, 7, width=1 / 10)
    kinds = nn.Conv2d | nn.MaxPool2d | RCL
    model.layers.apply(lambda m: setattr(m, "iterations", 0) if isinstance(m, RCL) else None)
    found = [n for c, n, _ in sizes(model, SHAPE, kinds) if c == 16]
    assert found == [32, 16, *[16] * 4, 8, *[8] * 4]  # a layer after its convolution
    names = [type(m).__name__ for m in model.layers]
    assert names == ["Conv2d", "ReLU", "MaxPool2d", "RCL", "Dropout", "RCL", "MaxPool2d", "Dropout", "RCL",
                     "Dropout", "RCL"]  # fmt: skip
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5] * 3
    assert [m.norm.size for m in model.layers if isinstance(m, RCL)] == [3] * 4
    assert RCNN(SHAPE, 7).layers[3].norm.size == 21 and RCNN(SHAPE, 7).layers[3].iterations == 3


def test_rcnn_is_its_parts():
    model = RCNN((3, 12, 12), 4, width=1 / 10).double().eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    x = torch.randn(2, 3, 12, 12, dtype=F64)
    first, _, _, one, _, two, _, _, three, _, four = model.layers
    y = F.relu(F.conv2d(x, first.weight, first.bias, padding=2))

    def pooled(y):
        return F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=-math.inf), 3, 2)

    def recurrent(layer, y):
        return torch.from_numpy(states_of(layer, y.detach())[-1])

    y = pooled(recurrent(two, recurrent(one, pooled(y))))
    y = recurrent(four, recurrent(three, y)).amax((2, 3))
    torch.testing.assert_close(model(x), y @ model.out.weight.T + model.out.bias, rtol=1e-9, atol=1e-9)


def test_start_of_rcnn():
    model = RCNN(SHAPE, 10)
    for conv in convs(model):
        variance = (2 if conv.kernel_size == (5, 5) else 1) / conv.weight[0].numel()
        assert conv.weight.var().item() == pytest.approx(variance, rel=0.1)
        assert conv.bias is None or (conv.bias == 0).all()
    y = model.eval().layers[:-1](torch.randn(4, *SHAPE))
    assert 0.2 < y.std() < 5  # over four recurrent layers
