#!/bin/sh
# Makes the certificates that tests/it/tls.rs uses; the keys are no secrets. They are kept, so that tests need no openssl.
set -eu
cd "$(dirname "$0")"
new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }
new_key ca.key
openssl req -x509 -new -key ca.key -days 36500 -subj "/CN=wasgi tests" -out ca.pem \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
for name in one two; do
    new_key $name.key
    openssl req -new -key $name.key -subj "/CN=$name.test" -out $name.csr
    printf 'subjectAltName=DNS:%s.test\nbasicConstraints=CA:FALSE\n' $name > $name.ext
    openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -days 36500 -extfile $name.ext -out $name.pem 2>/dev/null
    rm $name.csr $name.ext
done
rm -f ca.key ca.srl
