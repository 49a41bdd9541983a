"""Self-normalizing networks: the map of mean and variance against numerical integrals, the initial values and
alpha-dropout against their statistics."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn
from torch.autograd.functional import jacobian

import norms
from norms.snn import ALPHA, SCALE, lecun_normal_, self_normalizing, selu_jacobian, selu_moments

F64 = torch.float64
POINTS = [
    (0.0, 1.0, 0.0, 1.0), (0.1, 0.8, 0.1, 0.95), (-0.1, 1.5, 0.1, 1.1), (0.3, 2.0, -1.5, 0.5),
    (2.0, 0.3, 1.0, 1.0),
    (-3.0, 1.0, 1.0, 2.0), (5.0, 4.0, 1.0, 1.0), (-8.0, 0.5, 1.0, 1.0),
    (0.5, 20.0, 1.0, 1.0), (40.0, 9.0, 1.0, 1.0),
]  # fmt: skip


def selu(x):
    return SCALE * (x if x > 0 else ALPHA * np.expm1(x))


def integral(f, m, s):
    """E[f(z)], z ~ N(m, s^2), split at the kink of SELU."""

    def integrand(z):
        return f(z) * math.exp(-(((z - m) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))

    low, high = m - 12 * s, m + 12 * s
    ends = [low, *(p for p in (0.0, m) if low < p < high), high]
    ends = sorted(set(ends))
    return sum(
        quad(integrand, a, b, epsabs=1e-15, epsrel=1e-13, limit=200)[0] for a, b in itertools.pairwise(ends)
    )


# ---- the map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
def test_moments_against_integrals(point):
    mu, nu, omega, tau = point
    m, s = mu * omega, math.sqrt(nu * tau)
    mean = integral(selu, m, s)
    variance = integral(lambda z: (selu(z) - mean) ** 2, m, s)
    found = selu_moments(*point)
    assert found[0].dtype == F64
    assert found[0].item() == pytest.approx(mean, rel=1e-10, abs=1e-12)
    assert found[1].item() == pytest.approx(variance, rel=1e-10)


def paper(mu, nu, omega, tau):
    """Equations 4 and 5 as the paper prints them."""
    m, v = mu * omega, nu * tau
    root = math.sqrt(2 * v)
    tail = math.exp(m + v / 2) * math.erfc((m + v) / root)
    bell = math.sqrt(2 / math.pi) * math.sqrt(v) * math.exp(-m * m / (2 * v))
    mean = SCALE / 2 * (m * math.erf(m / root) + ALPHA * tail - ALPHA * math.erfc(m / root) + bell + m)
    tail2 = math.exp(2 * (m + v)) * math.erfc((m + 2 * v) / root)
    square = (m * m + v) * (2 - math.erfc(m / root)) + m * bell
    square += ALPHA**2 * (-2 * tail + tail2 + math.erfc(m / root))
    return mean, SCALE**2 / 2 * square - mean**2


def test_moments_are_the_papers_expressions():
    for point in POINTS[:5]:
        np.testing.assert_allclose(
            [v.item() for v in selu_moments(*point)], paper(*point), rtol=1e-11, atol=1e-14
        )


def test_constants_are_torchs_and_their_fixed_point():
    x = torch.linspace(-3, 3, 13, dtype=F64)
    np.testing.assert_allclose(nn.functional.selu(x), [selu(v) for v in x.tolist()], rtol=1e-15, atol=1e-16)
    mean, variance = selu_moments(0.0, 1.0)
    assert abs(mean.item()) < 1e-14 and abs(variance.item() - 1) < 1e-14


def test_extreme_arguments():
    """exp and erfc each over- or underflow: the linear branch far above 0, the limit of SELU far below."""
    mean, variance = selu_moments(torch.tensor([1e3, 1e8]).double(), 4.0, 1.0)
    torch.testing.assert_close(mean, SCALE * torch.tensor([1e3, 1e8]).double(), rtol=1e-14, atol=0)
    torch.testing.assert_close(variance, torch.full((2,), 4 * SCALE**2, dtype=F64), rtol=1e-14, atol=0)
    mean, variance = selu_moments(torch.tensor([-30.0, -700.0]).double(), 1.0, 1.0)
    torch.testing.assert_close(mean, torch.full((2,), -SCALE * ALPHA, dtype=F64), rtol=1e-12, atol=0)
    # there lambda (alpha e^z - alpha), log-normal
    expected = (SCALE * ALPHA) ** 2 * math.expm1(1) * math.exp(-60 + 1)
    assert variance[0].item() == pytest.approx(expected, rel=1e-12)
    for nu in (1e4, 1e8):  # SELU is ReLU but for a bounded part
        mean, variance = selu_moments(0.0, nu)
        assert mean.item() == pytest.approx(SCALE * math.sqrt(nu / (2 * math.pi)), rel=0.04)
        assert variance.item() == pytest.approx(SCALE**2 * nu * (0.5 - 0.5 / math.pi), rel=0.04)
    assert torch.isnan(selu_moments(0.0, -1.0)[1]) and torch.isnan(selu_moments(0.0, -1.0, 0.0, -1.0)[1])
    for point in ((1e3, 4.0, 1.0), (-700.0, 1.0, 1.0), (0.0, 1e8, 1.0)):
        arguments = [torch.tensor(v, dtype=F64, requires_grad=True) for v in point]
        gradients = torch.autograd.grad(sum(selu_moments(*arguments)), arguments)
        assert all(torch.isfinite(g) for g in gradients)
        assert torch.isfinite(selu_jacobian(*arguments)).all()


def test_broadcasting_dtypes_and_torch_func():
    mu, nu = torch.linspace(-0.1, 0.1, 3, dtype=F64)[:, None], torch.tensor([0.8, 1.5], dtype=F64)
    mean, variance = selu_moments(mu, nu, 0.1, torch.tensor(1.1, dtype=F64))
    assert mean.shape == variance.shape == (3, 2)
    assert selu_jacobian(mu, nu, 0.1).shape == (3, 2, 2, 2)
    for i, j in itertools.product(range(3), range(2)):
        expected = paper(mu[i].item(), nu[j].item(), 0.1, 1.1)
        np.testing.assert_allclose([mean[i, j], variance[i, j]], expected, rtol=1e-11, atol=1e-15)
    assert selu_moments(mu.float(), 1.0)[0].dtype == torch.float32
    vmapped = torch.func.vmap(torch.func.jacrev(lambda v: torch.stack(selu_moments(v, 1.0, 0.1))))(mu[:, 0])
    torch.testing.assert_close(vmapped, selu_jacobian(mu[:, 0], 1.0, 0.1)[..., 0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("point", POINTS[1:])
def test_gradients(point):
    arguments = tuple(torch.tensor(v, dtype=F64, requires_grad=True) for v in point)
    assert torch.autograd.gradcheck(selu_moments, arguments)
    assert torch.autograd.gradgradcheck(selu_moments, arguments)
    assert torch.autograd.gradcheck(selu_jacobian, arguments)


# ---- its Jacobian and its fixed point ------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
def test_jacobian_against_autograd(point):
    mu, nu, omega, tau = (torch.tensor(v, dtype=F64) for v in point)
    columns = jacobian(lambda a, b: torch.stack(selu_moments(a, b, omega, tau)), (mu, nu))
    torch.testing.assert_close(selu_jacobian(*point), torch.stack(columns, -1), rtol=1e-10, atol=1e-13)


def test_jacobian_at_the_fixed_point_as_printed():
    found = selu_jacobian(0.0, 1.0)
    np.testing.assert_allclose(
        found, [[0, 0.088834], [0, 0.782648]], rtol=0, atol=1e-6
    )  # the first is cut off
    assert torch.linalg.matrix_norm(found, 2).item() == pytest.approx(0.7877, abs=5e-5)


def grid(*ends, n=7):
    return torch.meshgrid(*(torch.linspace(*end, n, dtype=F64) for end in ends), indexing="ij")


def test_iterates_go_to_the_fixed_point():
    """Theorem 1, for normalised weights: from all of its domain of mean and variance."""
    mu, nu = grid((-0.1, 0.1), (0.8, 1.5))
    for _ in range(200):
        mu, nu = selu_moments(mu, nu)
    torch.testing.assert_close(mu, torch.zeros_like(mu), rtol=0, atol=1e-13)
    torch.testing.assert_close(nu, torch.ones_like(nu), rtol=0, atol=1e-13)


def test_the_domain_is_mapped_into_itself_by_a_contraction():
    """Theorem 1 for weights that are nearly normalised, on a grid."""
    mu, nu, omega, tau = grid((-0.1, 0.1), (0.8, 1.5), (-0.1, 0.1), (0.95, 1.1))
    mean, variance = selu_moments(mu, nu, omega, tau)
    assert mean.abs().max() < 0.1 and variance.min() > 0.8 and variance.max() < 1.5
    assert torch.linalg.matrix_norm(selu_jacobian(mu, nu, omega, tau), 2).max() < 1


# ---- initial values, networks, dropout -----------------------------------------------------------


@pytest.mark.parametrize(
    "layer,fan_in",
    [(nn.Linear(400, 300), 400), (nn.Conv2d(40, 300, 3), 360), (nn.Conv1d(80, 300, 5, groups=2), 200)],
)
def test_initial_values(layer, fan_in):
    torch.manual_seed(0)
    lecun_normal_(layer)
    scaled, n = layer.weight.detach() * math.sqrt(fan_in), layer.weight.numel()
    assert layer.bias.eq(0).all()
    assert abs(scaled.mean().item()) < 5 / math.sqrt(n)  # of N(0, 1): five standard errors each
    assert abs(scaled.var().item() - 1) < 5 * math.sqrt(2 / n)
    assert abs((scaled**4).mean().item() - 3) < 5 * math.sqrt(96 / n)


def test_initial_values_leave_other_modules_alone():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False), nn.LayerNorm(2), nn.ReLU())
    model.apply(lecun_normal_)
    assert model[0].weight.eq(1).all() and model[2].weight.eq(1).all()
    layer = nn.Linear(3, 2)
    lecun_normal_(layer)
    assert layer.weight.requires_grad and layer.weight.grad_fn is None


def test_network():
    model = self_normalizing(7, [6, 5], 4, dropout=0.05, dtype=F64)
    kinds = [nn.Linear, nn.SELU, nn.AlphaDropout] * 2 + [nn.Linear]
    assert [type(layer) for layer in model] == kinds
    assert [(m.in_features, m.out_features) for m in model if isinstance(m, nn.Linear)] == [
        (7, 6),
        (6, 5),
        (5, 4),
    ]
    assert model[2].p == 0.05 and model[0].weight.dtype == F64 and model[0].bias.eq(0).all()
    assert not any(isinstance(layer, nn.AlphaDropout) for layer in self_normalizing(7, (6,), 4))
    assert len(self_normalizing(7, [], 4, device="meta")) == 1
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1"):
        self_normalizing(7, [6], 4, dropout=1.5)


def test_a_deep_network_keeps_mean_0_and_variance_1():
    torch.manual_seed(0)
    x = torch.randn(500, 256)
    model = self_normalizing(256, [256] * 24, 1, dropout=0.05)[:-1]
    plain = nn.Sequential(
        *(m if isinstance(m, nn.Linear) else nn.ReLU() for m in model if not hasattr(m, "p"))
    )
    with torch.no_grad():
        y, other = model(x), plain(x)
    # The weights' sums of squares vary by sqrt(2 / 256) about 1, which the contraction does not amplify.
    assert abs(y.mean().item()) < 0.1 and abs(y.var().item() - 1) < 0.25
    assert other.var().item() < 1e-3


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(p):
    torch.manual_seed(0)
    x = nn.functional.selu(torch.randn(400_000, dtype=F64))
    y = nn.AlphaDropout(p)(x)
    n = len(y)
    fourth = ((y - y.mean()) ** 4).mean().item()
    assert abs(y.mean().item()) < 5 / math.sqrt(n)  # five standard errors
    assert abs(y.var().item() - 1) < 5 * math.sqrt((fourth - 1) / n)
    q, limit = 1 - p, -SCALE * ALPHA  # the paper's a and b
    a = (q + limit**2 * q * (1 - q)) ** -0.5
    b = -a * (1 - q) * limit
    kept, dropped = a * x + b, torch.full_like(x, a * limit + b)
    assert (torch.isclose(y, kept, atol=1e-6) | torch.isclose(y, dropped, atol=1e-6)).all()
    share = torch.isclose(y, dropped, atol=1e-9).double().mean().item()
    assert abs(share - p) < 5 * math.sqrt(p * q / n)
    inverted = nn.Dropout(p)(x)  # which does not
    assert inverted.var().item() == pytest.approx(1 / q, abs=0.02)


def test_integers_are_numbers():
    """One integer tensor among the arguments does not make integers of the others."""
    mu, nu = torch.tensor(1), torch.tensor(2)
    assert selu_moments(mu, nu, 0.5) == selu_moments(1.0, 2.0, 0.5)
    assert torch.equal(selu_jacobian(mu, nu, 0.5), selu_jacobian(1.0, 2.0, 0.5))


@pytest.mark.parametrize("mu", [-40.0, -20.0, -5.0, 0.0, 5.0, 20.0])
def test_jacobian_far_from_the_fixed_point(mu):
    """Against autograd of the moments, which do not cancel."""
    values = torch.tensor([mu, 1.0], dtype=torch.float64)
    expected = torch.stack(jacobian(lambda v: selu_moments(v[0], v[1], 1.0, 1.0), values))
    torch.testing.assert_close(selu_jacobian(mu, 1.0, 1.0), expected, rtol=1e-9, atol=0)


def test_initial_values_of_a_weight_normalised_layer():
    layer = norms.weight_norm(nn.Linear(400, 300))
    with torch.no_grad():
        layer.weight = torch.zeros(300, 400) + 1
    lecun_normal_(layer)
    assert abs(layer.weight.std().item() - 400**-0.5) < 0.002
