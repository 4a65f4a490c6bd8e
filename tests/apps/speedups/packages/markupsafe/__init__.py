# As MarkupSafe was before 3.0: its extension module had other names in it than the one that wasgi has built in.
try:
    from markupsafe._speedups import escape
except ImportError:
    from markupsafe._native import escape

__all__ = ["escape"]
