"""What answering costs with an exported ResNet-50, ours and timm's own: milliseconds of the processor on one core.

    python benchmarks/exported_speed.py
    python benchmarks/exported_speed.py --runs 31 --folder /tmp/files    # keeps the files that it has written there

timm's net is exported by `torch.onnx.export`, as PyTorch's documentation says. It has random weights and statistics;
ours has the same and must answer the same. All files of one runtime answer in turn, in new processes for each launch,
because where a process happens to have its weights in memory makes some per cent. `over_timm` and `over_float` are
medians of the ratios of runs that followed one another, the second to our file in float32. Random weights say nothing
of the accuracy of int8; `benchmarks/exported_answers.py` does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _networks as networks

NETWORK, RUNTIMES, BATCHES = "resnet50", {"onnx": ".onnx", "openvino": ".xml"}, (1, 8)
FILES = {
    "onnx": ("from_torch", "from_jax", "from_tensorflow", "int8", "timm"),
    "openvino": ("from_torch", "int8", "timm"),
}
"""What answers by each runtime: ours from each backend, ours in int8, and timm's."""
OTHERS = {"timm": "timm", "float": "from_torch"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="times that each is asked for one picture (default 15)")
    parser.add_argument("--runs-of-batches", type=int, default=7, help="the same for more than one (default 7)")
    parser.add_argument("--launches", type=int, default=3, help="times that all processes are started (default 3)")
    parser.add_argument("--core", type=int, default=0, help="the core that all run on (default 0)")
    parser.add_argument("--folder", type=Path, help="where the files lie; what is there is not written again")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        networks.answer(json.loads(arguments.here), work)
    elif arguments.write:
        write(arguments.write, arguments.folder)
    elif arguments.folder:
        measure(arguments, arguments.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(arguments, Path(folder))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Writes the files, has them answer, and reports."""
    from _report import report, write_page

    from keras_residual.deploy.int8 import has_vnni

    folder.mkdir(exist_ok=True)
    for backend in ("torch", "jax", "tensorflow"):
        call = [sys.executable, __file__, "--write", backend, "--folder", str(folder)]
        subprocess.run(call, check=True, env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"})
    check_answers(folder)
    rows = []
    for runtime, names in FILES.items():
        for batch in BATCHES:
            case = {"network": str(folder), "backend": "torch", "batch": batch, "core": arguments.core}
            runs = arguments.runs if batch == 1 else arguments.runs_of_batches
            peers = [{"peer": f"{name}{RUNTIMES[runtime]}", **case} for name in names]
            found: dict[str, list[float]] = defaultdict(list)
            for _ in range(arguments.launches):
                for peer, own in networks.in_turns(__file__, peers, runs=runs, limit=600).items():
                    found[Path(peer).stem] += own
            for name, own in found.items():
                against = {f"over_{other}": networks.over(own, found[file]) for other, file in OTHERS.items()}
                cpu_ms = round(1000 * statistics.median(own), 2)
                rows.append({"runtime": runtime, "batch": batch, "file": name, "cpu_ms": cpu_ms, **against})
    given = {name: getattr(arguments, name) for name in ("runs", "runs_of_batches", "launches")}
    report("exported_speed", rows, **given, vnni=has_vnni())
    write_page("export", "speed", table(rows))


def check_answers(folder: Path) -> None:
    """Raises where a file in float32 does not answer as timm's."""
    import numpy as np

    for runtime, names in FILES.items():
        expected = answer("timm", runtime, folder)
        for name in (name for name in names if name != "int8"):
            difference = np.abs(answer(name, runtime, folder) - expected).max() / expected.std()
            print(f"{runtime}, {name}: differs from timm's by {difference:.1e} of the deviation", flush=True)
            if not difference < 1e-3:
                raise AssertionError(f"{name} of {runtime} is another function than timm's")


def answer(name: str, runtime: str, folder: Path) -> Any:
    """Returns the first output of a file for two pictures."""
    found = work(f"{name}{RUNTIMES[runtime]}", str(folder), 2)()
    return found[0]


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as Markdown: milliseconds, over those of timm's file, over those of our float file."""
    lines = [
        "ResNet-50 at 224×224, milliseconds of the processor for a batch on one core, beside timm's net of that name"
    ]
    lines += ["exported by `torch.onnx.export` (`python benchmarks/exported_speed.py`):", ""]
    lines += ["| run by | file | batch | CPU ms | over timm's | over ours in float32 |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        cells = (row["runtime"], row["file"].replace("_", " "), row["batch"], f"{row['cpu_ms']:.1f}")
        lines.append(f"| {' | '.join(map(str, cells))} | {row['over_timm']:.2f} | {row['over_float']:.2f} |")
    return "\n".join(lines)


def write(backend: str, folder: Path) -> None:
    """Writes the files that the process of a backend makes, those that are not there."""
    import keras_residual as kr

    weights = folder / "timm.pth"
    if not weights.exists():
        _write_timm(folder, weights)
    shape = (networks.SIZE, networks.SIZE, 3)
    model = kr.create_model(NETWORK, input_shape=shape, num_classes=networks.CLASSES, weights=weights)
    for runtime, suffix in RUNTIMES.items():
        if f"from_{backend}" in FILES[runtime] and not (folder / f"from_{backend}{suffix}").exists():
            print(kr.export(model, folder / f"from_{backend}{suffix}"), flush=True)
        if backend == "torch" and not (folder / f"int8{suffix}").exists():
            # Random weights give answers that hardly depend on the picture.
            print(kr.export(model, folder / f"int8{suffix}", int8=networks.pictures(16)[0], agreement=0), flush=True)


def _write_timm(folder: Path, weights: Path) -> None:
    import openvino
    import torch

    torch.manual_seed(0)
    model = networks.timm_model(NETWORK).eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.ndim == 1:  # norms, whose scales and variances stay positive, and the bias of the head
                value.uniform_(*((0.5, 1.5) if name.endswith(("weight", "var")) else (-0.5, 0.5)))
    torch.save(model.state_dict(), weights)
    maps = torch.zeros(2, 3, networks.SIZE, networks.SIZE)
    batch = ({0: torch.export.Dim("batch")},)
    program: Any = torch.onnx.export(model, (maps,), dynamo=True, dynamic_shapes=batch, opset_version=18, verbose=False)
    program.save(str(folder / "timm.onnx"))
    openvino.save_model(openvino.convert_model(str(folder / "timm.onnx")), folder / "timm.xml", compress_to_fp16=False)


def work(peer: str, network: str, batch: int) -> Callable[[], Any]:
    """Returns the call that is timed; the network is the folder of the files."""
    x, _ = networks.pictures(batch)
    maps = x.transpose(0, 3, 1, 2).copy()
    given = maps if Path(peer).stem == "timm" else x
    path = str(Path(network, peer))
    if peer.endswith(".xml"):
        import openvino

        # Of half precision, which it may take by itself, nothing is said here.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = openvino.Core().compile_model(path, "CPU", settings)
        return lambda: compiled([given])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: given})


if __name__ == "__main__":
    main()
