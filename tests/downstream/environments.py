"""The source tree of a suite, and an environment for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from .suites import Suite

__all__ = ["Place", "prepare"]

ROOT = Path(__file__).parents[2]
GUARD = ROOT / "tests" / "loopback_only"
PLUGINS = Path(__file__).parent / "plugins"


class Place:
    """The directory of a suite: its source tree and its environment. Both are made once and then used again."""

    def __init__(self, directory: Path, checkout: Path | None) -> None:
        self._directory = directory
        self._checkout = checkout
        self.python = directory / "venv" / "bin" / "python"

    @property
    def source(self) -> Path:
        """The root of the source tree."""
        if self._checkout is not None:
            return self._checkout
        [tree] = [entry for entry in (self._directory / "source").iterdir() if entry.is_dir()]
        return tree

    def make(self, suite: Suite) -> None:
        """Download, unpack and install, unless that has been done."""
        done = self._directory / "installed"
        state = f"{sys.version}\n{suite.project} {suite.requirements}\n"
        if done.exists() and done.read_text() == state:
            return
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", self._directory / "venv"], check=True)
        if self._checkout is None:
            self._unpack(suite.project.partition("[")[0])
        project = str(self.source) + "[" + suite.project.partition("[")[2] if "[" in suite.project else str(self.source)
        wanted = suite.project if suite.in_checkout_only else project
        self._pip("install", wanted, "pytest", "pytest-timeout", *suite.requirements)
        self._pip("install", "greenlet")
        # This checkout, with the engine that is compiled already for the Python that makes this environment.
        self._site_packages().joinpath("vthreads.pth").write_text(f"{ROOT / 'src'}\n")
        done.write_text(state)

    def _unpack(self, project: str) -> None:
        target = self._directory / "source"
        target.mkdir(exist_ok=True)
        self._pip("download", "--no-binary", ":all:", "--no-deps", "--dest", target, project)
        [archive] = target.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
        archive.unlink()

    def _site_packages(self) -> Path:
        command = [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())

    def _pip(self, *arguments: str | Path) -> None:
        # Outside the tree, where a package of the same name would come first.
        command = [self.python, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments]
        subprocess.run(command, check=True, cwd=self._directory)

    def environment(self, suite: Suite, log: Path) -> dict[str, str]:
        """The variables of a run: behind the guard that refuses what lies outside this machine, and written down."""
        inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
            inherited.pop(name, None)
        paths = os.pathsep.join(map(str, [GUARD, PLUGINS]))
        return {**inherited, **suite.environment, "PYTHONPATH": paths, "DOWNSTREAM_LOG": str(log)}


def prepare(name: str, suite: Suite, cache: Path, checkout: Path | None) -> Place:
    """The place of suite `name`, ready to run."""
    place = Place(cache / name, checkout)
    place.make(suite)
    if suite.before:
        subprocess.run([place.python, "-c", suite.before], check=True)
    return place
