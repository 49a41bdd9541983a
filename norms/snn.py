"""Self-normalizing networks: Klambauer, Unterthiner, Mayr & Hochreiter, arXiv 1706.02515 (Table 5 of the
survey).

The layers are torch's own: nn.Linear, nn.SELU, nn.AlphaDropout. Here are the initial values they need, the
network they make, and the map of mean and variance through a layer that the paper's theorems are about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

ALPHA = 1.6732632423543772848170429916717  # of SELU, as torch has them
SCALE = 1.0507009873554804934193349852946  # lambda


@torch.no_grad()
def lecun_normal_(module: nn.Module) -> None:
    r"""Initial values of self-normalizing networks (Klambauer et al., arXiv 1706.02515): weights from
    N(0, 1/fan_in), biases 0, for nn.Linear and nn.Conv1d/2d/3d; other modules are left alone.

    ::

        model.apply(lecun_normal_)

    This is ``kaiming_normal_(nonlinearity="linear")``. With ``nonlinearity="selu"`` torch takes the gain 3/4,
    which is not the paper's. Inputs of the network should have mean 0 and variance 1.

    Args:
        module: one layer; ``apply`` takes it to all of a model.
    """
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        weight = module.weight
        nn.init.kaiming_normal_(weight, nonlinearity="linear")
        if is_parametrized(module, "weight"):  # of which `weight` is the outcome
            module.weight = weight
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def self_normalizing(
    in_features: int,
    widths: Sequence[int],
    out_features: int,
    dropout: float = 0.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """A self-normalizing network: nn.Linear, nn.SELU and nn.AlphaDropout for each of `widths`, then
    nn.Linear, with the initial values of `lecun_normal_`.

    Args:
        in_features: entries of an input; standardise them.
        widths: of the hidden layers.
        out_features: of the last, linear layer.
        dropout: the probability to drop a unit, in the paper 0 or 0.05. With 0 there are no dropout layers.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: a dropout that is not in [0, 1].
    """
    layers: list[nn.Module] = []
    fan_in = in_features
    for width in widths:
        layers += [nn.Linear(fan_in, width, device=device, dtype=dtype), nn.SELU()]
        if dropout:
            layers.append(nn.AlphaDropout(dropout))
        fan_in = width
    model = nn.Sequential(*layers, nn.Linear(fan_in, out_features, device=device, dtype=dtype))
    return model.apply(lecun_normal_)


def selu_moments(
    mu: Tensor | float, nu: Tensor | float, omega: Tensor | float = 0.0, tau: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""The map g of Klambauer et al., arXiv 1706.02515: mean and variance of the activations of a layer from
    those of the layer below.

    .. math:: g(\mu, \nu) = (E[\mathrm{selu}(z)], \mathrm{Var}[\mathrm{selu}(z)]),
        \qquad z \sim N(\mu \omega, \nu \tau)

    for inputs of mean mu and variance nu and a unit whose weights have the sum omega and the sum of squares
    tau, if it has many inputs. At omega = 0, tau = 1 the point (0, 1) is fixed and attracts (theorem 1):
    SELU's constants were chosen for that. nn.AlphaDropout, too, leaves (0, 1) where it is.

    With :math:`m = \mu \omega`, :math:`s^2 = \nu \tau`, the normal distribution's :math:`\Phi` and
    :math:`\varphi` at m / s, and
    :math:`P_k = E[e^{k z}; z < 0] = e^{k m + k^2 s^2 / 2} \, \Phi(-m / s - k s)`,

    .. math::
        E[\mathrm{selu}] / \lambda &= m \Phi + s \varphi + \alpha (P_1 - P_0) \\
        E[\mathrm{selu}^2] / \lambda^2 &= (m^2 + s^2) \Phi + m s \varphi + \alpha^2 (P_2 - 2 P_1 + P_0)

    which are the paper's expressions in another notation. Here the variance is taken about a point close to
    the mean, and exp times erfc is one erfcx where it would overflow, so that both hold for any mu. (A
    variance :math:`s^2` far below 1 costs :math:`1 / s^2` of the relative accuracy of the result's.)

    Args:
        mu: mean of the inputs; as all of the four a tensor, which are broadcast, or a number. Numbers alone
            are computed in float64, as are integers.
        nu: variance of the inputs, above 0.
        omega: sum of the weights.
        tau: sum of their squares, above 0.

    Returns:
        mean and variance; NaN for a negative nu or tau. Twice differentiable, and runs under torch.func.
    """
    m, s = _preactivation(mu, nu, omega, tau)
    above, density, p0, p1, p2 = _parts(m, s)
    c, b = _centre(m)
    first = (m - c) * above + s * density + ALPHA * p1 - b * p0
    second = ((m - c).square() + s.square()) * above + (m - 2 * c) * s * density
    second = second + ALPHA**2 * p2 - 2 * ALPHA * b * p1 + b.square() * p0
    return SCALE * (c + first), SCALE**2 * (second - first.square())


def selu_jacobian(
    mu: Tensor | float, nu: Tensor | float, omega: Tensor | float = 0.0, tau: Tensor | float = 1.0
) -> Tensor:
    r"""The Jacobian of `selu_moments` with respect to (mu, nu), in closed form.

    .. math::
        \frac{\partial E[f(z)]}{\partial \mu} = \omega \, E[f'(z)], \qquad
        \frac{\partial E[f(z)]}{\partial \nu} = \frac{\tau}{2} \, E[f''(z)]

    for f = selu, whose second derivative has the mass :math:`\lambda (1 - \alpha)` at 0, and f = selu^2. At
    the fixed point it is [[0, 0.088834], [0, 0.782648]] of spectral norm 0.7877: below 1, so the point
    attracts.

    Args:
        mu: as in `selu_moments`.
        nu: the same.
        omega: the same.
        tau: the same.

    Returns:
        [..., 2, 2]: rows mean and variance, columns mu and nu.
    """
    m, s = _preactivation(mu, nu, omega, tau)
    above, density, p0, p1, p2 = _parts(m, s)
    c, b = _centre(m)
    mean = SCALE * ((m - c) * above + s * density + ALPHA * p1 - b * p0)
    mean_mu = SCALE * (above + ALPHA * p1)
    mean_nu = SCALE / 2 * (ALPHA * p1 + (1 - ALPHA) * density / s)
    square_mu = 2 * SCALE**2 * ((m - c) * above + s * density + ALPHA * (ALPHA * p2 - b * p1))
    square_nu = SCALE**2 * (above + ALPHA * (2 * ALPHA * p2 - b * p1) - c * (1 - ALPHA) * density / s)
    # Var = E[(selu - c)^2] - E[selu - c]^2, by whose c the terms do not cancel
    mu_column = torch.stack([mean_mu, square_mu - 2 * mean * mean_mu], -1) * _tensor(omega, m)[..., None]
    nu_column = torch.stack([mean_nu, square_nu - 2 * mean * mean_nu], -1) * _tensor(tau, m)[..., None]
    return torch.stack([mu_column, nu_column], -1)


def _preactivation(
    mu: Tensor | float, nu: Tensor | float, omega: Tensor | float, tau: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of z."""
    values = mu, nu, omega, tau
    given = [v for v in values if isinstance(v, Tensor)]
    default = torch.empty(0, dtype=torch.float64, device=given[0].device if given else None)
    like = next((v for v in given if v.is_floating_point()), default)
    tensors = torch.broadcast_tensors(*(_tensor(v, like) for v in values))
    # The root of each: two negative numbers must not pass for a variance.
    return tensors[0] * tensors[2], tensors[1].sqrt() * tensors[3].sqrt()


def _tensor(value: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else value.to(like.dtype)
    return torch.tensor(value, dtype=like.dtype, device=like.device)


def _centre(m: Tensor) -> tuple[Tensor, Tensor]:
    """The point c that a variance is taken about, in units of lambda, and b = c + alpha.

    c = m where most of z is above 0, and where it is below, SELU's lower limit c = -alpha: from there, selu /
    lambda is alpha e^z for z < 0, with nothing to cancel.
    """
    positive = m > 0
    return torch.where(positive, m, -ALPHA), torch.where(positive, m + ALPHA, 0.0)


def _parts(m: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Phi(m / s), the density phi(m / s), and P_0, P_1, P_2 of z ~ N(m, s^2)."""
    z = m / s
    root = math.sqrt(0.5)
    bell = torch.exp(-z.square() / 2)

    def below(k: int) -> Tensor:
        # exp(k m + k^2 s^2 / 2) erfc(t) / 2, the exponent being t^2 - z^2 / 2. Each form where it does not
        # overflow; nor may the other overflow there, or its gradient would be NaN and not 0.
        t = root * (z + k * s)
        positive = t > 0
        scaled = bell * torch.special.erfcx(torch.where(positive, t, 0.0))
        exponent = torch.where(positive, 0.0, k * m + (k * s).square() / 2)
        plain = exponent.exp() * torch.special.erfc(torch.where(positive, 0.0, t))
        return torch.where(positive, scaled, plain) / 2

    return torch.special.erfc(-root * z) / 2, bell / math.sqrt(2 * math.pi), below(0), below(1), below(2)
