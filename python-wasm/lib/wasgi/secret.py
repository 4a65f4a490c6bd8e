"""Variables that are secret: the app gets them after its snapshot, so that no image holds them.

Until then ``os.environ`` does not list them, and raises for their names. ``KeyError`` would not do: code that asks with a
default would go on with that, and have it in every copy.
"""

import os


class SecretWithheld(Exception):
    """A secret variable was read while the app was being imported or warmed up."""


class _Withholding(os._Environ):
    """``os.environ`` and ``os.environb`` before the snapshot."""

    def __getitem__(self, key):
        name = os.fsdecode(key) if isinstance(key, (str, bytes)) else None
        if name in _names:
            raise SecretWithheld(
                f"{name} is secret: os.environ has it only after the app's snapshot, which is taken after the import "
                f"and the warm-up; read it in the view, or in a function given to wasgi.after_restore"
            )
        return super().__getitem__(key)


_names = frozenset()
# The app may put others into their places.
_environs = (os.environ, os.environb)


def withhold(names):
    """Has reading these variables raise from now on."""
    global _names
    _names = frozenset(names)
    for environ in _environs:
        environ.__class__ = _Withholding


def hand_over(secrets):
    """Puts (name, value) pairs into ``os.environ``, which is an ordinary one from now on."""
    for environ in _environs:
        environ.__class__ = os._Environ
    for name, value in secrets:
        _environs[0][name] = value
