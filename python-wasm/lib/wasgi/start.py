"""Start of an instance: paths, the app's import, and the first look at its callable."""

import ast
import importlib
import importlib.machinery
import importlib.util
import os
import site
import sys
import traceback

import _wasgi
from wasgi import forks, handler, limit, native, seal, secret


def start(settings):
    """Loads the app that the start block names. False, with the reason on standard error, if that cannot be done."""
    limit.install()
    forks.install()
    native.install()
    secrets = [value for key, value in settings if key == "secret"]
    if secrets:
        secret.withhold(secrets)
        _wasgi.on_restore(seal.restored)
    single = dict(settings)
    os.chdir(single["working-dir"])
    sys.path[:0] = [value for key, value in settings if key == "sys.path"]
    for key, value in settings:
        if key == "site":
            site.addsitedir(value)
    sys.argv[:] = [single.get("file") or single["module"]]
    try:
        handler.serve(load(single))
    except BaseException as error:
        print_exception(error)
        return False
    return True


def print_exception(error):
    """A traceback that begins in the app: our own frames and importlib's say nothing to its author."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


class NoSuchCallable(Exception):
    """The module is there, but not the callable that the configuration names."""


def load(settings):
    """The WSGI callable: imported by module name, or from a file that need not be called .py."""
    if "file" in settings:
        module = load_file(settings["file"])
        where = settings["file"]
    else:
        module = importlib.import_module(settings["module"])
        where = settings["module"]
    return find_callable(module, settings["callable"], where)


def load_file(path):
    stem = os.path.splitext(os.path.basename(path))[0]
    name = "wsgi_file_" + "".join(c if c.isalnum() else "_" for c in stem)
    loader = importlib.machinery.SourceFileLoader(name, path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def find_callable(module, expression, where):
    """``app``, ``pkg.app``, or a factory with constant arguments, ``create_app("production")``, as Gunicorn has it."""
    try:
        node = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise NoSuchCallable(f"{expression!r} is neither a name nor a call") from None
    arguments, keywords = (), {}
    factory = isinstance(node, ast.Call)
    if factory:
        try:
            arguments = [ast.literal_eval(argument) for argument in node.args]
            keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        except ValueError:
            raise NoSuchCallable(f"{expression!r}: a factory's arguments must be constants") from None
        node = node.func
    found = module
    for name in ast.unparse(node).split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise NoSuchCallable(f"{where} has no {name!r}; {offer(module)}") from None
    if factory:
        found = found(*arguments, **keywords)
    if not callable(found):
        raise NoSuchCallable(f"{expression!r} of {where} is a {type(found).__name__}, not a WSGI callable")
    return found


def offer(module):
    names = [name for name in ("application", "app", "create_app", "make_app") if hasattr(module, name)]
    return f"did you mean {' or '.join(names)}?" if names else "it must be a name at the module's top level"
