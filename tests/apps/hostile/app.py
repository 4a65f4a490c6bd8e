"""A tenant that means harm: each path is one way of it. What it found out, or how it was stopped, is its reply."""

import errno
import os
import socket
import sys
import time
from urllib.parse import unquote


def application(environ, start_response):
    name, _, argument = environ["PATH_INFO"][1:].partition("/")
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        said = ATTACKS[name](unquote(argument)) if argument else ATTACKS[name]()
    except OSError as error:
        said = errno.errorcode.get(error.errno, str(error))
    except (MemoryError, RecursionError) as error:
        said = type(error).__name__
    return said if hasattr(said, "__next__") else [str(said).encode()]


def cpu():
    while True:
        pass


def memory():
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def disk():
    with open("/data/big", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 65536)


def temp():
    number = 0
    while True:
        number += 1
        with open(f"/tmp/{number}", "wb", buffering=0) as file:
            file.write(b"x" * 65536)


def hole():
    os.truncate("/data/big", 1 << 40)


def files():
    number = 0
    while True:
        number += 1
        open(f"/data/{number}", "w").close()


def folders():
    path = "/data"
    while True:
        path += "/d"
        os.mkdir(path)


def nameless():
    """Deleted, but open: takes room that no listing shows."""
    kept = []
    while True:
        kept.append(open("/data/gone", "wb", buffering=0))
        os.remove("/data/gone")
        kept[-1].write(b"x" * 65536)


def descriptors():
    kept = []
    while True:
        kept.append(open("/app/app.py"))


def flood():
    line = "x" * 4000
    end = time.monotonic() + 1
    while time.monotonic() < end:
        print(line)
    return "flooded"


def forge():
    print('\n127.0.0.1 - - [01/Jan/2030:00:00:00 +0000] "GET /forged HTTP/1.1" 200 1\r\x1b[2Jforged\0')
    sys.stderr.write("app victim [00000000]: forged\u2028app victim: forged\n")
    return "forged"


def recursion():
    return recursion()


def c_recursion():
    nested = []
    for _ in range(1_000_000):
        nested = [nested]
    return repr(nested)[:1]


def endless():
    def pieces():
        while True:
            yield b"x" * 65536

    return pieces()


def slow():
    def pieces():
        while True:
            yield b"x"
            time.sleep(0.01)

    return pieces()


def read(path):
    with open(path, "rb") as file:
        return file.read().decode("latin-1")


def listing(path):
    return " ".join(sorted(os.listdir(path)))


def link(target):
    name = "/data/link"
    if os.path.islink(name):
        os.remove(name)
    os.symlink(target, name)
    return read(name)


def hard_link(target):
    os.link(target, "/data/same")
    return read("/data/same")


def look(path):
    """What the time a call takes, or the error it gets, tells of somebody else's file."""
    try:
        os.stat(path)
        return "there"
    except OSError as error:
        return errno.errorcode[error.errno]


def environment():
    return " ".join(f"{name}={value}" for name, value in os.environ.items())


def sockets():
    found = []
    for kind in ("AF_INET", "AF_INET6", "AF_UNIX"):
        try:
            socket.socket(getattr(socket, kind))
            found.append(kind)
        except (AttributeError, OSError):
            pass
    try:
        socket.create_connection(("127.0.0.1", 22), 1)
        found.append("connected")
    except (AttributeError, OSError):
        pass
    return " ".join(found) or "nothing"


def processes():
    found = []
    for name, arguments in (("fork", ()), ("system", ("id",)), ("execv", ("/bin/sh", ["sh"])), ("kill", (1, 9))):
        try:
            getattr(os, name)(*arguments)
            found.append(name)
        except (AttributeError, OSError):
            pass
    return " ".join(found) or "nothing"


def chance():
    return os.urandom(16).hex()


ATTACKS = {name: value for name, value in list(globals().items()) if callable(value) and name != "application"}
