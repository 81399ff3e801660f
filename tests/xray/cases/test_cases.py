"""Each planted fault is named where it is, and each healthy net draws no advice."""

from __future__ import annotations

import pytest

from keras_residual.xray import xray
from xray.cases import architectures, faults, healthy


# Keras says so itself on TensorFlow, where the last operation is the softmax.
@pytest.mark.filterwarnings("ignore:.*received `from_logits=True`:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", faults.FAULTS)
def test_a_planted_fault_is_named_at_its_block(name: str) -> None:
    fault = faults.FAULTS[name]
    model = fault.make()
    report = xray(model, faults.X, faults.Y if getattr(model, "loss", None) else None)
    entry = report.advice[0]
    assert (entry.rule, entry.block.startswith(fault.block)) == (fault.rule, True), str(report)
    assert fault.change in entry.change
    assert str(entry).startswith(entry.block)
    assert len(report.advice) == 1, "one fault, one advice"


@pytest.mark.slow
@pytest.mark.parametrize("name", healthy.HEALTHY)
def test_a_healthy_net_draws_no_advice(name: str) -> None:
    model, x = healthy.HEALTHY[name]()
    report = xray(model, x)
    assert report.advice == [], str(report)
    assert report.model["gradient_norm_input"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_a_known_architecture_draws_no_advice(name: str) -> None:
    model, x, y = architectures.ARCHITECTURES[name]()
    report = xray(model, x, y)
    assert report.advice == [], str(report)
    assert all(block["weight_gradient_norm"] is not None for block in report.blocks)
