"""Normalisation propagation against its formulas written out in numpy, against quadrature, and its
identities."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from norms.normprop import (
    BatchDataNormalization,
    GlobalDataNormalization,
    NormPropConv2d,
    NormPropLinear,
    _nodes,
    activation_constants,
    unit_norm_,
)


def called(value):
    """A test's name without an address in memory, in which worker processes would differ."""
    return getattr(value, "__name__", str(value))


F64 = torch.float64
C1, C2 = math.sqrt((1 - 1 / math.pi) / 2), 1 / math.sqrt(2 * math.pi)


# ---- the constants -------------------------------------------------------------------------------


def quadrature(f, edges=()):
    """Mean and standard deviation of f(z), z ~ N(0, 1), by scipy, between the edges of f."""
    edges = [-np.inf, *edges, np.inf]

    def expect(g):
        def integrand(z):
            return g(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        ends = itertools.pairwise(edges)
        return sum(integrate.quad(integrand, a, b, epsabs=1e-13, epsrel=1e-13)[0] for a, b in ends)

    mean = expect(f)
    return mean, math.sqrt(expect(lambda z: (f(z) - mean) ** 2))


def plain(activation):
    return lambda z: activation(torch.tensor(z, dtype=F64)).item()


@pytest.mark.parametrize(
    "activation,edges",
    [
        (F.relu, [0]), (nn.ReLU(), [0]), (nn.LeakyReLU(0.2), [0]), (nn.LeakyReLU(-1.5), [0]),
        (nn.Identity(), []), (torch.tanh, []), (torch.sigmoid, []), (nn.GELU(), []), (F.silu, []),
        (F.softplus, []), (nn.ELU(), [0]), (F.selu, [0]), (torch.sin, []), (torch.abs, [0]),
        (nn.Hardtanh(inplace=True), [-1, 1]), (F.relu6, [0, 6]), (F.hardswish, [-3, 3]),
        (F.hardshrink, [-0.5, 0.5]), (torch.square, []),
    ],
    ids=called,
)  # fmt: skip
def test_constants_against_scipy(activation, edges):
    np.testing.assert_allclose(
        activation_constants(activation), quadrature(plain(activation), edges), atol=1e-10, rtol=1e-10
    )


def test_constants_with_kinks_elsewhere_are_near():
    activation = nn.Hardtanh(-0.7, 0.71)
    expected = quadrature(plain(activation), [-0.7, 0.71])
    np.testing.assert_allclose(activation_constants(activation), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("slope", [-2.0, -1.0, 0.0, 0.25, 1.0, 3.0])
def test_constants_of_prelu_and_their_gradient(slope):
    prelu = nn.PReLU(init=slope, dtype=F64)
    mean, std = activation_constants(prelu)
    expected = quadrature(lambda z: z if z > 0 else slope * z, [0])
    np.testing.assert_allclose([mean.item(), std.item()], expected, atol=1e-12)
    (slope_of_std,) = torch.autograd.grad(std.sum(), prelu.weight)
    up, down = (quadrature(lambda z, a=slope + h: z if z > 0 else a * z, [0])[1] for h in (1e-5, -1e-5))
    assert slope_of_std.item() == pytest.approx((up - down) / 2e-5, abs=1e-6)


def test_known_values():
    assert activation_constants(F.relu) == (pytest.approx(C2, abs=1e-15), pytest.approx(C1, abs=1e-15))
    assert pytest.approx((0.583819, 0.398942), abs=1e-6) == (C1, C2)
    exact = math.exp(0.5), math.sqrt(math.e * (math.e - 1))
    assert activation_constants(torch.exp) == pytest.approx(exact, rel=1e-12)
    assert activation_constants(torch.sigmoid) == pytest.approx((0.5, 0.20828), abs=5e-6)
    assert activation_constants(torch.tanh) == pytest.approx((0, 0.6279), abs=5e-5)
    assert activation_constants(nn.Identity()) == (0, 1)
    assert math.sqrt(0.5) / C1 == pytest.approx(1.21117, abs=5e-6)


# ---- the layers ----------------------------------------------------------------------------------

ACTIVATIONS = {
    "relu": (F.relu, lambda z: np.maximum(z, 0), [0]),
    "ReLU": (nn.ReLU(), lambda z: np.maximum(z, 0), [0]),
    "leaky": (nn.LeakyReLU(0.3), lambda z: np.where(z > 0, z, 0.3 * z), [0]),
    "identity": (nn.Identity(), lambda z: z, []),
    "tanh": (torch.tanh, np.tanh, []),
    "prelu": (nn.PReLU(init=-0.4, dtype=F64), lambda z: np.where(z > 0, z, -0.4 * z), [0]),
}


def make(cls=NormPropLinear, *sizes, activation=F.relu, seed=0, **options):
    """A layer with gamma and beta off their initial values."""
    torch.manual_seed(seed)
    layer = cls(*sizes, activation=copy.deepcopy(activation), dtype=F64, **options)
    with torch.no_grad():
        layer.gamma.uniform_(-1, 2)
        layer.bias.normal_()
    return layer


def numbers(*tensors):
    return [t.detach().numpy() for t in tensors]


@pytest.mark.parametrize("activation,phi,edges", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("shape", [(5,), (6, 5), (2, 3, 5)])
def test_linear_against_numpy(shape, activation, phi, edges):
    layer = make(NormPropLinear, 5, 4, activation=activation)
    x = torch.randn(shape, dtype=F64)
    w, gamma, beta = numbers(layer.weight, layer.gamma, layer.bias)
    c2, c1 = quadrature(phi, edges)
    z = gamma * (x.numpy() @ w.T) / np.sqrt((w**2).sum(1)) + beta
    np.testing.assert_allclose(layer(x).detach(), (phi(z) - c2) / c1, rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation,phi,edges", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_against_numpy(groups, activation, phi, edges):
    layer = make(NormPropConv2d, 4, 6, (3, 2), (2, 1), (1, 0), 1, groups, activation=activation)
    x = torch.randn(2, 4, 6, 5, dtype=F64)
    w, gamma, beta = numbers(layer.weight, layer.gamma, layer.bias)
    c2, c1 = quadrature(phi, edges)
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (1, 1), (0, 0)])
    y = np.zeros((2, 6, 3, 4))
    for unit, i, j in np.ndindex(6, 3, 4):
        first = 4 // groups * (unit // (6 // groups))
        patch = padded[:, first : first + 4 // groups, 2 * i : 2 * i + 3, j : j + 2]
        z = gamma[unit] * (patch * w[unit]).sum((1, 2, 3)) / np.sqrt((w[unit] ** 2).sum()) + beta[unit]
        y[:, unit, i, j] = (phi(z) - c2) / c1
    np.testing.assert_allclose(layer(x).detach(), y, rtol=0, atol=1e-10)
    torch.testing.assert_close(layer(x[0]), layer(x)[0], rtol=0, atol=1e-12)  # without a batch


def test_prelu_with_a_slope_a_unit():
    slopes = torch.linspace(-1, 2, 4, dtype=F64)
    for layer, shape in (
        (make(NormPropLinear, 5, 4, activation=nn.PReLU(4, dtype=F64)), (2, 3, 5)),
        (make(NormPropConv2d, 3, 4, 2, activation=nn.PReLU(4, dtype=F64)), (3, 4, 4)),
    ):
        with torch.no_grad():
            layer.activation.weight.copy_(slopes)
        x = torch.randn(shape, dtype=F64)
        y = layer(x)
        for unit, slope in enumerate(slopes.tolist()):
            alone = copy.deepcopy(layer)
            alone.activation = nn.PReLU(init=slope, dtype=F64)
            axis = -1 if isinstance(layer, NormPropLinear) else 0
            torch.testing.assert_close(alone(x).select(axis, unit), y.select(axis, unit))


def test_backward_by_its_formula():
    """With u = W x/|W| and da = do 1(a > 0)/c1: dgamma = sum da u, dbeta = sum da, dx = da gamma Wt,
    dW = (dWt - Wt <dWt, Wt>)/|W|."""
    layer = make(NormPropLinear, 5, 4)
    x = torch.randn(6, 5, dtype=F64, requires_grad=True)
    do = torch.randn(6, 4, dtype=F64)
    layer(x).backward(do)
    w, gamma, beta, v, do = numbers(layer.weight, layer.gamma, layer.bias, x, do)
    norm = np.sqrt((w**2).sum(1, keepdims=True))
    wt = w / norm
    u = v @ wt.T
    da = do * (gamma * u + beta > 0) / C1
    dwt = (da * gamma).T @ v
    expected = (dwt - wt * (dwt * wt).sum(1, keepdims=True)) / norm
    np.testing.assert_allclose(layer.weight.grad, expected, atol=1e-13)
    np.testing.assert_allclose(layer.gamma.grad, (da * u).sum(0), atol=1e-13)
    np.testing.assert_allclose(layer.bias.grad, da.sum(0), atol=1e-13)
    np.testing.assert_allclose(x.grad, da * gamma @ wt, atol=1e-13)


def as_function(layer):
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *values):
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    return function, [p.detach().clone().requires_grad_() for p in layer.parameters()]


@pytest.mark.parametrize("activation", [F.relu, torch.tanh, nn.PReLU(4, dtype=F64)], ids=called)
def test_gradcheck_and_gradgradcheck(activation):
    for layer, shape in (
        (make(NormPropLinear, 3, 4, activation=activation), (2, 3)),
        (make(NormPropConv2d, 2, 4, 2, groups=2, activation=activation), (1, 2, 3, 3)),
    ):
        function, parameters = as_function(layer)
        x = torch.randn(shape, dtype=F64, requires_grad=True)
        assert torch.autograd.gradcheck(function, (x, *parameters))
        assert torch.autograd.gradgradcheck(function, (x, *parameters))


# ---- what it is for ------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.21])
@pytest.mark.parametrize("activation", [F.relu, torch.tanh, nn.LeakyReLU(0.1)], ids=called)
@pytest.mark.parametrize("convolution", [False, True])
def test_gaussian_input_stays_normalised(convolution, activation, gamma):
    """z of a unit is exactly N(0, gamma^2): one weight of a layer fed with the nodes of an integral would do;
    this is the layer itself, on n independent inputs. Mean and variance of a sample deviate by std/sqrt(n)
    and std^2 sqrt((kurtosis - 1)/n); five of these are allowed, for each of 3 units."""
    torch.manual_seed(0)
    n, activation = 20000, copy.deepcopy(activation)
    f = plain(activation)
    c2, c1 = quadrature(f, [0])
    mean, std = quadrature(lambda z: (f(gamma * z) - c2) / c1, [0])
    fourth = quadrature(lambda z: ((f(gamma * z) - c2) / c1 - mean) ** 2, [0])
    kurtosis = (fourth[1] ** 2 + fourth[0] ** 2) / std**4
    if convolution:  # the window as large as the image: inputs are independent
        layer, x = NormPropConv2d(2, 3, 3, activation=activation, gamma=gamma), torch.randn(n, 2, 3, 3)
    else:
        layer, x = NormPropLinear(7, 3, activation=activation, gamma=gamma), torch.randn(n, 7)
    y = layer(x).detach().flatten(1).double()
    assert (y.mean(0) - mean).abs().max() < 5 * std / math.sqrt(n)
    assert (y.var(0) - std**2).abs().max() < 5 * std**2 * math.sqrt((kurtosis - 1) / n)
    if gamma == 1:
        assert (mean, std) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))
    elif activation is F.relu:
        assert (mean, std) == (pytest.approx(-0.119, abs=5e-4), pytest.approx(0.826, abs=5e-4))
        assert mean == pytest.approx((gamma - 1) * C2 / C1)


def test_the_published_start_is_the_default():
    layer = NormPropLinear(3, 4)
    assert torch.equal(layer.gamma, torch.full((4,), 1 / 1.21)) and not layer.bias.any()
    with torch.no_grad():
        layer.gamma.zero_()
        layer.bias.fill_(1)
        layer.weight.zero_()
    layer.reset_parameters()
    assert torch.equal(layer.gamma, torch.full((4,), 1 / 1.21)) and not layer.bias.any()
    bound = math.sqrt(6 / (500 + 300))  # Glorot & Bengio, eq. 16
    w = NormPropLinear(500, 300).weight
    assert 0.99 * bound < w.abs().max() <= bound
    bound = math.sqrt(6 / (9 * (20 + 30)))
    w = NormPropConv2d(20, 30, 3).weight
    assert 0.99 * bound < w.abs().max() <= bound


def test_expected_jacobian():
    """E[J J^T] = gamma^2 0.5/c1^2 I for orthonormal W: 1.467 I at gamma = 1, about I at 1/1.21."""
    for gamma, expected in ((1, 1.467), (1 / 1.21, 1.002)):
        layer = NormPropLinear(3, 3, gamma=gamma, dtype=F64)
        nn.init.orthogonal_(layer.weight)
        jacobians = vmap(torch.func.jacrev(layer))(torch.randn(20000, 3, dtype=F64))
        found = (jacobians @ jacobians.mT).mean(0)
        # A diagonal entry is gamma^2/c1^2 times a coin: standard deviation of the mean 1.47 / sqrt(20000).
        torch.testing.assert_close(found, expected * torch.eye(3, dtype=F64), rtol=0, atol=0.05)


def test_unit_norm_leaves_the_function_and_the_momentum():
    torch.manual_seed(0)
    model = nn.Sequential(NormPropConv2d(2, 3, 3), nn.Flatten(), NormPropLinear(12, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    x = torch.randn(5, 2, 4, 4)
    model(x).square().sum().backward()
    optimizer.step()
    before, last = model(x), model[3].weight.clone()
    buffers = [s["momentum_buffer"].clone() for s in optimizer.state.values()]
    unit_norm_(model)
    for layer in (model[0], model[2]):
        norms = layer.weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        assert layer.weight.requires_grad
    torch.testing.assert_close(model(x), before)
    assert torch.equal(model[3].weight, last)
    after = [s["momentum_buffer"] for s in optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(after, buffers, strict=True))


@pytest.mark.parametrize("cls,sizes,shape", [(NormPropLinear, (3, 4), (2, 3)),
                                             (NormPropConv2d, (3, 4, 1), (2, 3, 2, 2))])  # fmt: skip
def test_a_filter_of_zeros_gives_a_constant_not_nan(cls, sizes, shape):
    layer = cls(*sizes)
    with torch.no_grad():
        layer.weight[1] = 0
    unit_norm_(layer)
    y = layer(torch.randn(shape))
    torch.testing.assert_close(y[:, 1], torch.full_like(y[:, 1], -C2 / C1))
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_at_beta_0_an_input_of_zeros_has_the_gradient_of_relu_at_0():
    """The threshold stands where the folded bias is, exactly."""
    for kind in (torch.float32, F64):
        layer = NormPropConv2d(2, 3, 3, dtype=kind)
        x = torch.zeros(1, 2, 3, 3, dtype=kind, requires_grad=True)
        layer(x).sum().backward()
        assert not x.grad.any() and not layer.bias.grad.any()


# ---- the input -----------------------------------------------------------------------------------


def test_global_data_normalization():
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (3000, 2, 3, 3), dtype=np.uint8)
    data[:, 0, 0] = 7  # never varies
    layer = GlobalDataNormalization.of(torch.from_numpy(data), dtype=F64)
    mean, std = data.mean(0), data.std(0)
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.std, np.where(std == 0, 1, std), rtol=1e-12)
    y = layer(torch.from_numpy(data))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(0, correction=0), std > 0, atol=1e-12)
    assert torch.equal(layer.eval()(torch.from_numpy(data[:5])), y[:5])  # evaluation is the same
    assert layer(torch.from_numpy(data[:0])).shape == (0, 2, 3, 3)
    other = GlobalDataNormalization(torch.zeros(2, 3, 3), torch.ones(2, 3, 3)).double()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(torch.from_numpy(data)), y)


def test_a_constant_element_whose_mean_rounds_is_constant():
    layer = GlobalDataNormalization.of(torch.full((3001, 2), 0.1, dtype=F64))
    assert layer.std.tolist() == [1, 1] and layer.mean.dtype == torch.float32


def test_global_data_normalization_refuses():
    with pytest.raises(ValueError, match=r"^expected input \[N, 2, 3\] \(got input size \[4, 3, 2\]\)$"):
        GlobalDataNormalization(torch.zeros(2, 3), torch.ones(2, 3))(torch.zeros(4, 3, 2))
    with pytest.raises(ValueError, match=r"^mean is of size \[2\], but std of size \[3\]"):
        GlobalDataNormalization(torch.zeros(2), torch.ones(3))
    with pytest.raises(ValueError, match=r"^std: give numbers above 0$"):
        GlobalDataNormalization(torch.zeros(2), torch.tensor([1.0, 0]))
    with pytest.raises(ValueError, match="at least one example"):
        GlobalDataNormalization.of(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="at least one example"):
        GlobalDataNormalization.of(torch.tensor(1.0))
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=r"^the data are not finite$"):
            GlobalDataNormalization.of(torch.tensor([[1.0, 2.0], [bad, 3.0]]))
        with pytest.raises(ValueError, match=r"^mean: give finite numbers$"):
            GlobalDataNormalization(torch.tensor([bad]), torch.ones(1))
        with pytest.raises(ValueError, match=r"^std: give numbers above 0$"):
            GlobalDataNormalization(torch.zeros(1), torch.tensor([bad]))
    for no_tensor in ([[1.0], [2.0]], np.ones((2, 1)), 1.0):
        with pytest.raises(TypeError, match=r"^data: expected a tensor, got .*$"):
            GlobalDataNormalization.of(no_tensor)
        with pytest.raises(TypeError, match=r"^std: expected a tensor, got .*$"):
            GlobalDataNormalization(torch.zeros(1), no_tensor)


def test_batch_data_normalization():
    layer = BatchDataNormalization((2, 3), momentum=0.25, dtype=F64)
    x = torch.randn(6, 2, 3, dtype=F64) * 3 + 1
    v = x.numpy()
    y = layer(x)
    np.testing.assert_allclose(y, (v - v.mean(0)) / np.sqrt(v.var(0) + 1e-5), atol=1e-12)
    mean, var = 0.25 * v.mean(0), 0.75 + 0.25 * v.var(0, ddof=1)  # torch's running variance is over n - 1
    np.testing.assert_allclose(layer.eval()(x), (v - mean) / np.sqrt(var + 1e-5), atol=1e-12)
    assert not list(layer.parameters())
    with pytest.raises(ValueError, match=r"^expected input \[N, 2, 3\] \(got input size \[6, 3, 2\]\)$"):
        layer(x.mT)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer.train()(x[:1])
    assert BatchDataNormalization(4)(torch.randn(3, 4)).shape == (3, 4)


# ---- as a citizen of torch -----------------------------------------------------------------------

KINDS = {
    "linear": (NormPropLinear, (6, 4), (5, 6)),
    "conv": (NormPropConv2d, (4, 4, 3, 1, 1, 1, 2), (2, 4, 5, 5)),
}


@pytest.mark.parametrize("activation", [F.relu, nn.PReLU(4, dtype=F64)], ids=called)
@pytest.mark.parametrize("cls,sizes,shape", KINDS.values(), ids=KINDS)
def test_state_dict_deepcopy_pickle_and_empty_batch(cls, sizes, shape, activation):
    layer, loaded = (make(cls, *sizes, activation=activation, seed=seed) for seed in range(2))
    x = torch.randn(shape, dtype=F64)
    loaded.load_state_dict(layer.state_dict())
    for other in (loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
    y = layer(x[:0].requires_grad_())
    assert y.shape == (0, *layer(x).shape[1:])
    y.sum().backward()
    name = "relu" if activation is F.relu else "PReLU"
    assert f"activation={name}, gamma=0.826446" in repr(layer)


@pytest.mark.parametrize("activation", [F.relu, torch.tanh, nn.PReLU(4, dtype=F64)], ids=called)
@pytest.mark.parametrize("cls,sizes,shape", KINDS.values(), ids=KINDS)
def test_torch_func(cls, sizes, shape, activation):
    members = [make(cls, *sizes, activation=activation, seed=seed) for seed in range(3)]
    parameters, _ = stack_module_state(members)
    xs = torch.randn(3, *shape, dtype=F64)

    def loss(p, x):
        return functional_call(members[0], p, (x,)).sin().sum()

    found = vmap(grad(loss))(parameters, xs)
    for k, (member, x) in enumerate(zip(members, xs, strict=True)):
        member(x).sin().sum().backward()
        for name, p in member.named_parameters():
            torch.testing.assert_close(found[name][k], p.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", [F.relu, torch.tanh, nn.LeakyReLU(0.2), nn.PReLU(4)], ids=called)
@pytest.mark.parametrize("cls,sizes,shape", KINDS.values(), ids=KINDS)
def test_autocast_and_bfloat16(cls, sizes, shape, activation):
    layer, x = cls(*sizes, activation=copy.deepcopy(activation)), torch.randn(shape)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    assert layer.weight.grad.dtype == layer.gamma.grad.dtype == torch.float32
    assert (y.float() - expected).abs().max() < 0.05
    y = layer.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16 and (y.float() - expected).abs().max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("activation", [F.relu, torch.tanh, nn.PReLU(4, dtype=F64)], ids=called)
@pytest.mark.parametrize("cls,sizes,shape", KINDS.values(), ids=KINDS)
def test_compiled_equals_uncompiled(cls, sizes, shape, activation):
    layer, x = make(cls, *sizes, activation=activation), torch.randn(shape, dtype=F64)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    compiled(a).sin().sum().backward()
    layer(b).sin().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)


def test_device_and_dtype_of_construction():
    for cls, sizes, shape in KINDS.values():
        layer = cls(*sizes, activation=torch.tanh, device="meta", dtype=F64)
        assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", F64)}
        _nodes.cache_clear()
        with torch.device("meta"):
            assert cls(*sizes, activation=F.gelu)(torch.empty(shape)).shape[1] == 4


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0, -1.0, math.nan, math.inf, "1", None])
@pytest.mark.parametrize("cls,sizes,shape", KINDS.values(), ids=KINDS)
def test_bad_gamma_is_one_clear_line(cls, sizes, shape, gamma):
    with pytest.raises(ValueError, match=r"^gamma=.*: give a number above 0$"):
        cls(*sizes, gamma=gamma)


class Swish(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * torch.sigmoid(self.beta * x)


@pytest.mark.parametrize(
    "activation,message",
    [
        (Swish(), "of those with parameters only nn.PReLU is known"),
        (nn.PReLU(3), "expected 1 slope or 4, one per unit"),
        (torch.zeros_like, r"has standard deviation 0.0 on N\(0, 1\)"),
        (torch.sqrt, r"has standard deviation nan on N\(0, 1\)"),
        (nn.GLU(), r"maps size \[8192\] to \[4096\]"),
        ("relu", "give a module or function, such as"),
        (None, "give a module or function, such as"),
        (nn.ReLU, "give a module or function, such as"),
        (nn.Softmax(0), "is not elementwise, or depends on chance"),
        (nn.Softmax(1), "Dimension out of range"),
        (nn.Dropout(), "is not elementwise, or depends on chance"),
        (nn.RReLU(), "is not elementwise, or depends on chance"),
        (lambda z: z.cumsum(0), "is not elementwise, or depends on chance"),
        (lambda z: z - z.mean(), "is not elementwise, or depends on chance"),
        (lambda z: z.mean().item(), "'float' object has no attribute 'shape'"),
    ],
    ids=called,
)
def test_activations_without_constants_are_refused(activation, message):
    with pytest.raises(ValueError, match=rf"activation=(?s:.*): {message}"):
        NormPropLinear(5, 4, activation=activation)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NormPropLinear(3, -4),
        lambda: NormPropLinear(0, 4),
        lambda: NormPropLinear(3.0, 4),
        lambda: NormPropConv2d(3, 0, 3),
        lambda: NormPropConv2d(-3, 4, 3),
        lambda: NormPropConv2d(3, 4, (3, 0)),
        lambda: BatchDataNormalization((3, -8)),
        lambda: BatchDataNormalization(0),
        lambda: BatchDataNormalization(True),
        lambda: BatchDataNormalization(1.5),
    ],
)
def test_sizes_below_1_are_one_clear_line(make):
    with pytest.raises(ValueError, match=r"^\w+=.*: give ints from 1$"):
        make()


def test_a_shape_may_be_of_any_kind_but_not_empty():
    for shape in ([2, 3], torch.Size([2, 3]), (np.int64(2), 3)):
        assert BatchDataNormalization(shape).shape == (2, 3)
    assert BatchDataNormalization(np.int64(6)).shape == (6,)
    with pytest.raises(ValueError, match=r"^shape=\(\): give one size or more$"):
        BatchDataNormalization(())


def test_wrong_input_is_torchs_own_error():
    for ours, theirs, shape in (
        (NormPropLinear(3, 4), nn.Linear(3, 4), (2, 5)),
        (NormPropConv2d(3, 4, 3), nn.Conv2d(3, 4, 3), (2, 5, 6, 6)),
        (NormPropConv2d(3, 4, 3), nn.Conv2d(3, 4, 3), (2, 3)),
    ):
        with pytest.raises(RuntimeError) as expected:
            theirs(torch.randn(shape))
        with pytest.raises(RuntimeError) as found:
            ours(torch.randn(shape))
        assert str(found.value) == str(expected.value)
