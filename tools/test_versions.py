"""Runs tests on the oldest releases that pyproject.toml allows and on the newest there are, and writes both down.

    python tools/test_versions.py
    python tools/test_versions.py --ends oldest --backends torch -- tests/layers -x

Each end has an environment of its own, `.venv-versions/oldest` and `.venv-versions/newest`, which is made anew where
the releases have changed. It takes 8 GB: PyPI has PyTorch for Linux with CUDA alone. `oldest` runs on the lowest Python
of `requires-python`, `newest` on the highest Python found here for which every package has a wheel. The table in
docs/dependencies.md is written once all of `TESTS` has run at both ends, be it in several calls.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from run_tests import ROOT, cases

ENVIRONMENTS = ROOT / ".venv-versions"
PAGE = ROOT / "docs" / "dependencies.md"
HEADING = "## Tested releases"
ENDS = {"oldest": "lowest-direct", "newest": "highest"}  # what uv calls them
BACKENDS = ("torch", "jax", "tensorflow")
TOOLS = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100")  # at their newest at both ends: no user installs them

# What meets the packages: each public layer, the ways to run a stack, the topologies, a net of each family, files,
# X-ray, surgery, training and export. Not the rest, which meets our own code alone, or timm.
TESTS = (
    "tests/test_public_api.py",
    "tests/backend",
    "tests/residual",
    "tests/layers",
    "tests/stacks",
    "tests/models",
    "tests/integration/test_saving.py",
    "tests/weights",
    "tests/xray",
    "tests/surgery",
    "tests/data",
    "tests/training",
    "tests/deploy",
)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ends", nargs="+", choices=ENDS, default=list(ENDS))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("tests", nargs="*", help="arguments for pytest in place of the fixed part, behind --")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    status = 0
    for end in arguments.ends:
        environment = prepare(end, pythons(project["requires-python"]))
        print(f"\n== {end}: {environment}", flush=True)
        command = [environment / "bin" / "python", ROOT / "tools" / "run_tests.py", "--backends", *arguments.backends]
        # Old releases use what their own dependencies have deprecated since, which nobody can mend here.
        warnings = ["-W", "default::DeprecationWarning"] if end == "oldest" else []
        chosen = [*(arguments.tests or TESTS), *warnings]
        done = subprocess.run([*command, "--", *chosen], env=clean_environment(), check=False)
        status = status or done.returncode
    if arguments.tests:
        return status
    found = {end: results(ENVIRONMENTS / end) for end in ENDS}
    missing = [f"{end} on {backend}" for end in ENDS for backend in BACKENDS if backend not in found[end]["tests"]]
    if missing:
        print(f"\n{PAGE.relative_to(ROOT)} is not written before these have run: {', '.join(missing)}.")
    else:
        rest = PAGE.read_text(encoding="utf-8").partition(HEADING)[0].rstrip()
        PAGE.write_text(f"{rest}\n\n{section(found, direct(project))}", encoding="utf-8")
        print(f"\nWrote {PAGE.relative_to(ROOT)}.")
    return status


def direct(project: dict[str, Any]) -> dict[str, str]:
    """Returns the lower bound of each package that the project or an extra of it asks for, by the package's name.

    Args:
        project: The table `project` of pyproject.toml.
    """
    extras = project.get("optional-dependencies", {}).values()
    bounds = {}
    for requirement in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        read = re.fullmatch(r"([\w.-]+)(?:\[.*\])?(?:>=([\w.]+))?", requirement.replace(" ", ""))
        if not read:
            raise SystemExit(f"pyproject.toml: `{requirement}` must be a name alone or NAME>=RELEASE.")
        name, lowest = read.groups()
        if name != project["name"]:
            bounds[name] = lowest
    return bounds


def pythons(allowed: str) -> list[str]:
    """Returns the interpreters here from the lowest that is allowed upwards, one a minor version.

    Args:
        allowed: As `requires-python` has it, such as `">=3.11"`.
    """
    lowest = int(re.fullmatch(r">=3\.(\d+)", allowed)[1])
    folders = [*os.get_exec_path(), *sorted(map(str, Path.home().glob(".pyenv/versions/3.*/bin")))]
    found = []
    for minor in range(lowest, lowest + 20):
        for folder in folders:
            path = shutil.which(f"python3.{minor}", path=folder)
            # pyenv has a command for each version, of which those that are not chosen answer with an error.
            if path and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode:
                found.append(path)
                break
        if minor == lowest and not found:
            raise SystemExit(f"The oldest releases are tested on Python 3.{lowest}, and no python3.{lowest} is here.")
    return found


def prepare(end: str, interpreters: list[str]) -> Path:
    """Returns the environment of an end, made anew where the releases have changed."""
    environment = ENVIRONMENTS / end
    for python in interpreters[:1] if end == "oldest" else reversed(interpreters):
        # A package without a wheel is one that this Python has no release for yet, or no longer.
        choose = ["pip", "compile", "--quiet", "--all-extras", "--only-binary", ":all:", "--resolution", ENDS[end]]
        chosen = uv(*choose, "--no-annotate", "--no-header", "--python", python, "pyproject.toml")
        if not chosen.returncode:
            break
        print(f"{end}: not on {python}\n{chosen.stderr}", flush=True)
    else:
        raise SystemExit(f"No set of {end} releases fits pyproject.toml.")
    version = subprocess.run([python, "-V"], text=True, capture_output=True, check=True).stdout.split()[1]
    releases = f"python=={version}\n{chosen.stdout}"
    kept = environment / "releases.txt"
    if kept.exists() and kept.read_text() == releases:
        return environment
    print(f"Installing the {end} releases on Python {version}: some gigabytes", flush=True)
    shutil.rmtree(environment / "logs", ignore_errors=True)  # they are of other releases
    pinned = environment / "pinned.txt"
    checked(uv("venv", "--quiet", "--allow-existing", "--python", python, str(environment)))
    pinned.write_text(chosen.stdout)
    here = ["--python", str(environment / "bin" / "python"), "--requirement", str(pinned), "--editable", str(ROOT)]
    checked(uv("pip", "install", "--quiet", "--exact", *here, *TOOLS))
    kept.write_text(releases)
    return environment


def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs uv, which alone among the installers can choose the lowest releases."""
    command = [sys.executable, "-m", "uv", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean_environment(), text=True, capture_output=True, check=False)


def checked(done: subprocess.CompletedProcess[str]) -> None:
    """Ends the program with what uv said where it failed."""
    if done.returncode:
        raise SystemExit(done.stderr)


def clean_environment() -> dict[str, str]:
    """Returns the variables without the environment that this program runs in."""
    return {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}


def results(environment: Path) -> dict[str, Any]:
    """Returns the releases of an end by the package's name, and of each backend how many tests came to what."""
    releases = environment / "releases.txt"
    if not releases.exists():
        return {"releases": {}, "tests": {}}
    tests = {
        path.stem: Counter(kind for _, kind, _ in cases(path)) for path in sorted((environment / "logs").glob("*.xml"))
    }
    return {"releases": dict(line.split("==") for line in releases.read_text().splitlines()), "tests": tests}


def section(found: dict[str, Any], bounds: dict[str, str]) -> str:
    """Returns the section of the page.

    Args:
        found: For each end what `results` returns.
        bounds: What `direct` returns.
    """
    lines = [
        HEADING,
        "",
        "*Oldest* is the lowest release that each package above may have, on the lowest Python; *newest* is the",
        "highest of everything. `make test-versions` installs both, runs the tests that meet other packages on each",
        "backend, and writes this section.",
        "",
        "| | oldest | newest |",
        "| --- | --- | --- |",
    ]
    for name in ("python", *bounds):
        lines.append(f"| {name} | {' | '.join(found[end]['releases'].get(name.lower(), '–') for end in ENDS)} |")
    for backend in BACKENDS:
        lines.append(f"| tests on {backend} | {' | '.join(summary(found[end]['tests'][backend]) for end in ENDS)} |")
    return "\n".join([*lines, ""])


def summary(kinds: Counter[str]) -> str:
    """Returns the counts in words."""
    return ", ".join(f"{kinds[kind]} {kind}" for kind in ("passed", "failed", "skipped"))


if __name__ == "__main__":
    sys.exit(main())
