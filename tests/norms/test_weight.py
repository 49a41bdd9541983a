"""Weight normalisation's start from a batch and centred weight normalisation: against their formulas written
out in numpy, and what they promise of a model."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.utils import parametrizations, parametrize
from torch.utils.data import DataLoader, TensorDataset

from norms.mean_only import MeanOnlyBatchNorm2d
from norms.weight import CenteredWeightNorm, centered_weight_norm, data_dependent_init_, weight_norm

F64 = torch.float64
LAYERS = {  # and the size of an input
    "linear": (lambda **o: nn.Linear(5, 4, **o), (64, 5)),
    "linear over positions": (lambda **o: nn.Linear(5, 4, **o), (8, 3, 5)),
    "conv1d": (lambda **o: nn.Conv1d(4, 6, 3, groups=2, **o), (8, 4, 9)),
    "conv2d": (lambda **o: nn.Conv2d(3, 4, 3, 2, 1, **o), (8, 3, 7, 6)),
    "depthwise": (lambda **o: nn.Conv2d(4, 4, 3, groups=4, **o), (8, 4, 7, 6)),
    "conv3d": (lambda **o: nn.Conv3d(2, 4, 2, **o), (8, 2, 4, 4, 4)),
    "transposed1d": (lambda **o: nn.ConvTranspose1d(3, 4, 3, 2, **o), (8, 3, 6)),
    "transposed2d": (lambda **o: nn.ConvTranspose2d(3, 4, 3, 2, **o), (8, 3, 5, 4)),
    "transposed3d": (lambda **o: nn.ConvTranspose3d(2, 3, 2, **o), (8, 2, 3, 3, 3)),
    "conv without a batch": (lambda **o: nn.Conv2d(3, 4, 3, **o), (3, 7, 6)),
}


def g_of(layer):
    return layer.parametrizations.weight.original0


def v_of(layer):
    return layer.parametrizations.weight.original1


def units_first(layer, w):
    return w.transpose(0, 1) if isinstance(layer, nn.modules.conv._ConvTransposeNd) else w


def units(layer, t):
    """Pre-activations [units, values]."""
    return t.detach().movedim(t.dim() + 1 - layer.weight.dim(), 0).flatten(1)


# ---- the start from a batch ----------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make,shape", LAYERS.values(), ids=LAYERS)
def test_start_of_a_layer_by_its_formula(make, shape, bias):
    """t = v . x / |v|, g = 1/sigma[t], b = -mu[t]/sigma[t], where v . x is the layer's own with weight v."""
    torch.manual_seed(0)
    layer, x = weight_norm(make(bias=bias, dtype=F64)), torch.randn(shape, dtype=F64) * 3 + 1
    assert data_dependent_init_(layer, x) is layer
    v = v_of(layer)
    bare = make(bias=False, dtype=F64)
    bare.weight = nn.Parameter(v.detach().clone())
    norm = units_first(layer, v.detach()).flatten(1).numpy()
    t = units(layer, bare(x)).numpy() / np.sqrt((norm**2).sum(1))[:, None]
    mu = t.sum(1) / t.shape[1]
    sigma = np.sqrt(((t - mu[:, None]) ** 2).sum(1) / t.shape[1])
    np.testing.assert_allclose(g_of(layer).detach().flatten(), 1 / sigma, rtol=1e-10)
    y = units(layer, layer(x)).numpy()
    np.testing.assert_allclose(y.std(1), 1, rtol=1e-10)
    if bias:
        np.testing.assert_allclose(layer.bias.detach(), -mu / sigma, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(y.mean(1), 0, atol=1e-10)
    else:
        np.testing.assert_allclose(y.mean(1), mu / sigma, rtol=1e-10, atol=1e-10)


class Nested(nn.Module):
    """Blocks within blocks, a branch, layers declared in another order than they are called in."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4 * 8 * 8, 6)
        self.up = nn.ConvTranspose2d(6, 4, 2, 2)
        self.body = nn.ModuleDict({
            "a": nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2)),
            "b": nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=3, bias=False), nn.ReLU()),
        })  # fmt: skip

    def forward(self, x):
        h = self.body["a"](x)
        h = h + self.body["b"](h)
        return self.head(self.up(h).flatten(1))


def test_start_layer_by_layer_in_the_order_of_the_forward_pass():
    torch.manual_seed(0)
    model, x = weight_norm(Nested().double()), torch.randn(30, 3, 8, 8, dtype=F64) * 2 + 1
    data_dependent_init_(model, x)
    seen = {}
    for name, layer in model.named_modules():
        if parametrize.is_parametrized(layer):
            layer.register_forward_hook(lambda m, _, t, name=name: seen.update({name: units(m, t)}))
    model(x)
    assert sorted(seen) == ["body.a.0", "body.b.0", "head", "up"]
    for name, t in seen.items():
        torch.testing.assert_close(t.std(1, correction=0), torch.ones(len(t), dtype=F64), atol=1e-10, rtol=0)
        if name != "body.b.0":  # it has no bias
            assert t.mean(1).abs().max() < 1e-10


def test_v_is_drawn_or_kept():
    layer, x = weight_norm(nn.Linear(300, 200)), torch.randn(50, 300)
    data_dependent_init_(layer, x, generator=torch.Generator().manual_seed(3))
    v = v_of(layer).detach().clone()
    assert torch.equal(v, torch.empty_like(v).normal_(0, 0.05, generator=torch.Generator().manual_seed(3)))
    assert v.std().item() == pytest.approx(0.05, rel=5 / math.sqrt(2 * v.numel()))
    y = layer(x)
    data_dependent_init_(layer, x, std=None)
    assert torch.equal(v_of(layer), v)
    torch.testing.assert_close(layer(x), y, rtol=0, atol=1e-5)
    data_dependent_init_(layer, x, std=2.0)
    assert v_of(layer).std().item() == pytest.approx(2, rel=5 / math.sqrt(2 * v.numel()))


def test_with_mean_only_batch_norm():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=False), MeanOnlyBatchNorm2d(5), nn.ReLU(),
        nn.Conv2d(5, 4, 3, bias=False), MeanOnlyBatchNorm2d(4),
    ).double()  # fmt: skip
    weight_norm(model)
    x = torch.randn(20, 3, 9, 9, dtype=F64) + 2
    data_dependent_init_(model, x)
    assert not model[1].running_mean.any()
    for end in (2, 5):
        y = model[:end](x).detach()
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(y.shape[1], dtype=F64), rtol=0, atol=1e-10)
        torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(y.shape[1], dtype=F64))


def noisy():
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.ReLU(), nn.Linear(8, 4), nn.Embedding(2, 3),
        nn.Linear(4, 3),
    )  # fmt: skip
    model.forward = lambda x: model[6](model[4](model[3](model[2](model[1](model[0](x))))))
    return weight_norm(model)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_else_of_the_model_changes(training):
    torch.manual_seed(0)
    model, x = noisy(), torch.randn(20, 6)
    model[1](model[0](x))  # running statistics of some kind
    model.train(training)
    model(x).sum().backward()
    model[4].bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    buffers = dict(model.named_buffers())
    generator, state = torch.Generator().manual_seed(1), torch.get_rng_state()
    data_dependent_init_(model, x, generator=generator)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(m.training == training for m in model.modules())
    after = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(torch.equal(value, gradients[name]) for name, value in after.items())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert all(b is buffers[name] for name, b in model.named_buffers())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    kinds = "bias", "parametrizations.weight.original0", "parametrizations.weight.original1"
    assert changed == {f"{i}.{kind}" for i in (0, 4, 6) for kind in kinds}
    assert not any(m._forward_hooks for m in model.modules())
    # The same dropout mask as the start had: the pre-activations are normalised with it.
    t = model[0](x)
    assert t.mean(0).abs().max() < 1e-6
    torch.set_rng_state(state)
    y = model(x)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(3), rtol=0, atol=1e-4)


def test_the_draws_of_v_are_not_drawn_again():
    """Without a generator v comes from the global one, which must not be put back to before them."""
    torch.manual_seed(0)
    layer = weight_norm(nn.Linear(5, 4))
    data_dependent_init_(layer, torch.arange(10.0).view(2, 5).sin())
    assert not torch.equal(torch.randn(4, 5) * 0.05, v_of(layer))


def test_a_layer_used_twice_starts_from_its_first_use():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.last = nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.last(self.shared(self.shared(x).relu() * 3))

    model, x = weight_norm(Twice().double()), torch.randn(40, 5, dtype=F64)
    data_dependent_init_(model, x)
    for t in (model.shared(x), model(x)):
        assert t.mean(0).abs().max() < 1e-10
        torch.testing.assert_close(t.std(0, correction=0), torch.ones(t.shape[1], dtype=F64))


def test_other_hooks_see_the_started_layer():
    layer, x, seen = weight_norm(nn.Linear(5, 4)), torch.randn(20, 5) + 3, []
    layer.register_forward_hook(lambda m, args, y: seen.append(y))
    data_dependent_init_(layer, x)
    assert seen[0].mean(0).abs().max() < 1e-5 and len(layer._forward_hooks) == 1


@pytest.mark.parametrize("constant", [0.0, 0.1, 300.0])
def test_units_that_do_not_vary_are_refused_and_the_model_is_as_before(constant):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 3))
    weight_norm(model)
    before, buffers = copy.deepcopy(model.state_dict()), dict(model.named_buffers())
    with pytest.raises(ValueError, match=r"^layer 0: units 0, 1, 2, 3, 4, \.\.\. are constant or not fin"):
        data_dependent_init_(model, torch.full((64, 50), constant))
    x = torch.randn(8, 50)
    x[1, 1] = math.nan
    with pytest.raises(ValueError, match=r"^layer 0: units 0, "):
        data_dependent_init_(model, x)
    with pytest.raises(ValueError, match=r"^layer 0: units 0, "):
        data_dependent_init_(model, torch.randn(1, 50))
    with pytest.raises(ValueError, match=r"the batch is empty \(size \[0, 50\]\)$"):
        data_dependent_init_(model, torch.randn(0, 50))
    for std in (0, -1.0, math.nan, math.inf, True, "a"):
        with pytest.raises(ValueError, match=r"^std=.*: give None or a number above 0$"):
            data_dependent_init_(model, torch.randn(8, 50), std=std)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        data_dependent_init_(model, torch.randn(4, 20))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(b is buffers[name] for name, b in model.named_buffers())
    assert not any(m._forward_hooks for m in model.modules())


def test_an_input_that_varies_in_its_last_bits_alone_does_not_vary():
    torch.manual_seed(0)
    x = 1 + torch.randint(2, (64, 50)) * torch.finfo(torch.float32).eps
    with pytest.raises(ValueError, match="constant or not finite over the batch"):
        data_dependent_init_(weight_norm(nn.Linear(50, 40)), x)
    data_dependent_init_(weight_norm(nn.Linear(50, 40)), 1 + 1e-4 * torch.randn(64, 50))


def test_one_group_that_does_not_vary_is_named():
    layer, x = weight_norm(nn.Conv2d(3, 3, 2, groups=3)), torch.randn(4, 3, 5, 5)
    x[:, 1] = 0
    with pytest.raises(ValueError, match=r"^layer ParametrizedConv2d: units 1 are constant or not finite"):
        data_dependent_init_(layer, x)


def test_a_loader_is_no_batch():
    data = TensorDataset(torch.randn(8, 3))
    model = weight_norm(nn.Linear(3, 4))
    for given in (DataLoader(data), data, iter(DataLoader(data)), (x for x in data)):
        with pytest.raises(
            TypeError, match=rf"^data_dependent_init_: give one batch, not a .*{type(given).__name__}"
        ):
            data_dependent_init_(model, given)


def test_a_layer_that_is_not_reached_is_refused():
    model = weight_norm(nn.ModuleDict({"used": nn.Linear(3, 4), "head": nn.Linear(3, 4)}))
    model.forward = lambda x: model["used"](x)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"^not reached by the forward pass: head$"):
        data_dependent_init_(model, torch.randn(5, 3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_without_weight_norm_or_per_another_unit_it_is_refused():
    x = torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"^Linear holds no Linear or Conv layer with weight_norm$"):
        data_dependent_init_(nn.Linear(3, 4), x)
    with pytest.raises(ValueError, match="holds no"):
        data_dependent_init_(centered_weight_norm(nn.Linear(3, 4)), x)
    for layer, dim in (
        (parametrizations.weight_norm(nn.Linear(3, 4), dim=None), 0),
        (parametrizations.weight_norm(nn.Linear(3, 4), dim=1), 0),
        (parametrizations.weight_norm(nn.ConvTranspose1d(3, 4, 2)), 1),
        (parametrizations.weight_norm(parametrizations.spectral_norm(nn.Linear(3, 4))), 0),
    ):
        with pytest.raises(ValueError, match=rf"^0: expected weight_norm\(dim={dim}\) alone, one g"):
            data_dependent_init_(nn.Sequential(layer), x)


def test_start_under_autocast():
    torch.manual_seed(0)
    model = weight_norm(nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 4)))
    x = torch.randn(200, 30) + 1
    with torch.autocast("cpu", torch.bfloat16):
        data_dependent_init_(model, x)
    assert g_of(model[2]).dtype == torch.float32
    y = model(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(4), rtol=0, atol=0.03)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(4), rtol=0, atol=0.03)


# ---- weight norm on a model ----------------------------------------------------------------------


@pytest.mark.parametrize("make,shape", LAYERS.values(), ids=LAYERS)
def test_weight_norm_keeps_the_output_and_has_one_g_per_unit(make, shape):
    layer, x = make(dtype=F64), torch.randn(shape, dtype=F64)
    expected = layer(x)
    assert weight_norm(layer) is layer
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    count = len(layer.bias)
    assert g_of(layer).numel() == count
    with torch.no_grad():
        g_of(layer).copy_(torch.arange(1.0, count + 1).view_as(g_of(layer)))
    norms = units_first(layer, layer.weight).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.arange(1, count + 1, dtype=F64))


def test_weight_norm_walks_a_model_and_leaves_others_alone():
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Linear(4, 4), Own(4, 4)), nn.BatchNorm1d(4),
                          parametrizations.spectral_norm(nn.Linear(4, 4)), nn.LSTM(4, 4))  # fmt: skip
    weight_norm(model)
    found = {name for name, m in model.named_modules() if parametrize.is_parametrized(m)}
    assert found == {"0", "1.0", "3"} and len(model[3].parametrizations.weight) == 1
    copies = copy.deepcopy(model[0]), weight_norm(nn.Conv2d(3, 4, 3))
    copies[1].load_state_dict(model[0].state_dict())
    x = torch.randn(2, 3, 5, 5)
    assert all(torch.equal(other(x), model[0](x)) for other in copies)
    with pytest.raises(RuntimeError, match="state_dict"):
        pickle.dumps(model)


@pytest.mark.parametrize("wrap", [weight_norm, centered_weight_norm])
def test_a_layer_alone_is_left_alone_as_one_within_a_model_is(wrap):
    class Own(nn.Linear):
        pass

    twice = wrap(nn.Linear(3, 4))
    for layer in (twice, Own(3, 4), parametrizations.spectral_norm(nn.Conv2d(3, 4, 2))):
        before = list(layer.state_dict())
        with pytest.raises(ValueError, match=rf"^{type(layer).__name__} holds no Linear, .*are left alone"):
            wrap(layer)
        assert list(layer.state_dict()) == before


@pytest.mark.parametrize("wrap", [weight_norm, centered_weight_norm])
def test_what_cannot_be_normalised_is_refused_before_any_change(wrap):
    with pytest.raises(ValueError, match=r"^Sequential holds no Linear, Conv or ConvTranspose layer"):
        wrap(nn.Sequential(nn.ReLU()))
    model = nn.Sequential(nn.Linear(3, 4), nn.ConvTranspose1d(4, 4, 3, groups=2))
    with pytest.raises(ValueError, match=r"^1: no dimension of its weight counts the output units of a tran"):
        wrap(model)
    assert not any(parametrize.is_parametrized(m) for m in model.modules())


# ---- centred weight normalisation ----------------------------------------------------------------


def centred(v, g, eps):
    """In numpy, of v [units, entries]."""
    vc = v - v.mean(1, keepdims=True)
    return g[:, None] * vc / (np.sqrt((vc**2).sum(1, keepdims=True)) + eps)


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("make,shape", LAYERS.values(), ids=LAYERS)
def test_centered_weight_norm_against_numpy(make, shape, learnable):
    layer = make(dtype=F64)
    v = units_first(layer, layer.weight.detach().clone()).flatten(1).numpy()
    bias = layer.bias.detach().clone()
    assert centered_weight_norm(layer, 1.5, learnable) is layer
    g = np.full(len(v), 1.5)
    if learnable:
        g = np.arange(1.0, len(v) + 1)
        with torch.no_grad():
            layer.parametrizations.weight[0].scale.copy_(torch.from_numpy(g))
    w = units_first(layer, layer.weight.detach()).flatten(1)
    np.testing.assert_allclose(w, centred(v, g, 1e-5), rtol=0, atol=1e-12)
    np.testing.assert_allclose(w.sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(w.norm(dim=1), g, rtol=1e-4)
    assert torch.equal(layer.bias, bias) and layer(torch.randn(shape, dtype=F64)).isfinite().all()


def test_default_scale_is_root_2_and_without_eps_the_norm_is_exact():
    layer = centered_weight_norm(nn.Linear(5, 4, dtype=F64), eps=0)
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.full((4,), math.sqrt(2), dtype=F64))
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    assert "scale=1.41421, dim=0, eps=0" in repr(layer)


def test_preactivations_of_equal_means_have_mean_0_and_of_unit_covariance_variance_g_squared():
    """Exactly, as E[w x] = w E[x] and Var[w x] = w Cov[x] w: on a batch with just these moments."""
    layer = centered_weight_norm(nn.Linear(5, 4, bias=False, dtype=F64), scale=3.0, eps=0)
    x = torch.randn(50, 5, dtype=F64)
    x -= x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / len(x))).T * 0.7 + 11
    t = layer(x)
    torch.testing.assert_close(t.mean(0), torch.zeros(4, dtype=F64), rtol=0, atol=1e-10)
    torch.testing.assert_close(t.var(0, correction=0), torch.full((4,), (3 * 0.7) ** 2, dtype=F64))


def test_gradient_is_orthogonal_to_w_sums_to_0_and_has_its_formula():
    """dv = (g/|vc|) [G - (G . wh) wh - mean(G)], dg = G . wh."""
    norm = CenteredWeightNorm(4, 2.0, learnable=True, eps=0, dtype=F64)
    v = torch.randn(4, 6, dtype=F64, requires_grad=True)
    up = torch.randn(4, 6, dtype=F64)
    w = norm(v)
    w.backward(up)
    torch.testing.assert_close(v.grad.sum(1), torch.zeros(4, dtype=F64), rtol=0, atol=1e-12)
    torch.testing.assert_close((v.grad * w).sum(1), torch.zeros(4, dtype=F64), rtol=0, atol=1e-12)
    G, a = up.numpy(), v.detach().numpy()
    vc = a - a.mean(1, keepdims=True)
    length = np.sqrt((vc**2).sum(1, keepdims=True))
    wh = vc / length
    along = (G * wh).sum(1, keepdims=True)
    np.testing.assert_allclose(v.grad, 2 / length * (G - along * wh - G.mean(1, keepdims=True)), atol=1e-12)
    np.testing.assert_allclose(norm.scale.grad, along[:, 0], atol=1e-12)


@pytest.mark.parametrize("dim,shape", [(0, (3, 4)), (1, (2, 3, 2, 2))])
def test_gradcheck_and_gradgradcheck(dim, shape):
    norm = CenteredWeightNorm(3, learnable=True, dim=dim, dtype=F64)

    def function(v, scale):
        return functional_call(norm, {"scale": scale}, (v,))

    leaves = [torch.randn(size, dtype=F64, requires_grad=True) for size in (shape, (3,))]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_assignment_keeps_g_and_the_direction():
    layer = centered_weight_norm(nn.Linear(5, 4, dtype=F64), scale=2.0, eps=0)
    w = layer.weight.detach().clone()
    layer.weight = w * 7 + 3
    torch.testing.assert_close(layer.weight, w, rtol=0, atol=1e-12)


def test_a_constant_unit_is_0_with_a_finite_gradient():
    norm, v = CenteredWeightNorm(), torch.full((2, 4), 0.5, requires_grad=True)
    w = norm(v)
    assert not w.any()
    w.sum().backward()
    assert v.grad.isfinite().all()


def test_centered_weight_norm_as_a_citizen_of_torch():
    members = [nn.Sequential(nn.Conv2d(3, 4, 2, dtype=F64)) for _ in range(3)]  # torch: of one class
    for member in members:
        centered_weight_norm(member, learnable=True)
    parameters, _ = stack_module_state(members)
    xs = torch.randn(3, 2, 3, 5, 5, dtype=F64)

    def loss(p, x):
        return functional_call(members[0], p, (x,)).sin().sum()

    found = vmap(grad(loss))(parameters, xs)
    for k, (member, x) in enumerate(zip(members, xs, strict=True)):
        member(x).sin().sum().backward()
        for name, p in member.named_parameters():
            torch.testing.assert_close(found[name][k], p.grad, rtol=0, atol=1e-12)
    other = copy.deepcopy(members[0])
    other.load_state_dict(members[1].state_dict())
    assert torch.equal(other(xs[0]), members[1](xs[0]))
    with torch.device("meta"):
        layer = nn.Linear(3, 4)
    assert {p.device.type for p in centered_weight_norm(layer, learnable=True).parameters()} == {"meta"}
    alone = pickle.loads(pickle.dumps(CenteredWeightNorm(4, learnable=True)))
    assert alone.scale.shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [weight_norm, centered_weight_norm])
def test_compiled_equals_uncompiled(wrap):
    layer, x = wrap(nn.Conv2d(3, 4, 2, dtype=F64)), torch.randn(2, 3, 5, 5, dtype=F64)
    torch.compiler.reset()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.compile(layer, backend="aot_eager")(a).sin().sum().backward()
    layer(b).sin().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"scale": 0.0}, {"scale": math.nan}, {"eps": -1e-9}, {"eps": math.inf}, {"scale": -1}]
)
def test_bad_options_are_one_clear_line(options):
    (key,) = options
    layer = nn.Linear(3, 4)
    for build in (lambda: CenteredWeightNorm(**options), lambda: centered_weight_norm(layer, **options)):
        with pytest.raises(ValueError, match=rf"^{key}=.*: give a number"):
            build()
    assert not parametrize.is_parametrized(layer)


def test_one_weight_a_unit_and_no_number_of_units_are_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(4, 4, 1, groups=4))
    with pytest.raises(ValueError, match=r"^1: centring needs more than one weight a unit$"):
        centered_weight_norm(model)
    assert not parametrize.is_parametrized(model[0])
    with pytest.raises(ValueError, match=r"more than one entry a unit, got weight size \[4, 1\]"):
        CenteredWeightNorm()(torch.ones(4, 1))
    with pytest.raises(ValueError, match=r"^learnable=True: give num_units$"):
        CenteredWeightNorm(learnable=True)
