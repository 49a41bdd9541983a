"""The claims of Table 11, what the survey says of each method in words (inequalities: the published file,
T11.C1-C36).

The survey's figures are those of its own Tables 1 to 8, where they have what the words are about; the
source's those of the tables' sources and, where the facts of Table 11 have them, of the method's own paper.
Ours are the thresholds: a point for "does not depend", 0.1 for "small" distances, 1.3 for "slightly".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from reports import published
from reports.claims import Claim, Part, Printed

MLP, CNN, RNN = "mlp", "cnn", "rnn"
LABELS, GROUPS = "cnn_labels", "cnn_groups_4"
SIZES, SCALES, RATES, DROPOUT, DEPTH = "batch_size_cnn", "scale_mlp", "rate_cnn", "dropout_mlp", "depth_mlp"
COST = {MLP: "cost_mlp", CNN: "cost_cnn", RNN: "cost_rnn"}
NONE, BN, NP, BR, DBN, LN, WN, SNN = "none", "bn", "normprop", "br", "dbn", "ln", "wn", "snn"
DEPENDS = 1.0  # point of error
KS = 0.1
EXACT = 1e-12  # of a logit, of which the last digit is 1e-7: nothing but the very same number is so near
DEPTHS = ("d2", "d3", "d4", "d6", "d8", "d16", "d32")


def elsewhere(cells: Printed, table: str, row: str, column: str, metric: str) -> float:
    """A figure of another table, as printed by whoever `cells` are of."""
    return Printed(published.load(table), cells.whose)[row, column, metric]


def less(cells: Any, name: str, row: str, than: str, column: str, metric: str, strict: bool = True) -> Part:
    """metric(row) < metric(than)."""
    return Part(name, (column,), cells[than, column, metric] - cells[row, column, metric], strict=strict)


def cheaper(cells: Any, row: str, than: str, networks: Sequence[str] = (MLP, CNN)) -> list[Part]:
    return [less(cells, f"{n}: {row} below {than}", row, than, COST[n], "time") for n in networks]


def steps(cells: Any, row: str) -> Any:
    """To the plain network's best validation accuracy, in the convolutional network; printed in Table 1."""
    if isinstance(cells, Printed):
        name = {NONE: "inception", BN: "bn_baseline", "bn_x5": "bn_x5"}[row]
        return elsewhere(cells, "T1", name, "imagenet", "steps")
    return cells[row, CNN, "steps"]


def ten_times(cells: Any, row: str) -> list[Part]:
    return [Part(f"{row} more than 10 times as fast", (CNN,), steps(cells, NONE) * 0.1 - steps(cells, row))]


def same(cells: Any, row: str, networks: Sequence[str]) -> list[Part]:
    """What is computed in training is what is computed in evaluation, bit by bit."""
    return [
        Part(f"{n}: {row} computes the same", (n,), cells[row, n, "disagreement"] * -1 + EXACT)
        for n in networks
    ]


def c1(cells: Any) -> list[Part]:
    """BN with a higher rate: more than 10 times faster."""
    return ten_times(cells, "bn_x5")


def c2(cells: Any) -> list[Part]:
    """BN alone: more than 10 times faster."""
    return ten_times(cells, BN)


def c3(cells: Any) -> list[Part]:
    """BN minds the scale of the initial weights less."""
    return [less(cells, "spread over scales", BN, NONE, SCALES, "spread")]


def c4(cells: Any) -> list[Part]:
    """BN learns at rates 5 times as high, on a logarithmic scale."""
    gain = cells[BN, RATES, "largest"] - cells[NONE, RATES, "largest"]
    return [Part("largest rate 5 times as high", (RATES,), gain - math.log2(5), strict=False)]


def drop(cells: Any, row: str, size: int, than: int) -> Any:
    """How much higher the error is with batches of one size than of another, beyond the plain network's: as
    many examples in larger batches are fewer steps, for every network.
    """

    def beyond(size: int) -> Any:
        error = cells[row, SIZES, f"error_{size}"]
        if isinstance(cells, Printed):  # at equal steps, and nobody prints the plain network's
            return error
        return error - cells[NONE, SIZES, f"error_{size}"]

    return beyond(size) - beyond(than)


def c5(cells: Any) -> list[Part]:
    """BN with batches of 2 is worse than with 32."""
    return [Part("2 worse than 32", (SIZES,), drop(cells, BN, 2, 32))]


def c6(cells: Any) -> list[Part]:
    """BN computes something else in evaluation."""
    return [Part(f"{n}: train and eval differ", (n,), cells[BN, n, "disagreement"] * 1) for n in (MLP, CNN)]


def c7(cells: Any) -> list[Part]:
    """BN helps fully connected networks."""
    if isinstance(cells, Printed):
        return [
            Part(f"{d}: BN above none", (MLP,),
                 elsewhere(cells, "T6", "batch", d, "auc") - elsewhere(cells, "T6", "msra", d, "auc"))
            for d in DEPTHS
        ]  # fmt: skip
    return [less(cells, "BN below none", BN, NONE, MLP, "error")]


def c8(cells: Any) -> list[Part]:
    """BN helps the convolutional network more than the recurrent one, relative to what they do without."""
    if isinstance(cells, Printed):
        gain = of_cnn(cells) - of_rnn(cells)
    else:
        gain = cells[NONE, CNN, "relative"] - cells[BN, CNN, "relative"]
        gain = gain - cells[NONE, RNN, "relative"] + cells[BN, RNN, "relative"]
    return [Part("relative gain: CNN above RNN", (CNN, RNN), gain)]


def of_cnn(cells: Printed) -> float:
    """Relative gain of BN: the survey's mean over Table 7, the source's of Table 1."""
    if cells.whose == "source":
        plain, bn = (
            100 - elsewhere(cells, "T1", r, "imagenet", "accuracy") for r in ("inception", "bn_baseline")
        )
        return 1 - bn / plain
    pairs = [
        (f"{act}_bn_0.08", f"{act}_plain_0.008", c) for act in ("relu", "sigmoid") for c in ("wm50", "wm100")
    ]
    gains = [
        1 - elsewhere(cells, "T7", a, c, "error") / elsewhere(cells, "T7", b, c, "error") for a, b, c in pairs
    ]
    return sum(gains) / len(gains)


def of_rnn(cells: Printed) -> float:
    """The same of Table 8: the survey prints perplexities of training, the source those of validation."""
    metric = "val" if cells.whose == "source" else "train"
    gains = [
        1 - elsewhere(cells, "T8", f"{s}_bn", "ptb", metric) / elsewhere(cells, "T8", s, "ptb", metric)
        for s in ("small", "medium", "large")
    ]
    return sum(gains) / len(gains)


def c9(cells: Any) -> list[Part]:
    """NormProp is steadier than BN."""
    return [less(cells, "wobble", NP, BN, CNN, "wobble")]


def c10(cells: Any) -> list[Part]:
    """NormProp is faster."""
    return [less(cells, "epochs to nine tenths", NP, BN, CNN, "epochs_90")]


def c11(cells: Any) -> list[Part]:
    """NormProp is cheaper."""
    if isinstance(cells, Printed):
        return [less(cells, "seconds an epoch", NP, BN, COST[CNN], "time")]
    return cheaper(cells, NP, BN)


def c12(cells: Any) -> list[Part]:
    """NormProp computes the same in evaluation, and one example is as good as a hundred."""
    gap = drop(cells, NP, 1, 128)
    return [
        *same(cells, NP, (MLP, CNN)),
        Part("1 not worse than 128", (SIZES,), gap * -1 + DEPENDS, strict=False),
        Part("1 not better than 128", (SIZES,), gap + DEPENDS, strict=False),
    ]


def c13(cells: Any) -> list[Part]:
    """NormProp's outputs are normally distributed."""
    return [Part("distance small", (MLP,), cells[NP, MLP, "ks_output"] * -1 + KS)]


def c14(cells: Any) -> list[Part]:
    """NormProp does not regularise: its gap between training and test is not below BN's."""
    return [less(cells, f"{n}: gap", BN, NP, n, "gap", strict=False) for n in (MLP, CNN)]


def c15(cells: Any) -> list[Part]:
    """Dropout does not help NormProp."""
    base = cells[NP, DROPOUT, "error_0"]
    return [
        Part(f"dropout {rate}", (DROPOUT,), cells[NP, DROPOUT, f"error_{rate}"] - base, strict=False)
        for rate in ("0.2", "0.5")
    ]


def c16(cells: Any) -> list[Part]:
    """BR is slightly dearer."""
    bn, br = (cells[row, COST[CNN], "time"] for row in (BN, BR))
    return [
        Part("BR above BN", (COST[CNN],), br - bn),
        Part("BR below 1.3 BN", (COST[CNN],), bn * 1.3 - br),
    ]


def c17(cells: Any) -> list[Part]:
    """BR is better and faster with statistics of few examples."""
    better = cells[BN, GROUPS, "error"] - cells[BR, GROUPS, "error"]
    return [
        Part("better", (GROUPS,), better),
        Part("a point better", (GROUPS,), better - 1, absolute=True),
        less(cells, "steps", BR, BN, GROUPS, "steps"),
    ]


def c18(cells: Any) -> list[Part]:
    """BR is better with batches of few labels."""
    better = cells[BN, LABELS, "error"] - cells[BR, LABELS, "error"]
    return [
        Part("better", (LABELS,), better),
        Part("5 points better", (LABELS,), better - 5, absolute=True),
    ]


def c19(cells: Any) -> list[Part]:
    """DBN is steadier."""
    return [less(cells, "wobble", DBN, BN, CNN, "wobble")]


def c20(cells: Any) -> list[Part]:
    """DBN takes as many epochs as BN, within 0.7 and 1.4."""
    if isinstance(cells, Printed):
        table = published.load("T3")
        pairs = [
            (f"{row.id}, {column}", elsewhere(cells, "T3", row.id, column, "epochs"),
             elsewhere(cells, "T3", "a1", column, "epochs"))
            for row in table.rows if row.id not in ("a0", "a1") for column in table.data_columns
        ]  # fmt: skip
    else:
        pairs = [(CNN, cells[DBN, CNN, "epochs"], cells[BN, CNN, "epochs"])]
    return [
        part
        for name, dbn, bn in pairs
        for part in (
            Part(f"{name}: not much faster", (CNN,), dbn - bn * 0.7, strict=False),
            Part(f"{name}: not much slower", (CNN,), bn * 1.4 - dbn, strict=False),
        )
    ]


def c21(cells: Any) -> list[Part]:
    """DBN is not cheaper."""
    return [less(cells, f"{n}: DBN above BN", BN, DBN, COST[n], "time", strict=False) for n in (MLP, CNN)]


def c22(cells: Any) -> list[Part]:
    """DBN depends on the size of the batch, but less than BN."""
    drops = {row: drop(cells, row, 2, 128) for row in (BN, DBN)}
    return [
        Part("DBN: 2 worse than 128", (SIZES,), drops[DBN]),
        Part("by less than BN", (SIZES,), drops[BN] - drops[DBN]),
    ]


def c23(cells: Any) -> list[Part]:
    """LN is faster than BN in a recurrent network."""
    return [less(cells, "steps", LN, BN, RNN, "steps")]


def c24(cells: Any) -> list[Part]:
    """LN is cheaper."""
    return cheaper(cells, LN, BN, (MLP, CNN, RNN))


def c25(cells: Any) -> list[Part]:
    """LN is worse than BN in fully connected networks."""
    if isinstance(cells, Printed):
        return [
            Part(f"{d}: LN below BN", (MLP,),
                 elsewhere(cells, "T6", "batch", d, "auc") - elsewhere(cells, "T6", "layer", d, "auc"))
            for d in DEPTHS if cells.whose == "source" or d != "d3"
        ]  # fmt: skip
    return [less(cells, "LN above BN", BN, LN, MLP, "error")]


def c26(cells: Any) -> list[Part]:
    """LN is worse than BN in convolutional networks."""
    return [less(cells, "LN above BN", BN, LN, CNN, "error")]


def c27(cells: Any) -> list[Part]:
    """WN is faster than BN."""
    return [less(cells, f"{n}: steps", WN, BN, n, "steps") for n in (MLP, CNN)]


def c28(cells: Any) -> list[Part]:
    """WN is cheaper."""
    return cheaper(cells, WN, BN)


def c29(cells: Any) -> list[Part]:
    """WN does not regularise: its test error is not below BN's."""
    return [less(cells, "WN not below BN", BN, WN, CNN, "error", strict=False)]


def c30(cells: Any) -> list[Part]:
    """WN is better than BN in deep reinforcement learning: asked, game by game, in Table 4."""
    return [Part("score: WN above BN", ("dqn",), cells[WN, "dqn", "score"] - cells[BN, "dqn", "score"])]


def within(cells: Any, row: str) -> list[Part]:
    """Mean and variance behind 32 layers near 0 and 1."""
    return [
        Part("mean within 0.1 of 0", (DEPTH,), cells[row, DEPTH, "mean_off"] * -1 + 0.1),
        Part("variance from 0.8", (DEPTH,), cells[row, DEPTH, "variance_low"] - 0.8),
        Part("variance to 1.25", (DEPTH,), cells[row, DEPTH, "variance_high"] * -1 + 1.25),
    ]


def c31(cells: Any) -> list[Part]:
    """SNN's activations come to mean 0 and variance 1."""
    return within(cells, SNN)


def c32(cells: Any) -> list[Part]:
    """Dropout moves the variance further than alpha dropout."""
    rows = "snn_alpha_dropout", "snn_plain_dropout"
    return [less(cells, "drift of the variance", *rows, DEPTH, "drift")]


def c33(cells: Any) -> list[Part]:
    """LN computes the same in evaluation."""
    return same(cells, LN, (MLP, CNN, RNN))


def c34(cells: Any) -> list[Part]:
    """WN computes the same in evaluation, and its gradient is less noisy than BN's."""
    return [*same(cells, WN, (MLP, CNN)), less(cells, "noise", WN, BN, MLP, "noise")]


def c35(cells: Any) -> list[Part]:
    """With ReLU at the same weights the variance leaves [0.8, 1.25]: ReLU halves the second moment."""
    high = cells["snn_relu", DEPTH, "variance_high"]
    return [Part("variance below 0.8", (DEPTH,), high * -1 + 0.8)]


def c36(cells: Any) -> list[Part]:
    """Order of the costs: NormProp, LN, WN < BN, SNN < BR < DBN."""
    order = [(NP, BN), (LN, BN), (WN, BN), (NP, SNN), (LN, SNN), (WN, SNN), (BN, BR), (SNN, BR), (BR, DBN)]
    return [less(cells, f"{a} below {b}", a, b, COST[CNN], "time") for a, b in order]


CLAIMS: dict[str, Claim] = {f"T11.C{k}": globals()[f"c{k}"] for k in range(1, 37)}
