"""Table 9: rows, training beside Table 2's, the balance of pieces, what cannot run."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data import DataSet
from experiments import grid, images
from experiments import table_09_mim as t9
from experiments.config import BadInput, Data, Norm, Optimizer, identity
from experiments.models import maxout
from experiments.models.inputs import Standardise

CPU = torch.device("cpu")


def dataset(n=60, size=12, classes=4, channels=3):
    torch.manual_seed(0)

    def part(m):
        y = torch.arange(m) % classes
        x = (torch.rand(m, channels, size, size) * 80 + 40 * y[:, None, None, None]).to(torch.uint8)
        return x, y

    (a, b), (c, d), (e, f) = part(n), part(24), part(24)
    names = tuple(str(i) for i in range(classes))
    return DataSet("pictures", a, b, c, d, e, f, names, "print", "", "", (), "error")


def run(norm="batch", model="mim", **changes):
    keys = ("activation", "pieces", "blocks", "equal")
    more = {k: changes.pop(k) for k in keys if k in changes}
    network = t9.Network(model, changes.pop("size", "mnist"), changes.pop("width", 0.05),
                         changes.pop("dropout", 0.0), changes.pop("start", [0.05]), **more)  # fmt: skip
    plan = t9.Schedule(0.0, changes.pop("tenths", []), changes.pop("linear", []), changes.pop("growing", []))
    optimizer = Optimizer("SGD", changes.pop("lr", 0.05), 2.5e-4, {"momentum": 0.9})
    data = changes.pop("data", Data("mnist", 0.1, None, None, {}))
    made = t9.Run("T9", data, network, Norm(norm, {}), optimizer, "raw", False, plan, 20, 2, 1, 0)
    return t9.check(replace(made, **changes))


def test_rows_and_columns():
    named = {
        "mim": run(),
        "mim_plain": run("none"),
        "nin_bn": run(activation="relu"),
        "nin_plain": run("none", activation="relu"),
        "mim_b1": run(blocks=1),
        "mim_plain_b2": run("none", blocks=2),
        "mim_equal": run(equal=True),
        "mim_k3": run(pieces=3),
        "mim_group": run("group"),
        "nin": run("none", "lin_nin"),
        "nin_published_bn": run("batch", "lin_nin"),
        "maxout": run("none", "maxout"),
        "rcnn": run("none", "rcnn"),
    }
    for row, one in named.items():
        assert t9.cell(one) == (row, "mnist")
    assert t9.cell(run(data=Data("glyphs", 0.1, None, None, {})))[1] == "cifar10"
    assert t9.cell(run(flip=True))[1] == "mnist_flips"
    assert not {"activation", "pieces", "blocks", "equal"} & identity(run())["model"].keys()


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_training_is_what_torch_does(norm):
    """Against a loop written out, with torch's own maximum for maxout."""
    data, one = dataset(), run(norm, tenths=[1])
    state = t9.State([one], data, CPU)
    torch.manual_seed(0)
    copy = nn.Sequential(Standardise.of(data.x_train), t9.build(one, data)).double()
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, maxout.MaxPieces):
                setattr(parent, name, Plain(child.pieces))
    weights = [p for n, p in copy.named_parameters() if n.endswith("weight") and "norm" not in n]
    rest = [p for n, p in copy.named_parameters() if not n.endswith("weight") or "norm" in n]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": rest}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    found = [m for _, m in images.train(state) if m]
    for epoch in range(2):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(epoch)).view(-1, 20)
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * 0.1**epoch
        for index in order:
            loss = nn.functional.cross_entropy(copy(data.x_train[index].double() / 255), data.y_train[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for a, b in zip(state.net.single.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-3, atol=2e-4)
    copy.eval()
    wrong = copy(data.x_test.double() / 255).argmax(1) != data.y_test
    assert found[-1]["test_error"][0] == pytest.approx(100 * wrong.double().mean().item())


class Plain(nn.Module):
    def __init__(self, pieces):
        super().__init__()
        self.pieces = pieces

    def forward(self, x):
        return torch.stack(x.chunk(self.pieces, 1)).max(0).values


def test_what_is_watched_by_formula():
    """Shares of pieces over all test pictures, counted in numpy from the inputs of each maxout."""
    data = dataset()
    state = t9.State([run(blocks=1)], data, CPU)
    inputs = []
    layers = [m for m in state.net.single.modules() if isinstance(m, maxout.MaxPieces)]
    hooks = [m.register_forward_pre_hook(lambda _, x: inputs.append(x[0].detach())) for m in layers]
    state.net.eval()
    state.net.single(data.x_test.float() / 255)
    for hook in hooks:
        hook.remove()
    found = state.watched()
    assert len(layers) == 3 and found["chance"] == 75
    for i, x in enumerate(inputs, 1):
        first, second = np.split(x.numpy(), 2, axis=1)
        p = (first >= second).mean((0, 2, 3))
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.nan_to_num(p * np.log(p)) + np.nan_to_num((1 - p) * np.log(1 - p))
        assert found[f"entropy_{i}"] == pytest.approx(-terms.mean() / math.log(2), abs=1e-6)
        assert found[f"degenerate_{i}"] == pytest.approx((np.maximum(p, 1 - p) > 0.95).mean())
    assert found["entropy"] == pytest.approx(np.mean([found[f"entropy_{i}"] for i in (1, 2, 3)]))
    assert found["parameters"] == sum(p.numel() for p in state.net.single.parameters())


@pytest.mark.parametrize(
    "model, norm", [("mim", "batch"), ("lin_nin", "none"), ("rcnn", "none"), ("maxout", "none")]
)
def test_every_network_trains_and_is_watched(model, norm):
    data = dataset(size=28 if model == "maxout" else 12)
    state = t9.State([run(norm, model, epochs=1, dropout=0.2)], data, CPU)
    (found,) = [m for _, m in images.train(state) if m]
    layers = {"mim": 9, "lin_nin": 9, "rcnn": 5, "maxout": 3}[model]
    assert f"entropy_{layers}" in found and f"entropy_{layers + 1}" not in found
    assert 0 <= found["entropy"][0] <= 1 and math.isfinite(found["train_loss"][0])


def test_filters_of_maxout_keep_their_limits():
    data = dataset(size=28, channels=1)
    state = t9.State([run("none", "maxout", lr=5.0)], data, CPU)
    list(images.train(state))
    net = state.net.single[1]
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    for conv, limit in zip(convs, (0.9, 1.9365, 1.9365), strict=True):
        lengths = conv.weight.flatten(1).norm(dim=1)
        assert (lengths <= limit * 1.0001).all() and lengths.isfinite().all()


def test_equal_has_the_parameters_of_relu():
    data = dataset(size=28, channels=1)

    def count(**changes):
        return sum(p.numel() for p in t9.build(run(width=0.5, **changes), data).parameters())

    assert count(equal=True) == pytest.approx(count(activation="relu"), rel=0.03)
    assert count() > 1.8 * count(activation="relu")


def test_what_cannot_run_is_one_line():
    for changes, line in (
        ({"blocks": 4}, "model.blocks=4: choose 1, 2 or 3"),
        ({"pieces": 1}, "model.pieces=1: a maxout unit has 2 pieces or more"),
        ({"activation": "tanh"}, "model.activation=tanh: choose maxout or relu"),
        ({"size": "svhn"}, "model.size=svhn: choose cifar or mnist"),
        ({"norm": "normprop"}, "norm=normprop: it replaces ReLU layers"),
        ({"model": "maxout"}, "norm=batch: maxout has none here"),
        ({"model": "rcnn"}, "norm=batch: rcnn has none here"),
        ({"batch_size": 1}, "batch_size=1: must be at least 2 here"),
        ({"equal": True, "activation": "relu"}, "model.equal=True: activation=relu is what others"),
        ({"model": "maxout", "norm": "none", "start": []}, r"model.start=..: give numbers above 0"),
        ({"model": "lin_nin", "norm": "none", "start": [-1.0]}, r"model.start=.-1.0.: give numbers"),
        ({"linear": [3]}, "schedule.linear=.3.: give"),
        ({"growing": [3, 1.0]}, "schedule.momentum=.3, 1.0.: give"),
    ):
        with pytest.raises(BadInput, match=line):
            run(**changes)
    with pytest.raises(BadInput, match="model=mim: images of 2x2 are too small"):
        t9.State([run()], replace(dataset(), x_train=torch.zeros(4, 3, 2, 2, dtype=torch.uint8)), CPU)


def test_what_a_network_does_not_have_makes_no_other_run():
    for one, other in (
        (run("none", "maxout"), run("none", "maxout", pieces=5, blocks=1, activation="relu")),
        (run("none", "rcnn"), run("none", "rcnn", start=[0.3], equal=True)),
        (run(activation="relu"), run(activation="relu", pieces=3, start=[])),
    ):
        assert identity(one) == identity(other)
    assert identity(run()) != identity(run(pieces=3))


def test_a_network_of_nan_has_no_balance():
    """Nothing wins there; a share of 1 for the first piece would count as a degenerate unit."""
    for changes in ({}, {"activation": "relu"}):
        state = t9.State([run("none", **changes)], dataset(), CPU)
        for _, p in state.net.named_parameters():
            nn.init.constant_(p, math.nan)
        found = state.watched()
        for key in ("entropy", "degenerate", "entropy_1", "degenerate_9"):
            assert math.isnan(found[key])


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["smoke", "quick", "cpu", "paper"])
def test_grids_have_the_tables_rows_and_the_two_by_two(composed, profile):
    points = grid.points(["table=T9", f"profile={profile}"], composed)
    found = {(p.row, p.column) for p in points}
    rows = ("maxout", "nin", "rcnn", "mim", "mim_plain", "nin_bn", "nin_plain")
    assert {(row, column) for row in rows for column in ("mnist", "cifar10")} <= found
    deep = ("mim_b1", "mim_b2", "mim_plain_b1", "mim_plain_b2", "mim_equal")
    assert {(row, "mnist") for row in deep} <= found
    for p in points:  # named in the grid as the run names itself
        assert (p.assignment["row"], p.assignment["column"]) == (p.row, p.column)


def test_the_command_line_trains_the_four_printed_rows(cli):
    done = cli("-m", "table=T9", "profile=smoke", "column=mnist", "row=maxout,nin,rcnn,mim")
    assert done.returncode == 0, done.stderr
    found = {r["cell"]["row"]: r["metrics"] for r in cli.records("T9").values()}
    assert found.keys() == {"maxout", "nin", "rcnn", "mim"}
    assert all(0 <= m["entropy"] <= 1 and m["chance"] == 90 for m in found.values())
