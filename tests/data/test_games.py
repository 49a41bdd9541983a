"""The games of Table 4: what they give, that they go on elsewhere, and what cannot be played."""

import importlib.util

import numpy as np
import pytest

import data
from data import games

HERE = {"minatar": importlib.util.find_spec("minatar"), "atari": importlib.util.find_spec("ale_py")}
minatar = pytest.mark.skipif(
    not HERE["minatar"], reason="the package MinAtar (GPL) is not installed: make games"
)
atari = pytest.mark.skipif(not HERE["atari"], reason="the package ale-py (GPL) is not installed: make games")
BOTH = [pytest.param("minatar", marks=minatar), pytest.param("atari", marks=atari)]


def play(game, rng, steps):
    """(frames, rewards, lost, over) of random actions; a new episode where one is over."""
    found = []
    for _ in range(steps):
        if game.over:
            found.append((game.reset(), 0.0, False, False))
        found.append(game.step(int(rng.integers(game.actions))))
    return found


def equal(one, other):
    return all((a[0] == b[0]).all() and tuple(a[1:]) == tuple(b[1:]) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_seed_and_actions_decide_what_happens(name, sticky):
    one, other, third = (games.make(name, {"sticky": sticky}, seed) for seed in (3, 3, 4))
    steps = 450
    first, second = (play(g, np.random.default_rng(0), steps) for g in (one, other))
    assert equal(first, second) and one.episode == other.episode > 1
    different = play(third, np.random.default_rng(0), steps)
    assert len(different) != len(first) or not equal(first, different)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("sticky", [0.0, 0.25])
@pytest.mark.parametrize("steps", [0, 1, 330])
def test_a_game_goes_on_elsewhere(name, sticky, steps):
    one, rng = games.make(name, {"sticky": sticky}, 5), np.random.default_rng(1)
    play(one, rng, steps)
    other, again = games.make(name, {"sticky": sticky}, 5), np.random.default_rng(1)
    other.load_state_dict(one.state_dict())
    again.bit_generator.state = rng.bit_generator.state
    assert (other.episode, other.over) == (one.episode, one.over)
    assert equal(play(one, rng, 260), play(other, again, 260))


@pytest.mark.parametrize("name", BOTH)
def test_no_action_is_lost_on_a_reset(name):
    """After the end of an episode the package's vector games take one more action, which does nothing but
    reset: a memory that stores it learns from a step that never was. So a step is refused there; that the
    first one after reset() counts stands in test_atari_frames_are_those_of_the_emulator.
    """
    game, rng = games.make(name, {}, 0), np.random.default_rng(2)
    game.reset()
    with pytest.raises(ValueError, match="reset"):
        while True:
            game.step(int(rng.integers(game.actions)))
    assert game.over
    episode = game.episode
    frame = game.reset()
    assert game.episode == episode + 1 and game.taken == [] and frame.shape == game.shape


@minatar
@pytest.mark.parametrize("name", games.MINATAR)
def test_minatar_frames_are_the_packages_own(name):
    import minatar

    game, peer = games.make("minatar", {"game": name, "sticky": 0.0}, 7), minatar.Environment(name, 0.0)
    frame = game.reset()
    peer.seed(int(np.random.SeedSequence([7, 1]).generate_state(1)[0]))
    peer.reset()
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert frame.dtype == np.uint8 and (frame == peer.state().transpose(2, 0, 1)).all()
        if game.over:
            break
        action = int(rng.integers(6))
        frame, reward, _, over = game.step(action)
        assert (reward, over) == peer.act(action)


@atari
@pytest.mark.parametrize("name", ["breakout", "space_invaders"])
def test_atari_frames_are_those_of_the_emulator(name):
    """Beside ale-py's own interface, written out, over several episodes: four frames an action, the maximum
    of the last two, grey; lives are lost where the emulator says so; and the first action after a reset
    counts, which the package's vector games would have taken for the reset.
    """
    import ale_py
    from ale_py import roms

    game = games.make("atari", {"game": name}, 1)
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(name))
    keys, rng, lost, begun = ale.getMinimalActionSet(), np.random.default_rng(3), 0, []
    reset = game.env.reset

    def noted(**options):
        frame, info = reset(**options)
        begun.append(int(info["episode_frame_number"][0]))  # the frames without an action that it drew
        return frame, info

    game.env.reset = noted
    while game.episode < 4 or not game.over:
        if game.over:
            game.reset()
            ale.reset_game()
            for _ in range(begun[-1]):
                ale.act(0)
        action, lives, reward, screens = int(rng.integers(game.actions)), ale.lives(), 0.0, []
        for _ in range(4):
            reward += ale.act(keys[action])
            screens.append(ale.getScreenGrayscale())
        found = game.step(action)
        assert found.reward == reward and found.over == ale.game_over()
        assert found.lost == (ale.lives() < lives or found.over)
        whole = np.maximum(screens[-1], screens[-2]).astype(float)
        assert abs(found.frame.mean() - whole.mean()) < 1  # scaled by area, so the mean stays
        lost += found.lost
    assert lost >= 8 and len(set(begun)) > 1 and len(begun) == 4


@atari
def test_atari_begins_after_0_to_29_frames_without_an_action():
    """As deep_q_rl's 0 to 30, but for the last: the package draws below its noop_max of 30."""
    game = games.make("atari", {}, 3)
    reset, begun = game.env.reset, []
    game.env.reset = lambda **options: begun.append(reset(**options)) or begun[-1]
    for _ in range(300):
        game.reset()
    frames = {int(info["episode_frame_number"][0]) for _, info in begun}
    assert frames <= set(range(30)) and len(frames) > 25


@atari
def test_atari_is_seeded_anew_after_a_block(monkeypatch):
    monkeypatch.setattr(games, "BLOCK", 2)
    one, rng = games.make("atari", {}, 5), np.random.default_rng(1)
    play(one, rng, 700)
    assert one.episode >= 3
    other = games.make("atari", {}, 5)
    other.load_state_dict(one.state_dict())
    again = np.random.default_rng()
    again.bit_generator.state = rng.bit_generator.state
    assert equal(play(one, rng, 500), play(other, again, 500)) and one.episode > 4


@pytest.mark.parametrize("name", BOTH)
def test_what_is_wrong_is_one_line(name):
    for options, told in (
        ({"game": "pong2"}, "has no game 'pong2'; there are"),
        ({"sticky": 1}, "probability"),
        ({"sticky": True}, "probability"),
        ({"level": 3}, "no option 'level'"),
    ):
        with pytest.raises(ValueError, match=told) as e:
            data.fingerprint(name, **options)
        assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="is a game"):
        data.locate(name, None, None, {})


def test_without_the_package_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise games.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(games.importlib.metadata, "version", missing)
    with pytest.raises(data.DataSetMissing, match="make games"):
        data.fingerprint("minatar")
    with pytest.raises(data.DataSetMissing, match="ale-py"):
        data.load("atari")


@pytest.mark.parametrize("name", BOTH)
def test_a_game_is_a_data_set_without_rows(name):
    found = data.load(name, game="breakout")
    assert found.name == name and len(found.y_train) == len(found.y_test) == 0 and found.error == "return"
    assert (
        found.fingerprint
        == data.fingerprint(name, game="breakout")
        != data.fingerprint(name, game="seaquest")
    )
    assert data.fingerprint(name, sticky=0.5) != found.fingerprint
    assert found.classes == games.make(name, {}, 0).buttons
