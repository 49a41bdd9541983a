"""Table 8: the network beside torch's, its loss, a whole training written out, perplexities word by word, the
source's evaluation, resuming, what cannot run.
"""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import norms
from data import DataSet
from experiments import grid, job
from experiments import table_08_lstm as t8
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.models import lstm_lm
from experiments.models.lstm_lm import LSTMLanguageModel

CPU = torch.device("cpu")
F64 = torch.float64
V, H, B, T = 12, 6, 4, 5  # words, units, texts side by side, window
NORMS = ("none", "lstm_batch", "lstm_recurrent_batch", "lstm_layer", "weight_norm")


def words(n, seed=0):
    """Each word is the one before, or one more, or any: something can be learned."""
    r = np.random.default_rng(seed)
    ids = np.cumsum(r.integers(0, 2, n)) + (r.random(n) < 0.2) * r.integers(0, V, n)
    return torch.from_numpy((ids % V).astype(np.int32))


def dataset(train=130, val=61, test=48):
    a, b, c = words(train, 1), words(val, 2), words(test, 3)
    names = tuple(f"w{i:02}" for i in range(V))
    return DataSet("words", a, a, b, b, c, c, names, "print", "", "", (), "perplexity")


def run(norm="none", **changes):
    network = t8.Network(
        changes.pop("model", "lstm_lm"), changes.pop("size", "small"), changes.pop("hidden", H),
        changes.pop("layers", 2), changes.pop("dropout", 0.0), changes.pop("start", 0.3),
        changes.pop("forget_bias", 0.0), changes.pop("gamma", None),
    )  # fmt: skip
    optimizer = Optimizer(changes.pop("optimizer", "SGD"), changes.pop("lr", 2.0), changes.pop("l2", 0.0), {})
    data = changes.pop("data", Data("kjv", 0.1, None, None, {"units": changes.pop("units", "words")}))
    made = t8.Run("T8", data, network, Norm(norm, changes.pop("options", {})), optimizer, 1, 0.5, 0.5, T,
                  False, B, 2, 0)  # fmt: skip
    return t8.check(replace(made, **changes))


def doubled(one, data):
    """A state in float64, where rounding does not grow from step to step."""
    state = t8.State([one], data, CPU)
    state.model.double()
    state.states = state.model.initial(one.batch_size)
    return state


def trained(norm="lstm_batch", data=None, **changes):
    state = doubled(run(norm, **changes), data or dataset())
    list(t8.train(state))
    state.net.eval()
    return state


# rows and columns


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["smoke", "quick", "cpu", "paper"])
def test_grids_name_their_rows_as_the_runs_do(composed, profile):
    points = grid.points(["table=T8", f"profile={profile}"], composed)
    for p in points:
        assert (p.assignment["row"], p.assignment["column"]) == (p.row, p.column) == t8.cell(p.run)
        assert not t8.can_stack(p.run)
    sizes = {(f"{size}{bn}", "ptb") for size in ("small", "medium", "large") for bn in ("", "_bn")}
    ours = {(f"small_{name}", "ptb") for name in ("recurrent_bn", "recurrent_bn_1", "ln", "wn")}
    chars = {("char", "char"), ("char_recurrent_bn", "char")}
    assert {(p.row, p.column) for p in points} == sizes | ours | chars


def test_rows_and_columns():
    assert t8.cell(run(size="large")) == ("large", "ptb")
    assert t8.cell(run("lstm_batch", gamma=0.25)) == ("small_bn_0.25", "ptb")
    assert t8.cell(run("lstm_layer", size="char", units="chars")) == ("char_ln", "char")
    assert t8.cell(run("my.LSTM", size="medium")) == ("medium_my.LSTM", "ptb")
    assert t8.cell(run(data=Data("text", 0.1, None, None, {"units": "words"})))[1] == "ptb"


# the network


@pytest.mark.parametrize(
    "size, hidden, known", [("small", 200, 4.65), ("medium", 650, 19.78), ("large", 1500, 66.03)]
)
def test_published_networks_have_the_published_sizes(size, hidden, known):
    """Zaremba et al.: 4.65, 19.8 and 66 million. BN has 4H gains and 4H betas for twice 4H biases."""
    with torch.device("meta"):
        net = LSTMLanguageModel(10_000, hidden, 2, 0.0, 0.1)
    n = sum(p.numel() for p in net.parameters())
    layer = 4 * hidden * (hidden + hidden) + 2 * 4 * hidden
    assert n == 10_000 * hidden + 2 * layer + (hidden + 1) * 10_000
    assert n / 1e6 == pytest.approx(known, abs=0.005)


def test_normalised_networks_have_about_the_same_size():
    def count(norm):
        return sum(p.numel() for p in LSTMLanguageModel(V, H, 2, norm=norm).parameters())

    extra = {"none": 0, "lstm_batch": 0, "lstm_recurrent_batch": 12 * H - 8 * H + 2 * H,
             "lstm_layer": 12 * H - 8 * H + 2 * H, "weight_norm": 8 * H}  # fmt: skip
    assert {norm: count(norm) - count("none") for norm in NORMS} == {k: 2 * v for k, v in extra.items()}


@pytest.mark.parametrize("norm", ["none", "lstm_batch", "lstm_recurrent_batch", "lstm_layer"])
@pytest.mark.parametrize("forget", [0.0, 1.5])
def test_initial_values_are_uniform_but_for_a_normalisers_own(norm, forget):
    torch.manual_seed(0)
    net = LSTMLanguageModel(40, 32, 2, 0.0, 0.05, forget, norm)
    gains = {"lstm_batch": 1.0, "lstm_recurrent_batch": 0.1, "lstm_layer": 1.0}
    for name, p in net.named_parameters():
        p = p.detach().clone()
        if name.startswith(("lstm.bias_ih", "lstm.bias_l")):
            p[32:64] -= forget
        if name.startswith("lstm.gamma"):
            assert (p == gains[norm]).all(), name
        elif name.startswith(("lstm.bias_l", "lstm.beta")):
            assert (p == 0).all(), name
        else:
            assert 0.04 < p.abs().max() <= 0.05 + 1e-6 and abs(p.mean()) < 0.02, name


def test_gains_start_where_gamma_says():
    for norm in ("lstm_batch", "lstm_recurrent_batch", "lstm_layer"):
        net = LSTMLanguageModel(V, H, norm=norm, gamma=0.37)
        gains = [p for n, p in net.lstm.named_parameters() if n.startswith("gamma")]
        assert len(gains) == (2 if norm == "lstm_batch" else 6)
        assert all((p == torch.tensor(0.37)).all() for p in gains)


@pytest.mark.parametrize("norm", NORMS)
def test_orthogonal_start_gate_by_gate(norm):
    torch.manual_seed(0)
    net = LSTMLanguageModel(V, H, 2, 0.0, 0.0, 1.0, norm)
    for kind in ("ih", "hh"):
        for layer in (0, 1):
            for block in getattr(net.lstm, f"weight_{kind}_l{layer}").detach().chunk(4):
                assert torch.allclose(block @ block.t(), torch.eye(H), atol=1e-5)
    for weight in (net.embedding.weight, net.decoder.weight):  # V > H: orthogonal columns
        assert torch.allclose((weight.t() @ weight).detach(), torch.eye(H), atol=1e-5)
    biases = {n: p for n, p in net.named_parameters() if "bias" in n}
    for name, p in biases.items():
        forget = torch.zeros(4 * H)
        if name.startswith(("lstm.bias_ih", "lstm.bias_l")):
            forget[H : 2 * H] = 1
        assert torch.equal(p.detach(), forget if name.startswith("lstm.") else torch.zeros(V)), name


def test_weight_norm_and_its_gradients_written_out():
    """W = g v / |v| row by row; with dW that of nn.LSTM's own weights, dg = dW v / |v| and
    dv = g / |v| (dW - v (v dW) / |v|^2).
    """
    torch.manual_seed(0)
    net = LSTMLanguageModel(V, H, 2, 0.0, 0.3, 0.0, "weight_norm").double()
    parts = net.lstm.parametrizations
    for name in parts:
        g, v = parts[name].original0, parts[name].original1
        assert torch.allclose(g, v.norm(dim=1, keepdim=True))  # it starts as the plain network
        with torch.no_grad():
            g.mul_(torch.rand_like(g) + 0.5)
            v.mul_(1.7)
    plain = nn.LSTM(H, H, 2).double()
    with torch.no_grad():
        for name, p in plain.named_parameters():
            if name in parts:
                g, v = parts[name].original0, parts[name].original1
                p.copy_(g * v / v.square().sum(1, keepdim=True).sqrt())
            else:
                p.copy_(getattr(net.lstm, name))
    ids = torch.randint(V, (T, B))
    features, _ = net(ids, net.initial(B))
    expected, _ = plain(net.embedding(ids).detach())
    torch.testing.assert_close(features, expected)
    net.summed_loss(features, ids).backward()
    F.cross_entropy(net.decoder(expected).flatten(0, 1), ids.flatten(), reduction="sum").backward()
    assert set(parts) == {n for n, _ in plain.named_parameters() if n.startswith("weight")}
    for name in parts:
        g, v, dw = parts[name].original0, parts[name].original1, getattr(plain, name).grad
        length = v.detach().square().sum(1, keepdim=True).sqrt()
        along = (dw * v).sum(1, keepdim=True) / length
        torch.testing.assert_close(g.grad, along.detach())
        torch.testing.assert_close(v.grad, (g / length * (dw - along * v / length)).detach())


def split(a):
    i, f, g, o = np.split(a, 4, axis=1)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    return sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)


def laurent(lstm, x, states, how):
    """The recurrence step by step in numpy. W_x x of the sequences of a step is normalised by `how`: their
    own mean and variance ("training"), the running ones of that step, or a tenth of these and nine tenths of
    their own ("mixture"). Gain and beta are the same at each step.
    """
    p = {k: v.detach().double().numpy() for k, v in lstm.state_dict().items()}
    x, last = x.detach().double().numpy(), ([], [])
    for layer in range(lstm.num_layers):
        h, c = (s[layer].detach().double().numpy() for s in states)
        outs = []
        for t in range(len(x)):
            z = x[t] @ p[f"weight_ih_l{layer}"].T
            m, v = z.mean(0), ((z - z.mean(0)) ** 2).mean(0)
            if how != "training":
                share = {"running": 0.0, "mixture": 0.9}[how]
                m = (1 - share) * p[f"running_mean_ih_l{layer}"][t] + share * m
                v = (1 - share) * p[f"running_var_ih_l{layer}"][t] + share * v
            z = p[f"gamma_ih_l{layer}"] * (z - m) / np.sqrt(v + 1e-5) + p[f"bias_l{layer}"]
            i, f, g, o = split(z + h @ p[f"weight_hh_l{layer}"].T)
            c = f * c + i * g
            h = o * np.tanh(c)
            outs.append(h)
        x = np.stack(outs)
        last[0].append(h)
        last[1].append(c)
    return torch.from_numpy(x), tuple(torch.from_numpy(np.stack(s)) for s in last)


def test_the_network_in_training_by_formula():
    torch.manual_seed(0)
    net = LSTMLanguageModel(V, H, 2, 0.0, 0.4, 1.0, "lstm_batch", {"max_length": T}, 0.7).double()
    for name, p in net.lstm.named_parameters():
        if name.startswith("bias"):
            nn.init.normal_(p)
    ids, states = words(T * B).view(T, B), tuple(torch.randn(2, 2, B, H, dtype=F64))
    features, after = net(ids, states)
    expected, last = laurent(net.lstm, net.embedding.weight[ids.long()], states, "training")
    torch.testing.assert_close(features.detach(), expected)
    for a, b in zip(after, last, strict=True):
        torch.testing.assert_close(a.detach(), b)


@pytest.mark.parametrize("norm", ["none", "lstm_batch"])
def test_dropout_is_never_on_the_recurrent_path(norm):
    """The first layer's states, and all of a single layer, follow from its (dropped) input alone."""
    torch.manual_seed(0)
    for layers in (1, 2):
        net = LSTMLanguageModel(V, H, layers, 0.5, 0.4, 0.0, norm).double()
        seen = {}
        net.lstm.register_forward_hook(lambda _, x, y, seen=seen: seen.update(x=x[0], y=y[0]))
        ids = words(T * B).view(T, B)
        features, (h, c) = net(ids, net.initial(B))
        whole = net.embedding(ids)
        dropped = seen["x"] == 0
        assert 0.2 < dropped.double().mean() < 0.8
        torch.testing.assert_close(seen["x"], torch.where(dropped, 0.0, 2 * whole))
        first = (nn.LSTM(H, H) if norm == "none" else norms.BatchNormLSTM(H, H, max_length=T)).double()
        mine = {k: v for k, v in net.lstm.state_dict().items() if k.endswith("_l0")}
        first.load_state_dict({k: v[:T] if "running" in k else v for k, v in mine.items()}, strict=False)
        out, (h0, c0) = first(seen["x"])
        torch.testing.assert_close((h[:1], c[:1]), (h0, c0))
        if layers == 1:
            torch.testing.assert_close(seen["y"], out)
        gone = features == 0
        assert 0.2 < gone.double().mean() < 0.8
        torch.testing.assert_close(features, torch.where(gone, 0.0, 2 * seen["y"]))
        net.eval()
        assert torch.equal(net(ids, net.initial(B))[0], net(ids, net.initial(B))[0])


# the loss


@pytest.mark.parametrize("rows", [1, 3, 7, 20, 200])
def test_the_loss_and_its_gradients_are_torchs(rows, monkeypatch):
    monkeypatch.setattr(lstm_lm, "ROWS", rows)
    torch.manual_seed(0)
    net = LSTMLanguageModel(V, H, start=2.0).double()
    features, targets = torch.randn(T, B, H, dtype=F64, requires_grad=True), words(T * B).view(T, B)
    inputs = features, net.decoder.weight, net.decoder.bias
    ours = net.summed_loss(features, targets)
    logits = net.decoder(features)
    theirs = F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="sum")
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(torch.autograd.grad(-2.5 * ours, inputs), torch.autograd.grad(-2.5 * theirs, inputs),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b)
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="none")
    torch.testing.assert_close(net.losses(features, targets), each.view(T, B))
    with torch.no_grad():
        torch.testing.assert_close(net.summed_loss(features, targets), theirs)


def test_the_loss_of_large_logits_is_finite():
    net = LSTMLanguageModel(V, H, start=0.1).double()
    with torch.no_grad():
        net.decoder.weight.fill_(0)
        net.decoder.bias.copy_(torch.arange(V) * 1e4)
    loss = net.summed_loss(torch.zeros(1, 2, H, dtype=F64), torch.tensor([[0, V - 1]]))
    assert loss.item() == pytest.approx((V - 1) * 1e4)


# a training written out


@pytest.mark.parametrize("norm, clip", [("none", 1.5), ("lstm_batch", 2.3)])  # some gradients are longer
def test_a_training_is_what_torch_does(norm, clip):
    """Windows of T words of B texts, states carried and cut off from their past, cross-entropy summed over
    the window, SGD on the clipped gradient, the rate halved after the first epoch.
    """
    data, one = dataset(), run(norm, epochs=3, lr=2.0, clip=clip)
    state = doubled(one, data)
    model = copy.deepcopy(state.model)
    E, W, b = model.embedding.weight, model.decoder.weight, model.decoder.bias
    lstm = (nn.LSTM(H, H, 2) if norm == "none" else norms.BatchNormLSTM(H, H, 2, max_length=T)).double()
    lstm.load_state_dict(model.lstm.state_dict())
    parameters = [E, W, b, *lstm.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=2.0)
    ids, n, lengths = data.x_train.long(), 130 // B, []
    steps = (n - 1) // T
    assert (n, steps) == (32, 6)
    for epoch, (step, metrics) in enumerate(t8.train(state)):
        h = c = torch.zeros(2, B, H, dtype=F64)
        optimizer.param_groups[0]["lr"] = [2.0, 1.0, 0.5][epoch]
        found = []
        for at in range(0, steps * T, T):
            x, y = (torch.stack([ids[k * n + at + i :][:T] for k in range(B)], 1) for i in (0, 1))
            out, (h, c) = lstm(E[x], (h.detach(), c.detach()))
            loss = F.cross_entropy((out @ W.t() + b).flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            (T * loss).backward()
            lengths.append(nn.utils.clip_grad_norm_(parameters, clip).item())
            optimizer.step()
            found.append(loss.item())
        assert step == metrics["step"][0] == (epoch + 1) * steps
        assert metrics["train_loss"] == [pytest.approx(np.mean(found))]
        assert metrics["train_ppl"] == [pytest.approx(math.exp(np.mean(found)))]
        assert metrics["train_ppl_source"] == [pytest.approx(np.mean(np.exp(found)))]
        assert metrics["train_ppl_source"][0] >= metrics["train_ppl"][0]
        whole = walked(state.model, data.x_train[:61])
        assert metrics["train_ppl_evaluated"] == [pytest.approx(math.exp(np.mean(whole)))]
    assert epoch == 2 and min(lengths) < clip < max(lengths)
    mine = dict(state.model.named_parameters())
    for name, p in lstm.named_parameters():
        torch.testing.assert_close(mine[f"lstm.{name}"], p)
    for name, p in (("embedding.weight", E), ("decoder.weight", W), ("decoder.bias", b)):
        torch.testing.assert_close(mine[name], p)
    for name, s in lstm.named_buffers():
        torch.testing.assert_close(dict(state.model.named_buffers())[f"lstm.{name}"], s)


def test_the_rate_stays_and_then_falls():
    state = t8.State([run(lr=3.0, keep_rate=4, decay=0.5, epochs=7)], dataset(), CPU)
    found = []
    for state.epoch in range(7):
        found.append(state.rate())
    assert found == [3, 3, 3, 3, 1.5, 0.75, 0.375]
    assert t8.State([run(keep_rate=0)], dataset(), CPU).rate() == 1.0  # the first is one after them


@pytest.mark.parametrize("norm", NORMS)
def test_every_row_learns_to_count(norm):
    """Guessing has a perplexity of V. The two rules of BN differ, the others' are one."""
    one, two = (torch.arange(n, dtype=torch.int32) % V for n in (1000, 61))
    data = replace(dataset(), x_train=one, y_train=one, x_val=two, y_val=two, x_test=two, y_test=two)
    state = t8.State([run(norm, epochs=3, optimizer="Adam", lr=0.03, clip=5.0)], data, CPU)
    found = [m for _, m in t8.train(state) if m]
    assert len(found) == 3 and set(found[0]) == {"step", "train_loss", "scores", *t8.MEASURED}
    assert found[-1]["train_ppl"][0] < found[0]["train_ppl"][0]
    for part in ("val", "test"):
        clean, mixed = (found[-1][f"{part}_ppl{rule}"][0] for rule in ("", "_mixture"))
        assert clean < V / 2 and (clean != mixed) == (norm == "lstm_batch")


def test_one_seed_is_one_training_and_another_is_another():
    def end(seed):
        return trained(seed=seed, dropout=0.3).model.decoder.weight

    assert torch.equal(end(0), end(0)) and not torch.equal(end(0), end(1))


def test_adam_on_characters():
    state = t8.State(
        [run(optimizer="Adam", lr=0.01, units="chars", size="char", layers=1, start=0.0, crop=True)],
        dataset(), CPU,
    )  # fmt: skip
    found = [m for _, m in t8.train(state) if m]
    assert isinstance(state.optimizer, torch.optim.Adam) and len(found) == 2
    assert found[1]["train_ppl"][0] < found[0]["train_ppl"][0]


# perplexities


def walked(model, ids, lstm=None, window=T, batch=B):
    """-log p of each word but the first, in order, by a loop of its own. Behind the last word comes the first
    one, which is not counted.
    """
    lstm, ids = lstm or model.lstm, ids.tolist()
    n = math.ceil((len(ids) - 1) / batch)
    states, found = model.initial(batch), {}
    for start in range(0, n, window):
        steps = range(start, min(start + window, n))
        places = torch.tensor([[k * n + t for k in range(batch)] for t in steps])
        x = torch.tensor(ids * 2)[places]
        with torch.no_grad():
            out, states = lstm(model.embedding(x), states)
            logp = (out @ model.decoder.weight.t() + model.decoder.bias).log_softmax(2)
        for i, k in np.ndindex(*places.shape):
            target = places[i, k].item() + 1
            if target < len(ids):
                assert target not in found
                found[target] = -logp[i, k, ids[target]].item()
    assert sorted(found) == [*range(1, len(ids))]
    return [found[target] for target in sorted(found)]


LENGTHS = (B + 1, B + 2, 2 * B, 41, 42, 43, 44)  # every remainder, a text that is all missing, one of a word


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("norm", ["none", "lstm_recurrent_batch", "lstm_layer", "weight_norm"])
def test_every_word_but_the_first_counts_once(norm, length):
    state = doubled(run(norm), dataset())
    state.net.eval()
    ids = words(length, 9)
    losses = t8.losses(state, ids)
    assert losses.dtype == F64 and (losses == t8.MISSING).sum() == losses.numel() - (length - 1)
    found = losses.t().flatten()
    assert found[: length - 1].tolist() == pytest.approx(walked(state.model, ids))
    assert (found[length - 1 :] == t8.MISSING).all()
    assert t8.total(losses) == pytest.approx(np.mean(walked(state.model, ids)))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("rule", ["running", "mixture"])
def test_both_rules_of_batch_normalisation_written_out(rule, length):
    """The words from the beginning that fill the last text up are in a batch's statistics."""
    state, ids = trained(), words(length, 9)
    lstm = state.model.lstm
    before = {k: v.clone() for k, v in state.net.state_dict().items()}
    losses = t8.losses(state, ids, mixture=rule == "mixture").t().flatten()[: length - 1]
    expected = walked(state.model, ids, lambda x, states: laurent(lstm, x, states, rule))
    assert losses.tolist() == pytest.approx(expected)
    assert all(torch.equal(before[k], v) for k, v in state.net.state_dict().items())  # nothing is stored


def test_windows_are_no_borders_for_the_states():
    """Without batch statistics the window is of no effect: the states are carried on."""
    losses = []
    for window in (1, 5, 7, 100):
        state = doubled(run(window=window), dataset(train=500))
        state.net.eval()
        losses.append(t8.losses(state, words(61, 9)))
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0])
    assert losses[0][:, 0].tolist() == pytest.approx(walked(state.model, words(61, 9)[:16], batch=1))


def test_the_clean_rule_does_not_see_the_other_texts():
    state = trained()
    ids = words(61, 9)
    other = torch.cat([ids[:15], (ids[15:] + 5) % V])  # the first text's words stay
    clean, mixed = (
        [t8.losses(state, x, mixture=mixture)[:14, 0] for x in (ids, other)] for mixture in (False, True)
    )
    torch.testing.assert_close(clean[0], clean[1])
    assert (mixed[0] - mixed[1]).abs().max() > 1e-3


def test_the_mixture_is_switched_on_inside_only():
    lstm = norms.BatchNormLSTM(H, H)
    with t8.evaluation(lstm, True):
        assert (lstm.mixture, lstm.momentum) == (True, 0.9)
    assert (lstm.mixture, lstm.momentum) == (False, 0.1)
    with pytest.raises(KeyError), t8.evaluation(lstm, True):
        raise KeyError
    assert (lstm.mixture, lstm.momentum) == (False, 0.1)
    with t8.evaluation(lstm, False):
        assert (lstm.mixture, lstm.momentum) == (False, 0.1)
    with t8.evaluation(nn.LSTM(H, H), False):
        pass


@pytest.mark.parametrize("norm", ["none", "lstm_batch"])
def test_metrics_of_an_epoch_written_out(norm):
    """60 words to predict make three whole windows of 4 x 5, of which Jensen's inequality holds."""
    data = dataset()
    state = doubled(run(norm, epochs=1), data)
    ((_, metrics),) = t8.train(state)
    lstm = state.model.lstm
    for part in ("val", "test"):
        ids = getattr(data, f"x_{part}")
        clean, mixed = (
            np.array(
                walked(state.model, ids, lambda x, s, rule=rule: laurent(lstm, x, s, rule))
                if norm == "lstm_batch"
                else walked(state.model, ids)
            )
            for rule in ("running", "mixture")
        )
        assert metrics[f"{part}_ppl"] == [pytest.approx(np.exp(clean.mean()))]
        assert metrics[f"{part}_ppl_mixture"] == [pytest.approx(np.exp(mixed.mean()))]
        n = math.ceil(len(mixed) / B)
        place = np.arange(len(mixed)) % n // T  # in which window a word is
        windows = [np.exp(mixed[place == k].mean()) for k in range(place.max() + 1)]
        assert metrics[f"{part}_ppl_source"] == [pytest.approx(np.mean(windows))]
    assert len(data.x_val) == 61 and metrics["val_ppl_source"][0] >= metrics["val_ppl_mixture"][0]
    assert metrics["scores"].mean().item() == pytest.approx(metrics["val_ppl"][0])


def test_scores_have_the_mean_and_the_spread_of_blocks(monkeypatch):
    """Beside the delete-one-block jackknife of the perplexity, blocks of unequal length among them."""
    monkeypatch.setattr(t8, "BLOCK", 9)
    r = np.random.default_rng(0)
    n, missing = 500, 3
    level = np.repeat(r.normal(4, 0.5, (n // 20, B)), 20, 0)  # neighbours are alike
    losses = torch.from_numpy(np.abs(level + r.normal(size=(n, B))))
    losses[n - missing :, B - 1] = t8.MISSING
    ppl = math.exp(t8.total(losses))
    found = t8.scores(losses, ppl).numpy()
    blocks = [losses[i : i + 9, k] for k in range(B) for i in range(0, n, 9)]
    blocks = [b[b != t8.MISSING].numpy() for b in blocks]
    m, s, size = len(blocks), np.array([b.sum() for b in blocks]), np.array([len(b) for b in blocks])
    assert len(found) == m == 4 * 56 and found.mean() == pytest.approx(ppl)
    assert size.sum() == n * B - missing
    without = np.exp((s.sum() - s) / (size.sum() - size))
    jackknife = (m - 1) / m * ((without - without.mean()) ** 2).sum()
    assert found.var(ddof=1) / m == pytest.approx(jackknife, rel=0.03)
    words_alone = losses[losses != t8.MISSING]
    assert jackknife > 1.5 * ppl**2 * words_alone.var().item() / len(words_alone)  # as if independent


def test_a_text_that_ends_with_missing_blocks_has_scores(monkeypatch):
    monkeypatch.setattr(t8, "BLOCK", 1)
    state = trained()
    losses = t8.losses(state, words(B + 2, 9))  # five words in four texts of two
    found = t8.scores(losses, 7.0)
    assert len(found) == B + 1 and found.mean().item() == pytest.approx(7)


# where an epoch starts


def counted(n, **changes):
    """A state whose training words are their own places."""
    data = replace(dataset(), x_train=torch.arange(n), y_train=torch.arange(n))
    return t8.State([run(crop=True, **changes)], data, CPU)


def test_an_epoch_starts_at_one_of_the_first_words():
    state, first = counted(134), []
    n = (134 - T) // B
    for state.epoch in range(60):
        text = state.text()
        assert text.shape == (n, B) and n > state.steps_per_epoch * T
        first.append(text[0, 0].item())
        assert torch.equal(text, first[-1] + torch.arange(B) * n + torch.arange(n)[:, None])
    assert set(first) == set(range(T))
    again, other = counted(134), counted(134, seed=1)
    drawn = {}
    for which, one in (("again", again), ("other", other)):
        for one.epoch in range(60):
            torch.manual_seed(one.epoch)  # of no effect
            drawn.setdefault(which, []).append(one.text()[0, 0].item())
    assert drawn["again"] == first != drawn["other"]
    state.run = replace(state.run, crop=False)
    assert state.text()[0].tolist() == [k * (134 // B) for k in range(B)]


# going on


@pytest.mark.parametrize("norm", ["none", "lstm_batch", "weight_norm"])
def test_resuming_changes_nothing(norm):
    """27 windows an epoch: stopped after the 20th, after the epoch, and in the second one."""
    data, one = dataset(train=110), run(norm, dropout=0.4, window=2, batch_size=2)
    whole = t8.State([one], data, CPU)
    expected = list(t8.train(whole))
    assert [step for step, _ in expected] == [20, 27, 47, 54]
    for stop in (1, 2, 3):
        state = t8.State([one], data, CPU)
        got = [m for _, m in zip(range(stop), t8.train(state), strict=False)]
        saved, rng = copy.deepcopy(state.state_dict()), torch.get_rng_state()
        torch.manual_seed(99)
        again = t8.State([one], data, CPU)
        again.load_state_dict(saved)
        torch.set_rng_state(rng)
        got += t8.train(again)
        for (step, a), (wanted, b) in zip(got, expected, strict=True):
            assert step == wanted and (a is None) == (b is None)
            assert a is None or {k: a[k] for k in a if k != "scores"} == {k: b[k] for k in b if k != "scores"}
            assert a is None or torch.equal(a["scores"], b["scores"])
        for (name, a), (_, b) in zip(
            again.net.state_dict().items(), whole.net.state_dict().items(), strict=True
        ):
            assert torch.equal(a, b), name


def text_folder(folder):
    folder.mkdir()
    for part, n in (("train", 40), ("valid", 12), ("test", 12)):
        r = np.random.default_rng(n)
        lines = [" ".join(f"w{i}" for i in [*r.integers(0, 9, 5)]) for _ in range(n)]
        (folder / f"{part}.txt").write_text("\n".join(["w0 w1 w2 w3 w4 w5 w6 w7 w8", *lines]) + "\n")
    return folder


@pytest.mark.slow
def test_a_job_stopped_in_the_middle_of_an_epoch_goes_on(composed, tmp_path, monkeypatch):
    text = text_folder(tmp_path / "words")
    more = ["data=text", f"data.path={text}", f"data.cache={tmp_path / 'cache'}", "window=2", "batch_size=3"]
    words = ["table=T8", "profile=smoke", "row=medium_bn", "threads=1", *more]
    (point,) = grid.points(words, composed)
    point.member["paper"] = None

    def record(runs):
        (path,) = runs.glob("T8/*/record.json")
        return json.loads(path.read_bytes())

    def cfg(runs):
        return composed([*grid.job_overrides([point]), f"runs={runs}", *more[1:3], "threads=1"])

    with monkeypatch.context() as stopped:
        stopped.setattr(job.Job, "asked_to_stop", lambda self: True)
        assert set(job.run(cfg(tmp_path / "a")).values()) == {"interrupted"}
        assert not list((tmp_path / "a").glob("T8/*/record.json"))
        assert set(job.run(cfg(tmp_path / "a")).values()) == {"interrupted"}  # 20 windows on
    assert set(job.run(cfg(tmp_path / "a")).values()) == {"finished"}
    assert set(job.run(cfg(tmp_path / "b")).values()) == {"finished"}
    a, b = record(tmp_path / "a"), record(tmp_path / "b")
    assert (a["time"]["resumed"], b["time"]["resumed"]) == (2, 0)
    for key in ("run_id", "cell", "metrics", "curves", "weights", "scores", "steps"):
        assert a[key] == b[key], key
    assert a["cell"] == {"row": "medium_bn", "column": "ptb"} and a["data"]["error"] == "perplexity"


def test_only_the_words_grow_with_the_text():
    def size(value):
        if isinstance(value, torch.Tensor):
            return value.numel() * value.element_size()
        if isinstance(value, dict):
            return sum(map(size, value.values()))
        return sum(map(size, value)) if isinstance(value, list | tuple) else 0

    found = []
    for n in (200, 2000):
        state = t8.State([run("lstm_batch", optimizer="Adam", lr=0.01, epochs=1)], dataset(train=n), CPU)
        list(t8.train(state))
        own = {k: v for k, v in vars(state).items() if k != "data"}
        found.append((size(own), size(state.state_dict()), size(vars(state.model))))
        data = {v.data_ptr(): size(v) for v in vars(state.data).values() if isinstance(v, torch.Tensor)}
        assert sum(data.values()) == 4 * (n + 61 + 48)  # x is y
    assert found[0] == found[1]


# what does not end well


def test_a_loss_that_is_not_finite_ends_it():
    state = t8.State([run(epochs=3)], dataset(), CPU)
    curves = {}
    for epoch, (_, metrics) in enumerate(t8.train(state), 1):
        for key, value in {"epoch": [epoch], **metrics}.items():
            if key != "scores":
                curves.setdefault(key, []).extend(value)
        if epoch == 1:
            with torch.no_grad():
                state.model.decoder.weight[0, 0] = math.nan
    assert curves["epoch"] == [1, 2] and curves["step"] == [6, 7]
    assert math.isfinite(curves["train_loss"][0]) and math.isnan(curves["train_loss"][1])
    assert all(curves[key][1] == math.inf for key in t8.MEASURED)
    found = t8.summarise(curves)
    assert found["epoch_best_val"] == 1 and found["val_ppl"] == curves["val_ppl"][0]
    assert found["val_ppl_last"] == math.inf and found["steps"] == 7


@pytest.mark.parametrize("lr", [1e9, 1e38])
@pytest.mark.parametrize("norm", ["none", "lstm_batch"])
def test_far_too_high_a_rate_is_a_result(norm, lr):
    """Whether the clipped steps end in infinity (1e38) or only in useless words."""
    found = [m for _, m in t8.train(t8.State([run(norm, lr=lr, clip=5.0)], dataset(), CPU)) if m]
    curves = {k: [m[k][0] for m in found] for k in found[0] if k != "scores"}
    assert curves["val_ppl"][-1] > 1e3 and curves["train_ppl"][-1] > 1e3
    assert set(t8.MEASURED) < set(curves)
    told = t8.summarise({**curves, "epoch": [*range(1, len(found) + 1)]})
    assert told["val_ppl"] > 1e3
    if lr == 1e38:
        assert len(found) == 1 and math.isnan(curves["train_loss"][0])
        assert all(curves[k] == [math.inf] for k in t8.MEASURED) and "scores" not in found[0]


def test_summary_is_of_the_best_epoch_by_the_clean_rule():
    measured = {k: [i + 9.0, i + 5.0, i + 7.0] for i, k in enumerate(t8.MEASURED)}
    measured["val_ppl_source"] = [3.0, 8.0, 2.0]
    curves = {"epoch": [1, 2, 3], "step": [10, 20, 30], "train_loss": [3, 2, 1], **measured}
    found = t8.summarise(curves)
    assert found["epoch_best_val"] == 2 and found["steps"] == 30
    assert all(found[k] == curves[k][1] for k in t8.MEASURED)
    assert found["gap"] == curves["val_ppl"][1] - curves["train_ppl"][1]
    assert found["val_ppl_source_best"] == 2 and found["test_ppl_last"] == curves["test_ppl"][2]
    assert found["val_bits"] == math.log2(curves["val_ppl"][1])
    assert found["test_bits"] == math.log2(curves["test_ppl"][1])


# what cannot run


def test_a_text_too_short_for_the_batch_is_one_line():
    """Of training one window is the least; to evaluate, a word for each text."""
    for crop, least in ((False, B * (T + 1)), (True, B * (T + 1) + T)):
        assert t8.State([run(crop=crop)], dataset(train=least), CPU).steps_per_epoch == 1
        with pytest.raises(BadInput, match=rf"^words: {least - 1} words to train, fewer than the {least} that"
                           r" batch_size=4 and window=5 need$"):  # fmt: skip
            t8.State([run(crop=crop)], dataset(train=least - 1), CPU)
    for part, to in (("val", "validate"), ("test", "test")):
        t8.State([run()], dataset(**{part: B + 1}), CPU)
        with pytest.raises(
            BadInput, match=rf"^words: {B} words to {to}, fewer than the {B + 1} that [^\n]*$"
        ):
            t8.State([run()], dataset(**{part: B}), CPU)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("crop", [False, True])
def test_a_trial_of_a_network(norm, crop):
    one = run(norm, crop=crop)
    n = t8.trial_rows(one)
    state = t8.State([one], dataset(n, n, n), CPU)
    t8.trial(state)
    assert all(p.grad is not None for p in state.model.parameters())


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("model", "mlp", "model=mlp: this table has one network"),
        ("size", "huge", "model.size=huge: choose small, medium, large, char"),
        *(("hidden", v, f"model.hidden={v}: units, from 1 to 8192") for v in (0, -1, 8193)),
        *(("layers", v, f"model.layers={v}: from 1 to 16") for v in (0, 17)),
        *(("dropout", v, f"model.dropout={v}: a share from 0, below 1") for v in (-0.1, 1.0, NAN)),
        *(("start", v, f"model.start={v}: a range above 0") for v in (-0.1, NAN, INF)),
        *(("forget_bias", v, f"model.forget_bias={v}: must be finite") for v in (NAN, -INF)),
        *(("gamma", v, f"model.gamma={v}: above 0, or null") for v in (0.0, -1.0, NAN, INF)),
        ("optimizer", "Adagrad", "optimizer=Adagrad: choose gradient_descent, sgd or adam"),
        *(("lr", v, f"optimizer.lr={v}: the learning rate must be above 0") for v in (0.0, -1.0, NAN, INF)),
        *(("l2", v, f"optimizer.l2={v}: this table has no weight decay") for v in (0.1, NAN)),
        *(("decay", v, f"decay={v}: a factor above 0, up to 1") for v in (0.0, 1.01, NAN)),
        ("keep_rate", -1, "keep_rate=-1: epochs, 0 or more"),
        *(("clip", v, f"clip={v}: a norm above 0") for v in (0.0, -1.0, NAN, INF)),
        *(("window", v, f"window={v}: time steps, from 1") for v in (0, 10_001)),
        *(("batch_size", v, f"batch_size={v}: batch statistics need at least 2") for v in (1, 0)),
        ("epochs", 0, "epochs=0: must be at least 1"),
        *(("seed", v, f"seed={v}: must be a whole number from 0") for v in (-1, 2**31)),
        ("data", Data("mnist", 0.1, None, None, {}), "data=mnist: this table wants a text (ptb, kjv, text)"),
    ],
)  # fmt: skip
def test_every_bad_value_is_one_line(key, value, says):
    with pytest.raises(BadInput) as e:
        run(**{key: value})
    assert str(e.value).startswith(says) and "\n" not in str(e.value)


class Halved(nn.LSTM):
    """A user's own: half of the input counts."""

    def forward(self, x, states):
        return super().forward(x / 2, states)


class Short(nn.LSTM):
    def forward(self, x, states):
        out, states = super().forward(x, states)
        return out[:, :1], states


class Refusing(nn.LSTM):
    def __init__(self, *args, **options):
        raise RuntimeError("two\nlines")


class Failing(nn.LSTM):
    def forward(self, x, states):
        raise KeyError("no\nsuch")


@pytest.mark.parametrize(
    "norm, options, says",
    [
        ("group", {}, "norm=group: an LSTM is normalised inside: choose one of none, lstm_batch"),
        ("torch.nn.GRU", {}, "norm=torch.nn.GRU: torch.nn.GRU is not called as nn.LSTM is"),
        ("torch.nn.Linear", {}, "norm=torch.nn.Linear: torch.nn.Linear(6, 6, 2, dropout=0): "),
        ("torch.nn.NoSuch", {}, "norm=torch.nn.NoSuch: torch.nn.NoSuch(6, 6, 2, dropout=0): "),
        ("no_module.LSTM", {}, "norm=no_module.LSTM: no_module.LSTM(6, 6, 2, dropout=0): No module named"),
        ("torch.nn.LSTM", {"bidirectional": True}, "norm=torch.nn.LSTM: torch.nn.LSTM is not called as"),
        (f"{__name__}.Short", {}, f"norm={__name__}.Short: {__name__}.Short gives shapes [(3, 1, 6), (2, 2"),
        (f"{__name__}.Failing", {}, f"norm={__name__}.Failing: {__name__}.Failing is not called as nn.LSTM"),
        ("lstm_batch", {"momentum": 2.0}, "norm=lstm_batch: norm 'lstm_batch': momentum=2.0"),
        ("lstm_batch", {"letters": 2}, "norm=lstm_batch: norm 'lstm_batch' has no option letters"),
        ("none", {"eps": 1}, "norm=none: takes no options here, leave out eps"),
        (
            f"{__name__}.Refusing",
            {},
            f"norm={__name__}.Refusing: {__name__}.Refusing(6, 6, 2, dropout=0): two",
        ),
        ("weight_norm", {"dim": 1}, "norm=weight_norm: takes no options here, leave out dim"),
    ],
)
def test_a_normaliser_that_does_not_fit_is_one_line(norm, options, says):
    with pytest.raises(BadInput) as e:
        t8.State([run(norm, options=options)], dataset(), CPU)
    assert str(e.value).startswith(says) and "\n" not in str(e.value)


@pytest.mark.parametrize("norm", ["none", "weight_norm"])
def test_gains_where_there_are_none_are_one_line(norm):
    with pytest.raises(BadInput, match=rf"^norm={norm}: model.gamma=0.1: norm={norm} has no gains to start$"):
        t8.State([run(norm, gamma=0.1)], dataset(), CPU)


def test_a_users_own_lstm_trains():
    """As nn.LSTM with weights of the input half as large, which is what its words are."""
    state = t8.State([run(f"{__name__}.Halved", dropout=0.2, forget_bias=1.0)], dataset(), CPU)
    assert isinstance(state.model.lstm, Halved) and state.model.lstm.dropout == 0.2
    plain = t8.State([run(forget_bias=1.0)], dataset(), CPU).model
    with torch.no_grad():
        plain.embedding.weight.copy_(state.model.embedding.weight / 2)
        plain.lstm.load_state_dict(state.model.lstm.state_dict())
    state.net.eval()
    ids = words(T * B).view(T, B)
    torch.testing.assert_close(state.model(ids, plain.initial(B))[0], plain(ids, plain.initial(B))[0])
    found = [m for _, m in t8.train(state) if m]
    assert len(found) == 2 and found[1]["train_ppl"][0] < found[0]["train_ppl"][0]
    assert found[0]["val_ppl"] == found[0]["val_ppl_mixture"]


def test_a_users_own_lstm_keeps_its_gains():
    """Weights and biases by the start, what else it has as it made it."""
    for start, biases in ((0.1, 0.1), (0.0, 0.0)):
        state = t8.State([run("norms.lstm.BatchNormLSTM", start=start, forget_bias=1.0)], dataset(), CPU)
        lstm = state.model.lstm
        assert (lstm.gamma_ih_l0 == 1).all() and lstm.bias_l0[:H].abs().max() == 0
        assert (lstm.bias_l0[H : 2 * H] == 1).all()
        plain = t8.State([run("torch.nn.LSTM", start=start)], dataset(), CPU).model.lstm
        assert plain.bias_ih_l0.abs().max() <= biases and plain.weight_hh_l1.abs().max() > 0


def test_the_clean_rule_is_clean_whatever_the_layer_was_built_for():
    one = trained("lstm_batch")
    other = t8.State([run("lstm_batch", options={"evaluation": "mixture"})], dataset(), CPU)
    other.net.load_state_dict(one.net.state_dict())
    for state in (one, other):
        state.net.eval()
    torch.testing.assert_close(t8.losses(one, one.data.x_val), t8.losses(other, other.data.x_val))
    assert other.model.lstm.mixture


def test_weights_spoiled_by_the_last_step_are_a_divergence():
    state = trained("none")
    with torch.no_grad():
        state.model.decoder.bias[0] = math.nan
    state.sums += 1.0
    found = t8.evaluated(state)
    assert math.isnan(found["train_loss"][0]) and found["val_ppl"] == [math.inf] and "scores" not in found


@pytest.mark.parametrize("options", [{"foo": 1}, {"momentum": -1}])
def test_options_that_the_optimizer_refuses_are_one_line(options):
    one = run()
    one = replace(one, optimizer=replace(one.optimizer, options=options))
    with pytest.raises(BadInput, match=r"^optimizer\.options=") as e:
        t8.State([one], dataset(), CPU)
    assert "\n" not in str(e.value)
