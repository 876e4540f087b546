"""Runs laws, inference and training under each instruction set that this machine can be held to.

Use: `python tests/instruction_sets.py [options of pytest]`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FLAGS = {
    "SSE41": "sse4_1", "AVX2": "avx2", "AVX512_CORE": "avx512f", "default": "", "avx2": "avx2", "avx512": "avx512f",
}  # fmt: skip
"""Each value of a limit, and the flag of a processor that has it; lacking one, torch would stop at an instruction."""
LIMITS = {"ONEDNN_MAX_CPU_ISA": ("SSE41", "AVX2", "AVX512_CORE"), "ATEN_CPU_CAPABILITY": ("default", "avx2", "avx512")}
TESTS = ("tests/laws", "tests/inference", "tests/training")


def flags() -> set[str]:
    """What Linux says that the processor has; nothing elsewhere."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def main(options: list[str]) -> int:
    """Say what is run and what is skipped; returns 1 if any run failed."""
    has, failed = flags() | {""}, []
    for limit, values in LIMITS.items():
        for value in values:
            name = f"{limit}={value}"
            if FLAGS[value] not in has:
                sys.stdout.write(f"== {name}: skipped, this processor has no {FLAGS[value]}\n")
                continue
            sys.stdout.write(f"== {name}\n")
            sys.stdout.flush()
            command = [sys.executable, "-m", "pytest", *options, *TESTS]
            if subprocess.run(command, env=os.environ | {limit: value}, check=False).returncode:
                failed.append(name)
    sys.stdout.write(f"== failed under {', '.join(failed)}\n" if failed else "== all passed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
