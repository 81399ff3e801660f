"""SGD, LAMB and LARS take the steps of PyTorch and timm, on every backend, also through drops of the rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest

from keras_residual import optimizers
from keras_residual.training.optimizers import schedules
from parity.timm_peer import torch

TimmLamb: Any = pytest.importorskip("timm.optim.lamb").Lamb
TimmCosine: Any = pytest.importorskip("timm.scheduler").CosineLRScheduler
TimmLars: Any = pytest.importorskip("timm.optim.lars").Lars

SHAPES = [(5, 7), (7,), (3, 3, 4, 6), (), (6,)]
WITHOUT_DECAY = {1, 4}  # of SHAPES, in the tests with exclusions
BOUND = 5e-7
STEPS = 24
DROPS = (8, 16)


def rate_at(rate: float, step: int) -> float:
    return rate * 0.1 ** sum(step >= drop for drop in DROPS)


def drawn(seed: int = 0) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    rng = np.random.default_rng(seed)
    # A weight that is 0 at first: its norm is, and a ratio of norms must not divide by it.
    weights = [(0 if i == 4 else 1) * rng.normal(size=shape).astype("float32") for i, shape in enumerate(SHAPES)]
    gradients = [[rng.normal(size=shape).astype("float32") for shape in SHAPES] for _ in range(STEPS)]
    return weights, gradients


def stepped(optimizer: Any, weights: Sequence[np.ndarray], gradients: Any, without_decay: set[int]) -> list[np.ndarray]:
    variables = [keras.Variable(weight, name=f"w{index}") for index, weight in enumerate(weights)]
    optimizer.exclude_from_weight_decay(var_list=[variables[index] for index in without_decay])
    optimizer.build(variables)
    for each in gradients:
        with torch.no_grad():
            optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in each], variables)
    return [keras.ops.convert_to_numpy(variable.value) for variable in variables]


def stepped_by_torch(
    make: Callable[..., Any], rate: float, decay: float, weights: Any, gradients: Any, without_decay: set[int]
) -> list[np.ndarray]:
    parameters = [torch.nn.Parameter(torch.tensor(weight)) for weight in weights]
    groups = [
        {"params": [p for i, p in enumerate(parameters) if i not in without_decay], "weight_decay": decay},
        {"params": [p for i, p in enumerate(parameters) if i in without_decay], "weight_decay": 0.0},
    ]
    optimizer = make(groups, lr=rate)
    for step, each in enumerate(gradients):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(rate, step)
        for parameter, gradient in zip(parameters, each, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


def torch_sgd(**options: Any) -> Callable[..., Any]:
    return lambda groups, lr: torch.optim.SGD(groups, lr=lr, **options)


class DecoupledSGD(torch.optim.SGD):
    """Takes the decay off the weights before the step, as AdamW does."""

    def step(self, closure: Any = None) -> Any:
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(1 - group["lr"] * group["weight_decay"])
            group["weight_decay"] = 0.0
        super().step(closure)
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay


CASES: dict[str, tuple[Callable[[Any, float], Any], Callable[..., Any], float, float]] = {
    "plain": (lambda rate, decay: optimizers.SGD(rate, weight_decay=decay), torch_sgd(), 0.1, 1e-2),
    "momentum": (
        lambda rate, decay: optimizers.SGD(rate, momentum=0.9, weight_decay=decay),
        torch_sgd(momentum=0.9), 0.1, 1e-2,
    ),
    "nesterov": (
        lambda rate, decay: optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay),
        torch_sgd(momentum=0.9, nesterov=True), 0.1, 1e-2,
    ),
    "decoupled": (
        lambda rate, decay: optimizers.SGD(rate, momentum=0.9, weight_decay=decay, decoupled=True),
        lambda groups, lr: DecoupledSGD(groups, lr=lr, momentum=0.9), 0.1, 1e-2,
    ),
    "lamb": (
        lambda rate, decay: optimizers.Lamb(rate, weight_decay=decay),
        lambda groups, lr: TimmLamb(groups, lr=lr), 5e-3, 0.02,
    ),
    "lamb without clipping": (
        lambda rate, decay: optimizers.Lamb(rate, weight_decay=decay, beta_2=0.99, global_clipnorm=None),
        lambda groups, lr: TimmLamb(groups, lr=lr, betas=(0.9, 0.99), max_grad_norm=None), 5e-3, 0.02,
    ),
    "lars": (
        lambda rate, decay: optimizers.Lars(rate, momentum=0.9, weight_decay=decay),
        lambda groups, lr: TimmLars(groups, lr=lr, momentum=0.9), 1.0, 1e-2,
    ),
    "lars with nesterov": (
        lambda rate, decay: optimizers.Lars(rate, momentum=0.9, nesterov=True, weight_decay=decay, trust=0.02),
        lambda groups, lr: TimmLars(groups, lr=lr, momentum=0.9, nesterov=True, trust_coeff=0.02), 1.0, 1e-2,
    ),
}  # fmt: skip


@pytest.mark.every("torch")
@pytest.mark.parametrize("without_decay", [set(), WITHOUT_DECAY], ids=["all", "some"])
@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_the_peer_through_two_drops_of_the_rate(name: str, without_decay: set[int]) -> None:
    make, peer, rate, decay = CASES[name]
    weights, gradients = drawn()
    found = stepped(make(schedules.step_decay(rate, STEPS, DROPS), decay), weights, gradients, without_decay)
    expected = stepped_by_torch(peer, rate, decay, weights, gradients, without_decay)
    for one, other in zip(found, expected, strict=True):
        largest = max(np.abs(other).max(), 1e-3)
        assert np.abs(one - other).max() / largest < BOUND


def test_without_decay_nothing_is_scaled() -> None:
    weights, gradients = drawn(1)
    for make, peer in (
        (optimizers.Lamb(5e-3, weight_decay=0.0), lambda groups, lr: TimmLamb(groups, lr=lr)),
        (optimizers.Lars(5e-3, weight_decay=0.0), lambda groups, lr: TimmLars(groups, lr=lr, momentum=0.9)),
    ):
        found = stepped(make, weights, gradients[: DROPS[0]], set())
        expected = stepped_by_torch(peer, 5e-3, 0.0, weights, gradients[: DROPS[0]], set())
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one - other).max() / max(np.abs(other).max(), 1e-3) < BOUND


# --- What is Keras's own ----------------------------------------------------------------------------------------------


def stepped_by_sgd(weights: Any, gradients: Any, clip: float | None, accumulate: int) -> list[np.ndarray]:
    """Steps as papers have it: the mean of the gradients of several batches, of a bounded norm together."""
    parameters = [torch.nn.Parameter(torch.tensor(weight)) for weight in weights]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)
    for start in range(0, len(gradients) - accumulate + 1, accumulate):
        for group in optimizer.param_groups:  # the rate of the batch that completes the step
            group["lr"] = rate_at(0.1, start + accumulate - 1)
        for index, parameter in enumerate(parameters):
            parameter.grad = torch.tensor(np.mean([each[index] for each in gradients[start : start + accumulate]], 0))
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


@pytest.mark.every
@pytest.mark.parametrize(("clip", "accumulate"), [(0.5, 1), (1e3, 1), (None, 3), (0.5, 3)])
def test_clipping_and_accumulation_of_keras_are_those_of_the_papers(clip: float | None, accumulate: int) -> None:
    weights, gradients = drawn(2)
    optimizer = optimizers.SGD(
        schedules.step_decay(0.1, STEPS, DROPS),
        momentum=0.9,
        weight_decay=1e-2,
        global_clipnorm=clip,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
    )
    found = stepped(optimizer, weights, gradients, set())
    expected = stepped_by_sgd(weights, gradients, clip, accumulate)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() / max(np.abs(other).max(), 1e-3) < 2 * BOUND


# --- Schedules -------------------------------------------------------------------------------------------------------

RATE, EPOCH = 0.4, 5


def rates_of_torch(make: Callable[[Any], Any], steps: int, every: int = 1) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = make(optimizer)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            schedule.step()
    return rates


def rates_of_timm(steps: int, **options: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = TimmCosine(optimizer, **options)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step(step + 1)
    return rates


def warm(optimizer: Any, then: Any, epochs: int, start: float) -> Any:
    rising = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=start, total_iters=epochs)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, then], milestones=[epochs])


SCHEDULES: dict[str, tuple[Any, Callable[[], list[float]]]] = {
    "cosine": (
        schedules.cosine(RATE, 60),
        lambda: rates_of_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 60), 60),
    ),
    "cosine by epochs behind a warm-up": (
        schedules.cosine(RATE, 60 * EPOCH, warmup=5 * EPOCH, start=0.01, every=EPOCH),
        lambda: rates_of_torch(
            lambda o: warm(o, torch.optim.lr_scheduler.CosineAnnealingLR(o, 55), 5, 0.01), 60 * EPOCH, every=EPOCH
        ),
    ),
    "timm's cosine": (
        schedules.cosine(RATE, 60, warmup=6, start=1e-3),
        lambda: rates_of_timm(60, t_initial=54, warmup_t=6, warmup_lr_init=1e-3 * RATE, warmup_prefix=True),
    ),
    "step": (
        schedules.step_decay(RATE, 60, (20, 40), factor=0.2),
        lambda: rates_of_torch(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [20, 40], 0.2), 60),
    ),
    "step by epochs": (
        schedules.step_decay(RATE, 90 * EPOCH, (30 * EPOCH, 60 * EPOCH), every=EPOCH),
        lambda: rates_of_torch(lambda o: torch.optim.lr_scheduler.StepLR(o, 30, 0.1), 90 * EPOCH, every=EPOCH),
    ),
    "one cycle": (
        schedules.one_cycle(RATE, 60, warmup=18),
        lambda: rates_of_torch(
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, RATE, 60, pct_start=0.3, cycle_momentum=False), 60
        ),
    ),
    "linear": (
        schedules.linear(RATE, 60),
        lambda: rates_of_torch(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 60), 60),
    ),
    "up and down": (
        schedules.linear(RATE, 60, warmup=20, start=0.1),
        lambda: np.interp(np.arange(60), [0, 20, 60], [0.1 * RATE, RATE, 0]).tolist(),
    ),
}


@pytest.mark.every
@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_the_peer(name: str) -> None:
    schedule, peer = SCHEDULES[name]
    expected = peer()
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert again.get_config() == schedule.get_config()
    # Every step of few, some of many: on JAX each is a program of some operations.
    steps = range(0, len(expected), max(1, len(expected) // 60))
    found = [float(keras.ops.convert_to_numpy(again(keras.ops.convert_to_tensor(step, "int32")))) for step in steps]
    np.testing.assert_allclose(found, [expected[step] for step in steps], rtol=1e-5, atol=1e-7)
