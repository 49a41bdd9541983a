"""The name map, conversion of models, and the list on the command line."""

import copy
import pickle
import re
import runpy
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import norms
from norms.build import CHOICES, METHODS, PROCEDURES, classes

SHAPES = {1: (6, 8, 5), 2: (6, 8, 5, 4), 3: (6, 8, 3, 2, 2)}


class Own(nn.Module):
    """A user's own layer, reached by its dotted path."""

    def __init__(self, num_features, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_features,), scale))

    def forward(self, x):
        return x * self.weight.view(-1, *[1] * (x.dim() - 2))


class BatchNormAct2d(nn.BatchNorm2d):
    """In the form of timm's: a BatchNorm2d that goes on to call its children."""

    def __init__(self, num_features):
        super().__init__(num_features)
        self.drop = nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class Fussy(nn.Module):
    """One whose constructor raises more than a line."""

    def __init__(self, num_features):
        raise RuntimeError("a line\nand another")


OWN = f"{__name__}.Own"
LAYERS = [name for name, method in METHODS.items() if method.make]


def randomised(model):
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("dim", SHAPES)
@pytest.mark.parametrize("name", LAYERS)
def test_every_name_builds_for_every_dim(name, dim):
    layer = norms.build(name, 8, dim, dtype=torch.float64)
    y = layer(torch.randn(SHAPES[dim], dtype=torch.float64))
    assert y.shape == SHAPES[dim]
    assert torch.isfinite(y).all()
    if name != "none":
        layer = layer.domains[0] if name == "domain" else layer
        learned = layer.bias if name == "mean_only" else layer.weight
        assert learned.shape == (8,) and learned.dtype == torch.float64
    assert pickle.loads(pickle.dumps(layer)).training


def test_contents_of_the_map():
    assert {"none", "batch", "layer", "group", "instance", "rms", "diminishing"} < set(norms.names())
    for dim, cls in enumerate([nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d], 1):
        assert type(norms.build("batch", 8, dim)) is cls
    kinds = norms.DiminishingBatchNorm1d, norms.DiminishingBatchNorm2d, norms.DiminishingBatchNorm3d
    assert [type(norms.build("diminishing", 8, dim)) for dim in (1, 2, 3)] == list(kinds)
    assert norms.build("batch", 8, momentum=0.5).momentum == 0.5
    assert norms.build("diminishing", 8, alpha="inv_m", reading="B").reading == "B"


def test_on_two_dimensional_input_layer_and_rms_are_torchs():
    x = torch.randn(5, 8, dtype=torch.float64)
    for name, theirs in (("layer", nn.LayerNorm(8)), ("rms", nn.RMSNorm(8))):
        theirs = randomised(theirs).double()
        ours = norms.build(name, 8).double()
        ours.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", SHAPES)
def test_layer_rms_and_instance_by_formula(dim):
    x = torch.randn(SHAPES[dim], dtype=torch.float64) * 2 + 1
    column, everything, positions = (-1, *[1] * dim), list(range(1, dim + 2)), list(range(2, dim + 2))
    for name, over, centre in (("layer", everything, 1), ("rms", everything, 0), ("instance", positions, 1)):
        layer = randomised(norms.build(name, 8, dim, eps=1e-3, dtype=torch.float64))
        deviation = x - centre * x.mean(over, keepdim=True)
        expected = deviation / (deviation.square().mean(over, keepdim=True) + 1e-3).sqrt()
        expected = expected * layer.weight.view(column)
        expected = expected + (layer.bias.view(column) if centre else 0)
        torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_default_groups_have_two_or_more_channels():
    found = {c: norms.build("group", c).num_groups for c in (1, 2, 3, 7, 10, 32, 50, 64, 300, 2048)}
    assert found == {1: 1, 2: 1, 3: 1, 7: 1, 10: 5, 32: 16, 50: 25, 64: 32, 300: 30, 2048: 32}
    assert norms.build("group", 300, num_groups=3).num_groups == 3


def test_instance_refuses_input_without_positions():
    with pytest.raises(ValueError, match="needs positions"):
        norms.build("instance", 8)(torch.randn(4, 8))


@pytest.mark.parametrize(
    "arguments,line",
    [
        ({"name": "batc"}, "unknown norm 'batc': choose one of none, batch, layer"),
        ({"name": ""}, "unknown norm ''"),
        ({"name": "batch", "alpha": 0.5}, "norm 'batch' has no option alpha; it has eps, momentum"),
        ({"name": "none", "eps": 0.5}, "norm 'none' has no option eps"),
        ({"name": "batch", "dim": 4}, "norm 'batch': dim=4, choose 1, 2 or 3"),
        ({"name": "group", "num_groups": 3}, "norm 'group': num_groups=3 does not divide 8 channels"),
        ({"name": "group", "num_groups": 0}, "norm 'group': num_groups=0 does not divide 8 channels"),
        ({"name": "diminishing", "alpha": "half"}, "alpha='half': give a number"),
        ({"name": "no_such_package.Layer"}, "norm 'no_such_package.Layer' cannot be imported"),
        ({"name": "torch.nn.NoSuchLayer"}, "norm 'torch.nn.NoSuchLayer' cannot be imported"),
        ({"name": ".Layer"}, "unknown norm '.Layer'"),
        ({"name": OWN, "size": 3}, "unexpected keyword argument 'size'"),
        ({"name": "renorm", "num_features": -1}, "num_features=-1, give a number of channels from 1"),
        ({"name": "rms", "eps": -1.0}, "eps=-1.0: give a number above 0"),
        ({"name": "dyt", "alpha": float("nan")}, "alpha=nan: give a finite number"),
        ({"name": "builtins.float"}, "gives a float, not a torch.nn.Module"),
        ({"name": Own}, "give a name or dotted path"),
        ({"name": None}, "norm None: give a name or dotted path"),
        ({"name": ["batch"]}, "norm ['batch']: give a name or dotted path"),
        *(
            ({"name": name, "eps": eps}, f"norm {name!r}: eps={eps!r}: give a number above 0")
            for name in ("batch", "layer", "group", "instance", "domain", "renorm", "rms", "frn")
            for eps in (0, -1.0, float("nan"), float("inf"), True, "1e-5")
        ),
        *(
            ({"name": name, "eps": None}, f"norm {name!r}: eps=None: give a number above 0")
            for name in ("batch", "layer", "group", "instance", "domain", "renorm")
        ),
        *(
            ({"name": name, "momentum": momentum}, f"norm {name!r}: momentum={momentum!r}: give a number in")
            for name in ("batch", "instance", "domain", "renorm", "mean_only")
            for momentum in (-0.1, 1.5, float("nan"), True, "0.1")
        ),
        ({"name": "renorm", "momentum": None}, "norm 'renorm': momentum=None: give a number in"),
        *(
            ({"name": name, key: value}, f"norm {name!r}: {key}={value!r}: give True or False")
            for name, key in (
                ("batch", "affine"),
                ("batch", "track_running_stats"),
                ("l1", "gaussian"),
                ("domain", "shared_affine"),
                ("layer", "affine"),
            )
            for value in (1, "no", None)
        ),
        ({"name": "group", "num_groups": 2.0}, "norm 'group': num_groups=2.0: give an int or None"),
        ({"name": "group", "num_groups": True}, "norm 'group': num_groups=True: give an int or None"),
        ({"name": "domain", "num_domains": 0}, "norm 'domain': num_domains=0: give a number of domains"),
        ({"name": "batch", "device": "gpu"}, "norm 'batch': Expected one of cpu, cuda"),
        ({"name": "renorm", "device": "gpu"}, "norm 'renorm': Expected one of cpu, cuda"),
        ({"name": "batch", "dtype": "float"}, "norm 'batch': "),
        ({"name": "batch", "dtype": torch.int32}, "norm 'batch': Only Tensors of floating point"),
        ({"name": f"{__name__}.Fussy"}, f"norm '{__name__}.Fussy': a line"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments, line):
    with pytest.raises(ValueError) as error:
        norms.build(**{"num_features": 8} | arguments)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_momentum_and_eps_may_be_none_where_the_layer_has_that():
    assert norms.build("batch", 8, momentum=None).momentum is None
    assert norms.build("domain", 8, momentum=None).domains[0].momentum is None
    assert norms.build("rms", 8, eps=None).eps is None
    assert norms.build("batch", 8, momentum=0).momentum == 0


def test_dotted_path():
    layer = norms.build(OWN, 8, dim=2, scale=3.0)
    assert type(layer).__name__ == "Own"
    assert layer(torch.ones(1, 8, 2, 2)).unique().item() == 3
    assert type(norms.build("torch.nn.BatchNorm2d", 8, momentum=0.5)) is nn.BatchNorm2d


# ---- convert -------------------------------------------------------------------------------------


def layers_of(model, cls):
    return {name: module for name, module in model.named_modules() if isinstance(module, cls)}


def test_convert_resnet18_keeps_its_function():
    """As C with torch's own choices, the layers are nn.BatchNorm: the converted network computes the same."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).double()
    for layer in layers_of(model, nn.BatchNorm2d).values():
        randomised(layer)
    before = copy.deepcopy(model)
    options = {"average": "variance", "eps_in": "variance", "eps": 1e-5, "correction": 1}
    assert norms.convert(model, "diminishing", **options) is model
    assert not layers_of(model, nn.BatchNorm2d)
    assert layers_of(model, norms.DiminishingBatchNorm2d).keys() == layers_of(before, nn.BatchNorm2d).keys()
    model.load_state_dict(model.state_dict())
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(model(x), before(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.eval()(x), before.eval()(x), rtol=1e-9, atol=1e-9)
    assert [t.dtype for t in model.state_dict().values()] == [t.dtype for t in before.state_dict().values()]


@pytest.mark.parametrize("there", [name for name in LAYERS if name != "batch"])
def test_convert_there_and_back(there):
    """Gamma and beta survive where the layer in between has them; where not, they start anew."""
    model = randomised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.BatchNorm1d(72)))
    before = {name: value.clone() for name, value in model.named_parameters()}
    norms.convert(model, there)
    kinds = [type(norms.build(there, 8, dim)) for dim in (2, 1)]
    assert [type(model[1]), type(model[3])] == kinds
    norms.convert(model, "batch")
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.BatchNorm2d, nn.Flatten, nn.BatchNorm1d]
    for key, value in model.named_parameters():
        both = "weight", "bias"
        missing = {"none": both, "domain": both, "rms": ("bias",), "mean_only": ("weight",)}.get(there, ())
        lost = key[0] in "13" and key.partition(".")[2] in missing
        start = torch.full_like(value, float(key.endswith("weight")))
        assert torch.equal(value, start if lost else before[key])


def test_convert_keeps_dtype_mode_and_requires_grad():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4)).to(torch.bfloat16)
    model[0].eval()
    model[0].weight.requires_grad_(False)
    norms.convert(model, "diminishing", alpha="inv_m")
    assert [layer.training for layer in model] == [False, True]
    assert [layer.weight.requires_grad for layer in model] == [False, True]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model[0].running_mean.dtype == torch.bfloat16


def test_convert_on_the_meta_device():
    model = nn.Sequential(nn.BatchNorm2d(4, device="meta", affine=False))
    norms.convert(model, "diminishing")
    assert {t.device.type for t in model.state_dict().values()} == {"meta"}


def test_convert_of_a_layer_itself_and_of_an_own_layer():
    layer = norms.convert(randomised(nn.BatchNorm1d(4, dtype=torch.float64)), OWN)
    assert type(layer).__name__ == "Own"
    assert layer.weight.dtype == torch.float64
    assert type(norms.convert(layer, "batch")) is nn.BatchNorm1d


@pytest.mark.parametrize(
    "made",
    [
        norms.L1BatchNorm2d(8),
        norms.BatchRenorm2d(8),
        norms.DiminishingBatchNorm2d(8),
        norms.MeanOnlyBatchNorm2d(8),
        norms.FilterResponseNorm2d(8),
        norms.DomainSpecificBatchNorm2d(8, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_convert_knows_layers_that_were_not_built_by_name(made):
    model = norms.convert(nn.Sequential(copy.deepcopy(made)), "batch")
    assert type(model[0]) is nn.BatchNorm2d and len(list(model.modules())) == 2


@pytest.mark.parametrize(
    "layer, words",
    [(nn.SyncBatchNorm(8), "convert first"), (nn.LazyBatchNorm2d(), "call the model once")],
    ids=["sync", "lazy"],
)
@pytest.mark.parametrize("name", ["renorm", "weight_norm"])
def test_convert_refuses_what_it_cannot_see(layer, words, name):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), layer)
    with pytest.raises(ValueError, match=words) as error:
        norms.convert(model, name)
    assert "2 is" in str(error.value) and "\n" not in str(error.value)
    assert type(model[1]) is nn.BatchNorm2d and not hasattr(model[0], "parametrizations")


def test_convert_leaves_other_layers_alone():
    group = nn.GroupNorm(2, 4)
    model = nn.Sequential(group, nn.LayerNorm(4), nn.Identity(), nn.BatchNorm1d(4))
    found = [type(m) for m in norms.convert(model, "renorm")]
    assert found == [nn.GroupNorm, nn.LayerNorm, nn.Identity, norms.BatchRenorm1d]


@pytest.mark.parametrize("name", [*LAYERS, OWN])
def test_convert_of_a_model_with_nothing_to_exchange_is_refused(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU())
    with pytest.raises(
        ValueError, match=rf"^norm '{name}': the model has no batch normalisation layer to put it"
    ):
        norms.convert(model, name)
    assert norms.convert(model, "weight_norm") is model  # whose batch normalisation may be absent


@pytest.mark.parametrize(
    "name,options,line",
    [
        ("renorm", {"dim": 2}, "norm 'renorm': dim is no option here"),
        ("renorm", {"num_features": 2}, "norm 'renorm': num_features is no option here"),
        (OWN, {"dim": 2}, "dim is no option here"),
        ("renorm", {"size": 2}, "norm 'renorm' has no option size"),
        (Own, {}, "give a name or dotted path"),
        ("no_such_package.Layer", {}, "cannot be imported"),
        ("batch", {"eps": -1.0}, "norm 'batch': eps=-1.0: give a number above 0"),
        ("batch", {"device": "gpu"}, "norm 'batch': Expected one of cpu, cuda"),
        ("cosine", {"last": 1}, "norm 'cosine': last=1: give True or False"),
        ("cosine", {"eps": 0}, "norm 'cosine': eps=0: give a number above 0"),
        ("centered_weight_norm", {"scale": -1}, "norm 'centered_weight_norm': scale=-1: give a number"),
        ("normprop", {"gamma": "1"}, "norm 'normprop': gamma='1': give a number above 0"),
    ],
)
def test_bad_arguments_of_convert_are_one_clear_line(name, options, line):
    hidden = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()
    model = nn.Sequential(*hidden, nn.Linear(4, 2))
    with pytest.raises(ValueError) as error:
        norms.convert(model, name, **options)
    assert line in str(error.value) and "\n" not in str(error.value)
    assert list(model)[:3] == list(hidden) and len(list(model.modules())) == 5


@pytest.mark.parametrize("model", ["resnet", nn.BatchNorm2d, None])
def test_convert_takes_a_model(model):
    with pytest.raises(TypeError, match=r"^convert: expected a torch\.nn\.Module as the model, got \w+$"):
        norms.convert(model, "renorm")


def test_convert_keeps_sharing():
    layer = nn.BatchNorm2d(4)
    model = nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer))
    norms.convert(model, "diminishing")
    assert model[0] is model[2][0]
    assert isinstance(model[0], norms.DiminishingBatchNorm2d)


def test_convert_keeps_the_activation_of_a_subclass():
    model = nn.Sequential(BatchNormAct2d(4))
    x = torch.randn(3, 4, 2, 2)
    expected = model(x)
    norms.convert(model, "batch")
    torch.testing.assert_close(model(x), expected)
    norms.convert(model, "none")
    torch.testing.assert_close(model(x), F.relu(x))


def test_convert_that_fails_changes_nothing():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(5))
    with pytest.raises(ValueError, match="does not divide 5 channels"):
        norms.convert(model, "group", num_groups=2)
    assert {type(m) for m in model} == {nn.BatchNorm1d}


# ---- alone, and on the command line --------------------------------------------------------------


def test_the_list_names_every_method_paper_and_option(capsys):
    runpy.run_module("norms", run_name="__main__")
    text = capsys.readouterr().out
    for name, line in norms.names().items():
        assert f"{name}: {line}\n    class: " in text
        assert all(f"{option}=" in text for option in norms.options(name))
        assert METHODS[name].equation in text
    assert text.count("arXiv") >= len(norms.names()) + len(PROCEDURES) - 1
    assert "alpha=0.1" in text
    for call, _, _ in PROCEDURES:
        assert all(word in norms.__all__ for word in re.findall(r"\b\w+_\w+\b|\b[A-Z]\w+", call))


def test_the_list_names_everything_public(capsys):
    runpy.run_module("norms", run_name="__main__")
    text = capsys.readouterr().out
    assert "class:    BatchRenorm1d/2d/3d\n" in text and "class:    torch.nn.BatchNorm1d/2d/3d\n" in text
    text = re.sub(r"(\w+)1d/2d/3d", r"\g<1>1d \g<1>2d \g<1>3d", text)
    words = set(re.findall(r"\w+", text))
    assert set(norms.__all__) <= words
    assert "reading=C (A, B, C)" in text and "alpha=0.5," in text
    assert "with norms.use_domain(model, k):" in text


def test_the_choices_of_words_are_those_that_the_layers_know():
    for name in METHODS:
        for key in norms.options(name).keys() & CHOICES.keys() - {"alpha"}:
            with pytest.raises(ValueError, match=rf"{key}='no': choose one of {', '.join(CHOICES[key])}$"):
                norms.convert(nn.ModuleList([nn.BatchNorm1d(4), nn.LSTM(3, 4)]), name, **{key: "no"})


def test_every_class_of_the_list_is_there_and_in_the_table_of_the_package():
    for name in METHODS:
        for kind in classes(name):
            assert hasattr(nn if kind.startswith("torch.nn.") else norms, kind.removeprefix("torch.nn.")), (
                kind
            )
            stem = re.sub(r"[123]d$", "", kind.removeprefix("torch."))
            assert re.search(rf"^    {name} +.*\b{stem}", norms.__doc__, re.MULTILINE), (name, stem)


def test_the_code_of_a_layer_is_in_the_file_of_its_name():
    """By which experiments/ finds the code that a record comes from; torch's own have none."""
    for name in LAYERS:
        module = type(norms.build(name, 8, 1)).__module__
        assert module == f"norms.{name}" or module.startswith("torch.nn") or name in ("instance", "none")


@pytest.mark.slow  # torch is imported once more
def test_norms_needs_no_other_room():
    code = "import sys, norms; print({'data', 'experiments', 'reports', 'hydra'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_the_list_of_methods_takes_names():
    def listed(*names):
        return subprocess.run(
            [sys.executable, "-m", "norms", *names], capture_output=True, text=True, check=False
        )

    one = listed("renorm", "l1")
    assert one.returncode == 0 and [line.split(":")[0] for line in one.stdout.splitlines()[::5]] == [
        "renorm",
        "l1",
    ]
    wrong = listed("renorrm")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "no method 'renorrm': did you mean renorm?\n"
