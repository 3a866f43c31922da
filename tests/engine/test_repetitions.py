"""Compiled code that repeats readable code changes with it.

The table `repetitions.json` has a digest of every readable class and function that is marked with `@compiled` or
`@repeated_in(part)`, and of every compiled part with the C headers that it declares, because these repeat Python code
too: the form of an address, the flags of epoll. Comments, docstrings and layout do not count. A change of one side
fails until the other side has been compared, and the table renewed: .venv/bin/python -m tests.engine.test_repetitions

The failure names the compiled function to compare. It is found by the table `PARTS`, by the same name, or, where the
names differ, by the comment `# Repeats ...` above the compiled function.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from hashlib import sha256
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "vthreads"
TABLE = Path(__file__).with_name("repetitions.json")
RENEW = ".venv/bin/python -m tests.engine.test_repetitions"

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "_core/engine/accelerated.pyx").exists(),
    reason="an installed package has no sources of the compiled engine",
)

ROOT = PACKAGE / "_core/engine/accelerated.pyx"
# A row of the table `PARTS`: the readable name and the compiled one.
REPLACED = re.compile(r'^ +"vthreads\.([\w.]+)": (\w+),$', re.M)
# The line that begins a class or function, and the comment that names what the next one repeats.
COMPILED = re.compile(r"^( *)(cdef class(?=.*:$)|cdef(?! class)|cpdef|def)\b[^\n(=:]*?(\w+)[(:]", re.M)
REPEATS = re.compile(r"^ *# Repeats (?:.*\n)(?: *#.*\n)*", re.M)
# The header of a part, below the package.
HEADER = re.compile(r'^cdef extern from "((?:\w+/)*compiled/\w+\.h)"', re.M)
C_COMMENT = re.compile(r"/\*.*?\*/", re.S)
DOCSTRING_OR_COMMENT = re.compile(r'^\s*"""(?:.|\n)*?"""\s*$|#.*', re.M)


def digest(text):
    return sha256(" ".join(text.split()).encode()).hexdigest()[:12]


def digest_of_part(part):
    text = (PACKAGE / part).read_text()
    headers = [C_COMMENT.sub("", (PACKAGE / header).read_text()) for header in HEADER.findall(text)]
    return digest("\n".join([DOCSTRING_OR_COMMENT.sub("", text), *headers]))


def code_of(node, lines):
    """The text of a class or function without marks, comments and docstrings."""
    docstrings = set()
    for inner in ast.walk(node):
        if isinstance(inner, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(inner, clean=False) is not None:
            docstrings.update(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    kept = ["" if number in docstrings else line for number, line in enumerate(lines, 1)]
    text = "\n".join(kept[node.lineno - 1 : node.end_lineno]) + "\n"
    indent = " " * node.col_offset
    text = "\n".join(line.removeprefix(indent) for line in text.split("\n"))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.start for token in tokens if token.type == tokenize.COMMENT]
    rows = text.split("\n")
    for row, column in comments:
        rows[row - 1] = rows[row - 1][:column]
    return "\n".join(rows)


def part_named_by(decorator, path):
    """The part that a decorator in the module `path` names, as a path below the package; None if it is no mark."""
    match decorator:
        case ast.Name(id="compiled"):
            return (path.parent / "compiled" / f"{path.stem}.pxi").as_posix()
        case ast.Call(func=ast.Name(id="repeated_in"), args=[ast.Constant(value=part)]):
            return part
    return None


def marked_in(path):
    """The marked classes and functions of the module `path` (below the package): name, part, digest."""
    text = (PACKAGE / path).read_text()
    if "repeated_in" not in text and "compiled" not in text:
        return
    lines = text.split("\n")

    def visit(body, prefix):
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                for decorator in node.decorator_list:
                    part = part_named_by(decorator, path)
                    if part is not None:
                        yield f"{path.as_posix()}: {prefix}{node.name}", part, digest(code_of(node, lines))
                if isinstance(node, ast.ClassDef):
                    yield from visit(node.body, f"{prefix}{node.name}.")

    yield from visit(ast.parse(text).body, "")


def found():
    """The table as the sources have it now."""
    paths = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    marked = [each for path in paths for each in marked_in(path)]
    parts = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("compiled/*.pxi"))
    readable = {}
    for name, part, value in marked:
        readable.setdefault(name, {"parts": [], "digest": value})["parts"].append(part)
    return {"parts": {part: digest_of_part(part) for part in parts}, "readable": readable}


def places_in(text):
    """The places in a part by what stands there: the names of its classes and functions, and what these repeat."""
    begun, holder = [], ""
    for match in COMPILED.finditer(text):
        indent, kind, name = match.groups()
        holder = holder if indent else ""
        line = text.count("\n", 0, match.start()) + 1
        begun.append((match.start(), name, f"{holder}{name} (line {line})"))
        holder = f"{name}." if kind == "cdef class" else holder
    places = {}
    for _, name, place in begun:
        places.setdefault(name, []).append(place)
    for match in REPEATS.finditer(text):
        below = next(place for start, _, place in begun if start >= match.end())
        for name in re.findall(r"`([\w.]+)`", match[0]):
            places.setdefault(f"repeated: {name}", []).append(below)
    return places


def place_of(entry, part):
    """Where `part` repeats the readable `entry`; None if it does not say so."""
    path, name = entry.split(": ")
    places = places_in((PACKAGE / part).read_text())
    full_name = f"{path.removesuffix('.py').replace('/', '.')}.{name}"
    # `PARTS` has separate compiled names where several modules or classes have the same, such as `put`.
    compiled = dict(REPLACED.findall(ROOT.read_text())).get(full_name, name.rpartition(".")[2])
    found = places.get(f"repeated: {name}", []) or places.get(compiled, [])
    return " and ".join(found) or None


def written():
    return json.loads(TABLE.read_text())


def write(table):
    """One entry a line, so that changes of several people merge."""
    sections = [
        f'  "{section}": {{\n'
        + ",\n".join(f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(entries.items()))
        + "\n  }"
        for section, entries in table.items()
    ]
    TABLE.write_text("{\n" + ",\n".join(sections) + "\n}\n")


def advice(before, after, place=place_of):
    """The advice for each difference between two tables."""
    parts = {name for name, value in after["parts"].items() if before["parts"].get(name) != value}
    for name, entry in sorted(after["readable"].items()):
        if before["readable"].get(name) != entry:
            for part in entry["parts"]:
                same = "changed as well" if part in parts else "did not change"
                yield f"{name} changed; {place(name, part)} of {part}, which repeats it, {same}"
    for name in sorted(before["readable"].keys() - after["readable"].keys()):
        yield f"{name} is gone or has lost its mark; see {' and '.join(before['readable'][name]['parts'])}"
    for part in sorted(parts):
        yield f"{part} changed; see what it repeats:"
        for name, entry in after["readable"].items():
            if part in entry["parts"]:
                yield f"    {place(name, part)} repeats {name}"
    for part in sorted(before["parts"].keys() - after["parts"].keys()):
        yield f"{part} is gone"


def test_both_sides_are_as_they_were_when_they_were_compared():
    differences = list(advice(written(), found()))
    todo = (
        f"Change the other side as well if it must change, run the tests on both engines, and renew the table: {RENEW}"
    )
    assert not differences, "\n".join([*differences, "", todo])


def test_the_compiled_code_of_each_mark_is_found():
    marks = [(name, part) for name, entry in found()["readable"].items() for part in entry["parts"]]
    nowhere = [f"{name} in {part}" for name, part in marks if place_of(name, part) is None]
    assert [] == nowhere, "write `# Repeats ...` with this name above the compiled function"


def test_each_comment_on_what_is_repeated_names_marked_code():
    table = found()
    marked = {(part, name.split(": ")[1]) for name, entry in table["readable"].items() for part in entry["parts"]}
    said = {
        (part, place.removeprefix("repeated: "))
        for part in table["parts"]
        for place in places_in((PACKAGE / part).read_text())
        if place.startswith("repeated: ")
    }
    assert set() == said - marked, "decorate the readable code with `@repeated_in`, or correct the comment"


def test_every_mark_names_a_part_and_every_part_is_named():
    table = found()
    named = {part for entry in table["readable"].values() for part in entry["parts"]}
    # Interfaces of C, tables, and what has no readable twin.
    alone = {f"_core/engine/compiled/{name}.pxi" for name in ("interpreter", "parts", "run_queue", "section", "states")}
    # These repeat the standard library: see `tests/calls/test_standard_conditions.py`.
    alone |= {f"_calls/compiled/{name}.pxi" for name in ("standard_conditions", "standard_queues")}
    assert set() == named - table["parts"].keys(), "a mark names a part that does not exist"
    assert set() == table["parts"].keys() - alone - named, "mark the readable code that this part repeats"


def test_every_header_belongs_to_a_part():
    headers = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("compiled/*.h")}
    declared = {header for part in found()["parts"] for header in HEADER.findall((PACKAGE / part).read_text())}
    assert headers == declared


def differences_after(before, **changes):
    after = {"parts": {**before["parts"], **changes.get("parts", {})}, "readable": dict(before["readable"])}
    after["readable"].update(changes.get("readable", {}))
    return list(advice(before, after, place=lambda name, part: "_g (line 1)"))


BEFORE = {"parts": {"a.pxi": "1"}, "readable": {"a.py: f": {"parts": ["a.pxi"], "digest": "1"}}}


def test_a_change_of_one_side_alone_is_told():
    changed_reading = {"a.py: f": {"parts": ["a.pxi"], "digest": "2"}}
    assert ["a.py: f changed; _g (line 1) of a.pxi, which repeats it, did not change"] == differences_after(
        BEFORE, readable=changed_reading
    )
    changed_part = ["a.pxi changed; see what it repeats:", "    _g (line 1) repeats a.py: f"]
    assert changed_part == differences_after(BEFORE, parts={"a.pxi": "2"})
    assert [] == differences_after(BEFORE)


def test_code_that_several_parts_repeat_is_compared_with_each():
    before = {
        "parts": {"a.pxi": "1", "b.pxi": "1"},
        "readable": {"a.py: f": {"parts": ["a.pxi", "b.pxi"], "digest": "1"}},
    }
    changed = {"a.py: f": {"parts": ["a.pxi", "b.pxi"], "digest": "2"}}
    assert [
        "a.py: f changed; _g (line 1) of a.pxi, which repeats it, changed as well",
        "a.py: f changed; _g (line 1) of b.pxi, which repeats it, did not change",
        "a.pxi changed; see what it repeats:",
        "    _g (line 1) repeats a.py: f",
    ] == differences_after(before, parts={"a.pxi": "2"}, readable=changed)
    marks = found()["readable"]["_calls/net/readiness.py: _park"]["parts"]
    assert "_calls/net/compiled/attempts.pxi" in marks
    assert "_calls/net/compiled/select.pxi" in marks


PART = """
cdef class Fields

cdef class Fields(Fiber):
    cdef object value
    # Repeats `Owner.left`, and also
    # `Owner.settle`.
    cdef bint _end(self, value) except -1:
        pass

def spawn(self, fn):
    pass
"""


def test_compiled_code_is_found_by_its_name_or_by_the_comment_above_it():
    end = ["Fields._end (line 8)"]
    expected = {
        "Fields": ["Fields (line 4)"],
        "_end": end,
        "spawn": ["spawn (line 11)"],
        "repeated: Owner.left": end,
        "repeated: Owner.settle": end,
    }
    assert expected == places_in(PART)


def test_comments_and_docstrings_do_not_count_and_code_does():
    def digest_of(text):
        [node] = ast.parse(text).body
        return digest(code_of(node, text.split("\n")))

    plain = 'def f():\n    return "# no comment"\n'
    assert digest_of(plain) == digest_of('def f():\n    """Say."""\n    # Why.\n    return "# no comment"  # so\n')
    assert digest_of(plain) != digest_of('def f():\n    return "# a comment"\n')


if __name__ == "__main__":
    write(found())
