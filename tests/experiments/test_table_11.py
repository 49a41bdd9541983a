"""Table 11: small networks under many conditions, and what is measured of them."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy

from data import DataSet
from experiments import conditions, costs, grid
from experiments import table_11_functional as t11
from experiments.conditions import Training, by_label, entering, ks_normal, ks_rectified
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.models.small import scaled_, small_net
from norms import BatchRenorm1d, NormPropLinear

CPU = torch.device("cpu")
METHODS = (
    "none",
    "batch",
    "renorm",
    "diminishing",
    "normprop",
    "layer",
    "weight_norm",
    "snn",
    "group",
    "rms",
)


def run(norm="batch", net="mlp", study="training", values=(), lr=0.05, options=None, **changes):
    shape = {
        key: changes.pop(key, other) for key, other in (("width", 8), ("depth", 2), ("activation", None))
    }
    made = t11.Run(
        table="T11", data=Data("mnist5k", 0.1, None, None, {}), model=t11.Network(net, **shape),
        norm=Norm(norm, options or ({"alpha": 0.5} if norm == "diminishing" else {})),
        optimizer=Optimizer("SGD", lr, 0.0, {"momentum": 0.9}), study=study, values=list(values), scale=1.0,
        dropout=0.0, dropout_kind="own", order="random", groups=None, start="data", rate_factor=1.0,
        batch_size=8, epochs=2, evaluations=1, seed=0,
    )  # fmt: skip
    return t11.check(replace(made, **changes))


def dataset(n=64, classes=4, size=8, seed=0):
    rng = np.random.default_rng(seed)
    y = torch.arange(n) % classes
    x = torch.from_numpy(rng.integers(0, 60, (n, 1, size, size), np.uint8))
    for k in range(classes):
        x[y == k, 0, k] += 180
    part = {
        "x_train": x,
        "y_train": y,
        "x_val": x[:32],
        "y_val": y[:32],
        "x_test": x[16:48],
        "y_test": y[16:48],
    }
    return DataSet(
        name="rows",
        fingerprint="f",
        classes=tuple("abcd"),
        error="error",
        notes=(),
        source="here",
        licence="none",
        **part,
    )


def finished(one, data=None):
    state = t11.State([one], data or dataset(), CPU)
    curves = {}
    for _, metrics in t11.train(state):
        for key, (value,) in (metrics or {}).items():
            curves.setdefault(key, []).append(value)
    curves["epoch"] = [(k + 1) / one.evaluations for k in range(len(curves["train_loss"]))]
    return state, {**curves, **{name: values[0] for name, values in state.extras.items()}}


# ---- networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", METHODS)
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_every_method_learns_the_rows(net, norm):
    options = {"num_groups": 2} if norm == "group" else None
    _, curves = finished(run(norm, net, lr=0.02, epochs=8, options=options))
    assert curves["test_error"][-1] < 25
    assert all(v == v for values in curves.values() if isinstance(values[0], float) for v in values)


@pytest.mark.parametrize("norm", ["none", "lstm_batch", "lstm_recurrent_batch", "lstm_layer", "weight_norm"])
def test_lstms_have_their_own(norm):
    state, curves = finished(run(norm, "rnn", lr=0.02))
    assert math.isfinite(curves["train_loss"][-1])
    assert norm == "none" or not any(
        type(m) is nn.LSTM and norm != "weight_norm" for m in state.training.net.modules()
    )


def test_all_methods_start_as_one_network():
    """But for what a method adds: same weights from the same seed."""

    def weights(norm):
        return next(p for p in Training(run(norm), dataset(), CPU).net.parameters() if p.dim() > 1)

    for norm in ("batch", "renorm", "diminishing", "layer", "group", "rms"):
        assert torch.equal(weights(norm), weights("none")), norm


def test_bn_does_not_mind_the_scale_of_the_weights():
    """BN((aW)u) = BN(Wu): to rounding, where eps is small beside the variance."""
    x = torch.randn(32, 1, 8, 8, dtype=torch.float64)
    outs = []
    for scale in (1.0, 10.0):
        torch.manual_seed(0)
        net = small_net("mlp", (1, 8, 8), 16, 3, 4, "batch", {"eps": 1e-12}, scale=scale).double().train()
        outs.append(net(x))
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-5, atol=1e-6)
    torch.manual_seed(0)
    plain = [small_net("mlp", (1, 8, 8), 16, 3, 4, "none", {}).double() for _ in range(2)]
    assert not torch.allclose(plain[0](x), plain[1](x))  # drawn one after the other: the test has power


def test_scale_spares_the_last_layer():
    nets = []
    for scale in (1.0, 3.0):
        torch.manual_seed(0)
        nets.append(small_net("cnn", (1, 8, 8), 4, 2, 4, "batch", {}, scale=scale))
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        last = name.startswith(str(len(nets[0]) - 1))
        torch.testing.assert_close(b, a * (3 if a.dim() > 1 and not last else 1), msg=name)
    normed = small_net("mlp", (1, 8, 8), 4, 2, 4, "weight_norm", {})
    before = normed[1].weight.clone()
    scaled_(normed, 3.0)
    torch.testing.assert_close(normed[1].weight, 3 * before)


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_every_unit_has_one_bias(net):
    """And no method more parameters than its paper gives it beside the plain network's."""

    def count(norm):
        options = {"num_groups": 2} if norm == "group" else {"alpha": 0.5} if norm == "diminishing" else {}
        made = small_net(net, (1, 8, 8), 8, 2, 4, norm, options)
        return sum(p.numel() for p in made.parameters())

    hidden = {"mlp": 16, "cnn": 8 + 16}[net]  # units of two layers
    more = {norm: count(norm) - count("none") for norm in METHODS}
    gain = dict.fromkeys(
        ("batch", "renorm", "diminishing", "rms"), hidden
    )  # gamma; the bias is the plain one's
    gain |= dict.fromkeys(("layer", "group"), 2 * hidden)  # a bias in front of LN is no bias behind it
    gain |= {"none": 0, "snn": 0, "normprop": hidden, "weight_norm": hidden + 4}  # g, of the last layer too
    assert more == gain


def test_normprops_filters_have_length_one_after_every_step():
    for scale in (1.0, 0.01):
        t = Training(run("normprop", scale=scale), dataset(), CPU)
        for _ in range(2):
            lengths = [m.weight.norm(dim=1) for m in t.net.modules() if isinstance(m, NormPropLinear)]
            assert len(lengths) == 2
            for length in lengths:
                torch.testing.assert_close(length, torch.ones_like(length))
            t.advance(t.order()[0])


# ---- conditions -------------------------------------------------------------------------------------------


def test_groups_have_their_own_statistics_and_one_gradient():
    t = Training(run("batch", groups=4), dataset(), CPU)
    rows = torch.arange(8)
    x, y = t.data.x_train[rows].float() / 255, t.data.y_train[rows]
    t.net.train()
    wanted = sum(cross_entropy(t.net(x[i : i + 4]), y[i : i + 4]) for i in (0, 4)) / 2
    torch.testing.assert_close(t.loss(rows), wanted)
    whole = Training(run("batch"), dataset(), CPU)
    assert not torch.allclose(whole.loss(rows), wanted)


def test_averages_and_schedules_of_groups_are_those_of_steps():
    """Two groups a step: half the momentum, twice the calls; so a step moves the average by about as much."""
    options = {"warmup_steps": 3, "r_steps": 7, "d_steps": 5, "momentum": 0.1}
    whole, halves = (
        [m for m in Training(run("renorm", options=options, groups=g), dataset(), CPU).net.modules()
         if isinstance(m, BatchRenorm1d)]
        for g in (None, 4)
    )  # fmt: skip
    for a, b in zip(whole, halves, strict=True):
        assert (a.momentum, a.warmup_steps, a.r_steps, a.d_steps) == (0.1, 3, 7, 5)
        assert (b.momentum, b.warmup_steps, b.r_steps, b.d_steps) == (0.05, 6, 14, 10)
    bn = [m for m in Training(run("batch", groups=2), dataset(), CPU).net.modules()
          if isinstance(m, nn.BatchNorm1d)]  # fmt: skip
    assert {m.momentum for m in bn} == {0.1 / 4}


def test_batches_of_two_labels():
    y = torch.tensor([0, 1, 2, 3, 1, 2] * 20)
    rows = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    found = by_label(rows, y, 8, seed=3)
    batches = found[: len(found) // 8 * 8].view(-1, 8)
    assert len(set(found.tolist())) == len(found) and conditions.steps_of(run(order="labels"), y) == len(
        batches
    )
    assert all(len(y[half].unique()) == 1 for batch in batches for half in (batch[:4], batch[4:]))
    assert not torch.equal(found, by_label(rows, y, 8, seed=4))
    trained = Training(run(order="labels"), dataset(), CPU)
    assert all(len(trained.data.y_train[batch].unique()) <= 2 for batch in trained.order())


def test_sizes_of_the_batch_have_rates_in_proportion():
    state = t11.State([run("batch", "cnn", study="batch_size", values=[2, 16])], dataset(), CPU)
    made = [state.condition(k) for k in range(2)]
    assert [(c.batch_size, c.optimizer.lr) for c in made] == [(2, 0.05 / 4), (16, 0.05 * 2)]
    assert state.steps == [32, 4]
    options = {"warmup_steps": 10, "r_steps": 30, "d_steps": 20}
    state = t11.State(
        [run("renorm", "cnn", study="batch_size", values=[2, 16], options=options)], dataset(), CPU
    )
    found = [state.condition(k).norm.options for k in range(2)]  # as many examples to the end of each
    assert [o["warmup_steps"] for o in found] == [40, 5] and [o["r_steps"] for o in found] == [120, 15]


def test_what_a_study_varies_is_what_it_would_be_alone():
    _, curves = finished(run("batch", study="rate", values=[0.01, 0.1]))
    _, alone = finished(run("batch", lr=0.1))
    assert curves["val_error"][1] == alone["val_error"][-1] and curves["value"] == [0.01, 0.1]
    _, dropped = finished(run("none", study="dropout", values=[0, 0.5]))
    assert dropped["test_error"][0] == finished(run("none"))[1]["test_error"][-1]


def test_a_rate_that_blows_up_is_no_divergence_of_the_run():
    _, curves = finished(run("none", study="rate", values=[0.01, 1e6]))
    assert curves["learned"] == [1.0, 0.0] and all(map(math.isfinite, curves["train_loss"]))
    assert t11.summarise(curves)["log2_largest"] == pytest.approx(math.log2(0.01))


# ---- what is measured -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"groups": 4}, {"order": "labels"}], ids=["whole", "groups", "labels"]
)
def test_disagreement_by_hand(changes):
    t = Training(run("batch", **changes), dataset(), CPU)
    for _ in t.steps(1):
        pass
    state = {k: v.clone() for k, v in t.net.state_dict().items()}
    found = t.disagreement()
    assert all(torch.equal(v, t.net.state_dict()[k]) for k, v in state.items())  # nothing has moved
    differences = []
    if "order" in changes:
        assert all(len(t.data.y_test[rows].unique()) == 2 for rows in t.batches("test"))
    size = changes.get("groups", 8)
    for rows in t.batches("test").reshape(-1, size):
        x = t.data.x_test[rows].float() / 255
        with torch.no_grad():
            running = t.net.eval()(x)
            differences.append((t.net.train()(x) - running).abs().mean().item())
            t.net.load_state_dict(state)
    assert found == pytest.approx(np.mean(differences), rel=1e-5) and found > 0.01


@pytest.mark.parametrize("norm", ["none", "normprop", "layer", "weight_norm", "snn", "group", "rms"])
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_what_has_no_statistics_computes_the_same_bit_by_bit(net, norm):
    t = Training(run(norm, net, dropout=0.3), dataset(), CPU)
    for _ in t.steps(1):
        pass
    assert t.disagreement() == 0


def test_noise_by_hand():
    t = Training(run("none", depth=1), dataset(), CPU)
    gradients = []
    for rows in t.batches("train"):
        t.net.zero_grad()
        t.loss(rows).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in t.net.parameters()]).double().numpy())
    g = np.stack(gradients)
    trace, n = g.var(0, ddof=1).sum(), len(g)
    # E |mean of n|^2 = |true mean|^2 + trace / n
    wanted = trace / ((g.mean(0) ** 2).sum() - trace / n)
    assert t.noise() == pytest.approx(wanted, rel=1e-4)


def test_noise_that_swamps_the_mean_is_given_its_lower_limit():
    t = Training(run("none", depth=1), dataset(), CPU)
    rows = t.batches("train")
    t.data.y_train[rows[1::2]] = (t.data.y_train[rows[1::2]] + 2) % 4  # labels that contradict each other
    found, g = t.noise(), []
    for batch in rows:
        t.net.zero_grad()
        t.loss(batch).backward()
        g.append(torch.cat([p.grad.flatten() for p in t.net.parameters()]).double().numpy())
    g = np.stack(g)
    trace, length = g.var(0, ddof=1).sum(), (g.mean(0) ** 2).sum()
    assert found == pytest.approx(trace / max(length - trace / len(g), length / len(g)), rel=1e-4)
    assert found > trace / length


def test_distances_are_scipys():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=300), rng.normal(0.5, 2, 300), np.maximum(rng.normal(size=300), 0)):
        mine = ks_normal(torch.from_numpy(values))
        assert mine == pytest.approx(stats.kstest(values, "norm").statistic, abs=1e-9)


def test_distance_to_the_rectified_normal():
    """0 but for chance where it is one, near 1/2 without the atom; constants by simulation."""
    z = np.maximum(np.random.default_rng(0).normal(size=200_000), 0)
    o = torch.from_numpy((z - z.mean()) / z.std())
    assert ks_rectified((torch.from_numpy(z) - conditions.MEAN) / conditions.STD) < 0.005
    assert (z.mean(), z.std()) == pytest.approx((conditions.MEAN, conditions.STD), abs=0.005)
    assert ks_normal(o) > 0.2
    assert ks_rectified(torch.randn(20_000, dtype=torch.float64)) > 0.2


def test_depth_keeps_a_self_normalizing_network_where_relu_halves():
    deep = {"study": "depth", "width": 64, "depth": 16, "batch_size": 256}
    _, snn = finished(run("snn", **deep))
    found = t11.summarise(snn)
    assert found["mean_off"] < 0.15 and 0.7 < found["variance_low"] <= found["variance_high"] < 1.4
    assert found["drift"] == pytest.approx(max(abs(math.log(v)) for v in snn["variance_out"]))
    _, relu = finished(run("snn", activation="relu", **deep))
    second = [v + m * m for v, m in zip(relu["variances_+1_1"], relu["means_+1_1"], strict=True)]
    ratios = [b / a for a, b in pairwise(second)]
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.1)
    assert len(snn["variances_-1_0.5"]) == 16 and len(snn["variance_out"]) == 6


def test_dropout_of_a_self_normalizing_network():
    alpha = small_net("mlp", (1, 8, 8), 8, 2, 4, "snn", {}, dropout=0.1)
    plain = small_net("mlp", (1, 8, 8), 8, 2, 4, "snn", {}, dropout=0.1, plain_dropout=True)
    kinds = [[type(m) for m in net if "Dropout" in type(m).__name__] for net in (alpha, plain)]
    assert kinds == [[nn.AlphaDropout] * 2, [nn.Dropout] * 2]


def test_traffic_and_what_is_kept_by_hand():
    a, b = (torch.ones(4, requires_grad=True) for _ in range(2))
    assert costs.traffic(lambda: a.detach() + b.detach()) == (48, 1)
    assert costs.saved(lambda: a * b) == 32 and costs.saved(lambda: a + b) == 0


def test_peak_by_hand():
    """Two of 400 bytes, one of which goes before the third comes; a view and what was there take nothing."""
    old = torch.zeros(1000)

    def step():
        a = torch.ones(100)
        b = a + 1
        del a
        return old.view(10, 100).add_(b.view(1, -1)[0]) is None or (b * 2).sum()

    assert costs.peak(step) == 800 + 4  # b, b * 2 and its sum


def test_batch_renormalisation_is_timed_with_its_limits_open():
    shut = {"warmup_steps": 10**6, "r_steps": 10**6, "d_steps": 10**6}
    _, found = finished(run("renorm", "cnn", study="cost", options=shut))
    _, opened = finished(run("renorm", "cnn", study="cost", options=dict.fromkeys(shut, 0)))
    assert found["operations_ratio"] == opened["operations_ratio"]
    _, l1 = finished(run("batch", "cnn", study="cost"))
    assert found["operations_ratio"][0] > 1.5 > l1["operations_ratio"][0]


def test_bn_costs_what_bn_costs():
    _, curves = finished(run("batch", "cnn", study="cost"))
    assert [curves[name][0] for name in t11.COUNTED] == [1, 1, 1, 1]
    _, plain = finished(run("none", "cnn", study="cost"))
    assert all(plain[name][0] < 1 for name in t11.COUNTED)
    assert t11.summarise({**plain, "time_ratio": [3.0, 1.0, 2.0]})["time_ratio"] == 2.0


def test_what_enters_and_leaves_layer_by_layer():
    for norm in ("batch", "normprop"):
        net = small_net("mlp", (1, 8, 8), 8, 3, 4, norm, {}).eval()
        into, out = entering(net, torch.randn(16, 1, 8, 8))
        assert [len(v) for v in into] == [len(v) for v in out] == [16 * 8] * 3
    assert not any(layer._forward_hooks for layer in net.modules())


def test_summary_by_hand():
    curves = {
        "val_error": [50.0, 30.0, 10.0, 12.0], "test_error": [51.0, 31.0, 11.0, 9.0],
        "epoch": [0.5, 1.0, 1.5, 2.0], "train_loss": [2.0, 1.0, 0.5, 0.4], "gap": [3.0],
    }  # fmt: skip
    found = t11.summarise(curves)
    assert (found["test_error"], found["val_error"], found["epoch_best_val"]) == (11, 10, 1.5)
    assert found["epochs_to_90"] == 1.5  # 90 % of 88 is 79.2
    assert found["wobble"] == 0 and found["gap"] == 3  # one change from epoch to epoch
    varied = {"value": [1.0, 2.0, 4.0], "test_error": [10.0, 20.0, 30.0], "learned": [1.0, 1.0, 0.0]}
    found = t11.summarise(varied)
    assert found["error_at_2"] == 20 and found["spread"] == 10 and found["log2_largest"] == 1
    alone = {"value": [0.0], "test_error": [10.0], "learned": [0.0]}  # of dropout, no rate above 0
    assert t11.summarise(alone)["error_at_0"] == 10


# ---- going on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 2, 5])
@pytest.mark.parametrize(
    ("study", "values"), [("training", ()), ("rate", (0.01, 0.02)), ("batch_size", (4, 16)), ("depth", ())]
)
def test_resuming_changes_nothing(study, values, stop):
    """Stopped within an epoch, within a later value, and between two."""
    one, data = run("batch", study=study, values=values, epochs=3, dropout=0.2), dataset(256)

    def go(state, curves, most=None):
        for count, (_, metrics) in enumerate(t11.train(state), start=1):
            for key, (value,) in (metrics or {}).items():
                curves.setdefault(key, []).append(value)
            if count == most:
                return curves
        return curves

    whole = go(t11.State([one], data, CPU), {})
    state, curves = t11.State([one], data, CPU), {}
    go(state, curves, stop)
    saved, rng = torch.load(_stored(state.state_dict()), weights_only=True), torch.get_rng_state()
    state = t11.State([one], data, CPU)
    state.load_state_dict(saved)
    torch.set_rng_state(rng)
    go(state, curves)
    assert curves.keys() == whole.keys()
    for key in curves.keys() - {"wrong"}:
        assert curves[key] == whole[key], key


def _stored(state):
    import io

    held = io.BytesIO()
    torch.save(state, held)
    held.seek(0)
    return held


# ---- the table --------------------------------------------------------------------------------------------


def test_rows_and_columns():
    assert t11.cell(run()) == ("bn", "mlp")
    assert t11.cell(run("lstm_layer", "rnn")) == ("ln", "rnn")
    assert t11.cell(run("renorm", "cnn", groups=4)) == ("br", "cnn_groups_4")
    assert t11.cell(run("batch", "cnn", order="labels", rate_factor=5)) == ("bn_x5", "cnn_labels")
    assert t11.cell(run("snn", study="depth", activation="relu")) == ("snn_relu", "depth_mlp")
    assert t11.cell(run("snn", study="depth", dropout=0.1)) == ("snn_alpha_dropout", "depth_mlp")
    plain = run("snn", study="dropout", values=[0, 0.1], dropout_kind="plain")
    assert t11.cell(plain) == ("snn_plain_dropout", "dropout_mlp")
    assert t11.cell(run("group", study="cost")) == ("gn", "cost_mlp")


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_the_grid_names_the_cells_that_its_runs_fill(profile, composed):
    points = grid.points(["table=T11", f"profile={profile}"], composed)
    assert all(t11.cell(p.run) == (p.row, p.column) for p in points)
    assert 100 not in {p.run.seed for p in points}  # the rates were chosen on it


def test_what_makes_no_difference_makes_no_other_run():
    assert run(start="standard") == run(start="data") and run("weight_norm", start="standard") != run(
        "weight_norm"
    )
    for study, values in (("scale", [1.0]), ("depth", ())):  # which a start from data would undo
        assert run("weight_norm", study=study, values=values).start == "standard"
    assert run("snn", dropout_kind="plain") != run("snn") and run(dropout_kind="plain") == run()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"net": "vgg"}, "this table has mlp, cnn, rnn"),
        ({"study": "speed"}, "study=speed: choose training"),
        ({"study": "rate"}, "a list of what the study varies"),
        ({"values": [1.0]}, "a list of what the study varies"),
        ({"study": "batch_size", "values": [1.5]}, "whole numbers from 1"),
        ({"study": "scale", "values": [-1.0]}, "numbers above 0"),
        ({"study": "dropout", "values": [1.0]}, "rates from 0 to below 1"),
        ({"study": "depth", "net": "cnn"}, "wants model=mlp"),
        ({"net": "rnn", "activation": "relu"}, "an LSTM has its own"),
        ({"activation": "tanh"}, "choose relu or selu"),
        ({"order": "labels", "batch_size": 7}, "wants even batches"),
        ({"order": "sorted"}, "choose random or labels"),
        ({"groups": 0}, "from 1 to the batch's 8; or null"),
        ({"groups": 9}, "from 1 to the batch's 8; or null"),
        ({"groups": 2, "study": "batch_size", "values": [1, 4]}, "from 1 to the batch's 1; or null"),
        ({"batch_size": 1}, "norm=batch in an mlp has no statistics of one example"),
        ({"groups": 7}, "no statistics of one example"),
        ({"groups": 1, "norm": "renorm"}, "no statistics of one example"),
        ({"study": "batch_size", "values": [1, 2]}, "no statistics of one example"),
        ({"norm": "lstm_batch", "net": "rnn", "batch_size": 1}, "no statistics of one example"),
        ({"lr": 0.0}, "learning rate must be above 0"),
        ({"scale": 0.0}, "must be above 0"),
        ({"rate_factor": -1.0}, "must be above 0"),
        ({"dropout": 1.0}, "rates from 0"),
        ({"epochs": 0}, "at least 1"),
        ({"evaluations": 0}, "at least 1"),
        ({"start": "warm"}, "choose data or standard"),
        ({"dropout_kind": "beta"}, "choose own or plain"),
        ({"seed": -1}, "whole number from 0"),
    ],
)
def test_bad_values(changes, says):
    with pytest.raises(BadInput) as e:
        run(**changes)
    assert says in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("norm", "net", "says"),
    [
        ("lstm_layer", "mlp", "nn.LSTM"),
        ("batch", "rnn", "no batch normalisation layer"),
        ("normprop", "rnn", "normprop"),
    ],
)
def test_a_method_that_does_not_fit_is_one_line(norm, net, says):
    with pytest.raises(BadInput) as e:
        t11.State([run(norm, net)], dataset(), CPU)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_too_few_examples_for_a_batch_is_one_line():
    with pytest.raises(BadInput, match="an epoch is 0 steps; at least 1"):
        t11.State([run(batch_size=128)], dataset(), CPU)
