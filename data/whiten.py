"""Global contrast normalisation and ZCA whitening, as the data of Maxout and Network in Network was prepared.

After pylearn2 (expr/preprocessing.py, datasets/preprocessing.py and the script make_cifar10_gcn_whitened.py):
`gcn` with scale 55, then ZCA with 0.1 added to each eigenvalue. There, ZCA sees all 50,000 training pictures;
fit ours on the rows that are left after validation rows are held out.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import store
from data.errors import Damaged

CHUNK = 1024  # rows at a time in float64, so that the data set is not copied as a whole


def gcn(x: Tensor, scale: float = 55.0, eps: float = 1e-8) -> Tensor:
    """Picture by picture scale * (x - m) / max(||x - m||_2, eps), m and the norm over pixels and channels.

    pylearn2 leaves a picture whose norm / scale is below 1e-8 undivided; such a picture is flat, and (nearly)
    0 either way.

    Shape: x uint8 or floating [N, C, H, W]; result float32 [N, C, H, W].
    """
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    for target, rows in zip(out.split(CHUNK), _pieces(x), strict=True):
        centred = rows - rows.mean(1, keepdim=True)
        centred *= scale / centred.norm(dim=1, keepdim=True).clamp_min(eps)
        target.copy_(centred.view_as(target))
    return out


@dataclass(frozen=True, eq=False)
class ZCA:
    """y = (x - mean) W, W = U diag(1 / sqrt(lambda + eps)) U^T, U diag(lambda) U^T the covariance (1/N) of x.

    Made by `fit` or `cached`. mean float64 [D], matrix (W, symmetric) float64 [D, D], D = C*H*W.
    """

    mean: Tensor
    matrix: Tensor

    @classmethod
    def fit(cls, x: Tensor, eps: float = 0.1) -> "ZCA":
        """x: training rows alone, [N, D] or [N, C, H, W]. eps: 0.1 as pylearn2's filter_bias.

        eps must be positive: after `gcn` each row sums to 0, so that one eigenvalue at least is 0.
        About N D^2 + 10 D^3 operations in float64: about a minute on one core for 50,000 pictures of 32x32
        (D = 3,072), an hour and several GB for 64x64.
        """
        _check(x, eps)
        n, d = len(x), x[0].numel()
        mean = torch.zeros(d, dtype=torch.float64, device=x.device)
        for rows in _pieces(x):
            mean += rows.sum(0)
        mean /= n
        covariance = torch.zeros(d, d, dtype=torch.float64, device=x.device)
        for rows in _pieces(x):
            centred = rows - mean
            covariance.addmm_(centred.T, centred)
        covariance /= n
        if not bool(covariance.isfinite().all()):
            raise ValueError("ZCA: x holds values that are not finite")
        eigenvalues, u = torch.linalg.eigh(covariance)
        # rounding can leave an eigenvalue of 0 slightly negative
        return cls(mean, (u * (eigenvalues.clamp_min(0) + eps).rsqrt()) @ u.T)

    @classmethod
    def cached(cls, x: Tensor, folder: store.PathLike, key: str, eps: float = 0.1) -> "ZCA":
        """As `fit`, but what was fitted earlier is read from folder, where it is whole.

        key: what x is, beyond its shape: the set's fingerprint, how rows were held out, and all that was done
        to x before (such as gcn's scale). Another x under the same key and shape gets the old matrix.
        """
        _check(x, eps)
        n, d = len(x), x[0].numel()
        about = {"key": key, "rows": n, "columns": d, "eps": float(eps)}
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        path = Path(folder).expanduser() / f"zca-{name}.npz"
        if store.sidecar(path):
            try:
                mean, matrix = store.pick(path, "mean", "matrix")
            except Damaged:
                mean = matrix = np.empty(0)
            if mean.dtype == matrix.dtype == np.float64 and (mean.shape, matrix.shape) == ((d,), (d, d)):
                return cls(torch.from_numpy(mean).to(x.device), torch.from_numpy(matrix).to(x.device))
        zca = cls.fit(x, eps)
        store.write(path, {"mean": zca.mean.cpu().numpy(), "matrix": zca.matrix.cpu().numpy()}, about)
        return zca

    def transform(self, x: Tensor) -> Tensor:
        """The whitened rows, in the shape of x; float64 where x is, else float32."""
        if x.shape[1:].numel() != len(self.mean):
            raise ValueError(f"ZCA: fitted on rows of {len(self.mean)} values, not of {x.shape[1:].numel()}")
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        mean, matrix = self.mean.to(x.device), self.matrix.to(x.device, dtype)
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        for target, rows in zip(out.split(CHUNK), _pieces(x), strict=True):
            target.copy_(((rows - mean).to(dtype) @ matrix).view_as(target))
        return out


def _pieces(x: Tensor) -> Iterator[Tensor]:
    """The rows of x [N, ...] in float64, [at most CHUNK, D] at a time."""
    for piece in x.split(CHUNK):
        yield piece.flatten(1).double()


def _check(x: Tensor, eps: float) -> None:
    if x.ndim < 2 or len(x) < 2:
        raise ValueError(f"ZCA needs two rows at least, [N, ...], not {tuple(x.shape)}")
    if not eps > 0:
        raise ValueError(f"ZCA: eps must be positive, not {eps!r}")
