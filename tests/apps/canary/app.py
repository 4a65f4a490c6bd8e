"""Leaves a canary wherever a request can, and tells what it finds of the one before."""

import functools
import json
import os
import time

count = 0
cache = {}


@functools.lru_cache
def cached(key):
    return object()


def application(environ, start_response):
    global count
    path = environ["PATH_INFO"]
    if path == "/sleep":
        time.sleep(1)
    if path == "/fail":
        cache["failed"] = True
        raise ValueError("on purpose")
    if path == "/grow":
        cache["hoard"] = bytes(40 << 20)
    found = {
        "global": count,
        "table": len(cache),
        "module": hasattr(json, "canary"),
        "C cache": cached.cache_info().currsize,
        "grown memory": len(cache.get("hoard", b"")),
        "tmp": os.path.exists("/tmp/canary"),
    }
    count += 1
    cache[count] = bytes(100_000)
    json.canary = True
    cached(count)
    open("/tmp/canary", "w").close()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [json.dumps(found).encode()]
