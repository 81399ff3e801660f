"""What the processor can do."""

from __future__ import annotations

from pathlib import Path


def has_vnni() -> bool:
    """Returns whether the processor multiplies 8-bit numbers without overflow in between (VNNI, or ARM).

    Where nothing tells, the answer is False, which costs a bit of precision.
    """
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return False
    words = set(info.read_text(errors="replace").split())
    return bool(words & {"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
