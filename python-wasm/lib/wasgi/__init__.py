"""wasgi's side of the guest: the WSGI server inside the sandbox, and what it offers to apps."""

from wasgi.limit import CpuLimit, Killed, TimeLimit
from wasgi.seal import after_restore
from wasgi.secret import SecretWithheld

__all__ = ["CpuLimit", "Killed", "SecretWithheld", "TimeLimit", "after_restore"]
