"""The application with Starlette and asyncpg's pool."""

from contextlib import asynccontextmanager

import asyncpg
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from .database import POOL, QUERY, SERVER


@asynccontextmanager
async def lifespan(app):
    """Open the pool."""
    async with asyncpg.create_pool(SERVER, min_size=POOL, max_size=POOL) as app.state.pool:
        yield


async def item(request):
    """Return one item."""
    return JSONResponse(dict(await request.app.state.pool.fetchrow(QUERY)))


app = Starlette(routes=[Route("/", item)], lifespan=lifespan)
