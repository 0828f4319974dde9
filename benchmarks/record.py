"""Write a benchmark's figures with everything needed to judge and repeat them."""

import json
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vaecourse.errors import CourseError

RESULTS = Path(__file__).parent / "results"


def hardware(device: str = "cpu") -> str:
    """Processor, or GPU, that the figures were measured on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0].split(":")[1].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads"


def commit() -> str:
    """The commit that was measured; `+` if tracked files had changed since."""
    head, changed = (
        subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
        for words in (
            ["rev-parse", "--short=12", "HEAD"],
            ["status", "--porcelain", "--untracked-files=no", "--", "vaecourse", "benchmarks/*.py"],
        )
    )
    return head + ("+" if changed else "")


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; what a user can mend ends in one sentence."""
    try:
        main()
    except CourseError as error:
        raise SystemExit(str(error)) from error


def write(name: str, *, protocol: str, seed: int, results: list[dict[str, Any]]) -> None:
    """Write `results/<name>.json`; each result has a name, a value, its `se` and its unit."""
    record = {
        "benchmark": name,
        "protocol": protocol,
        "seed": seed,
        "commit": commit(),
        "hardware": hardware(),
        "versions": {package: version(package) for package in ("torch", "torchvision", "numpy")},
        "results": results,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(path.read_text())
