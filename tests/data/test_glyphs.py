"""Generated digits: the same bytes for the same options, labels that match, neither trivial nor hopeless."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import data
from data import glyphs


def small(cache: Path, **options) -> data.DataSet:
    return data.load("glyphs", cache=cache, **{"n_train": 40, "n_test": 20, "val_fraction": 0, **options})


def raw(cache: Path, **options) -> dict[str, np.ndarray]:
    return dict(np.load(data.prepare("glyphs", cache=cache, **{"n_train": 40, "n_test": 20, **options})))


def test_shape_and_counts(cache: Path) -> None:
    d = small(cache)
    assert d.x_train.shape == (40, 3, 32, 32)
    assert d.x_train.dtype == torch.uint8
    assert np.bincount(d.y_train).tolist() == [4] * 10
    assert np.bincount(d.y_test).tolist() == [2] * 10
    assert any("generated" in note for note in d.notes)


def test_another_process_makes_the_same_bytes(cache: Path) -> None:
    code = "import data, sys; print(data.fingerprint('glyphs', cache=sys.argv[1], n_train=40, n_test=20))"
    out = subprocess.run(
        [sys.executable, "-c", code, str(cache / "other")], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == small(cache).fingerprint


def test_more_pictures_begin_with_the_same(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = raw(cache), raw(cache, n_train=130, n_test=30)
    monkeypatch.setattr(glyphs, "CHUNK", 7)  # nor does the size of the pieces matter
    pieces = raw(cache, n_train=50, n_test=21)
    for part, n in (("train", 40), ("test", 20)):
        assert np.array_equal(few[f"x_{part}"], many[f"x_{part}"][:n])
        assert np.array_equal(few[f"x_{part}"], pieces[f"x_{part}"][:n])


def test_seeds_parts_and_domains_differ(cache: Path) -> None:
    sets = [
        raw(cache),
        raw(cache, seed=1),
        *(raw(cache, domain=d) for d in glyphs.DOMAINS if d != "textured"),
    ]
    pictures = [p.tobytes() for s in sets for part in ("x_train", "x_test") for p in s[part]]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize(("domain", "sign"), [("plain", 1), ("colour", 1), ("textured", 1), ("dark", -1)])
def test_ink_is_lighter_or_darker_than_the_ground(cache: Path, domain: str, sign: int) -> None:
    x = raw(cache, domain=domain, n_train=300)["x_train"].mean((0, 1))
    middle, border = x[10:22, 10:22].mean(), np.concatenate([x[0], x[-1]]).mean()
    assert sign * (middle - border) > 5


def test_plain_is_grey_and_the_others_are_not(cache: Path) -> None:
    for domain in glyphs.DOMAINS:
        x = raw(cache, domain=domain)["x_train"]
        assert np.array_equal(x[:, 0], x[:, 1]) == (domain == "plain")


def test_labels_match_the_pictures(cache: Path) -> None:
    """Five nearest neighbours, which know nothing of how the pictures were made, read most plain digits."""
    from sklearn.neighbors import KNeighborsClassifier

    s = raw(cache, domain="plain", n_train=3000, n_test=300)
    knn = KNeighborsClassifier(5).fit(s["x_train"][:, 0].reshape(3000, -1), s["y_train"])
    assert knn.score(s["x_test"][:, 0].reshape(300, -1), s["y_test"]) > 0.7


def test_the_generator_is_the_one_of_the_records(cache: Path) -> None:
    """Golden, for one version of FreeType: another may draw an edge a grey level differently."""
    from matplotlib import ft2font

    if ft2font.__freetype_version__ != "2.14.3":
        pytest.skip(f"the golden fingerprint is for FreeType 2.14.3, here is {ft2font.__freetype_version__}")
    assert small(cache).fingerprint == "2dde016a0b51f520"


@pytest.mark.slow
def test_a_small_network_learns_it_but_not_at_once() -> None:
    d = data.load("glyphs")
    torch.manual_seed(0)
    nn = torch.nn
    layers: list[torch.nn.Module] = []
    for i, o in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    from data.batches import take

    for _ in range(8):
        for index in torch.randperm(len(d.y_train)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(take(d.x_train, index)), d.y_train[index]).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        predicted = net(take(d.x_test, torch.arange(len(d.y_test)))).argmax(1)
    error = (predicted != d.y_test).double().mean().item()
    assert 0.03 < error < 0.3


def test_half_the_size_is_the_mean_of_four_pixels(tmp_path):
    few = {"n_train": 20, "n_test": 10, "cache": tmp_path}
    large, small = (data.load("glyphs", **few, size=size) for size in (32, 16))
    assert small.x_test.shape == (10, 3, 16, 16) and "at 16x16" in small.notes[0]
    expected = torch.nn.functional.avg_pool2d(large.x_test.double(), 2)
    assert (small.x_test.double() - expected).abs().max() <= 0.5
    with pytest.raises(ValueError, match="size must be 32 or 16"):
        data.load("glyphs", **few, size=8)
