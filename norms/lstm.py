"""LSTMs with normalisation inside: Laurent et al., arXiv 1510.01378 (Table 8 of the survey), Cooijmans et
al., arXiv 1603.09025, and Ba et al., arXiv 1607.06450. Each is called as nn.LSTM is.

Frames are kept time-major and without padding, as PackedSequence has them: [frames, features], step t holding
the first sizes[t] sequences, the longest first. What does not depend on the recurrence is done for all steps
at once; the recurrence itself is `_Recurrence`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from norms.checks import check_options
from norms.moments import inside_func
from norms.twice import differentiable_gradients

# ---- the recurrence ---------------------------------------------------------------------------------------


class _How(NamedTuple):
    norm: str | None  # of the recurrent part and of the cell: "batch", "layer" or none
    eps: float
    sizes: list[int]  # sequences alive at each step, never rising
    fresh: int  # "batch": the first `fresh` steps take their own statistics, the others given ones
    reverse: bool

    @property
    def order(self) -> range:
        steps = range(len(self.sizes))
        return steps[::-1] if self.reverse else steps


def _fit(state: Tensor, n: int, initial: Tensor, done: list[Tensor]) -> Tensor:
    """`state` [m, H] for the n sequences of the next step: some have ended, or some begin."""
    m = state.shape[0]
    if n < m:
        done.append(state[n:])
        return state[:n]
    return state if n == m else torch.cat([state, initial[m:n]])


def _plain(
    how: _How,
    h0: Tensor,
    c0: Tensor,
    weight: Tensor,
    gamma_h: Tensor | None,
    gamma_c: Tensor | None,
    beta_c: Tensor | None,
    given: tuple[Tensor, ...],
    *zs: Tensor,
) -> tuple[Tensor, ...]:
    """The recurrence in plain operations: what `_Recurrence` computes, for torch.func and second derivatives.

        (i, f, g, o) = z_t + N_h(W h),  c' = s(f) c + s(i) tanh(g),  h' = s(o) tanh(N_c(c'))

    z_t comes in blocks [steps, sequences, 4H]. Returns h' of all frames, the last h and c of each sequence
    and, for "batch", mean and variance (1/n) of W h and of c at each of the first `fresh` steps.
    """

    def normalised(a: Tensor, gamma: Any, beta: Tensor | None, t: int, which: int) -> Tensor:
        if how.norm is None:
            return a
        if how.norm == "layer":
            return F.layer_norm(a, a.shape[1:], gamma, beta, how.eps).to(a.dtype)
        if t < how.fresh:
            mean = a.mean(0)
            var = (a - mean).square().mean(0)
            stats[which].append(mean)
            stats[which + 1].append(var)
        else:
            mean, var = given[which][t], given[which + 1][t]
        y = (a - mean) * (var + how.eps).rsqrt() * gamma
        return (y if beta is None else y + beta).to(a.dtype)

    zt = [z for block in zs for z in block.unbind(0)]
    outs = list(zt)
    done_h: list[Tensor] = []
    done_c: list[Tensor] = []
    stats: list[list[Tensor]] = [[], [], [], []]
    h, c = (s[: how.sizes[how.order[0]]] for s in (h0, c0))
    for t in how.order:
        n = how.sizes[t]
        h, c = _fit(h, n, h0, done_h), _fit(c, n, c0, done_c)
        i, f, g, o = (zt[t] + normalised(F.linear(h, weight), gamma_h, None, t, 0)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = outs[t] = o.sigmoid() * normalised(c, gamma_c, beta_c, t, 2).tanh()
    states = torch.cat([h, *done_h[::-1]]), torch.cat([c, *done_c[::-1]])
    # Walked backwards, the statistics come last step first.
    kept = [torch.stack(s[::-1] if how.reverse else s).detach() for s in stats if s]
    return torch.cat(outs), *states, *kept


class _Recurrence(torch.autograd.Function):
    """`_plain` with its backward pass written out.

    nn.LSTM's own kernel cannot take z: it would need W_x = 1, [4H, 4H], a GEMM four times the recurrent one
    (measured: twice the time of this one at H = 200). As plain operations, autograd's book-keeping costs more
    than a step's arithmetic, and the gradient of W takes a GEMM a step. Here, what in the backward pass
    depends on the forward pass alone is computed for all steps at once, and so is the gradient of W.
    """

    @staticmethod
    def forward(ctx: Any, how: _How, *inputs: Any) -> tuple[Tensor, ...]:
        h0, c0, weight, gamma_h, gamma_c, beta_c, given, *zs = inputs
        sizes, width = how.sizes, h0.shape[1]
        frames = sum(sizes)
        gates = h0.new_empty(frames, 4, width)
        cs, tanhs, out = (h0.new_empty(frames, width) for _ in range(3))
        recurrent = h0.new_empty(frames, 4 * width) if how.norm else None

        def per_step(flat: Tensor | None) -> Sequence[Any]:
            return [None] * len(sizes) if flat is None else flat.split(sizes)

        steps = list(
            zip(
                sizes,
                [z for block in zs for z in block.unbind(0)],
                per_step(gates.flatten(1)),
                per_step(gates[:, :2]),
                *(per_step(gates[:, k]) for k in range(4)),
                *(per_step(flat) for flat in (cs, tanhs, out, recurrent)),
                strict=True,
            )
        )
        norm = _StepNorm(how, given)
        transposed = weight.t()
        done_h: list[Tensor] = []
        done_c: list[Tensor] = []
        h, c = (s[: sizes[how.order[0]]] for s in (h0, c0))
        for t in how.order:
            n, z, gate, i_f, i, f, g, o, ct, tc, ht, a = steps[t]
            h, c = _fit(h, n, h0, done_h), _fit(c, n, c0, done_c)
            if a is None:
                torch.addmm(z, h, transposed, out=gate)
            else:
                torch.mm(h, transposed, out=a)
                torch.add(z, norm.forward(a, gamma_h, None, t, 0), out=gate)
            i_f.sigmoid_(), g.tanh_(), o.sigmoid_()
            torch.mul(f, c, out=ct).addcmul_(i, g)
            torch.tanh(ct if a is None else norm.forward(ct, gamma_c, beta_c, t, 2), out=tc)
            torch.mul(o, tc, out=ht)
            h, c = ht, ct
        # Copies, too, if nothing was done before the end: no output may be a view of another.
        hn, cn = torch.cat([h, *done_h[::-1]]), torch.cat([c, *done_c[::-1]])
        saved = norm.collected()
        ctx.how, ctx.given = how, len(given)
        ctx.save_for_backward(
            h0, c0, weight, gamma_h, gamma_c, beta_c, *given, *zs, gates, cs, tanhs, out, recurrent, *saved
        )
        ctx.blocks = len(zs)
        stats = norm.statistics(saved)
        ctx.mark_non_differentiable(*stats)
        return out, hn, cn, *stats

    @staticmethod
    def backward(ctx: Any, dout: Tensor, dhn: Tensor, dcn: Tensor, *_: Any) -> tuple[Any, ...]:
        how = ctx.how
        h0, c0, weight, gamma_h, gamma_c, beta_c, *rest = ctx.saved_tensors
        given, zs = tuple(rest[: ctx.given]), rest[ctx.given : ctx.given + ctx.blocks]
        if torch.is_grad_enabled():  # the result is to be differentiated
            inputs = h0, c0, weight, gamma_h, gamma_c, beta_c, given, *zs
            return None, *differentiable_gradients(
                lambda *inputs: _plain(how, *inputs)[:3], inputs, ctx.needs_input_grad[1:], (dout, dhn, dcn)
            )
        gates, cs, tanhs, out, recurrent, *saved = rest[ctx.given + ctx.blocks :]
        sizes = how.sizes
        i, f, g, o = gates.unbind(1)
        # Of all steps at once: d h / d N_c(c), and the derivatives of c by i, f, g and of h by o.
        slope = tanhs.square().neg_().add_(1).mul_(o)
        local = torch.empty_like(gates)
        torch.mul(1 - i, i, out=local[:, 0]).mul_(g)
        torch.mul(1 - f, f, out=local[:, 1]).mul_(_before(c0, cs, how))
        torch.mul(1 - g.square(), i, out=local[:, 2])
        torch.mul(1 - o, o, out=local[:, 3]).mul_(tanhs)
        # `local` turns into the gradient of z, step by step.
        steps = list(
            zip(
                sizes,
                *(
                    flat.split(sizes)
                    for flat in (dout, slope, f, local[:, :3], local[:, 3], local.flatten(1))
                ),
                *(() if recurrent is None else (cs.split(sizes), recurrent.split(sizes))),
                strict=True,
            )
        )
        dz = local.flatten(1)
        da = dz if recurrent is None else torch.empty_like(dz)
        das = da.split(sizes)
        norm = _StepNorm(how, given, saved)
        done_h: list[Tensor] = []
        done_c: list[Tensor] = []
        dgamma_h = dgamma_c = dbeta_c = None
        dh, dc = (s[: sizes[how.order[-1]]] for s in (dhn, dcn))
        for t in how.order[::-1]:
            n, dy, by_c, forget, ifg, output, gate, *normalised = steps[t]
            dh, dc = _fit(dh, n, dhn, done_h), _fit(dc, n, dcn, done_c)
            dh = dh + dy
            if normalised:
                ct, a = normalised
                dcell, d_gamma, d_beta = norm.backward(dh * by_c, ct, gamma_c, beta_c, t, 2)
                dc = dc + dcell
                dgamma_c, dbeta_c = _sum(dgamma_c, d_gamma), _sum(dbeta_c, d_beta)
            else:
                dc = torch.addcmul(dc, dh, by_c)
            ifg.mul_(dc[:, None])
            output.mul_(dh)
            dc = dc * forget
            if normalised:
                step, d_gamma, _unused = norm.backward(gate, a, gamma_h, None, t, 0)
                dgamma_h = _sum(dgamma_h, d_gamma)
                das[t].copy_(step)
            dh = das[t] @ weight
        dh0, dc0 = torch.cat([dh, *done_h[::-1]]), torch.cat([dc, *done_c[::-1]])
        dweight = da.t() @ _before(h0, out, how)
        blocks = (
            part.view(z.shape)
            for part, z in zip(dz.split([z.shape[0] * z.shape[1] for z in zs]), zs, strict=True)
        )
        return None, dh0, dc0, dweight, dgamma_h, dgamma_c, dbeta_c, None, *blocks


def _variance(inv: Tensor, eps: float) -> Tensor:
    """From inv = 1 / sqrt(variance + eps), which is what the native kernel returns."""
    return (inv**-2 - eps).clamp(min=0)


def _sum(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total.add_(term)


def _before(initial: Tensor, flat: Tensor, how: _How) -> Tensor:
    """Of the states `flat` [frames, H] after each step, those before it."""
    sizes, states = how.sizes, flat.split(how.sizes)
    if not how.reverse:
        return torch.cat([initial[: sizes[0]], *(s[:n] for s, n in zip(states, sizes[1:], strict=False))])
    parts = [initial[: sizes[-1]]]
    for t in range(len(sizes) - 1, 0, -1):
        parts += [initial[sizes[t] : sizes[t - 1]], states[t]]
    return torch.cat(parts[::-1])


class _StepNorm:
    """Native kernels for the normalisation of one step, and what their backward passes need.

    `which` is 0 for W h, 2 for c. Of a step with given statistics, those are kept; else what the kernel
    saves.
    """

    def __init__(self, how: _How, given: tuple[Tensor, ...], saved: Sequence[Tensor] = ()) -> None:
        self.how, self.given = how, given
        self.lists: list[list[Any]] = [[None] * len(how.sizes) for _ in range(4)]
        if saved:
            self.lists = [list(s.split(how.sizes) if how.norm == "layer" else s.unbind(0)) for s in saved]

    def forward(self, a: Tensor, gamma: Tensor, beta: Tensor | None, t: int, which: int) -> Tensor:
        eps, mean, var = self.how.eps, self.lists[which], self.lists[which + 1]
        if self.how.norm == "layer":
            y, mean[t], var[t] = torch.native_layer_norm(a, a.shape[1:], gamma, beta, eps)
        elif t < self.how.fresh:
            y, mean[t], var[t] = torch.native_batch_norm(a, gamma, beta, None, None, True, 0.0, eps)
        else:
            mean[t], var[t] = self.given[which][t], self.given[which + 1][t]
            y = F.batch_norm(a, mean[t], var[t], gamma, beta, False, 0.0, eps)
        return y

    def backward(
        self, dy: Tensor, a: Tensor, gamma: Tensor, beta: Tensor | None, t: int, which: int
    ) -> tuple[Tensor, ...]:
        """Gradients by a, gamma and, where there is one, beta."""
        how, aten, mask = self.how, torch.ops.aten, [True, True, beta is not None]
        first, second = self.lists[which][t], self.lists[which + 1][t]
        if how.norm == "layer":
            return aten.native_layer_norm_backward(dy, a, a.shape[1:], first, second, gamma, beta, mask)
        fresh = t < how.fresh
        stats = (None, None, first, second) if fresh else (first, second, None, None)
        return aten.native_batch_norm_backward(dy, a, gamma, *stats, fresh, how.eps, mask)

    def collected(self) -> list[Tensor]:
        """What `backward` needs, as four tensors."""
        if self.how.norm is None:
            return []
        return [(torch.cat if self.how.norm == "layer" else torch.stack)(part) for part in self.lists]

    def statistics(self, saved: list[Tensor]) -> list[Tensor]:
        """Mean and variance (1/n) of W h and of c at the steps that took their own."""
        if self.how.norm != "batch" or not self.how.fresh:
            return []
        mean_h, inv_h, mean_c, inv_c = (s[: self.how.fresh].clone() for s in saved)
        return [mean_h, _variance(inv_h, self.how.eps), mean_c, _variance(inv_c, self.how.eps)]


# ---- the layers -------------------------------------------------------------------------------------------


class _NormLSTM(nn.RNNBase):
    """nn.LSTM's interface, with parameters and running statistics of the normalisation beside its weights."""

    # Of the parameters beside nn.LSTM's own; empty until the constructor has set it.
    _initial: Mapping[str, float] = MappingProxyType({})

    num_batches_tracked: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        eps: float,
        momentum: float | None = 0.1,
        max_length: int | None = None,
        initial: Mapping[str, float] | None = None,
        averaged: Sequence[str] = (),
        norm: str | None = None,
    ) -> None:
        """With `initial` (name: value) of the parameters beside nn.LSTM's weights, instead of its biases.

        Running statistics are kept of what `averaged` names, W_x x ("ih"), W_h h ("hh"), the cell ("c"), for
        `max_length` steps or, with None, for all steps together. `norm` is that of W_h h and the cell.
        """
        check_options(eps=eps, momentum=0.1 if momentum is None else momentum)
        if max_length is not None and not (type(max_length) is int and max_length > 0):
            raise ValueError(f"max_length={max_length!r}: give the number of time steps (1 or more)")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        # What is no bool, nn.RNNBase refuses.
        biases = bias and initial is None if isinstance(bias, bool) else bias
        options = num_layers, biases, batch_first, dropout, bidirectional
        super().__init__("LSTM", input_size, hidden_size, *options, **factory)
        self.bias, self.eps, self.momentum, self.max_length = bias, eps, momentum, max_length
        self._initial, self._norm = initial or {}, norm
        steps = () if max_length is None else (max_length,)
        for suffix in self._suffixes():
            for name in self._initial:
                parameter = nn.Parameter(torch.empty(self._width(name), **factory))
                self.register_parameter(name + suffix, parameter if bias or name != "bias" else None)
            for name in averaged:
                for kind in ("running_mean_", "running_var_"):
                    self.register_buffer(
                        kind + name + suffix, torch.empty(*steps, self._width(name), **factory)
                    )
        if averaged:
            self.register_buffer("num_batches_tracked", torch.zeros(steps, dtype=torch.long, device=device))
        self._reset_normalisation()

    def _width(self, name: str) -> int:
        return self.hidden_size * (1 if name.endswith("c") else 4)

    def _suffixes(self) -> list[str]:
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{layer}{end}" for layer in range(self.num_layers) for end in ends]

    def flatten_parameters(self) -> None:
        """Nothing to do: no cuDNN kernel runs here."""

    def reset_running_stats(self) -> None:
        """Averages back to mean 0 and variance 1."""
        for name, buffer in self.named_buffers():
            buffer.fill_(1 if name.startswith("running_var") else 0)

    def reset_parameters(self) -> None:
        """As `reset_running_stats`; weights as nn.LSTM's; gamma, beta and b to their initial values."""
        super().reset_parameters()
        self._reset_normalisation()

    def _reset_normalisation(self) -> None:
        for suffix, (name, value) in itertools.product(self._suffixes(), self._initial.items()):
            if (parameter := getattr(self, name + suffix)) is not None:
                nn.init.constant_(parameter, value)
        self.reset_running_stats()

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        if torch.compiler.is_compiling():
            # The graph breaks here, as it does for nn.LSTM: else all steps would be unrolled.
            return torch.compiler.disable(self._forward)(input, hx)
        return self._forward(input, hx)

    def _forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        if hx is not None and len(hx) != 2:
            raise ValueError(f"LSTM: expected the states as (h_0, c_0), got {len(hx)} of them")
        if isinstance(input, PackedSequence):
            x, batch_sizes, sorted_indices, unsorted_indices = input
            self.check_input(x, batch_sizes)
            if (batch_sizes[1:] > batch_sizes[:-1]).any() or batch_sizes[-1] < 1:
                raise RuntimeError(
                    "batch_sizes of a PackedSequence must be above 0 and not rise, the longest sequence first"
                    f" (got {batch_sizes.tolist()})"
                )
            states = self._states(x, batch_sizes, hx)
            if sorted_indices is not None:
                states = [s.index_select(1, sorted_indices) for s in states]
            out, *states = self._layers(x, batch_sizes.tolist(), *states)
            if unsorted_indices is not None:
                states = [s.index_select(1, unsorted_indices) for s in states]
            return PackedSequence(out, batch_sizes, sorted_indices, unsorted_indices), (states[0], states[1])
        if input.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched, batch_dim = input.dim() == 3, 0 if self.batch_first else 1
        if hx is not None and any(s.dim() != input.dim() for s in hx):
            raise RuntimeError(
                f"For {'' if batched else 'un'}batched {input.dim()}-D input, hx and cx should also be"
                f" {input.dim()}-D but got ({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )
        x = input if batched else input.unsqueeze(batch_dim)
        hx = hx if batched or hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        self.check_input(x, None)
        states = self._states(x, None, hx)
        x = x.transpose(0, 1) if self.batch_first else x
        steps, size, _ = x.shape
        if steps == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        out, hn, cn = self._layers(x.flatten(0, 1), [size] * steps, *states)
        out = out.view(steps, size, out.shape[1])
        out = out.transpose(0, 1) if self.batch_first else out
        return (out, (hn, cn)) if batched else (out.squeeze(batch_dim), (hn.squeeze(1), cn.squeeze(1)))

    def _states(
        self, x: Tensor, batch_sizes: Tensor | None, hx: tuple[Tensor, Tensor] | None
    ) -> Sequence[Tensor]:
        expected = self.get_expected_hidden_size(x, batch_sizes)
        if hx is None:
            return x.new_zeros(expected), x.new_zeros(expected)
        for k, state in enumerate(hx):
            self.check_hidden_size(state, expected, f"Expected hidden[{k}] size {{}}, got {{}}")
        return hx

    def _layers(self, x: Tensor, sizes: list[int], h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fresh = self._fresh(sizes)
        states = iter(zip(self._suffixes(), h0.unbind(0), c0.unbind(0), strict=True))
        hn, cn = [], []
        for layer in range(self.num_layers):
            outs = []
            for suffix, h, c in itertools.islice(states, 2 if self.bidirectional else 1):
                z = self._project(x, sizes, fresh, suffix)
                out, h, c = self._recur(z, sizes, fresh, suffix, h, c)
                outs.append(out)
                hn.append(h)
                cn.append(c)
            x = torch.cat(outs, 1) if self.bidirectional else outs[0]
            if self.training and self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout)
        if fresh:  # all layers have averaged with the same counts; only now they rise
            with torch.no_grad():
                counts = self.num_batches_tracked
                (counts if counts.dim() == 0 else counts[:fresh]).add_(1)
        return x, torch.stack(hn), torch.stack(cn)

    def _fresh(self, sizes: list[int]) -> int:
        """How many steps, from the first on, are normalised with the statistics of this batch."""
        return 0

    def _project(self, x: Tensor, sizes: list[int], fresh: int, suffix: str) -> list[Tensor]:
        """What of the gates no state enters, z, in blocks [steps, sequences, 4H]. Here as in nn.LSTM."""
        bias = getattr(self, "bias_ih" + suffix) + getattr(self, "bias_hh" + suffix) if self.bias else None
        return _blocks(F.linear(x, getattr(self, "weight_ih" + suffix), bias), sizes)

    def _recur(
        self, z: list[Tensor], sizes: list[int], fresh: int, suffix: str, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        names = "gamma_hh", "gamma_c", "beta_c"
        parameters = [getattr(self, name + suffix) if self._norm else None for name in names]
        given: tuple[Tensor, ...] = ()
        if self._norm == "batch" and fresh < len(sizes):
            given = *self._given("hh" + suffix, len(sizes)), *self._given("c" + suffix, len(sizes))
        how = _How(self._norm, self.eps, sizes, fresh, suffix.endswith("_reverse"))
        kind = z[0].dtype  # under autocast, that of the projection
        weight = getattr(self, "weight_hh" + suffix).to(kind)
        # An empty batch too: native_batch_norm_backward kills the process (torch 2.14, SIGFPE).
        plain = inside_func() or torch.compiler.is_exporting() or not sizes[0]
        recurrence: Any = _plain if plain else _Recurrence.apply
        out, h, c, *statistics = recurrence(how, h.to(kind), c.to(kind), weight, *parameters, given, *z)
        if statistics:
            mean_h, var_h, mean_c, var_c = statistics
            self._average("hh" + suffix, mean_h, var_h, sizes)
            self._average("c" + suffix, mean_c, var_c, sizes)
        return out, h, c

    def _given(self, name: str, steps: int) -> tuple[Tensor, Tensor]:
        """Running mean and variance for each of `steps` steps; beyond the trained ones, the last of those."""
        mean, var = getattr(self, "running_mean_" + name), getattr(self, "running_var_" + name)
        counts = self.num_batches_tracked
        if counts.dim() == 0:
            return mean[None], var[None]
        last = (counts > 0).sum().clamp(min=1) - 1
        index = torch.minimum(torch.arange(steps, device=counts.device), last)
        return mean.index_select(0, index), var.index_select(0, index)

    @torch.no_grad()
    def _average(self, name: str, mean: Tensor, var: Tensor, sizes: Sequence[int]) -> None:
        """Running statistics take in mean and variance (1/n) of each step; sizes[t] is n."""
        counts = self.num_batches_tracked
        steps = mean.shape[0] if counts.dim() == 0 else min(mean.shape[0], counts.shape[0])
        n = mean.new_tensor(sizes[:steps])[:, None]
        for kind, value in (("running_mean_", mean[:steps]), ("running_var_", var[:steps] * (n / (n - 1)))):
            running = getattr(self, kind + name)
            running = running[None] if counts.dim() == 0 else running[:steps]
            weight: Any = self.momentum
            if weight is None:
                weight = 1 / (counts.reshape(-1, 1)[:steps] + 1).to(running.dtype)
            running.copy_(torch.lerp(running, value.to(running.dtype), weight))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}"


def _runs(sizes: list[int]) -> list[tuple[int, int]]:
    """Pairs (n, k): k steps on end have n sequences each."""
    return [(n, len(list(steps))) for n, steps in itertools.groupby(sizes)]


def _blocks(flat: Tensor, sizes: list[int]) -> list[Tensor]:
    """Frames [frames, ...] as blocks [steps, sequences, ...]."""
    runs = _runs(sizes)
    return [
        part.unflatten(0, (k, n))
        for (n, k), part in zip(runs, flat.split([n * k for n, k in runs]), strict=True)
    ]


class _BatchLSTM(_NormLSTM):
    """With batch statistics of W_x x, of all steps at once."""

    mixture = False  # of running and own statistics, in evaluation

    def _fresh(self, sizes: list[int]) -> int:
        if not self.training:
            return 0
        n = sizes[0] if self.max_length is not None else sum(sizes)
        if n == 1:
            size = torch.Size([1, 4 * self.hidden_size])  # in torch's words
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")
        if self.max_length is None:
            return len(sizes) if n else 0
        return sum(n > 1 for n in sizes)

    def _project(self, x: Tensor, sizes: list[int], fresh: int, suffix: str) -> list[Tensor]:
        weight, gamma = getattr(self, "weight_ih" + suffix), getattr(self, "gamma_ih" + suffix)
        beta, width = getattr(self, "bias" + suffix), gamma.shape[0]
        # One pair of statistics for all frames is that of a single step with all of them.
        steps = sizes if self.max_length is not None else [x.shape[0]]
        if fresh < len(steps):
            given = self._given("ih" + suffix, len(steps))
        zs, means, variances, t = [], [], [], 0
        for block in _blocks(x, steps):
            # With the sequences outside, the projection is [n, k * 4H] without a copy: k steps side by side
            # as channels, all normalised by one call of the native kernel. It costs less to reorder x than z.
            k, n, _ = block.shape
            z = F.linear(block.transpose(0, 1).flatten(0, 1), weight).view(n, k * width)
            affine = gamma.repeat(k), None if beta is None else beta.repeat(k)
            if t < fresh:
                z, mean, inv = torch.native_batch_norm(z, *affine, None, None, True, 0.0, self.eps)
                means.append(mean.detach().view(k, width))
                variances.append(_variance(inv.detach(), self.eps).view(k, width))
            else:
                mean, var = (s[t : t + k].flatten() for s in given)
                if self.mixture and not self.training and n > 1:
                    z = self._mixed(z, mean, var, *affine)
                else:
                    z = F.batch_norm(z, mean, var, *affine, False, 0.0, self.eps)
            zs.append(z.view(n, k, width).transpose(0, 1))
            t += k
        if means:
            self._average("ih" + suffix, torch.cat(means), torch.cat(variances), steps)
        return zs if self.max_length is not None else _blocks(zs[0].flatten(0, 1), sizes)

    def _mixed(self, z: Tensor, mean: Tensor, var: Tensor, gamma: Tensor, beta: Tensor | None) -> Tensor:
        """Normalise with a mixture of these statistics and z's own, through which the gradient passes."""
        weight: Any = self.momentum
        own = z.mean(0)
        own_var = (z - own).square().mean(0)
        mean = torch.lerp(mean, own.to(mean.dtype), weight)
        var = torch.lerp(var, own_var.to(var.dtype), weight)
        y = (z - mean) * (gamma * (var + self.eps).rsqrt())
        return (y if beta is None else y + beta).to(z.dtype)


class BatchNormLSTM(_BatchLSTM):
    r"""LSTM with batch normalisation of its input part (Laurent et al., arXiv 1510.01378), called as nn.LSTM
    is.

    .. math::
        \begin{aligned}
        (i, f, g, o) &= W_h h_{t-1} + \mathrm{BN}(W_x x_t; \gamma, \beta) \\
        c_t &= \sigma(f) \, c_{t-1} + \sigma(i) \tanh(g), \qquad h_t = \sigma(o) \tanh(c_t)
        \end{aligned}

    The recurrent part is not normalised: the paper found that this does not help. :math:`\gamma` and
    :math:`\beta` are shared over time, initially 1 and 0; :math:`\beta` takes the place of the biases. Input
    of each further layer, which is normalised too, is the output of the layer below.

    ``statistics``
        * "frame" (default): mean and variance over the sequences of the batch, for each time step apart, as a
          model that predicts what comes next needs them. There are running statistics per step, up to
          `max_length`; evaluation takes those of the last trained step for the steps beyond it, and a step
          beyond `max_length` is normalised in training but not averaged.
        * "sequence": one mean and variance over all frames. At each step the output then depends on later
          input.

        Frames of padding (of a PackedSequence) never count. In "frame", where of a packed batch a single
        sequence goes on alone, the running statistics (of before this batch) stand in for those of its
        steps, which would leave nothing but :math:`\beta`, and they are not updated. A batch of a single
        sequence (in "sequence", of a single frame) is refused in training, as nn.BatchNorm refuses it.

    ``evaluation``
        * "running" (default): with the running statistics, as nn.BatchNorm.
        * "mixture": with (1 - momentum) running + momentum (batch) statistics, mean and variance (1/n) each;
          nothing is stored. With ``momentum=0.9``, this is how the authors' code evaluates its language
          models: nine tenths are the statistics of the evaluation batch. (That code averages and mixes
          standard deviations, has eps 1e-6, and stores as it evaluates.)

    The backward direction of a bidirectional layer has its own statistics; its time steps are counted from
    the beginning as well.

    Weights have nn.LSTM's names and initial values. ``layer.load_state_dict(lstm.state_dict(),
    strict=False)`` takes them over from an nn.LSTM and leaves its biases out (a start for ``bias_l0``, were
    W_x x normalised already: ``bias_ih_l0 + bias_hh_l0``). With ``normalize=False`` the layer is nn.LSTM,
    computed by the recurrence of this one: same parameters, and a state_dict that goes both ways.

    Under activation checkpointing the forward pass runs twice, and averages what it sees twice; of a packed
    batch with single sequences left, the second pass meets other running statistics, so that gradients are a
    little off.

    Gradients are those of a backward pass written out by hand; under torch.func (stacked populations with
    ``vmap(functional_call)``, which nn.LSTM does not have) and for second derivatives, the recurrence runs in
    plain operations. Under torch.compile the graph breaks here, as it does for nn.LSTM. Unlike nn.LSTM, it
    has no projections (``proj_size``), and a bidirectional layer runs its directions one after the other.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as for nn.LSTM;
            bias=False is without :math:`\beta`.
        statistics: "frame" or "sequence".
        evaluation: "running" or "mixture".
        eps: epsilon of the normalisation.
        momentum: weight of a batch in the running statistics, as in nn.BatchNorm; None: their plain average.
        max_length: of how many time steps there are running statistics ("frame" only).
        normalize: False for nn.LSTM itself.
        device, dtype: of parameters and buffers.

    Shape:
        Input, output and states as nn.LSTM: [T, B, input_size], [T, input_size], with `batch_first`
        [B, T, input_size], or a PackedSequence.

    Parameters, for layer k (and ``_reverse``):
        weight_ih_l{k} [4H, input], weight_hh_l{k} [4H, H], gamma_ih_l{k} [4H] and, for beta, bias_l{k} [4H];
        gates in the order i, f, g, o.

    Buffers:
        running_mean_ih_l{k}, running_var_ih_l{k} [max_length, 4H], for "sequence" [4H]; num_batches_tracked
        [max_length] or 0-d. The variance stored is over n - 1, as in nn.BatchNorm.

    Raises:
        ValueError: a bad option; one value per channel in training.
        ValueError, RuntimeError: input or states of a wrong size, in nn.LSTM's words.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        statistics: str = "frame",
        evaluation: str = "running",
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        max_length: int = 100,
        normalize: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if statistics not in ("frame", "sequence"):
            raise ValueError(f"statistics={statistics!r}: choose one of frame, sequence")
        if evaluation not in ("running", "mixture"):
            raise ValueError(f"evaluation={evaluation!r}: choose one of running, mixture")
        if evaluation == "mixture" and momentum is None:
            raise ValueError("momentum=None: give a number, the weight of the batch in the mixture")
        options = num_layers, bias, batch_first, dropout, bidirectional, device, dtype, eps, momentum
        length = max_length if statistics == "frame" else None
        if normalize:
            super().__init__(
                input_size, hidden_size, *options, length, {"gamma_ih": 1.0, "bias": 0.0}, ("ih",)
            )
        else:
            super().__init__(input_size, hidden_size, *options)
        self.statistics, self.evaluation, self.normalize = statistics, evaluation, normalize
        self.mixture = evaluation == "mixture"

    def _fresh(self, sizes: list[int]) -> int:
        return super()._fresh(sizes) if self.normalize else 0

    def _project(self, x: Tensor, sizes: list[int], fresh: int, suffix: str) -> list[Tensor]:
        # Without normalisation, past _BatchLSTM to what nn.LSTM does.
        project = super()._project if self.normalize else super(_BatchLSTM, self)._project
        return project(x, sizes, fresh, suffix)

    def extra_repr(self) -> str:
        keys = ("statistics", "evaluation", "momentum", "max_length") if self.normalize else ()
        keys = *keys, "normalize"
        return ", ".join([super().extra_repr(), *(f"{key}={getattr(self, key)}" for key in keys)])


class RecurrentBatchNormLSTM(_BatchLSTM):
    r"""LSTM with batch normalisation of input part, recurrent part and cell (Cooijmans et al., arXiv
    1603.09025, eqs. 6-8, numbers from memory), called as nn.LSTM is.

    .. math::
        \begin{aligned}
        (f, i, o, g) &= \mathrm{BN}(W_h h_{t-1}; \gamma_h) + \mathrm{BN}(W_x x_t; \gamma_x) + b \\
        c_t &= \sigma(f) \, c_{t-1} + \sigma(i) \tanh(g) \\
        h_t &= \sigma(o) \tanh(\mathrm{BN}(c_t; \gamma_c, \beta_c))
        \end{aligned}

    with statistics over the sequences of the batch, for each time step apart; parameters are shared over
    time. The cell itself goes on unnormalised. Each :math:`\gamma` starts at 0.1: from 1, tanh would saturate
    and the gradient through time vanish.

    Time steps without running statistics, single sequences, packed batches, both directions, torch.func and
    torch.compile: as in `BatchNormLSTM` with ``statistics="frame"``.

    Where it differs from the paper: its gates come in the order i, f, g, o of nn.LSTM, whose initial weights
    it takes (the paper's are orthogonal, with the identity for W_h on MNIST); :math:`b` starts at 0 (the
    authors' code starts the forget gate's, ``bias_l0[H:2 * H]``, at 1); running variances are over n - 1, as
    in nn.BatchNorm (over n in the authors' code, with momentum 0.05). Where all sequences start from the same
    state, as from the default 0, :math:`W_h h_0` has no variance, and the gradient by the initial state is up
    to 1/sqrt(eps) larger than elsewhere: the paper starts from noise on MNIST.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as for nn.LSTM;
            bias=False is without :math:`b`.
        eps: epsilon of the normalisations.
        momentum: weight of a batch in the running statistics, as in nn.BatchNorm; None: their plain average.
        max_length: of how many time steps there are running statistics.
        device, dtype: of parameters and buffers.

    Shape:
        Input, output and states as nn.LSTM.

    Parameters, for layer k (and ``_reverse``):
        weight_ih_l{k} [4H, input], weight_hh_l{k} [4H, H], gamma_ih_l{k}, gamma_hh_l{k}, bias_l{k} [4H],
        gamma_c_l{k}, beta_c_l{k} [H].

    Buffers:
        running_mean_ih_l{k}, running_var_ih_l{k}, likewise hh [max_length, 4H] and c [max_length, H];
        num_batches_tracked [max_length].

    Raises:
        As `BatchNormLSTM`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        max_length: int = 100,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        options = num_layers, bias, batch_first, dropout, bidirectional, device, dtype, eps, momentum
        initial = {"gamma_ih": 0.1, "gamma_hh": 0.1, "gamma_c": 0.1, "beta_c": 0.0, "bias": 0.0}
        super().__init__(input_size, hidden_size, *options, max_length, initial, ("ih", "hh", "c"), "batch")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, momentum={self.momentum}, max_length={self.max_length}"


class LayerNormLSTM(_NormLSTM):
    r"""LSTM with layer normalisation (Ba et al., arXiv 1607.06450, eqs. 20-22), called as nn.LSTM is.

    .. math::
        \begin{aligned}
        (i, f, g, o) &= \mathrm{LN}(W_h h_{t-1}; \gamma_h) + \mathrm{LN}(W_x x_t; \gamma_x) + b \\
        c_t &= \sigma(f) \, c_{t-1} + \sigma(i) \tanh(g) \\
        h_t &= \sigma(o) \tanh(\mathrm{LN}(c_t; \gamma_c, \beta_c))
        \end{aligned}

    with mean and variance over the units, each frame alone: no batch, no state, training and evaluation the
    same. LN(W h) is over the 4H values of all gates together, as the formula is written (from memory; some
    other implementations normalise gate by gate). The paper has a beta in each of the first two LN beside b;
    as only their sum matters, there is b alone here. Parameters are shared over time; :math:`\gamma` starts
    at 1, b and :math:`\beta_c` at 0.

    torch.func, second derivatives and torch.compile: as in `BatchNormLSTM`.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as for nn.LSTM;
            bias=False is without b. With hidden_size 1 the cell's output would be beta_c alone.
        eps: epsilon of the normalisations.
        device, dtype: of the parameters.

    Shape:
        Input, output and states as nn.LSTM.

    Parameters, for layer k (and ``_reverse``):
        weight_ih_l{k} [4H, input], weight_hh_l{k} [4H, H], gamma_ih_l{k}, gamma_hh_l{k}, bias_l{k} [4H],
        gamma_c_l{k}, beta_c_l{k} [H].

    Raises:
        ValueError: a bad option.
        ValueError, RuntimeError: input or states of a wrong size, in nn.LSTM's words.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        options = num_layers, bias, batch_first, dropout, bidirectional, device, dtype, eps
        initial = {"gamma_ih": 1.0, "gamma_hh": 1.0, "gamma_c": 1.0, "beta_c": 0.0, "bias": 0.0}
        super().__init__(input_size, hidden_size, *options, initial=initial, norm="layer")

    def _project(self, x: Tensor, sizes: list[int], fresh: int, suffix: str) -> list[Tensor]:
        z = F.linear(x, getattr(self, "weight_ih" + suffix))
        gamma, bias = getattr(self, "gamma_ih" + suffix), getattr(self, "bias" + suffix)
        return _blocks(F.layer_norm(z, z.shape[1:], gamma, bias, self.eps), sizes)
