"""Contrast normalisation and ZCA: formulas, fitted on training rows alone, kept in the cache."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data import whiten
from data.whiten import ZCA, gcn


def rows(n: int = 400, d: int = 12, seed: int = 0) -> Tensor:
    """Correlated rows, float64, off the origin; eigenvalues from about 0.003 to 40."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=g, dtype=torch.float64) + 2 * torch.eye(d, dtype=torch.float64)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ mixing + 3


def pictures(n: int = 30, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 4, 5), generator=g, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whiten, "CHUNK", 7)  # no multiple of any N here


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [55.0, 1.0])
def test_gcn_is_the_formula(dtype: torch.dtype, scale: float) -> None:
    x = pictures().to(dtype)
    ours = gcn(x, scale)
    assert ours.dtype == torch.float32 and ours.shape == x.shape
    for picture, result in zip(x.numpy().astype(np.float64), ours.numpy(), strict=True):
        centred = picture - picture.sum() / picture.size
        expected = scale * centred / np.sqrt((centred**2).sum())
        assert np.allclose(result, expected, rtol=1e-5, atol=1e-6 * scale)
    assert ours.flatten(1).norm(dim=1).numpy() == pytest.approx(scale, rel=1e-5)


def test_gcn_of_flat_and_faint_pictures() -> None:
    x = torch.full((2, 3, 4, 5), 0.1)
    assert gcn(x).abs().max() < 1e-3  # no rounding error is blown up to the norm 55
    assert gcn((x * 2550).to(torch.uint8)).abs().max() == 0
    faint = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    faint[..., 0] = 2e-9
    assert gcn(faint, scale=1.0, eps=1e-8).flatten().tolist() == pytest.approx([0.1, -0.1])  # 1e-9 / eps


def test_gcn_leaves_x_alone_and_takes_no_rows() -> None:
    x = pictures()
    before = x.clone()
    gcn(x)
    assert torch.equal(x, before)
    assert gcn(x[:0]).shape == (0, 3, 4, 5)


def test_zca_is_pca_whitening_rotated_back() -> None:
    from sklearn.decomposition import PCA

    x = rows()
    pca = PCA(whiten=True, svd_solver="full").fit(x.numpy())
    # scikit-learn divides by N - 1 where pylearn2 and we divide by N
    expected = pca.transform(x.numpy()) @ pca.components_ * np.sqrt(len(x) / (len(x) - 1))
    assert np.abs(ZCA.fit(x, eps=1e-12).transform(x).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("eps", [0.1, 2.0])
def test_zca_is_the_formula(eps: float) -> None:
    x = rows(50, 6)
    zca = ZCA.fit(x, eps)
    covariance = np.cov(x.numpy().T, ddof=0)
    # W is the positive root of (covariance + eps)^-1: symmetric, and W (covariance + eps) W = 1
    w = zca.matrix.numpy()
    assert np.allclose(w, w.T)
    assert np.linalg.eigvalsh(w).min() > 0
    assert np.allclose(w @ (covariance + eps * np.eye(6)) @ w, np.eye(6))
    assert np.allclose(zca.transform(x).numpy(), (x.numpy() - x.numpy().mean(0)) @ w)


def test_the_covariance_becomes_the_identity() -> None:
    x = rows()
    smallest = np.linalg.eigvalsh(np.cov(x.numpy().T, ddof=0)).min()
    for eps in (1e-3, 1e-6, 1e-10):
        white = ZCA.fit(x, eps).transform(x)
        away = np.linalg.norm(np.cov(white.numpy().T, ddof=0) - np.eye(12), 2)
        assert away == pytest.approx(eps / (smallest + eps), rel=1e-3, abs=1e-12)  # lambda / (lambda + eps)
        assert white.mean(0).abs().max() < 1e-9


def test_pictures_after_gcn() -> None:
    """Rows that sum to 0 have a singular covariance, fewer rows than columns even more so: eps holds it."""
    x = gcn(pictures(30))
    zca = ZCA.fit(x)
    white = zca.transform(x)
    assert white.shape == x.shape and white.dtype == torch.float32
    assert bool(white.isfinite().all())
    precise = zca.transform(x.double())
    assert precise.dtype == torch.float64
    assert (white - precise).abs().max() < 1e-4
    assert zca.transform(pictures()).dtype == torch.float32  # uint8, too
    assert zca.transform(x[:0]).shape == (0, 3, 4, 5)


def test_only_training_rows_matter() -> None:
    """The same matrix whatever is whitened later, and each row's result does not depend on the others."""
    train, test = rows(100), rows(40, seed=1) * 9
    zca = ZCA.fit(train)
    mean, matrix = zca.mean.clone(), zca.matrix.clone()
    together = zca.transform(torch.cat([train, test]))
    assert torch.equal(zca.mean, mean) and torch.equal(zca.matrix, matrix)
    assert torch.allclose(together[100:], zca.transform(test), rtol=0, atol=1e-12)
    assert torch.allclose(mean, train.mean(0))
    assert not torch.allclose(ZCA.fit(torch.cat([train, test])).matrix, matrix, rtol=0.1)


def test_fit_leaves_x_alone_and_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(50)
    before = x.clone()
    pieces = ZCA.fit(x)
    assert torch.equal(x, before)
    monkeypatch.setattr(whiten, "CHUNK", 1000)
    assert torch.allclose(pieces.matrix, ZCA.fit(x).matrix, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "eps", "message"),
    [
        (torch.zeros(5, 3), 0, "eps must be positive, not 0"),
        (torch.zeros(5, 3), float("nan"), "eps must be positive"),
        (torch.zeros(1, 3), 0.1, "two rows at least"),
        (torch.zeros(5), 0.1, "two rows at least"),
        (torch.full((5, 3), float("inf")), 0.1, "not finite"),
    ],
)
def test_bad_input(x: Tensor, eps: float, message: str, cache: Path) -> None:
    for make in (lambda: ZCA.fit(x, eps), lambda: ZCA.cached(x, cache, "key", eps)):
        with pytest.raises(ValueError, match=message):
            make()
    assert not list(cache.glob("*"))
    with pytest.raises(ValueError, match="fitted on rows of 12 values, not of 60"):
        ZCA.fit(rows()).transform(pictures())


# the cache


def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: object) -> ZCA:
        raise AssertionError("fitted again")

    monkeypatch.setattr(ZCA, "fit", fit)


def test_a_cache_hit_is_not_fitted_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(50)
    first = ZCA.cached(x, cache, "key")
    assert torch.equal(first.matrix, ZCA.fit(x).matrix)
    (path,) = cache.glob("*.npz")
    assert sorted(f.name for f in cache.iterdir()) == [path.with_suffix(".json").name, path.name]
    no_fit(monkeypatch)
    again = ZCA.cached(x, cache, "key")
    assert torch.equal(again.mean, first.mean) and torch.equal(again.matrix, first.matrix)
    assert torch.equal(again.transform(x), first.transform(x))


def test_another_key_eps_or_shape_is_fitted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(50)
    ZCA.cached(x, cache, "key")
    no_fit(monkeypatch)
    for other, key, eps in ((x, "other", 0.1), (x, "key", 0.2), (x[:-1], "key", 0.1), (x[:, 1:], "key", 0.1)):
        with pytest.raises(AssertionError, match="fitted again"):
            ZCA.cached(other, cache, key, eps)


@pytest.mark.parametrize("harm", ["cut", "empty", "bit", "no sidecar", "shapes", "pickle", "other arrays"])
def test_a_damaged_cache_is_made_again(harm: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data import store

    x = rows(50)
    first = ZCA.cached(x, cache, "key")
    (path,) = cache.glob("*.npz")
    raw = path.read_bytes()
    meta = store.sidecar(path)
    assert meta is not None
    if harm in ("cut", "empty", "bit"):
        flipped = bytearray(raw)
        flipped[len(raw) // 2] ^= 1
        path.write_bytes({"cut": raw[:-100], "empty": b"", "bit": bytes(flipped)}[harm])
    elif harm == "no sidecar":
        path.with_suffix(".json").unlink()
    else:
        arrays = {
            "shapes": {"mean": np.zeros(3), "matrix": np.zeros((3, 3))},
            "pickle": {"mean": np.array([{}], dtype=object), "matrix": np.zeros((12, 12))},
            "other arrays": {"mean": np.zeros(12)},
        }[harm]
        store.write(path, arrays, meta)
    again = ZCA.cached(x, cache, "key")
    assert torch.equal(again.mean, first.mean) and torch.equal(again.matrix, first.matrix)
    no_fit(monkeypatch)
    assert torch.equal(ZCA.cached(x, cache, "key").matrix, first.matrix)  # and it is whole now


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write prepared data"):
        ZCA.cached(rows(50), tmp_path / "file" / "below", "key")


def test_real_pictures(real_root: Path) -> None:
    """1,000 CIFAR-10 pictures of which the middle 8x8 is whitened: neighbours stop to go together."""
    import data

    try:
        d = data.load("cifar10", root=real_root, limit_train=1000)
    except data.DataSetMissing as e:
        pytest.skip(str(e))
    x = gcn(d.x_train[:, :, 12:20, 12:20].contiguous())

    def together(x: Tensor) -> float:
        a, b = x[:, 0, 4, 3].numpy(), x[:, 0, 4, 4].numpy()
        return float(np.corrcoef(a, b)[0, 1])

    assert together(x) > 0.6
    assert abs(together(ZCA.fit(x).transform(x))) < 0.3
