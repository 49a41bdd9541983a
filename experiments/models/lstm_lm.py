"""The network of Table 8: the LSTM language model of Zaremba, Sutskever & Vinyals, arXiv 1409.2329, and its
loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import norms

# Rows of the softmax at a time: 200 x 10,000 figures are 8 MB. Against the logits of a whole window at once,
# half the memory and about the same time (bench_lstm_lm.py).
ROWS = 200
INSIDE = ("lstm_batch", "lstm_recurrent_batch", "lstm_layer")  # normalisers that are LSTMs themselves
FITTING = ("none", *INSIDE, "weight_norm")

State = tuple[Tensor, Tensor]


class LSTMLanguageModel(nn.Module):
    """ids [T, B] and states (h, c), each [layers, B, H] -> features [T, B, H] and the next states; the logits
    are `decoder(features)`, which `summed_loss` never holds all at once.

        embedding (V x H) - dropout - LSTM 1 - dropout - ... - LSTM n - dropout - softmax (H x V)

    Dropout never acts on the recurrent path. `start` > 0: every weight and bias is uniform in +- start, as
    Zaremba et al. have it, with a normaliser's own gamma and beta. `start` = 0: matrices are orthogonal,
    those of an LSTM gate by gate, and biases 0, as Cooijmans et al. have it. `forget_bias` is added to the
    forget gate's. `gamma` starts all gains of a normaliser.

    norm: none is nn.LSTM, weight_norm the same with both matrices of each layer as g v / |v|, row by row; the
    others take nn.LSTM's place with its weights. A dotted path is a class of the user's that is called as
    nn.LSTM is. ValueError, one line, where it does not fit.
    """

    def __init__(
        self,
        vocabulary: int,
        hidden: int,
        layers: int = 2,
        dropout: float = 0.0,
        start: float = 0.1,
        forget_bias: float = 0.0,
        norm: str = "none",
        options: dict[str, Any] | None = None,
        gamma: float | None = None,
    ) -> None:
        super().__init__()
        options = options or {}
        if norm not in FITTING and "." not in norm:
            raise ValueError(f"an LSTM is normalised inside: choose one of {', '.join(FITTING)}")
        if options and norm in ("none", "weight_norm"):
            raise ValueError(f"takes no options here, leave out {', '.join(options)}")
        self.embedding = nn.Embedding(vocabulary, hidden)
        between = dropout if layers > 1 else 0.0
        if "." in norm:
            self.lstm = _own(norm, hidden, layers, between, options)
        else:
            self.lstm = nn.LSTM(hidden, hidden, layers, dropout=between)
        self.decoder = nn.Linear(hidden, vocabulary)
        self.dropout = nn.Dropout(dropout)
        self.hidden, self.layers = hidden, layers
        self._start(start)
        if norm in INSIDE:
            norms.convert(self, norm, **options)
        elif norm == "weight_norm":
            for name, _ in list(self.lstm.named_parameters()):
                if name.startswith("weight"):
                    weight_norm(self.lstm, name, dim=0)
        self._biases(forget_bias)
        if gamma is not None:
            gains = [p for n, p in self.lstm.named_parameters() if n.startswith("gamma")]
            if not gains:
                raise ValueError(f"model.gamma={gamma:g}: norm={norm} has no gains to start")
            for p in gains:
                nn.init.constant_(p, gamma)

    def _start(self, start: float) -> None:
        for name, p in self.named_parameters():
            if p.dim() == 1 and not name.startswith(("decoder.", "lstm.bias_ih", "lstm.bias_hh")):
                continue  # of a user's layer: its own gains and shifts
            if start:
                nn.init.uniform_(p, -start, start)
            elif p.dim() == 1:
                nn.init.zeros_(p)
            else:
                for block in p.chunk(4) if name.startswith("lstm.") else (p,):
                    nn.init.orthogonal_(block)

    @torch.no_grad()
    def _biases(self, forget: float) -> None:
        for name, p in self.lstm.named_parameters() if forget else ():
            if name.startswith(("bias_ih", "bias_l")):
                p[self.hidden : 2 * self.hidden] += forget

    def initial(self, batch: int) -> State:
        zeros = self.decoder.weight.new_zeros(self.layers, batch, self.hidden)
        return zeros, zeros.clone()

    def forward(self, ids: Tensor, states: State) -> tuple[Tensor, State]:
        out, states = self.lstm(self.dropout(self.embedding(ids)), states)
        return self.dropout(out), states

    def summed_loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Sum over all words of -log p(target); features [T, B, H], targets [T, B]."""
        weight, bias = self.decoder.weight, self.decoder.bias
        return _SummedLoss.apply(features.flatten(0, 1), weight, bias, targets.flatten())

    @torch.no_grad()
    def losses(self, features: Tensor, targets: Tensor) -> Tensor:
        """-log p(target) of each word, [T, B]."""
        rows = zip(features.flatten(0, 1).split(ROWS), targets.flatten().split(ROWS), strict=True)
        found = [F.cross_entropy(self.decoder(x), y.long(), reduction="none") for x, y in rows]
        return torch.cat(found).view_as(targets)


def _own(path: str, hidden: int, layers: int, dropout: float, options: dict[str, Any]) -> Any:
    """The user's LSTM. That it takes and gives what nn.LSTM does is tried here, once."""
    import importlib

    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
        lstm = cls(hidden, hidden, layers, dropout=dropout, **options)
    except Exception as e:  # anything may go wrong in a user's layer
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(f"{path}({hidden}, {hidden}, {layers}, dropout={dropout:g}): {reason}") from e
    zeros = torch.zeros(layers, 2, hidden)
    try:
        out, (h, c) = lstm(torch.zeros(3, 2, hidden), (zeros, zeros))
        shapes = [tuple(x.shape) for x in (out, h, c)]
    except Exception as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(f"{path} is not called as nn.LSTM is, x, (h, c) -> y, (h, c): {reason}") from e
    if shapes != [(3, 2, hidden), (layers, 2, hidden), (layers, 2, hidden)]:
        raise ValueError(
            f"{path} gives shapes {shapes} where nn.LSTM gives y [T, B, H] and h, c [layers, B, H]"
        )
    return lstm


class _SummedLoss(torch.autograd.Function):
    """sum_n -log softmax(W x_n + b)[y_n], and its gradients, ROWS examples at a time.

    A window of 35 words has 700 x 10,000 logits, which with their log-softmax and its gradient go through
    memory many times. Here the gradient p - onehot(y) is made where
    the logits are, in the forward pass, and only x's, W's and b's are kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        total = x.new_zeros((), dtype=torch.float64)
        wanted = any(ctx.needs_input_grad)
        dx, dweight, dbias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        start = 0
        for rows, y in zip(x.split(ROWS), targets.split(ROWS), strict=True):
            logp = F.log_softmax(torch.addmm(bias, rows, weight.t()), 1)
            at = y.long().unsqueeze(1)
            total -= logp.gather(1, at).sum(dtype=torch.float64)
            if wanted:
                grad = logp.exp_()
                grad.scatter_add_(1, at, grad.new_full(at.shape, -1.0))
                torch.mm(grad, weight, out=dx[start : start + len(rows)])
                dweight.addmm_(grad.t(), rows)
                dbias += grad.sum(0)
            start += len(rows)
        ctx.save_for_backward(dx, dweight, dbias)
        return total.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        dx, dweight, dbias = ctx.saved_tensors
        return dx * upstream, dweight * upstream, dbias * upstream, None
