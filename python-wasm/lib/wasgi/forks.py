"""os.register_at_fork: a copy of the snapshot is to an app what a forked child is."""

import os
import sys

_LIBRARY = os.path.dirname(os.__file__) + os.sep
_PACKAGES = os.path.join(_LIBRARY, "site-packages", "")

_NOT_GIVEN = object()
_in_child = []


def register_at_fork(*, before=_NOT_GIVEN, after_in_child=_NOT_GIVEN, after_in_parent=_NOT_GIVEN):
    """As CPython's. Nothing forks here, so ``before`` and ``after_in_parent`` are never called.

    ``after_in_child()`` is called in each copy of the app, before its first request, unless the standard library
    registered it: that resets locks, which nobody holds in a copy, and seeds ``random``, which is done already.
    """
    arguments = {"before": before, "after_in_child": after_in_child, "after_in_parent": after_in_parent}
    given = {name: handler for name, handler in arguments.items() if handler is not _NOT_GIVEN}
    if not given:
        raise TypeError("At least one argument is required.")
    for name, handler in given.items():
        if not callable(handler):
            raise TypeError(f"'{name}' must be callable, not {type(handler).__name__}")
    if "after_in_child" in given and not _is_library(sys._getframe(1).f_code.co_filename):
        _in_child.append(after_in_child)


def _is_library(filename):
    return filename.startswith((_LIBRARY, "<frozen ")) and not filename.startswith(_PACKAGES)


def handlers():
    """What each copy has to call, in the order of registration."""
    return list(_in_child)


def install():
    os.__all__.append("register_at_fork")
    os.register_at_fork = register_at_fork
