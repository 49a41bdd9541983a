"""Table 1: the Inception networks, distortions, the recipe's switches, section 4.1, runs on two processes."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from torch import nn

import norms
from data import DataSet, augment
from experiments import grid, images, job
from experiments import table_01_inception as t1
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.models import inception
from experiments.models.global_batch import GlobalBatchNorm
from experiments.models.inputs import Standardise
from experiments.models.sigmoid import Binarise, SigmoidNet
from tests.experiments import two_processes

CPU = torch.device("cpu")


def batch_norm(channels):
    return norms.build("batch", channels, dim=2)


def dataset(n=96, size=8, classes=4, channels=3):
    torch.manual_seed(0)

    def part(m):
        y = torch.arange(m) % classes
        x = (torch.rand(m, channels, size, size) * 80 + 40 * y[:, None, None, None]).to(torch.uint8)
        return x, y

    (a, b), (c, d), (e, f) = part(n), part(40), part(40)
    names = tuple(str(i) for i in range(classes))
    return DataSet("pictures", a, b, c, d, e, f, names, "", "", "", (), "error")


def run(norm="batch", **changes):
    recipe = replace(t1.BASELINE, **{k: changes.pop(k) for k in list(changes) if k in t1.SWITCHES})
    network = t1.Network(
        "inception", "small", changes.pop("width", 0.0625), changes.pop("activation", "relu")
    )
    made = t1.Run("T1", Data("pictures", 0.1, None, None, {}), network, Norm(norm, {}),
                  Optimizer("SGD", 0.01, 5e-5, {"momentum": 0.9}), recipe, True, 2.0, 16, 2, 2,
                  0)  # fmt: skip
    return t1.check(replace(made, **changes))


# ---- the networks ------------------------------------------------------------------------------------------

# Channels of the paper's table, typed again: in, 1x1, 3x3 reduce, 3x3, double reduce, double, projection.
TABLE = [
    (192, 64, 64, 64, 64, 96, 32), (256, 64, 64, 96, 64, 96, 64), (320, 0, 128, 160, 64, 96, 0),
    (576, 224, 64, 96, 96, 128, 128), (576, 192, 96, 128, 96, 128, 128), (576, 160, 128, 160, 128, 160, 96),
    (576, 96, 128, 192, 160, 192, 96), (576, 0, 128, 192, 192, 256, 0), (1024, 352, 192, 320, 160, 224, 128),
    (1024, 352, 192, 320, 192, 224, 128),
]  # fmt: skip
OUTPUTS = [256, 320, 576, 576, 576, 576, 576, 1024, 1024, 1024]  # as the table prints them
SIZES = [28, 28, 14, 14, 14, 14, 14, 7, 7, 7]


def counted():
    """With batch normalisation and 1,000 classes: convolutions without bias, two numbers a channel."""
    weights = 3 * 8 * 49 + 24 * 64 + 64 * 64 + 9 * 64 * 192
    channels = 64 + 64 + 192
    for i, one, r3, three, r33, double, project in TABLE:
        weights += i * (one + r3 + r33 + project) + 9 * (r3 * three + r33 * double + double * double)
        channels += one + r3 + three + r33 + 2 * double + project
    return weights + 2 * channels + 1024 * 1000 + 1000


def test_parameters_of_the_papers_table():
    """11.2 million by its table; its text says 13.6 (stated on the page, not explained)."""
    net = inception.Inception((3, 224, 224), 1000, batch_norm, "full")
    count = sum(p.numel() for p in net.parameters())
    assert count == counted() and 11.1e6 < count < 11.4e6


def test_sizes_of_the_papers_table():
    net = inception.Inception((3, 224, 224), 10, batch_norm, "full", width=0.125).eval()
    seen = []
    for module in net.body:
        module.register_forward_hook(lambda m, i, o: seen.append(o.shape[-1]))
    net(torch.rand(1, 3, 224, 224))
    assert seen == SIZES
    with torch.device("meta"):
        whole = inception.Inception((3, 224, 224), 1000, batch_norm, "full")
    assert [m.outputs for m in whole.body] == OUTPUTS


@pytest.mark.parametrize("row", [inception.SMALL[0], inception.SMALL[1]], ids=["stride 1", "stride 2"])
def test_a_module_is_its_branches_side_by_side(row):
    torch.manual_seed(0)
    module = inception.Module(24, row, batch_norm, nn.ReLU).double().eval()
    x = torch.randn(2, 24, 8, 8, dtype=torch.float64)

    def unit(u, x, stride=1):
        y = nn.functional.conv2d(x, u.conv.weight, None, stride, u.conv.weight.shape[-1] // 2)
        return ((y - u.norm.running_mean.view(-1, 1, 1)) / (1 + u.norm.eps) ** 0.5).clamp(min=0)

    a, b = module.branch3
    c, d, e = module.branch33
    branches = [unit(module.branch1, x)] if row.one else []
    branches += [unit(b, unit(a, x), row.stride), unit(e, unit(d, unit(c, x)), row.stride)]
    pooled = {
        "avg": partial(nn.functional.avg_pool2d, kernel_size=3, stride=1, padding=1),
        "max": partial(nn.functional.max_pool2d, kernel_size=3, stride=row.stride, padding=1),
    }[row.pool](x)
    branches.append(unit(module.branch_pool[1], pooled) if row.project else pooled)
    torch.testing.assert_close(module(x), torch.cat(branches, 1))
    assert module(x).shape[1] == module.outputs


def test_with_a_normaliser_convolutions_have_no_bias_and_without_they_have():
    for norm, biased in ((batch_norm, False), (lambda n: nn.Identity(), True)):
        net = inception.Inception((3, 32, 32), 10, norm, "small", 0.125)
        convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        assert len(convolutions) == 5 + 7 + 5 + 7 + 7 + 5 + 7  # the stem and six modules
        assert all((m.bias is not None) is biased for m in convolutions)


def test_local_response_is_torchs():
    x = (torch.randn(2, 9, 5, 5, dtype=torch.float64) * 50).requires_grad_()
    ours, theirs = inception.LocalResponse()(x), nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)(x)
    torch.testing.assert_close(ours, theirs)
    (a,), (b,) = (torch.autograd.grad(y.sin().sum(), x) for y in (ours, theirs))
    torch.testing.assert_close(a, b)


def test_sigmoids_by_formula():
    torch.manual_seed(0)
    net = SigmoidNet(6, 3, lambda n: norms.build("batch", n, dim=1), units=5).double()
    x = torch.rand(7, 6, dtype=torch.float64)
    h = x
    for i in (1, 2, 3):
        linear = getattr(net.hidden, f"linear{i}")
        assert linear.bias is None
        u = h.numpy() @ linear.weight.detach().numpy().T
        u = (u - u.mean(0)) / np.sqrt(u.var(0) + 1e-5)
        h = torch.from_numpy(1 / (1 + np.exp(-u)))
    torch.testing.assert_close(net(x), nn.functional.linear(h, net.out.weight, net.out.bias))
    torch.testing.assert_close(Binarise()(torch.tensor([0.0, 0.49, 0.5, 1.0])), torch.tensor([0.0, 0, 1, 1]))
    wide = SigmoidNet(400, 10, lambda n: nn.Identity(), units=300)
    assert wide.hidden.linear1.weight.std().item() == pytest.approx(0.1, rel=0.02)


# ---- pictures ----------------------------------------------------------------------------------------------


def test_flips_and_crops_one_by_one():
    x = torch.arange(6 * 2 * 5 * 7).view(6, 2, 5, 7).to(torch.uint8)
    found = augment.pictures(x, torch.Generator().manual_seed(3), flip=True, pad=2) * 255
    draw = torch.Generator().manual_seed(3)
    mirrored, down, right = (torch.randint(high, (6,), generator=draw) for high in (2, 5, 5))
    for i in range(6):
        picture = nn.functional.pad(x[i], (2,) * 4)[:, down[i] : down[i] + 5, right[i] : right[i] + 7]
        expected = picture.flip(-1) if mirrored[i] else picture
        torch.testing.assert_close(found[i].round().to(torch.uint8), expected)
    assert mirrored.unique().numel() == 2
    shares = [
        augment.pictures(x[k::2], torch.Generator().manual_seed(3), True, 2, share=(k, 2)) for k in (0, 1)
    ]
    torch.testing.assert_close(torch.stack(shares, 1).flatten(0, 1) * 255, found)


def test_photometric_distortions_are_torchvisions():
    x = (torch.rand(5, 3, 6, 6) * 255).to(torch.uint8)
    found = augment.pictures(x, torch.Generator().manual_seed(1), photometric=True)
    factors = 1 + augment.JITTER * (2 * torch.rand(3, 5, generator=torch.Generator().manual_seed(1)) - 1)
    for i in range(5):
        picture = x[i].float() / 255
        for change, factor in zip(
            (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation), factors[:, i], strict=True
        ):
            picture = change(picture, factor.item())
        torch.testing.assert_close(found[i], picture, atol=2e-4, rtol=0)  # torchvision's luma has 4 digits


def test_standardised_pictures_have_mean_0_and_variance_1():
    x = (torch.rand(50, 3, 6, 6) * torch.tensor([255.0, 100, 10]).view(3, 1, 1)).to(torch.uint8)
    out = Standardise.of(x)(x.float() / 255)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


# ---- rows, switches, training ------------------------------------------------------------------------------


def test_every_switch_has_a_row_of_its_own():
    fast = {k: getattr(t1.ACCELERATED, k) for k in t1.SWITCHES}
    named = {
        "inception": run("none"),
        "bn_baseline": run(),
        "inception_x5": run("none", rate=5.0),
        "inception_sigmoid": run("none", activation="sigmoid"),
        "bn_x5": run(**{**fast, "rate": 5.0}),
        "bn_x30": run(**{**fast, "rate": 30.0}),
        "bn_x5_sigmoid": run(**{**fast, "rate": 5.0}, activation="sigmoid"),
        "bn_x5_without_reshuffle": run(**{**fast, "rate": 5.0, "reshuffle": False}),
        "bn_with_dropout": run(dropout=0.0),
        "bn_with_rate_x5": run(rate=5.0),
        "inception_recipe_x1": run("none", **fast),
        "group_baseline": run("group"),
    }
    for row, one in named.items():
        assert t1.cell(one) == (row, "imagenet")
    mlp = replace(run(), model=t1.Network("sigmoids", "small", 1.0, "sigmoid"))
    assert t1.cell(mlp) == ("sigmoids_bn", "mnist")
    assert t1.cell(replace(run(), data=Data("imagenette64", 0.1, None, None, {})))[1] == "imagenette"


def test_the_recipe_reaches_training():
    data = dataset()
    slow, fast = t1.State([run()], data, CPU), t1.State([run(rate=5.0, l2=5.0, decay=6.0)], data, CPU)
    assert fast.rate(0) == pytest.approx(0.05) and slow.rate(0) == pytest.approx(0.01)
    assert slow.rate(2.0) == pytest.approx(0.01 * 0.02)  # at the horizon
    assert fast.rate(1 / 3) == pytest.approx(0.05 * 0.02)  # a sixth of it
    decay = [[g["weight_decay"] for g in s.optimizer.param_groups] for s in (slow, fast)]
    assert decay == [[pytest.approx(1e-4), 0.0], [pytest.approx(2e-5), 0.0]]
    layers = [type(m).__name__ for m in t1.State([run(lrn=False)], data, CPU).net.single.modules()]
    assert "LocalResponse" not in layers
    assert "LocalResponse" in [type(m).__name__ for m in slow.net.single.modules()]


def test_without_reshuffling_the_same_pictures_share_a_batch():
    data = dataset()
    for reshuffle in (False, True):
        state = t1.State([run(reshuffle=reshuffle)], data, CPU)
        batches = []
        for state.epoch in (0, 1):
            order = state.order()
            assert order.shape == (6, 16) and order.unique().numel() == 96
            batches.append({frozenset(row.tolist()) for row in order})
        assert (batches[0] == batches[1]) is not reshuffle
        assert not torch.equal(state.order(), t1.State([run(reshuffle=reshuffle)], data, CPU).order())


def test_training_is_sgd_by_hand():
    """An epoch against torch.optim.SGD on a copy of the network, and the metrics of both evaluations."""
    data, one = dataset(), run("none", epochs=1, distortions="none", dropout=0.0)
    state = t1.State([one], data, CPU)
    torch.manual_seed(one.seed)
    copy = nn.Sequential(Standardise.of(data.x_train), t1.build(one, data))
    groups = [
        {"params": [p for n, p in copy.named_parameters() if n.endswith("weight") and "norm" not in n],
         "weight_decay": 1e-4},
        {"params": [p for n, p in copy.named_parameters() if not n.endswith("weight") or "norm" in n]},
    ]  # fmt: skip
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    found = [m for _, m in images.train(state) if m]
    order = t1.State([one], data, CPU).order()
    for step, index in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * 0.02 ** (step / 6 / 2)
        loss = nn.functional.cross_entropy(copy(data.x_train[index].float() / 255), data.y_train[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for a, b in zip(state.net.single.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert [m["step"] for m in found] == [[3], [6]]
    copy.eval()
    wrong = copy(data.x_test.float() / 255).argmax(1) != data.y_test
    assert found[-1]["test_error"][0] == pytest.approx(100 * wrong.double().mean().item())


def test_resuming_in_the_middle_of_an_epoch_changes_nothing():
    data, one = dataset(), run(dropout=0.4)
    whole = t1.State([one], data, CPU)
    expected = [m for _, m in images.train(whole) if m]
    torch.manual_seed(5)
    state = t1.State([one], data, CPU)
    got = []
    for _, metrics in images.train(state):
        got.append(metrics)
        break  # after the first evaluation, 3 of 6 steps
    saved, rng = state.state_dict(), torch.get_rng_state()
    again = t1.State([one], data, CPU)
    again.load_state_dict(saved)
    torch.set_rng_state(rng)
    got += [m for _, m in images.train(again) if m]
    assert [m["train_loss"] for m in got] == [m["train_loss"] for m in expected]
    for a, b in zip(again.net.single.parameters(), whole.net.single.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_batch_larger_than_the_set_is_said():
    with pytest.raises(BadInput, match="batch_size=200: pictures has 96 training pictures"):
        list(images.train(t1.State([run(batch_size=200)], dataset(), CPU)))


@pytest.mark.parametrize(
    "change, line",
    [
        ({"rate": 0.0}, "recipe.rate=0.0"),
        ({"dropout": 1.0}, "recipe.dropout=1.0"),
        ({"distortions": "some"}, "recipe.distortions=some: choose full, fewer, none"),
        ({"horizon": 0.0}, "horizon=0.0"),
        ({"evaluations": 0}, "evaluations=0"),
        ({"activation": "tanh"}, "model.activation=tanh: choose relu or sigmoid"),
        ({"width": math.nan}, "model.width=nan"),
    ],
)
def test_bad_values_are_one_line(change, line):
    with pytest.raises(BadInput) as caught:
        run(**change)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_section_4_1_watches_the_last_sigmoids():
    data = dataset(channels=1)
    one = replace(run("batch", distortions="none", dropout=0.0, decay=0.0), epochs=3,
                  model=t1.Network("sigmoids", "small", 0.1, "sigmoid"))  # fmt: skip
    state = t1.State([one], data, CPU)
    found = [m for _, m in images.train(state) if m]
    assert len(found) == 6
    for m in found:
        assert m["input_p15"][0] <= m["input_p50"][0] <= m["input_p85"][0]
    first, net = state.net.single
    net.eval()
    inputs = net.last_inputs(first(data.x_test.float() / 255))
    assert found[-1]["input_p50"][0] == pytest.approx(np.percentile(inputs[:, 0], 50), rel=1e-5)
    medians = torch.stack(state.medians)
    assert found[-1]["median_wander"][0] == pytest.approx(medians.numpy().std(0).mean(), rel=1e-5)


@pytest.mark.slow
def test_grids_have_the_surveys_rows(composed):
    rows = {
        "inception",
        "bn_baseline",
        "bn_x5",
        "bn_x30",
        "bn_x5_sigmoid",
        "inception_x5",
        "inception_sigmoid",
    }
    for profile in ("quick", "cpu", "paper"):
        points = grid.points(["table=T1", f"profile={profile}"], composed)
        assert rows <= {p.row for p in points}, profile
        for p in points:
            assert t1.cell(p.run)[0] == p.row
    assert {p.run.model.size for p in points if p.column == "imagenet"} == {"full"}  # paper


# ---- several processes -------------------------------------------------------------------------------------


def torchrun(cli, *words, processes=2):
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    return [
        *launcher,
        "-m",
        "experiments",
        *words,
        f"runs={cli.runs}",
        "report=false",
        "device=cpu",
        "threads=1",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_gradients_on_several_processes_are_those_of_one(tmp_path, processes):
    script = Path(two_processes.__file__)
    words = [f"--nproc-per-node={processes}", str(script), str(tmp_path / "found.pt")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2])}
    subprocess.run([sys.executable, "-m", "torch.distributed.run", *words], env=env, check=True, timeout=300)
    found, expected = (
        torch.load(tmp_path / "found.pt", weights_only=True),
        two_processes.step(two_processes.net()),
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


WORDS = ("table=T1", "profile=smoke", "row=inception", "epochs=3", "evaluations=2", "model.width=0.125")


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_resume(cli, tmp_path):
    alone = type(cli)(tmp_path / "alone")
    done = alone(*WORDS, "threads=1")
    assert done.returncode == 0, done.stderr
    (one,) = alone.records("T1").values()

    start = torchrun(cli, *WORDS, "checkpoint_every=0")
    first = subprocess.Popen(start, env=cli.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert cli.wait_for("T1/*/checkpoint.*.pt")
    (beat,) = cli.runs.glob("T1/jobs/*.json")
    os.kill(json.loads(beat.read_bytes())["pid"], signal.SIGKILL)
    assert first.wait() != 0
    assert not cli.records("T1")
    again = subprocess.run(start, env=cli.env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished") == 1  # the second process is silent
    (two,) = cli.records("T1").values()
    assert two["run_id"] == one["run_id"] and two["time"]["resumed"] == 1
    assert two["curves"]["step"] == one["curves"]["step"]
    np.testing.assert_allclose(two["curves"]["train_loss"], one["curves"]["train_loss"], rtol=1e-4)
    assert abs(two["metrics"]["test_accuracy_last"] - one["metrics"]["test_accuracy_last"]) <= 3


@pytest.mark.slow
def test_what_several_processes_cannot_do_is_one_line(cli):
    for words, line in (
        ((*WORDS, "batch_size=51"), "batch_size=51 cannot be divided among 2 processes"),
        ((*WORDS, "norm=renorm"), "takes statistics of its process's slice"),
        (("-m", *WORDS), "several processes train one run"),
    ):
        done = subprocess.run(torchrun(cli, *words), env=cli.env, capture_output=True, text=True, timeout=300)
        assert done.returncode != 0 and done.stderr.count(line) == 1, done.stderr
        assert not cli.records("T1")


def test_global_batch_norm_alone_is_batch_norm(monkeypatch):
    """On one process the formula is nn.BatchNorm2d's; that it sums over processes the runs above show."""
    import experiments.models.global_batch as room

    monkeypatch.setattr(room, "all_reduce", lambda x: x)
    torch.manual_seed(0)
    theirs = nn.BatchNorm2d(3).double()
    nn.init.normal_(theirs.weight)
    ours = GlobalBatchNorm(nn.BatchNorm2d(3).double())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x))
    (a,), (b,) = (torch.autograd.grad(m(x).sin().sum(), x) for m in (ours, theirs))
    torch.testing.assert_close(a, b)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(getattr(ours, name), buffer)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_pictures_on_the_disk_train_as_those_in_memory(tmp_path):
    """A folder too large for memory, in batches from worker processes."""
    from PIL import Image

    from data.stream import Pictures

    data = dataset(n=32)
    streamed = {}
    for part in ("train", "val", "test"):
        x = getattr(data, f"x_{part}")
        for i, picture in enumerate(x):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{part}{i}.png")
        files = [f"{part}{i}.png" for i in range(len(x))]

        def read(path, size, channels):
            return np.asarray(Image.open(path)).transpose(2, 0, 1)

        streamed[f"x_{part}"] = Pictures(tmp_path, files, (3, 8, 8), read)
    found = []
    for of in (data, replace(data, **streamed)):
        state = t1.State([run(epochs=1)], of, CPU)
        found.append([m for _, m in images.train(state) if m])
        found[-1].append(state.net.single[1].out.weight)
    for a, b in zip(*(f[:-1] for f in found), strict=True):
        assert {k: a[k] for k in a if k != "wrong"} == {k: b[k] for k in b if k != "wrong"}
        assert torch.equal(a["wrong"], b["wrong"])
    assert torch.equal(found[0][-1], found[1][-1])


def begun(composed, tmp_path, monkeypatch, *more):
    """The config of a run that was stopped at its first evaluation, and its checkpoint."""
    words = ["table=T1", "profile=smoke", "row=inception", "evaluations=2", "threads=1", *more]
    (point,) = grid.points(words, composed)
    point.member["paper"] = None
    cfg = composed([*grid.job_overrides([point]), f"runs={tmp_path / 'runs'}", "evaluations=2", *more])
    with monkeypatch.context() as stopped:
        stopped.setattr(job.Job, "asked_to_stop", lambda self: True)
        assert set(job.run(cfg).values()) == {"interrupted"}
    (checkpoint,) = tmp_path.glob("runs/T1/*/checkpoint.*.pt")
    return cfg, checkpoint


def the_record(tmp_path):
    (path,) = tmp_path.glob("runs/T1/*/record.json")
    return json.loads(path.read_bytes())


def test_a_picture_that_cannot_be_read_halfway_stops_the_run_and_loses_nothing(
    composed, tmp_path, monkeypatch
):
    from PIL import Image

    from data import folder

    monkeypatch.setattr(folder, "LIMIT", 100)  # pictures are read as they are needed
    rng = np.random.default_rng(0)
    for part, n in (("train", 100), ("test", 10)):
        for c in ("a", "b"):
            (tmp_path / "p" / part / c).mkdir(parents=True)
            for i in range(n):
                picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
                picture.save(tmp_path / "p" / part / c / f"{i}.png")
    words = ["data=folder", f"data.path={tmp_path / 'p'}", f"data.cache={tmp_path / 'cache'}"]
    words += ["data.options.size=16", "data.options.channels=3"]
    cfg, checkpoint = begun(composed, tmp_path, monkeypatch, *words)
    whole = {f: f.read_bytes() for f in (tmp_path / "p" / "train").rglob("*.png")}
    for f, content in whole.items():
        f.write_bytes(content[:300] + bytes(len(content) - 300))
    with pytest.raises(BadInput, match=r"png cannot be read as a picture .* remove or replace it$"):
        job.run(cfg)
    assert checkpoint.exists() and not list(tmp_path.glob("runs/T1/*/record.json"))
    for f, content in whole.items():
        f.write_bytes(content)
    assert set(job.run(cfg).values()) == {"finished"}
    assert the_record(tmp_path)["time"]["resumed"] == 1


def test_a_checkpoint_of_another_architecture_is_kept_and_said(composed, tmp_path, monkeypatch, capsys):
    cfg, checkpoint = begun(composed, tmp_path, monkeypatch)
    content = checkpoint.read_bytes()
    monkeypatch.setattr(job.provenance, "code_hash", lambda *a: "0" * 16)  # its file was edited meanwhile
    assert set(job.run(cfg).values()) == {"finished"}
    (line,) = capsys.readouterr().err.splitlines()
    (kept,) = checkpoint.parent.glob("old.*.pt")
    assert "the code has changed since its checkpoint" in line and str(kept) in line
    assert kept.read_bytes() == content
    assert the_record(tmp_path)["time"]["resumed"] == 0
