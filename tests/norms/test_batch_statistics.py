"""Batch renormalisation, L1 and mean-only batch normalisation, filter response normalisation and dynamic tanh
against their formulas written out in numpy, against peers, and by the papers' identities."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import norms
from norms import BatchRenorm1d, BatchRenorm2d, L1BatchNorm1d, L1BatchNorm2d, MeanOnlyBatchNorm1d
from norms.l1 import _L1Norm, _plain

F64 = torch.float64
SHAPE = (6, 3, 4)
OPEN = {"warmup_steps": 0, "r_steps": 0, "d_steps": 0}  # renorm's limits constant from the start


def batches(steps, shape=SHAPE, seed=0):
    """Channels of different mean and scale, drifting with the steps."""
    rng = np.random.default_rng(seed)
    where = np.arange(1, shape[1] + 1).reshape(-1, *[1] * (len(shape) - 2))
    return [rng.normal(size=shape) * where * (0.3 + step) + where - 2 * step for step in range(steps)]


def randomised(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return layer


def numpy_of(*tensors):
    return [t.detach().numpy() for t in tensors]


def wide(v):
    return v[:, None]


def close(found, expected):
    found = found.detach() if isinstance(found, torch.Tensor) else found
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


# ---- batch renormalisation -----------------------------------------------------------------------


def line(step, start, end, low, high):
    return low + (high - low) * min(1.0, max(0.0, (step - start) / (end - start)))


@pytest.mark.parametrize("r_max,d_max", [(3, 5), (1.05, 0.1), (1, 0)])
def test_renorm_against_numpy(r_max, d_max):
    """Algorithm 1 of the paper, its limits opening over the first steps."""
    momentum, eps = 0.3, 1e-2
    steps = {"warmup_steps": 1, "r_steps": 4, "d_steps": 3}
    layer = BatchRenorm1d(3, eps, momentum, r_max=r_max, d_max=d_max, **steps, dtype=F64)
    gamma, beta = numpy_of(*randomised(layer).parameters())
    mu, sigma = np.zeros(3), np.ones(3)
    for step, x in enumerate(batches(6)):
        r_lim, d_lim = line(step, 1, 4, 1, r_max), line(step, 1, 3, 0, d_max)
        mu_b = x.mean((0, 2))
        sigma_b = np.sqrt(eps + ((x - wide(mu_b)) ** 2).mean((0, 2)))
        r = np.clip(sigma_b / sigma, 1 / r_lim, r_lim)
        d = np.clip((mu_b - mu) / sigma, -d_lim, d_lim)
        expected = wide(gamma) * ((x - wide(mu_b)) / wide(sigma_b) * wide(r) + wide(d)) + wide(beta)
        mu, sigma = mu + momentum * (mu_b - mu), sigma + momentum * (sigma_b - sigma)
        close(layer.train()(torch.from_numpy(x)), expected)
        close(layer.running_mean, mu)
        close(layer.running_std, sigma)
        close(layer.eval()(torch.from_numpy(x)), wide(gamma) * (x - wide(mu)) / wide(sigma) + wide(beta))


def test_renorm_gradient_is_the_papers():
    """The backward formulas of the paper's section 3, r and d held constant."""
    layer = randomised(BatchRenorm1d(3, 1e-2, r_max=1.3, d_max=0.4, **OPEN, dtype=F64))
    x = torch.from_numpy(batches(1)[0]).requires_grad_()
    dy = torch.randn(SHAPE, dtype=F64)
    layer(x).backward(dy)
    gamma, x_, dy_ = numpy_of(layer.weight, x, dy)
    m = x_.shape[0] * x_.shape[2]
    mu = x_.mean((0, 2))
    sigma = np.sqrt(1e-2 + ((x_ - wide(mu)) ** 2).mean((0, 2)))
    r, d = np.clip(sigma, 1 / 1.3, 1.3), np.clip(mu, -0.4, 0.4)
    dxh = dy_ * wide(gamma)
    dsigma = (dxh * (x_ - wide(mu))).sum((0, 2)) * -r / sigma**2
    dmu = dxh.sum((0, 2)) * -r / sigma
    close(x.grad, dxh * wide(r / sigma) + wide(dsigma) * (x_ - wide(mu)) / (m * wide(sigma)) + wide(dmu) / m)
    close(layer.weight.grad, (dy_ * ((x_ - wide(mu)) / wide(sigma) * wide(r) + wide(d))).sum((0, 2)))
    close(layer.bias.grad, dy_.sum((0, 2)))


def test_renorm_with_r_1_and_d_0_is_batch_normalisation():
    ours, theirs = BatchRenorm2d(3, 1e-5, dtype=F64), nn.BatchNorm2d(3, dtype=F64)
    x = torch.randn(5, 3, 4, 2, dtype=F64) * 3 + 1
    for limits in ({}, {"r_max": 1, "d_max": 0, **OPEN}):  # in the warm-up, and by the limits
        ours = BatchRenorm2d(3, 1e-5, **limits, dtype=F64)
        close(ours(x), theirs(x).detach().numpy())


def test_renorm_within_its_limits_is_its_own_evaluation():
    """Without clipping, training output is evaluation with the averages of before the batch."""
    layer = BatchRenorm1d(3, 1e-2, 0.5, r_max=1e6, d_max=1e6, **OPEN, dtype=F64)
    for x in map(torch.from_numpy, batches(3)):
        before = copy.deepcopy(layer).eval()
        close(layer(x), before(x).detach().numpy())


def test_renorms_default_schedule_is_the_papers():
    layer = BatchRenorm1d(3)
    at = {0: (1, 0), 5_000: (1, 0), 15_000: (1 + 2 / 3.5, 2.5), 25_000: (1 + 2 * 20 / 35, 5), 40_000: (3, 5)}
    for step, limits in at.items():
        layer.num_batches_tracked.fill_(step)
        assert layer.limits() == pytest.approx(limits)


@pytest.mark.parametrize("end", [2, 8])
def test_renorms_limits_open_alike_where_the_count_is_a_tensor(end):
    """As under torch.func and torch.compile, where it cannot be read."""
    layer = BatchRenorm1d(3, warmup_steps=2, r_steps=8, d_steps=2)
    for step in range(10):
        assert float(layer._opened(torch.tensor(step), end)) == pytest.approx(float(layer._opened(step, end)))


def test_renorm_against_keras():
    """Keras averages the variance and not the standard deviation, so they agree in the first step and in
    evaluation, and its limits are constants."""
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("needs KERAS_BACKEND=torch")
    limits = {"rmax": 1.5, "rmin": 1 / 1.5, "dmax": 0.7}
    theirs = keras.layers.BatchNormalization(
        renorm=True, renorm_clipping=limits, renorm_momentum=0.99, momentum=0.99, epsilon=1e-3, axis=1
    )
    x = torch.randn(16, 3, 4) * torch.tensor([1.0, 2.0, 0.2]).view(-1, 1) + 0.5
    ours = BatchRenorm1d(3, 1e-3, 0.01, r_max=1.5, d_max=0.7, **OPEN)
    expected = theirs(x, training=True)
    torch.testing.assert_close(ours(x), torch.as_tensor(expected), rtol=1e-4, atol=1e-4)


# ---- L1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaussian", [False, True])
def test_l1_against_numpy(gaussian):
    momentum, eps, factor = 0.3, 1e-2, np.sqrt(np.pi / 2) if gaussian else 1
    layer = L1BatchNorm1d(3, eps, momentum, gaussian=gaussian, dtype=F64)
    gamma, beta = numpy_of(*randomised(layer).parameters())
    mu, s = np.zeros(3), np.ones(3)
    for x in batches(4):
        mu_b = x.mean((0, 2))
        s_b = factor * np.abs(x - wide(mu_b)).mean((0, 2))
        mu, s = mu + momentum * (mu_b - mu), s + momentum * (s_b - s)
        expected = wide(gamma) * (x - wide(mu_b)) / wide(s_b + eps) + wide(beta)
        close(layer.train()(torch.from_numpy(x)), expected)
        close(layer.running_mean, mu)
        close(layer.running_deviation, s)
        close(layer.eval()(torch.from_numpy(x)), wide(gamma) * (x - wide(mu)) / wide(s + eps) + wide(beta))


def test_l1_gradient_is_the_closed_form():
    layer = randomised(L1BatchNorm1d(3, 1e-2, dtype=F64))
    x, dy = torch.from_numpy(batches(1)[0]).requires_grad_(), torch.randn(SHAPE, dtype=F64)
    layer(x).backward(dy)
    gamma, x_, dy_ = numpy_of(layer.weight, x, dy)
    c = x_ - wide(x_.mean((0, 2)))
    s = np.abs(c).mean((0, 2)) + 1e-2
    g, xh, sign = dy_ * wide(gamma), c / wide(s), np.sign(c)

    def centred(v):
        return v - wide(v.mean((0, 2)))

    close(x.grad, (centred(g) - centred(sign) * wide((g * xh).mean((0, 2)))) / wide(s))
    close(layer.weight.grad, (dy_ * xh).sum((0, 2)))
    close(layer.bias.grad, dy_.sum((0, 2)))


@pytest.mark.parametrize("affine", [True, False])
def test_l1_both_paths_agree(affine):
    x = torch.randn(5, 3, 4, 2, dtype=F64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=F64, requires_grad=True) if affine else None for _ in range(2))
    inputs = [x, weight, bias] if affine else [x]
    results = [way(x, weight, bias, 1e-2, 1.3) for way in (_L1Norm.apply, _plain)]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(y.sin().sum(), inputs) for y, *_ in results]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_l1_of_a_gaussian_is_the_deviation_less_a_factor():
    """s / sigma -> sqrt(2 / pi) = 0.7979; the standard error of the ratio is some 0.75 / sqrt(n)."""
    x = torch.randn(1_000_000, 1, generator=torch.Generator().manual_seed(0))
    plain, gaussian = L1BatchNorm1d(1, momentum=1), L1BatchNorm1d(1, momentum=1, gaussian=True)
    plain(x), gaussian(x)
    assert plain.running_deviation.item() == pytest.approx(np.sqrt(2 / np.pi), abs=4e-3)
    assert gaussian.running_deviation.item() == pytest.approx(1, abs=4e-3)


@pytest.mark.parametrize("layer", [L1BatchNorm2d(3), BatchRenorm2d(3, **OPEN), norms.MeanOnlyBatchNorm2d(3)])
def test_gradient_of_a_constant_channel_is_finite(layer):
    x = torch.ones(4, 3, 2, 2, requires_grad=True)
    layer(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()


# ---- mean-only -----------------------------------------------------------------------------------


def test_mean_only_against_numpy():
    layer = MeanOnlyBatchNorm1d(3, 0.3, dtype=F64)
    (beta,) = numpy_of(*randomised(layer).parameters())
    mu = np.zeros(3)
    for x in batches(4):
        mu_b = x.mean((0, 2))
        mu = mu + 0.3 * (mu_b - mu)
        close(layer.train()(torch.from_numpy(x)), x - wide(mu_b) + wide(beta))
        close(layer.running_mean, mu)
        close(layer.eval()(torch.from_numpy(x)), x - wide(mu) + wide(beta))


def test_mean_only_centres_the_gradient():
    layer = MeanOnlyBatchNorm1d(3, dtype=F64)
    x, dy = torch.randn(SHAPE, dtype=F64, requires_grad=True), torch.randn(SHAPE, dtype=F64)
    layer(x).backward(dy)
    close(x.grad, dy.numpy() - wide(dy.numpy().mean((0, 2))))
    close(layer.bias.grad, dy.numpy().sum((0, 2)))


def test_mean_only_after_weight_norm_ignores_the_bias_before_it():
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3, dtype=F64))
    x, layer = torch.randn(7, 5, dtype=F64), MeanOnlyBatchNorm1d(3, dtype=F64)
    before = layer(linear(x))
    linear.bias.data += 10
    torch.testing.assert_close(layer(linear(x)), before, rtol=0, atol=1e-12)


# ---- filter response normalisation, dynamic tanh ---------------------------------------------------


@pytest.mark.parametrize("tlu", [True, False])
@pytest.mark.parametrize("dim,shape", [(1, (4, 3, 5)), (2, (4, 3, 5, 2)), (3, (4, 3, 5, 2, 3))])
def test_frn_against_numpy(dim, shape, tlu):
    layer = randomised(norms.build("frn", 3, dim, eps=1e-2, tlu=tlu, dtype=F64))
    x = np.random.default_rng(0).normal(size=shape) * 2 + 1
    column = (-1, *[1] * dim)
    square = (x**2).mean(tuple(range(2, x.ndim)), keepdims=True)
    gamma, beta = (v.reshape(column) for v in numpy_of(layer.weight, layer.bias))
    expected = gamma * x / np.sqrt(square + 1e-2) + beta
    if tlu:
        expected = np.maximum(expected, layer.threshold.detach().numpy().reshape(column))
    close(layer(torch.from_numpy(x)), expected)


def test_frn_against_timm():
    timm = pytest.importorskip("timm.layers.filter_response_norm")
    theirs = randomised(timm.FilterResponseNormTlu2d(3, eps=1e-5))
    ours = norms.FilterResponseNorm2d(3, eps=1e-5)
    with torch.no_grad():
        ours.weight.copy_(theirs.weight), ours.bias.copy_(theirs.bias), ours.threshold.copy_(theirs.tau)
    x = torch.randn(4, 3, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_dynamic_tanh_against_numpy():
    layer = randomised(norms.DynamicTanh(3, alpha=0.7, dtype=F64))
    x = np.random.default_rng(0).normal(size=SHAPE)
    alpha, gamma, beta = numpy_of(layer.alpha, layer.weight, layer.bias)
    close(layer(torch.from_numpy(x)), wide(gamma) * np.tanh(alpha * x) + wide(beta))
    layer.reset_parameters()
    assert layer.alpha.item() == pytest.approx(0.7)


# ---- what all share --------------------------------------------------------------------------------


@pytest.mark.parametrize("dim,shape", [(2, (4, 3, 5, 2)), (3, (4, 3, 5, 2, 3))])
@pytest.mark.parametrize("name,options", [("renorm", OPEN), ("l1", {}), ("mean_only", {})])
def test_2d_and_3d_are_1d_over_flattened_positions(name, options, dim, shape):
    x = torch.randn(shape, dtype=F64)
    one, more = (randomised(norms.build(name, 3, d, **options, dtype=F64)) for d in (1, dim))
    for _ in range(2):
        torch.testing.assert_close(more(x), one(x.flatten(2)).view(shape), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(more.eval()(x), one.eval()(x.flatten(2)).view(shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["batch", "l1", "mean_only"])
def test_scale_and_shift_of_the_weights(name):
    """BN(a W u) = BN(W u) for normalisers of the scale; the mean alone keeps a. Shifts have no effect."""
    z = torch.randn(32, 4, dtype=F64)
    layer = norms.build(name, 4, **({} if name == "mean_only" else {"eps": 1e-12}), dtype=F64)
    scale = 7.0 if name == "mean_only" else 1.0
    torch.testing.assert_close(layer(7 * z + 3), scale * layer(z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "make,line",
    [
        (lambda: BatchRenorm1d(3, eps=0), "eps=0: give a number above 0"),
        (lambda: BatchRenorm1d(3, momentum=None), "momentum=None: give a number in [0, 1]"),
        (lambda: BatchRenorm1d(3, momentum=1.5), "momentum=1.5: give a number in [0, 1]"),
        (lambda: BatchRenorm1d(3, r_max=0.5), "r_max=0.5: give a number from 1"),
        (lambda: BatchRenorm1d(3, d_max=-1), "d_max=-1: give a number from 0"),
        (lambda: BatchRenorm1d(3, d_max=float("nan")), "d_max=nan: give a number from 0"),
        (lambda: BatchRenorm1d(3, warmup_steps=9, r_steps=3), "warmup_steps=9, r_steps=3, d_steps=25000"),
        (lambda: L1BatchNorm1d(3, eps=-1.0), "eps=-1.0: give a number above 0"),
        (lambda: L1BatchNorm1d(3, momentum=2), "momentum=2: give a number in [0, 1]"),
        (lambda: MeanOnlyBatchNorm1d(3, momentum="0.1"), "momentum='0.1': give a number in [0, 1]"),
        (lambda: norms.FilterResponseNorm2d(3, eps=0), "eps=0: give a number above 0"),
    ],
)
def test_bad_options_are_one_clear_line(make, line):
    with pytest.raises(ValueError) as error:
        make()
    assert line in str(error.value) and "\n" not in str(error.value)
