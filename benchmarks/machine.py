"""What the figures were measured on. Names of hosts and paths stay out of it."""

import os
import platform
import sqlite3
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("embedq", "numpy", "arq", "redis", "llm", "faiss-cpu", "usearch", "sqlite-vec", "torch")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, str | int | float]:
    """Cores, memory, system and versions, and how loaded the machine was before."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(int(psutil.virtual_memory().total) / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load_before": round(os.getloadavg()[0], 2),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
