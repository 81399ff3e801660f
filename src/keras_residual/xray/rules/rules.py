"""The rules from which advice follows, as data: what is looked at, the threshold, the paper, and what to change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One row of the table.

    Args:
        name: What the rule is called.
        check: Name of the check in `checks.py` that finds the blocks.
        threshold: The number that the check compares with.
        finding: What is wrong. Names in braces are filled with what the check found.
        change: What to change, with the argument of this library that changes it.
        because: Why, with the paper.
        unless: Rules of which this one's finding is a consequence: it is silent where one of them has spoken.
        final: Whether the numbers of the other rules mean nothing where this one applies.
    """

    name: str
    check: str
    threshold: float
    finding: str
    change: str
    because: str
    unless: tuple[str, ...] = ()
    final: bool = False


RULES: tuple[Rule, ...] = (
    Rule(
        name="not_a_number",
        check="not_a_number",
        threshold=0.0,
        finding="{share:.2g} of what it hands on is not a number; the blocks before it are sound",
        change="look at the weights and at the divisions, roots and logarithms of this block; `keras.optimizers.Adam("
        "clipnorm=1.0)` keeps a single bad step out of the weights",
        because="one NaN spreads to all that is computed from it, so that the first block that has one holds the cause",
        final=True,
    ),
    Rule(
        name="overflow",
        check="overflow",
        threshold=0.0,
        finding="the signal overflows in {dtype}",
        change="{cure}",
        because="a sum of branches of unit gain doubles the variance at each block; scaled by 1/sqrt(depth) it stays "
        "below e (Hayou et al. 2021, https://arxiv.org/abs/2010.12859)",
        final=True,
    ),
    Rule(
        name="underflow",
        check="underflow",
        threshold=0.5,
        finding="{share:.0%} of the gradient's entries are too small for float16 and lose their digits or vanish",
        change="use the policy 'mixed_float16', with which `compile` scales the loss, or 'mixed_bfloat16', whose range "
        "is that of float32: `dtype=` of the layers, or `keras.config.set_dtype_policy`",
        because="float16 ends at 6e-8, and gradients of deep nets lie below it (Micikevicius et al. 2018, "
        "https://arxiv.org/abs/1710.03740, figure 2)",
        final=True,
    ),
    Rule(
        name="softmax_twice",
        check="softmax_twice",
        threshold=1e-2,
        finding="it ends with a {what}, and the loss applies one more",
        change="from_logits=False of the loss, or no activation on the last layer",
        because="what lies between 0 and 1 is nearly uniform once a softmax or a sigmoid has been put on it: the loss "
        "cannot become small, and its gradient is weak (of 10 classes none gets more than 0.23)",
    ),
    Rule(
        name="softmax_missing",
        check="softmax_missing",
        threshold=1e-2,
        finding="its outputs go from {lowest:.2g} to {highest:.2g}, and the loss takes them for probabilities",
        change="from_logits=True of the loss, or activation='{what}' on the last layer",
        because="what is not between 0 and 1 is clipped, and what is clipped has no gradient",
    ),
    Rule(
        name="dead_layer",
        check="dead_layer",
        threshold=0.999,
        finding="all of its ReLU units are 0 for each of the {batch} samples: nothing of the input passes, and no "
        "gradient comes back",
        change="biases of 0 and kernel_initializer='he_normal', and a lower rate of learning where training did this; "
        "activation='gelu' or 'leaky_relu' cannot die",
        because="a unit that no sample activates gets no gradient and stays as it is (Lu et al. 2019, "
        "https://arxiv.org/abs/1903.06733)",
        final=True,
    ),
    Rule(
        name="no_step",
        check="no_step",
        threshold=0.0,
        finding="the rate of learning is 0: no step changes the weights",
        change="`learning_rate` of the optimizer, 1e-3 for Adam for a start and 0.1 for SGD with momentum",
        because="steps of about 0.1 % of the weights are usual",
    ),
    Rule(
        name="learning_rate",
        check="learning_rate",
        threshold=0.1,
        finding="one step of the optimizer changes the weights by {ratio:.0%} (half of the blocks or more)",
        change="divide `learning_rate` by {factor:.0f}: `optimizer.learning_rate` of the recipe, or of `compile`",
        because="steps of about 0.1 % of the weights are usual; from 10 % on what was learned is overwritten",
    ),
    Rule(
        name="transport_gain",
        check="transport_gain",
        threshold=30.0,
        finding="the matrices that carry the streams multiply to a gain of {gain:.2g} from the first block to here, "
        "and of {last:.2g} to the last",
        change="topology='mhc' of `kr.ResidualStack`, whose matrices are doubly stochastic, or "
        "'identity_hyper_connections', which does not mix: either has a gain of about 1 at any depth",
        because="a product of free matrices grows or dies by a factor a block, and all that passes the shortcuts with "
        "it; it reached 3000 in Hyper-Connections, 1.6 in mHC (Xie et al. 2025, https://arxiv.org/abs/2512.24880)",
    ),
    Rule(
        name="double_stochasticity",
        check="double_stochasticity",
        threshold=0.05,
        finding="the rows and columns of the matrices that mix its streams miss the sum 1 by {error:.2g}",
        change="topology='mhc_lite' of `kr.ResidualStack`, which is exact, for up to 5 streams; or "
        "`kr.topologies.MHC(iterations=…)` with more iterations than it has",
        because="for large logits Sinkhorn's iterations end before the matrix is doubly stochastic, and mixing adds to "
        "the sum of the streams again (mHC-lite 2026, https://arxiv.org/abs/2601.05732)",
    ),
    Rule(
        name="signal_grows",
        check="signal_grows",
        threshold=1e3,
        finding="the signal has grown {growth:.2g} times here, by {factor:.2g} a block, with no norm in its way",
        change="{cure}",
        because="each sum of a stream and a branch of unit gain doubles the variance (Hayou et al. 2021, "
        "https://arxiv.org/abs/2010.12859; De & Smith 2020, https://arxiv.org/abs/2002.10444)",
        unless=("transport_gain",),
    ),
    Rule(
        name="post_norm",
        check="post_norm",
        threshold=100.0,
        finding="{depth} connections with a norm behind each sum: the gradient at the first is {ratio:.2g} times that "
        "at the last",
        change="depth_rule='deepnorm' or 'keel' of `kr.ResidualStack`, or norm_position='pre' of `kr.Residual`",
        because="each norm behind a sum weakens the shortcut, and from some hundred on the gradient vanishes (Xiong et "
        "al. 2020, https://arxiv.org/abs/2002.04745; Wang et al. 2022, https://arxiv.org/abs/2203.00555)",
    ),
    Rule(
        name="samples_alike",
        check="samples_alike",
        threshold=0.95,
        finding="from here on all samples look alike: the mean cosine between two is {cosine:.2f}, and {before:.2f} at "
        "the input",
        change="{cure}",
        because="where all samples are mapped to one direction, the loss cannot tell them apart (Poole et al. 2016, "
        "https://arxiv.org/abs/1606.05340; Noci et al. 2022, https://arxiv.org/abs/2206.03126)",
        unless=("transport_gain", "signal_grows", "post_norm"),
    ),
    Rule(
        name="skip_scaled",
        check="skip_scaled",
        threshold=0.6,
        finding="its shortcut is multiplied by {scale:.2g}",
        change="skip_scale=None of `kr.Residual`; to hold the variance scale the branch instead, with branch_scale= or "
        "depth_rule='inverse_sqrt_depth'",
        because="what passes k such shortcuts is multiplied by the k-th power (He et al. 2016, "
        "https://arxiv.org/abs/1603.05027, table 1: with 0.5 the net does not converge)",
    ),
    Rule(
        name="no_gradient",
        check="no_gradient",
        threshold=0.0,
        finding="no gradient reaches it, although it is the last",
        change="look at the loss: `from_logits=True` where the model ends without a softmax, targets of the right "
        "shape, and an output that depends on the blocks",
        because="a loss that clips or rounds what it is given has the derivative 0",
        unless=("softmax_missing",),
        final=True,
    ),
    Rule(
        name="gradient_vanishes",
        check="gradient_vanishes",
        threshold=0.1,
        finding="the gradient at the first block is {ratio:.2g} times that at the last",
        change="{cure}",
        because="a block that gets no gradient learns nothing (Glorot & Bengio 2010; He et al. 2016, "
        "https://arxiv.org/abs/1603.05027, eq. 5)",
        unless=("transport_gain", "post_norm", "samples_alike"),
    ),
    Rule(
        name="gradient_explodes",
        check="gradient_explodes",
        threshold=10.0,
        finding="through its stage the gradient grows {ratio:.2g} times on its way to the input",
        change="{cure}",
        because="the first blocks decide the largest rate of learning that the whole can bear (Zhang et al. 2019, "
        "https://arxiv.org/abs/1901.09321)",
        unless=("transport_gain", "signal_grows", "post_norm"),
    ),
    Rule(
        name="gradient_grows",
        check="gradient_grows",
        threshold=25.0,
        finding="through its stage the gradient grows {ratio:.2g} times on its way to the input",
        change="{cure}",
        because="behind a norm the gradient is divided by the stream's size, which grows with each block (Sun et al. "
        "2025, https://arxiv.org/abs/2502.05795)",
        unless=("transport_gain", "signal_grows", "post_norm", "gradient_explodes"),
    ),
    Rule(
        name="unused_branch",
        check="unused_branch",
        threshold=1e-6,
        finding="its branch adds nothing and its weights get no gradient",
        change="give it a scale that can grow, branch_scale='skip_init' of `kr.Residual`, or leave the block out",
        because="a factor that is learned gets a gradient at zero, a fixed zero never lets the branch learn "
        "(Bachlechner et al. 2020, https://arxiv.org/abs/2003.04887)",
    ),
    Rule(
        name="unused_depth",
        check="unused_depth",
        threshold=0.01,
        finding="from here on the branches add {ratio:.1%} of the stream and less ({count} blocks)",
        change="depth_rule='layer_norm_scaling' or 'inverse_sqrt_depth' of `kr.ResidualStack`, or fewer blocks",
        because="behind a norm at its entry a branch stays as it is while the stream grows (Sun et al. 2025, "
        "https://arxiv.org/abs/2502.05795)",
        unless=("transport_gain",),
    ),
    Rule(
        name="streams_alike",
        check="streams_alike",
        threshold=0.99,
        finding="from here on its streams are copies of one another ({count} blocks): their mean cosine is "
        "{cosine:.4f}, and {before:.2f} before",
        change="topology='identity_hyper_connections' of `kr.ResidualStack`, whose streams are never mixed, or fewer "
        "of them: `streams=` of the topology",
        because="the product of many doubly stochastic matrices is a plain mean; `n` streams then cost what they cost "
        "and hold what one does (https://arxiv.org/abs/2606.03483)",
    ),
    Rule(
        name="frozen",
        check="frozen",
        threshold=0.0,
        finding="none of its weights is trained, while blocks before and behind it are",
        change="set `trainable = True` on it, or freeze all blocks before it as well",
        because="frozen blocks save their backward pass only where nothing in front of them is trained (Yosinski "
        "et al. 2014, https://arxiv.org/abs/1411.1792)",
    ),
    Rule(
        name="dead_units",
        check="dead_units",
        threshold=0.2,
        finding="{share:.0%} of its ReLU units are 0 for each of the {batch} samples",
        change="lower the rate of learning or set the biases to 0; activation='gelu' or 'leaky_relu' in the branch "
        "cannot die",
        because="a unit that no sample activates gets no gradient and stays as it is (Lu et al. 2019, "
        "https://arxiv.org/abs/1903.06733)",
        unless=(
            "transport_gain",
            "signal_grows",
            "post_norm",
            "samples_alike",
            "gradient_vanishes",
            "gradient_explodes",
        ),
    ),
    Rule(
        name="saturated_units",
        check="saturated_units",
        threshold=0.5,
        finding="{share:.0%} of its sigmoids or tanhs are at their flat ends",
        change="norm='layer_norm' of `kr.Residual` in front of it, inputs of mean 0 and variance 1, smaller initial "
        "weights, or activation='relu'",
        because="there the derivative is below a tenth of its greatest value (Glorot & Bengio 2010, section 3)",
    ),
    Rule(
        name="missing_activation",
        check="missing_activation",
        threshold=0.0,
        finding="it has no activation between its linear maps ({maps}), which {others} of the other blocks have",
        change="put activation='relu' on the layers of its branch but the last",
        because="linear maps in a row are one linear map",
    ),
    Rule(
        name="duplicate",
        check="duplicate",
        threshold=0.0,
        finding="its weights are those of {other}",
        change="build the block anew, or use `kr.ResidualStack`, which makes a new copy of its block for each depth",
        because="blocks that start alike waste one another, and a copy is a sign of a layer reused by mistake",
    ),
)
"""In the order in which advice is given: what makes other numbers meaningless comes first."""
