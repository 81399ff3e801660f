"""A disk of a size that a test chooses, to fill it up."""

import os
import subprocess

import pytest


@pytest.fixture
def mounted(tmp_path):
    """Mounts a memory disk; skips, with the system's reason, where that is not permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no memory disk can be mounted: {done.stderr.strip()}")
        return disk

    yield mount
    if os.path.ismount(disk):
        subprocess.run(["umount", disk], check=True)
