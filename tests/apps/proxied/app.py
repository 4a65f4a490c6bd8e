"""Tells its environ and how long the body is; with PROXY_FIX as Werkzeug's middleware of that name leaves it."""

import json
import os

from werkzeug.middleware.proxy_fix import ProxyFix


def application(environ, start_response):
    told = {key: value for key, value in environ.items() if isinstance(value, str)}
    told["body"] = str(len(environ["wsgi.input"].read()))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]


if hops := os.environ.get("PROXY_FIX"):
    application = ProxyFix(application, *map(int, hops.split()))
