"""hashlib.pbkdf2_hmac and hashlib.scrypt without OpenSSL: published vectors, edges of the padding, OpenSSL's errors."""

import hashlib
import hmac
import unittest


def pbkdf2(name, password, salt, iterations, length):
    """RFC 8018 5.2 as it is written, on the hmac module."""
    key, index = b"", 1
    while len(key) < length:
        turn = hmac.digest(password, salt + index.to_bytes(4, "big"), name)
        total = int.from_bytes(turn, "big")
        for _ in range(iterations - 1):
            turn = hmac.digest(password, turn, name)
            total ^= int.from_bytes(turn, "big")
        key += total.to_bytes(len(turn), "big")
        index += 1
    return key[:length]


class PBKDF2Tests(unittest.TestCase):
    def test_rfc_6070(self):
        for password, salt, iterations, length, key in [
            (b"password", b"salt", 1, 20, "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
            (b"password", b"salt", 4096, 20, "4b007901b765489abead49d926f721d065a429c1"),
            (b"passwordPASSWORDpassword", b"saltSALT" * 4 + b"salt", 4096, 25,
             "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"),
            (b"pass\0word", b"sa\0lt", 4096, 16, "56fa6aa75548099dcc37d7f03425e0c3"),
        ]:
            with self.subTest(password=password, iterations=iterations):
                self.assertEqual(hashlib.pbkdf2_hmac("sha1", password, salt, iterations, length).hex(), key)

    def test_lengths_around_the_block(self):
        for name in "md5", "sha1", "sha224", "sha256", "sha384", "sha512":
            block, digest = hashlib.new(name).block_size, hashlib.new(name).digest_size
            for password in 0, 1, block - 1, block, block + 1, 3 * block:
                for salt in 0, 7, block - 14, block - 13, block - 12, block - 5, block - 4, block, 2 * block:
                    with self.subTest(name=name, password=password, salt=salt):
                        p, s = b"p" * password, b"s" * salt
                        self.assertEqual(hashlib.pbkdf2_hmac(name, p, s, 2), pbkdf2(name, p, s, 2, digest))

    def test_key_longer_than_the_digest(self):
        for length in 1, 31, 32, 33, 200:
            self.assertEqual(hashlib.pbkdf2_hmac("sha256", b"p", b"s", 3, length), pbkdf2("sha256", b"p", b"s", 3, length))

    def test_errors(self):
        for error, args in [
            (ValueError, ("sha1", b"p", b"s", 0)),
            (ValueError, ("sha1", b"p", b"s", -1)),
            (OverflowError, ("sha1", b"p", b"s", 1 << 40)),
            (ValueError, ("sha1", b"p", b"s", 1, 0)),
            (ValueError, ("sha1", b"p", b"s", 1, -1)),
            (OverflowError, ("sha1", b"p", b"s", 1, 1 << 40)),
            (ValueError, ("unknown", b"p", b"s", 1)),
            (TypeError, (b"sha1", b"p", b"s", 1)),
            (TypeError, ("sha1", "p", b"s", 1)),
            (TypeError, ("sha1", b"p", b"s", 1, "32")),
        ]:
            with self.subTest(args=args), self.assertRaises(error):
                hashlib.pbkdf2_hmac(*args)


class ScryptTests(unittest.TestCase):
    def test_rfc_7914(self):
        for password, salt, n, r, p, key in [
            (b"", b"", 16, 1, 1, "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"
             "fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906"),
            (b"password", b"NaCl", 1024, 8, 16, "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
             "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"),
            (b"pleaseletmein", b"SodiumChloride", 16384, 8, 1, "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
             "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"),
        ]:
            with self.subTest(n=n):
                self.assertEqual(hashlib.scrypt(password, salt=salt, n=n, r=r, p=p).hex(), key)

    def test_as_werkzeug_calls_it(self):
        # generate_password_hash(method="scrypt"), whose maxmem is more than the default.
        key = hashlib.scrypt(b"secret", salt=b"salt", n=2**15, r=8, p=1, maxmem=132 * 2**15 * 8)
        self.assertEqual(len(key), 64)

    def test_errors(self):
        good = dict(salt=b"salt", n=2, r=8, p=1)
        for error, change in [
            (ValueError, dict(n=0)),
            (ValueError, dict(n=3)),
            (TypeError, dict(n=-1)),
            (TypeError, dict(n=None)),
            (ValueError, dict(n=1 << 60)),
            (ValueError, dict(r=0)),
            (TypeError, dict(r=-1)),
            (ValueError, dict(p=0)),
            (ValueError, dict(p=1 << 40)),
            (ValueError, dict(maxmem=-1)),
            (ValueError, dict(maxmem=1 << 40)),
            (ValueError, dict(dklen=0)),
            (ValueError, dict(dklen=1 << 40)),
        ]:
            with self.subTest(**change), self.assertRaises(error):
                hashlib.scrypt(b"p", **{**good, **change})
        with self.assertRaisesRegex(ValueError, "memory limit exceeded"):
            hashlib.scrypt(b"p", salt=b"salt", n=2**15, r=8, p=1)
        with self.assertRaisesRegex(TypeError, "salt is required"):
            hashlib.scrypt(b"p")
        with self.assertRaises(TypeError):
            hashlib.scrypt("p", **good)


if __name__ == "__main__":
    unittest.main()
