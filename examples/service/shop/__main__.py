"""`python -m shop`: the settings are environment variables."""

import logging
import os
import sys

import psycopg

from .service import run


def announce(name, server):
    host, port = server.addresses[0][:2]
    print(f"{name}: http://{host}:{port}", flush=True)


def main():
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    database = os.environ.get("DATABASE_URL", "postgresql:///postgres")
    try:
        run(
            database,
            os.environ.get("REDIS_URL", "redis://127.0.0.1"),
            os.environ.get("SHOP_PREFIX", "shop"),
            os.environ.get("SHOP_BIND", "127.0.0.1:8000"),
            os.environ.get("SHOP_ADMIN", "127.0.0.1:9900"),
            announce,
        )
    except psycopg.OperationalError as error:
        sys.exit(f"no database at {database!r}: {error}\nSet DATABASE_URL, as in postgresql://user:password@host/name")
    except OSError as error:
        sys.exit(f"{error}\nSet SHOP_BIND or SHOP_ADMIN to another address")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
