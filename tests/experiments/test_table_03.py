"""Table 3's training against plain loops and formulas written out."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from data import DataSet
from experiments import config, measure
from experiments import table_03_dbn as t3
from experiments.models.cnn import CNN
from experiments.models.mlp import MLP
from experiments.population import Population


def make_data(shape=(12,), classes=3, n=120, seed=0, error="error", **changes) -> DataSet:
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=g)
    x = torch.randn(n, *shape, generator=g) + y.view(-1, *[1] * len(shape))
    parts = {
        "x_train": x[:80],
        "y_train": y[:80],
        "x_val": x[80:100],
        "y_val": y[80:100],
        "x_test": x[100:],
        "y_test": y[100:],
    }
    names = tuple(map(str, range(classes)))
    return DataSet(
        **{
            **parts,
            "name": "made",
            "classes": names,
            "fingerprint": "f",
            "source": "",
            "licence": "",
            "notes": (),
            "error": error,
            **changes,
        }
    )


def make_run(**changes) -> t3.Run:
    run = t3.Run(
        table="T3",
        data=config.Data("made", 0.1, None, None, {}),
        model=config.Model("mlp", [9, 7], [], []),
        norm=config.Norm("diminishing", {}),
        optimizer=config.Optimizer("Adagrad", 0.05, 1e-3, {"initial_accumulator_value": 1e-6, "eps": 0.0}),
        alpha=0.5,
        reading="C",
        initial="zero_one",
        unit="epoch",
        placement="before",
        batch_size=20,
        epochs=3,
        seed=0,
    )
    return t3.check(dataclasses.replace(run, **changes))


def trained(*runs, data=None):
    state = t3.State(runs, data or make_data(), torch.device("cpu"))
    return state, [m for _, m in t3.train(state) if m is not None]


def test_training_is_the_papers_loop_written_out():
    """Reading C with alpha=1 trains as batch normalization does; AdaGrad and L2 as Lasagne writes them, in
    numpy-like steps.
    """
    data, run = make_data(), make_run(alpha=1)
    torch.manual_seed(run.seed)
    net = MLP(12, [9, 7], 3, lambda n: nn.BatchNorm1d(n, eps=1e-4), "before")
    sums = {k: torch.full_like(p, 1e-6) for k, p in net.named_parameters()}
    for epoch in range(run.epochs):
        order = measure.shuffle(80, run.seed, epoch)
        for b in range(4):
            i = order[20 * b : 20 * b + 20]
            logits = net(data.x_train[i])
            loss = -logits.log_softmax(1)[torch.arange(20), data.y_train[i]].mean()
            loss = loss + 1e-3 * sum((p**2).sum() for k, p in net.named_parameters() if p.dim() > 1)
            net.zero_grad()
            loss.backward()
            with torch.no_grad():
                for k, p in net.named_parameters():
                    sums[k] += p.grad**2
                    p -= 0.05 * p.grad / sums[k].sqrt()
    state, _ = trained(run, data=data)
    ours = dict(state.net.named_parameters())
    for k, p in net.named_parameters():
        torch.testing.assert_close(ours[k], p, rtol=1e-4, atol=1e-5)


def test_l2_is_on_weights_alone():
    state = t3.State([make_run()], make_data(), torch.device("cpu"))
    names = dict(state.net.named_parameters())
    decayed = {n for n, p in names.items() if any(p is q for q in state.optimizer.param_groups[0]["params"])}
    assert decayed == {"linears.0.weight", "linears.1.weight", "out.weight"}
    assert state.optimizer.param_groups[0]["weight_decay"] == pytest.approx(2e-3)
    assert state.optimizer.param_groups[1].get("weight_decay", 0) == 0


RUNS = [
    {"alpha": a, "reading": reading, "initial": initial, "unit": unit, "seed": s}
    for reading, initial, unit, cases in [
        ("C", "zero_one", "epoch", [(1, 0), ("inv_m", 1), ("inv_m2", 0), (0.25, 3)]),
        ("A", "first_batch", "step", [(0.5, 0), ("inv_m2", 1)]),
        ("B", "first_batch", "step", [(1, 0), (0.1, 1), ("inv_m", 2)]),
    ]
    for a, s in cases
]


@pytest.mark.parametrize("reading", ["A", "B", "C"])
def test_a_member_of_a_population_is_the_run_alone(reading, monkeypatch):
    """In float64, after every epoch: losses, errors, and all weights and statistics at the end."""
    torch.set_default_dtype(torch.float64)
    try:
        data = make_data()
        runs = [make_run(**r) for r in RUNS if r["reading"] == reading]
        together, curves = trained(*runs, data=data)
        for k, run in enumerate(runs):
            alone, own = trained(run, data=data)
            for both, one in zip(curves, own, strict=True):
                assert both["test_error"][k] == one["test_error"][0]
                assert both["train_loss"][k] == pytest.approx(one["train_loss"][0], rel=1e-10)
            for name, tensor in alone.net.state_dict().items():
                torch.testing.assert_close(together.net.state_dict()[name][k], tensor, rtol=1e-8, atol=1e-10)
    finally:
        torch.set_default_dtype(torch.float32)


def test_seeds_pair_initial_values_and_order_across_alpha():
    state = t3.State(
        [make_run(alpha=1), make_run(alpha=0.1), make_run(alpha=0.1, seed=1)],
        make_data(),
        torch.device("cpu"),
    )
    w = dict(state.net.named_parameters())["linears.0.weight"]
    assert torch.equal(w[0], w[1]) and not torch.equal(w[0], w[2])


def test_resume_in_the_middle_of_an_epoch_is_bit_identical(monkeypatch):
    """Stop after any yield, with dropout: state and torch's generator are all there is."""
    data = make_data(shape=(1, 12, 12), n=120)
    data = dataclasses.replace(
        data, x_train=data.x_train.repeat(60, 1, 1, 1), y_train=data.y_train.repeat(60)
    )
    run = make_run(model=config.Model("cnn", [5], [2, 2], [0.3, 0.5]), epochs=2)

    def finish(stop_at):
        state = t3.State([run], data, torch.device("cpu"))
        metrics = []
        for n, (_, m) in enumerate(t3.train(state)):
            metrics += [m] if m else []
            if n == stop_at:
                saved, rng = {**state.state_dict()}, torch.get_rng_state()
                saved["net"] = {k: v.clone() for k, v in saved["net"].items()}
                saved["loss_sum"] = saved["loss_sum"].clone()
                state = t3.State([run], data, torch.device("cpu"))
                state.load_state_dict(saved)
                torch.set_rng_state(rng)
                metrics += [m for _, m in t3.train(state) if m]
                break
        return state.net.state_dict(), [(m["train_loss"], m["test_error"]) for m in metrics]

    straight = finish(-1)
    for stop_at in (1, 4):
        weights, metrics = finish(stop_at)
        assert metrics == straight[1]
        assert all(torch.equal(weights[k], v) for k, v in straight[0].items())


# ---- networks ----


def test_parameter_counts_of_the_papers_networks():
    def count(m):
        return sum(p.numel() for p in m.parameters())

    norm = nn.BatchNorm1d
    assert count(MLP(784, [300, 300], 10, norm)) == 784 * 300 + 300 * 300 + 300 * 10 + 610 + 4 * 300
    cnn = CNN((3, 32, 32), [32, 32, 64, 64], 512, 10, [0.25, 0.25, 0.5], nn.BatchNorm2d, norm)
    # the old Keras example has 1,250,858 parameters; to these come a gain and a shift for each of 192 maps
    # and 512 units
    assert count(cnn) == 1_250_858 + 2 * (192 + 512)


def test_keras_example_shapes():
    cnn = CNN((3, 32, 32), [32, 32, 64, 64], 512, 10, [0.25, 0.25, 0.5], nn.BatchNorm2d, nn.BatchNorm1d)
    assert cnn.fc.in_features == 6 * 6 * 64 and cnn(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_placement():
    torch.manual_seed(0)
    x = torch.randn(40, 12)
    before, after = (MLP(12, [9], 3, nn.BatchNorm1d, p) for p in ("before", "after"))
    hidden = [m.out.register_forward_pre_hook(lambda _, i: seen.append(i[0])) for m in (before, after)]
    seen: list[torch.Tensor] = []
    before(x), after(x)
    assert seen[0].min() >= 0 and hidden
    torch.testing.assert_close(seen[1].mean(0), torch.zeros(9), atol=1e-5, rtol=0)


def test_glorot():
    w = MLP(784, [300], 10, nn.BatchNorm1d).linears[0].weight.detach()
    limit = math.sqrt(6 / (784 + 300))
    assert w.abs().max() <= limit and w.std() == pytest.approx(limit / math.sqrt(3), rel=0.02)


# ---- measures ----


class Fixed:
    def __init__(self, logits):
        self.logits, self.size = logits, len(logits)

    def __call__(self, index, shared):
        return self.logits[:, index.long().flatten()]


def test_errors_against_scikit_learn():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (500,), generator=g) % 3
    logits = torch.randn(2, 500, 4, generator=g)
    x = torch.arange(500.0)[:, None]
    plain, wrong = measure.errors(Fixed(logits), x, y, 4, "error", chunk=70)
    balanced, _ = measure.errors(Fixed(logits), x, y, 4, "balanced_error", chunk=70)
    for k in range(2):
        predicted = logits[k].argmax(1)
        assert plain[k] == pytest.approx(100 * (predicted != y).double().mean().item())
        with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
            assert balanced[k] == pytest.approx(100 * (1 - balanced_accuracy_score(y, predicted)))
    assert np.allclose(wrong.double().mean(1) * 100, plain)


def test_a_prediction_that_is_not_finite_is_wrong():
    logits = torch.zeros(1, 4, 3)
    logits[0, :, 0] = 1
    logits[0, 1, 2], logits[0, 2, 1] = math.nan, math.inf
    error, wrong = measure.errors(
        Fixed(logits), torch.arange(4.0)[:, None], torch.zeros(4, dtype=torch.long), 3, "error"
    )
    assert error == [50.0] and wrong.tolist() == [[False, True, True, False]]


def test_shuffle_depends_on_seed_and_epoch_alone():
    a = measure.shuffle(50, 3, 4)
    torch.manual_seed(1)
    assert torch.equal(a, measure.shuffle(50, 3, 4)) and sorted(a.tolist()) == list(range(50))
    assert not torch.equal(a, measure.shuffle(50, 3, 5)) and not torch.equal(a, measure.shuffle(50, 4, 4))


def test_weight_norm_by_hand():
    net = Population([MLP(2, [2], 2, nn.BatchNorm1d)])
    weights = [p for n, p in net.named_parameters() if n in ("linears.0.weight", "out.weight")]
    with torch.no_grad():
        for w in weights:
            w.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert measure.weight_norm(net) == pytest.approx([math.sqrt(60)])


def test_summary_of_curves_worked_by_hand():
    curves = {
        "test_error": [9.0, 4.0, 3.0, 5.0, 6.0, 4.0],
        "val_error": [9.0, 5.0, 6.0, 4.0, 4.0, 7.0],
        "train_loss": [1.0, 0.5, 0.4, 0.3, 0.2, 0.1],
        "weight_norm": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    }
    assert t3.summarise(curves) == {
        "test_error": 5.0,
        "test_error_last": 4.0,
        "test_error_best": 3.0,
        "val_error": 4.0,
        "epoch_best_val": 4,
        "epoch_best_test": 3,  # the first of two equal ones
        "test_error_variance": (1**2 / 2 + 2**2 / 2) / 2,  # 5 -> 6 -> 4
        "train_loss_last": 0.1,
        "weight_norm_last": 6.0,
    }


def test_alpha_zero_never_moves_the_statistics_and_alpha_one_takes_the_last_batch():
    data = make_data()
    slow = config.Optimizer(
        "SGD", 1e-6, 0.0, {}
    )  # so that the weights are the same before and after the last step
    (a0, _), (a1, _) = (trained(make_run(alpha=a, optimizer=slow), data=data) for a in (0, 1))
    assert torch.equal(dict(a0.net.named_buffers())["norms.0.running_mean"], torch.zeros(9))
    last = measure.shuffle(80, 0, 2)[60:80]
    x = data.x_train[last]
    mean = dict(a1.net.named_buffers())["norms.0.running_mean"]
    w, b = (dict(a1.net.named_parameters())[f"linears.0.{n}"] for n in ("weight", "bias"))
    torch.testing.assert_close(mean, F.linear(x, w, b).mean(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group", "rms", "diminishing"])
def test_every_other_normaliser_trains_as_a_population(norm):
    runs = [make_run(norm=config.Norm(norm, {}), seed=s) for s in (0, 1)]
    _, curves = trained(*runs)
    assert all(np.isfinite(m["train_loss"]).all() for m in curves)
