"""Ten kilobytes of JSON, made anew for each request."""

from flask import Flask, jsonify

app = Flask(__name__)

USERS = [
    {
        "id": number,
        "name": f"User {number}",
        "email": f"user{number}@example.org",
        "active": number % 3 != 0,
        "score": number * 1.25,
        "groups": ["readers", "editors"],
    }
    for number in range(1, 90)
]


@app.route("/")
def users():
    return jsonify(users=USERS, total=len(USERS))
