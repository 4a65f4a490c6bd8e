# Gets the sources named in sources.lock into the cache and unpacks them. Sourced by build.sh.
# shellcheck shell=bash

# fetch NAME: makes sure the cache has the source and that it is the pinned one.
fetch() {
    local name=$1 version sha file way ways
    read -r _ version sha file ways <<<"$(lock_line "$name")"
    [ -n "${ways:-}" ] || die "sources.lock has no line for $name"
    if [ -f "$CACHE/$file" ]; then
        [ "$(sha256_of "$CACHE/$file")" = "$sha" ] && return
        say "$CACHE/$file is damaged; downloading it again"
        rm -f "$CACHE/$file"
    fi
    mkdir -p "$CACHE" "$LOGS"
    local room log=$LOGS/fetch-$name.log got began=$SECONDS
    room=$(mktemp -d "$CACHE/.$name.XXXXXX")
    : >"$log"
    for way in $ways; do
        case $way in deb:* | deb-src:*) on_debian || continue ;; esac
        (cd "$room" && "fetch_${way%%:*}" "${way#*:}" "$version" "$file") >>"$log" 2>&1 || true
        [ -f "$room/$file" ] && break
    done
    if [ ! -f "$room/$file" ]; then
        rm -rf "$room"
        tail -n 5 "$log" >&2
        die "cannot download $name $version (tried: $ways): check the network, or put the file at $CACHE/$file yourself; log: $log"
    fi
    got=$(sha256_of "$room/$file")
    if [ "$got" != "$sha" ]; then
        rm -rf "$room"
        die "$name $version: downloaded file has sha256 $got, but sources.lock says $sha: somebody changed it; do not use it unless you know why, then put the new sum in sources.lock"
    fi
    mv "$room/$file" "$CACHE/$file"
    rm -rf "$room"
    say "downloaded $name $version in $((SECONDS - began)) s"
}

fetch_url() {
    if command -v curl >/dev/null; then
        curl -fsSL --retry 3 -o "$3.part" "$1"
    elif command -v wget >/dev/null; then
        wget -q -O "$3.part" "$1"
    else
        python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' "$1" "$3.part"
    fi
    mv "$3.part" "$3"
}

# cargo only fetches for a package, so it gets one that depends on nothing but the crate.
fetch_crate() {
    mkdir -p package/src
    : >package/src/lib.rs
    cat >package/Cargo.toml <<TOML
[package]
name = "fetch-$1"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
$1 = "=${2%%+*}"
TOML
    (cd package && cargo fetch)
    cp "${CARGO_HOME:-$HOME/.cargo}"/registry/cache/*/"$1-$2.crate" "$3"
}

fetch_pypi() {
    case $3 in
    *.whl) python3 -m pip download --no-deps --only-binary :all: "$1==$2" ;;
    *) python3 -m pip download --no-deps --no-binary "$1" "$1==$2" ;;
    esac
}

fetch_deb() {
    debian13 download "$1=$2"
    mv ./*.deb "$3"
}

fetch_deb-src() {
    debian13 source --download-only "${1%%/*}"
    mv "${1#*/}" "$3"
}

# debian13 COMMAND...: apt-get with lists of its own for Debian 13, from the mirror (and with the keys) that this machine
# uses for its own Debian release. The machine's own lists and packages stay as they are.
debian13() {
    local apt=$WORK/apt mirror keys
    if [ ! -e "$apt/ready" ]; then
        rm -rf "$apt"
        mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
        : >"$apt/none.list"
        mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
            awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }')
        if [ -z "$mirror" ]; then # before the first apt-get update the origin is not known
            mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
                grep -Eo '[a-z+]+:[^ ]*/debian/?( |$)' | head -n 1 | tr -d ' ')
        fi
        [ -n "$mirror" ] || { echo "no Debian mirror in /etc/apt/sources.list*"; return 1; }
        keys=/usr/share/keyrings/debian-archive-keyring.gpg
        cat >"$apt/parts/debian13.sources" <<SOURCES
Types: deb deb-src
URIs: $mirror
Suites: trixie
Components: main
${keys:+Signed-By: $keys}
SOURCES
        debian13_apt update
        touch "$apt/ready"
    fi
    debian13_apt "$@"
}

debian13_apt() {
    local apt=$WORK/apt
    apt-get -q -o Dir::Etc::SourceList="$apt/none.list" -o Dir::Etc::SourceParts="$apt/parts" \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User= "$@"
}

# unpack NAME: the source's own folder under $SRC, emptied first.
unpack() {
    local file=$CACHE/$(lock_field "$1" 4) into=$SRC/$1
    rm -rf "$into"
    mkdir -p "$into"
    case $file in
    *.whl) python3 -m zipfile -e "$file" "$into" ;;
    *.deb) dpkg-deb -x "$file" "$into" ;;
    *) tar -xf "$file" -C "$into" --strip-components 1 ;;
    esac
}
