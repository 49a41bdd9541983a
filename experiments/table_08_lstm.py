"""Table 8: LSTM language models with batch normalization of the input part (Laurent, Pereyra, Brakel, Zhang
& Bengio, ICASSP 2016, arXiv 1510.01378) in the small, medium and large network of Zaremba, Sutskever &
Vinyals (arXiv 1409.2329).

    perplexity = exp( mean over all words of -log p(word | the words before) )

The survey prints *training* perplexities without saying so; on validation the source's order is the reverse.
Here are training, validation and test, each also as the source computes it: the mean over batches of a
batch's perplexity, batch statistics mixed in at nine tenths.

From the sources: networks, initial values, SGD on the cost summed over a window, clipping, the falling rate,
hidden state carried from window to window, BN of the four gates of W_x x for each time step apart. Ours: the
batch of 20 (the source's draft; its code has 32), eps 1e-5 (1e-6), running statistics with momentum 0.1,
which are read as they are ("running") or mixed with nine tenths of the evaluation batch's ("mixture"), the
epoch chosen on validation. Recurrent BN (Cooijmans et al., arXiv 1603.09025), layer and weight normalisation
are rows that the survey does not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from experiments.config import BadInput, Data, Norm, Optimizer

__all__ = [
    "SELECT", "STACK", "Run", "State", "can_stack", "cell", "check", "summarise", "train", "trial",
    "trial_rows",
]  # fmt: skip


@dataclass
class Network:
    name: str  # lstm_lm
    size: str  # small | medium | large | char: of whose row it is, however wide
    hidden: int  # units of each layer, and of a word's vector
    layers: int
    dropout: float  # before, between and after the layers; never on the recurrent path
    start: float  # all weights and biases are uniform in +- start; 0: orthogonal matrices
    forget_bias: float  # added to the forget gate's at the start
    gamma: float | None  # gains of a normaliser at the start; null: its own


@dataclass
class Run:
    """What determines a result, and nothing else: this is hashed into the run's id. A key added later gets a
    default.
    """

    table: str
    data: Data
    model: Network
    norm: Norm
    optimizer: Optimizer
    keep_rate: int  # epochs at the first learning rate; each one after them multiplies it by `decay`
    decay: float
    clip: float  # of the gradient's norm
    window: int  # time steps of truncated back-propagation
    crop: bool  # each epoch starts at a random one of the first `window` words
    batch_size: int  # texts side by side
    epochs: int
    seed: int


STACK = ()
SELECT = "val_ppl"
SIZES = ("small", "medium", "large", "char")
SUFFIX = {
    "none": "", "lstm_batch": "_bn", "lstm_recurrent_batch": "_recurrent_bn", "lstm_layer": "_ln",
    "weight_norm": "_wn",
}  # fmt: skip
MEASURED = (
    "train_ppl", "train_ppl_source", "train_ppl_evaluated", "val_ppl", "val_ppl_mixture", "val_ppl_source",
    "test_ppl", "test_ppl_mixture", "test_ppl_source",
)  # fmt: skip
MIX = 0.9  # of a batch's own statistics, in the source's evaluation
MISSING = -1.0  # in the place of a loss, which is never negative
BLOCK = 500  # words on end that count as one example of a test set, about: neighbours are not independent


def check(run: Run) -> Run:
    """The run with its values in one form, or BadInput with one line."""

    def must(ok: bool, key: str, value: Any, wanted: str) -> None:
        if not ok:
            raise BadInput(f"{key}={value}: {wanted}")

    m, o = run.model, run.optimizer
    must(m.name == "lstm_lm", "model", m.name, "this table has one network (lstm_lm)")
    must(m.size in SIZES, "model.size", m.size, f"choose {', '.join(SIZES)}")
    must(1 <= m.hidden <= 8192, "model.hidden", m.hidden, "units, from 1 to 8192")
    must(1 <= m.layers <= 16, "model.layers", m.layers, "from 1 to 16")
    must(0 <= m.dropout < 1, "model.dropout", m.dropout, "a share from 0, below 1")
    must(math.isfinite(m.start) and m.start >= 0, "model.start", m.start, "a range above 0, or 0: orthogonal")
    must(math.isfinite(m.forget_bias), "model.forget_bias", m.forget_bias, "must be finite")
    ok = m.gamma is None or (math.isfinite(m.gamma) and m.gamma > 0)
    must(ok, "model.gamma", m.gamma, "above 0, or null for the layer's own")
    must(o.name in ("SGD", "Adam"), "optimizer", o.name, "choose gradient_descent, sgd or adam")
    must(math.isfinite(o.lr) and o.lr > 0, "optimizer.lr", o.lr, "the learning rate must be above 0")
    must(o.l2 == 0, "optimizer.l2", o.l2, "this table has no weight decay")
    must(0 < run.decay <= 1, "decay", run.decay, "a factor above 0, up to 1")
    must(run.keep_rate >= 0, "keep_rate", run.keep_rate, "epochs, 0 or more")
    must(math.isfinite(run.clip) and run.clip > 0, "clip", run.clip, "a norm above 0")
    must(1 <= run.window <= 10_000, "window", run.window, "time steps, from 1")
    must(run.batch_size >= 2, "batch_size", run.batch_size, "batch statistics need at least 2")
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    from data import is_text

    must(is_text(run.data.name), "data", run.data.name, "this table wants a text (ptb, kjv, text)")
    return run


def can_stack(run: Run) -> bool:
    return False


def cell(run: Run) -> tuple[str, str]:
    """(row, column): size and normaliser; ptb for words of any text, char for characters."""
    suffix = SUFFIX.get(run.norm.name, f"_{run.norm.name}")
    started = "" if run.model.gamma is None else f"_{run.model.gamma:g}"
    chars = run.data.options.get("units") == "chars"
    return f"{run.model.size}{suffix}{started}", "char" if chars else "ptb"


class State:
    """All that training changes: the network, the hidden states that go from window to window, the place in
    the text. Dropout draws from torch's generator, which the caller saves.
    """

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        import torch

        from experiments import measure
        from experiments.population import Population
        from norms.lstm import BatchNormLSTM

        self.run, self.data, self.device = runs[0], measure.to_device(data, device), device
        run, T, B = self.run, self.run.window, self.run.batch_size
        self.classes = len(data.classes)
        spare = T if run.crop else 0
        self.steps_per_epoch = ((len(data.x_train) - spare) // B - 1) // T
        self.batch_rows = T * B
        for part, least in (("train", B * (T + 1) + spare), ("val", B + 1), ("test", B + 1)):
            n = len(getattr(data, f"x_{part}"))
            if n < least:
                raise BadInput(
                    f"{data.name}: {n:,} words to {part if part != 'val' else 'validate'}, fewer than the"
                    f" {least:,} that batch_size={B} and window={T} need"
                )
        torch.manual_seed(run.seed)
        self.model = built(run, self.classes).to(device)
        self.net = Population([self.model])
        lstm = self.model.lstm
        self.mixes = isinstance(lstm, BatchNormLSTM)
        options = {"fused": True if device.type == "cpu" else None, **run.optimizer.options}
        parameters = [p for _, p in self.net.named_parameters()]
        try:
            self.optimizer = getattr(torch.optim, run.optimizer.name)(
                parameters, lr=run.optimizer.lr, **options
            )
        except (TypeError, ValueError) as e:
            raise BadInput(f"optimizer.options={run.optimizer.options}: {str(e).splitlines()[0]}") from e
        self.epoch, self.batch = 0, 0  # the next window to train on
        self.states: Any = self.model.initial(B)
        self.sums = torch.zeros(2, dtype=torch.float64)  # of losses, of perplexities of windows; this epoch
        torch.manual_seed(run.seed)

    def rate(self) -> float:
        run = self.run
        return float(run.optimizer.lr * run.decay ** max(0, self.epoch + 1 - run.keep_rate))

    def text(self) -> Any:
        """This epoch's words, [steps * T + 1, B]: B texts side by side, the last words left out."""
        import torch

        run, first = self.run, 0
        if run.crop:
            seed = run.seed * 1_000_003 + self.epoch
            first = int(torch.randint(run.window, (), generator=torch.Generator().manual_seed(seed)))
        ids = self.data.x_train[first:]
        n = (len(self.data.x_train) - (run.window if run.crop else 0)) // run.batch_size
        return ids[: n * run.batch_size].view(run.batch_size, n).t().contiguous()

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "states": self.states,
            "sums": self.sums,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch, self.sums = state["epoch"], state["batch"], state["sums"]
        self.states = tuple(s.to(self.device) for s in state["states"])


def train(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Train from where `state` is to the end; yields (step, None) now and then and (step, metrics) after
    every epoch. A metric is a list of one value. A loss that is not finite ends it, with perplexities of
    infinity.
    """
    import torch
    from torch.nn.utils import clip_grad_norm_

    run, net, T, B = state.run, state.model, state.run.window, state.run.batch_size
    parameters = list(net.parameters())
    while state.epoch < run.epochs:
        text = state.text()
        for group in state.optimizer.param_groups:
            group["lr"] = state.rate()
        net.train()
        while state.batch < state.steps_per_epoch:
            at = state.batch * T
            features, states = net(text[at : at + T], state.states)
            loss = net.summed_loss(features, text[at + 1 : at + T + 1])
            state.optimizer.zero_grad(set_to_none=True)
            (loss / B).backward()  # summed over the window, a mean over the texts
            clip_grad_norm_(parameters, run.clip)
            state.optimizer.step()
            state.states = tuple(s.detach() for s in states)
            value = loss.item()
            state.sums += torch.tensor([value, perplexity(value / (T * B))], dtype=torch.float64)
            state.batch += 1
            step = state.epoch * state.steps_per_epoch + state.batch
            if not math.isfinite(value):
                yield step, {"step": [step], "train_loss": [math.nan], **{k: [math.inf] for k in MEASURED}}
                return
            if state.batch % 20 == 0 and state.batch < state.steps_per_epoch:
                yield step, None
        metrics = {"step": [step], **evaluated(state)}
        state.epoch, state.batch, state.states = state.epoch + 1, 0, net.initial(B)
        state.sums = torch.zeros_like(state.sums)
        yield step, metrics


def perplexity(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def evaluated(state: State) -> dict[str, Any]:
    """Perplexities after an epoch. Of training: over the epoch, as it went, with dropout and batch
    statistics; as the source has it, the mean of the windows'; and of the trained network without dropout,
    over as many words from the start as the validation part has. Of validation and test: with running
    statistics; with the source's mixture; and with the mixture the mean of the windows' perplexities. There
    is a mixture for BN of the input alone: other networks have their own rule's figure in both places.
    """
    import torch

    steps, words = state.steps_per_epoch, state.steps_per_epoch * state.batch_rows
    state.net.eval()
    found: dict[str, Any] = {"train_loss": (state.sums[0] / words).item()}
    found["train_ppl"] = perplexity(found["train_loss"])
    found["train_ppl_source"] = (state.sums[1] / steps).item()
    slice_ = state.data.x_train[: len(state.data.x_val)]
    found["train_ppl_evaluated"] = perplexity(total(losses(state, slice_)))
    for part in ("val", "test"):
        ids = getattr(state.data, f"x_{part}")
        clean = losses(state, ids)
        found[f"{part}_ppl"] = perplexity(total(clean))
        if not math.isfinite(total(clean)):  # weights that the epoch's last step spoiled: diverged
            found["train_loss"] = math.nan
        mixed = losses(state, ids, mixture=True) if state.mixes else clean
        found[f"{part}_ppl_mixture"] = perplexity(total(mixed))
        windows = [perplexity(total(w)) for w in mixed.split(state.run.window)]
        found[f"{part}_ppl_source"] = sum(windows) / len(windows)
        if part == "val":
            influence = scores(clean, found["val_ppl"])
    metrics = {name: [value] for name, value in found.items()}
    return metrics | ({"scores": influence[None]} if torch.isfinite(influence).all() else {})


def losses(state: State, ids: Any, mixture: bool = False) -> Any:
    """-log p of every word of a text but the first, [n, B] float64, MISSING where the last text is shorter
    than the others: B texts side by side, each from an empty state, carried from window to window.
    """
    import torch

    net, run = state.model, state.run
    T, B = run.window, run.batch_size
    n = -(-(len(ids) - 1) // B)
    missing = n * B - (len(ids) - 1)
    # The last text goes on with words from the beginning: they count for nothing but a batch's statistics.
    wrapped = torch.cat([ids, ids[:missing]])
    text, targets = wrapped[:-1].view(B, n).t(), wrapped[1:].view(B, n).t()
    states, found = net.initial(B), []
    with torch.no_grad(), evaluation(net.lstm, mixture):
        for x, y in zip(text.split(T), targets.split(T), strict=True):
            features, states = net(x, states)
            found.append(net.losses(features, y).double())
    flat = torch.cat(found).t().flatten()
    flat[len(ids) - 1 :] = MISSING
    return flat.view(B, n).t()


@contextmanager
def evaluation(lstm: Any, mixture: bool) -> Iterator[None]:
    """Inside the block an LSTM with BN of the input takes running statistics alone or, with `mixture`, mixes
    the batch's in as the source does, whatever the layer was built for.
    """
    known = hasattr(lstm, "mixture")
    if known:
        before = lstm.mixture, lstm.momentum
        lstm.mixture, lstm.momentum = mixture, MIX if mixture else lstm.momentum
    try:
        yield
    finally:
        if known:
            lstm.mixture, lstm.momentum = before


def total(losses: Any) -> float:
    """The mean loss of the words that there are."""
    return float(losses[losses != MISSING].mean())


def scores(losses: Any, ppl: float) -> Any:
    """A number for each block of some BLOCK words on end whose mean is the perplexity and whose spread is
    that of another draw of blocks, float [blocks]. They are its influence values,
    ppl (1 + n_b / mean n (loss_b - loss)) for blocks of n_b words.
    """
    import torch

    rows = losses.t()  # [B, n]
    blocks = [b[b != MISSING] for row in rows for b in row.split(BLOCK)]
    blocks = [b for b in blocks if len(b)]
    sizes = torch.tensor([float(len(b)) for b in blocks], dtype=torch.float64)
    sums = torch.stack([b.sum() for b in blocks])
    mean = sums.sum() / sizes.sum()
    return ppl * (1 + (sums - sizes * mean) / sizes.mean())


def built(run: Run, vocabulary: int) -> Any:
    """The network, or BadInput, one line, where the normaliser does not fit it."""
    from experiments.models.lstm_lm import INSIDE, LSTMLanguageModel

    m, options = run.model, dict(run.norm.options)
    if run.norm.name in INSIDE and run.norm.name != "lstm_layer":
        options.setdefault("max_length", run.window)
    try:
        return LSTMLanguageModel(
            vocabulary, m.hidden, m.layers, m.dropout, m.start, m.forget_bias, run.norm.name, options, m.gamma
        )
    except ValueError as e:
        raise BadInput(f"norm={run.norm.name}: {e}") from e


def trial_rows(run: Run) -> int:
    """Words of a text that make a trial of a network possible."""
    return 2 * run.batch_size * (run.window + 1) + run.window


def trial(state: State) -> None:
    """A forward and backward pass of two words."""
    net = state.model
    ids = state.data.x_train[:4].view(2, 2)
    features, _ = net(ids, net.initial(2))
    net.summed_loss(features, ids).backward()


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics from its curves, one value an epoch, at the epoch of the best validation
    perplexity by the clean rule. Those at the plain network's best epoch the reports find from the curves.
    """
    val = curves["val_ppl"]
    chosen = val.index(min(val))
    found = {name: values[chosen] for name, values in curves.items() if "_ppl" in name}
    for part in ("train", "val", "test"):
        found[f"{part}_ppl_last"] = curves[f"{part}_ppl"][-1]
    found["val_ppl_source_best"] = min(curves["val_ppl_source"])
    for part in ("val", "test"):
        found[f"{part}_bits"] = math.log2(found[f"{part}_ppl"])
    return {
        **found,
        "gap": found["val_ppl"] - found["train_ppl"],
        "steps": curves["step"][-1],
        "epoch_best_val": curves["epoch"][chosen],
    }
