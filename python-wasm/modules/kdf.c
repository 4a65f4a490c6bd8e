/*
 * The built-in module _wasgi_kdf: hashlib.pbkdf2_hmac and hashlib.scrypt, which CPython has only with OpenSSL.
 *
 * The hash functions are CPython's own verified ones (HACL*), the memory-hard core is scrypt's reference code. Here are
 * PBKDF2's loop, the checks and messages of Modules/_hashopenssl.c, and the look for signals that lets a time limit end
 * a long derivation.
 *
 * Sources: RFC 8018 5.2 (PBKDF2), RFC 2104 (HMAC), RFC 7914 (scrypt), FIPS 180-4 5.1 and RFC 1321 3.1 (padding).
 */
#include <Python.h>

#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "crypto_scrypt_smix.h"
#include "internal/Hacl_Hash_MD5.h"
#include "internal/Hacl_Hash_SHA1.h"
#include "internal/Hacl_Hash_SHA2.h"

#define MAX_BLOCK 128
#define MAX_DIGEST 64

/* Iterations between two looks for signals: a few milliseconds. */
#define ITERATIONS_PER_CHECK 4096

typedef union {
    uint32_t words32[8];
    uint64_t words64[8];
} state_t;

typedef struct {
    const char *name;
    uint32_t block, digest;
    void (*init)(state_t *state);
    void (*compress)(state_t *state, uint8_t *blocks, uint32_t count);
    void (*finish)(state_t *state, uint8_t *digest);
} hash_t;

static void md5_init(state_t *s) { Hacl_Hash_MD5_init(s->words32); }
static void md5_compress(state_t *s, uint8_t *b, uint32_t n) { Hacl_Hash_MD5_update_multi(s->words32, b, n); }
static void md5_finish(state_t *s, uint8_t *d) { Hacl_Hash_MD5_finish(s->words32, d); }

static void sha1_init(state_t *s) { Hacl_Hash_SHA1_init(s->words32); }
static void sha1_compress(state_t *s, uint8_t *b, uint32_t n) { Hacl_Hash_SHA1_update_multi(s->words32, b, n); }
static void sha1_finish(state_t *s, uint8_t *d) { Hacl_Hash_SHA1_finish(s->words32, d); }

static void sha224_init(state_t *s) { Hacl_Hash_SHA2_sha224_init(s->words32); }
static void sha224_finish(state_t *s, uint8_t *d) { Hacl_Hash_SHA2_sha224_finish(s->words32, d); }

static void sha256_init(state_t *s) { Hacl_Hash_SHA2_sha256_init(s->words32); }
static void sha256_compress(state_t *s, uint8_t *b, uint32_t n)
{
    Hacl_Hash_SHA2_sha256_update_nblocks(n * 64, b, s->words32);
}
static void sha256_finish(state_t *s, uint8_t *d) { Hacl_Hash_SHA2_sha256_finish(s->words32, d); }

static void sha384_init(state_t *s) { Hacl_Hash_SHA2_sha384_init(s->words64); }
static void sha384_finish(state_t *s, uint8_t *d) { Hacl_Hash_SHA2_sha384_finish(s->words64, d); }

static void sha512_init(state_t *s) { Hacl_Hash_SHA2_sha512_init(s->words64); }
static void sha512_compress(state_t *s, uint8_t *b, uint32_t n)
{
    Hacl_Hash_SHA2_sha512_update_nblocks(n * 128, b, s->words64);
}
static void sha512_finish(state_t *s, uint8_t *d) { Hacl_Hash_SHA2_sha512_finish(s->words64, d); }

/* SHA-224 and SHA-384 compress as their bigger sisters do; only start and end differ. */
static const hash_t HASHES[] = {
    {"md5", 64, 16, md5_init, md5_compress, md5_finish},
    {"sha1", 64, 20, sha1_init, sha1_compress, sha1_finish},
    {"sha224", 64, 28, sha224_init, sha256_compress, sha224_finish},
    {"sha256", 64, 32, sha256_init, sha256_compress, sha256_finish},
    {"sha384", 128, 48, sha384_init, sha512_compress, sha384_finish},
    {"sha512", 128, 64, sha512_init, sha512_compress, sha512_finish},
};

#define SHA256 (&HASHES[3])

static const hash_t *
hash_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof HASHES / sizeof *HASHES; i++) {
        if (strcasecmp(name, HASHES[i].name) == 0)
            return &HASHES[i];
    }
    PyErr_Format(PyExc_ValueError, "unsupported hash type %s", name);
    return NULL;
}

/* Bytes that a message of `length` has once it is padded to whole blocks. */
static size_t
padded_length(const hash_t *hash, size_t length)
{
    size_t least = length + 1 + hash->block / 8;

    return (least + hash->block - 1) / hash->block * hash->block;
}

/* Writes the padding behind a message's last bytes. `total` counts what was hashed before them as well. */
static void
pad(const hash_t *hash, uint8_t *message, size_t length, uint64_t total)
{
    size_t end = padded_length(hash, length);
    uint64_t bits = total * 8;

    memset(message + length, 0, end - length);
    message[length] = 0x80;
    for (int i = 0; i < 8; i++) {
        if (hash->init == md5_init)
            message[end - 8 + i] = (uint8_t)(bits >> (8 * i));
        else
            message[end - 1 - i] = (uint8_t)(bits >> (8 * i));
    }
}

/* The states of HMAC after the key's block: every message continues from copies of these two. */
typedef struct {
    const hash_t *hash;
    state_t inner, outer;
} hmac_t;

static int
hmac_init(hmac_t *hmac, const hash_t *hash, const uint8_t *key, size_t length)
{
    uint8_t block[MAX_BLOCK] = {0};

    hmac->hash = hash;
    if (length > hash->block) {
        size_t padded = padded_length(hash, length);
        uint8_t *copy = PyMem_RawMalloc(padded);

        if (copy == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        memcpy(copy, key, length);
        pad(hash, copy, length, length);
        hash->init(&hmac->inner);
        hash->compress(&hmac->inner, copy, (uint32_t)(padded / hash->block));
        hash->finish(&hmac->inner, block);
        explicit_bzero(copy, padded);
        PyMem_RawFree(copy);
    }
    else if (length > 0) {
        memcpy(block, key, length);
    }
    for (uint32_t i = 0; i < hash->block; i++)
        block[i] ^= 0x36;
    hash->init(&hmac->inner);
    hash->compress(&hmac->inner, block, 1);
    for (uint32_t i = 0; i < hash->block; i++)
        block[i] ^= 0x36 ^ 0x5c;
    hash->init(&hmac->outer);
    hash->compress(&hmac->outer, block, 1);
    explicit_bzero(block, sizeof block);
    return 0;
}

/*
 * PBKDF2 into `key`. 0, or -1 with an exception: no memory, or what a signal handler raised.
 *
 * After the first round every message is one digest, so `turn` is one block whose padding never changes: a round is two
 * copies of a state and two compressions.
 */
static int
pbkdf2(const hash_t *hash, const Py_buffer *password, const uint8_t *salt, size_t salt_length, uint32_t iterations,
       uint8_t *key, size_t length)
{
    hmac_t hmac;
    state_t state;
    uint8_t turn[MAX_BLOCK], sum[MAX_DIGEST];
    size_t first_length = salt_length + 4, first_padded = padded_length(hash, first_length);
    uint32_t done = 0;
    int result = -1;
    uint8_t *first = PyMem_RawMalloc(first_padded);

    if (first == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (hmac_init(&hmac, hash, password->buf, (size_t)password->len) < 0)
        goto end;
    if (salt_length > 0)
        memcpy(first, salt, salt_length);
    pad(hash, first, first_length, (uint64_t)hash->block + first_length);
    pad(hash, turn, hash->digest, (uint64_t)hash->block + hash->digest);

    for (uint32_t index = 1; length > 0; index++) {
        size_t part = length < hash->digest ? length : hash->digest;

        for (int i = 0; i < 4; i++)
            first[salt_length + i] = (uint8_t)(index >> (24 - 8 * i));
        for (uint32_t round = 0; round < iterations; round++) {
            state = hmac.inner;
            if (round == 0)
                hash->compress(&state, first, (uint32_t)(first_padded / hash->block));
            else
                hash->compress(&state, turn, 1);
            hash->finish(&state, turn);
            state = hmac.outer;
            hash->compress(&state, turn, 1);
            hash->finish(&state, turn);
            if (round == 0) {
                memcpy(sum, turn, hash->digest);
            }
            else {
                for (uint32_t i = 0; i < hash->digest; i++)
                    sum[i] ^= turn[i];
            }
            if (++done % ITERATIONS_PER_CHECK == 0 && PyErr_CheckSignals() < 0)
                goto end;
        }
        memcpy(key, sum, part);
        key += part;
        length -= part;
    }
    result = 0;
end:
    explicit_bzero(&hmac, sizeof hmac);
    explicit_bzero(turn, sizeof turn);
    explicit_bzero(sum, sizeof sum);
    PyMem_RawFree(first);
    return result;
}

PyDoc_STRVAR(pbkdf2_hmac_doc,
             "pbkdf2_hmac($module, /, hash_name, password, salt, iterations,\n"
             "            dklen=None)\n"
             "--\n"
             "\n"
             "Password based key derivation function 2 (PKCS #5 v2.0) with HMAC as pseudorandom function.");

static PyObject *
pbkdf2_hmac(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"hash_name", "password", "salt", "iterations", "dklen", NULL};
    const char *hash_name;
    Py_buffer password = {0}, salt = {0};
    long long iterations, length;
    PyObject *dklen = Py_None, *key = NULL;
    const hash_t *hash;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sy*y*L|O:pbkdf2_hmac", names, &hash_name, &password, &salt,
                                     &iterations, &dklen))
        return NULL;
    hash = hash_by_name(hash_name);
    if (hash == NULL)
        goto end;
    if (iterations < 1) {
        PyErr_SetString(PyExc_ValueError, "iteration value must be greater than 0.");
        goto end;
    }
    if (iterations > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "iteration value is too great.");
        goto end;
    }
    length = dklen == Py_None ? (long long)hash->digest : PyLong_AsLongLong(dklen);
    if (length == -1 && PyErr_Occurred())
        goto end;
    if (length < 1) {
        PyErr_SetString(PyExc_ValueError, "key length must be greater than 0.");
        goto end;
    }
    if (length > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "key length is too great.");
        goto end;
    }
    key = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (key != NULL
        && pbkdf2(hash, &password, salt.buf, (size_t)salt.len, (uint32_t)iterations, (uint8_t *)PyBytes_AS_STRING(key),
                  (size_t)length) < 0)
        Py_CLEAR(key);
end:
    PyBuffer_Release(&password);
    PyBuffer_Release(&salt);
    return key;
}

/* What OpenSSL allows when maxmem is 0. */
#define SCRYPT_DEFAULT_MAXMEM (32 * 1024 * 1024)

/* OpenSSL's conditions (crypto/evp/pbe_scrypt.c): the bounds of RFC 7914 and the memory limit. */
static int
scrypt_check(uint64_t n, uint64_t r, uint64_t p, uint64_t maxmem, uint64_t *b_size, uint64_t *v_size)
{
    static const char INVALID[] = "Invalid parameter combination for n, r, p, maxmem.";

    if (r == 0 || p == 0 || p > ((1 << 30) - 1) / r || (16 * r <= 63 && n >= (uint64_t)1 << (16 * r))
        || n + 2 > UINT64_MAX / 128 / r) {
        PyErr_SetString(PyExc_ValueError, INVALID);
        return -1;
    }
    *b_size = p * r * 128;
    *v_size = (n + 2) * r * 128; /* two blocks more than V itself, for the working space */
    if (*b_size > UINT64_MAX - *v_size) {
        PyErr_SetString(PyExc_ValueError, INVALID);
        return -1;
    }
    if (*b_size + *v_size > (maxmem == 0 ? SCRYPT_DEFAULT_MAXMEM : maxmem)) {
        PyErr_SetString(PyExc_ValueError, "memory limit exceeded");
        return -1;
    }
    return 0;
}

/* scrypt proper: PBKDF2, the memory-hard mix of each part, PBKDF2 again. */
static PyObject *
scrypt_derive(const Py_buffer *password, const Py_buffer *salt, uint64_t n, size_t r, size_t p, size_t b_size,
              size_t v_size, size_t length)
{
    /* The mix wants 64-byte alignment, V of 128*r*n bytes and 256*r + 64 bytes to work in. */
    uint8_t *memory = PyMem_RawMalloc(b_size + v_size + 64 + 64);
    PyObject *key = NULL;

    if (memory == NULL)
        return PyErr_NoMemory();
    uint8_t *b = (uint8_t *)(((uintptr_t)memory + 63) & ~(uintptr_t)63), *v = b + b_size, *work = v + 128 * r * (size_t)n;
    if (pbkdf2(SHA256, password, salt->buf, (size_t)salt->len, 1, b, b_size) < 0)
        goto end;
    for (size_t i = 0; i < p; i++) {
        crypto_scrypt_smix(b + i * 128 * r, r, n, v, work);
        if (PyErr_CheckSignals() < 0)
            goto end;
    }
    key = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (key != NULL && pbkdf2(SHA256, password, b, b_size, 1, (uint8_t *)PyBytes_AS_STRING(key), length) < 0)
        Py_CLEAR(key);
end:
    explicit_bzero(b, b_size);
    PyMem_RawFree(memory);
    return key;
}

/* One of n, r and p. -1 with a TypeError unless it is an int that fits. */
static int
scrypt_cost(PyObject *value, const char *name, uint64_t *result)
{
    *result = PyLong_AsUnsignedLongLong(value);
    if (*result == (uint64_t)-1 && PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError, "%s is required and must be an unsigned int", name);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(scrypt_doc,
             "scrypt($module, /, password, *, salt=None, n=None, r=None, p=None,\n"
             "       maxmem=0, dklen=64)\n"
             "--\n"
             "\n"
             "scrypt password-based key derivation function.");

static PyObject *
scrypt(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"password", "salt", "n", "r", "p", "maxmem", "dklen", NULL};
    Py_buffer password = {0}, salt = {0};
    PyObject *n_value = Py_None, *r_value = Py_None, *p_value = Py_None, *key = NULL;
    long long maxmem = 0, length = 64;
    uint64_t n, r, p, b_size, v_size;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*|$y*O!O!O!LL:scrypt", names, &password, &salt, &PyLong_Type,
                                     &n_value, &PyLong_Type, &r_value, &PyLong_Type, &p_value, &maxmem, &length))
        return NULL;
    if (salt.buf == NULL) {
        PyErr_SetString(PyExc_TypeError, "salt is required");
        goto end;
    }
    if (scrypt_cost(n_value, "n", &n) < 0)
        goto end;
    if (n < 2 || (n & (n - 1)) != 0) {
        PyErr_SetString(PyExc_ValueError, "n must be a power of 2.");
        goto end;
    }
    if (scrypt_cost(r_value, "r", &r) < 0 || scrypt_cost(p_value, "p", &p) < 0)
        goto end;
    if (maxmem < 0 || maxmem > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "maxmem must be positive and smaller than %d", INT_MAX);
        goto end;
    }
    if (length < 1 || length > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "dklen must be greater than 0 and smaller than %d", INT_MAX);
        goto end;
    }
    if (scrypt_check(n, r, p, (uint64_t)maxmem, &b_size, &v_size) < 0)
        goto end;
    /* maxmem is at most INT_MAX, so all sizes now fit 32 bits. */
    key = scrypt_derive(&password, &salt, n, (size_t)r, (size_t)p, (size_t)b_size, (size_t)v_size, (size_t)length);
end:
    PyBuffer_Release(&password);
    PyBuffer_Release(&salt);
    return key;
}

static PyMethodDef methods[] = {
    {"pbkdf2_hmac", (PyCFunction)(void (*)(void))pbkdf2_hmac, METH_VARARGS | METH_KEYWORDS, pbkdf2_hmac_doc},
    {"scrypt", (PyCFunction)(void (*)(void))scrypt, METH_VARARGS | METH_KEYWORDS, scrypt_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_wasgi_kdf",
    .m_doc = "Key derivation for hashlib, without OpenSSL.",
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__wasgi_kdf(void)
{
    return PyModuleDef_Init(&definition);
}
