"""A page of a shop: a template with a base, a loop, a macro, filters and escaping."""

from flask import Flask, render_template

app = Flask(__name__)

ITEMS = [
    {
        "id": number,
        "name": f"Kettle <No. {number}> & lid",
        "price": 1250 + 37 * number,
        "stock": number * 7 % 11,
        "tags": ["kitchen", "steel" if number % 2 else "enamel"],
    }
    for number in range(1, 51)
]


@app.route("/")
def page():
    return render_template("list.html", items=ITEMS, title="Kettles")
