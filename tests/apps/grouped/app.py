"""An app that is to behave in a process of its own as in the server's."""

import os
import sys
import time

COUNT = 0


def application(environ, start_response):
    global COUNT
    COUNT += 1
    name = environ["PATH_INFO"].strip("/") or "hello"
    if name == "raise":
        raise LookupError("raised on purpose")
    body = globals()[f"view_{name}"](environ)
    headers = [("Content-Type", "text/plain"), ("X-Request", environ.get("HTTP_X_REQUEST_ID", ""))]
    start_response("200 OK", headers)
    return body


def view_hello(environ):
    return [b"hello"]


def view_secret(environ):
    return [os.environ["SECRET"].encode()]


def view_count(environ):
    return [str(COUNT).encode()]


def view_stream(environ):
    for number in range(3):
        yield f"piece {number}\n".encode()
        time.sleep(0.2)


def view_long(environ):
    """More than fits on the way: 8 MiB in pieces, and a large one."""
    for number in range(128):
        yield bytes([number]) * 65536
    yield b"x" * (3 << 20)


def view_one(environ):
    return [b"y" * 100_000]


def view_upload(environ):
    total = 0
    while piece := environ["wsgi.input"].read(50_000):
        total += sum(piece)
    return [str(total).encode()]


def view_sleep(environ):
    time.sleep(0.3)
    return [b"slept"]


def view_nap(environ):
    time.sleep(600)
    return [b"slept"]


def view_busy(environ):
    while True:
        pass


def view_memory(environ):
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def view_exit(environ):
    os._exit(3)


def view_say(environ):
    print("said by the app")
    print("and by its errors", file=environ["wsgi.errors"])
    return [b"said"]


def view_write(environ):
    with open("/data/note", "a") as file:
        file.write("x")
    return [str(os.path.getsize("/data/note")).encode()]


def view_temp(environ):
    with open("/tmp/note", "w") as file:
        file.write("x")
    return [str(os.listdir("/tmp")).encode()]


def view_file(environ):
    return environ["wsgi.file_wrapper"](open("/app/app.py", "rb"))


def view_passwd(environ):
    try:
        return [open("/etc/passwd", "rb").read()]
    except OSError as error:
        return [type(error).__name__.encode()]


def view_bad(environ):
    return ["not bytes"]
