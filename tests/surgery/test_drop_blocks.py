"""Blocks that are cut out leave the answers of the model with their branches switched off."""

import re

import keras
import numpy as np
import pytest
from keras.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    GlobalAveragePooling2D,
    MaxPooling2D,
    PReLU,
    ReLU,
)

import keras_residual as kr
from deploy.nets import randomised

BOUND = 1e-6  # of the maximum
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def connections(**how):
    x = inputs = keras.Input((6,))
    for name in ("first", "second", "third"):
        x = kr.Residual([Dense(8, activation="gelu"), Dense(6)], norm="layer_norm", name=name, **how)(x)
    return randomised(keras.Model(inputs, Dense(3, name="head")(x)))


def stacked(execution="unrolled", block=None, depth=5, **how):
    inputs = keras.Input((6,))
    block = block or kr.Residual([Dense(8, activation="gelu"), Dense(6)], norm="layer_norm")
    outputs = kr.ResidualStack(block, depth=depth, execution=execution, name="stack", **how)(inputs)
    return randomised(keras.Model(inputs, Dense(3, name="head")(outputs)))


def batch(model, count=40):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, *model.input_shape[1:])).astype("float32")
    return x, rng.integers(0, model.output_shape[-1], count)


def answers(model):
    return np.asarray(model.predict(batch(model)[0], verbose=0))


def values(model):
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]


def close(found, expected):
    assert np.abs(found - expected).max() <= BOUND * np.abs(expected).max()


def switched_off(connection):
    """Returns a model's connection with a branch that adds nothing, for as long as the answers are taken."""
    connection.branch_output = lambda inputs, *_, **__: keras.ops.zeros_like(inputs)


def needless(connection):
    """Takes all weights of the last layer of a branch out, so that it adds nothing."""
    last = connection.branch[-1]
    last.set_weights([np.zeros_like(value) for value in last.get_weights()])


def check(model, expected, names, tmp_path):
    """Returns the model without blocks, once its answers, also from a file, are the ones expected."""
    before = values(model)
    smaller, report = kr.drop_blocks(model, blocks=names, verbose=False)
    found = answers(smaller)
    close(found, expected)
    smaller.save(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(answers(keras.saving.load_model(tmp_path / "smaller.keras")), found)
    for variable, value in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert report.blocks == names
    assert report.steps[-1].weights == smaller.count_params() < model.count_params() == report.steps[0].weights
    return smaller


def off(model, *names):
    """Returns the answers of a model of connections, some of whose branches are switched off."""
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    for name in names:
        switched_off(copied.get_layer(name))
    return np.asarray(keras.ops.convert_to_numpy(copied(batch(model)[0])))


def off_in_stack(model, indices, depth=5):
    """Returns the answers of a model with a stack, some of whose blocks are switched off."""
    x, _ = batch(model)
    mask = np.array([index not in indices for index in range(depth)], "float32")
    hidden = model.get_layer("stack")(x, block_mask=mask)
    return np.asarray(keras.ops.convert_to_numpy(model.get_layer("head")(hidden)))


@pytest.mark.parametrize("names", [["second"], ["third", "first"], ["first", "second", "third"]])
def test_connections(names, tmp_path):
    model = connections()
    smaller = check(model, off(model, *names), names, tmp_path)
    assert [layer.name for layer in smaller.layers[1:]] == [
        name for name in ("first", "second", "third", "head") if name not in names
    ]


@pytest.mark.parametrize("execution", ["scan", "unrolled"])
def test_blocks_of_a_stack(execution, tmp_path):
    model = stacked(execution, drop_path_rate=0.4)
    smaller = check(model, off_in_stack(model, {1, 4}), ["stack.4", "stack.1"], tmp_path)
    stack = smaller.get_layer("stack")
    assert (stack.depth, stack.execution) == (3, execution)
    np.testing.assert_allclose(stack.drop_path_rate, [0.0, 0.2, 0.3], rtol=1e-6)


@pytest.mark.any_backend
class TestStacks:
    def test_that_is_gone_as_a_whole(self, tmp_path):
        model = stacked(depth=2)
        smaller = check(model, off_in_stack(model, {0, 1}, 2), ["stack.0", "stack.1"], tmp_path)
        assert [layer.name for layer in smaller.layers[1:]] == ["head"]

    def test_of_blocks_that_differ(self, tmp_path):
        model = stacked(block=lambda index: kr.Residual([Dense(4 + index, "relu"), Dense(6)], name=f"b{index}"))
        stack = check(model, off_in_stack(model, {0, 3}), ["stack.0", "stack.3"], tmp_path).get_layer("stack")
        assert [block.connections[0].branch[0].units for block in stack._blocks.cells] == [5, 6, 8]

    def test_of_one_block_many_times(self, tmp_path):
        shared = kr.Residual(Dense(6), name="shared")
        smaller, _ = kr.drop_blocks(model := stacked(block=lambda _: shared), blocks="stack.0", verbose=False)
        close(answers(smaller), off_in_stack(model, {0}))
        cells = smaller.get_layer("stack")._blocks.cells
        assert len({id(cell.connections[0]) for cell in cells}) == 1

    def test_of_which_only_a_block_without_drop_path_is_left(self, tmp_path):
        block = kr.Residual([keras.layers.Dropout(0.1), Dense(6)])
        model = stacked(block=block, depth=2, drop_path_rate=0.4)
        check(model, off_in_stack(model, {1}, 2), ["stack.1"], tmp_path)

    def test_of_several_layers_a_block(self, tmp_path):
        block = [kr.Residual(Dense(6), norm="layer_norm", norm_position="post"), kr.Residual(Dense(6, "relu"))]
        model = stacked("scan", block)
        check(model, off_in_stack(model, {2}), ["stack.2"], tmp_path)

    def test_what_was_changed_in_a_block_stays_with_it(self, tmp_path):
        model = stacked()
        model.get_layer("stack")._blocks.cells[3].connections[0].pre_norm.trainable = False
        smaller = check(model, off_in_stack(model, {1}), ["stack.1"], tmp_path)
        for net in (smaller, keras.saving.load_model(tmp_path / "smaller.keras")):
            cells = net.get_layer("stack")._blocks.cells
            assert [cell.connections[0].pre_norm.trainable for cell in cells] == [True, True, False, True]

    def test_inner_layers_that_were_changed_in_differing_blocks(self, tmp_path):
        def block(index):
            attention = keras.layers.MultiHeadAttention(1, 2, name=f"attention{index}")
            return kr.Residual(attention, name=f"b{index}")

        inputs = keras.Input((4, 6))
        stack = kr.ResidualStack(block, depth=3, name="stack")
        model = keras.Model(inputs, stack(inputs))
        stack._blocks.cells[2].connections[0].branch[0]._query_dense.trainable = False
        smaller, _ = kr.drop_blocks(model, blocks="stack.0", verbose=False)
        cells = smaller.get_layer("stack")._blocks.cells
        assert [cell.connections[0].branch[0]._query_dense.trainable for cell in cells] == [True, False]

    def test_with_a_rule_that_scales_nothing_by_depth(self, tmp_path):
        model = stacked("scan", kr.Residual([Dense(8, "relu"), Dense(6)]), depth_rule="skip_init")
        check(model, off_in_stack(model, {1}), ["stack.1"], tmp_path)

    @pytest.mark.parametrize("kept", [[], [1, 0], [0, 0], [5], [-1]])
    def test_indices_that_are_wrong(self, kept):
        stack = stacked().get_layer("stack")
        with pytest.raises(ValueError, match="`kept` must be rising indices of blocks, from 0 to 4, but received "):
            stack.with_blocks(kept)

    @pytest.mark.parametrize("kept", [1, "01", ["a"], [0.0], [True], {0: 1}, None, [[0]], np.zeros((1, 1))])
    def test_indices_of_another_type(self, kept):
        rule = "`kept` must be rising indices of blocks, from 0 to 4, but received "
        with pytest.raises(TypeError, match=f"^ResidualStack 'stack': {rule}"):
            stacked().get_layer("stack").with_blocks(kept)


def rectified(first, *, activation="relu"):
    """Returns a net of ResNet's blocks behind other layers."""
    x = inputs = keras.Input((8, 8, 4))
    for layer in first:
        x = layer(x)
    for name in ("block1", "block2"):
        branch = [Conv2D(4, 3, padding="same", use_bias=False), BatchNormalization(), ReLU(), Conv2D(4, 1)]
        x = kr.Residual(branch, activation=PReLU() if activation == "prelu" else activation, name=name)(x)
    return randomised(keras.Model(inputs, Dense(3, name="head")(GlobalAveragePooling2D()(x))))


@pytest.mark.any_backend
class TestActivationsBehindTheSum:
    @pytest.mark.parametrize(
        ("first", "left"),
        [
            ([Conv2D(4, 1), ReLU(), MaxPooling2D(2)], 0),
            ([Conv2D(4, 1, activation="relu")], 0),
            ([Conv2D(4, 1), Activation("relu"), BatchNormalization()], 1),
            ([Conv2D(4, 1), ReLU(max_value=6.0, threshold=0.1)], 1),
        ],
    )
    def test_one_stays_where_it_has_something_to_do(self, first, left, tmp_path):
        model = rectified(first)
        smaller = check(model, off(model, "block1", "block2"), ["block1", "block2"], tmp_path)
        assert len([layer for layer in smaller.layers if layer.name.startswith("block")]) == left

    def test_one_with_weights_keeps_them(self, tmp_path):
        model = rectified([Conv2D(4, 1)], activation="prelu")
        check(model, off(model, "block1", "block2"), ["block2", "block1"], tmp_path)


@pytest.mark.slow
def test_a_net_of_the_zoo():
    model = randomised(kr.create_model("cifar_resnet20", input_shape=(16, 16, 3), num_classes=5))
    smaller, report = kr.drop_blocks(model, *batch(model), LOGITS, blocks=7, verbose=False)
    assert list(report.needed) == ["stage2_block1", "stage3_block1"]
    assert len(smaller.layers) < len(model.layers)
    assert report.steps[-1].loss == pytest.approx(float(LOGITS(batch(model)[1], answers(smaller))), rel=1e-5)
    assert report.steps[-1].weights == smaller.count_params()


@pytest.mark.any_backend
def test_models_inside_models(tmp_path):
    inner = connections()
    model = keras.Sequential([keras.Input((6,)), keras.Model(inner.input, inner.output, name="encoder"), Dense(2)])
    smaller, _ = kr.drop_blocks(model, blocks="encoder/second", verbose=False)
    assert isinstance(smaller, keras.Sequential)
    encoder = smaller.get_layer("encoder")
    assert [layer.name for layer in encoder.layers[1:]] == ["first", "third", "head"]
    close(answers(encoder), off(inner, "second"))


@pytest.mark.any_backend
def test_a_model_that_is_nothing_else(tmp_path):
    model = keras.Sequential([keras.Input((6,)), kr.Residual(Dense(6), name="only")])
    check(model, batch(connections())[0], ["only"], tmp_path)


class TestRanking:
    @pytest.mark.any_backend
    def test_the_block_that_is_needed_least_goes_first(self, capsys):
        model = connections()
        model.compile("sgd", LOGITS, metrics=["accuracy"])
        needless(model.get_layer("second"))
        head = model.get_layer("head")
        head.set_weights([100 * value for value in head.get_weights()])  # so sure that any other loss is higher
        x, y = batch(model)[0], answers(model).argmax(-1)
        smaller, report = kr.drop_blocks(model, x, y, blocks=2)
        said = capsys.readouterr().out
        assert said == f"{report}\n"
        first, second, third = report.steps
        # The first choice is the X-ray's, and what it costs too.
        lesions = kr.xray(model, x, y, quantities="lesion", verbose=False).blocks
        least = min(lesions, key=lambda block: block["lesion"])
        assert least["name"] == report.blocks[0] == "second"
        assert second.loss - first.loss == pytest.approx(least["lesion"], abs=1e-6) == pytest.approx(0, abs=1e-6)
        assert (first.accuracy, second.accuracy) == (1.0, 1.0)
        loss, accuracy = smaller.evaluate(x, y, verbose=0)
        assert (third.loss, third.accuracy) == pytest.approx((loss, accuracy), rel=1e-5)
        assert report.to_dict()["steps"][2]["block"] == report.blocks[1]

    def test_blocks_of_a_scanned_stack(self):
        model = stacked("scan", depth=4)
        x, y = batch(model)
        smaller, report = kr.drop_blocks(model, x, y, LOGITS, blocks=2, verbose=False)
        gone = {int(name.removeprefix("stack.")) for name in report.blocks}
        close(answers(smaller), off_in_stack(model, gone, 4))
        assert report.steps[-1].loss == pytest.approx(float(LOGITS(y, answers(smaller))), rel=1e-5)

    @pytest.mark.any_backend
    def test_names_cost_what_the_ranking_says(self):
        model = stacked(depth=4)
        x, y = batch(model)
        report = kr.drop_blocks(model, x, y, LOGITS, blocks=3, verbose=False)[1]
        by_name = kr.drop_blocks(model, x, y, LOGITS, blocks=report.blocks, verbose=False)[1]
        assert [step.loss for step in by_name.steps] == pytest.approx([step.loss for step in report.steps], rel=1e-5)
        assert by_name.blocks == report.blocks

    @pytest.mark.any_backend
    def test_a_bound_on_the_loss(self, capsys):
        model = connections()
        needless(model.get_layer("third"))
        x, y = batch(model)[0], answers(model)
        smaller, report = kr.drop_blocks(model, x, y, "mse", blocks=3, max_loss_rise=1e-6)
        assert report.blocks == ["third"]
        assert [layer.name for layer in smaller.layers[1:]] == ["first", "second", "head"]
        assert capsys.readouterr().out.splitlines()[-1].endswith("beyond `max_loss_rise`.")

    @pytest.mark.any_backend
    @pytest.mark.parametrize(
        ("loss", "ending", "targets"),
        [
            ("binary_crossentropy", "sigmoid", (40, 1)),
            (keras.losses.BinaryCrossentropy(from_logits=True), None, (40,)),
            ("mse", None, (40, 1)),
        ],
    )
    def test_accuracy_is_that_of_the_loss(self, loss, ending, targets):
        model = keras.Sequential([keras.Input((6,)), kr.Residual(Dense(6), name="only"), Dense(1, ending)])
        x = np.random.default_rng(1).normal(size=(40, 6)).astype("float32")
        y = (x[:, 0] > 0).astype("float32").reshape(targets)
        _, report = kr.drop_blocks(model, x, y, loss, verbose=False)
        raw = model.predict(x, verbose=0).reshape(-1)
        expected = np.mean((raw > (0.5 if ending else 0)) == (y.reshape(-1) > 0.5))
        assert report.steps[0].accuracy == (None if loss == "mse" else pytest.approx(expected))

    @pytest.mark.parametrize(
        ("loss", "shape", "class_axis"),
        [
            (keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2), (8, 4, 3), -1),
            (keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1), (16, 3), -1),
            (keras.losses.SparseCategoricalCrossentropy(from_logits=True, axis=1), (8, 3, 6), 1),
            (keras.losses.CategoricalCrossentropy(from_logits=True, axis=1), (8, 3, 6), 1),
            (keras.losses.BinaryCrossentropy(from_logits=True), (8, 6), None),
        ],
    )
    @pytest.mark.parametrize("weighted", [False, True])
    def test_accuracy_is_over_what_counts_in_the_loss(self, loss, shape, class_axis, weighted):
        rng = np.random.default_rng(1)
        inputs = keras.Input(shape[1:])
        model = keras.Model(inputs, kr.Residual(Dense(shape[-1]), name="only")(inputs))
        x = rng.normal(size=shape).astype("float32")
        outputs = np.asarray(model.predict(x, verbose=0))
        if class_axis is None:
            y = rng.integers(0, 2, size=shape)
            right = (outputs > 0) == (y > 0)
        else:
            right_answers = outputs.argmax(class_axis)
            y = np.where(rng.random(right_answers.shape) < 0.4, right_answers, rng.integers(0, 3, right_answers.shape))
            right = right_answers == y
        counts = np.ones(right.shape)
        ignored = getattr(loss, "ignore_class", None)
        if ignored is not None:
            y = np.where(rng.random(y.shape) < 0.3, ignored, y)
            counts = (y != ignored) * counts
        if loss.name.startswith("categorical"):
            y = np.moveaxis(np.eye(3, dtype="float32")[y], -1, class_axis)
        weights = None
        if weighted:
            weights = rng.random(shape[:1] if len(right.shape) == 1 or class_axis is None else right.shape)
            counts = counts * weights.reshape(weights.shape + (1,) * (right.ndim - weights.ndim))
        report = kr.drop_blocks(model, x, y, loss, sample_weight=weights, verbose=False)[1]
        assert 0 < report.steps[0].accuracy == pytest.approx((right * counts).sum() / counts.sum(), rel=1e-5)
        expected = float(loss(y, outputs, None if weights is None else weights.astype("float32")))
        assert report.steps[0].loss == pytest.approx(expected, rel=1e-5)

    @pytest.mark.any_backend
    def test_masked_places_are_no_part_of_the_accuracy(self):
        tokens = np.array([[1, 2, 0, 0], [3, 1, 2, 0]])
        model = keras.Sequential([keras.layers.Embedding(4, 3, mask_zero=True), kr.Residual(Dense(3))])
        model.build((None, 4))
        y = np.asarray(model.predict(tokens, verbose=0)).argmax(-1)
        y[:, 1:] = np.where(tokens[:, 1:] > 0, y[:, 1:], (y[:, 1:] + 1) % 3)
        assert kr.drop_blocks(model, tokens, y, LOGITS, verbose=False)[1].steps[0].accuracy == 1.0

    @pytest.mark.any_backend
    def test_one_loss_of_two_outputs_has_no_accuracy(self):
        inputs = keras.Input((6,))
        x = kr.Residual(Dense(6), name="only")(inputs)
        model = keras.Model(inputs, [Dense(3)(x), Dense(3)(x)])
        x, y = np.ones((4, 6), "float32"), np.arange(4) % 3
        assert kr.drop_blocks(model, x, [y, y], [LOGITS, LOGITS], verbose=False)[1].steps[0].accuracy is None
        assert kr.drop_blocks(model, x, [y, y], LOGITS, verbose=False)[1].steps[0].accuracy is None


@pytest.mark.any_backend
class TestRefusals:
    @pytest.mark.parametrize(
        ("how", "reason"),
        [
            ({"skip_scale": "skip_init"}, "it scales its shortcut, by `skip_scale`"),
            ({"merge": "highway"}, "its paths are not added up, but merged by HighwayMerge"),
            ({"norm": "layer_norm", "norm_position": "post"}, "it has a norm after the sum"),
            ({"preactivation": Activation("relu")}, "its preactivation goes to both paths"),
            ({"shortcut": Dense(6, name="own")}, "its shortcut is 'own' (Dense), not an identity, and is needed"),
        ],
    )
    def test_a_block_that_is_more_than_its_branch(self, how, reason):
        inputs = keras.Input((6,))
        model = keras.Model(inputs, kr.Residual(Dense(6), name="block", **how)(inputs))
        message = f"drop_blocks: 'block' cannot go: {reason}. No block of the model can."
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            kr.drop_blocks(model, blocks="block")

    def test_one_that_changes_the_shape(self):
        inputs = keras.Input((6,))
        x = kr.Residual(Dense(6), name="same")(inputs)
        model = keras.Model(inputs, kr.Residual(Dense(8), name="wider")(x))
        message = "drop_blocks: 'wider' cannot go: it changes the shape, (None, 6) to (None, 8). These can: same."
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            kr.drop_blocks(model, blocks=["wider"])
        with pytest.raises(ValueError, match=r"`blocks` must be at most 1, the number of blocks that can go, but rec"):
            kr.drop_blocks(model, np.ones((2, 6)), np.ones((2, 8)), "mse", blocks=2)

    @pytest.mark.parametrize(
        ("how", "reason"),
        [
            ({"topology": "mhc"}, "topology 'mhc' couples all blocks"),
            (
                {"depth_rule": "inverse_depth"},
                "the scales of depth rule 'inverse_depth' depend on the number of blocks",
            ),
        ],
    )
    def test_stacks_that_depend_on_their_depth(self, how, reason):
        model = stacked(block=kr.Residual([Dense(8, "relu"), Dense(6)]), **how)
        with pytest.raises(ValueError, match=f"drop_blocks: 'stack.1' cannot go: {reason}"):
            kr.drop_blocks(model, blocks="stack.1")
        with pytest.raises(ValueError, match=f"ResidualStack 'stack': blocks cannot be removed, because {reason}"):
            model.get_layer("stack").with_blocks([0])

    def test_a_block_in_two_places(self):
        inputs, block = keras.Input((6,)), kr.Residual(Dense(6), name="twice")
        with pytest.raises(ValueError, match="'twice' cannot go: it is called more than once"):
            kr.drop_blocks(keras.Model(inputs, block(block(inputs))), blocks="twice")

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            ({"blocks": "secnd"}, "drop_blocks: unknown name for `blocks`: 'secnd'. Did you mean 'second'?"),
            ({"blocks": 0}, "drop_blocks: `blocks` must be a whole number of at least 1, but received 0 (int)."),
            ({"blocks": [1]}, "drop_blocks: `blocks` must be a number of blocks, or names of blocks, but received [1]"),
            (
                {},
                "drop_blocks: `x` must be one batch to measure the loss on, with its targets as `y`, but received None",
            ),
            (
                {"x": np.ones((2, 6))},
                "drop_blocks: `y` must be the targets of the batch, which the loss needs, but rec",
            ),
            (
                {"x": np.ones((2, 6)), "y": np.array([0, 1])},
                "drop_blocks: `loss` must be given for a model that is not compiled",
            ),
            ({"x": np.ones((2, 6)), "max_loss_rise": -1}, "drop_blocks: `max_loss_rise` must be at least 0, or None"),
        ],
    )
    def test_calls_that_are_wrong(self, arguments, line):
        with pytest.raises((ValueError, TypeError)) as caught:
            kr.drop_blocks(connections(), **arguments)
        assert str(caught.value).startswith(line)

    def test_a_loss_that_is_not_finite(self):
        with pytest.raises(ValueError, match="the loss of the model is nan on this batch"):
            kr.drop_blocks(connections(), np.full((2, 6), np.nan), np.array([0, 1]), LOGITS)

    @pytest.mark.parametrize("outcome", [np.nan, np.inf])
    @pytest.mark.parametrize("blocks", [1, "lifts", ["adds", "lifts"]])
    def test_a_block_without_which_the_loss_is_not_finite(self, outcome, blocks, capsys):
        inputs = keras.Input((6,))
        x = kr.Residual(Dense(6, kernel_initializer="zeros", bias_initializer="ones"), name="lifts")(inputs)
        if blocks == ["adds", "lifts"]:
            x = kr.Residual(Dense(6, kernel_initializer="zeros"), name="adds")(x)
        model, x = keras.Model(inputs, x), np.full((8, 6), -0.5, "float32")
        # The logarithm of a negative number, or of 0.
        lowest = -1.0 if np.isnan(outcome) else 0.0

        def loss(y, outputs):
            return -keras.ops.mean(keras.ops.log(keras.ops.maximum(outputs, lowest)), -1)

        message = f"drop_blocks: without 'lifts' the loss is {outcome} on this batch, so that the block is needed. With"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            kr.drop_blocks(model, x, x, loss, blocks=blocks)
        capsys.readouterr()
        smaller, report = kr.drop_blocks(model, x, x, loss, blocks=blocks, max_loss_rise=0.1)
        assert report.blocks == (["adds"] if isinstance(blocks, list) else [])
        assert all(np.isfinite(step.loss) for step in report.steps)
        assert smaller.get_layer("lifts")
        assert f"lifts stays: without it the loss is {outcome}, beyond" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("loss", "change", "what"),
        [
            (
                LOGITS,
                lambda y: y + 7,
                "the labels go from 7 to 9, and the model has 3 outputs, for 0 to 2. Take labels",
            ),
            (LOGITS, lambda y: y - 5, "the labels go from -5 to -3, and the model has 3 outputs, for 0 to 2"),
            (LOGITS, lambda y: y + 1, "the labels go from 1 to 3, and the model has 3 outputs, for 0 to 2"),
            (LOGITS, lambda y: y + 0.5, "they are not whole numbers (0.5 to 2.5)"),
            (
                keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2),
                lambda y: np.where(y == 0, -1, y),
                "the labels go from -1 to 1",
            ),
            (
                "binary_crossentropy",
                lambda y: 2.0 * np.eye(3)[y] - 1,
                "the targets go from -1 to 1, and the cross-entr",
            ),
            (keras.losses.BinaryFocalCrossentropy(), lambda y: 255.0 * np.eye(3)[y], "the targets go from 0 to 255"),
            ([LOGITS], lambda y: y + 7, "the labels go from 7 to 9"),
        ],
    )
    def test_targets_that_the_loss_cannot_take(self, loss, change, what):
        x, y = batch(connections())[0], np.arange(40) % 3
        with pytest.raises(
            ValueError, match=f"^drop_blocks: `y` must be targets that the loss can take, but {re.escape(what)}"
        ):
            kr.drop_blocks(connections(), x, change(y), loss)
