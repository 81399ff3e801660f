"""The table of pretrained weights against the installed timm, and the aliases against the installed torchvision."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
from pathlib import Path

import pytest

from keras_residual.models.catalog.aliases import ALIASES
from parity.timm_peer import timm

pytestmark = pytest.mark.any_backend

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "timm_pretrained.py"))


def test_the_table_is_what_timm_says():
    text = TOOL["TABLE"].read_text(encoding="utf-8")
    present = json.loads(text)
    if timm.__version__ != present["timm"]:
        pytest.skip(f"the table is that of timm {present['timm']}, and {timm.__version__} is installed")
    made = TOOL["table"](TOOL["results_in"](present), present["results_of"])
    assert made == present
    assert TOOL["to_json"](made) == text


def test_results_are_read_from_timm_s_file(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(
        "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation\n"
        "a.b,288,81.240,18.760,95.112,4.888,25.56,1.000,bicubic\n"
        "a.b,224,80.382,19.618,94.598,5.402,25.56,0.950,bicubic\n"
    )
    assert TOOL["read_results"](path) == {"a.b": [[288, 1.0, 81.24], [224, 0.95, 80.382]]}


def test_weights_of_torchvision_are_the_files_that_timm_names():
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchvision is not installed")
    source = (Path(spec.origin).parent / "models" / "resnet.py").read_text(encoding="utf-8")
    files = {}
    for name, body in re.findall(r"^class (\w+_Weights)\(WeightsEnum\):\n(.*?)(?=^\S)", source, re.M | re.S):
        entries = re.findall(r"^    (\w+) = Weights\(\s*url=\"([^\"]+)\"", body, re.M)
        files |= {f"{name}.{entry}": url for entry, url in entries}
        (default,) = re.findall(r"^    DEFAULT = (\w+)", body, re.M)
        files[f"{name}.DEFAULT"] = files[f"{name}.{default}"]
    ours = {alias.name: alias for alias in ALIASES.values() if alias.source == "torchvision"}
    by_class = {name: alias for name, alias in ours.items() if name.split(".")[0].endswith("_Weights")}
    assert {name: timm.models.get_pretrained_cfg(alias.target).url for name, alias in by_class.items()} == files
    # A builder is the architecture of its class, so both names lead to one place.
    assert {(alias.target, name.split(".")[1]) for name, alias in by_class.items()} == {
        (alias.target, name.split(".")[1]) for name, alias in ours.items() if name not in by_class
    }
