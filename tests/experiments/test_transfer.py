"""Alignment of two domains and what goes with it, against formulas written out."""

import numpy as np
import pytest
from scipy import integrate, linalg

from experiments import transfer
from experiments.transfer import Unusable


def domains(n=40, m=55, d=12, seed=0):
    r = np.random.default_rng(seed)
    mix = r.normal(size=(d, d))
    return r.normal(size=(n, d)) @ mix + 1, r.normal(size=(m, d)) @ r.normal(size=(d, d)) - 2


def principal(x, d):
    values, vectors = np.linalg.eigh(np.cov(x.T))
    return vectors[:, np.argsort(values)[::-1][:d]]


def test_coral_gives_the_source_the_targets_covariance():
    """With the regularisation written out; the target stays but for its mean."""
    a, b = domains()
    x, y = transfer.coral(a, b, b)
    c, t = np.cov(a.T) + np.eye(12), np.cov(b.T) + np.eye(12)
    expected = (a - a.mean(0)) @ linalg.inv(linalg.sqrtm(c)) @ linalg.sqrtm(t)
    np.testing.assert_allclose(x, expected.real, atol=1e-8)
    np.testing.assert_allclose(y, b - b.mean(0))


@pytest.mark.parametrize("d", [1, 3, 12])
def test_subspace_alignment_by_its_formula(d):
    """Inner products between the domains do not depend on the signs of principal directions."""
    a, b = domains()
    p, q = principal(a, d), principal(b, d)
    x, y = transfer.subspace_alignment(a, b, b, d)
    wanted = (a - a.mean(0)) @ p @ p.T @ q @ ((b - b.mean(0)) @ q).T
    np.testing.assert_allclose(x @ y.T, wanted, atol=1e-8)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_flow_kernel_is_the_integral_along_the_geodesic(d):
    """The geodesic as the matrix exponential of its velocity (Edelman et al.), integrated numerically."""
    a, b = domains()
    p, q = principal(a, d), principal(b, d)
    # tangent H at p with exp_p(H) = span(q): H = (I - p p') q (p' q)^-1, its singular values made angles
    tangent = (np.eye(12) - p @ p.T) @ q @ np.linalg.inv(p.T @ q)
    u, s, vt = np.linalg.svd(tangent, full_matrices=False)
    theta = np.arctan(s)

    def integrand(t):
        f = p @ vt.T @ np.diag(np.cos(t * theta)) + u @ np.diag(np.sin(t * theta))
        return (f @ f.T).ravel()

    kernel = integrate.quad_vec(integrand, 0, 1)[0].reshape(12, 12)
    x, y = transfer.geodesic_flow(a, b, b, d)
    np.testing.assert_allclose(x @ y.T, (a - a.mean(0)) @ kernel @ (b - b.mean(0)).T, atol=1e-7)
    np.testing.assert_allclose(x @ x.T, (a - a.mean(0)) @ kernel @ (a - a.mean(0)).T, atol=1e-7)


def test_one_subspace_for_both_domains_is_a_projection():
    a, _ = domains()
    x, y = transfer.geodesic_flow(a, a * 2, a[:30] * 2, 12)
    np.testing.assert_allclose(x @ y.T, (a - a.mean(0)) @ (2 * (a[:30] - a.mean(0))).T, atol=1e-6)


@pytest.mark.parametrize("method", ["coral", "sa", "gfk"])
def test_float32_features_of_large_mean_lose_nothing(method):
    a, b = (x.astype(np.float32) + np.float32(1000) for x in domains())
    x, y = transfer.ALIGN[method](a, b, b)
    u, v = transfer.ALIGN[method](*(z.astype(np.float64) - 1000 for z in (a, b, b)))
    np.testing.assert_allclose(x @ y.T, u @ v.T, rtol=1e-6, atol=1e-6)


def test_rows_beyond_those_seen_take_no_part_in_the_alignment():
    a, b = domains()
    for method in ("coral", "sa", "gfk"):
        x, y = transfer.ALIGN[method](a, b[:20], b)
        u, v = transfer.ALIGN[method](a, b[:20], b[:20])
        np.testing.assert_allclose(x @ y[:20].T, u @ v.T, atol=1e-9)


@pytest.mark.parametrize("method", list(transfer.ALIGN))
def test_what_a_diverged_network_leaves_is_unusable(method):
    a, b = domains()
    for bad in (np.nan, np.inf):
        broken = b.copy()
        broken[3, 2] = bad
        with pytest.raises(Unusable, match="not finite"):
            transfer.ALIGN[method](a, broken, broken)
    if method in ("sa", "gfk"):
        with pytest.raises(Unusable, match="constant"):
            transfer.ALIGN[method](np.ones_like(a), b, b)
    with pytest.raises(Unusable, match="constant"):
        transfer.classified(np.ones((6, 3)), [0, 1, 2] * 2, b[:, :3])


def test_more_directions_than_there_are():
    a, b = domains(n=4)
    x, y = transfer.subspace_alignment(a, b, b, 20)
    assert x.shape[1] == y.shape[1] == 3 and np.isfinite(x).all()


def test_the_svm_is_scikit_learns_with_the_cost_of_the_best_validation():
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.svm import LinearSVC

    r = np.random.default_rng(1)
    y = np.arange(90) % 3
    x = r.normal(size=(90, 5)) + 1.5 * np.eye(5)[y]
    target = r.normal(size=(400, 5)) + 1.5 * np.eye(5)[np.arange(400) % 3]
    scale = np.sqrt((x**2).mean())
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    svms = [LinearSVC(C=c, dual="auto", random_state=0) for c in transfer.COSTS]
    scores = [cross_val_score(svm, x / scale, y, cv=folds).mean() for svm in svms]
    best = int(np.argmax(scores))
    wanted = svms[best].fit(x / scale, y).predict(target / scale)
    others = svms[0].fit(x / scale, y).predict(target / scale)
    found = transfer.classified(x, y, target)
    # The looser tolerance moves a few that lie at the border; another cost moves more.
    assert best > 0 and (found == wanted).mean() > 0.98 > (others == wanted).mean()
    assert (transfer.classified(x * 1e3, y, target * 1e3) == found).all()


def test_each_domain_is_standardised_and_scale_does_not_matter():
    a, b = domains()
    a[:, 3] = 7.0
    x, y, z = transfer.standardised(a, b, b[:9])
    np.testing.assert_allclose(x.std(0), np.where(np.arange(12) == 3, 0, 1), atol=1e-12)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z, (b[:9] - b.mean(0)) / b.std(0))
    for one, other in zip((x, y, z), transfer.standardised(a * 0.1, b * 0.01, b[:9] * 0.01), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_a_class_with_one_example_takes_the_smallest_cost():
    from sklearn.svm import LinearSVC

    x, _ = domains()
    y = np.array([0] * 20 + [1] * 19 + [2])
    scale = np.sqrt((x**2).mean())
    wanted = LinearSVC(C=1e-3, random_state=0).fit(x / scale, y).predict(x / scale)
    assert (transfer.classified(x, y, x) == wanted).all()


def test_divergence_by_numerical_integration():
    r = np.random.default_rng(2)
    a, b = r.normal(1, 2, (500, 1)), r.normal(0, 1, (400, 1))
    (m, s), (o, t) = (a.mean(), np.sqrt(a.var() + 1e-5)), (b.mean(), np.sqrt(b.var() + 1e-5))

    def density(x, mean, sd):
        return np.exp(-(((x - mean) / sd) ** 2) / 2) / sd / np.sqrt(2 * np.pi)

    def both(x):
        p, q = density(x, m, s), density(x, o, t)
        return (p - q) * (np.log(p) - np.log(q))

    assert transfer.symmetric_kl(a, b) == pytest.approx(integrate.quad(both, -25, 25)[0], rel=1e-6)
    assert transfer.symmetric_kl(a, a) == pytest.approx(0, abs=1e-12)
    pictures = r.normal(size=(5, 3, 4, 4))
    flat = pictures.transpose(0, 2, 3, 1).reshape(-1, 3)
    assert transfer.symmetric_kl(pictures, 2 * pictures) == pytest.approx(
        transfer.symmetric_kl(flat, 2 * flat)
    )


def test_the_plane_is_that_of_principal_components():
    from sklearn.decomposition import PCA

    a, b = domains()
    x, y = transfer.plane(a, b)
    wanted = PCA(2, svd_solver="full").fit_transform(np.concatenate([a, b]))
    np.testing.assert_allclose(np.abs(np.concatenate([x, y])), np.abs(wanted), atol=1e-8)
    flat = transfer.plane(np.ones((3, 1)), np.zeros((2, 1)))
    assert flat[0].shape == (3, 2) and (flat[0][:, 1] == 0).all()
