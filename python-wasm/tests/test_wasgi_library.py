"""What the guest's standard library must offer, and how the parts that WASI has no ground for refuse."""

import encodings
import importlib
import os
import pkgutil
import socket
import sqlite3
import time
import unittest
import urllib.error
import urllib.request
import zoneinfo


class ModuleTests(unittest.TestCase):
    def test_c_modules(self):
        for name in (
            "_bz2 _csv _datetime _decimal _elementtree _json _lzma _pickle _random _socket _sqlite3 _struct _zoneinfo array "
            "binascii pyexpat select unicodedata zlib _codecs_cn _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr _codecs_tw"
        ).split():
            with self.subTest(name):
                importlib.import_module(name)

    def test_every_encoding(self):
        for module in pkgutil.iter_modules(encodings.__path__):
            if module.name not in ("mbcs", "oem"):  # Windows only
                with self.subTest(module.name):
                    importlib.import_module(f"encodings.{module.name}")

    def test_time_zones(self):
        self.assertGreater(len(zoneinfo.available_timezones()), 500)
        self.assertEqual(zoneinfo.ZoneInfo("Europe/Berlin").key, "Europe/Berlin")

    def test_sleep(self):
        began = time.monotonic()
        time.sleep(0.05)
        self.assertGreaterEqual(time.monotonic() - began, 0.05)


class SocketTests(unittest.TestCase):
    MESSAGE = "outgoing connections are not available to this app"

    def test_socket_is_refused(self):
        with self.assertRaisesRegex(OSError, self.MESSAGE):
            socket.socket()
        with self.assertRaisesRegex(OSError, self.MESSAGE):
            socket.create_connection(("127.0.0.1", 80))

    def test_names_are_refused(self):
        for lookup in (socket.gethostbyname, lambda name: socket.getaddrinfo(name, 80)):
            with self.assertRaisesRegex(OSError, self.MESSAGE):
                lookup("example.org")
        with self.assertRaisesRegex(urllib.error.URLError, self.MESSAGE):
            urllib.request.urlopen("http://example.org/")

    def test_numbers_and_localhost_resolve(self):
        self.assertEqual(socket.gethostname(), "localhost")
        self.assertEqual(socket.getfqdn(), "localhost")
        self.assertEqual(socket.gethostbyname("localhost"), "127.0.0.1")
        [(family, *_, address)] = socket.getaddrinfo("::1", 8000, type=socket.SOCK_STREAM)
        self.assertEqual((family, address[:2]), (socket.AF_INET6, ("::1", 8000)))
        self.assertEqual(socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST), ("127.0.0.1", "80"))


class SQLiteTests(unittest.TestCase):
    def connect(self):
        connection = sqlite3.connect("wasgi.db", timeout=0.1, isolation_level=None)
        self.addCleanup(connection.close)
        return connection

    def setUp(self):
        self.addCleanup(lambda: os.path.exists("wasgi.db") and os.unlink("wasgi.db"))

    def test_features(self):
        db = sqlite3.connect(":memory:")
        db.execute("create virtual table notes using fts5(body)")
        db.execute("insert into notes values ('hello there')")
        self.assertEqual(db.execute("select body from notes where notes match 'hello'").fetchall(), [("hello there",)])
        self.assertEqual(db.execute("""select json_extract('{"a": [1, 2]}', '$.a[1]')""").fetchone(), (2,))
        self.assertGreaterEqual(sqlite3.sqlite_version_info, (3, 50))
        db.close()

    def test_readers_read_while_one_writes(self):
        writer, reader = self.connect(), self.connect()
        writer.execute("create table t (n)")
        writer.execute("begin immediate")
        writer.execute("insert into t values (1)")
        self.assertEqual(reader.execute("select count(*) from t").fetchone(), (0,))
        with self.assertRaisesRegex(sqlite3.OperationalError, "database is locked"):
            reader.execute("begin immediate")
        writer.execute("commit")
        self.assertEqual(reader.execute("select count(*) from t").fetchone(), (1,))
        self.assertEqual(os.path.exists("wasgi.db.lock"), False)

    def test_no_wal(self):
        self.assertEqual(self.connect().execute("pragma journal_mode = wal").fetchone(), ("delete",))


if __name__ == "__main__":
    unittest.main()
