"""Time and memory of the LSTMs of norms/, forward and backward, as ratios to nn.LSTM.

    python benchmarks/bench_lstm.py [threads ...]

The variants take turns within each round, so that whatever else the machine does falls on all of them; what
is printed is the median over rounds of the ratio to nn.LSTM in the same round, with its quartiles. The peer
is what one writes without further thought: a cell with batch statistics of W_x x, called step by step.
Memory is what a training step allocates at its peak beyond what was there before, as torch.profiler counts
it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is talkative

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from turns import show, take_turns, threads

from norms.lstm import BatchNormLSTM, LayerNormLSTM, RecurrentBatchNormLSTM

SIZES = (100, 64, 128), (35, 20, 200), (50, 64, 512)  # T, B, H
BASE = "nn.LSTM"


class CellLoop(nn.Module):
    """BatchNormLSTM, frame statistics, step by step: running statistics per step as it has them."""

    def __init__(self, input_size: int, hidden_size: int, max_length: int = 100) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.input = nn.Linear(input_size, 4 * hidden_size, bias=False)
        self.recurrent = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.gamma = nn.Parameter(torch.ones(4 * hidden_size))
        self.beta = nn.Parameter(torch.zeros(4 * hidden_size))
        self.register_buffer("mean", torch.zeros(max_length, 4 * hidden_size))
        self.register_buffer("var", torch.ones(max_length, 4 * hidden_size))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = c = x.new_zeros(x.shape[1], self.hidden_size)
        outs = []
        for t in range(x.shape[0]):
            z = F.batch_norm(self.input(x[t]), self.mean[t], self.var[t], self.gamma, self.beta, True)
            i, f, g, o = (z + self.recurrent(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outs.append(h)
        return torch.stack(outs), (h[None], c[None])


VARIANTS: dict[str, Callable[[int, int], nn.Module]] = {
    BASE: nn.LSTM,
    "BN, step by step": CellLoop,
    "not normalised": lambda i, h: BatchNormLSTM(i, h, normalize=False),
    "BN, frame": BatchNormLSTM,
    "BN, sequence": lambda i, h: BatchNormLSTM(i, h, statistics="sequence"),
    "recurrent BN": RecurrentBatchNormLSTM,
    "LN": LayerNormLSTM,
}


def step_of(build: Callable[[int, int], nn.Module], steps: int, batch: int, width: int) -> Callable[[], None]:
    torch.manual_seed(0)
    layer = build(width, width)
    x, dy = torch.randn(steps, batch, width, requires_grad=True), torch.randn(steps, batch, width)

    def step() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x)[0].backward(dy)

    return step


def peak(step: Callable[[], None]) -> int:
    """Bytes allocated at the peak of a step beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        step()
    level = highest = 0
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        highest = max(highest, level)
    return highest


def measure(steps: int, batch: int, width: int, rounds: int) -> None:
    tasks = {label: step_of(build, steps, batch, width) for label, build in VARIANTS.items()}
    frames = steps * batch * width * 4  # bytes of one value per unit and frame
    times = take_turns(tasks, rounds)
    peaks = {label: peak(task) for label, task in tasks.items()}
    notes = {label: f"{p / 1e6:7.1f} MB ({p / frames:.0f} T B H)" for label, p in peaks.items()}
    show(f"T, B, H = {steps}, {batch}, {width}", times, notes)


def main() -> None:
    for count in threads():
        torch.set_num_threads(count)
        for steps, batch, width in SIZES:
            measure(steps, batch, width, rounds=12 if width > 256 else 40)


if __name__ == "__main__":
    main()
