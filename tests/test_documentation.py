"""The pages under docs and docstrings: their Python runs; what they list of patch, rules, layers, source is true."""

import ast
import builtins
import importlib
import keyword
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from functools import cache
from pathlib import Path

import pytest

import vthreads._core
from vthreads._core.delivery_table import ACTIONS, Condition
from vthreads._core.engine import engine_name
from vthreads._core.participants import ORDER, Participant, participants
from vthreads._patching import table

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "vthreads"
DOCS = ROOT / "docs"
INTERNALS = DOCS / "internals.md"
CANCELLATION = DOCS / "explanation" / "cancellation.md"
# Need packages or servers of the tests of drivers: the modules in `tests/drivers` run them.
OF_DRIVERS = {
    DOCS / name
    for name in (
        "how-to/language-models.md",
        "how-to/use-celery.md",
        "how-to/use-dask.md",
        "how-to/use-django.md",
        "tutorial/service.md",
    )
}
COMMANDS = DOCS / "reference" / "commands.md"
PAGES = sorted(set(DOCS.rglob("*.md")) - OF_DRIVERS)
BLOCKING_CALLS = DOCS / "how-to" / "blocking-calls.md"

# Named by the class on the page.
BY_CLASS = {"ssl.SSLSocket"}
# The leaves of these are private: the page names what users call.
PUBLIC_NAMES = {
    "threading.Thread.join",
    "threading.RLock",
    "threading.Semaphore.acquire",
}


def replaced_names():
    """The names that the patch replaces, as users call them; private leaves are left out."""
    for replacement in [*table.functions(), *table.methods()]:
        holder, name = replacement.holder, replacement.name
        where = holder.__name__ if not isinstance(holder, type) else f"{holder.__module__}.{holder.__qualname__}"
        where = where.replace("concurrent.futures._base", "concurrent.futures")
        if where.startswith("vthreads") or "SSL" in where or where in BY_CLASS:
            yield "ssl.SSLSocket"
        elif not any(part.startswith("_") for part in (*where.split("."), name)):
            yield f"{where}.{name}"


def exists(name):
    """Whether this platform and this Python have it."""
    module, _, rest = name.partition(".")
    found = sys.modules.get(module)
    if name.startswith("concurrent.futures."):
        found, rest = sys.modules["concurrent.futures"], name.removeprefix("concurrent.futures.")
    for part in rest.split("."):
        found = getattr(found, part, None)
    return found is not None


def test_the_page_lists_what_is_replaced_and_nothing_else():
    text = BLOCKING_CALLS.read_text()
    start, end = text.index("## What parks"), text.index("## Threads")
    listed = {
        name
        for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", text[start:end])
        if name.split(".")[0]
        in (
            "builtins",
            "io",
            "time",
            "select",
            "socket",
            "ssl",
            "os",
            "fcntl",
            "signal",
            "threading",
            "queue",
            "linecache",
        )
        or name.startswith(("concurrent.futures.", "subprocess."))
    }
    replaced = set(replaced_names()) | PUBLIC_NAMES
    assert set() == replaced - listed, "replaced, but not on the page"
    assert set() == {name for name in listed - replaced if exists(name)}, "on the page, but not replaced"


# Calls without a row of their own: nothing ends a copy early, one is of another system, and for one a socket has rows.
WITHOUT_ROW = {"os.copy_file_range", "select.kqueue", "ssl.SSLSocket"}


def test_each_call_that_parks_has_a_row_in_the_matrix():
    text = BLOCKING_CALLS.read_text().partition("## What parks")[2].partition("\n\nThree rules")[0]
    parking = {name for row in re.findall(r"^\| (`.*?) \|", text, re.M) for name in re.findall(r"`(\w+\.[\w.]+)`", row)}
    assert {"os.write", "threading.Thread.join", *WITHOUT_ROW} <= parking
    named = {name for page in (ROOT / "tests" / "matrix").glob("*.py") for name in re.findall(r"\w+", page.read_text())}
    without = {name for name in parking - WITHOUT_ROW if name.rpartition(".")[2] not in named}
    assert set() == without, "add a row to OPERATIONS in a module of tests/matrix"


def blocks(page):
    """The Python of a page as one program that keeps its line numbers."""
    text, lines = page.read_text(), []
    for match in re.finditer("^```python\n(.*?)^```$", text, re.M | re.S):
        before = text.count("\n", 0, match.start(1))
        lines += [""] * (before - len(lines)) + match[1].splitlines()
    return "\n".join(lines)


def outcome_of(page, folder, engine):
    """The status of a process that runs the Python of the page in `folder`, and its errors."""
    (folder / "program.py").write_text(blocks(page))
    # Files that a page writes stay out of the checkout.
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        check=False,
        capture_output=True,
        text=True,
        # Against a hang. A busy machine takes minutes for the page that explores.
        timeout=240,
        cwd=folder,
        env={**os.environ, "VTHREADS_ENGINE": engine},
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_python_of_the_page_runs(page, tmp_path):
    assert (0, "") == outcome_of(page, tmp_path, engine_name)


# Languages of blocks that are no Python: commands, output, settings of other programs.
OTHER_LANGUAGES = {"bash", "console", "diff", "dockerfile", "ini", "nginx", "text", "toml", "yaml"}
# The pages whose blocks in "py" are test files, and the imports that go before them.
TEST_FILES = {
    ROOT / "CONTRIBUTING.md": "import pytest, vthreads\nfrom vthreads.testing import VirtualClock\n",
    DOCS / "how-to" / "test-without-sleeping.md": "",
}
# The pages whose blocks in "py" another module runs.
RUN_ELSEWHERE = {DOCS / "how-to" / "debug-a-hang.md": "tests/debug/test_hang_page.py"}
OTHER_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "changes/README.md")]
OTHER_PAGES += [ROOT / "tests" / "README.md", *(ROOT / "examples").rglob("*.md")]


def languages_of(page):
    """The indentation and the language of each block."""
    end = None
    for line in page.read_text().splitlines():
        fence = re.fullmatch(r"( *)(```+)(.*)", line)
        if fence and end is None:
            yield fence[1], fence[3].strip()
            end = fence[2]
        elif fence and fence[2] == end and not fence[3].strip():
            end = None
    assert end is None, "a block has no end"


def is_run(page, indent, language):
    if language == "python":
        return not indent and (page in OF_DRIVERS or page in PAGES or page == ROOT / "README.md")
    if language == "py":
        return page in TEST_FILES or page in RUN_ELSEWHERE
    return language in OTHER_LANGUAGES or language.startswith("{")


@pytest.mark.parametrize("page", [*DOCS.rglob("*.md"), *OTHER_PAGES], ids=lambda page: page.name)
def test_each_block_names_its_language_and_python_is_run(page):
    assert [] == [block for block in languages_of(page) if not is_run(page, *block)]


@pytest.mark.parametrize("page", TEST_FILES, ids=lambda page: page.name)
def test_the_tests_on_the_page_pass(page, tmp_path):
    found = re.findall("^```py\n(.*?)^```$", page.read_text(), re.M | re.S)
    (tmp_path / "test_page.py").write_text(TEST_FILES[page] + "\n".join(found))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_page.py"],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert " passed" in done.stdout


# A link to a file, with or without a heading.
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")


def anchors(page, level="#+"):
    """The anchors of the headings of a page."""
    found = re.findall(f"^{level} (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", [*OTHER_PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_each_link_outside_the_site_leads_to_a_file_and_a_heading(page):
    links = [(page.parent / file if file else page, heading) for file, heading in LINK.findall(page.read_text())]
    assert [] == [target for target, _ in links if not target.exists()]
    assert [] == [(target, heading) for target, heading in links if heading and heading not in anchors(target)]


def test_the_readme_links_each_page_that_is_read_as_a_whole():
    whole = {
        page for folder in ("tutorial", "coming-from", "how-to", "explanation") for page in DOCS.glob(f"{folder}/*.md")
    }
    linked = {ROOT / file for file, _ in LINK.findall((ROOT / "README.md").read_text())}
    assert set() == whole - linked, "link it from the list in README.md"


# Distributions whose name, or whose extra of another one, is not that of the module.
INSTALLED_AS = {"psycopg_pool": "pool", "websockets": "serve", "asgiref": "django"}


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_a_page_says_how_to_install_what_its_examples_import(page):
    code = blocks(page)
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", code, re.M))
    needed = {INSTALLED_AS.get(name, name) for name in imported - sys.stdlib_module_names - {"vthreads", "shop"}}
    if re.search(r"\bserve\.(wsgi|WSGI|websocket)\b", code):
        needed.add("serve")
    commands = " ".join(re.findall(r"\bpip install ([^`\n]+)", page.read_text()))
    assert set() == needed - set(re.findall(r"\w+", commands)), "name it in a command `pip install` on the page"


# --- the examples in docstrings

# Names that the text around an example does not define; the program of each begins with these lines.
BEFORE = {
    "vthreads": """
        import sys, types
        requests = sys.modules["requests"] = types.ModuleType("requests")
        requests.get = str.upper
        urls = ["a", "b"]
    """,
    "vthreads.debug._trace.trace": """
        import vthreads
        def serve():
            vthreads.sleep(0)
    """,
    "vthreads._patching.threads.standard_threads": "import vthreads",
    # At a free port, and until it has begun.
    "vthreads.serve": """
        from vthreads import serve
        app = lambda environ, start_response: []
        wsgi = serve.wsgi
        serve.wsgi = lambda app, host, port: wsgi(app, host, 0, ready=lambda server: server.stop())
    """,
}
AFTER = {
    "vthreads": """
        assert {"a": "A", "b": "B"} == {url: future.result() for url, future in futures.items()}
    """,
}


def docstrings(source):
    """The names of the modules, classes and functions below `source`, with their docstrings."""
    for path in sorted(source.rglob("*.py")):
        module = ".".join(path.relative_to(source.parent).with_suffix("").parts).removesuffix(".__init__")
        nodes = [(module, ast.parse(path.read_text()))]
        for name, node in nodes:
            if text := ast.get_docstring(node):
                yield name, text
            inner = (child for child in ast.iter_child_nodes(node) if isinstance(child, ast.ClassDef | ast.FunctionDef))
            nodes += [(f"{name}.{child.name}", child) for child in inner]


def example_of(text):
    """The Python of a docstring: its indented paragraphs that are statements, not prose or a diagram."""
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^ {4}.*(?:\n+|\Z))+", text, re.M)]
    return "\n".join(block for block in blocks if is_program(block))


def is_program(block):
    try:
        statements = ast.parse(block).body
    except SyntaxError:
        return False
    return any(
        isinstance(node, ast.Call | ast.ImportFrom | ast.Import) for part in statements for node in ast.walk(part)
    )


def examples():
    named = [(name, example_of(text)) for name, text in docstrings(SOURCE)]
    return {name: code for name, code in named if code}


def test_the_page_of_commands_lists_each_extra_that_a_message_names():
    """An extra that a page does not name is found only by the message of a command that fails without it."""
    named = {extra for path in SOURCE.rglob("*.py") for extra in re.findall(r"vthreads\[(\w+)\]", path.read_text())}
    assert {"cli", "demo", "serve"} <= named
    assert named <= set(re.findall(r"^\| `pip install \"vthreads\[(\w+)\]\"`", COMMANDS.read_text(), re.M))


def test_examples_in_docstrings_are_found():
    assert BEFORE.keys() <= examples().keys()
    assert ">>>" not in "".join(text for _, text in docstrings(SOURCE)), "write an indented block of statements"


@pytest.mark.thorough
@pytest.mark.parametrize("name", examples())
def test_the_example_in_a_docstring_runs(name, tmp_path):
    parts = [BEFORE.get(name, ""), examples()[name], AFTER.get(name, "")]
    (tmp_path / "program.py").write_text("\n".join(map(textwrap.dedent, parts)))
    ended = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
    )
    assert (0, "") == (ended.returncode, ended.stderr)


# --- the rules of cancellation


def test_the_rules_of_cancellation_hold_on_the_reference_engine_as_well(tmp_path):
    assert (0, "") == outcome_of(CANCELLATION, tmp_path, "reference")


def test_each_rule_of_cancellation_has_an_example():
    # A rule is a paragraph that begins in bold type; what follows up to the next one belongs to it.
    rules = re.split(r"\n\n(?=\*\*|#)", CANCELLATION.read_text())
    assert [] == [rule for rule in rules if rule.startswith("**") and "```python" not in rule]


def test_each_section_of_cancellation_is_in_the_index():
    index = CANCELLATION.read_text().partition("\n## ")[0]
    assert anchors(CANCELLATION, "##") == set(re.findall(r"\]\(#([\w-]+)\)", index))


def test_the_table_of_delivery_on_the_page_is_that_of_the_code():
    lines = CANCELLATION.read_text().partition("<!-- table of delivery -->")[2].strip().splitlines()
    heading, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert ["pending", *Condition] == heading
    assert [[pending, *row.values()] for pending, row in ACTIONS.items()] == rows


# --- the layers, wherever they are listed


def contract(name):
    """The layers of a contract in pyproject.toml, highest first, each as a set of modules."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(found["layers"] for found in contracts if found["id"] == name)
    return [set(re.findall(r"\w+", layer)) for layer in layers]


def chain(text):
    """The layers of a chain such as `a, b > c`."""
    return [set(re.findall(r"\w+", layer)) for layer in text.split(">")]


def rows(name):
    """The layers of the table that follows the mark `name` in docs/internals.md."""
    after = INTERNALS.read_text().partition(f"<!-- layers: {name} -->")[2]
    lines = after.strip().partition("\n\n")[0].splitlines()[2:]
    return [set(re.findall(r"`(\w+)`", line.split("|")[1])) for line in lines]


@pytest.mark.parametrize("name", ["package", "core", "calls"])
def test_the_layers_on_the_internals_page_are_those_of_the_contract(name):
    assert contract(name) == rows(name), f"change the table after `<!-- layers: {name} -->` in docs/internals.md"


def test_the_layers_in_contributing_are_those_of_the_contract():
    block = re.search("^```text\n(__main__ >.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    assert contract("package") == chain(block[1]), "change the layers in CONTRIBUTING.md"


def test_the_layers_in_the_docstring_of_the_core_are_those_of_the_contract():
    block = re.search(r"\n\n    (.*?)\n\n", vthreads._core.__doc__, re.S)
    assert contract("core") == chain(block[1]), "change the layers in the docstring of _core/__init__.py"


# --- the participants on the internals page


def participants_on(occasion):
    """The files of the modules that are called on an occasion, in the order of the calls."""
    places = {name: Path(*name.split(".")) for name in ORDER}
    files = {
        name: path.with_suffix(".py") if (SOURCE / path.with_suffix(".py")).exists() else path / "__init__.py"
        for name, path in places.items()
    }
    taking = [
        files[name]
        for name, participant in zip(ORDER, participants(), strict=True)
        if getattr(participant, occasion) is not None
    ]
    return [path.as_posix() for path in (taking[::-1] if occasion == "stopping" else taking)]


def test_the_participants_on_the_internals_page_are_those_of_the_code():
    for name in ORDER:
        importlib.import_module(f"vthreads.{name}")
    lines = INTERNALS.read_text().partition("<!-- participants -->")[2].strip().partition("\n\n")[0].splitlines()[2:]
    cells = [re.findall(r"`([\w./]+)`", line) for line in lines]
    expected = {occasion: participants_on(occasion) for occasion in Participant._fields}
    written = {occasion: files for occasion, *files in cells}
    assert expected == written, "change the table after `<!-- participants -->` in docs/internals.md"


# --- what modules supply to the compiled parts


def supplied():
    """By file: the names that a module passes to `supply`."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Expr) and ast.unparse(node).startswith("supply("):
                names = [f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in node.value.keywords]
                found[path.relative_to(SOURCE).as_posix()] = names
    return found


def test_the_internals_page_lists_what_modules_supply():
    lines = INTERNALS.read_text().partition("<!-- supplied -->")[2].strip().partition("\n\n")[0].splitlines()[2:]
    written = {module: names for module, *names in (re.findall("`([^`]+)`", line) for line in lines)}
    assert supplied() == written, "change the table after `<!-- supplied -->` in docs/internals.md"


# --- the names on the internals page

COMPILED = (".pyx", ".pxi", ".pxd")


def file_of(span):
    """The file or folder that a code span names; None if it names none."""
    if not re.fullmatch(r"[\w./-]+", span) or not ("/" in span or span.endswith((".py", ".md", ".toml"))):
        return None
    return SOURCE / span if (SOURCE / span).exists() else ROOT / span


@cache
def defined(path):
    """The names that a source file defines: `f`, `C`, `C.method`, `C.attribute`; in compiled sources without `C.`."""
    if path.suffix in COMPILED:
        declared = re.findall(r"^\s*(?:cdef|cpdef|def|class)\b([^(=:\n]*)", path.read_text(), re.M)
        return set(re.findall(r"\w+", " ".join(declared)))
    names = set()

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                names.add(prefix + child.name)
                inner = f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix
            elif isinstance(child, ast.Name | ast.Attribute) and isinstance(child.ctx, ast.Store):
                names.add(prefix + (child.id if isinstance(child, ast.Name) else child.attr))
            visit(child, inner)

    visit(ast.parse(path.read_text()), "")
    return names


@cache
def defined_anywhere():
    """Whatever a name on the page may mean: of the source, of a test, a module, a word of Python."""
    names = {*keyword.kwlist, *vars(builtins)}
    for path in SOURCE.rglob("*.*"):
        if path.suffix in (".py", *COMPILED):
            names |= {path.stem, path.parent.name} | defined(path)
    for name in list(names):
        names.add(name.rpartition(".")[2])
    tests = ("debug/test_dump.py", "matrix/test_sockets.py", "test_arguments.py", "test_public_api.py")
    return names.union(sys.stdlib_module_names, *(defined(ROOT / "tests" / name) for name in tests))


def names_in(text):
    spans = [span.removesuffix("()") for span in re.findall(r"`([^`\n]+)`", text)]
    return [span for span in spans if file_of(span) is None and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", span)]


def test_every_file_on_the_internals_page_exists():
    files = [file_of(span) for span in re.findall(r"`([^`\n]+)`", INTERNALS.read_text())]
    assert [] == [str(file) for file in files if file is not None and not file.exists()]


def test_every_name_on_the_internals_page_exists():
    names = set(names_in(INTERNALS.read_text())) - defined_anywhere()
    assert [] == sorted(name for name in names if not exists(name)), "rename it there, and check its sentence"


def test_each_step_on_the_internals_page_names_the_file_that_defines_what_it_describes():
    steps = re.findall(r"^\d+\. `([\w/.]+)`: (.*?)(?=^\d+\. |\n\n)", INTERNALS.read_text(), re.M | re.S)
    assert 20 <= len(steps)
    wrong = [(file, text) for file, text in steps if not defined(SOURCE / file) & set(names_in(text))]
    assert [] == wrong, "what the step describes has moved"
