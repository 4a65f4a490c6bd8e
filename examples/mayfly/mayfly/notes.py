"""What can happen to a note: written, looked at, taken by its one reader, withdrawn by its sender, expired."""

import secrets
import time

from werkzeug.security import check_password_hash, generate_password_hash

from .database import transaction

LIFETIMES = {"hour": 3600, "day": 86400, "week": 7 * 86400}
TEXT_LIMIT = 20_000
LABEL_LIMIT = 80
TRIES = 5
RECEIPTS_KEPT = 30 * 86400


class Gone(Exception):
    """There is no such note, or no longer."""


class WrongPassword(Exception):
    def __init__(self, tries):
        super().__init__(f"wrong password, {tries} tries left")
        self.tries = tries


def write(db, owner, text, lifetime, password="", label=""):
    """Keeps a note until it is read or its lifetime (a key of LIFETIMES) is over. Returns its id."""
    # 128 random bits: an id cannot be guessed, so knowing the link is the permission to read.
    note = secrets.token_urlsafe(16)
    now = int(time.time())
    hashed = generate_password_hash(password) if password else None
    with transaction(db):
        sweep(db, now)
        db.execute("INSERT INTO notes VALUES (?, ?, ?, ?)", (note, text, hashed, TRIES))
        db.execute(
            "INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
            (note, owner, label, hashed is not None, now, now + LIFETIMES[lifetime]),
        )
    return note


def look(db, note):
    """The receipt of a note that still waits; the note stays. Raises Gone."""
    receipt = db.execute("SELECT * FROM receipts WHERE id = ?", (note,)).fetchone()
    if receipt is None or receipt["fate"] is not None:
        raise Gone(note)
    now = int(time.time())
    if receipt["expires"] <= now:
        with transaction(db):
            sweep(db, now)
        raise Gone(note)
    return receipt


def existed(db, note):
    return db.execute("SELECT 1 FROM receipts WHERE id = ?", (note,)).fetchone() is not None


def take(db, note, password=""):
    """The note's text, for the first who asks; the note is gone by the time this returns.

    Raises Gone for everyone else, and WrongPassword. The last wrong password destroys the note.
    """
    look(db, note)
    # A try is paid for before the slow hash is computed, so that trying many at once gains nothing, and no lock is
    # held meanwhile.
    with transaction(db):
        row = db.execute(
            "UPDATE notes SET tries = tries - (password IS NOT NULL) WHERE id = ? AND tries > 0"
            " RETURNING password, tries",
            (note,),
        ).fetchone()
    if row is None:
        raise Gone(note)
    if row["password"] is not None and not check_password_hash(row["password"], password):
        if row["tries"] == 0:
            with transaction(db):
                end(db, note, "guessed")
        raise WrongPassword(row["tries"])
    with transaction(db):
        text = end(db, note, "read")
    if text is None:
        raise Gone(note)
    return text


def withdraw(db, note, owner):
    """Deletes the owner's note unread. Returns whether it was still there."""
    with transaction(db):
        if receipt(db, note, owner) is None:
            return False
        return end(db, note, "withdrawn") is not None


def receipt(db, note, owner):
    """What became of the owner's note, or None."""
    return db.execute("SELECT * FROM receipts WHERE id = ? AND owner = ?", (note, owner)).fetchone()


def sent(db, owner):
    """The owner's receipts, newest first."""
    with transaction(db):
        sweep(db, int(time.time()))
    return db.execute("SELECT * FROM receipts WHERE owner = ? ORDER BY created DESC, rowid DESC", (owner,)).fetchall()


def end(db, note, fate):
    """Deletes a note and says why on its receipt. Returns its text, or None if it was gone already.

    Runs inside the caller's transaction: of all who try, one gets the text.
    """
    row = db.execute("DELETE FROM notes WHERE id = ? RETURNING text", (note,)).fetchone()
    if row is None:
        return None
    db.execute("UPDATE receipts SET fate = ?, ended = ? WHERE id = ?", (fate, int(time.time()), note))
    return row["text"]


def sweep(db, now):
    """Ends the notes whose time is over and forgets old receipts. Runs inside the caller's transaction."""
    over = db.execute("SELECT id FROM receipts WHERE fate IS NULL AND expires <= ?", (now,)).fetchall()
    for row in over:
        end(db, row["id"], "expired")
    db.execute("DELETE FROM receipts WHERE ended < ?", (now - RECEIPTS_KEPT,))
