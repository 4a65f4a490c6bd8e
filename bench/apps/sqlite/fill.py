"""Makes the app's database: python fill.py FILE"""

import os
import sqlite3
import sys

new = sys.argv[1] + ".new"
if os.path.exists(new):
    os.unlink(new)
database = sqlite3.connect(new)
database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, author INTEGER, title TEXT, stars INTEGER)")
rows = ((number, number % 100, f"Note number {number}", number * 31 % 6) for number in range(1, 10_001))
database.executemany("INSERT INTO notes VALUES (?, ?, ?, ?)", rows)
database.execute("CREATE INDEX notes_by_author ON notes (author, id)")
database.commit()
database.close()
os.replace(new, sys.argv[1])
