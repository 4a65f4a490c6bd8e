"""The time limit as Python sees it: an exception where the app is, by the road of a signal."""

import signal


class TimeLimit(BaseException):
    """The request has run into ``limits.time``.

    Not an Exception, so that ``except Exception`` does not swallow it. The client already has its 504; ``finally``
    blocks run, and the instance is stopped if it goes on for longer than the grace.
    """


def _raise(number, frame):
    raise TimeLimit("the request took longer than limits.time")


def install():
    """Lets SIGXCPU, which the host raises at the limit, end what is running."""
    signal.signal(signal.SIGXCPU, _raise)
