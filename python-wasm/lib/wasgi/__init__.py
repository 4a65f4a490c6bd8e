"""wasgi's side of the guest: the WSGI server inside the sandbox, and what it offers to apps."""

from wasgi.limit import TimeLimit
from wasgi.seal import after_restore

__all__ = ["TimeLimit", "after_restore"]
