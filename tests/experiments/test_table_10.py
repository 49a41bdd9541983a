"""Table 10: one network for many methods and targets, target labels that only score, what cannot run."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data import DataSet
from experiments import adapting, grid, job, provenance, transfer
from experiments import table_10_adabn as t10
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.models import domain_net as nets

CPU = torch.device("cpu")


def dataset(shift=1.0, n=48, m=30, classes=3, seed=0):
    """Pictures whose class is the place of a bright square; the target is `shift` times as bright."""
    r = np.random.default_rng(seed)

    def part(count, factor):
        y = torch.from_numpy(r.integers(0, classes, count))
        x = r.integers(0, 60, (count, 3, 8, 8))
        for i, label in enumerate(y.tolist()):
            x[i, :, 2 * label : 2 * label + 3, 1:6] += 90
        return torch.from_numpy(np.clip(x * factor, 0, 255)).to(torch.uint8), y

    (a, b), (c, d), (e, f) = part(n, 1.0), part(12, 1.0), part(m, shift)
    names = tuple("abc"[:classes])
    return DataSet("pair", a, b, c, d, e, f, names, "print", "", "", (), "error", x_target=e)


def run(method="source", norm="batch", source="textured", target="blurred", images=None, **changes):
    options = {"source": source, "target": target}
    name = changes.pop("model", "domain_net")
    width = changes.pop("width", 0.125 if name == "domain_net" else 1)
    model = t10.Network(name, width, changes.pop("weights", None))
    data = Data(changes.pop("data", "digit_domains"), changes.pop("val", 0.1), None, None, options)
    optimizer = Optimizer("SGD", changes.pop("lr", 0.05), 0.0, {"momentum": 0.9})
    weight = changes.pop("weight", 1.0 if method in t10.WITH_TARGET else 0.0)
    parts = data, model, Norm(norm, changes.pop("norm_options", {})), optimizer
    made = t10.Run("T10", *parts, method, images, 5, weight, 0, 16, 3, 0)
    return t10.check(replace(made, **changes))


def finished(runs, data):
    state = t10.State(runs, data, CPU)
    *_, (_, metrics) = t10.train(state)
    return state, metrics


def test_rows_and_columns():
    assert t10.cell(run()) == ("source", "aw")
    assert t10.cell(run("adabn", images=16)) == ("adabn_16", "aw")
    assert t10.cell(run("coral", source="textured+colour")) == ("coral", "ad_w")
    assert t10.cell(run("sa", source="plain", target="inverted")) == ("sa", "plain_inverted")
    office = {"data": "office_caltech", "source": "amazon", "target": "dslr"}
    assert t10.cell(run("adabn", norm="renorm", **office)) == ("adabn_renorm", "ad")
    features = {**office, "data": "office_features", "model": "features"}
    assert t10.cell(run("gfk", **features)) == ("gfk", "ad_features")


def test_methods_on_one_network_are_one_training_and_give_what_they_give_alone():
    data = dataset(0.5)
    runs = [run(m) for m in t10.ON_NETWORK]
    state, together = finished(runs, [data] * len(runs))
    for k, one in enumerate(runs):
        alone, metrics = finished([one], data)
        assert metrics["test_accuracy"][0] == together["test_accuracy"][k], one.method
        for p, q in zip(alone.model.state_dict().values(), state.model.state_dict().values(), strict=True):
            assert torch.equal(p, q)
    assert together["test_accuracy"][0] == 100 - 100 * together["wrong"][0].double().mean().item()
    assert together["chance"] == [100 / 3] * len(runs)


def test_members_may_have_targets_of_different_sizes():
    sets = [dataset(0.5, m=30), dataset(0.5, m=20)]
    sets[1] = replace(sets[1], **{k: getattr(sets[0], k) for k in ("x_train", "y_train", "x_val", "y_val")})
    _, metrics = finished([run("adabn"), run("adabn", target="colour")], sets)
    assert [len(w) for w in metrics["wrong"]] == [30, 20]


def test_few_target_pictures_are_drawn_by_the_seed_each_number_within_the_next():
    data = dataset(0.5)
    runs = [run("adabn", images=n) for n in (1, 5, 30)] + [run("adabn")]
    state = t10.State(runs, [data] * 4, CPU)
    one, five, thirty, whole = (adapting.seen_by(state, k) for k in range(4))
    assert (len(one), len(five), len(thirty)) == (1, 5, 30) and torch.equal(whole, data.x_target)
    assert torch.equal(five[:1], one) and torch.equal(thirty[:5], five)
    assert {r.numpy().tobytes() for r in thirty} == {r.numpy().tobytes() for r in whole}
    other = t10.State([run("adabn", images=5, seed=1)], data, CPU)
    assert not torch.equal(adapting.seen_by(other, 0), five)
    state, metrics = finished([run("adabn", images=5)], data)
    with adapting.target_statistics(state.model, five):
        wrong = adapting.wrong_by_logits(adapting.of_all(state.model, data.x_test), data.y_test)
    assert torch.equal(metrics["wrong"][0], wrong)


@pytest.mark.parametrize(
    ("profile", "runs", "networks", "trained_with_target"),
    [("smoke", 17, 3, 2), ("quick", 254, 9, 12), ("cpu", 265, 12, 28), ("paper", 110, 6, 12)],
)
def test_one_source_network_serves_all_its_targets(profile, runs, networks, trained_with_target, composed):
    """For each seed: a job for each source, or pair of sources, and one for each training with a target."""
    points = grid.points(["table=T10", f"profile={profile}", "seed=0"], composed)
    jobs = [{(p.run.method, p.run.data.options["source"]) for p in job} for job in grid.jobs(points)]
    alone = [job for job in jobs if any(m in t10.WITH_TARGET for m, _ in job)]
    assert len(points) == runs and len(alone) == trained_with_target and all(len(job) == 1 for job in alone)
    assert len(jobs) - len(alone) == networks
    assert all(len({source for _, source in job}) == 1 for job in jobs)


def test_adabn_by_its_formula():
    """Every layer normalised by all target pictures' statistics at its input, written out layer by layer."""
    data = dataset(0.4)
    state, metrics = finished([run("adabn")], data)
    state.net.eval()
    x = data.x_target.double() / 255
    body = [
        m for part in state.model.double().body for m in (part if isinstance(part, nn.Sequential) else [part])
    ]
    with torch.no_grad():
        for layer in body:
            if isinstance(layer, nn.BatchNorm2d):
                n = x.numel() / x.shape[1]
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0) * n / (n - 1)
                x = (x - mean[:, None, None]) / (var[:, None, None] + layer.eps).sqrt()
                x = x * layer.weight[:, None, None] + layer.bias[:, None, None]
            else:
                x = layer(x)
        wrong = state.model.head(x).argmax(1) != data.y_test
    assert metrics["test_accuracy"][0] == pytest.approx(100 - 100 * wrong.double().mean().item())


def test_adabn_undoes_a_change_of_brightness():
    """Of a darker copy of the same pictures: the source network fails on some, the adapted one does not."""
    source = dataset(1.0, n=90)
    dark = dataset(0.35, n=90)
    data = replace(source, x_test=dark.x_test, y_test=dark.y_test, x_target=dark.x_test)
    _, metrics = finished([run(m, epochs=12) for m in ("source", "adabn")], data)
    assert metrics["test_accuracy"][1] > 90 and metrics["test_accuracy"][1] > metrics["test_accuracy"][0] + 5


@pytest.mark.parametrize("method", t10.METHODS)
def test_no_label_of_the_target_reaches_a_prediction(method):
    """Scored against all zeros, all ones and all twos, each picture is right exactly once: predictions are
    the same whatever the labels say.
    """
    data = dataset(0.5)
    parts = [replace(data, y_test=torch.full_like(data.y_test, label)) for label in range(3)]
    states = [finished([run(method)], d) for d in parts]
    for p, *others in zip(*(s.model.state_dict().values() for s, _ in states), strict=True):
        assert all(torch.equal(p, q) for q in others)
    hits = torch.stack([~m["wrong"][0] for _, m in states])
    assert (hits.sum(0) == 1).all()


@pytest.mark.parametrize("method", t10.METHODS)
def test_every_method_trains_in_batches_of_one_domain(method):
    data = dataset(0.6)
    data = replace(data, domain_train=torch.arange(len(data.y_train)) % 2)
    state, metrics = finished([run(method, source="textured+colour", batch_size=8)], data)
    assert 0 <= metrics["test_accuracy"][0] <= 100 and math.isfinite(metrics["train_loss"][0])
    for rows in state.order():
        assert len(set(data.domain_train[rows].tolist())) == 1
    assert state.steps_per_epoch == len(state.order())


def test_a_source_smaller_than_a_batch_is_one_batch():
    state = t10.State([run(batch_size=200)], dataset(), CPU)
    assert [len(rows) for rows in state.order()] == [48]


def test_second_losses_written_out():
    data = dataset(0.6)
    for method in t10.WITH_TARGET:
        state = t10.State([run(method, weight=0.5)], data, CPU)
        features = torch.randn(18, state.model.head.in_features, requires_grad=True)
        logits = torch.randn(18, 3)
        loss = t10.second_loss(state, features, logits, 10, step=4)
        if method == "deep_coral":
            gap = torch.cov(logits[:10].T) - torch.cov(logits[10:].T)
            assert loss.item() == pytest.approx(0.5 * gap.square().sum().item() / 4 / 3**2, rel=1e-4)
        else:
            judged = state.second(features.detach()).squeeze(1)
            wanted = nn.functional.softplus(torch.cat([-judged[:10], judged[10:]])).mean()
            assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
            reversed_ = torch.autograd.grad(loss, features)[0][:10]
            plain = torch.autograd.grad(
                nn.functional.softplus(-state.second(features[:10]).squeeze(1)).sum() / 18, features
            )[0][:10]
            strength = 0.5 * (2 / (1 + math.exp(-10 * 4 / (3 * 3))) - 1)
            torch.testing.assert_close(reversed_, -strength * plain, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("method", t10.WITH_TARGET)
def test_both_domains_go_through_as_one_batch(method):
    """The first layer's running mean is that of source rows and drawn target rows together."""
    data = dataset(0.3)
    state = t10.State([run(method, norm_options={"momentum": 1.0})], data, CPU)
    last: list[torch.Tensor] = []
    first = state.model.body[1][1]
    first.register_forward_pre_hook(lambda m, args: last.append(args[0].detach()) if m.training else None)
    list(t10.train(state))
    assert all(len(x) == 32 for x in last)
    torch.testing.assert_close(first.running_mean, last[-1].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_weight_decay_spares_gains_and_shifts():
    state = t10.State([run()], dataset(), CPU)
    decayed, rest = t10.rates(replace(run(), optimizer=Optimizer("SGD", 0.1, 1e-3, {})), state.model)
    assert {p.dim() for p in decayed["params"]} == {2, 4} and {p.dim() for p in rest["params"]} == {1}
    assert (decayed["weight_decay"], rest["weight_decay"]) == (2e-3, 0.0)
    assert len(decayed["params"]) + len(rest["params"]) == len(list(state.model.parameters()))


def test_divergence_of_a_layer_is_that_of_its_outputs_after_the_relu():
    data = dataset(0.5)
    state, _ = finished([run("adabn")], data)
    before, after = (state.extras[f"divergence_{w}"][0] for w in ("before", "after"))
    assert len(before) == 6 and len(state.extras["plane_before"][0]) == 2 * (48 + 30)
    first = state.model.body[1][1]
    seen = []
    handle = first.register_forward_hook(lambda m, a, y: seen.append(y.detach().double().relu().numpy()))
    state.net.eval()
    with torch.no_grad():
        for x in (data.x_train, data.x_target):
            state.model(x.float() / 255)
        with adapting.target_statistics(state.model, data.x_target):
            kept = seen[:2]  # what the adaptation itself passed through comes after
            state.model(data.x_target.float() / 255)
    handle.remove()
    assert before[0] == pytest.approx(transfer.symmetric_kl(*kept), rel=1e-3)
    assert after[0] == pytest.approx(transfer.symmetric_kl(kept[0], seen[-1]), rel=1e-3)


@pytest.mark.parametrize("methods", [("adabn", "coral"), ("dann",)])
@pytest.mark.parametrize("steps", [20, 24])  # in the middle of an epoch, and after one
def test_resuming_changes_nothing(methods, steps):
    data = dataset(0.5)
    runs = [run(m, batch_size=2, epochs=2) for m in methods]
    whole, wanted = finished(runs, data)
    state = t10.State(runs, data, CPU)
    for step, _ in t10.train(state):
        if step == steps:
            break
    saved = state.state_dict()
    again = t10.State(runs, data, CPU)
    again.load_state_dict(saved)
    *_, (_, metrics) = t10.train(again)
    assert metrics["test_accuracy"] == wanted["test_accuracy"]
    for p, q in zip(again.net.state_dict().values(), whole.net.state_dict().values(), strict=True):
        assert torch.equal(p, q)
    done = t10.State(runs, data, CPU)
    done.load_state_dict(whole.state_dict())
    assert done.extras == whole.extras
    if "adabn" in methods:
        assert done.extras["divergence_after"][0]


@pytest.mark.parametrize("method", t10.METHODS)
def test_divergence_is_a_result(method):
    _, metrics = finished([run(method, lr=1e20)], dataset(0.5))
    assert not math.isfinite(metrics["train_loss"][0])
    assert metrics["test_accuracy"] == [0.0]


def test_what_cannot_run_is_one_line():
    data = dataset()
    for made, says in (
        (lambda: t10.State([run("adabn", norm="none")], data, CPU), "network without batch normalization"),
        (lambda: t10.State([run("adabn_coral", norm="group")], data, CPU), "has no statistics"),
        (lambda: t10.State([run(model="googlenet", norm="group")], data, CPU), "normalization of its own"),
        (
            lambda: t10.State([run(model="googlenet", norm_options={"eps": 1.0})], data, CPU),
            "batch normalization of its own",
        ),
        (
            lambda: t10.State([run("adabn", norm_options={"track_running_stats": False})], data, CPU),
            "has no statistics",
        ),
        (lambda: run("source_svm", images=3), "takes no number of target pictures"),
        *(
            (lambda m=m: t10.State([run(m)], replace(data, x_target=data.x_target[:1]), CPU), "1 target rows")
            for m in ("coral", "sa", "gfk", "adabn_coral", "deep_coral", "source_zscore")
        ),
        (lambda: run(method="coralle"), "choose one of source"),
        (lambda: run(images=3), "takes no number of target pictures"),
        (lambda: run("adabn", images=0), "from 1; null: all"),
        (lambda: t10.State([run("adabn", images=31)], data, CPU), "images=31: pair has 30 target rows"),
        (lambda: t10.State([run("coral", images=1)], data, CPU), "1 target rows; statistics need 2"),
        (lambda: run(weight=1.0), "no second loss"),
        (lambda: run(model="features"), "data=office_features"),
        (lambda: run(data="mnist"), "pairs of domains"),
        (lambda: run("sa", dims=0), "dimensions of a subspace"),
        (lambda: run(model="googlenet", width=0.5), "has one width"),
        (lambda: run(weights="imagenet"), "of model=googlenet alone"),
        (lambda: run(model="googlenet", weights="other.pth"), "model.weights=other.pth: imagenet"),
        (lambda: run(val=1.0), "from 0 to below 1"),
        (lambda: t10.State([run()], replace(data, x_train=data.x_train[:, :, :4, :4]), CPU), "at least 8x8"),
    ):
        with pytest.raises(BadInput) as e:
            made()
        assert says in str(e.value) and "\n" not in str(e.value)


def test_given_features_of_a_single_target_row(tmp_path):
    x = torch.randn(20, 6)
    y = torch.arange(20) % 2
    data = DataSet(
        "f", x, y, x[:4], y[:4], x[:1], y[:1], ("a", "b"), "p", "", "", (), "error", x_target=x[:1]
    )
    office = {"data": "office_features", "model": "features", "source": "amazon", "target": "dslr"}
    with pytest.raises(BadInput, match="1 target rows; statistics need 2"):
        t10.State([run("adabn", **office)], data, CPU)
    _, metrics = finished([run("source", **office)], data)
    assert metrics["test_accuracy"][0] in (0.0, 100.0)


def test_weights_of_googlenet_are_the_right_file_or_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BN_WEIGHTS_ROOT", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    file = tmp_path / "googlenet-1378be20.pth"
    for make, says in ((None, "put googlenet-1378be20.pth"), (file.touch, "is not torchvision's")):
        if make:
            make()
        with pytest.raises(ValueError, match=says) as e:
            nets.googlenet(3, "imagenet")
        assert "\n" not in str(e.value)


def test_what_makes_no_difference_makes_no_other_run():
    assert run("coral", dims=7) == run("coral", dims=9) and run("sa", dims=7) != run("sa", dims=9)


def test_without_validation_rows():
    """`paper` trains on every source picture, as the source does."""
    data = dataset(0.5)
    none = replace(data, x_val=data.x_val[:0], y_val=data.y_val[:0])
    _, metrics = finished([run("adabn", val=0.0)], none)
    assert math.isnan(metrics["val_error"][0]) and 0 <= metrics["test_accuracy"][0] <= 100


def test_the_code_hash_sees_the_methods():
    """AdaBN and CORAL are layers of norms, imported by module: an edit to them makes records stale."""
    files = {path.name for path in provenance._closure("experiments.table_10_adabn")}
    assert {"adabn.py", "coral.py", "transfer.py", "adapting.py", "domain_net.py"} <= files


def test_one_sources_rows_are_in_memory_once():
    first, second = dataset(0.5, m=30), dataset(0.5, m=20)
    assert second.x_train is not first.x_train
    shared = job.sharing(second, [first])
    assert shared.x_train is first.x_train and shared.y_val is first.y_val
    assert shared.x_test is second.x_test and len(shared.x_test) == 20
    state = t10.State([run(), run(target="colour")], [first, shared], CPU)
    assert state.datasets[0].x_train is state.datasets[1].x_train
    unlike = job.sharing(replace(second, x_train=second.x_train.float()), [first])
    assert unlike.x_train.dtype == torch.float32


def test_each_domain_passes_the_trained_network_once(monkeypatch):
    """Three targets and all methods on one network: the source once, each target as it is and adapted; the
    SVM on features as they are, and that on standardised ones, is fitted once for all targets, with and
    without AdaBN.
    """
    sets = [dataset(0.5, m=m) for m in (30, 20, 10)]
    source = ("x_train", "y_train", "x_val", "y_val")
    sets[1:] = [replace(d, **{k: getattr(sets[0], k) for k in source}) for d in sets[1:]]
    runs = [(run(m, target=t), d) for m in t10.ON_NETWORK for t, d in zip("abc", sets, strict=True)]
    passed, fits, outputs, fitted = [], [], adapting.outputs, transfer.fitted
    monkeypatch.setattr(adapting, "outputs", lambda net, x: passed.append(len(x)) or outputs(net, x))
    monkeypatch.setattr(transfer, "fitted", lambda *a, **k: fits.append(1) or fitted(*a, **k))
    finished([r for r, _ in runs], [d for _, d in runs])
    assert sorted(passed) == sorted([len(sets[0].x_train), *2 * (30, 20, 10)])
    assert len(fits) == 2 + 3 * 4  # sa, gfk, coral and adabn_coral align each pair in their own way


@pytest.mark.slow
def test_googlenet_keeps_its_first_groups():
    """Neither weights nor statistics up to inception 3b move; those of 4 and 5 and the new layer do."""
    data = dataset(n=8, m=4)
    grown = {k: nn.functional.interpolate(getattr(data, k).float(), 64).to(torch.uint8)
             for k in ("x_train", "x_val", "x_test", "x_target")}  # fmt: skip
    data = replace(data, **grown)
    state = t10.State([run(model="googlenet", epochs=1, batch_size=8)], data, CPU)
    before = {k: v.clone() for k, v in state.model.state_dict().items()}
    list(t10.train(state))
    for name, value in state.model.state_dict().items():
        moves = "inception4" in name or "inception5" in name or name.startswith("head")
        if not moves:
            assert torch.equal(value, before[name]), name
    assert not torch.equal(state.model.head.weight, before["head.weight"])


def test_a_network_in_evaluation_sees_no_batch():
    """Predictions of AdaBN do not depend on how the target is cut into pieces."""
    data = dataset(0.5)
    state, _ = finished([run("adabn")], data)
    state.net.eval()
    with adapting.target_statistics(state.model, data.x_target):
        whole = adapting.of_all(state.model, data.x_test)
    small = replace(data)
    old, adapting.PIECE = adapting.PIECE, 7
    try:
        with adapting.target_statistics(state.model, small.x_target):
            pieces = adapting.of_all(state.model, data.x_test)
    finally:
        adapting.PIECE = old
    torch.testing.assert_close(whole, pieces, rtol=1e-4, atol=1e-5)


def test_what_cannot_run_does_not_keep_those_that_share_its_network(cli):
    words = ["row=adabn", "column=aw", "images=2,61,8", "data.options.n_train=60"]
    done = cli("-m", "table=T10", "profile=smoke", *words)
    said = done.stdout + done.stderr
    assert done.returncode == 2 and "images=61: digit_domains has 60 target rows" in said
    assert said.count("images=61") == 1 and "1 refused" in said and "2 finished" in said
    assert {r["config"]["images"] for r in cli.records("T10").values()} == {2, 8}
