"""Runs one of CPython's test modules inside the guest and tells run_tests.py what became of each test.

Takes the module's name and the ids of tests to leave out, because they ended an earlier run. Every report is one line
of JSON behind a record separator, written to descriptor 1 directly: tests replace sys.stdout and print to it.
"""

import json
import os
import sys
import unittest

sys.path.insert(0, "/tests")


def report(**what):
    os.write(1, b"\n\x1e" + json.dumps(what).encode() + b"\n")


def reason(error):
    """The last line of a traceback: what a list of failures needs to say."""
    kind, value, _ = error
    return f"{kind.__name__}: {value}".strip().splitlines()[0][:300]


class Result(unittest.TestResult):
    def startTest(self, test):
        super().startTest(test)
        self.outcome, self.why = "passed", ""
        report(start=test.id())

    def stopTest(self, test):
        super().stopTest(test)
        report(test=test.id(), outcome=self.outcome, why=self.why)

    def fail(self, test, error):
        why = reason(error)
        if isinstance(test, unittest.TestCase) or hasattr(test, "test_case"):
            if self.outcome != "failed":
                self.outcome, self.why = "failed", why
        else:
            # setUpClass, setUpModule and their like: no test has started.
            report(test=test.id(), outcome="failed", why=why)

    def addError(self, test, error):
        super().addError(test, error)
        self.fail(test, error)

    addFailure = addError

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.fail(subtest, error)

    def addSkip(self, test, why):
        super().addSkip(test, why)
        if hasattr(test, "test_case"):
            return  # one subtest of many
        if isinstance(test, unittest.TestCase):
            self.outcome, self.why = "skipped", why
        else:
            report(test=test.id(), outcome="skipped", why=why)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.outcome, self.why = "failed", "unexpected success"


def without(suite, left_out):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from without(test, left_out)
        elif test.id() not in left_out:
            yield test


def main(module, *left_out):
    os.chdir("/tmp")
    import tempfile

    tempfile.tempdir = "/tmp"
    from test import support

    support.record_original_stdout(sys.stdout)
    support.use_resources = []
    support.verbose = 0
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName("test." + module)
        if unittest.defaultTestLoader.errors:
            report(test="test." + module, outcome="failed", why=unittest.defaultTestLoader.errors[0].strip().splitlines()[-1])
            return
    except unittest.SkipTest as skip:
        report(test="test." + module, outcome="skipped", why=str(skip))
        return
    result = Result()
    if left_out:
        suite = unittest.TestSuite(without(suite, set(left_out)))
    suite.run(result)
    report(done=module)


main(*sys.argv[1:])
# Modules that leave threads or files behind must not turn a finished run into a failed one.
sys.stdout.flush()
os._exit(0)
