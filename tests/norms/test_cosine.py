"""Cosine normalisation against its formulas written out in numpy, against torch, and its identities."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from norms.cosine import CosineConv2d, CosineLinear

F64 = torch.float64
WINDOWS = [  # in, out, kernel, options
    (3, 5, 3, {}),
    (3, 4, 3, {"padding": 1}),
    (4, 6, (3, 2), {"stride": (2, 1), "padding": (0, 1), "groups": 2}),
    (4, 4, 3, {"dilation": 2, "padding": 2, "groups": 4}),
    (2, 3, (1, 2), {"dilation": (1, 3), "stride": 2}),
    (3, 2, (3, 5), {"padding": "same", "dilation": (1, 2)}),
    (2, 3, 3, {"padding": 2, "padding_mode": "reflect"}),
    (2, 3, 3, {"padding": "valid"}),
]


def similarity(w, x, centred):
    """Of each w [O, D] with each x [D, M], in numpy."""
    if centred:
        w, x = w - w.mean(1, keepdims=True), x - x.mean(0, keepdims=True)
    return (w @ x) / np.sqrt((w**2).sum(1))[:, None] / np.sqrt((x**2).sum(0))[None, :]


def reference(x, w, stride, dilation, groups, centred):
    """A loop over examples, groups and positions of x, already padded."""
    (n, _, h, width), (out, per, kh, kw) = x.shape, w.shape
    rows = (h - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    columns = (width - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    y = np.zeros((n, out, rows, columns))
    for i, j in np.ndindex(rows, columns):
        top, left = i * stride[0], j * stride[1]
        patch = x[:, :, top : top + (kh - 1) * dilation[0] + 1 : dilation[0]]
        patch = patch[..., left : left + (kw - 1) * dilation[1] + 1 : dilation[1]]
        for g in range(groups):
            units = slice(g * out // groups, (g + 1) * out // groups)
            flat = patch[:, g * per : (g + 1) * per].reshape(n, -1).T
            y[:, units, i, j] = similarity(w[units].reshape(out // groups, -1), flat, centred).T
    return y


def padded(layer, x):
    mode = {"zeros": "constant"}.get(layer.padding_mode, layer.padding_mode)
    if layer.padding == "valid":
        return x
    if layer.padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        sides = [(t // 2, t - t // 2) for t in total]
    else:
        sides = [(p, p) for p in layer.padding]
    return np.pad(x, [(0, 0), (0, 0), *sides], mode=mode)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_convolution_against_numpy(window, centred):
    torch.manual_seed(0)
    *sizes, options = window
    layer = CosineConv2d(*sizes, **options, centred=centred, dtype=F64)
    x = torch.randn(2, sizes[0], 8, 9, dtype=F64) + 0.5
    w = layer.weight.detach().numpy()
    expected = reference(padded(layer, x.numpy()), w, layer.stride, layer.dilation, layer.groups, centred)
    y = layer(x)
    np.testing.assert_allclose(y.detach(), expected, rtol=0, atol=1e-12)
    assert y.shape == nn.Conv2d(*sizes, **options)(x.float()).shape
    torch.testing.assert_close(layer(x[0]), y[0], rtol=0, atol=1e-14)  # without a batch


@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 5)])
@pytest.mark.parametrize("centred", [False, True])
def test_linear_against_numpy(centred, shape):
    layer = CosineLinear(5, 4, centred=centred, dtype=F64)
    x = torch.randn(shape, dtype=F64) + 1
    expected = similarity(layer.weight.detach().numpy(), x.numpy().reshape(-1, 5).T, centred).T
    np.testing.assert_allclose(layer(x).detach().reshape(-1, 4), expected, rtol=0, atol=1e-12)


def test_linear_is_cosine_similarity_and_correlation():
    x = torch.randn(6, 5, dtype=F64)
    layer = CosineLinear(5, 4, dtype=F64)
    expected = F.cosine_similarity(x[:, None], layer.weight[None], dim=-1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-14)
    layer = CosineLinear(5, 4, centred=True, dtype=F64)
    both = np.corrcoef(x.numpy(), layer.weight.detach().numpy())
    np.testing.assert_allclose(layer(x).detach(), both[:6, 6:], rtol=0, atol=1e-14)


def test_convolution_is_cosine_similarity_over_unfolded_patches():
    x, layer = torch.randn(2, 3, 6, 7, dtype=F64), CosineConv2d(3, 4, 3, padding=1, dtype=F64)
    patches = F.unfold(x, 3, padding=1)  # [N, 27, positions]
    expected = F.cosine_similarity(layer.weight.flatten(1)[None, :, :, None], patches[:, None], dim=2)
    torch.testing.assert_close(layer(x), expected.view(2, 4, 6, 7), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", [torch.float32, F64])
@pytest.mark.parametrize("centred", [False, True])
def test_bounds_and_invariances(centred, kind):
    torch.manual_seed(1)
    layer = CosineConv2d(3, 8, 3, padding=1, centred=centred, dtype=kind)
    x = torch.randn(4, 3, 9, 9, dtype=kind)
    x[:, :, 2:5, 2:5] = layer.weight[0].detach()  # a patch like a filter: 1 there
    y, tiny = layer(x), 8 * torch.finfo(kind).eps
    assert y.abs().max() <= 1 + tiny
    torch.testing.assert_close(y[:, 0, 3, 3], torch.ones(4, dtype=kind), rtol=0, atol=tiny)
    torch.testing.assert_close(layer(7 * x), y, rtol=0, atol=tiny)
    if centred:
        inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
        torch.testing.assert_close(layer(x + 3)[inside], y[inside], rtol=0, atol=20 * tiny)
    with torch.no_grad():
        layer.weight *= torch.rand(8, 1, 1, 1, dtype=kind) + 0.5
    torch.testing.assert_close(layer(x), y, rtol=0, atol=tiny)


def test_correlation_keeps_its_precision_at_a_large_mean():
    layer = CosineConv2d(3, 4, 3, centred=True)
    x = torch.randn(4, 3, 8, 8) + 300
    exact = copy.deepcopy(layer).double()(x.double())
    assert (layer(x).double() - exact).abs().max() < 1e-4
    layer = CosineLinear(50, 4, centred=True)
    x = torch.randn(4, 50) + 300
    assert (layer(x).double() - copy.deepcopy(layer).double()(x.double())).abs().max() < 1e-4


@pytest.mark.parametrize("centred", [False, True])
def test_backward_by_its_formula(centred):
    """methods: dw = dc (x/|x| - c w/|w|)/|w|, dx = dc (w/|w| - c x/|x|)/|x|, with both centred if need be."""
    layer = CosineLinear(5, 1, centred=centred, dtype=F64)
    x = torch.randn(5, dtype=F64, requires_grad=True)
    c = layer(x)
    c.backward(torch.tensor([2.0], dtype=F64))
    w, v = layer.weight.detach().numpy()[0], x.detach().numpy()
    if centred:
        w, v = w - w.mean(), v - v.mean()
    nw, nv = np.sqrt((w**2).sum()), np.sqrt((v**2).sum())
    np.testing.assert_allclose(layer.weight.grad[0], 2 * (v / nv - c.item() * w / nw) / nw, atol=1e-13)
    np.testing.assert_allclose(x.grad, 2 * (w / nw - c.item() * v / nv) / nv, atol=1e-13)


def as_function(layer):
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *values):
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    return function, [p.detach().clone().requires_grad_() for p in layer.parameters()]


@pytest.mark.parametrize("centred,scale", [(False, None), (True, 2.0)])
def test_gradcheck_and_gradgradcheck(centred, scale):
    torch.manual_seed(0)
    options = {"centred": centred, "scale": scale, "dtype": F64}
    for layer, shape in (
        (CosineLinear(4, 3, **options), (2, 4)),
        (CosineConv2d(2, 4, 2, groups=2, padding=1, **options), (1, 2, 3, 3)),
    ):
        function, parameters = as_function(layer)
        x = torch.randn(shape, dtype=F64, requires_grad=True)
        assert torch.autograd.gradcheck(function, (x, *parameters))
        assert torch.autograd.gradgradcheck(function, (x, *parameters))


@pytest.mark.parametrize("level", [0.0, 0.1, 3.3, 70.1])
@pytest.mark.parametrize("kind", [torch.float32, F64, torch.bfloat16])
def test_no_direction_is_zero_with_a_zero_gradient(kind, level):
    """Zero patches for the cosine, constant ones for the correlation, beside others that are neither."""
    for layer, flat in (
        (CosineConv2d(3, 4, 3, padding=1, centred=level > 0, dtype=kind), (slice(None), slice(3, 8))),
        (CosineLinear(10, 4, centred=level > 0, dtype=kind), (slice(1, 3),)),
    ):
        x = torch.randn((2, 3, 10, 10) if len(flat) == 2 else (4, 10)).to(kind)
        if len(flat) == 2:
            x[:, :, 3:8, 3:8] = level
        else:
            x[flat] = level
        x.requires_grad_()
        y = layer(x)
        inner = y[:, :, 4:7, 4:7] if len(flat) == 2 else y[flat]
        assert torch.equal(inner, torch.zeros_like(inner))
        gradient = torch.autograd.grad(y.float().square().sum(), [x, layer.weight])
        assert all(g.isfinite().all() for g in gradient)
        centre = gradient[0][:, :, 5, 5] if len(flat) == 2 else gradient[0][flat]
        assert torch.equal(centre, torch.zeros_like(centre))
        with torch.no_grad():
            layer.weight[0] = level
        y = layer(torch.randn_like(x))
        assert torch.equal(y.select(1, 0), torch.zeros_like(y.select(1, 0)))


def test_scale_is_learned_and_in_place():
    plain, scaled = CosineLinear(5, 4, dtype=F64), CosineLinear(5, 4, scale=3.0, dtype=F64)
    assert plain.scale is None and list(plain.state_dict()) == ["weight"]
    scaled.load_state_dict({**plain.state_dict(), "scale": torch.tensor(3.0, dtype=F64)})
    x = torch.randn(6, 5, dtype=F64)
    torch.testing.assert_close(scaled(x), 3 * plain(x), rtol=0, atol=1e-14)
    scaled(x).sum().backward()
    torch.testing.assert_close(scaled.scale.grad, plain(x).sum())
    with torch.no_grad():
        scaled.scale.fill_(1)
    scaled.reset_parameters()
    assert scaled.scale.item() == 3


def test_a_bounded_softmax_has_the_stated_smallest_loss():
    """Logits in [-1, 1], K = 10: at best 1 for the right class and -1 for the others."""
    logits = torch.full((1, 10), -1.0, dtype=F64)
    logits[0, 3] = 1
    assert F.cross_entropy(logits, torch.tensor([3])).item() == pytest.approx(math.log(1 + 9 * math.exp(-2)))


# ---- as a citizen of torch -----------------------------------------------------------------------

MAKE = {
    "linear": lambda **o: (CosineLinear(6, 4, **o), torch.randn(5, 6, dtype=o.get("dtype"))),
    "conv": lambda **o: (
        CosineConv2d(4, 6, 3, padding=1, groups=2, **o),
        torch.randn(2, 4, 5, 5, dtype=o.get("dtype")),
    ),
}


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_state_dict_deepcopy_pickle_and_empty_batch(make, centred):
    layer, x = make(centred=centred, scale=2.0)
    loaded, _ = make(centred=centred, scale=1.0)
    loaded.load_state_dict(layer.state_dict())
    for other in (loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
    y = layer(x[:0].requires_grad_())
    assert y.shape == (0, *layer(x).shape[1:])
    y.sum().backward()
    assert f"centred={centred}, scale=2.0" in repr(layer)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_torch_func(make, centred):
    members = [make(centred=centred, dtype=F64)[0] for _ in range(3)]
    xs = torch.stack([make(dtype=F64)[1] for _ in members])
    parameters, _ = stack_module_state(members)

    def loss(p, x):
        return functional_call(members[0], p, (x,)).sin().sum()

    found = vmap(grad(loss))(parameters, xs)
    for k, (member, x) in enumerate(zip(members, xs, strict=True)):
        member(x).sin().sum().backward()
        torch.testing.assert_close(found["weight"][k], member.weight.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_autocast_and_bfloat16(make, centred):
    layer, x = make(centred=centred)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16 and layer.weight.grad.dtype == torch.float32
    assert (y.float() - expected).abs().max() < 0.03
    y = layer.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16 and (y.float() - expected).abs().max() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_compiled_equals_uncompiled(make, centred):
    layer, x = make(centred=centred, dtype=F64)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    compiled(a).sin().sum().backward()
    layer(b).sin().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)


def test_device_and_dtype_of_construction():
    for layer in (
        CosineLinear(3, 4, scale=1.0, device="meta", dtype=F64),
        CosineConv2d(3, 4, 3, centred=True, scale=1.0, device="meta", dtype=F64),
    ):
        assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", F64)}
        assert layer(torch.empty(2, *[3] * (layer.weight.dim() - 1), device="meta", dtype=F64)).shape[1] == 4


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"scale": 0.0}, {"scale": -1}, {"scale": "1"}, {"eps": 0}, {"eps": math.nan}, {"eps": None}]
)
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_bad_options_are_one_clear_line(make, options):
    (key,) = options
    with pytest.raises(ValueError, match=rf"^{key}=.*: give .*above 0$"):
        make(**options)


def test_correlation_of_one_entry_is_refused():
    with pytest.raises(ValueError, match=r"^centred=True: one weight a unit \(weight size \[4, 1\]\)"):
        CosineLinear(1, 4, centred=True)
    with pytest.raises(ValueError, match=r"^centred=True"):
        CosineConv2d(4, 4, 1, groups=4, centred=True)


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 6, 6), (5, 6, 6), (1, 2, 3, 6, 6), (2, 3, 2, 2)])
@pytest.mark.parametrize("centred", [False, True])
def test_wrong_input_is_torchs_own_error(shape, centred):
    x = torch.randn(shape)
    with pytest.raises(RuntimeError) as theirs:
        nn.Conv2d(3, 4, 3, bias=False)(x)
    with pytest.raises(RuntimeError) as ours:
        CosineConv2d(3, 4, 3, centred=centred)(x)
    assert str(ours.value) == str(theirs.value)


def test_wrong_linear_input_is_torchs_own_error():
    with pytest.raises(RuntimeError) as theirs:
        nn.Linear(3, 4, bias=False)(torch.randn(2, 5))
    with pytest.raises(RuntimeError) as ours:
        CosineLinear(3, 4)(torch.randn(2, 5))
    assert str(ours.value) == str(theirs.value)
