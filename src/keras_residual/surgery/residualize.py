"""Conversion of a plain network into a residual one that keeps its weights."""

from __future__ import annotations

import sys
from typing import Any

import keras

from keras_residual._arguments import choice, flag, whole_number
from keras_residual._errors import bad_argument
from keras_residual.residual import shapes
from keras_residual.residual.residual import Residual
from keras_residual.residual.scales import LayerScale, SkipInit
from keras_residual.surgery import rewrite
from keras_residual.surgery.copies import Copies
from keras_residual.surgery.models import SHORTCUTS, check_model, compile_like
from keras_residual.surgery.named import plan_of
from keras_residual.surgery.plan import Group, ResidualPlan
from keras_residual.surgery.suggest import suggest_groups

STARTS = ("unchanged", "identity")
"""Values of `start`: which of the two paths has the scale that starts at zero."""

SCALES = ("skip_init", "layer_scale")


def residualize(
    model: Any,
    *,
    groups: Any = None,
    every: int | None = None,
    start: str = "unchanged",
    scale: str = "skip_init",
    verbose: bool = True,
) -> Any:
    """Returns a copy of a plain model with shortcuts around groups of its layers.

    Each group `F` becomes a `Residual` with copies of the layers, under their names and with their weights:

        start="unchanged":  y = F(x) + a * S(x),  a = 0 at first
        start="identity":   y = a * F(x) + S(x),  a = 0 at first

    `S` is the identity, or a projection if channels or sizes change; an activation at the end of the group moves behind
    the sum. `a` is learned.

    With `"unchanged"` the new model computes what the old one did until it is trained: use it for trained networks. It
    does not help a network that is too deep to train: signal and gradient pass it as before until the factors have
    grown, and their own gradients take the same way. For such a network use `"identity"` (ReZero): at first there are
    only the shortcuts, the gradient reaches every layer, and each branch grows as it proves useful. The outputs change
    at once.

    The original model is not modified. The new one keeps the names of model, inputs, outputs and layers, dtype
    policies, `trainable` flags, random state, and its compilation: optimizer with a fresh state, loss and metrics (with
    a warning if these cannot be copied). A Sequential model stays Sequential, as do models inside it.

    Args:
        model: A built Sequential or Functional model.
        groups: What gets a shortcut: groups of `suggest_groups`, or for each group the names of consecutive layers, as
            `[["conv2", "bn2", "relu2", "conv3", "bn3"], …]`, in a nested model `"encoder/conv2"`. None for all that
            `suggest_groups` finds.
        every: Number of Dense or convolutional layers in a group that is found, at least 1; None for 2.
        start: Which path starts at zero: `"unchanged"` for the shortcut, `"identity"` for the group.
        scale: The learned factor: `"skip_init"`, one number, or `"layer_scale"`, one a channel.
        verbose: Whether to print what was done.

    Returns:
        The new model.

    Raises:
        ValueError: If the model is not a graph of layers, has no place for a shortcut, or has layers that cannot be
            copied; if no shortcut can lead around a group, because a layer is called more than once or with several
            inputs, an inner result is used elsewhere too, or the size changes by a fractional stride.
        TypeError: If an argument is of the wrong type.

    Example:
        >>> layers = [keras.layers.Dense(8, activation="relu", name=f"dense{i}") for i in range(4)]
        >>> plain = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1, name="head")])
        >>> model = kr.residualize(plain)
        2 shortcuts:
          dense1_residual: dense1, dense2 → relu; identity, 8
          dense3_residual: dense3 → relu; identity, 8
        left alone:
          dense0: the first layer
          head: the last layer
        267 weights, 2 of them new. The outputs are unchanged until training.
        >>> x = np.ones((2, 4))
        >>> bool(np.allclose(plain.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6))
        True

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385
        Bachlechner et al., ReZero is All You Need, 2020. https://arxiv.org/abs/2003.04887, for `start="identity"`
    """
    owner = "residualize"
    start = choice(owner, "start", start, STARTS)
    scale = choice(owner, "scale", scale, SCALES)
    verbose = flag(owner, "verbose", verbose)
    check_model(owner, model, **SHORTCUTS)
    plan = _plan(owner, model, groups, every)
    copies = Copies(owner)

    def connect(group: Group, branch: list[keras.Layer], activation: Any, dtype: Any) -> Residual:
        argument = "skip_scale" if start == "unchanged" else "branch_scale"
        factor = _factor(scale, argument, branch, len(group.output_shape), dtype)
        return Residual(branch, activation=activation, name=group.name, dtype=dtype, **{argument: factor})

    renewed = rewrite.rewritten(model, plan, copies, connect)
    copies.bring_over()
    compile_like(model, renewed)
    if verbose:
        _say(report(plan, model, renewed, start))
    return renewed


def _plan(owner: str, model: Any, groups: Any, every: int | None) -> ResidualPlan:
    if groups is not None:
        if every is not None:
            raise bad_argument(owner, "every", "left out where groups are given", every)
        if not groups:
            raise bad_argument(owner, "groups", "at least one group of layers, or None for the suggested ones", groups)
        plan = plan_of(model, groups)
    else:
        plan = suggest_groups(model, every=2 if every is None else whole_number(owner, "every", every))
    if plan.groups:
        return plan
    reasons = "; ".join(f"{name}: {reason}" for name, reason in plan.left_alone) or "it has no layers that count"
    raise ValueError(
        f"{owner}: {model.name!r} has no place for a shortcut. {reasons}. Name the layers yourself with `groups=` "
        "where you see one."
    )


def _factor(scale: str, name: str, branch: list[keras.Layer], rank: int, dtype: Any) -> keras.Layer:
    if scale == "skip_init":
        return SkipInit(0.0, name=name, dtype=dtype)
    return LayerScale(0.0, axis=shapes.channel_axis(branch, rank), name=name, dtype=dtype)


def _say(text: str) -> None:
    # A character that standard output cannot encode must not hide the report.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def report(plan: ResidualPlan, model: Any, renewed: Any, start: str) -> str:
    """Returns a description of the changes.

    Args:
        plan: The groups.
        model: The original model.
        renewed: What `residualize` returned.
        start: As it was given to `residualize`.
    """
    new = renewed.count_params() - model.count_params()
    outputs = "unchanged until training" if start == "unchanged" else "those of the shortcuts alone until training"
    return f"{plan}\n{renewed.count_params():,} weights, {new:,} of them new. The outputs are {outputs}."
