"""The benchmarks of the image tables still build what they time."""

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import data
from experiments import images
from experiments.models import nin

FILE = Path(__file__).parents[2] / "benchmarks" / "bench_images.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_images", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("row", ["inception", "bn_x5", "nin_np", "nin_bn", "nin", "maxout"])
def test_every_row_trains(bench, row, tmp_path, monkeypatch):
    monkeypatch.setenv("BN_DATA_CACHE", str(tmp_path))
    found = data.load("glyphs", limit_train=100, limit_eval=20, n_train=200, n_test=20)
    state = bench.state_of(bench.a_run(row, 1 / 16), found)
    if row in ("nin", "maxout"):
        assert state.data.x_train.dtype == torch.float32  # whitened
        return
    before = [p.detach().clone() for p in state.net.single[1].parameters()]
    *_, (_, metrics) = images.train(state)
    assert metrics is not None and math.isfinite(metrics["train_loss"][0])
    after = state.net.single[1].parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("row", ["inception", "bn_x5", "nin_np", "nin_bn"])
def test_the_plain_recipe_is_the_same_network(bench, row):
    """The logits of torch's plain layers are those of ours, given the same weights."""
    run = bench.a_run(row, 1 / 16)
    torch.manual_seed(0)
    net, forward, filters = bench.plain_network(run)
    found = data.load("glyphs", limit_train=100, limit_eval=20, n_train=200, n_test=20)
    ours = bench.state_of(run, found).net.single[1]
    ours.load_state_dict(net.state_dict())
    x = torch.rand(4, 3, 32, 32)
    net.eval(), ours.eval()
    torch.testing.assert_close(forward(x), ours(x), rtol=1e-3, atol=1e-4)
    with torch.no_grad():  # and the same filters are rescaled where accuracy is compared
        nin.unit_filters_(ours)
        for w in filters:
            w.div_(w.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    torch.testing.assert_close(net.state_dict(), ours.state_dict())
    assert len(filters) == (8 if run.table == "T2" else 0)


def test_the_plain_recipe_trains(bench):
    found = data.load("glyphs", limit_train=100, limit_eval=20, n_train=200, n_test=20)
    steps = bench.plain_steps(bench.a_run("nin_bn", 1 / 16), found, 0, 1)
    (logits,) = itertools.islice(steps, 1)
    assert logits(found.x_test).shape == (len(found.y_test), 10)


@pytest.mark.slow
def test_memory_is_measured():
    """Data and activations of one small network are as counted by hand, and its peak is above them."""
    words = [sys.executable, str(FILE.parent / "bench_memory.py"), "one", f"nin_np={1 / 16}"]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr
    row, width, model, activations, pictures, peak, ratio = done.stdout.split()
    assert (row, float(width)) == ("nin_np", 1 / 16)
    assert int(pictures) == round(6000 * 3 * 32 * 32 / 2**20)  # 4,000 + 2,000 pictures of bytes
    assert int(model) == 0 and 5 < int(activations) < 60
    needed = int(activations) + int(pictures)
    assert int(peak) > needed
    assert float(ratio.rstrip("x")) == pytest.approx(int(peak) / needed, rel=0.1)


def test_operations_are_those_of_the_convolutions(monkeypatch, composed):
    """NIN + NP of quick, by the table of its layers: two operations a weight and position."""
    monkeypatch.syspath_prepend(str(FILE.parent))
    import predict_images

    from experiments import grid

    words = ["table=T2", "profile=quick", "row=nin_np", "column=cifar10", "seed=0"]
    (point,) = grid.points(words, composed)
    c = [24, 20, 12, 24, 24, 24, 24, 24, 10]  # an eighth of the printed filters
    inputs, sizes = [3, *c[:-1]], [5, 1, 1, 5, 1, 1, 5, 1, 1]
    side = [16, 16, 8, 8, 8, 4, 4, 4, 4]
    expected = sum(2 * i * o * k * k * s * s for i, o, k, s in zip(inputs, c, sizes, side, strict=True))
    found = predict_images.forward_operations(point.run, (3, 16, 16), 10)
    assert found == expected
    assert predict_images.operations(point.run, {}) == expected * 16 * (3 * 3240 + 360 + 1000)
    words = ["table=T7", "profile=cpu", "row=relu_bn_0.08", "column=wm50", "seed=0"]
    (point,) = grid.points(words, composed)
    forward = predict_images.forward_operations(point.run, (1, 40, 100), 10)
    assert predict_images.operations(point.run, {}) == forward * 60 * (3 * 750 + 500 + 1000)  # half of 1,500
