"""What users do with any torch.nn layer, done with every layer here: saved, copied, moved, compiled,
transformed. What a layer cannot do is in REFUSED, with the error it gives.
"""

import copy
import io
import pickle
import shutil

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import norms
from norms.build import METHODS

F64 = torch.float64
# Of maps, sequences (batch first), vectors and volumes
MAPS, LONG, FLAT, VOLUMES = (6, 8, 5, 4), (6, 5, 8), (6, 8), (6, 8, 3, 2, 2)


class First(nn.Module):
    """The output of an LSTM without its states."""

    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm

    def forward(self, x):
        return self.lstm(x)[0]


def placed(name, **options):
    return lambda **factory: norms.build(name, 8, 2, **options, **factory)


def flat(name, dim, **options):
    return lambda **factory: norms.build(name, 8, dim, **options, **factory)


def weighted(wrap, layer):
    return lambda **factory: nn.Sequential(wrap(layer(**factory)))


def global_data(device=None, dtype=None):
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(8, generator=generator), torch.rand(8, generator=generator) + 0.5
    return norms.GlobalDataNormalization(mean, std).to(device, dtype)


def recurrent(kind, **options):
    return lambda **factory: First(kind(8, 4, batch_first=True, **options, **factory))


OPEN = {"warmup_steps": 0, "r_steps": 0, "d_steps": 0}
OPTIONS = {"renorm": {"warmup_steps": 0, "r_steps": 4, "d_steps": 2}, "group": {"num_groups": 4}}
PLACED = {name: placed(name, **OPTIONS.get(name, {})) for name, method in METHODS.items() if method.make} | {
    "diminishing A": placed("diminishing", reading="A"),
    "diminishing B": placed("diminishing", reading="B"),
    "renorm, no affine": placed("renorm", affine=False, **OPEN),
    "l1, no affine": placed("l1", affine=False),
    "mean_only, no affine": placed("mean_only", affine=False),
    "frn, no threshold": placed("frn", tlu=False),
}
WHOLE = {
    "CosineLinear": (lambda **f: norms.CosineLinear(8, 4, **f), FLAT),
    "CosineLinear, centred": (lambda **f: norms.CosineLinear(8, 4, centred=True, **f), FLAT),
    "CosineConv2d": (lambda **f: norms.CosineConv2d(8, 4, 3, padding=1, **f), MAPS),
    "CosineConv2d, centred": (lambda **f: norms.CosineConv2d(8, 4, 3, centred=True, **f), MAPS),
    "NormPropLinear": (lambda **f: norms.NormPropLinear(8, 4, torch.tanh, **f), FLAT),
    "NormPropConv2d": (lambda **f: norms.NormPropConv2d(8, 4, 3, **f), MAPS),
    "NormPropConv2d, PReLU": (lambda **f: norms.NormPropConv2d(8, 4, 3, activation=nn.PReLU(**f), **f), MAPS),
    "weight norm, Linear": (weighted(norms.weight_norm, lambda **f: nn.Linear(8, 4, **f)), FLAT),
    "weight norm, Conv2d": (weighted(norms.weight_norm, lambda **f: nn.Conv2d(8, 4, 3, **f)), MAPS),
    "weight norm, transposed": (
        weighted(norms.weight_norm, lambda **f: nn.ConvTranspose2d(8, 4, 3, **f)),
        MAPS,
    ),
    "centred, Linear": (weighted(norms.centered_weight_norm, lambda **f: nn.Linear(8, 4, **f)), FLAT),
    "centred, Conv2d": (weighted(norms.centered_weight_norm, lambda **f: nn.Conv2d(8, 4, 3, **f)), MAPS),
    "BatchDataNormalization": (lambda **f: norms.BatchDataNormalization(8, **f), FLAT),
    "GlobalDataNormalization": (global_data, FLAT),
    "BatchNormLSTM": (recurrent(norms.BatchNormLSTM), LONG),
    "BatchNormLSTM, deep": (recurrent(norms.BatchNormLSTM, num_layers=2, bidirectional=True), LONG),
    "LayerNormLSTM, deep": (recurrent(norms.LayerNormLSTM, num_layers=2, bidirectional=True), LONG),
    "BatchNormLSTM, sequence": (recurrent(norms.BatchNormLSTM, statistics="sequence"), LONG),
    "RecurrentBatchNormLSTM": (recurrent(norms.RecurrentBatchNormLSTM), LONG),
    "LayerNormLSTM": (recurrent(norms.LayerNormLSTM), LONG),
}
for _name in ("diminishing", "renorm", "l1", "mean_only", "domain"):
    WHOLE[f"{_name}, 1d"] = flat(_name, 1, **OPTIONS.get(_name, {})), FLAT
    WHOLE[f"{_name}, 3d"] = flat(_name, 3, **OPTIONS.get(_name, {})), VOLUMES
WHOLE["frn, 1d"] = flat("frn", 1), (6, 8, 5)
LAYERS = {name: (make, MAPS) for name, make in PLACED.items()} | WHOLE
LSTMS = [name for name in WHOLE if "LSTM" in name]
BATCH_STATISTICS = ("batch", "diminishing", "renorm", "l1", "mean_only", "domain", "Batch", "Recurrent")

ONE_VALUE = [f"{name}, 1d" for name in ("diminishing", "renorm", "l1", "mean_only", "domain")]
ONE_VALUE += ["BatchDataNormalization"]

# (layer, what it is asked) -> (the error, and words of it); an LSTM of any kind is "LSTM"
REFUSED = {
    ("instance", "empty batch"): (IndexError, "index 0"),  # torch's own
    **{
        (layer, "batch of one"): (ValueError, "Expected more than 1 value per channel")
        for layer in [*ONE_VALUE, "BatchNormLSTM", "BatchNormLSTM, deep", "RecurrentBatchNormLSTM"]
    },
    **{
        (layer, "pickle"): (RuntimeError, "only supported through state_dict")  # torch's own
        for layer in WHOLE
        if layer.startswith(("weight norm", "centred"))
    },
    ("LSTM", "fullgraph"): (Exception, "disable"),  # a graph of all time steps would be endless
}


def build(layer, seed=0, **factory):
    torch.manual_seed(seed)
    made = LAYERS[layer][0](**({"dtype": F64} | factory))
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        with torch.no_grad():
            noise = torch.randn(parameter.shape, generator=generator, dtype=F64)
            parameter.add_(0.3 * noise.to(parameter.device, parameter.dtype))
    return made


def inputs(layer, steps=1, seed=0, dtype=F64):
    generator, shape = torch.Generator().manual_seed(seed), LAYERS[layer][1]
    return [torch.randn(shape, generator=generator, dtype=F64).to(dtype) * 2 + 1 for _ in range(steps)]


def trained(layer, **where):
    """A layer whose state is not that of the start."""
    built = build(layer, **where)
    for x in inputs(layer, steps=2, dtype=next((p.dtype for p in built.parameters()), F64)):
        built(x)
    return built


def refused(layer, asked, call):
    """Whether the layer refuses, as the list above says; what it does not list must work."""
    key = ("LSTM" if layer in LSTMS and ("LSTM", asked) in REFUSED else layer), asked
    if key not in REFUSED:
        return call()
    kind, words = REFUSED[key]
    with pytest.raises(kind, match=words):
        call()
    return None


def same(a, b, **tolerance):
    torch.testing.assert_close(a, b, **({"rtol": 1e-12, "atol": 1e-12} | tolerance))


@pytest.mark.parametrize("layer", LAYERS)
def test_state_dict_deepcopy_and_pickle(layer):
    built, (x,) = trained(layer), inputs(layer, seed=1)
    loaded = build(layer, seed=5)
    saved = io.BytesIO()
    torch.save(built.state_dict(), saved)
    saved.seek(0)
    loaded.load_state_dict(torch.load(saved, weights_only=True))
    pickled = refused(layer, "pickle", lambda: pickle.loads(pickle.dumps(built)))
    for twin in (loaded, copy.deepcopy(built), pickled or copy.copy(loaded)):
        for mode in (False, True):  # in this order: training changes the twin
            same(twin.train(mode)(x), copy.deepcopy(built).train(mode)(x))


@pytest.mark.parametrize("layer", LAYERS)
def test_device_and_dtype(layer):
    """The factory arguments reach everything; .to moves everything that has a floating point."""
    meta = build(layer, device="meta", dtype=torch.float32)
    assert {t.device.type for t in meta.state_dict().values()} <= {"meta"}
    for built in (build(layer, dtype=torch.bfloat16), trained(layer).to(torch.bfloat16)):
        floats = [t for t in built.state_dict().values() if t.is_floating_point()]
        assert {t.dtype for t in floats} <= {torch.bfloat16}
        y = built(inputs(layer)[0].bfloat16())
        assert y.dtype == torch.bfloat16 and torch.isfinite(y).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("layer", LAYERS)
def test_cuda_does_what_the_cpu_does(layer):
    results = []
    for device in ("cpu", "cuda"):
        built, (x,) = build(layer).to(device), inputs(layer)
        x = x.to(device).requires_grad_()
        y = built(x)
        y.sin().sum().backward()
        state = [v for v in built.state_dict().values() if v.is_floating_point()]
        results.append([y, x.grad, *state, built.eval()(x)])
    same([t.cpu() for t in results[1]], results[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("layer", LAYERS)
def test_mode(layer):
    """Evaluation changes no state and does not see the other examples; training without batch statistics is
    the same as evaluation."""
    built, (x,) = trained(layer), inputs(layer, seed=1)
    before = copy.deepcopy(built.state_dict())
    y = built.eval()(x)
    same(built(x[:2]), y[:2])
    for key, value in built.state_dict().items():
        assert torch.equal(value, before[key])
    if not layer.startswith(BATCH_STATISTICS):
        same(built.train()(x), y)


@pytest.mark.parametrize("layer", LAYERS)
def test_memory_formats(layer):
    """channels_last and other strides: same values, gradients and statistics."""
    (x,) = inputs(layer)
    strided = torch.stack([x, x], -1)[..., 0]
    assert not strided.is_contiguous()
    results = []
    forms = [x, strided, *([x.contiguous(memory_format=torch.channels_last)] if x.dim() == 4 else [])]
    for form in forms:
        built, leaf = build(layer), form.detach().requires_grad_()
        y = built(leaf)
        y.sin().sum().backward()
        results.append([y, leaf.grad, *(p.grad for p in built.parameters()), *built.buffers()])
    for result in results[1:]:
        same(result, results[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer", LAYERS)
def test_autocast(layer):
    """A bfloat16 input, as a convolution gives it: close to float32, with statistics in float32."""
    (x,) = inputs(layer, dtype=torch.bfloat16)
    low, high = (build(layer, dtype=torch.float32) for _ in range(2))
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = low(leaf)
    # An input's normalisation comes first, and gives the precision of its mean.
    assert y.dtype == (torch.float32 if layer == "GlobalDataNormalization" else torch.bfloat16)
    y.float().sin().sum().backward()
    tolerance = 0.1 if "deep" in layer else 0.03
    same(y.float(), high(x.float()), rtol=tolerance, atol=tolerance)
    assert leaf.grad.dtype == torch.bfloat16 and torch.isfinite(leaf.grad).all()
    for name, value in low.named_buffers():
        same(value, dict(high.named_buffers())[name], rtol=0.01, atol=0.01)
        assert value.dtype in (torch.float32, torch.int64)


@pytest.mark.parametrize("layer", LAYERS)
def test_batch_of_one_and_of_none(layer):
    built, (x,) = trained(layer), inputs(layer)
    shape = built(x).shape[1:]
    one = refused(layer, "batch of one", lambda: built(x[:1]))  # of maps, positions are values too
    assert one is None or one.shape == (1, *shape)
    before = {k: v.clone() for k, v in built.state_dict().items() if not k.endswith("num_batches_tracked")}
    empty = refused(layer, "empty batch", lambda: built(x[:0].requires_grad_()))
    if empty is not None:
        assert empty.shape == (0, *shape)
        empty.sum().backward()
    for key, value in before.items():
        same(built.state_dict()[key], value)
    none = refused(layer, "empty batch", lambda: built.eval()(x[:0]))
    assert none is None or none.shape == (0, *shape)


@pytest.mark.parametrize("layer", [k for k in PLACED if k.partition(",")[0] in ("renorm", "l1", "mean_only")])
def test_one_value_a_channel_is_torchs_error(layer):
    x = torch.randn(1, 8, 1, 1, dtype=F64)
    with pytest.raises(ValueError) as ours:
        build(layer)(x)
    with pytest.raises(ValueError) as theirs:
        nn.BatchNorm2d(8, dtype=F64)(x)
    assert str(ours.value) == str(theirs.value)
    assert build(layer).eval()(x).shape == x.shape


@pytest.mark.parametrize("layer", PLACED)
def test_wrong_rank_and_wrong_channels_are_named(layer):
    if layer == "none":
        return
    for shape in ((6, 8), (6, 8, 5, 4, 3), (6, 5, 5, 4)):
        x = torch.randn(shape, dtype=F64)
        any_rank = layer in ("rms", "dyt", "group", "layer")
        if any_rank and shape[1] == 8:
            assert build(layer)(x).shape == shape
            continue
        with pytest.raises((ValueError, RuntimeError)) as error:
            build(layer)(x)
        named = ("4D", str(len(shape)) + "D") if shape[1] == 8 else ("5",)
        assert all(part in str(error.value) for part in named), str(error.value)


@pytest.mark.parametrize("layer", ["batch", "diminishing", "renorm", "l1", "mean_only", "domain"])
def test_nan_statistics_are_seen_in_their_channel_alone(layer):
    built, (x,) = trained(layer).eval(), inputs(layer)
    for name, buffer in built.named_buffers():
        if buffer.shape == (8,) and not name.startswith("domains.1"):
            buffer[3] = torch.nan
    y = built(x)
    assert y[:, 3].isnan().all()
    assert torch.isfinite(y[:, [c for c in range(8) if c != 3]]).all()


@pytest.mark.parametrize("layer", ["renorm", "l1", "mean_only", "frn"])
def test_integers_are_refused(layer):
    with pytest.raises(TypeError, match=r"expected a floating-point input \(got torch.int64\)"):
        build(layer)(torch.ones(MAPS, dtype=torch.int64))


@pytest.mark.parametrize("layer", PLACED)
def test_nan_goes_through(layer):
    """NaN in one channel of the input is NaN in that channel's output, not an error, and not hidden."""
    if layer in ("layer", "rms", "group"):
        return  # over channels too
    (x,) = inputs(layer)
    x[0, 3, 0, 0] = torch.nan
    y = build(layer)(x)
    assert y[0, 3, 0, 0].isnan()
    assert torch.isfinite(y[:, [c for c in range(8) if c != 3]]).all()


def as_function(built):
    """Output as a function of input and parameters; statistics start anew with each call."""
    names, values = zip(*built.named_parameters(), strict=True) if list(built.parameters()) else ((), ())
    start = {k: v.clone() for k, v in built.named_buffers()}

    def f(x, *parameters):
        state = dict(zip(names, parameters, strict=True)) | {k: v.clone() for k, v in start.items()}
        return functional_call(built, state, (x,))

    return f, values


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(
    "layer",
    [pytest.param(name, marks=pytest.mark.slow) if "LSTM" in name else name for name in LAYERS],
)
def test_gradcheck_and_gradgradcheck(layer, mode):
    built = build(layer).train(mode)
    if layer.startswith("renorm"):  # both corrections at their limits, as constant as the gradient has them
        built.warmup_steps = built.r_steps = built.d_steps = 0
        built.running_mean.fill_(-100), built.running_std.fill_(0.01)
    x = inputs(layer, seed=3)[0][:3].requires_grad_()
    x = (x[..., :3, :3] if x.dim() == 4 else x).detach().requires_grad_()
    f, values = as_function(built)
    # Of the many weights of deep recurrent layers along a random direction, of all others one by one.
    fast = layer.endswith("deep")
    assert torch.autograd.gradcheck(f, (x, *values), fast_mode=fast)
    if not layer.startswith("weight norm"):  # whose second derivative is wrong in torch, where dim is 0
        assert torch.autograd.gradgradcheck(f, (x, *values), fast_mode=fast)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name in PLACED or name.endswith(("1d", "3d"))])
def test_a_layer_in_two_places_under_create_graph(layer):
    """Its second input depends on its own parameters: no path of the gradient may count twice."""
    (x,) = inputs(layer)
    if not list(build(layer).parameters()):
        return

    def gradients(create_graph):
        built = build(layer)  # anew: its statistics move
        parameters = list(built.parameters())
        total = built((built(x) * x).sin()).square().sum()
        options = {"create_graph": create_graph, "allow_unused": True}
        return [g for g in torch.autograd.grad(total, parameters, **options) if g is not None]

    same(gradients(True), gradients(False), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer", LAYERS)
def test_create_graph_of_a_first_and_of_a_frozen_layer(layer):
    built, (x,) = build(layer), inputs(layer)
    frozen, free = list(built.parameters())[:1], list(built.parameters())[1:]
    for parameter in frozen:
        parameter.requires_grad_(False)
    if free:  # the input needs no gradient
        gradients = torch.autograd.grad(built(x).sin().sum(), free, create_graph=True, allow_unused=True)
        assert any(g is not None for g in gradients)
    again = torch.autograd.grad(built(x.requires_grad_()).sin().sum(), x, create_graph=True)[0]
    assert torch.isfinite(again).all()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("layer", ["renorm, no affine", "l1", "l1, no affine", "mean_only"])
def test_float16_of_any_size(layer, size):
    """The square of a deviation has a value in float32 where it has none in float16."""
    low, high = (build(layer, dtype=torch.float32) for _ in range(2))
    low.half()
    x = (inputs(layer, dtype=torch.float32)[0] * size).half()
    for mode in (True, False):
        y, z = low.train(mode)(x).float(), high.train(mode)(x.float())
        assert torch.isfinite(y).all()
        same(y, z, rtol=0.02, atol=0.02 * z.abs().max().item())


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_vmap_equals_a_loop(layer, mode):
    """A population of stacked members: outputs, gradients and statistics of each as if it were alone."""
    members = [build(layer, seed=i).train(mode) for i in range(3)]
    base = copy.deepcopy(members[0])
    parameters, buffers = stack_module_state(members)
    xs = torch.stack([inputs(layer, seed=i)[0] for i in range(3)]).requires_grad_()

    def run():
        return vmap(lambda p, b, x: functional_call(base, (p, b), (x,)))(parameters, buffers, xs)

    ys = refused(layer, "vmap", run) if mode else run()
    if ys is None:
        return
    ys.sin().sum().backward()
    for i, member in enumerate(members):
        x = xs[i].detach().requires_grad_()
        y = member(x)
        y.sin().sum().backward()
        same(ys[i], y, rtol=1e-9, atol=1e-9)
        same(xs.grad[i], x.grad, rtol=1e-9, atol=1e-9)
        for name, parameter in member.named_parameters():
            if parameter.grad is not None:  # else, of a domain that is not the active one
                same(parameters[name].grad[i], parameter.grad, rtol=1e-9, atol=1e-9)
        for name, buffer in member.named_buffers():
            same(buffers[name][i], buffer, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer", ["NormPropLinear", "NormPropConv2d", "CosineLinear", "CosineConv2d"])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e3])
def test_the_length_of_the_weights_has_no_effect_in_half_precision(layer, size):
    built, (x,) = build(layer, dtype=torch.float32), inputs(layer, dtype=torch.float32)
    expected = built(x)
    with torch.no_grad():
        built.weight.mul_(size)
        built.weight[1] = 0
    y = built.half()(x.half())
    assert torch.isfinite(y).all()
    others = [0, 2, 3]
    same(y.float()[:, others], expected[:, others], rtol=0.02, atol=0.02)


# ---- compilers -------------------------------------------------------------------------------------


@pytest.mark.slow  # a second each
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_compile(layer, mode):
    """One graph, and in training by the whole compiler, C++ included, which is slow: outputs, gradients and
    statistics over three steps.
    """
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    torch.compiler.reset()
    alone = build(layer).train(mode)
    twin = copy.deepcopy(alone)
    compiled = torch.compile(twin, fullgraph=True, backend="inductor" if mode else "aot_eager")
    for i, x in enumerate(inputs(layer, steps=3)):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y = refused(layer, "fullgraph", lambda a=a: compiled(a))
        if y is None:
            return
        z = alone(b)
        y.sin().sum().backward(), z.sin().sum().backward()
        same([y, a.grad], [z, b.grad], rtol=1e-7, atol=1e-7)
        assert i == 0 or len(alone.state_dict()) == len(twin.state_dict())
    same(twin.state_dict(), alone.state_dict(), rtol=1e-7, atol=1e-7)


@pytest.mark.slow  # a second each
@pytest.mark.parametrize("layer", LAYERS)
def test_export_of_evaluation(layer):
    built, (x,) = trained(layer).eval(), inputs(layer, seed=1)
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(built, (x,), dynamic_shapes=shapes)
    for n in (6, 3):
        same(program.module()(x[:n]), built(x[:n]))
