"""The replay memory of Table 4, beside a list of everything that happened."""

import numpy as np
import pytest

from experiments.replay import PIECE, Replay, files, size_of, state_of

SHAPE = (1, 2, 3)


def history(n, seed=0, shape=SHAPE):
    """Steps of a made-up game: frames that are all different, episodes and lives that end now and then."""
    rng, steps, first = np.random.default_rng(seed), [], True
    for _ in range(n):
        over = rng.random() < 0.15
        lost = over or rng.random() < 0.1
        frame = rng.integers(1, 256, shape).astype(np.uint8)
        steps.append((frame, int(rng.integers(6)), float(rng.integers(-1, 2)), bool(lost), first))
        first = over
    return steps


def filled(steps, capacity, h):
    memory = Replay(capacity, steps[0][0].shape, h)
    for step in steps:
        memory.add(*step)
    return memory


def seen(steps, t, h):
    """What the agent saw at step t: from the list, episode by episode."""
    begun = max(k for k in range(t + 1) if steps[k][4])
    return state_of([s[0] for s in steps[begun : t + 1]], h)


@pytest.mark.parametrize("h", [1, 2, 4])
@pytest.mark.parametrize(("n", "capacity"), [(30, 100), (100, 100), (101, 100), (257, 100), (1000, 64)])
def test_every_step_that_can_be_sampled_is_as_it_happened(n, capacity, h):
    steps = history(n)
    memory = filled(steps, capacity, h)
    oldest = max(0, n - capacity)
    low = oldest + (h - 1 if oldest else 0)
    everything = np.arange(low, n - 1)
    found = memory.at(everything)
    for k, t in enumerate(everything):
        frame, action, reward, terminal, _ = steps[t]
        assert (found.frames[k, :h] == seen(steps, t, h)).all()
        assert (found.frames[k, h - 1] == frame).all()
        assert (found.actions[k], found.rewards[k], found.terminal[k]) == (action, reward, terminal)
        if not steps[t + 1][
            4
        ]:  # the successor, too, unless the episode ended, where its value is not asked for
            assert (found.frames[k, 1:] == seen(steps, t + 1, h)).all()
        else:
            assert terminal


@pytest.mark.parametrize("n", [20, 300])
def test_all_of_them_are_sampled_and_nothing_else(n):
    memory = filled(history(n), 100, 4)
    asked = []
    memory.at = asked.append
    rng = np.random.default_rng(0)
    for _ in range(200):
        memory.sample(64, rng)
    oldest = max(0, n - 100)
    assert sorted(set(np.concatenate(asked))) == list(range(oldest + (3 if oldest else 0), n - 1))
    counts = np.bincount(np.concatenate(asked))[-(min(n, 97) - 1) :]
    expected = counts.sum() / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 2 * len(counts)  # chi squared: uniform


def test_a_lost_life_is_terminal_and_does_not_cut_the_pictures():
    frames = [np.full(SHAPE, k + 1, np.uint8) for k in range(6)]
    memory = Replay(10, SHAPE, 3)
    for k, frame in enumerate(frames):
        memory.add(
            frame, 0, 0.0, terminal=k in (2, 3), first=k in (0, 4)
        )  # a life lost at 2, the game over at 3
    found = memory.at(np.array([2, 3, 4]))
    assert found.terminal.tolist() == [True, True, False]
    assert found.frames[:, :3, 0, 0, 0].tolist() == [[1, 2, 3], [2, 3, 4], [0, 0, 5]]
    assert found.frames[2, 1:, 0, 0, 0].tolist() == [0, 5, 6]


def test_a_batch_is_a_copy():
    memory = filled(history(50), 100, 4)
    before = memory.frames.copy()
    memory.at(np.arange(10, 20)).frames[:] = 0
    assert (memory.frames == before).all()
    first = memory.at(np.arange(10, 20))
    kept = first.frames.copy()
    second = memory.at(np.arange(20, 30))
    assert second.frames is first.frames and not (kept == second.frames).all()  # as the docstring says
    assert memory.at(np.arange(5)).frames is not second.frames


@pytest.mark.parametrize("capacity", [50, 3 * PIECE // 2])
def test_it_goes_on_from_its_files(tmp_path, capacity):
    steps = history(capacity * 3 + 7, shape=(1, 1, 1))
    memory = Replay(capacity, (1, 1, 1), 2)
    saves = sorted({*np.random.default_rng(0).integers(1, len(steps), 9).tolist(), len(steps)})
    for k, step in enumerate(steps, 1):
        memory.add(*step)
        if k in saves:
            memory.save(tmp_path)
            other = Replay(capacity, (1, 1, 1), 2)
            other.load(tmp_path, k)
            rng, again = np.random.default_rng(k), np.random.default_rng(k)
            if k > 3:
                a, b = memory.sample(64, rng), other.sample(64, again)
                assert all((x == y).all() for x, y in zip(a, b, strict=True))
    assert min(stop for _, _, stop in files(tmp_path)) > saves[-2] - capacity  # the others are gone


def test_what_came_after_the_checkpoint_is_dropped(tmp_path):
    steps = history(90)
    memory = filled(steps[:60], 40, 2)
    memory.save(tmp_path)
    for step in steps[60:]:
        memory.add(*step)
    memory.save(tmp_path)  # and killed before the checkpoint of step 90 was written
    other = Replay(40, SHAPE, 2)
    other.load(tmp_path, 60)
    expected = filled(steps[:60], 40, 2)
    kept = np.arange(22, 59)
    assert all((x == y).all() for x, y in zip(other.at(kept), expected.at(kept), strict=True))
    for step in steps[60:]:
        other.add(*step)
    other.save(tmp_path)
    third = Replay(40, SHAPE, 2)
    third.load(tmp_path, 90)
    kept = np.arange(51, 89)
    assert all((x == y).all() for x, y in zip(third.at(kept), memory.at(kept), strict=True))


def test_damaged_and_missing_files(tmp_path):
    memory = filled(history(30), 40, 2)
    memory.save(tmp_path)
    (path, _, _), *_ = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        Replay(40, SHAPE, 2).load(tmp_path, 30)
    path.unlink()
    with pytest.raises(ValueError, match="has the steps to 0 of 30"):
        Replay(40, SHAPE, 2).load(tmp_path, 30)


def test_refused():
    memory = Replay(10, SHAPE, 2)
    for wrong in (np.zeros((2, 3), np.uint8), np.zeros((1, 3, 2), np.uint8), np.zeros(SHAPE, np.float32)):
        with pytest.raises(ValueError, match="the game gave a frame"):
            memory.add(wrong, 0, 0.0, False, True)
    assert memory.added == 0
    with pytest.raises(ValueError, match="none has a successor"):
        memory.sample(4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="holds no state"):
        Replay(3, SHAPE, 2)


def test_the_size_is_stated_before():
    memory = Replay(1000, (1, 84, 84), 4)
    held = sum(getattr(memory, name).nbytes for name in ("frames", "actions", "rewards", "terminal", "first"))
    assert held == size_of(1000, (1, 84, 84)) == 1000 * (84 * 84 + 7)
