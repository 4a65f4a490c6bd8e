"""Draws random values, reads clocks and counts forks, also with what was made ready at the import."""

import os
import random
import secrets
import tempfile
import time
import uuid

started = time.time()
random.random()
uuid.uuid4()
tempfile.gettempdir()
names = tempfile._get_candidate_names()
next(names)
forks = {"child": 0, "before": 0}


def count(name):
    forks[name] += 1


os.register_at_fork(before=lambda: count("before"), after_in_child=lambda: count("child"))


def application(environ, start_response):
    if environ["PATH_INFO"] == "/random":
        values = (random.random(), random.getrandbits(64), uuid.uuid4(), secrets.token_hex(), os.urandom(8).hex())
        reply = " ".join(map(str, (*values, next(names))))
    elif environ["PATH_INFO"] == "/forks":
        reply = f"{forks['child']} in a child, {forks['before']} before"
    else:
        reply = f"{time.time() - started} {time.monotonic()}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [reply.encode()]
