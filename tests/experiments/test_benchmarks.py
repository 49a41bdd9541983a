"""The benchmarks of the image tables still build what they time."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch

import data
from experiments import images

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
    assert all(m is None or "test_error" in m for _, m in images.train(state))


@pytest.mark.parametrize("row", ["inception", "bn_x5", "nin_np", "nin_bn"])
def test_the_plain_recipe_is_the_same_network(bench, row):
    """The logits of torch's plain layers are those of ours, given the same weights."""
    run = bench.a_run(row, 1 / 16)
    torch.manual_seed(0)
    net, forward = bench.plain_network(run)
    found = data.load("glyphs", limit_train=100, limit_eval=20, n_train=200, n_test=20)
    ours = bench.state_of(run, found).net.single[1]
    ours.load_state_dict(net.state_dict())
    x = torch.rand(4, 3, 32, 32)
    net.eval(), ours.eval()
    torch.testing.assert_close(forward(x), ours(x), rtol=1e-3, atol=1e-4)


def test_the_plain_recipe_trains(bench):
    found = data.load("glyphs", limit_train=100, limit_eval=20, n_train=200, n_test=20)
    steps = bench.plain_steps(bench.a_run("nin_bn", 1 / 16), found, 0, 1)
    (logits,) = itertools.islice(steps, 1)
    assert logits(found.x_test).shape == (len(found.y_test), 10)


def test_memory_is_measured(monkeypatch, capsys):
    """Model, activations and data are counted by hand for one small network; the peak is above 0."""
    monkeypatch.syspath_prepend(str(FILE.parent))
    import bench_memory

    bench_memory.one("nin_np", 1 / 16)
    row, width, model, activations, pictures, peak, ratio = capsys.readouterr().out.split()
    assert (row, float(width)) == ("nin_np", 1 / 16)
    assert int(pictures) == round(6000 * 3 * 32 * 32 / 2**20)  # 4,000 + 2,000 pictures of bytes
    assert int(model) == 0 and 5 < int(activations) < 60 and int(peak) >= 0 and ratio.endswith("x")


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
