"""The LSTMs against their formulas written out in numpy, against nn.LSTM, and against themselves."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    unpack_sequence,
)

from norms import lstm as module
from norms.lstm import BatchNormLSTM, LayerNormLSTM, RecurrentBatchNormLSTM

F64 = torch.float64
I, H = 3, 4
KINDS = {
    "frame": (BatchNormLSTM, {}),
    "sequence": (BatchNormLSTM, {"statistics": "sequence"}),
    "recurrent": (RecurrentBatchNormLSTM, {}),
    "layer": (LayerNormLSTM, {}),
    "none": (BatchNormLSTM, {"normalize": False}),
}
NORMALISED = [kind for kind in KINDS if kind != "none"]
BATCH = "frame", "sequence", "recurrent"
LENGTHS = 6, 4, 4, 2


def make(kind, seed=0, **options):
    """With all parameters drawn at random, so that none is without effect."""
    cls, own = KINDS[kind]
    layer = cls(I, H, dtype=F64, **{"eps": 1e-2, **own, **options} if kind != "none" else {**own, **options})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=F64) * 0.5)
            if name.startswith("gamma"):
                parameter.add_(1)
    return layer


def sequences(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=(n, I)) * (1 + k) + k) for k, n in enumerate(lengths)]


def some_states(layer, batch, seed=5):
    rng = np.random.default_rng(seed)
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    return tuple(torch.from_numpy(rng.normal(size=(rows, batch, H))) for _ in range(2))


# ---- the reference -------------------------------------------------------------------------------


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def reference(layer, kind, seqs, states):
    """Outputs of each sequence, last states, and buffers afterwards. The longest sequence comes first."""
    before = {name: value.numpy().copy() for name, value in layer.state_dict().items()}
    after = {name: value.copy() for name, value in before.items()}
    counts, training, eps = before.get("num_batches_tracked"), layer.training, getattr(layer, "eps", None)
    h0, c0 = (s.numpy() for s in states)
    lengths = [len(s) for s in seqs]
    steps, batch = lengths[0], len(seqs)
    alive = [sum(n > t for n in lengths) for t in range(steps)]

    def store(name, where, mean, var, n, count):
        weight = 1 / (count + 1) if layer.momentum is None else layer.momentum
        for stat, value in (("mean", mean), ("var", var * n / (n - 1))):
            old = before[f"running_{stat}_{name}"][where]
            after[f"running_{stat}_{name}"][where] = (1 - weight) * old + weight * value

    def normalise(a, name, t, gamma, beta=0.0):
        if kind == "layer":
            mean, var = a.mean(axis=1, keepdims=True), a.var(axis=1, keepdims=True)
        else:
            mean, var = a.mean(axis=0), ((a - a.mean(axis=0)) ** 2).mean(axis=0)
            if training and len(a) > 1:
                if kind == "sequence":
                    store(name, ..., mean, var, len(a), counts)
                elif t < layer.max_length:
                    store(name, t, mean, var, len(a), counts[t])
            else:
                where = ... if kind == "sequence" else min(t, max(1, int((counts > 0).sum())) - 1)
                old = before["running_mean_" + name][where], before["running_var_" + name][where]
                m = layer.momentum if getattr(layer, "evaluation", "") == "mixture" else 0
                m = m if len(a) > 1 and not training else 0
                mean, var = (1 - m) * old[0] + m * mean, (1 - m) * old[1] + m * var
        return gamma * (a - mean) / np.sqrt(var + eps) + beta

    xs = [s.numpy() for s in seqs]
    hn, cn = [], []
    for number in range(layer.num_layers):
        directions = []
        for end in ("", "_reverse") if layer.bidirectional else ("",):
            suffix = f"_l{number}{end}"
            p = {name[: -len(suffix)]: v for name, v in before.items() if name.endswith(suffix)}
            z = [np.stack([xs[b][t] for b in range(alive[t])]) @ p["weight_ih"].T for t in range(steps)]
            if kind == "none":
                z = [part + p["bias_ih"] + p["bias_hh"] for part in z]
            elif kind == "sequence":
                flat = normalise(np.concatenate(z), "ih" + suffix, 0, p["gamma_ih"], p["bias"])
                z = np.split(flat, np.cumsum(alive)[:-1])
            else:
                z = [normalise(z[t], "ih" + suffix, t, p["gamma_ih"], p["bias"]) for t in range(steps)]
            h, c = h0[len(hn)].copy(), c0[len(cn)].copy()
            out = [np.zeros((n, H)) for n in lengths]
            for t in reversed(range(steps)) if end else range(steps):
                n = alive[t]
                a = h[:n] @ p["weight_hh"].T
                if kind in ("recurrent", "layer"):
                    a = normalise(a, "hh" + suffix, t, p["gamma_hh"])
                i, f, g, o = np.split(z[t] + a, 4, axis=1)
                c[:n] = sigmoid(f) * c[:n] + sigmoid(i) * np.tanh(g)
                cell = c[:n]
                if kind in ("recurrent", "layer"):
                    cell = normalise(cell, "c" + suffix, t, p["gamma_c"], p["beta_c"])
                h[:n] = sigmoid(o) * np.tanh(cell)
                for b in range(n):
                    out[b][t] = h[b]
            directions.append(out), hn.append(h), cn.append(c)
        xs = [np.concatenate(parts, axis=1) for parts in zip(*directions, strict=True)]
    if training and counts is not None:
        if kind == "sequence":
            after["num_batches_tracked"] += 1
        else:
            after["num_batches_tracked"][: sum(n > 1 for n in alive)] += 1
    assert batch == len(xs)
    return xs, np.stack(hn), np.stack(cn), after


def compare(layer, kind, seqs, packed=True):
    states = some_states(layer, len(seqs))
    outs, hn, cn, after = reference(layer, kind, seqs, states)
    if packed:
        y, (h, c) = layer(pack_sequence(seqs), states)
        found = unpack_sequence(y)
    else:
        y, (h, c) = layer(torch.stack(seqs, 1), states)
        found = y.unbind(1)
    for a, b in zip(found, outs, strict=True):
        np.testing.assert_allclose(a.detach(), b, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(h.detach(), hn, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(c.detach(), cn, rtol=1e-10, atol=1e-10)
    for name, value in layer.named_buffers():
        np.testing.assert_allclose(value, after[name], rtol=1e-10, atol=1e-10, err_msg=name)


SHAPES = [(1, False), (2, False), (1, True), (2, True)]  # layers, both directions


@pytest.mark.parametrize("num_layers,bidirectional", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_against_numpy_in_training_and_evaluation(kind, num_layers, bidirectional):
    layer = make(kind, num_layers=num_layers, bidirectional=bidirectional)
    for step, lengths in enumerate((LENGTHS, (5, 5, 5), (7, 3, 3, 1), LENGTHS)):
        layer.train()
        compare(layer, kind, sequences(lengths, step), packed=len(set(lengths)) > 1)
        layer.eval()
        for again in LENGTHS, (9, 1), (2, 2), (1,):
            compare(layer, kind, sequences(again, 10 + step), packed=len(set(again)) > 1)


@pytest.mark.parametrize("kind", BATCH)
@pytest.mark.parametrize("momentum", [None, 0.0, 1.0, 0.9])
def test_momentum_against_numpy(kind, momentum):
    layer = make(kind, momentum=momentum)
    for step, lengths in enumerate((LENGTHS, (3, 3), (7, 7, 1))):
        compare(layer.train(), kind, sequences(lengths, step))
        compare(layer.eval(), kind, sequences((8, 6), 9))


@pytest.mark.parametrize("statistics", ["frame", "sequence"])
def test_mixture_in_evaluation_against_numpy(statistics):
    layer = make(statistics, evaluation="mixture", momentum=0.9, num_layers=2, bidirectional=True)
    for step in range(3):
        compare(layer.train(), statistics, sequences(LENGTHS, step))
        for lengths in LENGTHS, (5, 5), (6, 1):
            compare(layer.eval(), statistics, sequences(lengths, step + 5))


@pytest.mark.parametrize("kind", ["frame", "recurrent"])
def test_steps_beyond_max_length_and_beyond_the_trained_ones(kind):
    layer = make(kind, max_length=5)
    compare(layer, kind, sequences((3, 3)))  # trained up to 3 steps
    compare(layer.eval(), kind, sequences((9, 9)))
    assert (layer.running_mean_ih_l0[3:] == 0).all()
    compare(layer.train(), kind, sequences((8, 8)))  # all five averaged, the rest normalised but not averaged
    compare(layer.eval(), kind, sequences((9, 9)))
    assert layer.num_batches_tracked.tolist() == [2, 2, 2, 1, 1]
    assert layer.running_mean_ih_l0.shape == (5, 4 * H)


# ---- gradients -----------------------------------------------------------------------------------


def as_function(layer, lengths):
    """A function of input, states and all parameters, and such arguments."""
    names = [name for name, _ in layer.named_parameters()]

    def call(x, h, c, *parameters):
        twin = copy.deepcopy(layer)  # gradcheck wants the same from each call: buffers must not move
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        y, states = functional_call(twin, dict(zip(names, parameters, strict=True)), (packed, (h, c)))
        return y.data, *states

    x = torch.nn.utils.rnn.pad_sequence(sequences(lengths))
    arguments = [x, *some_states(layer, len(lengths)), *layer.parameters()]
    return call, [a.detach().clone().requires_grad_() for a in arguments]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, bidirectional):
    layer = make(kind, num_layers=2 - bidirectional, bidirectional=bidirectional)
    layer(pack_sequence(sequences((3, 3, 1))))
    for training in (True, False):
        call, arguments = as_function(layer.train(training), (3, 3, 1))
        assert gradcheck(call, arguments, fast_mode=True)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradgradcheck(kind, bidirectional):
    layer = make(kind, bidirectional=bidirectional)
    layer(pack_sequence(sequences((3, 3, 1))))
    call, arguments = as_function(layer, (3, 3, 1))
    assert gradgradcheck(call, arguments, fast_mode=True, atol=1e-4)


def test_gradcheck_of_the_mixture():
    layer = make("frame", evaluation="mixture", momentum=0.9).eval()
    call, arguments = as_function(layer, (3, 2))
    assert gradcheck(call, arguments, fast_mode=True)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_written_out_backward_equals_plain_operations(kind, bidirectional, monkeypatch):
    results = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(module, "inside_func", lambda: True)
        layer = make(kind, num_layers=2, bidirectional=bidirectional)
        layer(pack_sequence(sequences((5, 2))))
        for training in (True, False):
            call, arguments = as_function(layer.train(training), LENGTHS)
            y, h, c = call(*arguments)
            loss = (y.sin().sum() + (h * c).sum(), h.sum(), y[3].sum())  # all outputs, and only some of them
            for part in loss:
                results.append(torch.autograd.grad(part, arguments, retain_graph=True))
    half = len(results) // 2
    for ours, theirs in zip(results[:half], results[half:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


# ---- against nn.LSTM -----------------------------------------------------------------------------


def twins(**options):
    torch.manual_seed(0)
    peer = nn.LSTM(I, H, dtype=F64, **options)
    torch.manual_seed(0)
    layer = BatchNormLSTM(I, H, dtype=F64, normalize=False, **options)
    return layer, peer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("num_layers,bidirectional", SHAPES)
@pytest.mark.parametrize("form", ["batch", "unbatched", "packed", "unsorted"])
def test_without_normalisation_it_is_nn_lstm(form, num_layers, bidirectional, batch_first, bias):
    layer, peer = twins(
        num_layers=num_layers, bidirectional=bidirectional, batch_first=batch_first, bias=bias
    )
    assert layer.state_dict().keys() == peer.state_dict().keys()
    assert all(torch.equal(v, peer.state_dict()[k]) for k, v in layer.state_dict().items())
    seqs = sequences((4, 7, 2, 4)) if form == "unsorted" else sequences()
    x = {
        "batch": lambda: torch.stack([s[:2] for s in seqs], 0 if batch_first else 1),
        "unbatched": lambda: seqs[0],
        "packed": lambda: torch.nn.utils.rnn.pad_sequence(seqs, batch_first),
        "unsorted": lambda: torch.nn.utils.rnn.pad_sequence(seqs, batch_first),
    }[form]()
    states = some_states(layer, len(seqs))
    if form == "unbatched":
        states = tuple(s[:, 0] for s in states)
    results = []
    for model in (layer, peer):
        leaves = [v.clone().requires_grad_() for v in (x, *states)]
        given = leaves[0]
        if form in ("packed", "unsorted"):
            lengths = torch.tensor([len(s) for s in seqs])
            given = pack_padded_sequence(given, lengths, batch_first, enforce_sorted=form == "packed")
        y, (h, c) = model(given, tuple(leaves[1:]))
        without, _ = model(given)
        if form in ("packed", "unsorted"):
            assert type(y) is type(given)
            (y, _), (without, _) = (pad_packed_sequence(v, batch_first) for v in (y, without))
        loss = y.sin().sum() + (h * c).sum() + without.square().sum()
        grads = torch.autograd.grad(loss, [*leaves, *model.parameters()])
        results.append([y, h, c, without, *grads])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_without_normalisation_it_is_nn_lstm_in_float32():
    layer, peer = (model.float() for model in twins(num_layers=2))
    x = torch.randn(20, 8, I)
    torch.testing.assert_close(layer(x)[0], peer(x)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", NORMALISED)
def test_weights_start_as_those_of_nn_lstm_and_load_from_one(kind):
    cls, own = KINDS[kind]
    torch.manual_seed(0)
    peer = nn.LSTM(I, H, 2, bias=False)
    torch.manual_seed(0)
    layer = cls(I, H, 2, **own)
    assert all(torch.equal(v, layer.state_dict()[k]) for k, v in peer.state_dict().items())
    gamma = 0.1 if kind == "recurrent" else 1.0
    for name, parameter in layer.named_parameters():
        if not name.startswith("weight"):
            assert (parameter == (gamma if name.startswith("gamma") else 0.0)).all(), name
    found = layer.load_state_dict(nn.LSTM(I, H, 2).state_dict(), strict=False)
    assert all(re.match("bias_[ih]h_l[01]", name) for name in found.unexpected_keys)
    assert not any(name.startswith("weight") for name in found.missing_keys)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_between_the_layers_in_training_only(kind):
    layer = make(kind, num_layers=2, dropout=1.0, momentum=0.0) if kind in BATCH else make(kind, num_layers=2)
    layer.dropout = 1.0
    x = torch.stack(sequences((4, 4, 4)), 1)
    a, b = layer(x)[0], layer(x + torch.randn(4, 3, I, dtype=F64))[0]
    torch.testing.assert_close(a, b)  # the second layer sees nothing of x
    assert (a != 0).any()  # its own output is not dropped
    layer.eval()
    assert not torch.allclose(layer(x)[0], layer(x + 1)[0])


# ---- packed sequences and time steps -------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_each_sequence_alone(kind):
    """In evaluation, and for what has no batch statistics."""
    layer = make(kind, num_layers=2, bidirectional=True)
    layer(pack_sequence(sequences()))
    layer.eval()
    seqs = sequences((3, 6, 1, 4), seed=3)
    y, (h, c) = layer(pack_sequence(seqs, enforce_sorted=False))
    for k, (s, out) in enumerate(zip(seqs, unpack_sequence(y), strict=True)):
        alone, (h1, c1) = layer(s)
        for found, expected in ((out, alone), (h[:, k], h1), (c[:, k], c1)):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_a_packed_batch_has_no_effect(kind):
    seqs, order = sequences(), [2, 0, 3, 1]
    one, other = make(kind, bidirectional=True), make(kind, bidirectional=True)
    states = some_states(one, len(seqs))
    y, (h, c) = one(pack_sequence(seqs), states)
    packed = pack_sequence([seqs[k] for k in order], enforce_sorted=False)
    yo, (ho, co) = other(packed, tuple(s[:, order] for s in states))
    found = unpack_sequence(yo)
    for k, where in enumerate(order):
        torch.testing.assert_close(found[k], unpack_sequence(y)[where], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ho, h[:, order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(co, c[:, order], rtol=1e-12, atol=1e-12)
    for a, b in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_frame_statistics_do_not_see_the_future_and_sequence_statistics_do():
    x = torch.stack(sequences((5, 5, 5)), 1)
    changed = x.clone()
    changed[4] += torch.randn(3, I, dtype=F64)
    for kind, same in (("frame", True), ("recurrent", True), ("sequence", False)):
        a, b = make(kind)(x)[0], make(kind)(changed)[0]
        assert torch.allclose(a[:4], b[:4]) is same


@pytest.mark.parametrize("kind", ["frame", "recurrent"])
def test_a_sequence_that_goes_on_alone_takes_the_running_statistics(kind):
    layer = make(kind)
    layer(torch.stack(sequences((6, 6)), 1))
    before = copy.deepcopy(layer.state_dict())
    seqs = sequences((6, 3), seed=4)
    seqs[0].requires_grad_()
    y, _ = layer(pack_sequence(seqs))
    for name, value in layer.named_buffers():
        assert torch.equal(value[3:], before[name][3:]), name
        assert not torch.equal(value[:3], before[name][:3]), name
    unpack_sequence(y)[0][-1].sum().backward()
    assert (
        seqs[0].grad[-1] != 0
    ).all()  # its last frames count; its own statistics would have left beta alone


def test_batch_norm_makes_the_scale_of_the_input_weights_irrelevant():
    for kind in "frame", "sequence", "recurrent", "layer":
        layer = make(kind, eps=1e-12)
        x = torch.stack(sequences((4, 4, 4)), 1)
        before = layer(x)[0]
        with torch.no_grad():
            layer.weight_ih_l0 *= 3
        torch.testing.assert_close(layer(x)[0], before, rtol=1e-8, atol=1e-8)


def test_gamma_of_zero_leaves_the_recurrence_of_the_bias():
    layer = make("frame")
    with torch.no_grad():
        layer.gamma_ih_l0.zero_()
    y, _ = layer(torch.stack(sequences((4, 4, 4)), 1))
    torch.testing.assert_close(y, y[:, :1].expand_as(y))


# ---- populations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("kind", KINDS)
def test_population_equals_its_members(kind, momentum, bidirectional):
    options = {"momentum": momentum} if kind in BATCH else {}
    members = [make(kind, seed=k, num_layers=2, bidirectional=bidirectional, **options) for k in range(3)]
    base = copy.deepcopy(members[0])
    parameters, buffers = stack_module_state(members)
    xs = torch.randn(2, 3, 5, 4, I, dtype=F64)

    def call(p, b, x):
        y, (h, c) = functional_call(base, (p, b), (x,))
        return y.sin().sum() + (h * c).sum()

    for x in xs:
        losses = vmap(call)(parameters, buffers, x)
        grads = torch.autograd.grad(losses.sum(), list(parameters.values()))
        for k, member in enumerate(members):
            y, (h, c) = member(x[k])
            loss = y.sin().sum() + (h * c).sum()
            torch.testing.assert_close(losses[k], loss, rtol=1e-12, atol=1e-12)
            expected = torch.autograd.grad(loss, list(member.parameters()))
            for found, value in zip(grads, expected, strict=True):
                torch.testing.assert_close(found[k], value, rtol=1e-11, atol=1e-11)
            for name, value in member.named_buffers():
                torch.testing.assert_close(buffers[name][k], value, rtol=1e-12, atol=1e-12)
    base.eval()
    found = vmap(lambda p, b: functional_call(base, (p, b), (xs[0, 0],))[0])(parameters, buffers)
    expected = torch.stack([member.eval()(xs[0, 0])[0] for member in members])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_torch_func_grad(kind):
    layer, x = make(kind), torch.randn(4, 3, I, dtype=F64)
    parameters = dict(layer.named_parameters())

    def loss(p):
        own = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        return functional_call(layer, (p, own), (x,))[0].sin().sum()

    found = grad(loss)({name: value.detach() for name, value in parameters.items()})
    expected = torch.autograd.grad(layer(x)[0].sin().sum(), list(parameters.values()))
    for a, b in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# ---- as a citizen of torch -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_deepcopy_and_pickle(kind):
    layer = make(kind, num_layers=2, bidirectional=True)
    x = torch.randn(5, 3, I, dtype=F64)
    layer(x)
    loaded = make(kind, seed=1, num_layers=2, bidirectional=True)
    loaded.load_state_dict(layer.state_dict())
    copies = [loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    expected = layer(x)[0]
    for other in copies:
        assert torch.equal(other(x)[0], expected)
        assert other.state_dict().keys() == layer.state_dict().keys()
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in layer.state_dict().items())
        assert torch.equal(other.eval()(x)[0], layer.eval()(x)[0])
        layer.train()


@pytest.mark.parametrize("kind", BATCH)
def test_reset(kind):
    layer = make(kind)
    layer(torch.randn(5, 3, I, dtype=F64))
    layer.reset_parameters()
    cls, own = KINDS[kind]
    fresh = cls(I, H, dtype=F64, **own).state_dict()
    for name, value in layer.state_dict().items():
        assert name.startswith("weight") or torch.equal(value, fresh[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_training_leaves_input_states_and_gradients_alone(kind):
    layer = make(kind)
    x, states = torch.randn(5, 3, I, dtype=F64), some_states(layer, 3)
    kept = [v.clone() for v in (x, *states)]
    y, (h, _) = layer(x, states)
    dy, dh = torch.randn_like(y), torch.randn_like(h)
    dys = dy.clone(), dh.clone()
    first = torch.autograd.grad([y, h], list(layer.parameters()), [dy, dh], retain_graph=True)
    second = torch.autograd.grad([y, h], list(layer.parameters()), [dy, dh])
    for a, b in zip(
        [*first, x, *states, dy, dh],
        [*second, *kept, *dys],
        strict=True,
    ):
        assert torch.equal(a, b)
    assert h.data_ptr() != y[-1].data_ptr()  # in-place work on one must not reach the other


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_backpropagation(kind):
    """The states of one window, detached, start the next; in evaluation that is one long sequence."""
    layer = make(kind, num_layers=2).eval()
    x = torch.randn(6, 3, I, dtype=F64)
    whole, states = layer(x)
    if kind in ("frame", "recurrent"):  # untrained: the statistics of all steps are the same
        assert layer.num_batches_tracked.sum() == 0
    first, between = layer(x[:4])
    second, last = layer(x[4:], tuple(s.detach() for s in between))
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last, states, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_and_low_precision(kind):
    layer = make(kind, num_layers=2).float()
    x = torch.randn(5, 8, I)
    expected = copy.deepcopy(layer)(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, (h, c) = layer(x)
    assert y.dtype == h.dtype == c.dtype == torch.bfloat16  # as nn.LSTM
    # Of all together: where eight examples or four units hardly vary, normalising enlarges the rounding.
    assert (y.float() - expected).norm() < 0.1 * expected.norm()
    y.float().sum().backward()
    for name, value in [*layer.named_parameters(), *layer.named_buffers()]:
        assert value.dtype in (torch.float32, torch.int64), name
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())
    assert layer.bfloat16()(x.bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_as_nn_lstm(kind, training):
    layer = make(kind).train(training)
    before = copy.deepcopy(layer.state_dict())
    y, (h, c) = layer(torch.zeros(5, 0, I, dtype=F64, requires_grad=True))
    assert y.shape == (5, 0, H)
    assert h.shape == c.shape == (1, 0, H)
    y.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert all((p.grad == 0).all() for p in layer.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_device_and_dtype_of_construction(kind):
    cls, own = KINDS[kind]
    layer = cls(I, H, device="meta", dtype=F64, **own)
    tensors = dict([*layer.named_parameters(), *layer.named_buffers()])
    assert {t.device.type for t in tensors.values()} == {"meta"}
    assert {name for name, t in tensors.items() if t.dtype != F64} <= {"num_batches_tracked"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_equals_uncompiled(kind):
    layer = make(kind)
    alone = copy.deepcopy(layer)
    torch.compiler.reset()
    compiled = torch.compile(nn.Sequential(layer), backend="aot_eager")
    for _ in range(2):
        x = torch.randn(4, 3, I, dtype=F64)
        a, b = compiled(x)[0], alone(x)[0]
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        a.sum().backward(), b.sum().backward()
    for found, expected in zip(layer.state_dict().values(), alone.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for found, expected in zip(layer.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-11, atol=1e-11)


# ---- bad input -----------------------------------------------------------------------------------


def zeros(*shape):
    return torch.zeros(shape, dtype=F64)


WRONG = {
    "no steps": lambda: (zeros(0, 2, I),),
    "1D": lambda: (zeros(I),),
    "4D": lambda: (zeros(2, 2, 2, I),),
    "width": lambda: (zeros(5, 2, I + 1),),
    "width, unbatched": lambda: (zeros(5, I + 1),),
    "h": lambda: (zeros(5, 2, I), (zeros(1, 3, H), zeros(1, 2, H))),
    "c": lambda: (zeros(5, 2, I), (zeros(1, 2, H), zeros(1, 2, H + 1))),
    "h of 2 dimensions": lambda: (zeros(5, 2, I), (zeros(2, H), zeros(2, H))),
    "h of 3 dimensions": lambda: (zeros(5, I), (zeros(1, 1, H), zeros(1, 1, H))),
    "dtype": lambda: (torch.zeros(5, 2, I),),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_input_has_the_words_of_nn_lstm(kind, wrong):
    arguments = WRONG[wrong]()
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        nn.LSTM(I, H, dtype=F64)(*arguments)
    with pytest.raises(theirs.type) as ours:
        make(kind)(*arguments)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("sizes", [[3, 2, 3], [1, 2, 3], [3, 0, 2], [2, 0]])
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_sequence_that_is_not_sorted_is_refused(kind, sizes):
    packed = PackedSequence(zeros(sum(sizes), I), torch.tensor(sizes))
    if 0 not in sizes:
        with pytest.raises(RuntimeError):
            nn.LSTM(I, H, dtype=F64)(packed)
    for mode in (True, False):
        with pytest.raises(RuntimeError, match=r"not rise, the longest sequence first \(got \["):
            make(kind).train(mode)(packed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_sequence_is_checked_too(kind):
    """nn.LSTM leaves that to its kernel, with messages of matrix products."""
    layer, packed = make(kind), pack_sequence([zeros(3, I), zeros(2, I)])
    with pytest.raises(RuntimeError, match=r"must be equal to input_size\. Expected 3, got 4"):
        layer(pack_sequence([zeros(3, I + 1), zeros(2, I + 1)]))
    for states in (zeros(1, 1, H), zeros(1, 2, H)), (zeros(1, 2, H), zeros(2, H)):
        with pytest.raises(RuntimeError, match=r"Expected hidden\[[01]\] size \(1, 2, 4\), got \["):
            layer(packed, states)


@pytest.mark.parametrize(
    "options",
    [
        {"input_size": 0}, {"hidden_size": 0}, {"hidden_size": "4"}, {"num_layers": 0}, {"bias": 1},
        {"batch_first": None}, {"dropout": 1.5}, {"dropout": True},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_bad_options_of_nn_lstm_have_its_words(kind, options):
    options = {"input_size": I, "hidden_size": H, **options}
    with pytest.raises((TypeError, ValueError)) as theirs:
        nn.LSTM(**options)
    cls, own = KINDS[kind]
    with pytest.raises(theirs.type) as ours:
        cls(**options, **own)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "options",
    [
        {"statistics": "batch"}, {"evaluation": "both"}, {"eps": 0}, {"momentum": 2}, {"max_length": 0},
        {"max_length": 2.5}, {"momentum": None, "evaluation": "mixture"},
    ],
)  # fmt: skip
def test_bad_options_are_one_clear_line(options):
    key = next(iter(options))
    with pytest.raises(ValueError, match=rf"^{key}=.*: (choose one of|give)") as error:
        BatchNormLSTM(I, H, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", BATCH)
def test_a_single_sequence_in_training_is_torchs_own_error(kind):
    layer = make(kind)
    with pytest.raises(ValueError) as theirs:
        nn.BatchNorm1d(4 * H)(torch.zeros(1, 4 * H))
    x = torch.randn(1 if kind == "sequence" else 5, 1, I, dtype=F64)
    before = copy.deepcopy(layer.state_dict())
    for given in (x, x[:, 0], pack_sequence([x[:, 0]])):
        with pytest.raises(ValueError) as ours:
            layer(given)
        assert str(ours.value) == str(theirs.value)
        assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
        layer.eval()(given)
        layer.train()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_to_be_differentiated_count_each_path_once(kind):
    """The state is carried on, so that it depends on the weights that it then meets again."""
    layer, x = make(kind), torch.randn(4, 5, I, dtype=F64)

    def gradients(create_graph):
        state, total = None, 0
        for window in x.split(2):
            y, state = layer(window, state)
            total = total + y.square().sum()
        return torch.autograd.grad(total, list(layer.parameters()), create_graph=create_graph)

    torch.testing.assert_close(gradients(True), gradients(False), rtol=1e-10, atol=1e-10)


def test_another_number_of_states_is_refused():
    state = torch.zeros(1, 3, H, dtype=F64)
    with pytest.raises(ValueError, match=r"expected the states as \(h_0, c_0\), got 3 of them"):
        make("frame")(torch.zeros(2, 3, I, dtype=F64), (state, state, state))
