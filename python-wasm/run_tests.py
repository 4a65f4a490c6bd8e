#!/usr/bin/env python3
"""Runs CPython's own tests inside the guest.

    python-wasm/run_tests.py [--wasgi COMMAND] [--jobs N] [--verbose] [MODULE...]

Runs the modules of tests.list (or those named), each in an instance of its own, and prints every test that failed, with
the reason from tests.expected if it is known. The last line is "N passed, N failed, N skipped". Exit code 1 if a test
failed that tests.expected does not list, or one that it lists did not fail.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent

# A test that hangs costs this long, then counts as failed and the module goes on without it.
SILENCE = 120

Test = collections.namedtuple("Test", "id outcome why")


def read_list(path):
    """The lines of a file without comments, each split at its first blank."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return [line.split(None, 1) for line in lines if line]


def run_guest(command, module, left_out):
    """One instance. Its tests, the test it was in when it stopped (or None), and what it last said."""
    room = tempfile.mkdtemp(prefix="wasgi-test-")
    argv = [
        *command,
        *("--dir", f"{ROOT}/target/python/test::/tests"),
        *("--dir", f"{room}::/tmp:rw"),
        *("--", "-c", (HERE / "tests_guest.py").read_text(), module, *left_out),
    ]
    tests, current, done = [], None, False
    # To a file: a guest that is killed may leave a pipe's reader waiting.
    with open(os.path.join(room, ".log"), "w+b") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        size, moved = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.05)
            now = os.fstat(log.fileno()).st_size
            if now != size:
                size, moved = now, time.monotonic()
            elif time.monotonic() - moved > SILENCE:
                process.kill()
        log.seek(0)
        lines = log.read().decode(errors="replace").split("\n")  # splitlines() would split at the separator
    shutil.rmtree(room, ignore_errors=True)
    said = ""
    for line in lines:
        if not line.startswith("\x1e"):
            said = line.strip() or said
            continue
        event = json.loads(line[1:])
        if "start" in event:
            current = event["start"]
        elif "done" in event:
            done = True
        else:
            tests.append(Test(event["test"], event["outcome"], event["why"]))
            current = None
            # A module that is skipped or cannot be imported reports itself, and that is all.
            done = done or event["test"] == f"test.{module}"
    return tests, None if done else (current or f"test.{module}"), said


def run_module(command, module):
    began = time.monotonic()
    tests, left_out = [], []
    while True:
        ran, stopped_in, said = run_guest(command, module, left_out)
        known = {test.id for test in tests}
        tests += [test for test in ran if test.id not in known]
        if stopped_in is None:
            break
        if stopped_in not in known:
            tests.append(Test(stopped_in, "failed", f"ended the instance: {said[:300]}"))
        if stopped_in == f"test.{module}" or len(left_out) > 20:
            break
        left_out.append(stopped_in)
    return module, tests, time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--wasgi",
        default=os.environ.get("WASGI_COMMAND", f"{ROOT}/target/release/wasgi python"),
        help="command that runs Python in the guest (also: WASGI_COMMAND); default: %(default)s",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--verbose", action="store_true", help="print every module with its counts, and why tests were skipped")
    parser.add_argument("modules", nargs="*")
    options = parser.parse_args()

    modules = options.modules or [line[0] for line in read_list(HERE / "tests.list")]
    expected = {line[0]: line[1] for line in read_list(HERE / "tests.expected")}
    command = shlex.split(options.wasgi)
    counts, wrong, seen = collections.Counter(), [], set()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for module, tests, seconds in pool.map(lambda module: run_module(command, module), modules):
            here = collections.Counter(test.outcome for test in tests)
            counts += here
            if options.verbose:
                print(f"{module}: {here['passed']} passed, {here['failed']} failed, {here['skipped']} skipped, {seconds:.1f} s")
            for test in tests:
                if options.verbose and test.outcome == "skipped":
                    print(f"skipped: {test.id}: {test.why}")
                if test.outcome == "failed" and test.id in expected:
                    print(f"failed, as expected: {test.id}: {expected[test.id]}")
                elif test.outcome == "failed":
                    print(f"FAILED: {test.id}: {test.why}")
                    wrong.append(test.id)
                elif test.outcome == "passed" and test.id in expected:
                    print(f"PASSED, though tests.expected lists it: {test.id}")
                    wrong.append(test.id)
                seen.add(test.id)
            sys.stdout.flush()
    if not options.modules:
        for test in sorted(expected.keys() - seen):
            print(f"NOT FOUND, though tests.expected lists it: {test}")
            wrong.append(test)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
