"""Every form carries a token that only this site's own pages can know (cross-site request forgery)."""

import hmac
import secrets

from flask import abort, request, session


def token():
    """The visitor's token, made when a form is first shown to them."""
    if "token" not in session:
        session["token"] = secrets.token_urlsafe(16)
    return session["token"]


def check_token():
    """Refuses a changing request that does not bring its visitor's token."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    given = request.form.get("token", "")
    known = session.get("token", "")
    if not known or not hmac.compare_digest(given.encode(), known.encode()):
        abort(400, "This form is out of date, or your browser refuses cookies. Load the page again and retry.")
