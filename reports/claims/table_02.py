"""The claims of Table 2, NIN with normalisation propagation (inequalities: the published file, T2.C1-C16)."""

from __future__ import annotations

from typing import Any

from reports.claims import Claim, Part

SETS = ("cifar10", "cifar100", "svhn")
NEAR = 0.5  # points within which two errors count as equal, from the sheet
RATES = ("0.05", "0.07", "0.1", "0.14", "0.2")  # constant learning rates at which networks are tried


def below(cells: Any, a: str, b: str, column: str, by: float = 0.0, strict: bool = True) -> Part:
    """err(a) < err(b) - by."""
    margin = cells[b, column, "error"] - cells[a, column, "error"] - by
    return Part(f"{column}: {a} below {b}", (column,), margin, absolute=by > 0, strict=strict)


def c1(cells: Any) -> list[Part]:
    """NormProp clearly beats BN on CIFAR-100."""
    return [below(cells, "nin_np", "nin_bn", "cifar100", by=1)]


def c2(cells: Any) -> list[Part]:
    """NormProp beats BN on SVHN."""
    return [below(cells, "nin_np", "nin_bn", "svhn")]


def c3(cells: Any) -> list[Part]:
    """NormProp is not worse than BN on CIFAR-10."""
    return [below(cells, "nin_np", "nin_bn", "cifar10", strict=False)]


def c4(cells: Any) -> list[Part]:
    """The same with flips."""
    return [below(cells, "nin_np", "nin_bn", "cifar10_flips", strict=False)]


def c5(cells: Any) -> list[Part]:
    """With flips NormProp still wins on CIFAR-100."""
    return [below(cells, "nin_np", "nin_bn", "cifar100_flips")]


def c6(cells: Any) -> list[Part]:
    """NormProp beats NIN as published on all three sets."""
    return [below(cells, "nin_np", "nin", s) for s in SETS]


def c7(cells: Any) -> list[Part]:
    """BN beats NIN as published on all three sets."""
    return [below(cells, "nin_bn", "nin", s) for s in SETS]


def c8(cells: Any) -> list[Part]:
    """Maxout is last on all three sets."""
    return [below(cells, row, "maxout", s) for s in SETS for row in ("nin", "nin_np", "nin_bn")]


def c9(cells: Any) -> list[Part]:
    """A NormProp epoch is cheaper than a BN epoch."""
    on = "cifar10"
    margin = cells["nin_bn", on, "seconds"] - cells["nin_np", on, "seconds"]
    return [Part("an epoch of nin_np is shorter", (on,), margin)]


def c10(cells: Any) -> list[Part]:
    """NormProp is steadier in the first ten epochs."""
    on = "cifar10"
    return [Part("nin_np steadier", (on,), cells["nin_bn", on, "spread"] - cells["nin_np", on, "spread"])]


def c11(cells: Any) -> list[Part]:
    """NormProp keeps the layers' inputs closer to zero mean."""
    on = "cifar10"
    return [Part("nin_np closer to 0", (on,), cells["nin_bn", on, "mean"] - cells["nin_np", on, "mean"])]


def c12(cells: Any) -> list[Part]:
    """Batches of 1 work: at most NEAR points worse than batches of 100, both with global normalisation."""
    on, one, hundred = "cifar10", "nin_np_global_b1", "nin_np_global_b100"
    margin = cells[hundred, on, "error"] + NEAR - cells[one, on, "error"]
    return [Part("batches of 1 as good as of 100", (on,), margin, absolute=True, strict=False)]


def c13(cells: Any) -> list[Part]:
    """The two normalisations of the data are equivalent, within NEAR points."""
    on = "cifar10"
    gap = cells["nin_np_global_b50", on, "error"] - cells["nin_np", on, "error"]
    return [
        Part("global not worse", (on,), NEAR - gap, absolute=True),
        Part("global not better", (on,), NEAR + gap, absolute=True),
    ]


def c14(cells: Any) -> list[Part]:
    """The plain network diverges at the others' rate: in more than half of the runs."""
    on = "cifar10"
    return [Part("plain diverges", (on,), cells["plain_at_0.05", on, "diverged"] - 50)]


def c15(cells: Any) -> list[Part]:
    """Dropout does not help NormProp."""
    return [below(cells, "nin_np", "nin_np_dropout", "cifar10", strict=False)]


def c16(cells: Any) -> list[Part]:
    """The start gamma = 1/1.21 stays finite at more of the tried learning rates than gamma = 1."""
    on = "cifar10"
    with_factor, without = (
        sum(cells[f"{row}_at_{rate}", on, "stable"] for rate in RATES) for row in ("nin_np", "nin_np_gamma1")
    )
    return [Part("more rates with the factor", (on,), with_factor - without)]


CLAIMS: dict[str, Claim] = {
    f"T2.{claim.__name__.upper()}": claim
    for claim in (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, c16)
}
