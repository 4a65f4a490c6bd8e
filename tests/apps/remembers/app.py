"""Remembers some things from request to request, and draws others anew."""

import functools
import random
import secrets
import time

visits = 0
import_secret = secrets.token_hex()


@functools.lru_cache
def own_secret():
    return secrets.token_hex()


def application(environ, start_response):
    global visits
    path = environ["PATH_INFO"]
    status, headers = "200 OK", []
    if path == "/same":
        reply = f"always the same, and {import_secret} from the import"
    elif path == "/chance":
        headers.append(("X-Time", str(time.time())))
        reply = f"drawn: {random.random()}"
    elif path == "/visits":
        visits += 1
        reply = f"drawn: {random.random()}, this is visit {visits}"
    elif path == "/limited":
        visits += 1
        status, reply = ("200 OK" if visits < 4 else "429 Too Many Requests"), "x"
    elif path == "/first":
        headers = [("X-First", "yes")] if visits == 0 else []
        visits += 1
        reply = "x"
    elif path == "/secret":
        reply = f"signed with {own_secret()}"
    elif path == "/large":
        reply = str(len(bytes(30 << 20)))
    else:
        status, reply = "404 Not Found", "nothing here"
    start_response(status, headers)
    return [reply.encode()]
