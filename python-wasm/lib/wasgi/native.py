"""Says by name why a package with a native extension cannot be imported."""

import importlib.abc
import os
import sys


class NativeExtensionError(ImportError):
    """The module is a native extension: machine code for another kind of machine."""


class NativeFinder(importlib.abc.MetaPathFinder):
    """Comes last, when nothing else has found the module: looks whether it is there as a ``.so`` or ``.pyd``.

    The error is an ImportError, so packages with an optional extension fall back to their Python code as they do
    elsewhere.
    """

    def find_spec(self, fullname, path=None, target=None):
        start = fullname.rpartition(".")[2] + "."
        for folder in sys.path if path is None else path:
            try:
                names = os.listdir(folder or ".")
            except OSError:
                continue
            for name in names:
                if name.startswith(start) and name.endswith((".so", ".pyd")):
                    package = fullname.partition(".")[0]
                    raise NativeExtensionError(
                        f"package {package!r} needs a native extension ({os.path.join(folder, name)}), which cannot "
                        f"run in WebAssembly; look for a pure Python alternative or version",
                        name=fullname,
                    )
        return None


def install():
    sys.meta_path.append(NativeFinder())
