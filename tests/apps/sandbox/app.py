"""Tries the walls: the client says what to do, the reply tells what came of it, as JSON."""

import json
import os
from urllib.parse import parse_qs


def application(environ, start_response):
    asked = {key: values[-1] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    try:
        result = {"result": ACTIONS[environ["PATH_INFO"]](**asked)}
    except Exception as error:
        result = {"error": type(error).__name__, "errno": getattr(error, "errno", None), "text": str(error)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(result).encode()]


def read(path):
    with open(path, encoding="latin-1") as file:
        return file.read()


def write(path, text="written"):
    with open(path, "w") as file:
        return file.write(text)


def append(path):
    with open(path, "a") as file:
        return file.write("more")


def read_and_write(path):
    with open(path, "r+") as file:
        return file.write("changed")


def truncate(path):
    os.truncate(path, 0)


def listing(path):
    return sorted(os.listdir(path))


def walk(path):
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]


def mkdir(path):
    os.mkdir(path)


def rmdir(path):
    os.rmdir(path)


def remove(path):
    os.remove(path)


def rename(path, to):
    os.rename(path, to)


def link(path, to):
    os.link(path, to)


def symlink(path, to):
    os.symlink(path, to)


def utime(path):
    os.utime(path, (0, 0))


def chmod(path):
    os.chmod(path, 0o777)


def stat(path):
    return os.stat(path).st_size


def exists(path):
    return os.path.exists(path)


def chdir(path):
    os.chdir(path)
    try:
        return sorted(os.listdir("."))
    finally:
        os.chdir(HOME)


def open_at(path, name):
    """Opens relative to a folder's descriptor, as a way around path checks."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        file = os.open(name, os.O_RDONLY, dir_fd=folder)
        try:
            return os.read(file, 100).decode("latin-1")
        finally:
            os.close(file)
    finally:
        os.close(folder)


def raw_descriptors():
    """The descriptors that are open and what can be listed through each."""
    found = {}
    for number in range(32):
        try:
            os.fstat(number)
        except OSError:
            continue
        found[number] = True
    return sorted(found)


def cwd():
    return os.getcwd()


def env():
    return dict(os.environ)


def environ_bytes():
    """As C code sees it, since os.environ is a copy."""
    import posix

    return {key.decode(): value.decode() for key, value in posix.environ.items()}


def path():
    import sys

    return sys.path


def import_cache():
    """Python writes compiled files beside its sources where it can."""
    import helper

    return helper.NAME


def identity():
    import platform
    import sys

    return {"platform": sys.platform, "machine": platform.machine(), "node": platform.node(), "argv": sys.argv}


def temporary():
    import tempfile

    with tempfile.NamedTemporaryFile("w+") as file:
        file.write("temporary")
        file.seek(0)
        return file.read()


HOME = os.getcwd()
ACTIONS = {
    "/" + name.replace("_", "-"): value
    for name, value in list(globals().items())
    if callable(value) and value.__module__ == __name__ and name != "application"
}
