"""The methods of Table 10 that are not batch normalization, each a short function on features [n, D] of a
labelled source and an unlabelled target, or a loss.

Labels of the target take no part: `classified` sees source labels alone. Everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Features: TypeAlias = NDArray[np.float64]
Classifier: TypeAlias = Callable[[Any], NDArray[np.int64]]
Aligned: TypeAlias = tuple[Features, Features]  # of the source and of the target's rows that are classified

COSTS = (1e-3, 1e-2, 0.1, 1.0, 10.0)  # of the linear SVM, tried by cross-validation on the source
FLAT = 1e-10  # of the largest singular value: directions below it carry nothing
ANGLE = 1e-6  # radians below which two directions count as one


class Unusable(ValueError):
    """Features from which nothing can be aligned or classified: not finite, or constant. What a network that
    diverged leaves; a result, not an error.
    """


def finite(*parts: Any) -> tuple[Features, ...]:
    found = tuple(np.asarray(part, np.float64) for part in parts)
    if not all(np.isfinite(part).all() for part in found):
        raise Unusable("features are not finite")
    return found


# ---- alignment: `target` are the rows that statistics are taken of, `scored` those to be classified -------


def coral(source: Any, target: Any, scored: Any) -> Aligned:
    """CORAL (Sun, Feng & Saenko, arXiv 1511.05547): X_S C_S^(-1/2) C_T^(1/2), C = cov + I. Features of each
    domain are centred before, as the target's mean would else stay a shift between them.
    """
    import torch

    from norms.coral import Coral  # by module, so that the code hash sees it

    a, b, c = finite(source, target, scored)
    if min(len(a), len(b)) < 2:
        raise Unusable("a covariance needs two examples of each domain")
    source, target = (torch.from_numpy(x - x.mean(0)) for x in (a, b))
    return Coral().fit(source, target).transform(source).numpy(), c - b.mean(0)


def standardised(source: Any, target: Any, scored: Any) -> tuple[Features, Features, Features]:
    """Each domain's features with mean 0 and variance 1, the scored rows as the target's, as the authors of
    these methods prepare theirs [memory]: the I in CORAL's covariances means nothing without a scale. A
    feature that is constant in a domain stays 0.
    """
    a, b, c = finite(source, target, scored)
    (m, s), (n, t) = ((x.mean(0), x.std(0)) for x in (a, b))
    s, t = (np.where(x > FLAT * max(x.max(initial=0.0), 1e-300), x, np.inf) for x in (s, t))
    return (a - m) / s, (b - n) / t, (c - n) / t


def basis(x: Features, dims: int) -> Features:
    """The first principal directions of centred x as columns [D, d], d at most `dims` and the rank."""
    _, sizes, directions = np.linalg.svd(x, full_matrices=False)
    rank = int((sizes > FLAT * max(sizes.max(initial=0.0), 1e-300)).sum())
    if rank == 0:
        raise Unusable("features are constant: no direction to align")
    return directions[: min(dims, rank)].T


def bases(source: Any, target: Any, scored: Any, dims: int) -> tuple[Features, Features, Features, Features]:
    """Source and scored rows, centred by their domain's mean, and a basis of each domain with equally many
    columns.
    """
    a, b, c = finite(source, target, scored)
    p, q = basis(a - a.mean(0), dims), basis(b - b.mean(0), dims)
    d = min(p.shape[1], q.shape[1])
    return a - a.mean(0), c - b.mean(0), p[:, :d], q[:, :d]


def subspace_alignment(source: Any, target: Any, scored: Any, dims: int = 20) -> Aligned:
    """SA (Fernando et al., ICCV 2013): X_S P_S P_S' P_T and X_T P_T, with d principal directions of each."""
    a, c, p, q = bases(source, target, scored, dims)
    return a @ p @ (p.T @ q), c @ q


def geodesic_flow(source: Any, target: Any, scored: Any, dims: int = 20) -> Aligned:
    """GFK (Gong et al., CVPR 2012): features whose inner products are those of the geodesic flow kernel,
    x' G y with G = int_0^1 F(t) F(t)' dt along the geodesic F from the source's subspace to the target's.

    With principal angles theta, A the source's principal vectors and B the unit directions from these
    towards the target's, F(t) = A cos(t theta) + B sin(t theta), and the integral has in each plane
    (A_i, B_i)

        1/2 [ 1 + sin 2 theta / (2 theta)         (1 - cos 2 theta) / (2 theta) ]
            [ (1 - cos 2 theta) / (2 theta)   1 - sin 2 theta / (2 theta)       ]
    """
    a, c, p, q = bases(source, target, scored, dims)
    u, cosines, vt = np.linalg.svd(p.T @ q)
    theta = np.arccos(np.clip(cosines, -1, 1))
    A = p @ u
    B = q @ vt.T - A * np.cos(theta)
    lengths = np.linalg.norm(B, axis=0)
    B = np.where(theta > ANGLE, B / np.where(lengths > 0, lengths, 1), 0)
    double = np.where(theta > ANGLE, 2 * theta, 1)
    sine = np.where(theta > ANGLE, np.sin(double) / double, 1)
    cosine = np.where(theta > ANGLE, (1 - np.cos(double)) / double, 0)
    # The Cholesky factor of each plane's block: z = [first, second] has z . z' = x' G y.
    first = np.sqrt((1 + sine) / 2)
    across = cosine / 2 / first
    second = np.sqrt(np.clip((1 - sine) / 2 - across**2, 0, None))
    L = np.concatenate([A * first + B * across, B * second], 1)
    return a @ L, c @ L


ALIGN: dict[str, Callable[..., Aligned]] = {"coral": coral, "sa": subspace_alignment, "gfk": geodesic_flow}


# ---- classification ---------------------------------------------------------------------------------------


def classified(
    source: Any, labels: Any, target: Any, costs: Sequence[float] = COSTS, folds: int = 3
) -> NDArray[np.int64]:
    """Classes of the target by a linear SVM on the source."""
    return fitted(source, labels, costs, folds)(target)


def fitted(source: Any, labels: Any, costs: Sequence[float] = COSTS, folds: int = 3) -> Classifier:
    """A linear SVM on the source, its cost chosen there by cross-validation; of equal ones the smallest, and
    so too where a class has a single example, which leaves nothing to validate.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.svm import LinearSVC

    (source,) = finite(source)
    y = np.asarray(labels, np.int64)
    if (source == source[0]).all():
        raise Unusable("features are constant: nothing to classify by")
    scale = np.sqrt(np.square(source).mean()) or 1.0  # costs mean the same for features of any size
    source = source / scale
    dual = source.shape[0] < source.shape[1]
    tol = 0.1 if dual else 0.01  # liblinear's own; scikit-learn's 1e-4 takes ten times as long
    svm: Any = LinearSVC(C=costs[0], dual=dual, tol=tol, random_state=0, max_iter=2000)
    fewest = int(np.unique(y, return_counts=True)[1].min())
    if fewest >= 2 and len(costs) > 1:
        parts = StratifiedKFold(min(folds, fewest), shuffle=True, random_state=0)
        svm = GridSearchCV(svm, {"C": sorted(costs)}, cv=parts, refit=True)
    quiet(svm, source, y)

    def classes_of(target: Any) -> NDArray[np.int64]:
        (x,) = finite(target)
        return np.asarray(svm.predict(x / scale), np.int64)

    return classes_of


def quiet(model: Any, x: Features, y: Any) -> Any:
    """Fitted; that a large cost has not converged after max_iter is no news for a table of accuracies."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


# ---- how far domains are apart ----------------------------------------------------------------------------


def symmetric_kl(source: Any, target: Any, eps: float = 1e-5) -> float:
    """KL(p||q) + KL(q||p) of Gaussians fitted to each channel, their mean over channels. [n, C], or
    [n, C, H, W] with every position a sample. eps is added to variances, as batch normalisation adds it.
    """
    a, b = (samples(x) for x in finite(source, target))
    return kl_of_moments(a.mean(0), a.var(0), b.mean(0), b.var(0), eps)


def kl_of_moments(mean: Any, var: Any, mean_t: Any, var_t: Any, eps: float = 1e-5) -> float:
    """The same from means and variances [C] of both."""
    m1, v1, m2, v2 = finite(mean, var, mean_t, var_t)
    v1, v2 = v1 + eps, v2 + eps
    gap = np.square(m1 - m2)
    return float(((v1 + gap) / (2 * v2) + (v2 + gap) / (2 * v1) - 1).mean())


def samples(x: Features) -> Features:
    return x if x.ndim == 2 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def plane(*parts: Any) -> list[Features]:
    """Each part's coordinates [n, 2] on the first two principal directions of all together; zeros for what
    has fewer.
    """
    found = finite(*parts)
    mean = np.concatenate(found).mean(0)
    _, _, directions = np.linalg.svd(np.concatenate(found) - mean, full_matrices=False)
    axes = np.zeros((found[0].shape[1], 2))
    axes[:, : len(directions[:2])] = directions[:2].T
    return [(x - mean) @ axes for x in found]
