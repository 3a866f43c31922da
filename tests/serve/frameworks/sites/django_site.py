"""The routes of `test_frameworks` in Django, and models in PostgreSQL, in one module."""

from __future__ import annotations

import os
import time

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="not secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    USE_TZ=True,
    LOGGING_CONFIG=None,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "USER": "postgres",
            "NAME": os.environ.get("SITE_DATABASE", ""),
            "OPTIONS": {"pool": {"min_size": 2, "max_size": 4, "timeout": 30}} if os.environ.get("SITE_POOL") else {},
        }
    },
)
django.setup()

from django import http  # noqa: E402  after the settings
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402

state = {"begun": 0, "ended": 0}


class Visit(models.Model):
    name = models.CharField(max_length=50)

    class Meta:
        app_label = "site"


def hello(request, name):
    return http.JsonResponse({"hello": name})


def mine(request):
    request.mine = request.GET["mine"]
    time.sleep(0.05)
    return http.HttpResponse(f"{request.mine} {request.GET['mine']}")


@csrf_exempt
def upload(request):
    return http.HttpResponse(f"{len(request.FILES['file'].read())} {request.POST['text']}")


def stream(request):
    return http.StreamingHttpResponse(f"{number}," for number in range(1000))


def fail(request):
    raise ValueError("the view fails")


def hang(request):
    state["begun"] += 1
    try:
        time.sleep(3600)
    finally:
        state["ended"] += 1


def show(request):
    return http.JsonResponse(state)


# --- PostgreSQL


def create(request):
    """Create the table, if it is missing; Django does it with a migration."""
    if Visit._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Visit)
    return http.HttpResponse("created")


def visit(request, name):
    """Add a row, and return how many of that name there are."""
    with transaction.atomic():
        Visit.objects.create(name=name)
        with connection.cursor() as cursor:
            cursor.execute("select pg_sleep(0.01)")
    return http.HttpResponse(str(Visit.objects.filter(name=name).count()))


def hang_in_transaction(request, name):
    with transaction.atomic():
        Visit.objects.create(name=name)
        with connection.cursor() as cursor:
            cursor.execute("select pg_sleep(3600)")


def hang_with_connection(request, name):
    """Hold a connection that is not in a transaction, and wait for something else."""
    Visit.objects.create(name=name)
    time.sleep(3600)


urlpatterns = [
    path("hello/<name>", hello),
    path("mine", mine),
    path("upload", upload),
    path("stream", stream),
    path("fail", fail),
    path("hang", hang),
    path("state", show),
    path("create", create),
    path("visit/<name>", visit),
    path("hang-in-transaction/<name>", hang_in_transaction),
    path("hang-with-connection/<name>", hang_with_connection),
]
application = get_wsgi_application()
