"""Conversions that change more than the layers of batch normalisation."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import norms
from norms.build import METHODS

SWAPS = [name for name, method in METHODS.items() if method.swap]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(6, 4),
    )


class Reader(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.lstm = nn.LSTM(5, 7, num_layers=2, batch_first=True, **options)
        self.out = nn.Linear(7, 3)

    def forward(self, x):
        return self.out(self.lstm(x)[0])


def kinds(model):
    return " ".join(type(m).__name__.removeprefix("Parametrized") for m in model)


@pytest.mark.parametrize("name", SWAPS)
def test_build_says_where_the_method_acts(name):
    with pytest.raises(ValueError, match=rf"norm '{name}' is no layer after another .*norms.convert"):
        norms.build(name, 8)
    with pytest.raises(ValueError, match=f"norm '{name}' has no option width"):
        norms.convert(network(), name, width=3)


@pytest.mark.parametrize("name", ["weight_norm", "centered_weight_norm"])
def test_weight_normalisation_leaves_the_bias_of_batch_normalisation(name):
    model = network()
    nn.init.normal_(model[1].bias)
    bias, requires = model[1].bias.detach().clone(), {n for n, _ in model.named_parameters()}
    norms.convert(model, name)
    assert kinds(model) == "Conv2d ChannelBias ReLU Flatten Linear ChannelBias ReLU Dropout Linear"
    assert [parametrize.is_parametrized(model[i], "weight") for i in (0, 4, 8)] == [True] * 3
    assert torch.equal(model[1].bias, bias) and "1.bias" in requires
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_weight_norm_computes_what_the_plain_network_does():
    model = norms.convert(network(), "none")
    x = torch.randn(2, 3, 4, 4)
    expected = model.eval()(x)
    torch.testing.assert_close(norms.convert(model, "weight_norm")(x), expected)


def test_weight_norm_and_mean_only_as_in_the_paper():
    model = norms.weight_norm(norms.convert(network(), "mean_only"))
    x = torch.randn(64, 3, 4, 4)
    norms.data_dependent_init_(model, x)
    before_relu = model[:6](x)
    assert before_relu.mean(0).abs().max() < 1e-5
    assert (before_relu.var(0, correction=0) - 1).abs().max() < 0.02  # the dropout comes later


def test_cosine_keeps_weights_and_the_last_layer():
    model = network()
    weight = model[0].weight.detach().clone()
    norms.convert(model, "cosine")
    assert kinds(model) == "CosineConv2d Identity ReLU Flatten CosineLinear Identity ReLU Dropout Linear"
    assert torch.equal(model[0].weight, weight)
    assert type(norms.convert(network(), "cosine", last=True)[8]) is norms.CosineLinear
    assert model[:1](torch.randn(5, 3, 4, 4)).abs().max() <= 1 + 1e-6


def test_normprop_takes_the_activation_in():
    model = network()
    norms.convert(model, "normprop", gamma=1.0)
    kept = "NormPropConv2d Identity Identity Flatten NormPropLinear Identity Identity Dropout Linear"
    assert kinds(model) == kept
    x = torch.randn(500, 3, 4, 4)
    inner = model[0](x)[..., 1:3, 1:3]  # away from the padding
    assert abs(inner.mean()) < 0.1 and abs(inner.std() - 1) < 0.1


def test_normprop_refuses_what_it_cannot_see():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

    model = nn.Sequential(Functional(), nn.ReLU(), nn.Linear(3, 2))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"no activation module that it knows follows 0\.one"):
        norms.convert(model, "normprop")
    assert model.state_dict().keys() == before.keys()


def test_snn():
    model = norms.convert(network(), "snn")
    assert kinds(model) == "Conv2d Identity SELU Flatten Linear Identity SELU AlphaDropout Linear"
    assert model[7].p == 0.2
    assert model[4].weight.std().item() == pytest.approx(128**-0.5, rel=0.1)
    assert not model[4].bias.any()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    "name,kind",
    [
        ("lstm_batch", "BatchNormLSTM"),
        ("lstm_recurrent_batch", "RecurrentBatchNormLSTM"),
        ("lstm_layer", "LayerNormLSTM"),
    ],
)
def test_lstm(name, kind, bidirectional):
    model = Reader(bidirectional=bidirectional).double().eval()
    model.out = nn.Linear(14 if bidirectional else 7, 3).double()
    before = copy.deepcopy(model.lstm)
    norms.convert(model, name, eps=1e-3)
    assert type(model.lstm).__name__ == kind
    assert not model.lstm.training and model.lstm.eps == 1e-3
    for key, value in before.state_dict().items():
        if key.startswith("weight"):
            assert torch.equal(getattr(model.lstm, key), value)
    assert model(torch.randn(4, 6, 5, dtype=torch.float64)).shape == (4, 6, 3)
    alone = norms.convert(copy.deepcopy(before), name)
    assert type(alone).__name__ == kind


def test_an_lstm_with_projections_is_refused():
    with pytest.raises(ValueError, match=r"'lstm_layer': no LSTM with projections \(proj_size=3\)"):
        model = Reader()
        model.lstm = nn.LSTM(5, 7, proj_size=3)
        norms.convert(model, "lstm_layer")


def test_domain_specific_layers_in_a_real_model():
    model = norms.convert(network(), "domain", num_domains=3)
    x = torch.randn(6, 3, 4, 4)
    with norms.use_domain(model, 2):
        model(x)
    means = [layer.running_mean for layer in model[1].domains]
    assert [bool(mean.any()) for mean in means] == [False, False, True]
    assert type(norms.convert(model, "batch")[1]) is nn.BatchNorm2d


def test_a_domain_is_an_int_of_any_kind():
    layer = norms.DomainSpecificBatchNorm1d(4, 3)
    for two in (2, np.int64(2), torch.tensor(2), torch.tensor(2, dtype=torch.int32)):
        with norms.use_domain(layer, two):
            assert type(layer.domain) is int and layer.domain == 2
        assert layer.domain == 0
    for bad in (
        True,
        np.True_,
        torch.tensor(True),
        1.0,
        torch.tensor(1.0),
        torch.tensor([0, 1]),
        None,
        "1",
        3,
        -1,
    ):
        with pytest.raises(ValueError, match=r"^domain=.*: give an int from 0 to 2$"):
            layer.domain = bad


@pytest.mark.parametrize("name", [n for n in SWAPS if n not in ("weight_norm", "centered_weight_norm")])
def test_a_model_with_nothing_to_change_is_refused(name):
    with pytest.raises(ValueError, match=f"norm '{name}': the model has no"):
        norms.convert(nn.Sequential(nn.Flatten()), name)


ACTIVATIONS = (
    *(nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.RReLU(), nn.PReLU(), nn.ELU(), nn.CELU()),
    *(nn.SELU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish()),
)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda module: type(module).__name__)
def test_snn_knows_the_family_of_relu(activation):
    gates = nn.Sigmoid(), nn.Tanh()
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), copy.deepcopy(activation), *gates).eval()
    norms.convert(model, "snn")
    assert kinds(model) == "Linear Identity SELU Sigmoid Tanh"
    assert model[2].inplace == getattr(activation, "inplace", False) and not model[2].training


def test_snn_refuses_activations_out_of_sight():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2), nn.Sigmoid())
    weight = model[0].weight.detach().clone()
    with pytest.raises(
        ValueError, match=r"^norm 'snn': the model has no activation module of the ReLU family"
    ):
        norms.convert(model, "snn")
    assert kinds(model) == "Linear BatchNorm1d Dropout Linear Sigmoid" and torch.equal(
        model[0].weight, weight
    )


class OwnLinear(nn.Linear):
    pass


@pytest.mark.parametrize("name", ["cosine", "normprop"])
@pytest.mark.parametrize(
    "layer,norm",
    [
        (nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4)),
        (nn.Conv3d(4, 4, 1), nn.BatchNorm3d(4)),
        (nn.ConvTranspose2d(4, 4, 1), norms.BatchRenorm2d(4)),
        (OwnLinear(4, 4), nn.BatchNorm1d(4)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_a_layer_that_would_lose_its_normaliser_is_refused(name, layer, norm):
    known = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()
    for block in ((layer, norm, nn.ReLU(), *known), (*known, layer, norm, nn.ReLU())):
        model = nn.Sequential(nn.Sequential(*block), nn.ReLU())
        before = kinds(model[0])
        path, kind = f"0.{block.index(layer)}", type(layer).__name__
        with pytest.raises(
            ValueError, match=rf"^norm '{name}': {path} is {kind}, not nn.Linear .*normaliser$"
        ):
            norms.convert(model, name)
        assert kinds(model[0]) == before


def test_a_last_layer_of_another_class_stays_and_so_do_layers_without_batch_normalisation():
    def model():
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), OwnLinear(4, 2))

    assert kinds(norms.convert(model(), "cosine")) == "CosineLinear Identity ReLU OwnLinear"
    assert kinds(norms.convert(model(), "normprop")) == "NormPropLinear Identity Identity OwnLinear"
    with pytest.raises(ValueError, match="norm 'cosine': 3 is OwnLinear"):
        norms.convert(model(), "cosine", last=True)
    plain = norms.convert(nn.Sequential(OwnLinear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)), "cosine")
    assert kinds(plain) == "OwnLinear CosineLinear Linear"


def test_normprop_says_what_it_looked_for():
    model = nn.Sequential(nn.Conv1d(4, 4, 1), nn.ReLU())
    with pytest.raises(
        ValueError, match=r"^norm 'normprop': the model has no Linear or Conv2d before an activa"
    ):
        norms.convert(model, "normprop")


def test_centered_weight_norm_has_one_default_of_g():
    by_name = norms.convert(nn.Sequential(nn.Linear(3, 4)), "centered_weight_norm")
    alone = norms.centered_weight_norm(nn.Sequential(nn.Linear(3, 4)))
    assert by_name.state_dict().keys() == alone.state_dict().keys()
    assert norms.options("centered_weight_norm")["learnable"] is False
    learned = norms.convert(nn.Sequential(nn.Linear(3, 4)), "centered_weight_norm", learnable=True)
    assert learned[0].parametrizations.weight[0].scale.shape == (4,)


@pytest.mark.parametrize("name", ["weight_norm", "centered_weight_norm"])
def test_weight_normalisation_of_a_bare_layer_is_refused_the_second_time(name):
    layer = norms.convert(nn.Linear(3, 4), name)
    with pytest.raises(ValueError, match=rf"^norm '{name}': ParametrizedLinear holds no Linear"):
        norms.convert(layer, name)
    assert len(layer.parametrizations.weight) == 1


def test_shared_modules_stay_shared():
    act, linear, lstm = nn.ReLU(), nn.Linear(3, 3), nn.LSTM(3, 3)
    model = norms.convert(nn.Sequential(linear, act, linear, act, nn.Linear(3, 2)), "snn")
    assert model[1] is model[3] and isinstance(model[1], nn.SELU)
    model = norms.convert(nn.Sequential(linear, nn.Tanh(), linear, nn.Linear(3, 2)), "cosine")
    assert model[0] is model[2] and isinstance(model[0], norms.CosineLinear)
    model = norms.convert(nn.ModuleDict({"a": lstm, "b": lstm}), "lstm_layer")
    assert model["a"] is model["b"] and isinstance(model["a"], norms.LayerNormLSTM)


def test_what_is_refused_midway_changes_nothing():
    model = nn.Sequential(nn.LSTM(3, 3), nn.LSTM(3, 3, proj_size=2))
    with pytest.raises(ValueError, match="no LSTM with projections"):
        norms.convert(model, "lstm_layer")
    assert type(model[0]) is nn.LSTM
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(1, 3), nn.Linear(3, 3))
    with pytest.raises(ValueError):
        norms.convert(model, "cosine", centred=True)  # one input has no correlation
    assert type(model[0]) is nn.Linear


def test_an_lstm_without_normalisation_computes_the_same():
    model = nn.Sequential(nn.LSTM(3, 4, num_layers=2))
    x = torch.randn(5, 2, 3)
    expected = model[0](x)[0]
    norms.convert(model, "lstm_batch", normalize=False)
    torch.testing.assert_close(model[0](x)[0], expected)
    assert type(norms.convert(model, "lstm_layer")[0]) is norms.LayerNormLSTM
    kept = norms.convert(nn.LSTM(3, 4, bias=False, dropout=0.3, num_layers=2), "lstm_layer")
    assert kept.dropout == 0.3 and kept.bias is False and kept.bias_l0 is None


@pytest.mark.parametrize("name", ["cosine", "normprop", "lstm_layer"])
def test_frozen_stays_frozen_and_meta_stays_meta(name):
    def model(device=None):
        first = (nn.LSTM if name == "lstm_layer" else nn.Linear)(3, 3, device=device)
        return nn.Sequential(first, nn.ReLU(), nn.Linear(3, 2, device=device))

    assert not any(p.requires_grad for p in norms.convert(model().requires_grad_(False), name).parameters())
    assert {p.device.type for p in norms.convert(model("meta"), name).parameters()} == {"meta"}


def test_the_normalisation_of_the_input_is_left_alone():
    for name in ("normprop", "renorm"):
        hidden = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU()
        model = nn.Sequential(norms.BatchDataNormalization(6), *hidden, nn.Linear(5, 2))
        assert type(norms.convert(model, name)[0]) is norms.BatchDataNormalization
