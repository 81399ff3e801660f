"""The deep stacks of `depth_cost.py` as PyTorch and Flax have them: the same blocks, written as their users write them.

Each function returns the training step, the number of weights, and None in the place of what measures its compilation.
"""

from __future__ import annotations

from typing import Any

WIDTHS = {"dense": 64, "transformer": 128}


def torch_program(network: str, depth: int, impl: str, x: Any, y: Any) -> tuple[Any, int, None]:
    import torch

    model = torch_resnet(depth) if network == "resnet" else torch_stack(network, depth)
    inputs, labels = torch.tensor(x), torch.tensor(y)
    if network == "resnet":
        model = model.to(memory_format=torch.channels_last)
        inputs = inputs.permute(0, 3, 1, 2).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    run = torch.compile(model) if impl == "torch_compile" else model

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(inputs), labels)
        loss.backward()
        optimizer.step()
        return float(loss)

    return step, sum(p.numel() for p in model.parameters()), None


def torch_resnet(depth: int) -> Any:
    from torch import nn

    class Block(nn.Module):
        def __init__(self, branch: nn.Module, skip: nn.Module) -> None:
            super().__init__()
            self.branch, self.skip = branch, skip

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.skip(x) + self.branch(x))

    def conv(source: int, filters: int, width: int, strides: int) -> nn.Module:
        return nn.Conv2d(source, filters, width, strides, width // 2, bias=False)

    parts: list[nn.Module] = [conv(3, 16, 3, 1), nn.BatchNorm2d(16), nn.ReLU()]
    source = 16
    for stage in range(3):
        for block in range((depth - 2) // 6):
            filters, strides = 16 * 2**stage, 2 if stage and not block else 1
            branch = nn.Sequential(
                conv(source, filters, 3, strides),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
                conv(filters, filters, 3, 1),
                nn.BatchNorm2d(filters),
            )
            parts.append(Block(branch, nn.Identity() if strides == 1 else conv(source, filters, 1, 2)))
            source = filters
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def torch_stack(network: str, depth: int) -> Any:
    from torch import nn

    width = WIDTHS[network]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.attention(x, x, x, need_weights=False)[0]

    class PreNorm(nn.Module):
        def __init__(self, branch: nn.Module) -> None:
            super().__init__()
            self.norm, self.branch = nn.LayerNorm(64), branch

        def forward(self, x: Any) -> Any:
            return x + self.branch(self.norm(x))

    class Mean(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.mean(1)

    parts: list[nn.Module] = []
    for _ in range(depth):
        if network == "transformer":
            parts.append(PreNorm(Attention()))
        activation = nn.GELU() if network == "transformer" else nn.ReLU()
        parts.append(PreNorm(nn.Sequential(nn.Linear(64, width), activation, nn.Linear(width, 64))))
    pool = [Mean()] if network == "transformer" else []
    return nn.Sequential(*parts, *pool, nn.Linear(64, 10))


def flax_program(network: str, depth: int, impl: str, x: Any, y: Any) -> tuple[Any, int, None]:
    del impl
    import jax
    import optax

    net = flax_resnet(depth) if network == "resnet" else flax_stack(network, depth)
    variables = jax.jit(net.init)(jax.random.key(0), x)
    optimizer = optax.sgd(0.01, momentum=0.9)
    params, stats = variables["params"], variables.get("batch_stats", {})
    carried = [params, stats, optimizer.init(params)]

    @jax.jit
    def update(params: Any, stats: Any, state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, changed = net.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), changed.get("batch_stats", {})

        (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state)
        return value, optax.apply_updates(params, updates), stats, state

    def step() -> float:
        value, *carried[:] = update(*carried, x, y)
        return float(value)

    return step, sum(p.size for p in jax.tree.leaves(params)), None


def flax_resnet(depth: int) -> Any:
    from flax import linen as nn

    class Block(nn.Module):
        filters: int
        strides: int = 1

        @nn.compact
        def __call__(self, x: Any, _: Any = None) -> Any:
            y = nn.Conv(self.filters, (3, 3), self.strides, use_bias=False)(x)
            y = nn.relu(nn.BatchNorm(use_running_average=False, momentum=0.9)(y))
            y = nn.Conv(self.filters, (3, 3), use_bias=False)(y)
            if self.strides > 1:
                x = nn.Conv(self.filters, (1, 1), self.strides, use_bias=False)(x)
            return nn.relu(x + nn.BatchNorm(use_running_average=False, momentum=0.9)(y)), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(16, (3, 3), use_bias=False)(x)))
            for stage in range(3):
                blocks = (depth - 2) // 6
                if stage:
                    x, _ = Block(16 * 2**stage, 2)(x)
                    blocks -= 1
                scanned = nn.scan(Block, {"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=blocks)
                x, _ = scanned(16 * 2**stage)(x, None)
            return nn.Dense(10)(x.mean((1, 2)))

    return Net()


def flax_stack(network: str, depth: int) -> Any:
    from flax import linen as nn

    width = WIDTHS[network]

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: Any, _: Any = None) -> Any:
            if network == "transformer":
                x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            y = nn.Dense(width)(nn.LayerNorm()(x))
            y = nn.gelu(y) if network == "transformer" else nn.relu(y)
            return x + nn.Dense(64)(y), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x, _ = nn.scan(Block, {"params": 0}, split_rngs={"params": True}, length=depth)()(x, None)
            return nn.Dense(10)(x.mean(1) if network == "transformer" else x)

    return Net()
