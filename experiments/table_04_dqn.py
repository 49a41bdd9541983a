"""Table 4: deep Q-networks with weight normalization (Salimans & Kingma, arXiv 1602.07868, section 5.4) in
place of those of Mnih et al. (Nature 518, 2015), on Atari games or their 10x10 kin of MinAtar.

    loss = sum over a batch of huber( r + gamma (1 - terminal) max_a' Q'(s', a') - Q(s, a) ),   w = g v / |v|

Q' is a copy of Q that follows it now and then. A loss of life is terminal in training, rewards are clipped to
+-1; neither in evaluation.

From the source: Adamax with beta1 0.5, batches of 64, rates of {0.0001, 0.0003, 0.001, 0.003}, the
data-dependent start, no limit on playing time, scores that are the *best* of some 200 evaluations of one run.
From the code that it adapted (deep_q_rl, run_nature.py): all else of the paper profile. Not as there: a
state's frames go back beyond the loss of a life, and no actions are taken before the agent goes on (there
such steps are not sampled, and the first of each life are random); 0 to 29 frames of nothing at a start (0
to 30 actions, and 2); evaluation has a game of its own and does not interrupt the one of training; frames
are scaled by ale-py (there bilinear). Ours where the source is silent: beta2 0.999 and eps 1e-8; the start
takes one batch of replay memory and is given to the un-normalised network as well, as the source does in its
other experiments; the layer of values is normalised, too (model.head); with batch normalisation Q has the
statistics of the batch in training and running ones when it acts, Q' the running ones. Beside the best
evaluation stands the mean of the last tenth of them, which does not reward noise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments import playing
from experiments.config import BadInput, Data, Norm, Optimizer

__all__ = [
    "SELECT",
    "STACK",
    "Run",
    "State",
    "can_stack",
    "cell",
    "check",
    "needs",
    "summarise",
    "train",
    "trial",
]


@dataclass
class Network:
    name: str  # nature | minatar
    bias: float  # of every layer at the start
    start: str  # data: from a batch, as the source; standard: as drawn
    head: bool  # whether a method on weights changes the layer of values, too


@dataclass
class Memory:
    size: int  # steps that are kept
    first: int  # steps, at random, before training begins
    history: int  # frames of a state


@dataclass
class Explore:
    first: float  # share of random actions at the start
    last: float
    steps: int  # over which it falls, from the first training on
    evaluation: float  # in evaluation


@dataclass
class Evaluation:
    every: int  # steps of training between two
    steps: int  # of each


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
    replay: Memory
    explore: Explore
    evaluation: Evaluation
    gamma: float
    update_every: int  # steps of the game
    target_every: int  # updates after which Q' becomes Q
    batch_size: int
    epochs: int  # evaluations
    seed: int


STACK = ()
SELECT = "remaining"  # epochs: none is chosen, the last one counts
ON_WEIGHTS = ("weight_norm", "centered_weight_norm")
FROM_DATA = ("none", "weight_norm")  # networks that may start from data
ROWS = {"none": "dqn", "weight_norm": "dqn_wn", "batch": "dqn_bn"}
STD = 0.05  # of the draws of v


def check(run: Run) -> Run:
    """The run with its values in one form, or BadInput with one line."""

    def must(ok: bool, key: str, value: Any, wanted: str) -> None:
        if not ok:
            raise BadInput(f"{key}={value}: {wanted}")

    from data import is_game

    m, o, r, e, v = run.model, run.optimizer, run.replay, run.explore, run.evaluation
    must(is_game(run.data.name), "data", run.data.name, "this table wants a game (minatar, atari)")
    must(m.name in ("nature", "minatar"), "model", m.name, "choose nature or minatar")
    must(m.start in ("data", "standard"), "model.start", m.start, "choose data or standard")
    must(math.isfinite(m.bias), "model.bias", m.bias, "must be finite")
    must(
        o.name in ("Adamax", "Adam", "SGD", "RMSprop"),
        "optimizer",
        o.name,
        "choose adamax, adam, sgd or rmsprop",
    )
    must(math.isfinite(o.lr) and o.lr > 0, "optimizer.lr", o.lr, "the learning rate must be above 0")
    must(o.l2 == 0, "optimizer.l2", o.l2, "this table has no weight decay")
    must(1 <= r.history <= 16, "replay.history", r.history, "frames, from 1 to 16")
    must(r.size >= r.history + 2, "replay.size", r.size, "steps, more than the frames of a state and one")
    least = max(run.batch_size, r.history + 2)
    must(
        least <= r.first <= r.size,
        "replay.first",
        r.first,
        f"steps, from {least} (a batch) to replay.size={r.size}",
    )
    for key in ("first", "last", "evaluation"):
        share = getattr(e, key)
        must(0 <= share <= 1, f"explore.{key}", share, "a share, from 0 to 1")
    must(e.steps >= 1, "explore.steps", e.steps, "steps, from 1")
    must(v.every >= 1, "evaluation.every", v.every, "steps of training, from 1")
    must(v.steps >= 1, "evaluation.steps", v.steps, "steps, from 1")
    must(0 <= run.gamma < 1, "gamma", run.gamma, "from 0 to below 1")
    must(run.update_every >= 1, "update_every", run.update_every, "steps, from 1")
    must(run.target_every >= 1, "target_every", run.target_every, "updates, from 1")
    must(run.batch_size >= 2, "batch_size", run.batch_size, "batch statistics need at least 2")
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    trained = run.epochs * v.every
    must(
        r.first < trained,
        "replay.first",
        r.first,
        f"the run has {trained} steps in all and would never train",
    )
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    # Other normalisers see to the scale of a unit themselves.
    return run if run.norm.name in FROM_DATA else replace(run, model=replace(m, start="standard"))


def can_stack(run: Run) -> bool:
    return False


def cell(run: Run) -> tuple[str, str]:
    """(row, column): the method, with _standard where it could start from data and does not; the game, with
    _minatar there.
    """
    row = ROWS.get(run.norm.name, f"dqn_{run.norm.name}")
    if run.model.start == "standard" and run.norm.name in FROM_DATA:
        row += "_standard"
    game = str(run.data.options.get("game"))
    return row, game if run.data.name == "atari" else f"{game}_{run.data.name}"


class State:
    """All that training changes: the networks, the game, the memory, the place in training."""

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        import numpy as np
        import torch

        from data import games
        from experiments.models.q_net import flat, follow, sharing
        from experiments.population import Population
        from experiments.replay import Replay

        (self.run,), self.data, self.device = runs, data, device
        run = self.run
        fits_memory(run, data.x_train.shape[1:])
        self.game = games.make(run.data.name, run.data.options, run.seed)
        torch.manual_seed(run.seed)
        self.model = built(run, self.game.shape, self.game.actions).to(device)
        self.net = Population([self.model])
        self.on_weights = run.norm.name in ON_WEIGHTS
        self.target = plain(run, self.game.shape, self.game.actions).to(device)
        self.acting = copy.deepcopy(self.target) if self.on_weights else sharing(self.model)
        follow(self.target, self.model)
        refresh(self)
        self.weights = flat(self.model)
        self.optimizer = optimizer(run.optimizer, self.weights)
        self.memory = Replay(run.replay.size, self.game.shape, run.replay.history)
        self.rng = np.random.default_rng(run.seed)
        self.recent: list[Any] = []  # the last frames of the episode, newest last
        self.step, self.updates = 0, 0  # of the game; of the network
        self.steps_per_epoch, self.rounds = run.evaluation.every, run.epochs
        self.batch_rows = 1  # what counts as an example is a step of the game
        self.returned, self.returns = (
            0.0,
            list[float](),
        )  # of this episode, and of those over since the last evaluation
        self.loss_sum, self.loss_steps = torch.zeros((), device=device), 0
        self.extras: dict[str, list[Any]] = {}

    @property
    def epoch(self) -> int:
        return self.step // self.run.evaluation.every

    def state_dict(self) -> dict[str, Any]:
        import torch

        frames = torch.from_numpy(stacked(self.recent)) if self.recent else None
        return {
            "net": self.net.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "game": self.game.state_dict(),
            "recent": frames,
            "added": self.memory.added,
            "rng": self.rng.bit_generator.state,
            "counts": [self.step, self.updates, self.loss_steps],
            "returns": [self.returned, *self.returns],
            "loss_sum": self.loss_sum,
            "extras": self.extras,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.game.load_state_dict(state["game"])
        self.recent = [] if state["recent"] is None else list(state["recent"].numpy())
        self.memory.added = state["added"]
        self.rng.bit_generator.state = state["rng"]
        self.step, self.updates, self.loss_steps = state["counts"]
        self.returned, *self.returns = state["returns"]
        self.loss_sum, self.extras = state["loss_sum"], state["extras"]
        refresh(self)

    # The memory is too large for a checkpoint: what is new of it goes into files beside.

    def save_beside(self, folder: Any) -> None:
        self.memory.save(folder)

    def load_beside(self, folder: Any) -> None:
        self.memory.load(folder, self.memory.added)


def optimizer(o: Optimizer, weights: Any) -> Any:
    """The optimizer of one vector of weights, or BadInput, one line, where it refuses its options."""
    import torch

    options = {k: tuple(v) if k == "betas" else v for k, v in o.options.items()}
    if o.name in ("Adam", "SGD") and not options.get("foreach"):
        options.setdefault("fused", True)  # one pass over the vector in place of ten
    try:
        return getattr(torch.optim, o.name)([weights], lr=o.lr, **options)
    except (TypeError, ValueError, RuntimeError) as e:
        raise BadInput(f"optimizer={o.name}, options {o.options}: {e}") from e


def stacked(frames: list[Any]) -> Any:
    import numpy as np

    return np.stack(frames)


def fits_memory(run: Run, shape: Sequence[int]) -> None:
    """BadInput, one line, where the replay memory is larger than what this machine has free."""
    import psutil

    from experiments.replay import size_of

    need, free = size_of(run.replay.size, shape), min(psutil.virtual_memory().available, allowed())
    if need > 0.9 * free:
        raise BadInput(
            f"replay.size={run.replay.size}: the memory takes {need / 1e9:.1f} GB of frames"
            f" {'x'.join(map(str, shape))}, this machine has {free / 1e9:.1f} GB free; make it smaller"
        )


def needs(runs: Sequence[Run]) -> str:
    """What a sweep says before it starts: the memory that a run of it takes at most."""
    from data import games
    from experiments.replay import size_of

    kinds = {(r.data.name, str(r.data.options.get("game"))): r for r in runs}
    shapes = {kind: games.make(r.data.name, r.data.options, 0).shape for kind, r in kinds.items()}
    most = max(size_of(r.replay.size, shapes[r.data.name, str(r.data.options.get("game"))]) for r in runs)
    size = f"{most / 1e9:.1f} GB" if most >= 1e9 else f"{most / 1e6:.0f} MB"
    return f"replay memory: up to {size} a run, all of it taken at its start"


def allowed() -> float:
    """Bytes that are left of a container's limit, pages of files that it can drop included; infinity where
    there is none.
    """
    try:
        limit, used, stat = (
            Path("/sys/fs/cgroup", f"memory.{k}").read_text() for k in ("max", "current", "stat")
        )
        droppable = dict(line.split() for line in stat.splitlines()).get("inactive_file", 0)
        return math.inf if limit.strip() == "max" else int(limit) - int(used) + int(droppable)
    except (OSError, ValueError):
        return math.inf


def built(run: Run, shape: Sequence[int], actions: int) -> Any:
    """The network, or BadInput, one line, where it does not fit the game."""
    import norms
    from experiments.models.q_net import q_net, weight_normed

    m, name = run.model, run.norm.name
    on_weights = name == "none" or name in ON_WEIGHTS

    def norm(features: int, dim: int) -> Any:
        return None if on_weights else norms.build(name, features, dim=dim, **run.norm.options)

    try:
        net = q_net(m.name, [run.replay.history, *shape], actions, norm, m.bias)
        return weight_normed(net, m.head, name, run.norm.options) if name in ON_WEIGHTS else net
    except ValueError as e:
        raise BadInput(f"model={m.name}, norm={name}: {e}") from e


def plain(run: Run, shape: Sequence[int], actions: int) -> Any:
    """A network for evaluation, without gradients, in which w stands in the place of g and v."""
    norm = Norm("none", {}) if run.norm.name in ON_WEIGHTS else run.norm
    return built(replace(run, norm=norm), shape, actions).eval().requires_grad_(False)


def train(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Play and train from where `state` is to the end; yields (step, None) now and then and (step, metrics)
    after every evaluation. A metric is a list of one value.
    """
    from experiments.models.q_net import follow

    run = state.run
    total = run.epochs * run.evaluation.every
    while state.step < total:
        play(state)
        if state.step >= run.replay.first:
            if state.updates == 0 and state.step == run.replay.first:
                begin(state)
            if state.step % run.update_every == 0:
                update(state)
                if state.updates % run.target_every == 0:
                    follow(state.target, state.model)
        if state.step % run.evaluation.every == 0:
            yield state.step, figures(state)
        elif state.step % 500 == 0:
            yield state.step, None


def trial(state: State) -> None:
    """A forward and backward pass of two states, and one state alone: what a layer that does not fit fails
    at.
    """
    import torch

    frames = torch.randint(2, (2, state.run.replay.history, *state.game.shape), dtype=torch.uint8)
    state.model(frames.to(state.device)).sum().backward()
    state.acting(frames[:1].to(state.device))


def play(state: State) -> None:
    """One step of the game, into the memory."""
    h = state.run.replay.history
    begins = state.game.over
    if begins:
        state.recent, state.returned = [state.game.reset()], 0.0
    if state.rng.random() < random_share(state):
        action = int(state.rng.integers(state.game.actions))
    else:
        action, _ = playing.best(state.acting, state.recent, h, state.device)
    found = state.game.step(action)
    reward = max(-1.0, min(1.0, found.reward))
    state.memory.add(state.recent[-1], action, reward, found.lost, begins)
    state.recent = [*state.recent[-h + 1 :], found.frame] if h > 1 else [found.frame]
    state.returned += found.reward
    state.step += 1
    if found.over:
        state.returns.append(state.returned)


def random_share(state: State) -> float:
    """Of random actions: all until the training begins, then a share that falls along a line."""
    e, trained = state.run.explore, state.step - state.run.replay.first
    return e.first + (e.last - e.first) * min(1.0, max(0, trained) / e.steps) if trained >= 0 else 1.0


def begin(state: State) -> None:
    """The start of training: from data, if so wished, on a batch of the memory that the seed alone
    decides.
    """
    import numpy as np
    import torch

    from experiments.models.q_net import follow, start_

    run = state.run
    if run.model.start == "data":
        batch = state.memory.sample(run.batch_size, np.random.default_rng([run.seed, 2]))
        x = torch.from_numpy(batch.frames[:, : run.replay.history]).to(state.device)
        start_(state.model, x, run.model.head, STD, torch.Generator().manual_seed(run.seed))
    refresh(state)
    follow(state.target, state.model)


def refresh(state: State) -> None:
    """The network that acts is the one that is trained; of a method on weights it has w ready, not anew at
    each step.
    """
    from experiments.models.q_net import follow

    if state.on_weights:
        follow(state.acting, state.model)


def update(state: State) -> None:
    """One step of the optimizer on a batch of the memory."""
    import torch
    from torch.nn.functional import huber_loss

    run, h, device = state.run, state.run.replay.history, state.device
    batch = state.memory.sample(run.batch_size, state.rng)
    frames, actions, rewards, terminal = (torch.from_numpy(part).to(device) for part in batch)
    with torch.no_grad():
        wanted = rewards + run.gamma * state.target(frames[:, 1:]).amax(1) * ~terminal
    values = state.model(frames[:, :h]).gather(1, actions[:, None]).squeeze(1)
    loss = huber_loss(values, wanted, reduction="sum")
    state.optimizer.zero_grad(set_to_none=False)  # gradients stay where they are
    loss.backward()
    state.optimizer.step()
    state.updates += 1
    refresh(state)
    state.loss_sum += loss.detach() / run.batch_size
    state.loss_steps += 1


def figures(state: State) -> dict[str, Any]:
    """The metrics of an evaluation, and what has been counted since the one before."""
    run = state.run
    found = playing.evaluated(run, state.acting, state.epoch, state.device)
    state.extras = {name: [values] for name, values in found.shown.items()}
    n = max(1, state.loss_steps)
    loss = (state.loss_sum / n).item() if state.loss_steps else 0.0
    training = sum(state.returns) / len(state.returns) if state.returns else math.nan
    metrics = {
        "step": [float(state.step)],
        "train_loss": [loss],
        "train_return": [training],
        "test_return": [found.mean],
        "test_episodes": [float(found.episodes)],
        "value": [found.value],
        "remaining": [float(run.epochs - state.epoch)],
    }
    state.loss_sum, state.loss_steps, state.returns = state.loss_sum * 0, 0, []
    return metrics


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics: the best evaluation, which is what the source prints, the mean of the last tenth,
    and the mean of all, which is the area under the curve.
    """
    returns, episodes = curves["test_return"], curves["test_episodes"]
    last = max(1, round(len(returns) / 10))
    best = max(range(len(returns)), key=returns.__getitem__)
    return {
        "best_return": returns[best],
        "best_episodes": episodes[best],
        "last_return": sum(returns[-last:]) / last,
        "last_episodes": sum(episodes[-last:]),
        "mean_return": sum(returns) / len(returns),
        "train_loss_last": curves["train_loss"][-1],
        "value_last": curves["value"][-1],
        "steps": curves["step"][-1],
    }
