"""Table 2: rows, preparation of the data, the rescaling of filters, what is watched."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data import DataSet
from experiments import grid, images, sweep
from experiments import table_02_normprop as t2
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.models.pixels import BatchPixelNorm, PixelNorm

CPU = torch.device("cpu")


def dataset(n=60, size=17, classes=4):
    torch.manual_seed(0)

    def part(m):
        y = torch.arange(m) % classes
        x = (torch.rand(m, 3, size, size) * 80 + 40 * y[:, None, None, None]).to(torch.uint8)
        return x, y

    (a, b), (c, d), (e, f) = part(n), part(24), part(24)
    names = tuple(str(i) for i in range(classes))
    return DataSet("pictures", a, b, c, d, e, f, names, "print", "", "", (), "error")


def run(norm="normprop", model="nin", **changes):
    network = t2.Network(model, changes.pop("width", 0.03), changes.pop("dropout", 0.0), False,
                         changes.pop("last", False),
                         changes.pop("size", "cifar"), changes.pop("start", [0.01]))  # fmt: skip
    options = changes.pop("options", {})
    plan = t2.Schedule(changes.pop("halve_every", 2.0), changes.pop("tenths", []), changes.pop("linear", []),
                       changes.pop("growing", []))  # fmt: skip
    optimizer = Optimizer(
        "SGD", changes.pop("lr", 0.05), changes.pop("l2", 2.5e-4), {"momentum": changes.pop("momentum", 0.9)}
    )
    made = t2.Run("T2", Data("pictures", 0.1, None, None, {}), network, Norm(norm, options), optimizer,
                  "raw", "batch", True, False, plan, 20, 2, 1, 0)  # fmt: skip
    return t2.check(replace(made, **changes))


def test_rows_say_what_a_run_has_besides():
    named = {
        "nin_np": run(),
        "nin_bn": run("batch"),
        "plain": run("none"),
        "nin": run("none", "lin_nin", preprocessing="gcn_zca"),
        "maxout": run("none", "maxout", preprocessing="gcn_zca"),
        "maxout_raw": run("none", "maxout"),
        "nin_np_dropout": run(dropout=0.5),
        "nin_np_global_b1": run(input="global", batch_size=1),
        "nin_np_at_0.14": run(lr=0.14, halve_every=0.0),
        "nin_np_gamma1_at_0.14": run(lr=0.14, halve_every=0.0, options={"gamma": 1}),
        "plain_at_0.05": run("none", halve_every=0.0),
        "nin_group": run("group"),
        "nin_np_last": run(last=True),
        "nin_np_decay_0.001": run(l2=5e-4),
    }
    for row, one in named.items():
        assert t2.cell(one)[0] == row
    sets = {
        "cifar10": ("cifar10", {}),
        "cifar100": ("tinyimagenet100", {}),
        "svhn": ("svhn", {}),
    }
    for column, (name, options) in sets.items():
        assert t2.cell(run(data=Data(name, 0.1, None, None, options)))[1] == column
    letters = Data("glyphs", 0.1, None, None, {"alphabet": "letters"})
    assert t2.cell(run(data=letters))[1] == "cifar100"
    assert t2.cell(run(data=letters, flip=True))[1] == "cifar100_flips"


def test_pixels_by_formula():
    x = torch.randint(0, 256, (50, 2, 3, 4), dtype=torch.uint8)
    x[:, 0, 0, 0], x[1, 0, 0, 0] = 0, 255  # lit once: not divided by next to nothing
    values = x.numpy() / 255.0
    got = PixelNorm.of(x)(x.float() / 255)
    np.testing.assert_allclose(got, (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-3), atol=1e-4)
    layer = BatchPixelNorm(x[0])
    batch = x[:10].float() / 255
    expected = (batch - batch.mean(0)) / (batch.var(0, correction=0) + 1e-3).sqrt()
    torch.testing.assert_close(layer(batch), expected, atol=1e-4, rtol=1e-4)
    mean = 0.1 * batch.mean(0).flatten()
    torch.testing.assert_close(layer.running_mean, mean)  # and that of the past in tests
    torch.testing.assert_close(
        layer.eval()(batch)[0].flatten(),
        (batch[0].flatten() - mean) / (layer.running_var + 1e-3).sqrt(),
    )


def test_the_rate_and_the_momentum_by_the_schedules():
    def rates(epochs, **changes):
        state = t2.State([run(**changes)], dataset(), CPU)
        return [pytest.approx(state.rate(e)) for e in epochs], [
            pytest.approx(state.momentum(e)) for e in epochs
        ]

    assert rates((0, 1.99, 2, 4.5))[0] == [0.05, 0.05, 0.025, 0.0125]
    assert rates((0, 100), halve_every=0.0) == ([0.05, 0.05], [0.9, 0.9])
    lin = rates((199.9, 200, 229.9, 230), halve_every=0.0, tenths=[200, 230], lr=0.1)[0]
    assert lin == [0.1, 0.01, 0.01, 0.001]
    maxed = rates((0, 125, 250, 500, 700), halve_every=0.0, linear=[500, 0.01], lr=0.17, growing=[250, 0.6],
                  momentum=0.5)  # fmt: skip
    assert maxed[0] == [0.17, 0.17 * 0.7525, 0.17 * 0.505, 0.0017, 0.0017]
    assert maxed[1] == [0.5, 0.55, 0.6, 0.6, 0.6]


@pytest.mark.parametrize("model", ["lin_nin", "maxout"])
def test_layers_have_their_own_share_of_the_rate(model):
    """What steps move, against the update written out: with each layer's share, decay on weights alone, and
    the momentum of the moment. Starts and rate are such that every layer moves and no limit is reached.
    """
    changes = {"halve_every": 0.0, "lr": 0.02, "growing": [2, 0.6], "momentum": 0.5, "epochs": 2,
               "start": [0.3] if model == "lin_nin" else [0.02]}  # fmt: skip
    state = t2.State([run("none", model, **changes)], dataset(size=32), CPU)
    named = [(n, p) for n, p in state.net.single.named_parameters()]
    convs = [n for n, p in named if p.dim() == 4]
    for group in state.optimizer.param_groups:
        group["weight_decay"] *= 1000  # else decay would drown in rounding
    decay = 1000 * 2 * 2.5e-4

    def share(name):
        if model == "maxout":
            return 0.05 if name.rpartition(".")[0] + ".weight" in convs else 1.0
        last = name.rpartition(".")[0] == convs[-1].rpartition(".")[0]
        return (0.1 if last else 1.0) * (2.0 if name.endswith("bias") else 1.0)

    first = {n: p.detach().double().clone() for n, p in named}
    expected = {n: (first[n].clone(), torch.zeros_like(first[n])) for n, _ in named}

    def follow(optimizer, *_):
        epoch = state.epoch + state.batch / state.steps_per_epoch
        momentum = 0.5 + 0.1 * min(epoch / 2, 1)
        for name, p in named:
            w, velocity = expected[name]
            g = p.grad.double() + (decay * w if p.dim() > 1 else 0)
            velocity.mul_(momentum).add_(g)
            w.sub_(0.02 * share(name) * velocity)

    state.optimizer.register_step_pre_hook(follow)
    list(images.train(state))
    for name, p in named:
        moved, wanted = p.detach().double() - first[name], expected[name][0] - first[name]
        size = wanted.abs().max()
        assert size > 1e-5, name
        np.testing.assert_allclose(moved / size, wanted / size, atol=0.01, err_msg=name)


@pytest.mark.parametrize("norm", ["normprop", "batch"])
def test_filters_have_length_1_after_training(norm):
    state = t2.State([run(norm, epochs=1)], dataset(), CPU)
    list(images.train(state))
    filters = [m for m in state.net.single.modules() if isinstance(m, nn.Conv2d)]
    lengths = [torch.linalg.vector_norm(m.weight, dim=(1, 2, 3)) for m in filters]
    assert all(torch.allclose(x, torch.ones_like(x), atol=1e-5) for x in lengths[:-1])
    assert not torch.allclose(lengths[-1], torch.ones_like(lengths[-1]), atol=1e-2)  # the logits' are left


def test_maxout_keeps_its_limits():
    state = t2.State([run("none", "maxout", lr=5.0, epochs=1)], dataset(size=32), CPU)
    list(images.train(state))
    net = state.net.single[1]
    layers = [m for m in net.layers if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer, limit in zip(layers, net.limits, strict=True):
        assert torch.linalg.vector_norm(layer.weight.flatten(1), dim=1).max() <= limit * 1.0001


def test_whitened_pictures_are_whitened_with_the_training_parts_matrix(tmp_path, monkeypatch):
    monkeypatch.setenv("BN_DATA_CACHE", str(tmp_path))
    data = dataset(n=200, size=6)
    one = run("none", "lin_nin", preprocessing="gcn_zca")
    ready = t2.prepared(data, one)
    x = data.x_train.flatten(1).double().numpy()
    x = x - x.mean(1, keepdims=True)
    x = 55 * x / np.sqrt((x**2).sum(1, keepdims=True))
    mean = x.mean(0)
    values, vectors = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    matrix = vectors @ np.diag(1 / np.sqrt(values.clip(0) + 0.1)) @ vectors.T
    np.testing.assert_allclose(ready.x_train.flatten(1), (x - mean) @ matrix, atol=2e-3)
    assert ready.x_test.dtype == torch.float32 and ready.y_train is data.y_train
    assert t2.prepared(data, run()) is data


def test_what_is_watched():
    data = dataset()
    state = t2.State([run("batch")], data, CPU)
    found = [m for _, m in images.train(state) if m]
    assert all(m["epoch_seconds"][0] > 0 and m["chance"] == [75.0] for m in found)
    state.net.eval()
    seen = []
    layers = [m for m in state.net.single.modules() if isinstance(m, nn.Conv2d)]
    for layer in layers[1:]:
        layer.register_forward_pre_hook(lambda m, i: seen.append(np.abs(i[0].numpy().mean((0, 2, 3))).mean()))
    with torch.no_grad():
        state.net.single(data.x_test.float() / 255)
    assert found[-1]["input_mean"][0] == pytest.approx(np.mean(seen), rel=1e-4) and len(seen) == 8


@pytest.mark.slow
@pytest.mark.parametrize("words", [("row=nin_np",), ("row=nin_bn", "flip=true"), ("row=nin", "flip=true")])
def test_two_processes_have_the_losses_of_one(cli, tmp_path, words):
    words = ("table=T2", "profile=smoke", *words, "epochs=2", "threads=1", "device=cpu", "report=false")
    alone = type(cli)(tmp_path / "alone")
    assert alone(*words).returncode == 0
    (one,) = alone.records("T2").values()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "experiments"]
    command = [*launcher, *words, f"runs={cli.runs}"]
    done = subprocess.run(command, env=cli.env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (two,) = cli.records("T2").values()
    assert two["run_id"] == one["run_id"]
    np.testing.assert_allclose(two["curves"]["train_loss"], one["curves"]["train_loss"], rtol=1e-4)


@pytest.mark.slow
def test_pictures_too_small_are_one_line_and_no_record(cli):
    words = ("table=T2", "profile=smoke", "row=nin_np", "+data.options.size=16", "report=false")
    for multirun in ((), ("-m",)):
        done = cli(*multirun, *words)
        assert done.returncode == 2 and "images of 16x16 are too small" in done.stderr
        assert done.stderr.count("\n") == 1 and not cli.records("T2")


def test_pictures_on_the_disk_are_refused():
    class Streamed:
        def batches(self, order):
            raise AssertionError

    with pytest.raises(BadInput, match="in memory"):
        t2.State([run()], replace(dataset(), x_train=Streamed()), CPU)


def test_a_matrix_that_cannot_be_kept_is_fitted_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("BN_DATA_CACHE", str(tmp_path / "file"))
    data, one = dataset(n=100, size=6), run("none", "lin_nin", preprocessing="gcn_zca")
    here = t2.prepared(data, one).x_test
    monkeypatch.setenv("BN_DATA_CACHE", str(tmp_path / "folder"))
    torch.testing.assert_close(here, t2.prepared(data, one).x_test)


def test_a_batch_of_one_trains_with_global_normalisation():
    found = [
        m
        for _, m in images.train(
            t2.State([run(input="global", batch_size=1, epochs=1, lr=1e-3)], dataset(), CPU)
        )
        if m
    ]
    assert np.isfinite(found[-1]["train_loss"][0])
    assert run("none", "lin_nin", batch_size=1, preprocessing="gcn_zca").batch_size == 1
    for wrong in ({}, {"norm": "batch", "input": "global"}):
        with pytest.raises(BadInput, match="batch_size=1"):
            run(batch_size=1, **wrong)


@pytest.mark.parametrize(
    "change, line",
    [
        ({"preprocessing": "white"}, "preprocessing=white: choose raw or gcn_zca"),
        ({"input": "pixel"}, "input=pixel"),
        ({"halve_every": -1.0}, "schedule.halve_every=-1.0"),
        ({"tenths": [0.0]}, "schedule.tenths=[0.0]"),
        ({"linear": [5.0]}, "schedule.linear=[5.0]: give [until this epoch, share"),
        ({"growing": [5.0, 1.0]}, "schedule.momentum=[5.0, 1.0]"),
        ({"norm": "none", "model": "lin_nin", "size": "imagenet"}, "model.size=imagenet"),
        ({"norm": "none", "model": "lin_nin", "start": []}, "model.start=[]"),
        ({"norm": "batch", "model": "maxout"}, "norm=batch: maxout has none here"),
        ({"model": "lin_nin"}, "norm=normprop: it needs model=nin"),
        ({"width": 0.0}, "model.width=0.0"),
    ],
)
def test_bad_values_are_one_line(change, line):
    with pytest.raises(BadInput) as caught:
        run(**change)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_what_a_network_does_not_have_makes_no_other_run():
    assert run(size="svhn", start=[1.0]) == run()
    whole = run("none", "lin_nin", size="svhn", start=[1.0])
    assert (whole.model.size, whole.model.start) == ("svhn", [1.0])


def test_summary():
    curves = {"val_error": [50.0, 30.0, 20.0, 25.0], "test_error": [52.0, 33.0, 24.0, 22.0],
              "epoch": [1, 2, 3, 11],
              "chance": [90.0] * 4, "epoch_seconds": [1.0, 2.0, 9.0, 3.0], "input_mean": [0.5, 0.4, 0.3, 0.2],
              "train_loss": [2.0, 1.0, 0.5, 0.4]}  # fmt: skip
    found = t2.summarise(curves)
    assert (found["test_error"], found["test_error_best"], found["epoch_best_val"]) == (24, 22, 3)
    assert found["stable"] == 1 and found["input_mean"] == 0.2
    assert t2.summarise({**curves, "train_loss": [2.0, float("nan"), 1.0, 1.0]})["stable"] == 0


def test_the_early_spread_is_that_of_the_noise_and_not_of_the_fall():
    rng = np.random.default_rng(0)
    epochs = list(range(1, 11))
    fixed = {"test_error": [1.0] * 10, "epoch": epochs, "chance": [90.0] * 10, "epoch_seconds": [1.0] * 10,
             "input_mean": [0.1] * 10, "train_loss": [1.0] * 10}  # fmt: skip
    smooth = [60 - 5 * e for e in epochs]
    assert t2.summarise({**fixed, "val_error": smooth})["early_spread"] == pytest.approx(0, abs=1e-9)
    noisy = [[v + e for v, e in zip(smooth, 2 * rng.standard_normal(10), strict=True)] for _ in range(400)]
    found = [t2.summarise({**fixed, "val_error": v})["early_spread"] ** 2 for v in noisy]
    assert np.sqrt(np.mean(found)) == pytest.approx(2, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["quick", "paper"])
def test_grids_have_the_surveys_rows_and_the_studies(composed, profile):
    found = {(p.row, p.column) for p in grid.points(["table=T2", f"profile={profile}"], composed)}
    rows = ("nin", "nin_np", "nin_bn", "maxout", "plain", "maxout_raw")
    assert {(r, c) for r in rows for c in ("cifar10", "cifar100")} <= found
    at = [f"nin_np{g}_at_{r}" for g in ("", "_gamma1") for r in ("0.05", "0.07", "0.1", "0.14", "0.2")]
    studies = (
        "nin_np_dropout",
        "nin_np_last",
        *(f"nin_np_global_b{b}" for b in (1, 50, 100)),
        "plain_at_0.05",
        *at,
    )
    assert {(r, "cifar10") for r in studies} <= found


@pytest.mark.slow
def test_rows_with_more_seeds_are_noted_as_such(composed):
    noted = sweep.write_grid("T2", composed, None, profile="quick")["profiles"]["quick"]
    planned = {(p["row"], p["column"], seed) for p in noted["points"] for seed in p["seeds"]}
    points = grid.points(["table=T2", "profile=quick"], composed)
    assert planned == {(p.row, p.column, p.run.seed) for p in points} and len(points) == len(planned)
    assert len({len(p["seeds"]) for p in noted["points"]}) == 2


@pytest.mark.parametrize(
    "row, model, rate", [("nin", "lin_nin", 0.1), ("maxout", "maxout", 0.17), ("plain", "nin", 1e-4)]
)
def test_the_paper_profiles_settings_are_those_of_the_row(composed, row, model, rate):
    """Three rows of one column without a normaliser: each is compared with its own."""
    words = ["table=T2", "profile=quick", "column=cifar10", f"row={row}", "seed=0"]
    (point,) = grid.points(words, composed)
    told = grid.paper_config(point, composed)
    assert (told["model"]["name"], told["optimizer"]["lr"], told["data"]["name"]) == (model, rate, "cifar10")
