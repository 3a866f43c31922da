"""`vthreads.integrations.celery`."""

from . import application  # noqa: F401  # raises if a package is missing

POOL = "custom"
ENVIRONMENT = {"CELERY_CUSTOM_WORKER_POOL": "vthreads.integrations.celery:TaskPool"}
