"""The machine at hand: device, versions, threads, memory."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("ppl-gen", "torch", "pyro-ppl", "numpyro", "jax", "scikit-learn", "numpy")


def versions() -> str:
    """Versions of what is compared, in words; what is not installed says so."""
    told = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            told.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            told.append(f"{name} not installed")
    return ", ".join(told)


def threads() -> str:
    """How many threads the libraries take, in words."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS")
    in_torch = asked or f"{torch.get_num_threads()} (its default)"
    return f"torch {in_torch}, JAX {os.environ.get('NPROC') or f'{cores} (its default)'}"


def load() -> str:
    """How many other programs want the cores, in words."""
    return f"{os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"


def device() -> str:
    """Name of the device that is computed on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def torch_device() -> str:
    """The device that ours takes by default, for the others to take as well."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    """Return when the device has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Largest resident memory of this process so far, libraries included.

    Linux carries ``ru_maxrss`` of a parent over to its children, but not the mark of the kernel's
    own table.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
