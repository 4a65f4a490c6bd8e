#!/usr/bin/env bash
# Installs the programs that tests run beside wasgi: from tests/requirements.txt into target/test-tools, and on Debian what
# is missing of its packages. Elsewhere it says what is.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=target/test-tools
if ! cmp -s tests/requirements.txt "$tools/.installed"; then
    echo "installing tests/requirements.txt into $tools"
    rm -rf "$tools"
    "${PYTHON:-python3}" -m venv "$tools"
    "$tools/bin/pip" install --quiet --no-input --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt "$tools/.installed"
fi

missing=()
command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || missing+=(haproxy)
[ -x /usr/sbin/nginx ] || missing+=(nginx-light)
[ -x /usr/sbin/apache2 ] || missing+=(apache2-bin)
[ -x /usr/sbin/lighttpd ] || missing+=(lighttpd)
command -v caddy >/dev/null || missing+=(caddy)
command -v curl >/dev/null || missing+=(curl)
command -v h2load >/dev/null || missing+=(nghttp2-client)
command -v systemd-analyze >/dev/null || missing+=(systemd)
[ ${#missing[@]} -eq 0 ] && exit
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Installed is not started: tests start what they need.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "missing: ${missing[*]}; the tests that need them will fail until they are installed" >&2
fi
