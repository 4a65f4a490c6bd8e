from pkg._core import answer

__all__ = ["answer"]
