import secrets

from flask import Blueprint, abort, flash, redirect, render_template, request, session, url_for

from . import database, notes

views = Blueprint("views", __name__)


@views.get("/")
def start():
    return render_template("write.html", form={}, limit=notes.TEXT_LIMIT)


@views.post("/")
def write():
    # Browsers send line ends as CR LF.
    text = request.form.get("text", "").replace("\r\n", "\n")
    label = request.form.get("label", "").strip()
    lifetime = request.form.get("lifetime", "day")
    problem = None
    if not text.strip():
        problem = "The note is empty."
    elif len(text) > notes.TEXT_LIMIT:
        problem = f"The note has {len(text):,} characters; {notes.TEXT_LIMIT:,} is the most."
    elif len(label) > notes.LABEL_LIMIT:
        problem = f"The reminder has {len(label)} characters; {notes.LABEL_LIMIT} is the most."
    elif lifetime not in notes.LIFETIMES:
        problem = "Choose how long the note may wait."
    if problem:
        flash(problem, "problem")
        return render_template("write.html", form=request.form, limit=notes.TEXT_LIMIT), 400

    if "owner" not in session:
        session["owner"] = secrets.token_urlsafe(16)
        session.permanent = True
    note = notes.write(database.get(), session["owner"], text, lifetime, request.form.get("password", ""), label)
    flash("Your note is waiting for its reader.", "good")
    return redirect(url_for("views.receipt", note=note), 303)


@views.get("/sent")
def sent():
    owner = session.get("owner")
    return render_template("sent.html", receipts=notes.sent(database.get(), owner) if owner else [])


@views.get("/sent/<note>")
def receipt(note):
    found = notes.receipt(database.get(), note, session.get("owner"))
    if found is None:
        abort(404, "This browser has sent no such note.")
    return render_template("receipt.html", receipt=found)


@views.post("/sent/<note>/withdraw")
def withdraw(note):
    if notes.withdraw(database.get(), note, session.get("owner")):
        flash("The note was destroyed unread.", "good")
    else:
        flash("That note was already gone.", "problem")
    return redirect(url_for("views.sent"), 303)


@views.get("/n/<note>")
def ask(note):
    """Asks before opening: chat programs and mail filters fetch links on their own, and must not burn the note."""
    try:
        found = notes.look(database.get(), note)
    except notes.Gone:
        gone(note)
    return render_template("ask.html", receipt=found)


@views.post("/n/<note>")
def read(note):
    try:
        text = notes.take(database.get(), note, request.form.get("password", ""))
    except notes.Gone:
        gone(note)
    except notes.WrongPassword as wrong:
        if wrong.tries == 0:
            abort(410, "That was the last of the wrong passwords: the note has been destroyed.")
        tries = "1 try" if wrong.tries == 1 else f"{wrong.tries} tries"
        flash(f"That is not the password. {tries} left, then the note is destroyed.", "problem")
        return redirect(url_for("views.ask", note=note), 303)
    return render_template("note.html", text=text)


def gone(note):
    if notes.existed(database.get(), note):
        abort(410, "It was read, withdrawn, or waited too long. If you did not read it, ask the sender for a new one.")
    abort(404, "Check that the link is complete; it may have been cut in two by a line break.")
