"""Says when it is imported, and answers with what it read then."""

import os
import random
import time

import greeting

print("imported")
if os.path.isdir("/data"):
    # Whoever started this may see from there that the import is under way.
    open(f"/data/{os.urandom(8).hex()}", "w").close()
while os.path.exists("/app/wait"):
    time.sleep(0.01)
with open("/app/page.txt") as file:
    page = file.read()
drawn = random.Random(os.urandom(8)).getrandbits(64)
count = 0


def application(environ, start_response):
    global count
    count += 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{greeting.TEXT} {page} {os.environ.get('MORE', '-')} {drawn} {count}".encode()]
