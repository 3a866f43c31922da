"""The fragments of the changelog: they are well-formed, and a release moves them into it."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def changelog(root, *arguments):
    command = [sys.executable, str(root / ".ci" / "changelog"), *arguments]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "" == ended.stderr
    return ended.returncode, ended.stdout


def project(folder, **fragments):
    (folder / ".ci").mkdir()
    (folder / "changes").mkdir()
    shutil.copy(ROOT / ".ci" / "changelog", folder / ".ci")
    (folder / "changes" / "README.md").write_text("how")
    (folder / "CHANGELOG.md").write_text("# Changelog\n\n<!-- releases -->\n\n## 0.1.0\n\nthe first\n")
    for name, text in fragments.items():
        (folder / "changes" / f"{name.replace('__', '.')}").write_text(text)
    return folder


def test_the_fragments_are_well_formed():
    assert (0, "") == changelog(ROOT)


def test_a_wrong_name_or_content_is_reported(tmp_path):
    root = project(tmp_path, lock="- a", lock__new__md="- a", queue__fixed__md="a")
    status, text = changelog(root, "release", "0.2.0")
    assert 1 == status
    assert ["lock", "lock.new.md", "queue.fixed.md"] == [line.partition(":")[0] for line in text.splitlines()]
    assert "## 0.2.0" not in (root / "CHANGELOG.md").read_text()


def test_a_release_moves_the_fragments_above_the_last_one(tmp_path):
    root = project(tmp_path, lock__fixed__md="- a\n", queue__fixed__md="- b\n", map__added__md="- c\n  more\n")
    assert (0, "") == changelog(root, "release", "0.2.0")
    lines = [line for line in (root / "CHANGELOG.md").read_text().splitlines() if line]
    assert lines[2].startswith("## 0.2.0 (")
    assert ["### Added", "- c", "  more", "### Fixed", "- a", "- b", "## 0.1.0", "the first"] == lines[3:]
    assert ["README.md"] == [path.name for path in (root / "changes").iterdir()]
