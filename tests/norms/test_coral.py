"""CORAL and its loss against their formulas written out in numpy and scipy."""

import copy
import pickle

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck

from norms.coral import Coral, coral_loss

F64 = torch.float64


def features(n=40, d=5, seed=0, rank=None):
    """Correlated features of different scale and mean."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(rank or d, d)) * np.linspace(0.3, 3, d)
    return torch.from_numpy(rng.normal(size=(n, rank or d)) @ mix + rng.normal(size=d))


def cov(x):
    x = np.asarray(x)
    centred = x - sum(x) / len(x)
    return sum(np.outer(row, row) for row in centred) / (len(x) - 1)


@pytest.mark.parametrize("regularization", [0.0, 0.1, 1, 30.0])
def test_map_against_scipy(regularization):
    source, target = features(seed=1), features(33, seed=2)
    roots = [scipy.linalg.sqrtm(cov(x) + regularization * np.eye(5)) for x in (source, target)]
    expected = np.asarray(source) @ np.linalg.inv(roots[0]) @ roots[1]
    coral = Coral(regularization)
    assert coral.fit(source, target) is coral
    np.testing.assert_allclose(coral.transform(source), expected, rtol=1e-10, atol=1e-10)


def test_the_default_is_the_papers():
    source, target = features(seed=1), features(seed=2)
    roots = [scipy.linalg.sqrtm(cov(x) + np.eye(5)) for x in (source, target)]
    np.testing.assert_allclose(
        Coral().fit(source, target).matrix, np.linalg.inv(roots[0]) @ roots[1], rtol=0, atol=1e-11
    )


def test_it_takes_the_regularised_covariance_to_that_of_the_target():
    source, target = features(seed=1), features(seed=2)
    matrix = Coral().fit(source, target).matrix.numpy()
    np.testing.assert_allclose(
        matrix.T @ (cov(source) + np.eye(5)) @ matrix, cov(target) + np.eye(5), rtol=1e-10, atol=1e-10
    )
    mapped = Coral(0.0).fit(source, target).transform(source)
    np.testing.assert_allclose(cov(mapped), cov(target), rtol=1e-10, atol=1e-10)
    assert coral_loss(mapped, target) < 1e-20 < 1e-2 < coral_loss(source, target)


def test_equal_domains_stay_as_they_are():
    source = features()
    for regularization in (0.0, 1.0):
        mapped = Coral(regularization).fit(source, source + 4).transform(source)  # the mean has no part in it
        torch.testing.assert_close(mapped, source, rtol=0, atol=1e-11)


def test_rank_deficient_features():
    """More features than examples, and constant ones."""
    source, target = features(60, 12, seed=1, rank=4), features(7, 12, seed=2)
    source[:, 3] = target[:, 5] = 2.0
    values, vectors = np.linalg.eigh(cov(source))
    keep = vectors[:, values > 1e-9]
    assert keep.shape[1] == 4
    values, vectors = np.linalg.eigh(cov(target))
    root = vectors * np.sqrt(np.where(values > 1e-9, values, 0)) @ vectors.T
    mapped = Coral(0.0).fit(source, target).transform(source)
    np.testing.assert_allclose(cov(mapped), root @ keep @ keep.T @ root, rtol=0, atol=1e-10)
    matrix = Coral().fit(source, target).matrix.numpy()
    np.testing.assert_allclose(
        matrix.T @ (cov(source) + np.eye(12)) @ matrix, cov(target) + np.eye(12), rtol=1e-9, atol=1e-9
    )
    assert torch.isfinite(Coral(0.0).fit(torch.ones(3, 2), features(5, 2)).matrix).all()
    # Features of small scale are features, not rounding.
    mapped = Coral(0.0).fit(1e-9 * features(seed=1), features(seed=2)).transform(1e-9 * features(seed=1))
    np.testing.assert_allclose(cov(mapped), cov(features(seed=2)), rtol=1e-8, atol=1e-8)


def test_dtypes_and_gradient():
    source, target = features(seed=1), features(seed=2)
    exact = Coral().fit(source, target)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        coral = Coral().fit(source.to(dtype), target.to(dtype))
        mapped = coral.transform(source.to(dtype))
        assert mapped.dtype == dtype and coral.matrix.dtype == F64
        torch.testing.assert_close(
            mapped.double(), exact.transform(source), rtol=tolerance, atol=10 * tolerance
        )
    source.requires_grad_()
    assert not exact.fit(source, target).matrix.requires_grad
    exact.transform(source).sum().backward()
    torch.testing.assert_close(source.grad, exact.matrix.sum(1).expand(40, 5))


def test_copies_and_repr():
    source, target = features(seed=1), features(seed=2)
    coral = Coral(0.5).fit(source, target)
    for other in (copy.deepcopy(coral), pickle.loads(pickle.dumps(coral))):
        assert torch.equal(other.transform(source), coral.transform(source))
    assert repr(coral) == "Coral(regularization=0.5)"
    assert coral.transform(source[:0]).shape == (0, 5)


# ---- the loss ------------------------------------------------------------------------------------


def test_loss_against_numpy():
    source, target = features(12, 4, seed=1), features(9, 4, seed=2)
    total = sum((cov(source)[i, j] - cov(target)[i, j]) ** 2 for i in range(4) for j in range(4))
    assert coral_loss(source, target).item() == pytest.approx(total / (4 * 4**2), rel=1e-12)
    assert coral_loss(source, target) == coral_loss(target, source)
    assert coral_loss(source, source - 8).abs() < 1e-24
    assert coral_loss(2 * source, 2 * target).item() == pytest.approx(total / 4, rel=1e-12)


def test_loss_gradients():
    source, target = (features(n, 3, seed=n).requires_grad_() for n in (4, 5))
    assert gradcheck(coral_loss, (source, target))
    assert gradgradcheck(coral_loss, (source, target))
    stacked = torch.func.vmap(coral_loss)(torch.stack([source, 2 * source]), torch.stack([target, target]))
    torch.testing.assert_close(
        stacked, torch.stack([coral_loss(source, target), coral_loss(2 * source, target)])
    )


def test_loss_in_half_precision_and_under_autocast():
    source, target = features(50, seed=1).float(), features(50, seed=2).float()
    expected = coral_loss(source, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(coral_loss(source, target), expected)
    low = coral_loss(source.bfloat16(), target.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, expected, rtol=0.05, atol=0)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("regularization", [-1, float("nan"), float("inf"), True, "a", None, [1]])
def test_bad_regularization(regularization):
    with pytest.raises(ValueError, match=r"^regularization=.*: give a number from 0$"):
        Coral(regularization)


@pytest.mark.parametrize("call", [coral_loss, lambda a, b: Coral().fit(a, b)])
@pytest.mark.parametrize(
    "source,target,message",
    [
        ((5,), (4, 3), r"expected 2D source \(got 1D input of size \[5\]\)"),
        ((4, 3), (4, 3, 2), r"expected 2D target \(got 3D input of size \[4, 3, 2\]\)"),
        ((4, 3), (4, 2), "expected as many features of the source as of the target, got 3 and 2"),
        ((1, 3), (4, 3), r"expected more than 1 row of source, got input size \[1, 3\]"),
        ((4, 3), (0, 3), r"expected more than 1 row of target, got input size \[0, 3\]"),
    ],
)
def test_wrong_shapes(call, source, target, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(source), torch.zeros(target))


def test_not_finite_not_fitted_and_other_features():
    bad = features()
    bad[3, 1] = float("inf")
    with pytest.raises(ValueError, match="the target features are not finite"):
        Coral().fit(features(), bad)
    with pytest.raises(RuntimeError, match=r"Coral is not fitted: call fit\(source, target\) first"):
        Coral().transform(features())
    with pytest.raises(ValueError, match=r"expected features \[n, 5\] \(got input size \[40, 4\]\)"):
        Coral().fit(features(), features()).transform(features(d=4))


@pytest.mark.parametrize("call", [coral_loss, lambda a, b: Coral().fit(a, b)])
def test_what_is_no_tensor_is_refused_in_one_line(call):
    x = features()
    fitted = Coral().fit(x, x)
    for other in (x.numpy(), x.tolist(), None):
        for attempt in (
            lambda o=other: call(o, x),
            lambda o=other: call(x, o),
            lambda o=other: fitted.transform(o),
        ):
            with pytest.raises(
                TypeError, match=r"^(source|target): expected a tensor, got .*torch\.from_numpy.*$"
            ):
                attempt()
