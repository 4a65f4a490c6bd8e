"""A tenant that minds its own business: it keeps a count in its folder and a secret in its environment."""

import os


def application(environ, start_response):
    with open("/data/count", "r+") as file:
        count = int(file.read() or 0) + 1
        file.seek(0)
        file.write(str(count))
    body = f"{count} {len(os.environ['PASSWORD'])}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
