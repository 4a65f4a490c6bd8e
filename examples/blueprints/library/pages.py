from flask import Blueprint, abort, render_template

from .books import BOOKS, find

pages = Blueprint("pages", __name__)


@pages.route("/")
def index():
    return render_template("pages/index.html", books=BOOKS)


@pages.route("/books/<slug>")
def book(slug):
    found = find(slug)
    if found is None:
        abort(404, f"There is no book called {slug!r} here.")
    return render_template("pages/book.html", book=found)


@pages.route("/upload")
def upload_form():
    return render_template("pages/upload.html")
