# As markupsafe and many others do: compiled where possible, Python where not.
try:
    from fast._speedups import KIND, double
except ImportError:
    from fast._python import KIND, double

__all__ = ["KIND", "double"]
