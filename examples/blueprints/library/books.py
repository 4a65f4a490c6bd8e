"""The books, as a list that ships with the app. Read-only: each worker has its own copy."""

BOOKS = [
    {"slug": "frankenstein", "title": "Frankenstein", "author": "Mary Shelley", "year": 1818},
    {"slug": "sult", "title": "Sult", "author": "Knut Hamsun", "year": 1890},
    {"slug": "jane-eyre", "title": "Jane Eyre", "author": "Charlotte Brontë", "year": 1847},
    {"slug": "kokoro", "title": "こころ", "author": "夏目漱石", "year": 1914},
]


def find(slug):
    """The book with this slug, or None."""
    return next((book for book in BOOKS if book["slug"] == slug), None)
