"""What the tables on images share: convolutional networks trained by SGD with momentum on whole-batch
distortions, evaluated several times an epoch.

A run is one network; nothing is stacked, since convolutions of several members become slow grouped ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from experiments.config import BadInput

PIECE = 50  # of 32x32 pictures, so many at a time are evaluated, of smaller ones more


class State:
    """All that training changes. Dropout draws from torch's generator, which the caller saves; distortions
    and the order of the data from seed and step.
    """

    def __init__(self, run: Any, data: Any, device: Any, build: Callable[[Any], Any]) -> None:
        """build: data -> the network for it."""
        import torch

        from experiments import measure
        from experiments.models.global_batch import spread
        from experiments.population import Population

        self.run, self.data, self.device = run, measure.to_device(data, device), device
        rows = len(data.y_train)
        self.steps_per_epoch = rows // run.batch_size  # the last, smaller batch is left out
        self.rounds = run.epochs * run.evaluations
        torch.manual_seed(run.seed)
        net = torch.nn.Sequential(self.input(data), build(data))
        net = net.to(device)
        self.forward = spread(net, run.batch_size)
        self.net = Population([net])
        weights = [p for n, p in self.net.named_parameters() if measure.is_weight(n)]
        rest = [p for n, p in self.net.named_parameters() if not measure.is_weight(n)]
        # l2 * sum w^2 in the loss is a gradient of 2 l2 w
        groups = [{"params": weights, "weight_decay": 2 * self.l2()}, {"params": rest}]
        options = {"fused": True if device.type == "cpu" else None, **run.optimizer.options}
        self.optimizer = getattr(torch.optim, run.optimizer.name)(groups, lr=run.optimizer.lr, **options)
        self.epoch, self.batch = 0, 0  # the next minibatch to train on
        self.loss_sum, self.loss_steps = torch.zeros((), device=device), 0
        torch.manual_seed(run.seed)

    def input(self, data: Any) -> Any:
        """The network's first layer: pictures in [0, 1] -> what the network is given."""
        from experiments.models.inputs import Standardise

        return Standardise.of(data.x_train)

    def l2(self) -> float:
        return float(self.run.optimizer.l2)

    def rate(self, epoch: float) -> float:
        """The learning rate after so many epochs."""
        return float(self.run.optimizer.lr)

    def order(self) -> Any:
        """Rows of this epoch's batches, [steps, batch]."""
        from experiments import measure

        rows = measure.shuffle(len(self.data.y_train), self.run.seed, self.epoch)
        return rows[: self.steps_per_epoch * self.run.batch_size].view(-1, self.run.batch_size)

    def distort(self, x: Any, generator: Any) -> Any:
        """uint8 [B, C, H, W], this process's share of a batch -> what the network is trained on."""
        from data import augment
        from experiments.distributed import rank, size

        return augment.pictures(x, generator, share=(rank(), size()))

    def watched(self) -> dict[str, float]:
        """Further figures at an evaluation, the network being in evaluation mode."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.loss_sum, self.loss_steps = state["loss_sum"], state["loss_steps"]


def train(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Train from where `state` is to the end; yields (step, None) now and then and (step, metrics) after
    every evaluation, `run.evaluations` of them in each epoch. A metric is a list of one value, an error in
    per cent.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from experiments.distributed import own

    run, data, net, steps = state.run, state.data, state.net, state.steps_per_epoch
    if steps < run.evaluations:
        raise BadInput(
            f"batch_size={run.batch_size}: {data.name} has {len(data.y_train):,} training pictures, so an"
            f" epoch is {steps} steps; at least {run.evaluations} (evaluations) are needed"
        )
    ends = {round(steps * (k + 1) / run.evaluations) for k in range(run.evaluations)}
    while state.epoch < run.epochs:
        order = own(state.order().T).T.to(state.device)[state.batch :]
        for index, pictures in zip(order, batches(data.x_train, order), strict=True):
            net.train()
            step = state.epoch * steps + state.batch
            rate = state.rate(step / steps)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            generator = torch.Generator().manual_seed((run.seed * 1_000_003 + step) * 2 + 1)
            x = state.distort(pictures.to(state.device), generator)
            loss = cross_entropy(state.forward(x), data.y_train[index])
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            state.optimizer.step()
            state.loss_sum += loss.detach()
            state.loss_steps += 1
            state.batch += 1
            if state.batch in ends:
                metrics = {"step": [step + 1], **evaluated(state)}
                if state.batch == steps:
                    state.epoch, state.batch = state.epoch + 1, 0
                yield step + 1, metrics
            elif state.batch % 20 == 0:
                yield step + 1, None


def batches(x: Any, order: Any) -> Iterator[Any]:
    """Pictures of each row of indices, from memory or, of a set too large for it, from the disk."""
    if hasattr(x, "batches"):
        yield from x.batches(order.tolist())
    else:
        for index in order:
            yield x.index_select(0, index)


def piece(x: Any) -> int:
    """How many pictures to evaluate at a time: about as many pixels as a training step has. Activations are
    large, and the allocator has blocks of that size; with more of them a run's memory grows to several times
    what training needs, and with fewer small pictures take twice as long.
    """
    return max(PIECE, PIECE * 32 * 32 // (x.shape[-2] * x.shape[-1]))


def wrong_ones(state: State, part: str) -> Any:
    """Which pictures of a part this process's share of them gets wrong, bool [n]."""
    import torch

    from experiments import measure
    from experiments.distributed import own

    net, data = state.net, state.data
    x, y = own(getattr(data, f"x_{part}")), own(getattr(data, f"y_{part}"))
    if not hasattr(x, "batches"):
        return measure.errors(net, x, y, len(data.classes), "error", piece(x))[1][0]
    found = [torch.zeros(0, dtype=torch.bool, device=y.device)]
    rows = torch.arange(len(y)).split(piece(x))
    for index, pictures in zip(rows, x.batches([r.tolist() for r in rows]), strict=True):
        found.append(measure.errors(net, pictures.to(y.device), y[index], len(data.classes), "error")[1][0])
    return torch.cat(found)


def evaluated(state: State) -> dict[str, Any]:
    import torch

    from experiments.distributed import gathered, mean

    state.net.eval()
    found: dict[str, Any] = {"train_loss": [mean(state.loss_sum / state.loss_steps).item()]}
    state.loss_sum, state.loss_steps = torch.zeros_like(state.loss_sum), 0
    for part in ("val", "test"):
        wrong = gathered(wrong_ones(state, part), len(getattr(state.data, f"y_{part}")))
        found[f"{part}_error"] = [100 * wrong.double().mean().item()]
        found["wrong"] = wrong[None]  # in the end the test part's
    return found | {name: [value] for name, value in state.watched().items()}
