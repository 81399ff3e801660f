"""Builds sdist and wheel, and uses the wheel in empty environments, one for each backend alone.

Needs `build` in the environment that runs it, and a package registry. Any failure ends it with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
# Distributions that bring each backend; an environment for one must hold none of the others'.
BACKENDS = {"jax": {"jax"}, "torch": {"torch"}, "tensorflow": {"tensorflow", "tensorflow-cpu"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="keep sdist and wheel in this folder")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keras-residual-") as folder:
        workplace = Path(folder)
        wheel = build(workplace / "dist")
        check_contents(wheel)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(lambda backend: check_backend(wheel, backend, workplace / backend), arguments.backends):
                pass  # raises what a check has raised
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            for artefact in wheel.parent.iterdir():
                print(f"Built {shutil.copy(artefact, arguments.out)}")


def build(folder: Path) -> Path:
    """Returns the wheel, built from the sdist, so that the sdist is known to be whole."""
    run([sys.executable, "-m", "build", "--outdir", folder, ROOT], cwd=ROOT, quiet=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """The wheel holds every file of the two packages, its own metadata, and nothing else."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    if names != there:
        raise SystemExit(f"Wheel lacks {sorted(there - names)} and has beyond src {sorted(names - there)}.")
    print(f"{wheel.name}: {len(names)} files, the same as in src")


def check_backend(wheel: Path, backend: str, folder: Path) -> None:
    """Installs the wheel with one extra only and runs program and command there, outside the checkout."""
    environment = Environment(folder)
    environment.install(f"{wheel}[{backend}]")
    installed = environment.installed()
    others = set().union(*(names for other, names in BACKENDS.items() if other != backend)) & installed
    if others or not BACKENDS[backend] & installed:
        raise SystemExit(f"The extra {backend!r} brought {sorted(others) or 'no backend'}.")

    environment.python(ROOT / "tests" / "packaging" / "program.py", backend, ROOT)
    version = environment.command("--version").stdout
    if wheel.name.split("-")[1] not in version:
        raise SystemExit(f"keras-residual --version printed {version!r} for {wheel.name}.")
    if "train" not in environment.command("--help").stdout:
        raise SystemExit("keras-residual --help does not list `train`.")

    refused = environment.command("train", "digits", status=2)
    line = "pip install 'keras-residual[train]'"
    if line not in " ".join(refused.stderr.split()):
        raise SystemExit(f"Without the extra, `train` must say {line!r}, but printed: {refused.stderr}")
    print(f"keras-residual train on {backend} without its extra: exit 2, names the pip line")

    if backend == "jax":
        environment.install(f"{wheel}[jax,train]")
        environment.command("train", "digits", "--out", "run", "--set", "epochs=1")
        left = {path.name for path in (folder / "run").iterdir()}
        wanted = {"config.toml", "model.keras", "history.csv", "metrics.json", "report.html"}
        if not wanted <= left:
            raise SystemExit(f"The run directory lacks {sorted(wanted - left)}.")
        metrics = json.loads((folder / "run" / "metrics.json").read_text())
        print(f"Trained one epoch from the wheel: test accuracy {metrics['test_accuracy']:.3f}")


class Environment:
    """An empty virtual environment, and a folder to work in."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        venv.create(folder / "venv", with_pip=True)
        # The pin keeps every environment on the PyTorch that the tests run on.
        self.constraints = folder / "constraints.txt"
        self.constraints.write_text("torch==2.13.0\n")
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KERAS", "VIRTUAL"))
        }
        # Nothing names the backend: the library and the command have to find the one that is there.
        self.variables = kept | {"KERAS_HOME": str(folder), "COLUMNS": "200"}
        self.variables["TF_CPP_MIN_LOG_LEVEL"] = "3"
        self.variables["KERAS_RESIDUAL_COMPILATION_CACHE"] = "off"

    def install(self, *requirements: str) -> None:
        print(f"Installing {', '.join(Path(requirement).name for requirement in requirements)}", flush=True)
        pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        run([self.bin / "python", *pip, "--constraint", self.constraints, *requirements], cwd=self.folder)

    def installed(self) -> set[str]:
        listing = run([self.bin / "python", "-m", "pip", "list", "--format", "json"], cwd=self.folder, quiet=True)
        return {entry["name"].lower().replace("_", "-") for entry in json.loads(listing.stdout)}

    def python(self, *arguments: object) -> None:
        run([self.bin / "python", *arguments], cwd=self.folder, env=self.variables)

    def command(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [self.bin / "keras-residual", *arguments]
        return run(command, cwd=self.folder, env=self.variables, status=status, quiet=True)


def run(
    command: list, *, cwd: Path, env: dict | None = None, status: int = 0, quiet: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs a command; raises with what it printed unless it ends with `status`."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, text=True, capture_output=quiet, check=False)
    if done.returncode != status:
        printed = f"\n{done.stdout}{done.stderr}" if quiet else ""
        raise SystemExit(f"`{' '.join(words)}` ended with {done.returncode}, not {status}.{printed}")
    return done


if __name__ == "__main__":
    main()
