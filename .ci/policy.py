#!/usr/bin/env python3
"""Checks every crate of Cargo.lock against deny.toml: licences, bans and sources; and our own for the wall clock.

What cargo-deny does beyond that, security advisories above all, needs a database from the network: `make deny`.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Limits, rates, queues and caches go by the monotonic clock, so that setting the machine's expires and extends nothing. Who
# looks at the wall clock, and what for:
WALL_CLOCK = {
    "crates/cli/dev/files.rs": "compares files' times with each other",
    "crates/config/src/import/magic.rs": "fills in uWSGI's variable for the time of the start",
    "crates/engine/src/checked_images.rs": "an image changed lately, or in the future, is read again",
    "crates/engine/src/clock.rs": "an app's own monotonic clock goes on over processes, and never backwards",
    "crates/engine/src/folder_state.rs": "files changed lately, or in the future, are not settled yet",
    "crates/engine/src/wasi.rs": "what a guest asks of the wall clock",
    "crates/server/src/http2/stream.rs": "the date of a reply",
    "crates/server/src/log/date.rs": "dates of access lines",
    "crates/server/src/log/format.rs": "dates of access lines",
    "crates/server/src/metrics.rs": "dates that are told",
    "crates/server/src/static_files.rs": "HTTP dates",
    "crates/server/src/static_files/conditions.rs": "HTTP dates",
    "crates/server/src/static_files/reply.rs": "HTTP dates",
    "crates/server/src/static_files/root.rs": "files' times",
    "crates/server/src/tls.rs": "compares files' times with each other",
    "crates/server/src/trace/otlp.rs": "dates of spans",
}


def allowed(expression, licences):
    """Whether an SPDX expression can be met with these licences. "/" is how older crates write OR."""
    tokens = re.findall(r"[()]|[\w.+-]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def either():
        met = both()
        while peek() == "OR":
            take()
            met |= both()
        return met

    def both():
        met = one()
        while peek() == "AND":
            take()
            met &= one()
        return met

    def one():
        name = take()
        if name == "(":
            met = either()
            if take() != ")":
                raise ValueError(f"not an SPDX expression: {expression}")
            return met
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in licences

    met = either()
    if position != len(tokens):
        raise ValueError(f"not an SPDX expression: {expression}")
    return met


def wall_clock():
    """What is wrong with WALL_CLOCK."""
    found = set()
    for path in (ROOT / "crates").rglob("*.rs"):
        name = path.relative_to(ROOT).as_posix()
        if not {"tests", "benches", "fuzz"} & set(path.relative_to(ROOT).parts) and "SystemTime" in path.read_text():
            found.add(name)
    for name in sorted(found - WALL_CLOCK.keys()):
        yield f"{name}: looks at the wall clock, which anybody may set: use Instant, or say in .ci/policy.py what for"
    for name in sorted(WALL_CLOCK.keys() - found):
        yield f"{name}: .ci/policy.py says that it looks at the wall clock; it does not"


def self_test():
    """A check that cannot fail would be none."""
    licences = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"}
    for expression, expected in {
        "MIT": True,
        "GPL-3.0-only": False,
        "GPL-3.0-only OR MIT": True,
        "GPL-3.0-only AND MIT": False,
        "MIT/Apache-2.0": True,
        "Apache-2.0 WITH LLVM-exception": True,
        "MIT WITH LLVM-exception": False,
        "(MIT OR GPL-3.0-only) AND GPL-2.0-only": False,
        "MIT OR GPL-2.0-only AND GPL-3.0-only": True,
    }.items():
        if allowed(expression, licences) is not expected:
            sys.exit(f"policy.py reads {expression!r} wrongly")


def main():
    self_test()
    policy = tomllib.loads((ROOT / "deny.toml").read_text())
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", str(ROOT / "Cargo.toml")]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    licences = set(policy["licenses"]["allow"])
    banned = {ban["crate"]: ban["reason"] for ban in policy["bans"]["deny"]}
    wrong = list(wall_clock())
    for package in metadata["packages"]:
        name, source = f"{package['name']} {package['version']}", package["source"]
        if not package["license"]:
            wrong.append(f"{name}: names no licence")
        elif not allowed(package["license"], licences):
            wrong.append(f"{name}: {package['license']} is not among the licences that deny.toml allows")
        if package["name"] in banned:
            wrong.append(f"{name}: banned: {banned[package['name']]}")
        if source is None:
            if not pathlib.Path(package["manifest_path"]).is_relative_to(ROOT):
                wrong.append(f"{name}: comes from a folder outside this project")
            for dependency in package["dependencies"]:
                if dependency["req"] == "*" and not dependency.get("path"):
                    wrong.append(f"{name}: takes any version of {dependency['name']}")
        elif not (source.startswith("registry+") and source.endswith("/crates.io-index")):
            wrong.append(f"{name}: comes from {source}, not from crates.io")
    for line in wrong:
        print(line)
    print(f"{len(metadata['packages'])} crates checked, {len(wrong)} against the policy")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
