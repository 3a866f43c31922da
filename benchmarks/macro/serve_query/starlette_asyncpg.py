"""Starlette and asyncpg on uvicorn."""

import asyncpg  # noqa: F401  # reports the missing package
import starlette  # noqa: F401  # reports the missing package
import uvicorn  # noqa: F401  # reports the missing package

from .. import web_servers


def serve(announce):
    web_servers.uvicorn(announce, "macro.serve_query.starlette_site:app")
