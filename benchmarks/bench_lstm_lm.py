"""Training steps of Table 8's small language model (10,000 words, two layers of 200 units, 20 texts, windows
of 35) as ratios to the one with nn.LSTM, the loss with and without its fusion, and memory against the text's
length.

    python benchmarks/bench_lstm_lm.py [threads ...] [peer=FILE]

FILE is bnlstm.py of github.com/jihunchoi/recurrent-batch-normalization-pytorch, a public LSTM with recurrent
batch normalisation that goes step by step; nothing of it is here. It stands in the same network, with the
same loss. Variants take turns within each round; tokens a second are those of the median step.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is talkative

import torch
from bench_lstm import peak
from torch import Tensor, nn
from torch.nn import functional as F
from turns import show, take_turns, threads

from experiments.models.lstm_lm import LSTMLanguageModel

V, H, LAYERS, B, T = 10_000, 200, 2, 20, 35
ROWS = {"nn.LSTM": "none", "BN of the input": "lstm_batch", "recurrent BN": "lstm_recurrent_batch",
        "layer norm": "lstm_layer", "weight norm": "weight_norm"}  # fmt: skip


class Peer(nn.Module):
    """The public layer called as nn.LSTM is."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.lstm = module.LSTM(
            cell_class=module.BNLSTMCell, input_size=H, hidden_size=H, num_layers=LAYERS, max_length=T
        )

    def forward(self, x: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.lstm(x, None, states)


def network(norm: str) -> LSTMLanguageModel:
    torch.manual_seed(0)
    options = {"max_length": T} if norm in ("lstm_batch", "lstm_recurrent_batch") else {}
    return LSTMLanguageModel(V, H, LAYERS, norm=norm, options=options)


def step_of(model: LSTMLanguageModel, fused: bool = True) -> Callable[[], None]:
    ids = torch.randint(V, (T + 1, B), generator=torch.Generator().manual_seed(1))
    states = model.initial(B)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)

    def step() -> None:
        features, _ = model(ids[:-1], states)
        if fused:
            loss = model.summed_loss(features, ids[1:])
        else:
            loss = F.cross_entropy(model.decoder(features).flatten(0, 1), ids[1:].flatten(), reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        (loss / B).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return step


def peer_of(path: str) -> Any:
    """The module, with the one word changed that torch has renamed since."""
    text = Path(path).read_text(encoding="utf-8").replace("split_size=", "split_size_or_sections=")
    module = ModuleType("peer")
    exec(compile(text, path, "exec"), module.__dict__)
    return module


def steps(peer: str | None, rounds: int = 20) -> None:
    tasks = {label: step_of(network(norm)) for label, norm in ROWS.items()}
    tasks["nn.LSTM, loss not fused"] = step_of(network("none"), fused=False)
    if peer:
        model = network("none")
        model.lstm = Peer(peer_of(peer))  # type: ignore[assignment]
        tasks["public recurrent BN"] = step_of(model)
    times = take_turns(tasks, rounds)
    peaks = {label: f"{peak(task) / 1e6:6.0f} MB" for label, task in tasks.items()}
    rates = {k: f"{T * B / statistics.median(s):7,.0f} tokens/s, {peaks[k]}" for k, s in times.items()}
    show(f"training steps, V {V}, H {H}, B {B}, T {T}", times, rates)


def layers(peer: str | None, rounds: int = 20) -> None:
    """The two recurrent layers alone, forward and backward."""
    x, dy = torch.randn(T, B, H, requires_grad=True), torch.randn(T, B, H)

    def step_of_layers(lstm: Any) -> Callable[[], None]:
        states = torch.zeros(LAYERS, B, H), torch.zeros(LAYERS, B, H)

        def step() -> None:
            lstm.zero_grad()
            x.grad = None
            lstm(x, states)[0].backward(dy)

        return step

    tasks = {label: step_of_layers(network(norm).lstm) for label, norm in ROWS.items()}
    if peer:
        tasks["public recurrent BN"] = step_of_layers(Peer(peer_of(peer)))
    show(f"the layers alone, H {H}, B {B}, T {T}", take_turns(tasks, rounds))


def memory() -> None:
    """Bytes of tensors that an epoch of the runner holds, for texts of two lengths."""
    from data import DataSet
    from experiments import table_08_lstm as t8
    from experiments.config import Data, Norm, Optimizer

    model = t8.Network("lstm_lm", "small", H, LAYERS, 0.0, 0.1, 0.0, None)
    parts = Data("kjv", 0.1, None, None, {}), model, Norm("none", {}), Optimizer("SGD", 1.0, 0.0, {})
    run = t8.Run("T8", *parts, 4, 0.5, 5.0, T, False, B, 1, 0)
    print("\nan epoch's memory beside the text itself (4 bytes a word)")
    for words in (20_000, 40_000):
        ids = torch.randint(V, (words,), dtype=torch.int32)
        some = ids[:2_000]
        names = tuple(map(str, range(V)))
        data = DataSet("random", ids, ids, some, some, some, some, names, "", "", "", (), "perplexity")
        state = t8.State([run], data, torch.device("cpu"))

        def epoch(state: t8.State = state) -> None:
            list(t8.train(state))

        print(f"  {words:6,} words: {peak(epoch) / 1e6:6.1f} MB at the peak", flush=True)


def main() -> None:
    peers = [word.removeprefix("peer=") for word in sys.argv if word.startswith("peer=")]
    sys.argv = [word for word in sys.argv if not word.startswith("peer=")]
    for count in threads():
        torch.set_num_threads(count)
        steps(peers[0] if peers else None)
        layers(peers[0] if peers else None)
    memory()


if __name__ == "__main__":
    main()
