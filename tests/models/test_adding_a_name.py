"""A zoo name is added as CONTRIBUTING.md says: an entry in the catalogue, and a run of the tool that counts costs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_backend
ROOT = Path(__file__).parents[2]
ENTRY = """\
        "tiny_resnet": ResNetConfig(
            block="basic", depths=(1, 1), widths=(8, 16), stem="conv3", stem_filters=8, stem_pool="none"
        ),
"""
USUAL_INPUT = '        "tiny_resnet": ((16, 16, 3), 5),\n'
PROGRAM = """\
import json, runpy, sys
runpy.run_path("tools/model_costs.py")["main"](["tiny_resnet"])
import keras_residual as kr
from keras_residual.models.facts import counted, describe, papers
from keras_residual.models.catalog import CATALOG
model = kr.create_model("tiny_resnet", input_shape=(16, 16, 3), num_classes=5)
print(json.dumps({
    "file": kr.__file__,
    "names": kr.list_models("tiny_*"),
    "shapes": [model.input_shape, model.output_shape],
    "params": counted("tiny_resnet").costs.params,
    "others": counted("resnet50").costs.params,
    "words": describe(CATALOG["tiny_resnet"])["blocks in stages"],
    "papers": papers(CATALOG["tiny_resnet"]),
}))
"""


def test_a_name_that_is_added_to_the_catalogue_is_there_throughout(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("keras_residual", "keras_residual_cli"):
        shutil.copytree(ROOT / "src" / name, tmp_path / "src" / name, ignore=ignore)
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=ignore)
    other = tmp_path / "src" / "keras_residual" / "models" / "catalog" / "other.py"
    text = other.read_text("utf-8")
    for table, entry in (("OTHER", ENTRY), ("USUAL_INPUTS", USUAL_INPUT)):
        text, places = re.subn(rf"(?m)^{table}: .*\n    {{\n", lambda found, entry=entry: found[0] + entry, text)
        assert places == 1
    other.write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "file": str(tmp_path / "src" / "keras_residual" / "__init__.py"),
        "names": ["tiny_resnet"],
        "shapes": [[None, 16, 16, 3], [None, 5]],
        "params": found["params"],
        "others": 25_557_032,
        "words": "1, 1",
        "papers": ["arXiv:1512.03385"],
    }
    stem, first = 3 * 8 * 9 + 16, 2 * 8 * 8 * 9 + 32
    second = 8 * 16 * 9 + 16 * 16 * 9 + 64 + 8 * 16 + 32
    assert found["params"] == stem + first + second + 16 * 5 + 5
