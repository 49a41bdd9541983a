"""Diminishing batch normalisation against its formulas written out in numpy, against torch, and against
itself."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from norms import DiminishingBatchNorm1d, DiminishingBatchNorm2d, DiminishingBatchNorm3d, parse_alpha

READINGS = "A", "B", "C"
INITIALS = "zero_one", "zero_zero", "first_batch"
WAYS = list(itertools.product(("sigma", "variance", "inv_std"), ("sigma", "variance")))  # average, eps_in
BUFFER = {"sigma": "running_sigma", "variance": "running_var", "inv_std": "running_inv_std"}
F64 = torch.float64


# ---- the reference -------------------------------------------------------------------------------


def schedule(alpha, m):
    return {"inv_m": 1 / m, "inv_m2": 1 / m**2, "inv_m2.001": m**-2.001}.get(alpha, alpha)


def std_of(sigma, eps_in, eps):
    return sigma + eps if eps_in == "sigma" else np.sqrt(sigma**2 + eps)


def to_average(sigma, average, eps_in, eps):
    return {"sigma": sigma, "variance": sigma**2, "inv_std": 1 / std_of(sigma, eps_in, eps)}[average]


def to_std(stat, average, eps_in, eps):
    if average == "inv_std":
        return 1 / stat
    return std_of(stat if average == "sigma" else np.sqrt(stat), eps_in, eps)


def reference(xs, gamma, beta, *, reading, initial, average, eps_in, alpha, eps, period=1, correction=0):
    """Per batch [N, C, L]: output in training, running mean and statistic after it, and output in
    evaluation."""
    mu, stat = np.zeros(len(gamma)), np.ones(len(gamma))
    if initial == "zero_zero":
        stat = to_average(np.zeros(len(gamma)), average, eps_in, eps)
    for step, x in enumerate(xs):
        a = schedule(alpha, 1 + step // period)
        n = x.shape[0] * x.shape[2]
        mu_b = x.sum(axis=(0, 2)) / n
        squares = ((x - mu_b[:, None]) ** 2).sum(axis=(0, 2))
        sigma_b = np.sqrt(squares / n)
        stat_b = to_average(sigma_b, average, eps_in, eps)
        kept_b = to_average(np.sqrt(squares / (n - correction)), average, eps_in, eps)
        if step == 0 and initial == "first_batch":
            mu, stat = mu_b, kept_b
        if reading == "A":
            used_mu, used_std = mu, to_std(stat, average, eps_in, eps)
        elif reading == "B":
            used_mu = a * mu_b + (1 - a) * mu
            used_std = to_std(a * stat_b + (1 - a) * stat, average, eps_in, eps)
        else:
            used_mu, used_std = mu_b, std_of(sigma_b, eps_in, eps)
        mu, stat = a * mu_b + (1 - a) * mu, a * kept_b + (1 - a) * stat

        def apply(mean, std, x=x):
            return (x - mean[:, None]) / std[:, None] * gamma[:, None] + beta[:, None]

        yield apply(used_mu, used_std), mu, stat, apply(mu, to_std(stat, average, eps_in, eps))


def make(num_features=3, seed=0, cls=DiminishingBatchNorm1d, **options):
    layer = cls(num_features, dtype=F64, **{"eps": 1e-2, **options})
    if layer.affine:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(num_features, generator=generator, dtype=F64))
            layer.bias.copy_(torch.randn(num_features, generator=generator, dtype=F64))
    return layer


def batches(steps, shape=(6, 3, 4), seed=0):
    """Channels of different mean and scale, drifting with the steps."""
    rng = np.random.default_rng(seed)
    where = np.arange(1, shape[1] + 1).reshape(-1, *[1] * (len(shape) - 2))
    return [rng.normal(size=shape) * where * (0.3 + step) + where - 2 * step for step in range(steps)]


def compare(layer, xs, **options):
    expected = reference(xs, layer.weight.detach().numpy(), layer.bias.detach().numpy(), **options)
    for x, (y, mean, statistic, evaluated) in zip(xs, expected, strict=True):
        x = torch.from_numpy(x)
        np.testing.assert_allclose(layer.train()(x).detach(), y, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(getattr(layer, BUFFER[layer.average]), statistic, rtol=1e-10, atol=1e-10)
        before = copy.deepcopy(layer.state_dict())
        np.testing.assert_allclose(layer.eval()(x).detach(), evaluated, rtol=1e-10, atol=1e-10)
        assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


SCHEDULES = (0, 1), (0.3, 1), (1, 1), ("inv_m", 1), ("inv_m2", 1), ("inv_m2.001", 2)  # alpha, period


@pytest.mark.parametrize("average,eps_in", WAYS)
@pytest.mark.parametrize("initial", INITIALS)
@pytest.mark.parametrize("reading", READINGS)
def test_every_option_against_numpy(reading, initial, average, eps_in):
    options = {"reading": reading, "initial": initial, "average": average, "eps_in": eps_in}
    for alpha, period in SCHEDULES:
        schedule = {"alpha": alpha, "period": period}
        compare(make(**options, **schedule), batches(5), eps=1e-2, **options, **schedule)


@pytest.mark.parametrize("average,eps_in", WAYS)
@pytest.mark.parametrize("reading", READINGS)
def test_correction_is_in_the_averages_only(reading, average, eps_in):
    options = {
        "reading": reading,
        "initial": "first_batch",
        "average": average,
        "eps_in": eps_in,
        "alpha": 0.3,
        "correction": 1,
    }
    compare(make(**options), batches(3), eps=1e-2, **options)


@settings(max_examples=150, deadline=None)
@given(
    reading=st.sampled_from(READINGS),
    initial=st.sampled_from(INITIALS),
    way=st.sampled_from(WAYS),
    alpha=st.floats(0, 1) | st.sampled_from(["inv_m", "inv_m2"]),
    eps=st.floats(1e-3, 10),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(2, 5)),
    seed=st.integers(0, 10**6),
)
def test_any_shape_alpha_and_eps_against_numpy(reading, initial, way, alpha, eps, shape, seed):
    options = {
        "reading": reading,
        "initial": initial,
        "average": way[0],
        "eps_in": way[1],
        "alpha": alpha,
        "eps": eps,
    }
    compare(make(shape[1], seed, **options), batches(3, shape, seed), **options)


def test_defaults_are_the_papers_for_a_and_b_and_lasagnes_for_c():
    found = {
        r: (layer.average, layer.eps_in) for r in READINGS for layer in [DiminishingBatchNorm1d(2, reading=r)]
    }
    assert found == {"A": ("sigma", "sigma"), "B": ("sigma", "sigma"), "C": ("inv_std", "variance")}
    layer = DiminishingBatchNorm1d(2)
    assert (layer.reading, layer.initial, layer.alpha, layer.eps) == ("C", "zero_one", 0.1, 1e-4)
    assert layer.running_inv_std.tolist() == [1, 1]
    assert layer.running_mean.tolist() == [0, 0]


def test_m_counts_steps_or_epochs_from_one():
    layer, x = make(alpha="inv_m2", period=3), torch.randn(4, 3, dtype=F64)
    seen = []
    for _ in range(8):
        seen.append(layer.current_alpha().item())
        layer(x)
    assert seen == pytest.approx([1, 1, 1, 1 / 4, 1 / 4, 1 / 4, 1 / 9, 1 / 9])
    assert layer.num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("reading", READINGS)
def test_2d_and_3d_are_1d_over_flattened_positions(reading):
    x = torch.from_numpy(batches(1, (4, 3, 2, 3, 2))[0])
    flat, cube = make(reading=reading), make(reading=reading, cls=DiminishingBatchNorm3d)
    plane = make(reading=reading, cls=DiminishingBatchNorm2d)
    expected = flat(x.flatten(2))
    torch.testing.assert_close(cube(x).flatten(2), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(plane(x.flatten(3)).flatten(2), expected, rtol=0, atol=1e-14)


# ---- gradients -----------------------------------------------------------------------------------


def as_function(layer):
    """The layer as a function of x, gamma, beta that leaves its buffers alone, so that it can be called
    again."""

    def function(x, *affine):
        named = dict(zip(("weight", "bias"), affine, strict=False))
        return functional_call(copy.deepcopy(layer), named, (x,))

    leaves = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    return function, leaves


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("average,eps_in", WAYS)
@pytest.mark.parametrize("reading", READINGS)
def test_gradcheck_and_gradgradcheck(reading, average, eps_in, affine):
    layer = make(2, reading=reading, average=average, eps_in=eps_in, alpha=0.3, affine=affine)
    layer(torch.from_numpy(batches(1, (3, 2, 2), seed=1)[0]))  # away from lambda^0
    function, leaves = as_function(layer)
    x = torch.from_numpy(batches(1, (3, 2, 2))[0]).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, *leaves))
    assert torch.autograd.gradgradcheck(function, (x, *leaves))


def test_b_backward_is_the_closed_form():
    alpha, eps = 0.3, 1e-2
    layer = make(reading="B", alpha=alpha, eps=eps)
    past, x = (torch.from_numpy(x) for x in batches(2, (7, 3)))
    layer(past)
    x, dy = x.requires_grad_(), torch.randn(7, 3, dtype=F64)
    layer(x).backward(dy)
    with torch.no_grad():  # after the step, the running statistics are those used
        xh = (x - layer.running_mean) / (layer.running_sigma + eps)
        g = dy * layer.weight
        pull = (x - x.mean(0)) / x.std(0, correction=0) * (g * xh).mean(0)
        expected = (g - alpha * g.mean(0) - alpha * pull) / (layer.running_sigma + eps)
    torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.weight.grad, (dy * xh).sum(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.bias.grad, dy.sum(0), rtol=1e-12, atol=1e-12)


def test_a_gradient_does_not_see_the_statistics():
    layer = make(reading="A", initial="first_batch", alpha=0.5)
    x, dy = torch.from_numpy(batches(1, (7, 3))[0]).requires_grad_(), torch.randn(7, 3, dtype=F64)
    layer(x).backward(dy)
    sigma = x.detach().std(0, correction=0)
    torch.testing.assert_close(x.grad, dy * layer.weight.detach() / (sigma + 1e-2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("average,eps_in", WAYS)
def test_b_and_c_gradients_of_a_constant_unit_are_finite(average, eps_in):
    for reading in ("B", "C"):
        layer = make(2, reading=reading, average=average, eps_in=eps_in, alpha=0.5)
        x = torch.from_numpy(batches(1, (6, 2))[0])
        x[:, 0] = 3.25
        x.requires_grad_()
        first = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)[0]
        assert torch.isfinite(first).all()
        assert torch.isfinite(torch.autograd.grad(first.square().sum(), x)[0]).all()


@pytest.mark.parametrize("reading", READINGS)
def test_two_forwards_before_the_backward(reading):
    """The buffers change in place meanwhile; the first graph must not notice."""
    layer = make(reading=reading, alpha=0.5)
    alone = copy.deepcopy(layer)
    x, later = (torch.from_numpy(x) for x in batches(2, (5, 3)))
    x.requires_grad_()
    y = layer(x)
    layer(later)
    (found,) = torch.autograd.grad(y.sin().sum(), x)
    (expected,) = torch.autograd.grad(alone(x).sin().sum(), x)
    assert torch.equal(found, expected)


# ---- nn.BatchNorm as a special case --------------------------------------------------------------

PAIRS = [
    ((8, 3), DiminishingBatchNorm1d, nn.BatchNorm1d),
    ((8, 3, 5), DiminishingBatchNorm1d, nn.BatchNorm1d),
    ((4, 3, 2, 3), DiminishingBatchNorm2d, nn.BatchNorm2d),
    ((3, 3, 2, 2, 2), DiminishingBatchNorm3d, nn.BatchNorm3d),
]


@pytest.mark.parametrize("reading,alpha", [("B", 1), ("C", 1), ("C", 0.3)])
@pytest.mark.parametrize("shape,ours,theirs", PAIRS)
def test_equals_nn_batchnorm(shape, ours, theirs, reading, alpha):
    mine = make(cls=ours, reading=reading, alpha=alpha, average="variance", eps_in="variance", correction=1)
    peer = theirs(3, eps=1e-2, momentum=alpha, dtype=F64)
    missing, unexpected = peer.load_state_dict(mine.state_dict())  # same keys: weights of one fit the other
    assert not missing
    assert not unexpected
    for x in batches(3, shape):
        a, b = (torch.from_numpy(x).requires_grad_() for _ in range(2))
        ya, yb = mine(a), peer(b)
        torch.testing.assert_close(ya, yb, rtol=1e-13, atol=1e-13)
        dy = torch.randn(shape, dtype=F64)
        ya.backward(dy)
        yb.backward(dy)
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine.weight.grad, peer.weight.grad, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine.bias.grad, peer.bias.grad, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine.running_mean, peer.running_mean, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(mine.running_var, peer.running_var, rtol=1e-13, atol=1e-13)
    mine.eval(), peer.eval()
    torch.testing.assert_close(mine(a), peer(a), rtol=1e-13, atol=1e-13)


def test_without_correction_running_var_lacks_the_factor_of_torch():
    mine = make(reading="B", alpha=1, average="variance", eps_in="variance")
    peer = nn.BatchNorm1d(3, momentum=1.0, dtype=F64)
    x = torch.randn(10, 3, dtype=F64)
    mine(x), peer(x)
    torch.testing.assert_close(mine.running_var, peer.running_var * 9 / 10)


# ---- populations ---------------------------------------------------------------------------------

ALPHAS = 0.0, 0.25, 1.0, "inv_m", "inv_m2"


def train(step, parameters, steps=3):
    """`steps` of plain gradient descent; `step` gives the loss of the i-th one."""
    for i in range(steps):
        gradients = torch.autograd.grad(step(i), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.05 * gradient


def check_population(build, xs, shared=False):
    """A stacked population trained under vmap, plain autograd outside, against its members alone."""
    members = [build(alpha, seed) for seed, alpha in enumerate(ALPHAS)]
    parameters, buffers = stack_module_state(members)
    base, alone = copy.deepcopy(members[1]), [copy.deepcopy(member) for member in members]

    def losses(i):
        call = vmap(
            lambda p, b, x: functional_call(base, (p, b), (x,)), in_dims=(0, 0, None if shared else 0)
        )
        return call(parameters, buffers, xs[i][0] if shared else xs[i]).sin().sum()

    train(losses, list(parameters.values()))
    for k, member in enumerate(alone):
        train(lambda i, m=member, k=k: m(xs[i][0 if shared else k]).sin().sum(), list(member.parameters()))
        for name, value in member.named_parameters():
            torch.testing.assert_close(parameters[name][k], value, rtol=0, atol=1e-12)
        for name, value in member.named_buffers():
            torch.testing.assert_close(buffers[name][k], value, rtol=0, atol=1e-12)
    assert {name.rpartition(".")[2] for name in buffers} > {
        "running_mean",
        "num_batches_tracked",
        "alpha_scale",
    }
    assert len({tuple(row) for row in next(v for k, v in buffers.items() if "mean" in k).tolist()}) > 3


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("average,eps_in", WAYS)
@pytest.mark.parametrize("initial", INITIALS)
@pytest.mark.parametrize("reading", READINGS)
def test_population_equals_its_members(reading, initial, average, eps_in, affine):
    def build(alpha, seed):
        torch.manual_seed(seed)
        options = {
            "reading": reading,
            "initial": initial,
            "average": average,
            "eps_in": eps_in,
            "affine": affine,
            "eps": 0.1,
        }
        layers = [DiminishingBatchNorm1d(4, alpha=alpha, dtype=F64, **options) for _ in range(2)]
        return nn.Sequential(layers[0], nn.Linear(4, 4, dtype=F64), layers[1], nn.Tanh())

    torch.manual_seed(9)
    check_population(build, torch.randn(3, len(ALPHAS), 6, 4, dtype=F64))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("reading", READINGS)
def test_population_of_convolutional_networks(reading, shared):
    def build(alpha, seed):
        torch.manual_seed(seed)
        layer = DiminishingBatchNorm2d(4, alpha=alpha, dtype=F64, reading=reading, period=2)
        return nn.Sequential(nn.Conv2d(2, 4, 3, dtype=F64), layer, nn.Tanh())

    torch.manual_seed(9)
    check_population(build, torch.randn(3, len(ALPHAS), 3, 2, 5, 5, dtype=F64), shared)


@pytest.mark.parametrize("reading", READINGS)
def test_population_in_evaluation(reading):
    members = [make(reading=reading, alpha=alpha, seed=k) for k, alpha in enumerate(ALPHAS)]
    for member, x in zip(members, batches(len(ALPHAS)), strict=True):
        member(torch.from_numpy(x))
        member.eval()
    parameters, buffers = stack_module_state(members)
    x = torch.from_numpy(batches(1)[0])
    found = vmap(lambda p, b: functional_call(members[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(found, torch.stack([member(x) for member in members]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("eps_in", ["sigma", "variance"])
@pytest.mark.parametrize("reading", READINGS)
def test_torch_func_grad_inside_vmap(reading, eps_in):
    members = [make(reading=reading, alpha=alpha, seed=k, eps_in=eps_in) for k, alpha in enumerate(ALPHAS)]
    parameters, buffers = stack_module_state(members)
    xs = torch.from_numpy(np.stack(batches(len(ALPHAS))))

    def loss(p, x, b):
        b = {
            name: value.clone() for name, value in b.items()
        }  # functorch forbids writing to what it closed over
        return functional_call(members[0], (p, b), (x,)).sin().sum()

    dp, dx = vmap(grad(loss, argnums=(0, 1)))(parameters, xs, buffers)
    for k, (member, x) in enumerate(zip(members, xs, strict=True)):
        x = x.clone().requires_grad_()
        expected = torch.autograd.grad(member(x).sin().sum(), [x, member.weight, member.bias])
        for found, value in zip((dx[k], dp["weight"][k], dp["bias"][k]), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=0, atol=1e-12)


# ---- as a citizen of torch -----------------------------------------------------------------------


@pytest.mark.parametrize("reading", READINGS)
def test_state_dict_deepcopy_and_pickle(reading):
    layer = make(reading=reading, alpha="inv_m", initial="first_batch")
    first, second = (torch.from_numpy(x) for x in batches(2))
    layer(first)
    loaded = make(reading=reading, alpha="inv_m", initial="first_batch", seed=5)
    loaded.load_state_dict(layer.state_dict())
    copies = [loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    expected = layer(second)
    for other in copies:
        assert torch.equal(other(second), expected)
        assert other.state_dict().keys() == layer.state_dict().keys()
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in layer.state_dict().items())
    layer.reset_parameters()
    fresh = DiminishingBatchNorm1d(3, reading=reading, initial="first_batch", dtype=F64).state_dict()
    assert all(torch.equal(value, fresh[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("eps_in", ["sigma", "variance"])
@pytest.mark.parametrize("reading", READINGS)
def test_memory_formats(reading, eps_in):
    x = torch.from_numpy(batches(1, (4, 3, 6, 5))[0])
    dy = torch.randn(4, 3, 6, 5, dtype=F64)
    layouts = {
        "contiguous": lambda t: t.clone(),
        "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
        "transposed": lambda t: t.transpose(0, 3).contiguous().transpose(0, 3),
        "strided": lambda t: t.repeat_interleave(2, 3)[..., ::2],
    }
    results = {}
    for name, layout in layouts.items():
        layer = make(cls=DiminishingBatchNorm2d, reading=reading, eps_in=eps_in)
        leaf = layout(x).detach().requires_grad_()
        y = layer(leaf)
        y.backward(layout(dy))
        assert y.is_contiguous(memory_format=torch.channels_last) == (name == "channels_last")
        results[name] = [y, leaf.grad, layer.weight.grad, layer.bias.grad, layer.running_mean]
    for name in layouts:
        for found, expected in zip(results[name], results["contiguous"], strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("eps_in", ["sigma", "variance"])
@pytest.mark.parametrize("reading", READINGS)
def test_float32_and_bfloat16_follow_float64(reading, eps_in):
    options = {"reading": reading, "eps_in": eps_in, "alpha": 0.5, "initial": "first_batch"}
    x, dy = torch.from_numpy(batches(1, (64, 3))[0]), torch.randn(64, 3, dtype=F64)
    results, scales = [], []
    for kind, parameters in ((F64, F64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)):
        layer = make(**options).to(parameters)
        leaf = x.to(kind, copy=True).requires_grad_()
        y = layer(leaf)
        y.backward(dy.to(kind))
        assert y.dtype == leaf.grad.dtype == kind
        assert layer.running_mean.dtype == layer.weight.grad.dtype == layer.alpha_scale.dtype == parameters
        results.append(
            [y.double(), leaf.grad.double(), layer.weight.grad.double(), layer.running_mean.double()]
        )
        if kind == F64:  # the gradient of the weight is a sum that may cancel: its terms set the scale
            terms = dy * (y - layer.bias) / layer.weight
            scales = [value.abs().max() for value in results[0]]
            scales[2] = terms.abs().sum(0).max()
    for low, tolerance in zip(results[1:], (1e-6, 2e-2), strict=True):
        for found, expected, scale in zip(low, results[0], scales, strict=True):
            assert (found - expected).abs().max() <= tolerance * scale


@pytest.mark.parametrize("reading", READINGS)
def test_gradient_keeps_its_precision_at_a_large_mean(reading):
    """Channels with mean 300 and deviation 1: the float32 gradient as good as that of nn.BatchNorm, to a
    factor."""
    torch.manual_seed(0)
    x, dy = torch.randn(100, 5, dtype=F64) + 300, torch.randn(100, 5, dtype=F64)

    def gradient(layer, kind):
        leaf = x.float().to(kind).requires_grad_()
        layer.to(kind)(leaf).backward(dy.float().to(kind))
        return leaf.grad.double()

    def error(build):
        return (gradient(build(), torch.float32) - gradient(build(), F64)).abs().max()

    options = {"reading": reading, "initial": "first_batch", "alpha": 0.5}
    ours, theirs = error(lambda: DiminishingBatchNorm1d(5, **options)), error(lambda: nn.BatchNorm1d(5))
    assert ours <= 4 * theirs + 1e-6


def test_autocast_keeps_the_statistics_in_float32():
    model = nn.Sequential(nn.Linear(5, 3), DiminishingBatchNorm1d(3, reading="B"))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(torch.randn(8, 5))
    y.float().sum().backward()
    assert (
        model[1].running_mean.dtype
        == model[1].weight.grad.dtype
        == model[0].weight.grad.dtype
        == torch.float32
    )
    assert torch.isfinite(model[0].weight.grad).all()


@pytest.mark.slow
@pytest.mark.parametrize("eps_in", ["sigma", "variance"])
@pytest.mark.parametrize("reading", ["A", "B", "C"])
def test_compiled_equals_uncompiled(reading, eps_in):
    torch.manual_seed(0)
    layer = make(reading=reading, eps_in=eps_in, alpha="inv_m", initial="first_batch")
    model = nn.Sequential(nn.Linear(3, 3, dtype=F64), layer, nn.Tanh())
    alone = copy.deepcopy(model)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    for x in batches(3, (6, 3)):
        a, b = (torch.from_numpy(x).requires_grad_() for _ in range(2))
        compiled(a).sin().sum().backward()
        alone(b).sin().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)
    for found, expected in zip(model.state_dict().values(), alone.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(compiled.eval()(a), alone.eval()(a), rtol=0, atol=1e-12)


def test_device_and_dtype_of_construction():
    layer = DiminishingBatchNorm1d(3, device="meta", dtype=F64)
    tensors = dict([*layer.named_parameters(), *layer.named_buffers()])
    assert {t.device.type for t in tensors.values()} == {"meta"}
    assert {name for name, t in tensors.items() if t.dtype != F64} == {"num_batches_tracked"}


def test_a_model_loads_onto_another_alpha():
    """alpha is a hyper-parameter, as momentum is: not part of the state_dict."""
    source, target = make(alpha=0.5), make(alpha=0.1)
    target.load_state_dict(source.state_dict())
    assert target.current_alpha().item() == 0.1


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alpha", [-0.1, 1.5, float("nan"), float("inf"), "half", "inv_m0", "inv_m-1", "", True, None, "0.5"]
)
def test_bad_alpha_is_one_clear_line(alpha):
    with pytest.raises(ValueError, match=r"^alpha=.*: give a number in \[0, 1\], or inv_m") as error:
        DiminishingBatchNorm1d(3, alpha=alpha)
    assert "\n" not in str(error.value)


def test_parse_alpha():
    assert [parse_alpha(a) for a in (0, 1, 0.25)] == [(0, 0), (1, 0), (0.25, 0)]
    assert [parse_alpha(a) for a in ("inv_m", "inv_m2", "inv_m2.001", "inv_m0.5")] == [
        (1, 1), (1, 2), (1, 2.001), (1, 0.5)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"reading": "D"}, {"reading": "a"}, {"initial": "one"}, {"average": "std"}, {"eps_in": "root"},
        {"eps": 0}, {"eps": float("nan")}, {"eps": "small"}, {"period": 0}, {"period": 1.5},
        {"correction": 2},
    ],
)  # fmt: skip
def test_bad_options_are_one_clear_line(options):
    (key,) = options
    with pytest.raises(ValueError, match=rf"^{key}=.*: (choose one of|give)") as error:
        DiminishingBatchNorm1d(3, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reading", ["B", "C"])
def test_one_value_per_channel_is_torchs_own_error(reading):
    x = torch.randn(1, 3)
    with pytest.raises(ValueError) as theirs:
        nn.BatchNorm1d(3)(x)
    layer = DiminishingBatchNorm1d(3, reading=reading)
    with pytest.raises(ValueError) as ours:
        layer(x)
    assert str(ours.value) == str(theirs.value)
    assert layer.num_batches_tracked == 0
    assert torch.isfinite(layer.eval()(x)).all()


def test_one_value_per_channel_has_no_variance_over_n_minus_1_in_a():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        DiminishingBatchNorm1d(3, reading="A", correction=1)(torch.ones(1, 3))


def test_one_value_per_channel_is_fine_in_a():
    """A normalises with what came before; the batch then counts with sigma 0."""
    layer = make(reading="A", alpha=0.5)
    layer(torch.ones(1, 3, dtype=F64))
    assert layer.running_mean.tolist() == layer.running_sigma.tolist() == [0.5] * 3


@pytest.mark.parametrize(
    "cls,shape,rank",
    [
        (DiminishingBatchNorm1d, (3,), "2D or 3D"), (DiminishingBatchNorm1d, (2, 3, 4, 4), "2D or 3D"),
        (DiminishingBatchNorm2d, (2, 3), "4D"), (DiminishingBatchNorm3d, (2, 3, 4, 4), "5D"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
def test_wrong_rank_and_wrong_channels(cls, shape, rank, training):
    with pytest.raises(ValueError, match=rf"expected {rank} input \(got {len(shape)}D input of size"):
        cls(3).train(training)(torch.zeros(shape))
    shape = (2, 4, *[5] * (cls.ranks[0] - 2))
    with pytest.raises(ValueError, match=r"expected 3 channels, got input size \[2, 4"):
        cls(3).train(training)(torch.zeros(shape))
