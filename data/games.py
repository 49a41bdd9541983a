"""Games to act in (Table 4), one at a time: MinAtar's on a 10x10 board (Young & Tian, arXiv 1903.03176) and
those of the Atari 2600 in the Arcade Learning Environment.

A game gives single frames, uint8 [C, H, W]; whoever wants several of them as one state stacks them. The same
seed and actions give the same frames. Both packages are under the GPL and therefore optional:
`pip install '.[games]'`.

Of Atari, the preprocessing is that of `ale_py.AtariVectorEnv`: an action for 4 frames, the pixelwise maximum
of the last two, grey, 84x84; 0 to 29 frames (noop_max - 1) without an action at the start of an
episode; the minimal set of actions; no limit on the length of an episode.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.errors import DataSetMissing

MINATAR = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
SETS = {
    "minatar": f"MinAtar: 10x10 games, quick to learn; game={'|'.join(MINATAR)} (package MinAtar, GPL)",
    "atari": "Atari 2600 games in the Arcade Learning Environment; game=breakout|... (package ale-py, GPL)",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "minatar": {"game": "breakout", "sticky": 0.1},
    "atari": {"game": "breakout", "sticky": 0.0},
}
PACKAGE = {"minatar": "MinAtar", "atari": "ale-py"}
BUTTONS = ("noop", "left", "up", "right", "down", "fire")  # MinAtar's actions
BLOCK = 100  # episodes
NEVER = 2**31 - 1  # frames after which an episode is cut off

Frame = NDArray[np.uint8]


class Step(NamedTuple):
    frame: Frame  # after the action
    reward: float  # as the game scores, not clipped
    lost: bool  # a life; True at the end as well
    over: bool  # the next call must be reset()


def is_game(name: str) -> bool:
    """Whether a data set of this name is a game."""
    return name in SETS


def checked(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in full. ValueError, one line, for an unknown option or game; DataSetMissing without the
    package.
    """
    for key in options:
        if key not in OPTIONS[name]:
            raise ValueError(
                f"data set {name} has no option {key!r}; its options: {', '.join(OPTIONS[name])}"
            )
    full = {**OPTIONS[name], **options}
    sticky = full["sticky"]
    if isinstance(sticky, bool) or not isinstance(sticky, int | float) or not 0 <= sticky < 1:
        raise ValueError(f"{name}: sticky={sticky!r}: a probability from 0 to below 1")
    version(name)
    known = (
        MINATAR
        if name == "minatar"
        else tuple(sorted(importlib.import_module("ale_py.roms").get_all_rom_ids()))
    )
    if full["game"] not in known:
        raise ValueError(f"{name} has no game {full['game']!r}; there are {', '.join(known)}")
    return full


def version(name: str) -> str:
    """Of the package that has the games; DataSetMissing where it is not installed."""
    try:
        found = importlib.metadata.version(PACKAGE[name])
        if name == "atari":
            importlib.metadata.version("gymnasium")  # which AtariVectorEnv imports
        return found
    except importlib.metadata.PackageNotFoundError as e:
        raise DataSetMissing(
            f"data set {name} needs the package {PACKAGE[name]} (GPL, so not installed with the rest):"
            " run `make games`, or pip install '.[games]'"
        ) from e


def fingerprint(name: str, options: Mapping[str, Any]) -> str:
    """Hash of the game: its options, the version of the package, and the ROM."""
    full = checked(name, options)
    parts = [name, full["game"], str(float(full["sticky"])), version(name)]
    if name == "atari":
        path = importlib.import_module("ale_py.roms").get_rom_path(full["game"])
        parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def facts(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a game as a data set without rows: its classes are the actions; `shape` is a
    frame's.
    """
    full = checked(name, options)
    game = make(name, full, seed=0)
    note = f"{full['game']}, {game.actions} actions, {PACKAGE[name]} {version(name)}"
    if full["sticky"]:
        note += f", each action repeated with probability {full['sticky']:g} in place of the next"
    return {
        "shape": game.shape,
        "classes": game.buttons,
        "fingerprint": fingerprint(name, full),
        "source": "Young and Tian 2019" if name == "minatar" else "Bellemare et al. 2013; ROMs of ale-py",
        "licence": "GPL-3.0 (MinAtar)" if name == "minatar" else "GPL-2.0 (ale-py)",
        "notes": (note,),
        "error": "return",
    }


def make(name: str, options: Mapping[str, Any], seed: int) -> Game:
    """A game to act in."""
    full = checked(name, options)
    return (MinAtar if name == "minatar" else Atari)(full["game"], float(full["sticky"]), seed)


class Game:
    """Episodes are numbered from 1. An episode follows from the seed, its number and the actions, and so a
    game goes on elsewhere from these (`state_dict`), whatever is inside the emulator.
    """

    shape: tuple[int, int, int]  # of a frame
    buttons: tuple[str, ...]

    def __init__(self, seed: int) -> None:
        self.seed, self.episode, self.taken = seed, 0, list[int]()
        self.over = True

    @property
    def actions(self) -> int:
        return len(self.buttons)

    def reset(self) -> Frame:
        """The first frame of the next episode."""
        self.episode += 1
        self.taken.clear()
        self.over = False
        return self.begin()

    def step(self, action: int) -> Step:
        """ValueError after the end of an episode: an action there would be lost on the reset."""
        if self.over:
            raise ValueError("the episode is over: call reset()")
        self.taken.append(action)
        found = self.act(action)
        self.over = found.over
        return found

    def begin(self) -> Frame:
        raise NotImplementedError

    def act(self, action: int) -> Step:
        raise NotImplementedError

    def rewind(self, episode: int) -> None:
        """As after so many resets, the last of which is yet to be called."""
        self.episode = episode

    def state_dict(self) -> dict[str, Any]:
        return {"episode": self.episode, "taken": list(self.taken), "over": self.over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Plays the episode again to where it was."""
        if state["episode"]:
            self.rewind(state["episode"] - 1)
            self.reset()
            for action in state["taken"]:
                self.step(action)
        self.over = state["over"]


class MinAtar(Game):
    """Every channel is an object, 0 or 1; its six actions are the same in every game."""

    buttons = BUTTONS

    def __init__(self, game: str, sticky: float, seed: int) -> None:
        super().__init__(seed)
        logging.disable(logging.WARNING)  # it warns that seaborn is missing, which only its display wants
        try:
            environment = importlib.import_module("minatar").Environment
        finally:
            logging.disable(logging.NOTSET)
        self.env = environment(game, sticky_action_prob=sticky)
        height, width, channels = self.env.state_shape()
        self.shape = (channels, height, width)

    def begin(self) -> Frame:
        own = np.random.SeedSequence([self.seed, self.episode]).generate_state(1)[0]
        self.env.seed(int(own))
        self.env.last_action = 0
        self.env.reset()
        return self.frame()

    def act(self, action: int) -> Step:
        reward, over = self.env.act(action)
        return Step(self.frame(), float(reward), bool(over), bool(over))

    def frame(self) -> Frame:
        return np.ascontiguousarray(self.env.state().transpose(2, 0, 1)).view(np.uint8)


class Atari(Game):
    """One emulator, whose preprocessing is C++. Episodes differ in the frames without an action at their
    start, which the emulator draws from its seed. A seed loads the ROM anew, which takes the time of a
    hundred steps: so there is one for BLOCK episodes, or for each where actions are sticky, since these are
    drawn as well.
    """

    shape = (1, 84, 84)

    def __init__(self, game: str, sticky: float, seed: int) -> None:
        super().__init__(seed)
        env = importlib.import_module("ale_py").AtariVectorEnv
        self.sticky = sticky
        self.env = env(
            game,
            num_envs=1,
            num_threads=1,
            stack_num=1,
            repeat_action_probability=sticky,
            max_num_frames_per_episode=NEVER,
            noop_max=30,
            use_fire_reset=False,
            episodic_life=False,
            reward_clipping=False,
        )
        self.buttons = tuple(str(a).rpartition(".")[2].lower() for a in self.env.ale.get_action_set())
        self.lives = 0
        self.resets: int | None = None  # since the seed

    def begin(self) -> Frame:
        block, place = divmod(self.episode - 1, 1 if self.sticky else BLOCK)
        if place == 0 or self.resets is None:
            own = np.random.SeedSequence([self.seed, block]).generate_state(1)[0]
            frame, info = self.env.reset(seed=int(own % 2**31))
            self.resets = 0
        while self.resets < place:  # more than once after `rewind`: to the draws of this episode
            frame, info = self.env.reset()
            self.resets += 1
        self.lives = int(info["lives"][0])
        return np.array(frame[0])

    def rewind(self, episode: int) -> None:
        super().rewind(episode)
        self.resets = None

    def act(self, action: int) -> Step:
        frame, reward, over, _, info = self.env.step(np.array([action]))
        lives = int(info["lives"][0])
        lost, self.lives = lives < self.lives, lives
        return Step(np.array(frame[0]), float(reward[0]), lost or bool(over[0]), bool(over[0]))
