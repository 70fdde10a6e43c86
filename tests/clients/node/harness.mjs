// What the tests of the Node client share: a register of tests, exact comparison, bounded waiting, the server.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { inspect, isDeepStrictEqual, promisify } from 'node:util';

export const address = `http://${process.env.INTEROP_ENDPOINT}`;
const client = process.env.INTEROP_CLIENT;
const tests = [];

/** Registers a test. Tests run one after the other, in the order of the file. */
export function test(name, run) {
  tests.push([name, run]);
}

export function same(what, actual, expected) {
  if (!isDeepStrictEqual(actual, expected)) assert.fail(`${what}: expected ${inspect(expected)}, got ${inspect(actual)}`);
}

/** `start`, `stop` or `restart`; resolves once it is done. */
export async function server(command) {
  await promisify(execFile)(process.env.INTEROP_SERVER, [command]);
}

/** The error that `promise` ends with; its text must contain `part`. */
export async function refusal(part, promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    assert.ok(error.message.includes(part), `expected an error with '${part}', got ${error}`);
    return error;
  }
  assert.fail(`succeeded with ${JSON.stringify(value)}, but should fail with '${part}'`);
}

/** Polls until `holds` resolves to true. */
export async function until(what, holds, seconds = 15) {
  const deadline = Date.now() + seconds * 1000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function limited(promise, seconds) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`took more than ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

export async function main() {
  let failures = 0;
  for (const [name, run] of tests) {
    try {
      await limited(run(), 90);
      console.log(`ok   ${client}  ${name}`);
    } catch (error) {
      failures += 1;
      console.log(`FAIL ${client}  ${name}\n     ${String(error.message).replaceAll('\n', '\n     ')}`);
      console.error(error);
    }
  }
  // Streams and timers of the client may be open still.
  process.exit(failures === 0 ? 0 : 1);
}
