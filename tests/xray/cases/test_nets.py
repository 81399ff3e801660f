"""The table of nets: each rule speaks where it is due, of what it is due, and nowhere else."""

from __future__ import annotations

import pytest

from keras_residual.xray import xray
from xray.cases.nets import NETS


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_what_is_wrong_is_found_and_nothing_else(name: str) -> None:
    net = NETS[name]
    model, x, y = net.make()
    report = xray(model, x, y)
    wanted = {rule: (rules, name) for rules, name in net.finds.items() for rule in rules.split("|")}
    for entry in report.advice:
        assert entry.rule in wanted, str(report)
        assert entry.block.startswith(wanted[entry.rule][1]), str(entry)
    assert {wanted[entry.rule][0] for entry in report.advice} == set(net.finds), str(report)
