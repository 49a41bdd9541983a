"""Table 7: the acoustic model, the falling rate, halves of the training part, all cells at both rates."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import norms
from data import DataSet
from experiments import grid
from experiments import table_07_speech as t7
from experiments.config import BadInput, Data, Norm, Optimizer, identity
from experiments.models.speech import BandNorm, SpeechCNN

CPU = torch.device("cpu")


def dataset(n=96, bands=14, frames=6, classes=4, dtype=torch.float32):
    torch.manual_seed(0)

    def part(m):
        y = torch.arange(m) % classes
        x = torch.randn(m, 1, bands, frames) + 2 * y[:, None, None, None]
        return (x if dtype == torch.float32 else (20 * x + 100).to(dtype)), y

    (a, b), (c, d), (e, f) = part(n), part(40), part(40)
    return DataSet("words", a, b, c, d, e, f, tuple("abcd"), "", "", "", (), "error")


def run(norm="batch", **changes):
    network = t7.Network(
        "speech", changes.pop("width", 0.0625), changes.pop("activation", "relu"), changes.pop("gain", 1.0)
    )
    optimizer = Optimizer("SGD", changes.pop("lr", 0.08), 0.0, {"momentum": 0.9})
    data = Data("words", 0.1, None, None, {}, changes.pop("share", 1.0))
    made = t7.Run("T7", data, network, Norm(norm, {}), optimizer, 0, 16, 2, 2, 0)
    return t7.check(replace(made, **changes))


def test_rows_and_columns():
    assert t7.cell(run()) == ("relu_bn_0.08", "wm100")
    assert t7.cell(run("none", activation="sigmoid", lr=0.008, share=0.5)) == ("sigmoid_plain_0.008", "wm50")
    assert t7.cell(run("group", share=0.25)) == ("relu_group_0.08", "wm25")
    assert "share" not in identity(run())["data"] and identity(run(share=0.5))["data"]["share"] == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_bands_by_formula(dtype):
    x = dataset(dtype=dtype).x_train
    values = x.double().numpy() / (255 if dtype == torch.uint8 else 1)
    mean, std = values.mean((0, 1, 3)), np.sqrt(values.var((0, 1, 3)))
    std = np.maximum(std, 0.1 * std.max())
    expected = (values - mean[:, None]) / std[:, None]
    given = x.float() / (255 if dtype == torch.uint8 else 1)
    np.testing.assert_allclose(BandNorm.of(x)(given), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["none", "batch"])
def test_the_network_by_formula(name):
    """In float64, layer by layer in numpy; BN by the statistics of the batch, before each activation."""
    torch.manual_seed(0)
    net = SpeechCNN((1, 14, 6), 4, lambda c, d: norms.build(name, c, dim=d), 0.0625, nn.Sigmoid).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    x = torch.randn(5, 1, 14, 6, dtype=torch.float64)
    maps, p = np.zeros((5, 8, 6)), {k: v.detach().numpy() for k, v in net.named_parameters()}
    for f in range(6):  # 14 bands - 9 + 1 positions along frequency, none along time
        maps[:, :, f] = np.einsum("bft,oft->bo", x[:, 0, f : f + 9].numpy(), p["conv.weight"][:, 0])

    def activated(z, gain, bias, conv_bias, axes):
        shape = [1, -1] + [1] * (z.ndim - 2)
        if name == "batch":
            z = (z - z.mean(axes, keepdims=True)) / np.sqrt(z.var(axes, keepdims=True) + 1e-5)
            z = z * gain.reshape(shape) + bias.reshape(shape)
        else:
            z = z + conv_bias.reshape(shape)
        return 1 / (1 + np.exp(-z))

    one = (p.get("first.0.weight"), p.get("first.0.bias"), p.get("conv.bias"))
    h = activated(maps, *one, (0, 2)).reshape(5, 8, 2, 3).max(-1).reshape(5, 16)
    for k in (0, 3, 6):
        z = h @ p[f"hidden.{k}.weight"].T
        one = (p.get(f"hidden.{k + 1}.weight"), p.get(f"hidden.{k + 1}.bias"), p.get(f"hidden.{k}.bias"))
        h = activated(z, *one, 0)
    np.testing.assert_allclose(net(x).detach(), h @ p["out.weight"].T + p["out.bias"], rtol=1e-9)
    assert ("conv.bias" in p) == (name == "none")


def test_the_whole_network_has_the_sheets_sizes():
    net = SpeechCNN((1, 40, 11), 10, lambda c, d: norms.build("none", c, dim=d))
    expected = 128 * (9 * 11 + 1) + (128 * 10 + 1) * 512 + 2 * 513 * 512 + 513 * 10
    assert sum(p.numel() for p in net.parameters()) == expected


def test_a_training_is_what_torch_does_and_the_rate_halves():
    """Against a loop written out: shuffled batches, cross-entropy, SGD with momentum at the rate that earlier
    epochs' validation errors give. In float64: at so high a rate rounding grows from step to step.
    """
    data, one = dataset(), run(epochs=6, evaluations=1, lr=0.3)
    data = replace(
        data, **{f"x_{part}": getattr(data, f"x_{part}").double() for part in ("train", "val", "test")}
    )
    state = t7.State([one], data, CPU)
    state.net.single.double()
    torch.manual_seed(0)
    copy = nn.Sequential(BandNorm.of(data.x_train), t7.built(one, data)).double()
    optimizer = torch.optim.SGD(copy.parameters(), lr=0.3, momentum=0.9)
    best, rate = math.inf, 0.3
    for epoch, (_, metrics) in enumerate(m for m in t7.train(state) if m[1]):
        order = torch.randperm(96, generator=torch.Generator().manual_seed(epoch)).view(-1, 16)
        copy.train()
        for index in order:
            loss = nn.functional.cross_entropy(copy(data.x_train[index]), data.y_train[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        copy.eval()
        error = 100 * (copy(data.x_val).argmax(1) != data.y_val).double().mean().item()
        assert metrics["val_error"] == [pytest.approx(error)] and metrics["rate"] == [pytest.approx(rate)]
        if error >= best:
            rate /= 2
        best = min(best, error)
        optimizer.param_groups[0]["lr"] = rate
    assert rate < 0.3  # some epoch was not better
    for a, b in zip(state.net.single.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_rate_falls_by_the_best_of_an_epochs_evaluations():
    state = t7.State([run()], dataset(), CPU)
    told = [(1, 50), (0, 60), (1, 55), (0, 50), (1, 40), (0, 70), (1, 45), (0, 41)]
    found = []
    for batch, error in told:  # batch 0: the end of an epoch
        state.batch, state.epoch = batch, state.epoch + (batch == 0)
        state.judge(float(error))
        found.append(state.halvings)
    assert found == [0, 0, 0, 1, 1, 1, 1, 2]


def test_the_rate_is_kept_for_keep_rate_epochs():
    state, found = t7.State([run(keep_rate=2)], dataset(), CPU), []
    for state.epoch in range(1, 6):  # none is better than the first
        state.judge(10.0)
        found.append(state.halvings)
    assert found == [0, 0, 1, 2, 3]
    assert state.rate(0) == 0.01


@pytest.mark.slow
def test_resuming_in_the_middle_of_an_epoch_changes_nothing():
    data, one = dataset(), run(epochs=4, lr=0.5)
    whole = t7.State([one], data, CPU)
    expected = [m for _, m in t7.train(whole) if m]
    for stop in range(1, 8):
        state, got = t7.State([one], data, CPU), []
        for _, metrics in t7.train(state):
            got.append(metrics)
            if len(got) == stop:
                break
        again = t7.State([one], data, CPU)
        again.load_state_dict(state.state_dict())
        got += [m for _, m in t7.train(again) if m]
        assert [m["train_loss"] for m in got] == [m["train_loss"] for m in expected]
        assert [m["rate"] for m in got] == [m["rate"] for m in expected]


def test_pictures_are_scaled_and_words_left_as_they_are():
    state = t7.State([run()], dataset(), CPU)
    x = torch.randn(3, 1, 14, 6)
    assert state.distort(x, torch.Generator()) is x
    pictures = torch.full((3, 1, 14, 6), 51, dtype=torch.uint8)
    torch.testing.assert_close(state.distort(pictures, torch.Generator()), torch.full((3, 1, 14, 6), 0.2))


def test_what_cannot_run_is_one_line():
    for changes, line in (
        ({"activation": "tanh"}, "model.activation=tanh: choose relu or sigmoid"),
        ({"lr": 0.0}, "optimizer.lr=0.0: the learning rate must be above 0"),
        ({"width": math.nan}, "model.width=nan"),
        ({"batch_size": 1}, "batch_size=1: batch statistics need at least 2"),
        ({"epochs": 0}, "epochs=0"),
    ):
        with pytest.raises(BadInput, match=line):
            run(**changes)
    with pytest.raises(BadInput, match="inputs of 3x32x32: this network wants one channel"):
        t7.State([run()], replace(dataset(), x_train=torch.zeros(4, 3, 32, 32)), CPU)
    with pytest.raises(BadInput, match="at least 11 bands"):
        t7.State([run()], replace(dataset(), x_train=torch.zeros(4, 1, 10, 6)), CPU)


@pytest.mark.parametrize("profile", ["smoke", "quick", "cpu", "paper"])
def test_grids_have_all_eight_cells_at_both_rates(composed, profile):
    points = grid.points(["table=T7", f"profile={profile}"], composed)
    found = {(p.row, p.column) for p in points}
    rows = {f"{a}_{n}_{r}" for a in ("relu", "sigmoid") for n in ("bn", "plain") for r in ("0.08", "0.008")}
    assert found == {(row, column) for row in rows for column in ("wm50", "wm100")}
    for p in points:  # named in the grid as the run names itself
        assert (p.assignment["row"], p.assignment["column"]) == (p.row, p.column)
    assert len({(p.run.epochs, p.run.batch_size, p.run.model.width) for p in points}) == 1


@pytest.mark.slow
def test_the_command_line_trains_the_halves(cli):
    done = cli("-m", "table=T7", "profile=smoke", "row=relu_bn_0.08,sigmoid_plain_0.008")
    assert done.returncode == 0, done.stderr
    records = cli.records("T7").values()
    assert {(r["cell"]["row"], r["cell"]["column"]) for r in records} == {
        (row, column) for row in ("relu_bn_0.08", "sigmoid_plain_0.008") for column in ("wm50", "wm100")
    }
    for r in records:
        assert r["curves"]["step"][-1] == 2 * (2 if r["cell"]["column"] == "wm50" else 4)
        assert r["metrics"]["chance"] == pytest.approx(90)


def test_a_share_is_refused_where_no_run_could_use_it(composed):
    """Table 2 keeps whitening under limit_train: with a share it would be that of other rows."""
    for table, value, line in (
        ("T7", "0", "data.share=0: a share above 0"),
        ("T7", "1.5", "data.share=1.5: a share above 0"),
        ("T2", "0.5", "data.share=0.5: this table trains on all there is; give data.limit_train=N"),
        ("T9", "0.5", "data.share=0.5: this table trains on all there is"),
    ):
        with pytest.raises(BadInput, match=line):
            grid.points([f"table={table}", "profile=smoke", f"data.share={value}"], composed)
    assert grid.points(["table=T2", "profile=smoke", "data.share=1"], composed)


def test_other_data_keep_the_columns_share(composed):
    words = ["table=T7", "profile=smoke", "row=relu_bn_0.08", "column=wm50,wm100", "data=fsdd"]
    found = grid.points(words, composed)
    assert [(p.column, p.run.data.name, p.run.data.share) for p in found] == [
        ("wm50", "fsdd", 0.5),
        ("wm100", "fsdd", 1.0),
    ]


def test_rows_of_numbers_and_other_networks_are_refused_in_one_line(composed):
    for words, line in (
        (["data=keel", "data.options.set=iris"], "data=keel: rows of numbers; this table wants pictures"),
        (["model=mlp"], "of the command or the table's grid: model=mlp has no"),
    ):
        with pytest.raises(BadInput, match=line):
            grid.points(["table=T7", "profile=smoke", "row=relu_bn_0.08", *words], composed)
    for table in ("T1", "T2", "T9"):
        with pytest.raises(BadInput, match="data=kdd_keel: rows of numbers"):
            grid.points([f"table={table}", "profile=smoke", "data=kdd_keel"], composed)
