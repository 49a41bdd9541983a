"""Many small networks trained as one stacked model, against one by one: what Tables 5 and 6 live on.

    python benchmarks/bench_populations.py [threads ...]

Training steps of batch 64 with evaluation left out, self-normalizing networks with dropout and plain ReLU
networks. "alone" is the same code with one member; "torch" is what most people would write, nn.Sequential and
torch.optim.SGD, one by one. scikit-learn's MLPClassifier trains the same network for as many epochs. Each
ratio is the median over rounds of time a member over time a member in the population: above 1, stacking is
faster.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn
from turns import threads

from data import DataSet
from experiments import tabular
from experiments.config import Data, Norm, Optimizer

ROUNDS, ROWS, INPUTS, CLASSES, BATCH = 3, 512, 30, 4, 64
tabular.PROBED = 2  # looking at the layers is not what is timed here
CPU = torch.device("cpu")


def dataset() -> DataSet:
    torch.manual_seed(0)
    x, y = torch.randn(ROWS, INPUTS), torch.randint(CLASSES, (ROWS,))
    few = {f"x_{p}": x[:2] for p in ("val", "test")} | {f"y_{p}": y[:2] for p in ("val", "test")}
    return DataSet("d", x, y, *(few[k] for k in ("x_val", "y_val", "x_test", "y_test")), tuple("abcd"),
                   "", "", "", (), "error")  # fmt: skip


def run(norm: str, width: int, depth: int, seed: int, epochs: int) -> tabular.Run:
    network = tabular.Network("fnn", depth, width, "rectangular", None, 0.05, None, None, None, None)
    return tabular.check(
        tabular.Run("T5", Data("d", 0.15, None, None, {}), network, Norm(norm, {}),
                    Optimizer("SGD", 0.01, 0.0, {}), "after", "updated", "alpha", BATCH, epochs, seed)
    )  # fmt: skip


def population(data: DataSet, norm: str, width: int, depth: int, members: int, epochs: int) -> float:
    """Seconds of training a member, without what comes before and after."""
    state = tabular.State([run(norm, width, depth, s, epochs) for s in range(members)], data, CPU)
    start = time.perf_counter()
    for _ in tabular.train(state):
        pass
    return (time.perf_counter() - start) / members


def plain_torch(data: DataSet, norm: str, width: int, depth: int, epochs: int) -> float:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else INPUTS, width)]
        layers += [nn.SELU(), nn.AlphaDropout(0.05)] if norm == "snn" else [nn.ReLU(), nn.Dropout(0.05)]
    net = nn.Sequential(*layers, nn.Linear(width, CLASSES))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    start = time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(ROWS).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(data.x_train[index]), data.y_train[index]).backward()
            optimizer.step()
    return time.perf_counter() - start


def scikit_learn(data: DataSet, width: int, depth: int, epochs: int) -> float:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier([width] * depth, solver="sgd", momentum=0.0, batch_size=BATCH, max_iter=epochs,
                          learning_rate_init=0.01, tol=0.0, n_iter_no_change=epochs)  # fmt: skip
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data.x_train.numpy(), data.y_train.numpy())
    return time.perf_counter() - start


def ratio(base: Callable[[], float], stacked: Callable[[], float]) -> float:
    """In turns, so that whatever else the machine does falls on both."""
    base(), stacked()
    return statistics.median(base() / stacked() for _ in range(ROUNDS))


def table(data: DataSet, norm: str) -> None:
    print(f"\n{norm}: time of one alone / time of a member, {torch.get_num_threads()} thread(s)")
    print(f"{'width':>6} {'depth':>6}" + "".join(f"{m:>5} members" for m in (4, 9, 18, 36)) + "   torch / 18")
    for width in (16, 64, 128, 256):
        for depth in (2, 4, 16):
            epochs = 2 if width < 256 and depth < 16 else 1
            cells = [
                ratio(
                    lambda w=width, d=depth, e=epochs: population(data, norm, w, d, 1, e),
                    lambda w=width, d=depth, e=epochs, m=m: population(data, norm, w, d, m, e),
                )
                for m in (4, 9, 18, 36)
            ]
            usual = ratio(
                lambda w=width, d=depth, e=epochs: plain_torch(data, norm, w, d, e),
                lambda w=width, d=depth, e=epochs: population(data, norm, w, d, 18, e),
            )
            print(
                f"{width:>6} {depth:>6}" + "".join(f"{c:>12.2f}x" for c in cells) + f"{usual:>12.2f}x",
                flush=True,
            )


def normalised(data: DataSet) -> None:
    """The networks with layers of their own kind, which go through vmap."""
    print(f"\nnormalised, 4 layers: time alone / time of a member, {torch.get_num_threads()} thread(s)")
    print(f"{'norm':>12} {'width':>6}" + "".join(f"{m:>5} members" for m in (9, 36)))
    for norm in ("batch", "layer", "weight_norm"):
        for width in (64, 128, 256):
            cells = [
                ratio(
                    lambda n=norm, w=width: population(data, n, w, 4, 1, 2),
                    lambda n=norm, w=width, m=m: population(data, n, w, 4, m, 2),
                )
                for m in (9, 36)
            ]
            print(f"{norm:>12} {width:>6}" + "".join(f"{c:>12.2f}x" for c in cells), flush=True)


def main() -> None:
    data = dataset()
    for count in threads():
        torch.set_num_threads(count)
        for norm in ("none", "snn"):
            table(data, norm)
        normalised(data)
        found = ratio(lambda: scikit_learn(data, 64, 2, 10), lambda: population(data, "none", 64, 2, 18, 10))
        print(f"\nscikit-learn's MLPClassifier 64-64, 10 epochs / a member of 18: {found:.2f}x")


if __name__ == "__main__":
    main()
