"""A site of Django's in one module: its settings, its one view, and what `manage.py` runs."""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import JsonResponse
from django.urls import re_path

from tests.hosts.programs.pools import Pools
from tests.hosts.programs.web import answer

pools = Pools()


def everything(request):
    with pools.of_request() as pool:
        return JsonResponse(answer(pool, request.path, request.META["QUERY_STRING"]))


urlpatterns = [re_path("", everything)]


def manage():
    settings.configure(
        DEBUG=True,
        SECRET_KEY="none",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[],
        INSTALLED_APPS=[],
        BASE_DIR=os.getcwd(),
    )
    execute_from_command_line(sys.argv)
