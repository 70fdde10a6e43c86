"""What the tests of the Python clients share: a register of tests, exact comparison, bounded waiting, the server."""

import asyncio
import inspect
import os
import subprocess
import sys
import time
import traceback

CLIENT = os.environ['INTEROP_CLIENT']
HOST, PORT = os.environ['INTEROP_ENDPOINT'].split(':')
PORT = int(PORT)
URL = f"{os.environ['INTEROP_SCHEME']}://{HOST}:{PORT}"
# What etcd3 is told about TLS; aetcd knows none.
TLS = {name: os.environ[variable] for name, variable in
       [('ca_cert', 'INTEROP_CACERT'), ('cert_cert', 'INTEROP_CERT'), ('cert_key', 'INTEROP_KEY')] if variable in os.environ}
# Who the tests are, if the server asks.
USER, PASSWORD = os.environ.get('INTEROP_USER'), os.environ.get('INTEROP_PASSWORD')

_tests = []


def test(name):
    """Registers a function, plain or async, as the test of that name. Tests run in the order of the file."""
    def register(function):
        _tests.append((name, function))
        return function
    return register


def server(command):
    """`start`, `stop` or `restart`; returns once it is done. Called from async tests too: nothing else runs meanwhile,
    which is what a client whose server is away may well see."""
    subprocess.run([os.environ['INTEROP_SERVER'], command], check=True)


def equal(what, actual, expected):
    if actual != expected:
        raise AssertionError(f'{what}: expected {expected!r}, got {actual!r}')


def refusal(error, part):
    """Asserts that the text of an error, or of its gRPC cause, contains `part`."""
    texts = [str(error), str(error.__cause__), str(error.__context__)]
    if not any(part in text for text in texts):
        raise AssertionError(f'expected an error with {part!r}, got {error!r} from {error.__cause__!r}')


def wait_until(what, holds, seconds=15):
    """Polls until `holds()`; repeats after errors too, as a client that reconnects may fail for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        last = None
        try:
            if holds():
                return
        except AssertionError:
            raise
        except Exception as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f'not within {seconds} s: {what} ({last!r})')
        time.sleep(0.05)


async def wait_until_async(what, holds, seconds=15):
    """As `wait_until`, for a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        last = None
        try:
            if await holds():
                return
        except AssertionError:
            raise
        except Exception as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f'not within {seconds} s: {what} ({last!r})')
        await asyncio.sleep(0.05)


async def _run_all():
    failures = 0
    for name, function in _tests:
        try:
            result = function()
            if inspect.isawaitable(result):
                await asyncio.wait_for(result, 90)
            print(f'ok   {CLIENT}  {name}', flush=True)
        except Exception as error:
            failures += 1
            print(f'FAIL {CLIENT}  {name}\n     {type(error).__name__}: {error}', flush=True)
            traceback.print_exc(file=sys.stderr)
    return failures


def main():
    failures = asyncio.run(_run_all())
    sys.stdout.flush()
    # Not sys.exit: a client's background threads may be waiting for a stream for ever.
    os._exit(1 if failures else 0)
