"""Table of the test suites of other projects that run on virtual threads.

None of their code is kept here. What is left out is named with its reason, and so is what may come out otherwise than
on plain Python.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True)
class Suite:
    """One project's tests.

    Attributes:
        project: its name on PyPI. Its source distribution holds the tests, unless `in_checkout_only`.
        requirements: what its tests need besides itself and pytest.
        tests: files and directories in its source tree.
        quick: the same, or options, for the short run; none: left out of it.
        options: for pytest.
        left_out: by pattern of the test's name: why it is not run.
        deviations: by pattern of the test's name: why its outcome may be another one on virtual threads.
        in_checkout_only: the tests are in the project's repository alone, and run from a checkout.
        port: of the server that they need on 127.0.0.1.
        environment: variables that they need.
        before: Python code that prepares the server, run with what is installed for the suite.
    """

    project: str
    requirements: list[str]
    tests: list[str]
    quick: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    deviations: dict[str, str] = field(default_factory=dict)
    in_checkout_only: bool = False
    port: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    before: str = ""


SUITES: dict[str, Suite] = {
    "urllib3": Suite(
        "urllib3",
        [
            "anyio[trio]",
            "h2",
            "httpx",
            "hypercorn",
            "pysocks",
            "pytest-socket",
            "quart",
            "quart-trio",
            "trio",
            "cryptography",
            "idna",
            "pyopenssl",
            "trustme",
            "brotli",
        ],
        ["test"],
        left_out={
            "test/contrib/emscripten/*": "run in a browser",
        },
    ),
    "requests": Suite(
        "requests",
        ["pysocks", "pytest-httpbin==2.1.0", "httpbin~=0.10.0", "pytest-mock", "trustme", "pytest-xdist", "pytest-cov"],
        ["tests"],
        quick=["tests/test_requests.py", "--deselect=tests/test_requests.py::TestTimeout"],
    ),
    "httpx": Suite(
        "httpx[brotli,cli,http2,socks,zstd]",
        ["chardet", "cryptography", "trio", "trio-typing", "trustme", "uvicorn", "anyio"],
        ["tests"],
        quick=["tests/client", "tests/test_timeouts.py"],
    ),
    "redis": Suite(
        "redis",
        [
            "pytest-asyncio",
            "mock",
            "numpy",
            "cachetools",
            "packaging",
            "xxhash",
            "ujson",
            "pybreaker",
            "requests",
            "aiohttp",
            "redis-entraid",
            "opentelemetry-api",
            "opentelemetry-sdk",
            "opentelemetry-exporter-otlp-proto-http",
            "coverage",
        ],
        ["tests"],
        options=["-m", "not (onlycluster or redismod or ssl or cp_integration or multidb_integration)"],
        left_out={
            "tests/test_asyncio/*": "asyncio, not blocking calls",
            "tests/test_scenario/*": "need a cluster that is made to fail",
            "tests/test_multidb/*": "need several servers",
            "tests/maint_notifications/*": "need a proxy of Redis Enterprise",
        },
        port=6379,
    ),
    "psycopg": Suite(
        "psycopg[binary,pool]",
        ["anyio", "dnspython", "pproxy"],
        ["tests"],
        options=["-m", "not slow and not crdb_only and not mypy"],
        in_checkout_only=True,
        port=5432,
        environment={"PSYCOPG_TEST_DSN": "host=127.0.0.1 user=postgres dbname=test"},
    ),
    "PyMySQL": Suite(
        "PyMySQL[rsa]",
        [],
        ["pymysql/tests"],
        in_checkout_only=True,
        port=3306,
        before="""
import pymysql
with pymysql.connect(host="127.0.0.1", user="root") as connection, connection.cursor() as cursor:
    for name in "test1", "test2":
        cursor.execute(f"create database if not exists {name} default character set utf8mb4")
""",
    ),
}
