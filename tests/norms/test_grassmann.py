"""The optimizers on the Grassmann manifold against their formulas in numpy, written for one unit."""

import copy
import io
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from norms.grassmann import GrassmannAdam, GrassmannSGD, grassmann_parameters, orthogonality_penalty

F64 = torch.float64
OPTIMIZERS = GrassmannSGD, GrassmannAdam


# ---- the reference: formulas of the paper, for one vector ----------------------------------------


def exp(y, h):
    length = np.sqrt(h @ h)
    return y if length == 0 else y * np.cos(length) + h / length * np.sin(length)


def transport(y, tangent, along):
    length = np.sqrt(along @ along)
    if length == 0:
        return tangent
    u = along / length
    return tangent - (u @ tangent) * ((1 - np.cos(length)) * u + np.sin(length) * y)


def gradient(y, g, nu):
    h = g - (y @ g) * y
    length = np.sqrt(h @ h)
    return h * nu / length if length > nu else h


def sgd(y, gradients, lr=0.2, momentum=0.9, grad_clip=0.1):
    tau = np.zeros_like(y)
    for g in gradients:
        d = momentum * tau - lr * gradient(y, g, grad_clip)
        y, tau = exp(y, d), transport(y, d, d)
        yield y, tau


def adam(y, gradients, lr=0.05, betas=(0.9, 0.99), eps=1e-8, grad_clip=0.1):
    m, v = np.zeros_like(y), 0.0
    for t, g in enumerate(gradients, start=1):
        h = gradient(y, g, grad_clip)
        m, v = betas[0] * m + (1 - betas[0]) * h, betas[1] * v + (1 - betas[1]) * h @ h
        d = -lr * np.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) * m / np.sqrt(v + eps)
        y, m = exp(y, d), transport(y, m, d)
        yield y, m


REFERENCES = {GrassmannSGD: (sgd, "momentum_buffer"), GrassmannAdam: (adam, "exp_avg")}


def units(*shape, seed=0, dtype=F64):
    """A weight [units, ...] with units of length 1."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=generator, dtype=F64)
    return nn.Parameter((w / w.flatten(1).norm(dim=1).view(-1, *[1] * (len(shape) - 1))).to(dtype))


def some_gradients(shape, steps=7, seed=1):
    """Long ones and short ones (to clip and not to), a step without any, a unit that has none at first."""
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randn(shape, generator=generator, dtype=F64) * 10 ** (1 - k % 4) for k in range(steps)]
    found[2].zero_()
    found[0][1] = found[1][1] = 0.0
    return found


OPTIONS = {
    GrassmannSGD: [
        {},
        {"lr": 0.1, "momentum": 0.5, "grad_clip": math.inf},
        {"momentum": 0.0, "grad_clip": 0.01},
    ],
    GrassmannAdam: [
        {},
        {"lr": 2.0, "betas": (0.5, 0.7), "eps": 0.1, "grad_clip": math.inf},
        {"grad_clip": 0.01},
    ],
}


@pytest.mark.parametrize("shape", [(4, 6), (3, 2, 3, 3)])
@pytest.mark.parametrize(
    "cls,options",
    [(cls, o) for cls in OPTIMIZERS for o in OPTIONS[cls]],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_steps_against_numpy(cls, options, shape):
    p, gradients = units(*shape), some_gradients(shape)
    rule, buffer = REFERENCES[cls]
    runs = [
        list(rule(p[i].detach().flatten().numpy(), [g[i].flatten().numpy() for g in gradients], **options))
        for i in range(shape[0])
    ]
    optimizer = cls([p], **options)
    for t, g in enumerate(gradients):
        p.grad = g.clone()
        optimizer.step()
        assert torch.equal(p.grad, g)
        for i, run in enumerate(runs):
            y, tangent = run[t]
            np.testing.assert_allclose(p[i].detach().flatten(), y, rtol=0, atol=1e-12)
            np.testing.assert_allclose(optimizer.state[p][buffer][i], tangent, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_it_stays_on_the_manifold(cls):
    p, buffer = units(4, 3, 3), REFERENCES[cls][1]
    optimizer = cls([p], lr=1.0, grad_clip=10.0)
    for g in some_gradients(p.shape, steps=100):
        before = p.detach().clone()
        p.grad = g
        optimizer.step()
        y, tangent = p.detach().flatten(1), optimizer.state[p][buffer]
        torch.testing.assert_close(y.norm(dim=1), torch.ones(4, dtype=F64), rtol=0, atol=1e-12)
        assert ((y * tangent).sum(1).abs() <= 1e-12 * (1 + tangent.norm(dim=1))).all()
        if cls is GrassmannSGD:  # the way gone is as long as the transported step, up to full turns
            cos = (y * before.flatten(1)).sum(1)
            torch.testing.assert_close(tangent.norm(dim=1).cos(), cos, rtol=0, atol=1e-10)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_transport_keeps_the_length(cls):
    p = units(4, 6)
    optimizer = cls([p], lr=0.7, grad_clip=math.inf)
    p.grad = some_gradients(p.shape)[0]
    length = (p.grad - (p.grad * p).sum(1, keepdim=True) * p).norm(dim=1).detach()
    optimizer.step()
    found = optimizer.state[p][REFERENCES[cls][1]].norm(dim=1)
    torch.testing.assert_close(found, length * (0.7 if cls is GrassmannSGD else 0.1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_a_zero_gradient_moves_nothing(cls):
    p = units(3, 5)
    before, optimizer = p.detach().clone(), cls([p])
    for _ in range(3):
        p.grad = torch.zeros_like(p)
        optimizer.step()
        torch.testing.assert_close(p.detach(), before, rtol=0, atol=1e-15)
    p.grad = 3 * p.detach()  # nor does one along y
    optimizer.step()
    torch.testing.assert_close(p.detach(), before, rtol=0, atol=1e-12)
    p.grad = None
    state = copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.step()
    assert str(optimizer.state_dict()["state"]) == str(state)


def test_two_pi_returns_to_the_start_and_clipping_prevents_it():
    p = units(1, 4)
    start = p.detach().clone()
    direction = torch.tensor([[1.0, -2.0, 0.5, 1.0]], dtype=F64)
    direction -= (direction * start).sum() * start
    p.grad = direction / direction.norm() * 2 * math.pi
    GrassmannSGD([p], lr=1.0, grad_clip=math.inf).step()
    torch.testing.assert_close(p.detach(), start, rtol=0, atol=1e-12)
    GrassmannSGD([p], lr=1.0, grad_clip=0.1).step()
    assert (p.detach() * start).sum().item() == pytest.approx(math.cos(0.1), abs=1e-12)


def test_a_step_is_no_longer_than_the_docstring_says():
    p = units(3, 5)
    optimizer = GrassmannSGD([p], lr=0.2, momentum=0.9, grad_clip=0.1)
    for _ in range(100):
        p.grad = torch.full_like(p, 100.0)
        optimizer.step()
        assert (optimizer.state[p]["momentum_buffer"].norm(dim=1) <= 0.2 * 0.1 / (1 - 0.9) + 1e-12).all()


# ---- agreement with plain optimizers, and what it is for ------------------------------------------


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4, eps=1e-14), nn.Tanh(), nn.Linear(4, 3)
    ).double()


def loss_of(model, seed=3):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(30, 6, generator=generator, dtype=F64), torch.arange(30) % 3
    return F.cross_entropy(model(x), y)


def test_an_infinitesimal_step_is_that_of_sgd():
    """To first order in lr: behind batch normalisation the gradient is tangent already."""
    differences = []
    for lr in (1e-3, 1e-4):
        mine, peer = network(), network()
        for model in (mine, peer):
            with torch.no_grad():
                model[0].weight /= model[0].weight.norm(dim=1, keepdim=True)
        optimizers = (
            GrassmannSGD([mine[0].weight], lr, grad_clip=math.inf),
            torch.optim.SGD([peer[0].weight], lr),
        )
        start = mine[0].weight.detach().clone()
        for model, optimizer in zip((mine, peer), optimizers, strict=True):
            loss_of(model).backward()
            optimizer.step()
        step = (mine[0].weight - start).norm()
        assert step > 0
        differences.append(((mine[0].weight - peer[0].weight).norm() / step).item())
    assert differences[1] == pytest.approx(differences[0] / 10, rel=0.01) and differences[1] < 1e-4


def test_the_length_at_the_start_does_not_matter():
    """BN(a W u) = BN(W u): the first step takes the length into account."""
    models = network(), network()
    with torch.no_grad():
        models[0][0].weight /= models[0][0].weight.norm(dim=1, keepdim=True)
        models[1][0].weight.copy_(models[0][0].weight * torch.tensor([0.1, 2, 30, 4]).double()[:, None])
    assert loss_of(models[1]).item() == pytest.approx(loss_of(models[0]).item(), rel=1e-12)
    for cls in OPTIMIZERS:
        results = []
        for model in copy.deepcopy(models):
            optimizer = cls([model[0].weight])
            for _ in range(4):
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step()
            results.append(model[0].weight.detach())
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("cls,lr", [(GrassmannSGD, 0.05), (GrassmannAdam, 0.05)])
def test_rayleigh_quotients_lead_to_the_leading_eigenvector(cls, lr):
    torch.manual_seed(0)
    half = torch.randn(8, 8, dtype=F64)
    matrix = half @ half.T
    matrix /= matrix.norm()
    p = units(3, 8, seed=5)
    optimizer = cls([p], lr=lr, grad_clip=math.inf)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.995)
    for _ in range(1000):
        optimizer.zero_grad()
        loss = -torch.einsum("ki,ij,kj->", p, matrix, p) / 2
        loss.backward()
        optimizer.step()
        scheduler.step()
    leading = np.linalg.eigh(matrix.numpy())[1][:, -1]
    np.testing.assert_allclose(abs(p.detach().numpy() @ leading), 1, rtol=0, atol=1e-3)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_it_trains_beside_a_second_optimizer(cls):
    model = network()
    manifold, euclidean = grassmann_parameters(model, lambda name, module: name == "0")
    assert [p is model[0].weight for p in manifold] == [True] and len(euclidean) == 4
    optimizers = cls(manifold), torch.optim.SGD(euclidean, lr=0.1)
    losses = []
    for _ in range(30):
        for optimizer in optimizers:
            optimizer.zero_grad()
        losses.append(loss_of(model))
        losses[-1].backward()
        for optimizer in optimizers:
            optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


# ---- as an optimizer of torch --------------------------------------------------------------------


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_state_dict_goes_round(cls):
    gradients = some_gradients((4, 6), steps=6)
    whole = units(4, 6)
    optimizer = cls([whole], lr=0.3)
    for k, g in enumerate(gradients):
        if k == 3:
            file = io.BytesIO()
            torch.save((optimizer.state_dict(), whole.detach()), file)
        whole.grad = g.clone()
        optimizer.step()
    file.seek(0)
    state, value = torch.load(file)
    resumed = nn.Parameter(value)
    other = cls([resumed])
    other.load_state_dict(state)
    copied = copy.deepcopy(resumed)
    third = cls([copied])
    third.load_state_dict(pickle.loads(pickle.dumps(other.state_dict())))
    for p, opt in ((resumed, other), (copied, third)):
        for g in gradients[3:]:
            p.grad = g.clone()
            opt.step()
        assert torch.equal(p, whole)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_groups_and_closure(cls):
    a, b = units(3, 4), units(3, 4, seed=1)
    optimizer = cls([{"params": [a], "lr": 0.0}, {"params": [b], "grad_clip": 1e-3}])
    before, b_before = a.detach().clone(), b.detach().clone()

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = (a + b).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
    torch.testing.assert_close(a.detach(), before, rtol=0, atol=1e-15)
    assert not torch.allclose(b.detach(), b_before)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_dim_1_for_transposed_convolutions(cls):
    p, g = units(3, 5, 2, 2), some_gradients((3, 5, 2, 2))
    q = nn.Parameter(p.detach().transpose(0, 1).contiguous())
    optimizers = cls([p]), cls([q], dim=1)
    for step in g:
        p.grad, q.grad = step.clone(), step.transpose(0, 1).contiguous()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(q.transpose(0, 1), p)


@pytest.mark.parametrize("cls", OPTIMIZERS)
@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_low_precision_and_memory_formats(cls, dtype, tolerance):
    exact, low = units(4, 3, 3, 3), units(4, 3, 3, 3, dtype=dtype)
    last = nn.Parameter(exact.detach().contiguous(memory_format=torch.channels_last))
    optimizers = [cls([p]) for p in (exact, low, last)]
    for g in some_gradients(exact.shape):
        for p, optimizer in zip((exact, low, last), optimizers, strict=True):
            p.grad = g.to(p.dtype)
            optimizer.step()
    assert low.dtype == dtype and last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(low.double(), exact, rtol=0, atol=tolerance)
    torch.testing.assert_close(last, exact, rtol=0, atol=1e-14)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_half_precision_is_updated_in_float32(cls):
    low = units(4, 50, dtype=torch.bfloat16)
    exact = nn.Parameter(low.detach().double())
    for p in (low, exact):
        p.grad = some_gradients(p.shape)[0].bfloat16().to(p.dtype)
        cls([p]).step()
    assert torch.equal(low, exact.bfloat16())


# ---- the penalty and the choice of parameters ----------------------------------------------------


def test_penalty_against_numpy():
    a, b = units(3, 2, 2), units(4, 3, seed=2)
    expected = 0.0
    for w in (a, b):
        y = w.detach().flatten(1).numpy()
        for i, j in itertools.product(range(len(y)), repeat=2):
            expected += 0.7 / 2 * (y[i] @ y[j] - (i == j)) ** 2
    assert orthogonality_penalty([a, b], alpha=0.7).item() == pytest.approx(expected, rel=1e-12)
    assert orthogonality_penalty(a).item() == pytest.approx(
        orthogonality_penalty([a], 0.7).item() / 7, rel=1e-12
    )
    assert orthogonality_penalty(a, dim=1) == orthogonality_penalty(a.transpose(0, 1))
    assert torch.autograd.gradcheck(orthogonality_penalty, (a,))
    assert torch.autograd.gradgradcheck(orthogonality_penalty, (a,))


def test_penalty_is_zero_for_orthonormal_units_and_leads_there():
    q, _ = torch.linalg.qr(torch.randn(6, 3, dtype=F64))
    assert orthogonality_penalty(q.T) < 1e-28
    p = units(3, 6)
    optimizer = GrassmannSGD([p], lr=0.5, momentum=0.5, grad_clip=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        orthogonality_penalty(p, alpha=1.0).backward()
        optimizer.step()
    assert orthogonality_penalty(p) < 1e-20
    with pytest.raises(ValueError, match="orthogonality_penalty got no weights"):
        orthogonality_penalty([])


def test_default_choice_is_the_undercomplete_convolutions():
    model = nn.Sequential(
        nn.Conv2d(1, 9, 3), nn.Conv2d(3, 8, 3), nn.Conv1d(9, 8, 1, bias=False), nn.Conv3d(8, 8, 1),
        nn.Conv2d(8, 8, 1, groups=4), nn.Linear(9, 2), nn.ConvTranspose2d(9, 2, 3),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(9, 8, 3)),
    )  # fmt: skip
    manifold, euclidean = grassmann_parameters(model)
    assert [id(p) for p in manifold] == [id(model[1].weight), id(model[2].weight)]
    assert len(euclidean) == len(list(model.parameters())) - 2
    tied = nn.Sequential(model[1], model[1])
    assert [len(part) for part in grassmann_parameters(tied)] == [1, 1]
    only = grassmann_parameters(model, lambda name, module: isinstance(module, nn.Linear))[0]
    assert [id(p) for p in only] == [id(model[5].weight)]


@pytest.mark.parametrize(
    "module,message",
    [
        (
            nn.ConvTranspose2d(2, 3, 3),
            r"module '0' is a transposed convolution: make a group with dim=1 for it",
        ),
        (nn.BatchNorm1d(3), "module '0' has no parameter 'weight' of two dimensions or more"),
        (nn.ReLU(), "module '0' has no parameter 'weight'"),
    ],
)
def test_what_a_predicate_cannot_choose(module, message):
    with pytest.raises(ValueError, match=message):
        grassmann_parameters(nn.Sequential(module), lambda name, module: name == "0")


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cls,options,message",
    [
        *[(cls, {"lr": -1.0}, "Invalid learning rate: -1.0") for cls in OPTIMIZERS],
        *[(cls, {"grad_clip": 0.0}, "Invalid grad_clip value: 0.0") for cls in OPTIMIZERS],
        (GrassmannSGD, {"momentum": 1.0}, "Invalid momentum value: 1.0"),
        (GrassmannSGD, {"momentum": -0.1}, "Invalid momentum value: -0.1"),
        (GrassmannAdam, {"eps": -1.0}, "Invalid epsilon value: -1.0"),
        (GrassmannAdam, {"eps": 0.0}, "Invalid epsilon value: 0.0"),
        (GrassmannAdam, {"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
        (GrassmannAdam, {"betas": (0.9, -1)}, "Invalid beta parameter at index 1: -1"),
        (GrassmannSGD, {"dim": 2}, r"Invalid dim value: 2 for a parameter of size \[3, 4\]"),
        (GrassmannSGD, {"dim": -1}, "Invalid dim value: -1"),
    ],
)
def test_bad_options(cls, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        cls([units(3, 4)], **options)
    optimizer = cls([units(3, 4)])
    with pytest.raises(ValueError, match=f"^{message}"):
        optimizer.add_param_group({"params": [units(3, 4)], **options})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_bad_parameters(cls):
    with pytest.raises(ValueError, match=r"a parameter of size \[3\] has no rows for unit vectors"):
        cls([nn.Parameter(torch.ones(3))])
    with pytest.raises(
        ValueError, match=r"a unit of the parameter of size \[2, 3\] is 0: it has no direction"
    ):
        cls([nn.Parameter(torch.tensor([[1.0, 0, 0], [0, 0, 0]]))])
    with pytest.raises(ValueError, match="expected real floating-point parameters, got"):
        cls([nn.Parameter(torch.ones(2, 3, dtype=torch.complex64))])
    p = units(2, 3)
    p.grad = torch.eye(2, 3, dtype=F64).to_sparse()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        cls([p]).step()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # geoopt calls torch.jit
def test_sgd_agrees_with_geoopt_on_the_sphere():
    """Riemannian SGD of another library, by the exact map: without clipping, the same points. (Its momentum
    starts from a gradient counted twice, so there is none here.)"""
    geoopt = pytest.importorskip("geoopt")
    torch.manual_seed(0)
    start, target = torch.randn(5, 7, dtype=F64), torch.randn(5, 7, dtype=F64)
    start = start / start.norm(dim=1, keepdim=True)
    ours = nn.Parameter(start.clone())
    theirs = geoopt.ManifoldParameter(start.clone(), manifold=geoopt.SphereExact())
    a = GrassmannSGD([ours], lr=0.1, momentum=0.0, grad_clip=math.inf)
    b = geoopt.optim.RiemannianSGD([theirs], lr=0.1)
    for _ in range(6):
        for y, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            (y * target).sum().sin().backward()
            optimizer.step()
        torch.testing.assert_close(ours.data, theirs.data, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cls", [GrassmannSGD, GrassmannAdam])
def test_saved_momenta_of_half_precision_stay_float32(cls):
    """Going on from a saved state is going on."""

    def steps(weight, optimizer, count):
        for i in range(count):
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)).half()
            optimizer.step()

    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 5).half())
    optimizer = cls([weight], lr=0.1)
    steps(weight, optimizer, 5)
    other = nn.Parameter(weight.detach().clone())
    loaded = cls([other], lr=0.1)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(weight, optimizer, 5), steps(other, loaded, 5)
    assert torch.equal(weight, other)
