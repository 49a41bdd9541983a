"""How an agent of Table 4 acts, and how well it does."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from data import games
from experiments.replay import state_of

FRAMES = 8  # of an episode that are shown
KEPT = 512  # of an episode that are kept to choose from, and up to twice as many: an episode may be endless


class Score(NamedTuple):
    mean: float  # return of the episodes that were finished; of none: of the one that was cut off
    episodes: int  # that were finished
    value: float  # mean highest value in the states
    shown: dict[str, list[Any]]  # frames of the first episode


def best(net: Any, recent: list[Any], history: int, device: Any) -> tuple[int, float]:
    """The action of the highest value, the first of equal ones, and that value; `recent`: the episode's last
    frames.
    """
    with torch.inference_mode():
        value, action = net(torch.from_numpy(state_of(recent, history))[None].to(device)).max(1)
    return int(action), float(value)


def evaluated(run: Any, net: Any, number: int, device: Any) -> Score:
    """Plays `evaluation.steps` steps of a game of its own, which the seed and the number of the evaluation
    decide.
    """
    h, rng = run.replay.history, np.random.default_rng([run.seed, number, 1])
    game = games.make(run.data.name, run.data.options, int(rng.integers(2**31)))
    returned, values = 0.0, 0.0
    stride = 1  # of the frames that are kept
    returns, recent, shown = list[float](), list[Any](), list[Any]()
    for step in range(run.evaluation.steps):
        if game.over:
            recent, returned = [game.reset()], 0.0
        action, value = best(net, recent, h, device)
        if rng.random() < run.explore.evaluation:
            action = int(rng.integers(game.actions))
        found = game.step(action)
        recent = [*recent[-h + 1 :], found.frame] if h > 1 else [found.frame]
        values, returned = values + value, returned + found.reward
        if not returns and step % stride == 0:
            shown.append(found.frame)
            if len(shown) == 2 * KEPT:
                shown, stride = shown[::2], 2 * stride
        if found.over:
            returns.append(returned)
    mean = sum(returns) / len(returns) if returns else returned
    return Score(mean, len(returns), values / run.evaluation.steps, strip(shown))


def strip(frames: list[Any]) -> dict[str, list[Any]]:
    """A few frames, evenly spread: of MinAtar the number of the last object in each field (0: none), of Atari
    grey values of every second pixel. `strip_shape`: how many, and their height and width.
    """
    places = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    chosen = np.stack([frames[i] for i in places])
    if chosen.shape[1] > 1:
        number = np.arange(1, chosen.shape[1] + 1, dtype=np.uint8)[:, None, None]
        pictures = (chosen * number).max(1)
    else:
        pictures = chosen[:, 0, ::2, ::2]
    return {"strip": pictures.ravel().tolist(), "strip_shape": list(pictures.shape)}
