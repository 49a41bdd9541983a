"""Networks, masks, losses, AUC and the population of Tables 5 and 6, each against something independent."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

from data import DataSet
from experiments import table_05_snn as t5
from experiments import tabular
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.models.fnn import FNN, HighwayNet, Linear, ResidualNet, selu, widths
from experiments.table_06_depth import State as DepthState
from norms.build import METHODS as METHODS_OF_NORMS

F64, CPU = torch.float64, torch.device("cpu")
METHODS = {
    "snn": {"norm": "snn", "dropout": 0.05},
    "msra": {"norm": "none", "dropout": 0.5},
    "batch": {"norm": "batch"},
    "batch before": {"norm": "batch", "placement": "before"},
    "layer": {"norm": "layer"},
    "weight": {"norm": "weight_norm", "dropout": 0.5},
    "highway": {"model": "highway", "dropout": 0.5},
    "resnet": {"model": "resnet"},
    "resnet with batch": {"model": "resnet", "norm": "batch", "form": "diavolo", "bottleneck": 0.5},
    "rms": {"norm": "rms"},
}


def run(
    model="fnn", norm="none", dropout=0.0, lr=0.1, seed=0, placement="after", statistics="updated", **more
):
    network = {"layers": 3, "units": 12, "form": "rectangular", "bottleneck": None} | {
        k: v for k, v in more.items() if k in ("layers", "units", "form", "bottleneck", "C", "gamma")
    }
    network = {"C": None, "gamma": None, "max_features": None, "trees": None} | network
    rest = {"batch_size": 20, "epochs": 4, "dropout_kind": "alpha"} | {
        k: v for k, v in more.items() if k in ("batch_size", "epochs", "dropout_kind")
    }
    return tabular.Run(
        "T5", Data("d", 0.15, None, None, {}), tabular.Network(model, dropout=dropout, **network),
        Norm(norm, {}), Optimizer("SGD", lr, more.get("l2", 0.0), {}), placement, statistics, seed=seed,
        **rest,
    )  # fmt: skip


def dataset(n=150, classes=3, tasks=0, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g).to(dtype)
    y = (x[:, :classes] + 0.5 * torch.randn(n, classes, generator=g)).argmax(1)
    if tasks:
        y = (x[:, :tasks] > 0).to(dtype)
        y[torch.rand(y.shape, generator=g) < 0.3] = torch.nan
    a, b = 2 * n // 3, 5 * n // 6
    parts = {"train": slice(0, a), "val": slice(a, b), "test": slice(b, n)}
    cut = {f"{v}_{part}": t[where] for part, where in parts.items() for v, t in (("x", x), ("y", y))}
    return DataSet(
        name="d", classes=tuple("abcdef"[:classes]), fingerprint="", source="", licence="", notes=(),
        error="auc" if tasks else "error", **cut,
    )  # fmt: skip


def trained(runs, data):
    state = tabular.State([tabular.check(r) for r in runs], data, torch.device("cpu"))
    return state, [m for _, m in tabular.train(state)]


# ---- a member is the run alone ------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [0, 4])
@pytest.mark.parametrize("method", METHODS)
def test_a_member_equals_the_run_alone(method, tasks):
    """Float64, 200 steps with dropout, members of other seeds, rates of learning and of dropout beside it."""
    data = dataset(tasks=tasks, dtype=F64)
    options = {**METHODS[method], "epochs": 40}
    rate = options.pop("dropout", 0.0)
    runs = [
        run(seed=seed, lr=lr, dropout=d, **options)
        for seed, lr, d in ((0, 0.05, rate), (1, 0.05, rate), (0, 0.02, 0.0), (0, 0.02, rate))
    ]
    together, curves = trained(runs, data)
    assert together.steps_per_epoch * 40 == 200
    for k, r in enumerate(runs):
        alone, own = trained([r], data)
        shared = dict(together.net.named_parameters())
        for name, p in alone.net.named_parameters():
            torch.testing.assert_close(shared[name][k], p.view(shared[name][k].shape), rtol=1e-8, atol=1e-8)
        for a, b in zip(curves, own, strict=True):
            for key in a.keys() - {"scores"}:
                assert math.isclose(a[key][k], b[key][0], rel_tol=1e-7, abs_tol=1e-9), key


@pytest.mark.parametrize("tasks", [0, 4])
@pytest.mark.parametrize("method", ["snn", "batch", "resnet"])
def test_members_of_several_folds_equal_the_runs_alone(method, tasks):
    """Folds of equal sizes with other rows; seeds and rates differ beside them."""
    folds = [dataset(tasks=tasks, dtype=F64, seed=s) for s in (0, 1, 2)]
    options = {**METHODS[method], "epochs": 20}
    rate = options.pop("dropout", 0.0)
    members = [(0, 0, 0.05), (1, 0, 0.05), (1, 1, 0.02), (2, 0, 0.05)]  # fold, seed, learning rate
    runs = [run(seed=seed, lr=lr, dropout=rate, **options) for _, seed, lr in members]
    together, curves = trained(runs, [folds[f] for f, _, _ in members])
    for k, (fold, _, _) in enumerate(members):
        alone, own = trained(runs[k : k + 1], folds[fold])
        shared = dict(together.net.named_parameters())
        for name, p in alone.net.named_parameters():
            torch.testing.assert_close(shared[name][k], p.view(shared[name][k].shape), rtol=1e-8, atol=1e-8)
        for a, b in zip(curves, own, strict=True):
            for key in a.keys() - {"scores"}:
                assert math.isclose(a[key][k], b[key][0], rel_tol=1e-7, abs_tol=1e-9), key
        if tasks:
            torch.testing.assert_close(curves[-1]["scores"][k], own[-1]["scores"][0])
        for key, values in alone.extras.items():
            np.testing.assert_allclose(together.extras[key][k], values[0], rtol=1e-7, atol=1e-12)


def test_estimators_of_several_folds_see_their_own():
    folds = [dataset(seed=s) for s in (0, 1)]
    runs = [run(model="svm", layers=None, units=None, C=2.0, gamma=0.1) for _ in folds]
    both = [m for _, m in t5.train(t5.State([tabular.check(r) for r in runs], folds, CPU)) if m]
    alone = [
        m
        for f, r in zip(folds, runs, strict=True)
        for _, m in t5.train(t5.State([tabular.check(r)], f, CPU))
        if m
    ]
    assert both[-1]["test_error"] == [m["test_error"][0] for m in alone]
    assert both[-1]["test_error"][0] != both[-1]["test_error"][1]


def test_a_member_that_diverges_ends_alone():
    data = dataset()
    _, curves = trained([run(lr=0.1), run(lr=1e6), run(lr=0.1, seed=1)], data)
    _, alone = trained([run(lr=0.1)], data)
    losses = curves[-1]["train_loss"]
    assert not math.isfinite(losses[1]) or losses[1] > 1e3
    assert losses[0] == pytest.approx(alone[-1]["train_loss"][0], rel=1e-4) and math.isfinite(losses[2])


def test_float32_final_errors_have_the_distribution_of_runs_alone():
    """Of the same seeds, pair by pair: rounding may move an example over a border, in either direction."""
    data = dataset(n=300)
    runs = [run(norm="snn", dropout=0.05, seed=s, epochs=6) for s in range(24)]
    _, together = trained(runs, data)
    alone = [trained([r], data)[1][-1]["test_error"][0] for r in runs]
    pairs = np.array(together[-1]["test_error"]) - alone
    assert np.abs(pairs).max() <= 100 / 50 * 2 and abs(pairs.mean()) < 0.5  # of 50 test examples, two
    assert np.std(alone) > 2  # against what seeds differ by


NORMALISERS = [
    n for n, m in METHODS_OF_NORMS.items() if m.make and n not in ("instance", "frn")
]  # need positions


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("norm", NORMALISERS)
def test_every_normaliser_trains_alone_and_stacked(norm, members):
    state, metrics = trained([run(norm=norm, epochs=1, lr=0.01, seed=s) for s in range(members)], dataset())
    assert all(map(math.isfinite, metrics[-1]["train_loss"]))
    start, _ = trained([run(norm=norm, epochs=1, lr=1e-9, seed=s) for s in range(members)], dataset())
    first = [dict(net.named_parameters())["linears.0.weight"] for net in (state.net, start.net)]
    assert not torch.equal(*first)


# ---- the networks against torch's own layers -------------------------------------------------------------


def weights(linear, layer, k=0):
    """A torch layer with member k's weights."""
    with torch.no_grad():
        layer.weight.copy_(linear.weight[k].t())
        layer.bias.copy_(linear.bias[k])
    return layer


def test_linear_and_weight_norm_are_torchs():
    generators = [torch.Generator().manual_seed(s) for s in (3, 4)]
    x = torch.randn(2, 5, 7)
    plain, normed = Linear(7, 4, generators), Linear(7, 4, generators, weight_norm=True)
    for k in range(2):
        layer = weights(plain, nn.Linear(7, 4), k)
        torch.testing.assert_close(plain(x)[k], layer(x[k]))
        layer = nn.utils.parametrizations.weight_norm(weights(normed, nn.Linear(7, 4), k))
        torch.testing.assert_close(normed(x)[k], layer(x[k]))
        with torch.no_grad():
            layer.parametrizations.weight.original0.mul_(2)
            normed.gain[k] *= 2
        torch.testing.assert_close(normed(x)[k], layer(x[k]))


def test_initial_values():
    layer = Linear(400, 300, [torch.Generator().manual_seed(0)], c=2.0, bias=-2.0)
    assert layer.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.01)
    assert (layer.bias == -2).all()


def test_selu_is_torchs():
    x = torch.linspace(-30, 30, 10_001, requires_grad=True)
    (a,) = torch.autograd.grad(selu(x).sum(), x)
    (b,) = torch.autograd.grad(F.selu(x).sum(), x)
    torch.testing.assert_close(selu(x), F.selu(x), rtol=1e-6, atol=2e-7)
    torch.testing.assert_close(a, b, rtol=1e-6, atol=2e-7)


def test_plain_network_is_the_sequence_of_torchs_layers():
    for kind, act in (("relu", nn.ReLU()), ("snn", nn.SELU())):
        for placement in ("before", "after"):
            net = FNN([0], [0.0], 6, [5, 4], 3, kind, None if kind == "snn" else nn.BatchNorm1d, placement)
            linears = [weights(li, nn.Linear(*li.weight.shape[1:])) for li in (*net.linears, net.out)]
            x = torch.randn(8, 6)
            expected = x
            for linear, width in zip(linears, (5, 4), strict=False):
                expected = linear(expected)
                norm = nn.Identity() if kind == "snn" else nn.BatchNorm1d(width)
                expected = act(norm(expected)) if placement == "before" else norm(act(expected))
            torch.testing.assert_close(net(x, shared=True)[0], linears[-1](expected))


def test_highway_and_residual_by_formula():
    x = torch.randn(1, 8, 6)
    net = HighwayNet([0], [0.0], 6, 2, 5, 3)
    h = F.relu(net.first(x))
    for linear, gate in zip(net.linears, net.gates, strict=True):
        t = torch.sigmoid(gate(h))
        h = t * F.relu(linear(h)) + (1 - t) * h
    torch.testing.assert_close(net(x), net.out(h))
    assert all((gate.bias == -2).all() for gate in net.gates)
    res = ResidualNet([0], [0.0], 6, 2, 5, 3, None, 2)
    h = F.relu(res.first(x))
    for linear, _, back, _ in res.blocks:
        assert linear.weight.shape == (1, 5, 2)
        h = F.relu(h + back(F.relu(linear(h))))
    torch.testing.assert_close(res(x), res.out(h))


def test_conic_widths_are_geometric():
    assert widths(3, 64, "rectangular", 2) == [64, 64, 64]
    assert widths(4, 256, "conic", 16) == [256, 128, 64, 32]  # and 16 outputs
    assert widths(2, 4, "conic", 100)[0] == 4


# ---- dropout -----------------------------------------------------------------------------------------------


def test_masks_have_their_rates_and_belong_to_the_seed():
    some = ((0, 0.05), (0, 0.5), (1, 0.5), (0, 0.0))
    runs = [tabular.check(run(norm="none", dropout=d, seed=s)) for s, d in some]
    x = torch.zeros(1)

    def drawn(of, epoch):
        net = FNN([r.seed for r in of], [r.model.dropout for r in of], 6, [100, 60], 3, "relu", None, None)
        return tabular.Masks(of, net, epoch, x).draw(200)

    masks = drawn(runs, 3)
    assert [m.shape for m in masks] == [(4, 200, 100), (4, 200, 60)]
    for k, rate in enumerate((0.05, 0.5, 0.5, 0.0)):
        assert (masks[0][k] > 0).float().mean().item() == pytest.approx(1 - rate, abs=0.012)
        assert masks[0][k].max().item() == pytest.approx(1 / (1 - rate))  # inverted dropout
    assert (masks[0][3] == 1).all()
    assert ((masks[0][1] > 0) <= (masks[0][0] > 0)).all()  # the same numbers, another limit
    assert ((masks[0][1] > 0) != (masks[0][2] > 0)).any()
    assert torch.equal(drawn(runs[2:3], 3)[1][0], masks[1][2])  # alone, the same masks
    assert not torch.equal(drawn(runs[2:3], 4)[0][0], masks[0][2])  # another epoch, others
    assert drawn(runs[3:], 3) is None


def test_alpha_dropout_keeps_mean_and_variance_and_plain_dropout_does_not():
    x = F.selu(torch.randn(1, 4000, 200, generator=torch.Generator().manual_seed(0)))
    for alpha, variance in ((True, 1.0), (False, 1.11)):
        net = FNN([0], [0.1], 6, [200], 3, "snn", None, None, alpha)
        net.to(torch.device("cpu"))
        kept = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) >= 0.1
        y = net.drop(x, [kept * net.mask_values()[0]], 0)
        assert y.mean().item() == pytest.approx(0.0, abs=0.01)
        assert y.var().item() == pytest.approx(variance, abs=0.02)
    # the value of a dropped and of a kept unit, as nn.AlphaDropout has them
    torch.manual_seed(0)
    theirs = nn.AlphaDropout(0.1)(torch.zeros(10_000))
    net = FNN([0], [0.1], 6, [2], 3, "snn", None, None)
    net.to(torch.device("cpu"))
    ours = net.drop(torch.zeros(1, 1, 2), [torch.tensor([[[0.0, net.mask_values()[0]]]])], 0).flatten()
    torch.testing.assert_close(ours.sort().values, theirs.unique().sort().values, rtol=1e-4, atol=1e-5)


# ---- loss, AUC, batches, probe -----------------------------------------------------------------------------


def test_masked_loss_by_numpy():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(2, 7, 3)), rng.integers(0, 2, (2, 7, 3)).astype(float)
    y[rng.random(y.shape) < 0.4] = np.nan
    p = 1 / (1 + np.exp(-z))
    each = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    expected = [np.nanmean(each[k]) for k in range(2)]
    found = tabular.losses(torch.tensor(z), torch.tensor(y))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_shares_in_an_auc_have_its_sampling_error():
    """Against the variance of the AUC over many samples, as DeLong's estimate promises."""
    rng = np.random.default_rng(2)
    aucs, variances = [], []
    for _ in range(400):
        y = (rng.random(80) < 0.3).astype(float)
        scores = rng.normal(size=80) + y
        auc, shares = tabular.mean_auc(torch.tensor(scores[None, :, None]), torch.tensor(y[:, None]))
        aucs.append(auc.item()), variances.append(shares[0].var().item() / 80)
    assert np.mean(variances) == pytest.approx(np.var(aucs), rel=0.2)


def test_auc_against_scikit_learn():
    rng = np.random.default_rng(1)
    scores = np.round(rng.normal(size=(3, 60, 4)), 1)  # with ties
    y = rng.integers(0, 2, (60, 4)).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    y[:, 3] = np.where(np.isnan(y[:, 3]), np.nan, 1.0)  # one class only: left out
    expected = [
        np.mean([roc_auc_score(y[~np.isnan(y[:, t]), t], s[~np.isnan(y[:, t]), t]) for t in range(3)])
        for s in scores
    ]
    found, shares = tabular.mean_auc(torch.tensor(scores), torch.tensor(y))
    np.testing.assert_allclose(shares.mean(1).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    scores[1, 5, 0] = np.nan
    assert tabular.mean_auc(torch.tensor(scores), torch.tensor(y))[0][1] == 0.5
    with pytest.raises(BadInput, match="no task of this part has both classes"):
        tabular.mean_auc(torch.tensor(scores[:, :, 3:]), torch.tensor(y[:, 3:]))


@pytest.mark.parametrize(
    "n,size,expected",
    [
        (300, 128, (3, 100)),
        (7, 128, (1, 7)),
        (129, 128, (2, 64)),
        (128, 128, (1, 128)),
        (101, 2, (50, 2)),
        (3, 2, (1, 3)),
    ],
)
def test_batches(n, size, expected):
    assert tabular.batches(n, size) == expected


def test_probe_by_hand_and_without_a_trace():
    state, _ = trained([run(norm="batch", epochs=1), run(norm="batch", epochs=1, seed=1)], dataset())
    before = {k: v.clone() for k, v in state.net.state_dict().items()}
    found = tabular.probe(state, "end")
    assert all(torch.equal(v, before[k]) for k, v in state.net.state_dict().items())
    x, y = state.data.x_train[: tabular.PROBED], state.data.y_train[: tabular.PROBED]
    seen = []
    logits = state.net(x, shared=True, seen=seen)
    loss = F.cross_entropy(logits[1], y)
    (g,) = torch.autograd.grad(loss, state.net.linears[2].weight)
    assert found["grad_norm_end"][1][2] == pytest.approx(g[1].norm().item(), rel=1e-5)
    assert found["act_mean_end"][1][2] == pytest.approx(seen[2][1].mean().item(), abs=1e-6)
    assert found["act_var_end"][1][2] == pytest.approx(seen[2][1].var(correction=0).item(), rel=1e-5)


def test_statistics_never_updated_leave_evaluation_unnormalised():
    state, _ = trained([run(norm="batch", statistics="never")], dataset())
    buffers = dict(state.net.named_buffers())
    assert all((v == 0).all() for k, v in buffers.items() if k.endswith("running_mean"))
    assert all((v == 1).all() for k, v in buffers.items() if k.endswith("running_var"))


def test_selection_is_on_the_smoothed_validation_curve():
    curves = {
        "train_loss": [1.0] * 4,
        "val_smoothed": [5.0, 4.0, 3.0, 3.0],
        "test_error": [9.0, 8.0, 7.0, 1.0],
        "act_var_start": [2.0, 3.0],
    }
    found = tabular.summarise(curves)
    assert (found["test_error"], found["epoch_best_val"], found["val_error"]) == (7.0, 3, 3.0)
    assert (found["test_error_best"], found["act_var_first_start"], found["act_var_last_start"]) == (
        1.0,
        2.0,
        3.0,
    )
    _, metrics = trained([run(epochs=13)], dataset())
    window = [m["val_error"][0] for m in metrics[3:13]]
    assert metrics[12]["val_smoothed"][0] == pytest.approx(sum(window) / 10)


# ---- small and odd data ------------------------------------------------------------------------------


def test_a_set_smaller_than_its_batch_and_one_class_alone():
    _, metrics = trained([run(norm="batch", batch_size=128)], dataset(n=12))
    assert math.isfinite(metrics[-1]["train_loss"][0])
    data = dataset(n=30)
    data.y_train.zero_()
    _, metrics = trained([run()], data)
    assert math.isfinite(metrics[-1]["train_loss"][0])


def test_labels_that_are_no_tasks_have_no_auc():
    with pytest.raises(BadInput, match="this table has tasks"):
        DepthState([tabular.check(run())], dataset(), torch.device("cpu"))


def test_without_validation_rows_there_is_nothing_to_choose_by():
    data = dataset()
    none = dataclasses.replace(data, x_val=data.x_val[:0], y_val=data.y_val[:0])
    with pytest.raises(BadInput, match="no validation rows"):
        tabular.State([tabular.check(run())], none, torch.device("cpu"))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"layers": 0}, "model.layers=0: give a number of layers from 1"),
        ({"units": None}, "model.units=None"),
        ({"dropout": 1.0}, "model.dropout=1.0: a rate from 0 to below 1"),
        ({"model": "tree"}, "model=tree: choose fnn, highway, resnet, svm, forest"),
        ({"form": "diavolo"}, "model.form=diavolo: choose rectangular or conic"),
        ({"model": "resnet", "form": "diavolo"}, "model.bottleneck=None"),
        ({"model": "highway", "norm": "batch"}, "norm=batch: a highway network takes none"),
        ({"norm": "batch", "placement": "between"}, "placement=between"),
        ({"norm": "batch", "statistics": "lost"}, "statistics=lost"),
        ({"norm": "snn", "dropout_kind": "beta"}, "dropout_kind=beta"),
        ({"lr": 0.0}, "optimizer.lr=0.0"),
        ({"lr": math.nan}, "optimizer.lr=nan"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"seed": -1}, "seed=-1"),
        ({"model": "svm", "C": 0.0, "gamma": 1.0}, "model.C=0.0: give a number above 0"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(options, words):
    with pytest.raises(BadInput) as error:
        tabular.check(run(**options))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_rows():
    rows = [
        ("fnn", "none", "msra"),
        ("fnn", "weight_norm", "weight"),
        ("fnn", "rms", "rms"),
        ("fnn", "snn", "snn"),
    ]
    rows += [
        ("highway", "none", "highway"),
        ("resnet", "batch", "resnet"),
        ("resnet", "none", "resnet, none"),
    ]
    for model, norm, expected in rows:
        assert tabular.row(tabular.check(run(model=model, norm=norm))) == expected


def test_what_has_no_meaning_makes_no_other_run():
    assert tabular.check(run(model="resnet", norm="batch", placement="before")).placement is None
    assert tabular.check(run(placement="before")) == tabular.check(run(placement="after"))
    assert tabular.check(run(norm="layer", statistics="never")).statistics is None
    assert tabular.check(run(model="highway", form="conic")) == tabular.check(run(model="highway"))
    assert tabular.check(run(norm="snn", dropout=0.0, dropout_kind="plain")).dropout_kind == "alpha"
