"""Table 4: a step of training written out, the copies of the network, the start from data, what counts as the
end of an episode, evaluation, resuming, what cannot run.
"""

import importlib.util
import json
import math
import shutil
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import norms
from data import games
from experiments import config, grid, job, playing, store, sweep
from experiments import table_04_dqn as t4
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.models import q_net
from experiments.replay import Batch
from reports import published

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("minatar"), reason="the package MinAtar (GPL) is not installed: make games"
)
CPU = torch.device("cpu")
ADAMAX = {"betas": [0.5, 0.999], "eps": 1e-8}


def run(norm="none", **changes):
    network = t4.Network("minatar", 0.0, changes.pop("start", "data"), changes.pop("head", True))
    made = t4.Run(
        table="T4",
        data=Data("minatar", 0.1, None, None, {"game": changes.pop("game", "breakout"), "sticky": 0.1}),
        model=network,
        norm=Norm(norm, {}),
        optimizer=Optimizer(
            changes.pop("optimizer", "Adamax"), changes.pop("lr", 3e-4), 0.0, changes.pop("options", ADAMAX)
        ),
        replay=t4.Memory(changes.pop("size", 500), changes.pop("first", 60), changes.pop("history", 1)),
        explore=t4.Explore(1.0, 0.1, 100, 0.05),
        evaluation=t4.Evaluation(changes.pop("every", 150), changes.pop("eval_steps", 80)),
        gamma=0.9,
        update_every=2,
        target_every=10,
        batch_size=8,
        epochs=2,
        seed=0,
    )
    return t4.check(replace(made, **changes))


def state_of(one):
    import data

    return t4.State([one], data.load(one.data.name, **one.data.options), CPU)


def trained(one, steps):
    state = state_of(one)
    made = t4.train(state)
    while state.step < steps:
        try:
            next(made)
        except StopIteration:
            break
    return state


def states(n, shape=(1, 4, 10, 10), seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (n, *shape)).astype(np.uint8))


# ---- a step of training -----------------------------------------------------------------------------------


def adamax(p, g, m, u, t, lr, b1=0.5, b2=0.999, eps=1e-8):
    """Kingma & Ba, algorithm 2, with torch's eps beside |g|."""
    m = b1 * m + (1 - b1) * g
    u = np.maximum(b2 * u, np.abs(g) + eps)
    return p - lr / (1 - b1**t) * m / u, m, u


def test_updates_are_the_formula_written_out(monkeypatch):
    """Three updates of a linear Q in numpy: targets with the old network, errors clipped to +-1, their sum
    over the batch, Adamax.
    """
    one = run(lr=0.05, start="standard")
    state = state_of(one)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(400, 6))

    class Q(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = linear

        def forward(self, x):
            return self.layers(x.float())

    state.model = Q()
    old = nn.Linear(400, 6)
    state.target = lambda x: old(x.flatten(1).float())
    state.weights = q_net.flat(state.model)
    state.optimizer = torch.optim.Adamax([state.weights], lr=0.05, betas=(0.5, 0.999), eps=1e-8)
    W, b = (p.detach().double().numpy().copy() for p in linear[1].parameters())
    W2, b2 = (p.detach().double().numpy() for p in old.parameters())
    slots = [(np.zeros_like(W), np.zeros_like(W)), (np.zeros_like(b), np.zeros_like(b))]
    rng = np.random.default_rng(1)
    losses = 0.0
    clipped = 0
    for t in range(1, 4):
        frames = rng.integers(0, 2, (8, 2, 4, 10, 10)).astype(np.uint8)
        batch = Batch(
            frames, rng.integers(0, 6, 8), rng.integers(-3, 4, 8).astype(np.float32), rng.random(8) < 0.4
        )
        monkeypatch.setattr(state.memory, "sample", lambda n, r, found=batch: found)
        t4.update(state)
        x, after = (frames[:, k].reshape(8, -1).astype(float) for k in (0, 1))
        wanted = batch.rewards + 0.9 * (after @ W2.T + b2).max(1) * (1 - batch.terminal)
        error = (x @ W.T + b)[np.arange(8), batch.actions] - wanted
        clipped += (abs(error) > 1).sum()
        losses += np.where(abs(error) <= 1, error**2 / 2, abs(error) - 0.5).sum() / 8
        slope = np.zeros((8, 6))
        slope[np.arange(8), batch.actions] = np.clip(error, -1, 1)
        for k, g in enumerate((slope.T @ x, slope.sum(0))):
            p, *slot = adamax((W, b)[k], g, *slots[k], t, 0.05)
            slots[k] = tuple(slot)
            if k == 0:
                W = p
            else:
                b = p
    assert clipped and (abs(error) < 1).any()
    np.testing.assert_allclose(linear[1].weight.detach().numpy(), W, atol=2e-5)
    np.testing.assert_allclose(linear[1].bias.detach().numpy(), b, atol=2e-5)
    assert state.loss_sum.item() == pytest.approx(losses, rel=1e-5) and state.updates == state.loss_steps == 3


@pytest.mark.parametrize("norm", ["none", "weight_norm", "batch"])
@pytest.mark.parametrize("name", ["Adamax", "RMSprop", "Adam"])
def test_one_long_vector_is_the_same_optimizer(norm, name):
    options = ADAMAX if name == "Adamax" else {}
    one = run(norm, optimizer=name, options=options, lr=0.01)
    state = state_of(one)
    twin = t4.built(one, state.game.shape, 6)
    twin.load_state_dict(state.model.state_dict())
    kinds = {"betas": (0.5, 0.999)} if name == "Adamax" else {}
    optimizer = getattr(torch.optim, name)(twin.parameters(), lr=0.01, **kinds)
    for k in range(4):
        x = states(16, seed=k)
        state.optimizer.zero_grad(set_to_none=False)
        state.model(x).square().sum().backward()
        state.optimizer.step()
        optimizer.zero_grad()
        twin(x).square().sum().backward()
        optimizer.step()
    for (key, a), b in zip(state.model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=key)


# ---- copies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [True, False])
def test_the_target_has_g_v_and_b(head):
    """Each of the three, changed in the network, changes the target once it follows, and not before."""
    one = run("weight_norm", head=head)
    state = state_of(one)
    x = states(32)
    layer = state.model.layers[0]
    parts = {
        "g": layer.parametrizations.weight.original0,
        "v": layer.parametrizations.weight.original1,
        "b": layer.bias,
    }
    for name, part in parts.items():
        before = state.target(x)
        with torch.no_grad():
            part.add_(torch.randn(part.shape, generator=torch.Generator().manual_seed(1)))
        assert torch.equal(state.target(x), before), name
        assert not torch.allclose(state.model(x), before), name
        q_net.follow(state.target, state.model)
        torch.testing.assert_close(state.target(x), state.model(x))
        assert not torch.allclose(state.target(x), before), name
    assert not any(p.requires_grad for p in state.target.parameters())


@pytest.mark.parametrize("norm", ["none", "weight_norm", "batch", "layer", "centered_weight_norm"])
def test_who_acts_is_who_is_trained(norm):
    state = trained(run(norm, epochs=1), 149)
    x = states(16, seed=3)
    state.model.eval()
    torch.testing.assert_close(state.acting(x), state.model(x))
    assert not state.acting.training
    if norm != "batch":  # there the target has older running statistics
        assert not torch.allclose(state.target(x), state.acting(x))


def test_the_target_stands_still_between_its_turns():
    one = run(epochs=1, target_every=25, every=200)
    state, x = state_of(one), states(8)
    seen, updates = [], []
    update = t4.update

    def noted(state):
        update(state)
        seen.append((state.step, state.target(x).clone()))
        updates.append(state.step)

    t4.update = noted
    try:
        list(t4.train(state))
    finally:
        t4.update = update
    assert updates == list(range(60, 201, 2))
    changes = [b for (_, u), (b, v) in pairwise(seen) if not torch.equal(u, v)]
    assert changes == [110, 160]  # the updates after the 25th (step 108) and the 50th (158)


# ---- the start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "weight_norm"])
@pytest.mark.parametrize("head", [True, False])
def test_every_unit_starts_with_mean_0_and_variance_1(norm, head):
    one = run(norm, head=head, batch_size=32, first=60)
    state = state_of(one)
    state.step = 0
    while state.step < 60:
        t4.play(state)
    before = {name: p.clone() for name, p in state.model.named_parameters()}
    places_before = [p.data_ptr() for p in state.model.parameters()]
    t4.begin(state)
    batch = state.memory.sample(32, np.random.default_rng([0, 2]))
    found: list[torch.Tensor] = []
    for layer in state.model.layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda m, a, y: found.append(y))
    out = state.model(torch.from_numpy(batch.frames[:, :1]))
    assert len(found) == 3
    for y in found if head else found[:2]:
        axes = [0, *range(2, y.dim())]
        torch.testing.assert_close(y.mean(axes), torch.zeros(y.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(y.var(axes, correction=0), torch.ones(y.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(state.acting(torch.from_numpy(batch.frames[:, :1])), out)
    torch.testing.assert_close(state.target(torch.from_numpy(batch.frames[:, :1])), out)
    assert [p.data_ptr() for p in state.model.parameters()] == places_before  # still what the optimizer holds
    parts = state.weights.detach().split([p.numel() for p in state.model.parameters()])
    assert [part.data_ptr() for part in parts] == places_before
    last = state.model.layers[-1]
    if not head:
        name = next(n for n, p in state.model.named_parameters() if p is last.weight)
        assert torch.equal(last.weight, before[name])


def test_both_arms_start_as_one_function():
    one, other = (
        trained(run(norm, every=60, first=59, epochs=1, update_every=500), 60)
        for norm in ("none", "weight_norm")
    )
    x = states(16)
    assert one.updates == other.updates == 0
    torch.testing.assert_close(one.model(x), other.model(x))


def test_the_standard_start_is_he_uniform():
    torch.manual_seed(0)
    net = q_net.q_net("nature", (4, 1, 84, 84), 6, lambda c, d: None, 0.1)
    layers = [m for m in net.layers if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [tuple(m.weight.shape) for m in layers] == [
        (32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (6, 512),
    ]  # fmt: skip
    for m in layers:
        bound = math.sqrt(3 / m.weight[0].numel())  # Lasagne's, whose gain is 1
        assert bound * 0.98 < m.weight.abs().max() <= bound and torch.all(m.bias == 0.1)
    assert net(torch.full((2, 4, 1, 84, 84), 255, dtype=torch.uint8)).shape == (2, 6)


# ---- playing ----------------------------------------------------------------------------------------------


def evaluated(state):
    return playing.evaluated(state.run, state.acting, state.epoch, CPU)


class Scripted:
    """A game of two lives, with rewards beyond 1: frames are numbered."""

    shape, actions, buttons = (4, 10, 10), 6, tuple("abcdef")

    def __init__(self):
        self.over, self.t, self.episode = True, 0, 0

    def frame(self):
        return np.full(self.shape, self.t, np.uint8)

    def reset(self):
        self.over, self.t, self.episode = False, 10 * (self.episode + 1), self.episode + 1
        return self.frame()

    def step(self, action):
        self.t += 1
        k = self.t % 10
        self.over = k == 5
        return games.Step(self.frame(), {2: 7.0, 4: -3.0}.get(k, 0.0), k in (3, 5), self.over)


def test_a_life_is_terminal_and_an_episode_goes_on():
    state = state_of(run())
    state.game = Scripted()
    for _ in range(11):
        t4.play(state)
    m = state.memory
    assert m.frames[:11, 0, 0, 0].tolist() == [10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 30]
    assert m.terminal[:11].tolist() == [False, False, True, False, True] * 2 + [False]
    assert m.first[:11].tolist() == [True, False, False, False, False] * 2 + [True]
    assert m.rewards[:11].tolist() == [0, 1, 0, -1, 0] * 2 + [0]  # clipped
    assert state.returns == [4.0, 4.0]  # not clipped, and over both lives


def test_several_frames_make_a_state():
    state = state_of(run(history=3))
    state.game, seen = Scripted(), []
    state.model = None
    state.acting = lambda x: seen.append(x[0, :, 0, 0, 0].tolist()) or torch.zeros(1, 6)
    state.rng = type("R", (), {"random": lambda s: 1.0, "integers": lambda s, n: 0})()
    state.step = state.run.replay.first + 1000
    for _ in range(7):
        t4.play(state)
    assert seen == [
        [0, 0, 10],
        [0, 10, 11],
        [10, 11, 12],
        [11, 12, 13],
        [12, 13, 14],
        [0, 0, 20],
        [0, 20, 21],
    ]


def test_random_actions_become_fewer():
    state = state_of(run())
    found = {}
    for step in (0, 59, 60, 110, 160, 10_000):
        state.step = step
        found[step] = t4.random_share(state)
    assert found == pytest.approx({0: 1, 59: 1, 60: 1, 110: 0.55, 160: 0.1, 10_000: 0.1})


def test_evaluation_counts_whole_episodes(monkeypatch):
    state = state_of(run(eval_steps=13))
    monkeypatch.setattr(games, "make", lambda *a: Scripted())
    before = [p.clone() for p in state.model.parameters()]
    found = evaluated(state)
    assert (found.mean, found.episodes) == (4.0, 2)  # the third, cut off, does not count
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    assert state.memory.added == 0 and state.step == 0
    assert found.shown["strip_shape"] == [5, 10, 10] and len(found.shown["strip"]) == 500


def test_an_evaluation_without_a_whole_episode_says_so(monkeypatch):
    state = state_of(run(eval_steps=3))
    monkeypatch.setattr(games, "make", lambda *a: Scripted())
    assert evaluated(state)[:2] == (7.0, 0)


@pytest.mark.parametrize("steps", [9, 64, 65, 1000])
def test_a_long_episode_is_kept_thinned_and_shown_from_end_to_end(monkeypatch, steps):
    """Of an episode that never ends no more than 2 KEPT frames are held; those shown are spread over it."""

    class Endless(Scripted):
        def step(self, action):
            self.t += 1
            return games.Step(np.full(self.shape, (self.t - 10) % 251, np.uint8), 0.0, False, False)

    held = []
    state = state_of(run(eval_steps=steps))
    monkeypatch.setattr(playing, "KEPT", 32)
    monkeypatch.setattr(playing, "strip", lambda frames: held.extend(int(f.max()) for f in frames) or {})
    monkeypatch.setattr(games, "make", lambda *a: Endless())
    assert evaluated(state).episodes == 0
    stride = {9: 1, 64: 2, 65: 2, 1000: 16}[steps]
    assert held == [n % 251 for n in range(1, steps + 1, stride)] and len(held) < 64


def test_evaluations_differ_and_are_repeatable():
    state = trained(run(eval_steps=400, epochs=1), 150)
    first, again = evaluated(state), evaluated(state)
    assert first == again
    state.step += 150
    assert evaluated(state) != first


def test_summary():
    returns = [1.0, 5.0, 2.0, 4.0, 3.0] * 4
    curves = {
        "test_return": returns,
        "test_episodes": [float(i) for i in range(20)],
        "train_loss": [0.5] * 20,
        "value": [1.0] * 20,
        "step": [100.0 * (i + 1) for i in range(20)],
    }
    found = t4.summarise(curves)
    assert (found["best_return"], found["best_episodes"]) == (5.0, 1.0)
    assert (found["last_return"], found["last_episodes"]) == (3.5, 37.0)
    assert found["mean_return"] == 3.0 and found["steps"] == 2000


@pytest.mark.slow
def test_it_learns_to_breakout():
    """Not a measurement: twice the return of random play after 6,000 steps."""
    one = run(every=6000, eval_steps=2000, epochs=1, first=1000, size=10_000, batch_size=32, lr=1e-3)
    one = replace(one, explore=t4.Explore(1.0, 0.1, 2000, 0.05), gamma=0.99, target_every=200)
    random = replace(one, evaluation=t4.Evaluation(1001, 2000), explore=t4.Explore(1.0, 1.0, 1, 1.0))
    (_, learned), (_, guessed) = ([m for m in t4.train(state_of(o)) if m[1]][-1] for o in (one, random))
    assert learned["test_return"][0] > 2 * guessed["test_return"][0]


# ---- stopping and going on --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["weight_norm", "batch"])
def test_a_killed_job_goes_on_bit_for_bit(composed, tmp_path, monkeypatch, norm):
    """Stopped before training begins, in its middle, and with the ring of memory gone round in between;
    memory files of a process that died before its checkpoint are there as well.
    """
    more = ["replay.size=700", "replay.first=550", "evaluation.every=2100", "epochs=1", "evaluation.steps=50"]
    words = ["table=T4", "profile=smoke", f"norm={norm}", "column=breakout_minatar", "threads=1", *more]
    (point, *_) = grid.points(words, composed)

    def cfg(runs):
        return composed([*grid.job_overrides([point]), f"runs={runs}", "threads=1"])

    with monkeypatch.context() as stopped:
        stopped.setattr(job.Job, "asked_to_stop", lambda self: True)
        for _ in range(3):
            assert set(job.run(cfg(tmp_path / "a")).values()) == {"interrupted"}
    (memory,) = (tmp_path / "a").glob("T4/*/memory")
    assert [p.name for p in sorted(memory.iterdir())][-1].endswith("1500.z")
    (memory / "000000001500-000000001600.z").write_bytes(b"half a file")
    assert set(job.run(cfg(tmp_path / "a")).values()) == {"finished"}
    assert set(job.run(cfg(tmp_path / "b")).values()) == {"finished"}
    assert not memory.exists()  # nor a checkpoint
    a, b = (json.loads(next((tmp_path / k).glob("T4/*/record.json")).read_bytes()) for k in "ab")
    assert (a["time"]["resumed"], b["time"]["resumed"]) == (3, 0)
    for key in ("run_id", "cell", "metrics", "curves", "weights", "steps"):
        assert a[key] == b[key], key
    assert a["status"] == "finished" and a["steps"] == 2100


def test_a_long_evaluation_has_a_heartbeat(composed, tmp_path, monkeypatch):
    """The evaluation here does not end before two beats were written while it went on."""
    words = [
        "table=T4",
        "profile=smoke",
        "column=breakout_minatar",
        "row=dqn",
        "evaluation.every=700",
        "epochs=1",
    ]
    (point, *_) = grid.points([*words, "replay.first=550"], composed)
    cfg = composed([*grid.job_overrides([point]), f"runs={tmp_path}", "threads=1"])
    evaluated, seen = playing.evaluated, []

    def slow(*args):
        limit = time.monotonic() + 60
        while len(seen) < 3 and time.monotonic() < limit:
            (note,) = store.beats(tmp_path / "T4")
            if note["time"] not in seen:
                seen.append(note["time"])
            time.sleep(0.05)
        return evaluated(*args)

    monkeypatch.setattr(job, "BEAT", 0.1)
    monkeypatch.setattr(playing, "evaluated", slow)
    assert set(job.run(cfg).values()) == {"finished"}
    assert len(seen) == 3
    (note,) = store.beats(tmp_path / "T4")
    assert note["status"] == "finished"


def test_the_memory_of_a_training_that_is_not_gone_on_with_is_dropped(composed, tmp_path, monkeypatch):
    """A file of it would cover steps that are the new one's."""
    words = ["table=T4", "profile=smoke", "column=breakout_minatar", "row=dqn", "evaluation.every=2000"]
    (point, *_) = grid.points(words, composed)
    cfg = composed([*grid.job_overrides([point]), f"runs={tmp_path}", "threads=1"])
    with monkeypatch.context() as stopped:
        stopped.setattr(job.Job, "asked_to_stop", lambda self: True)
        job.run(cfg)
        (old,) = tmp_path.glob("T4/*/memory/*.z")
        shutil.copy(old, old.with_name("000000000000-000000000600.z"))
        stopped.setattr(job.provenance, "code_hash", lambda *a: "other code")
        job.run(cfg)
        job.run(cfg)
    names = [p.name for p in sorted(tmp_path.glob("T4/*/memory/*.z"))]
    assert names == ["000000000000-000000000500.z", "000000000500-000000001000.z"]
    saved = store.load_checkpoint(next(tmp_path.glob("T4/*/memory")).parent)
    assert saved["code"] == "other code" and saved["state"]["added"] == 1000
    assert list(tmp_path.glob("T4/*/old.*.pt"))


def test_a_lost_memory_is_said_and_nothing_is_overwritten(composed, tmp_path, monkeypatch):
    words = [
        "table=T4",
        "profile=smoke",
        "norm=none",
        "column=breakout_minatar",
        "threads=1",
        "evaluation.every=2000",
    ]
    (point, *_) = grid.points(words, composed)
    cfg = composed([*grid.job_overrides([point]), f"runs={tmp_path}", "threads=1"])
    with monkeypatch.context() as stopped:
        stopped.setattr(job.Job, "asked_to_stop", lambda self: True)
        job.run(cfg)
    for path in tmp_path.glob("T4/*/memory/*.z"):
        path.unlink()
    with pytest.raises(BadInput, match="has the steps to 0 of 500; remove"):
        job.run(cfg)
    assert list(tmp_path.glob("T4/*/checkpoint.*.pt"))


# ---- what cannot run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"gamma": 1.0}, "gamma=1.0: from 0"),
        ({"first": 7}, "replay.first=7: steps, from 8"),
        ({"first": 501}, "to replay.size=500"),
        ({"first": 400, "every": 100}, "would never train"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"update_every": 0}, "update_every=0"),
        ({"target_every": 0}, "target_every=0"),
        ({"history": 0}, "replay.history=0"),
        ({"lr": 0.0}, "optimizer.lr=0.0"),
        ({"optimizer": "Adagrad"}, "optimizer=Adagrad"),
        ({"start": "zeros"}, "model.start=zeros"),
        ({"every": 0}, "evaluation.every=0"),
        ({"data": Data("mnist5k", 0.1, None, None, {})}, "data=mnist5k: this table wants a game"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_values_out_of_range(changes, told):
    with pytest.raises(BadInput, match=told) as e:
        run(**changes)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("name", "options", "fused"),
    [
        ("Adam", {}, True),
        ("Adam", {"fused": False}, False),
        ("SGD", {"foreach": True}, None),
        ("SGD", {}, True),
    ],
)
def test_an_optimizer_is_fused_unless_told_otherwise(name, options, fused):
    assert state_of(run(optimizer=name, options=options)).optimizer.defaults["fused"] is fused


@pytest.mark.parametrize("options", [{"betas": [2, 0.9]}, {"colour": 1}, {"fused": True, "foreach": True}])
def test_options_that_an_optimizer_refuses_are_one_line(options):
    with pytest.raises(BadInput, match="optimizer=Adam, options") as e:
        state_of(run(optimizer="Adam", options=options))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("betas", ["0.5", "[0.5]", "[0.5,0.9,0.9]", "[0.5,fast]", "[]"])
def test_betas_that_are_not_two_numbers_are_refused_before_the_start(composed, betas):
    words = ["table=T4", "profile=smoke", "column=breakout_minatar", f"optimizer.options.betas={betas}"]
    with pytest.raises(BadInput, match=r"optimizer\.options\.betas=.*: expected two numbers"):
        grid.points(words, composed)


@pytest.mark.parametrize("table", ["T4", pytest.param("T10", marks=pytest.mark.slow)])
def test_rows_that_are_only_printed_are_in_no_grid(composed, table):
    pub = published.load(table)
    wanted = {"T4": {"mnih"}, "T10": {"alexnet", "ddc", "dan", "msda", "lssa"}}[table]
    run = {
        p.row
        for name in ("cpu", "paper")
        for p in grid.patterns([f"table={table}", f"profile={name}"], composed)
    }
    assert pub.printed_rows == wanted and not run & wanted
    assert {row.id for row in pub.main_rows} - run <= wanted


def test_files_that_a_container_can_drop_are_free_memory(monkeypatch):
    said = {"max": "1000\n", "current": "900\n", "stat": "anon 300\ninactive_file 500\nactive_file 90\n"}
    monkeypatch.setattr(t4.Path, "read_text", lambda path: said[path.suffix[1:]])
    assert t4.allowed() == 600
    said["max"] = "max\n"
    assert t4.allowed() == math.inf


def test_a_memory_that_does_not_fit_is_refused_before_the_start(cli):
    words = ["column=breakout_minatar", "row=dqn", "replay.size=2000000000000"]
    done = cli("-m", "table=T4", "profile=smoke", *words)
    assert done.returncode in (1, 2) and "GB free; make it smaller" in done.stdout + done.stderr
    assert not cli.records("T4")


def test_a_normaliser_is_not_blamed_for_the_memory(composed):
    words = ["table=T4", "profile=smoke", "norm=group", "column=breakout_minatar", "row=dqn"]
    typed = [*words, "replay.size=2000000000000"]
    points = grid.points(typed, composed)
    kept, lines = sweep.drop_unfit(points, typed, composed(typed), composed)
    assert points and kept == points and not lines


def test_an_unknown_game(cli):
    done = cli("-m", "table=T4", "profile=smoke", "norm=none", "data.options.game=pong")
    assert done.returncode == 2
    assert "minatar has no game 'pong'; there are asterix, breakout" in done.stdout + done.stderr


@pytest.mark.parametrize("typed", ["data.limit_train=10", "data.share=0.5", "data.val_fraction=2"])
def test_a_game_has_no_rows_to_choose_from(composed, typed):
    with pytest.raises(BadInput, match=f"{typed}: a game has no rows"):
        grid.points(["table=T4", "profile=smoke", "column=breakout_minatar", typed], composed)


def test_a_network_that_does_not_fit_the_game_is_known_before_the_start(composed):
    words = ["table=T4", "profile=smoke", "column=breakout_minatar", "row=dqn"]
    points = [p for m in ("nature", "minatar") for p in grid.points([*words, f"model={m}"], composed)]
    cfg = sweep.settings(words, composed)
    kept, lines = sweep.drop_unfit(points, [*words, "model=nature,minatar"], cfg, composed)
    assert {p.run.model.name for p in kept} == {"minatar"}
    assert lines == [
        "model=nature,minatar: cannot be built for minatar: model nature: a convolution 4x4 on 1x1"
    ]


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop"])
def test_optimizers_that_the_message_names_can_be_typed(composed, name):
    words = ["table=T4", "profile=smoke", "column=breakout_minatar", "row=dqn", f"optimizer={name}"]
    (point, *_) = grid.points(words, composed)
    made = t4.optimizer(point.run.optimizer, torch.nn.Parameter(torch.zeros(3)))
    assert type(made).__name__.lower() == name and made.param_groups[0]["lr"] == point.run.optimizer.lr


def test_other_tables_refuse_a_game(cli):
    done = cli("-m", "table=T3", "profile=smoke", "data=minatar")
    assert (
        done.returncode == 2
        and "data=minatar: a game; it is for the agents of table=T4" in done.stdout + done.stderr
    )


def test_a_game_that_raises_is_a_failed_run(composed, tmp_path, monkeypatch):
    words = ["table=T4", "profile=smoke", "norm=none", "column=breakout_minatar", "threads=1"]
    (point, *_) = grid.points(words, composed)
    step = games.MinAtar.act

    def act(self, action):
        if len(self.taken) > 20:
            raise RuntimeError("the emulator broke")
        return step(self, action)

    monkeypatch.setattr(games.MinAtar, "act", act)
    cfg = composed([*grid.job_overrides([point]), f"runs={tmp_path}", "threads=1"])
    assert set(job.run(cfg).values()) == {"failed"}
    (path,) = tmp_path.glob("T4/*/record.json")
    record = store.unseal(path.read_bytes())
    assert (
        record["status"] == "failed" and "the emulator broke" in record["error"] and record["metrics"] == {}
    )


def test_a_frame_of_another_shape_is_refused():
    state = state_of(run())
    state.game = Scripted()
    state.game.frame = lambda: np.zeros((4, 9, 10), np.uint8)
    with pytest.raises(ValueError, match=r"the game gave a frame uint8 \[4, 9, 10\]"):
        t4.play(state)


def test_a_state_too_small_for_the_network():
    with pytest.raises(BadInput, match="model=nature, norm=none: model nature: a convolution 4x4 on 1x1"):
        t4.built(replace(run(), model=t4.Network("nature", 0.1, "data", True)), (4, 10, 10), 6)


# ---- cells and settings -----------------------------------------------------------------------------------


def test_cells():
    assert t4.cell(run()) == ("dqn", "breakout_minatar")
    assert t4.cell(run("weight_norm")) == ("dqn_wn", "breakout_minatar")
    assert t4.cell(run("weight_norm", start="standard")) == ("dqn_wn_standard", "breakout_minatar")
    assert t4.cell(run("batch", game="seaquest")) == ("dqn_bn", "seaquest_minatar")
    assert t4.cell(replace(run(), data=Data("atari", 0.1, None, None, {"game": "enduro"}))) == (
        "dqn",
        "enduro",
    )


def test_other_normalisers_fit_or_say_why():
    fitting = []
    for name in norms.names():
        try:
            t4.trial(state_of(t4.check(replace(run(), norm=Norm(name, {})))))
            fitting.append(name)
        except ValueError as e:
            assert str(e).strip()
    assert {"none", "batch", "layer", "group", "rms", "renorm", "weight_norm", "centered_weight_norm"} <= {
        *fitting,
        "none",
    }


def test_the_paper_profile_is_the_sources(composed):
    points = grid.points(["table=T4", "profile=paper"], composed)
    assert {p.column for p in points} == {"breakout", "enduro", "seaquest", "space_invaders"}
    for p in points:
        r = p.run
        assert (r.replay.size, r.replay.first, r.replay.history) == (1_000_000, 50_000, 4)
        assert (r.explore.first, r.explore.last, r.explore.steps, r.explore.evaluation) == (
            1.0,
            0.1,
            1_000_000,
            0.05,
        )
        assert (r.evaluation.every, r.evaluation.steps, r.epochs) == (250_000, 125_000, 200)
        assert (r.gamma, r.update_every, r.target_every, r.batch_size) == (0.99, 4, 2500, 64)
        assert r.optimizer.name == "Adamax" and r.optimizer.options["betas"] == [0.5, 0.999]
        assert r.data.options == {"game": p.column, "sticky": 0.0} and r.model.name == "nature"
        assert r.optimizer.lr == (0.0003 if p.row.startswith("dqn_wn") else 0.0001)
        assert config.run_id(r, "x")
