import time
from datetime import timedelta

from flask import Flask, render_template
from werkzeug.exceptions import HTTPException

from . import database, forms
from .views import views

TITLES = {
    400: "That did not work",
    404: "There is nothing here",
    405: "That is not possible here",
    410: "This note is gone",
    413: "That is too long",
    500: "Something broke on our side",
}


def create_app(path, https=False):
    """The app, with its notes in the SQLite file `path`, which is made if it is not there."""
    app = Flask(__name__)
    app.config.update(
        DATABASE=path,
        SECRET_KEY=database.prepare(path),
        # The list of sent notes hangs on this cookie, so it outlives the longest note.
        PERMANENT_SESSION_LIFETIME=timedelta(days=31),
        SESSION_COOKIE_NAME="mayfly",
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=https,
        MAX_CONTENT_LENGTH=256 * 1024,
        MAX_FORM_MEMORY_SIZE=256 * 1024,
    )
    app.register_blueprint(views)
    app.before_request(forms.check_token)
    app.teardown_appcontext(database.close)
    app.after_request(protect)
    app.register_error_handler(HTTPException, show_error)
    app.jinja_env.globals["form_token"] = forms.token
    app.jinja_env.filters["span"] = span
    app.jinja_env.globals["now"] = lambda: int(time.time())
    return app


def show_error(error):
    title = TITLES.get(error.code, error.name)
    return render_template("error.html", title=title, error=error), error.code


def protect(response):
    """Nothing of a note stays in caches, leaks by the Referer field, or runs foreign scripts."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return response


def span(seconds):
    """A length of time as people say it: "3 hours"."""
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        # Two of the next smaller unit say more than one of this: "36 hours", not "1 day".
        if seconds >= 2 * size or (seconds >= size and seconds % size < 60):
            count = round(seconds / size)
            return f"{count} {word}" + ("s" if count != 1 else "")
    return "1 minute" if seconds >= 60 else "less than a minute"
