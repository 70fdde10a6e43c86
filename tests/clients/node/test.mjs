// npm's etcd3 1.1: it goes on watching and renewing across lost connections by itself.

import etcd3 from 'etcd3';
import { address, main, refusal, same, server, test, until } from './harness.mjs';

const { Etcd3 } = etcd3;
const client = new Etcd3({ hosts: address });

const keysOf = (answer) => answer.kvs.map((kv) => kv.key.toString());

test('put and get', async () => {
  const first = await client.put('basic/a').value('1');
  const previous = await client.put('basic/a').value(Buffer.from([0, 255])).getPrevious();
  same('the previous pair', [previous.key.toString(), previous.value.toString()], ['basic/a', '1']);
  const answer = await client.get('basic/a').exec();
  const [kv] = answer.kvs;
  same('value', kv.value, Buffer.from([0, 255]));
  same('revisions', [kv.create_revision, Number(kv.mod_revision), kv.version],
    [first.header.revision, Number(first.header.revision) + 1, '2']);
  same('a missing key', await client.get('basic/none').string(), null);
  same('serializable', await client.get('basic/a').serializable(true).buffer(), Buffer.from([0, 255]));
  await client.put('basic/a').value('touched');
  await client.put('basic/a').touch();
  same('touched', await client.get('basic/a').string(), 'touched');
});

test('ranges: prefix, limit, from a key on, sorted, at a revision', async () => {
  for (const key of ['r/a', 'r/b', 'r/c', 'r/d', 's/a']) await client.put(key).value(`v${key}`);
  const changed = await client.put('r/b').value('newest');
  same('prefix', await client.getAll().prefix('r/').strings(), { 'r/a': 'vr/a', 'r/b': 'newest', 'r/c': 'vr/c', 'r/d': 'vr/d' });
  const limited = await client.getAll().prefix('r/').limit(2).exec();
  same('limit', [keysOf(limited), limited.more, limited.count], [['r/a', 'r/b'], true, '4']);
  same('half open', await client.getAll().inRange({ start: 'r/b', end: 'r/d' }).keys(), ['r/b', 'r/c']);
  same('from a key on', (await client.getAll().inRange({ start: 'r/d', end: '\0' }).keys()).slice(0, 2), ['r/d', 's/a']);
  same('descending', await client.getAll().prefix('r/').sort('Key', 'Descend').keys(), ['r/d', 'r/c', 'r/b', 'r/a']);
  same('by revision of change', await client.getAll().prefix('r/').sort('Mod', 'Ascend').keys(), ['r/a', 'r/c', 'r/d', 'r/b']);
  same('by version', (await client.getAll().prefix('r/').sort('Version', 'Descend').limit(1).keys()), ['r/b']);
  same('count', await client.getAll().prefix('r/').count(), 4);
  same('changed since', keysOf(await client.getAll().prefix('r/').minModRevision(changed.header.revision).exec()), ['r/b']);
  const before = Number(changed.header.revision) - 1;
  same('at a revision', await client.get('r/b').revision(before).string(), 'vr/b');
});

test('deletes', async () => {
  for (const key of ['d/a', 'd/b', 'd/c']) await client.put(key).value('v');
  same('one', (await client.delete().key('d/a')).deleted, '1');
  same('again', (await client.delete().key('d/a')).deleted, '0');
  const gone = await client.delete().key('d/b').getPrevious();
  same('with what was there', gone.map((kv) => [kv.key.toString(), kv.value.toString()]), [['d/b', 'v']]);
  await client.put('d/b').value('v');
  same('prefix', (await client.delete().prefix('d/')).deleted, '2');
  same('left', await client.getAll().prefix('d/').keys(), []);
});

test('transactions: success and failure', async () => {
  await client.put('txn/k').value('1');
  const attempt = () => client.if('txn/k', 'Value', '==', '1').and('txn/none', 'Create', '==', 0).and('txn/k', 'Version', '>', 0)
    .then(client.put('txn/k').value('2'), client.get('txn/k'))
    .else(client.get('txn/k'), client.delete().key('txn/k'))
    .commit();
  const won = await attempt();
  same('success', [won.succeeded, won.responses.length], [true, 2]);
  same('a step sees the one before it', won.responses[1].response_range.kvs[0].value.toString(), '2');
  const lost = await attempt();
  same('failure', lost.succeeded, false);
  same('what the failure branch read', lost.responses[0].response_range.kvs[0].value.toString(), '2');
  same('what it deleted', lost.responses[1].response_delete_range.deleted, '1');
  same('after it', await client.get('txn/k').exists(), false);
});

test('software transactional memory', async () => {
  // What is written must not be newer than what is read: so this client understands a snapshot.
  await client.put('stm/to').value('0');
  await client.put('stm/from').value('10');
  await client.stm().transact(async (tx) => {
    const amount = await tx.get('stm/from').number();
    await tx.put('stm/to').value(amount);
    await tx.put('stm/from').value(0);
  });
  same('moved', await client.getAll().prefix('stm/').numbers(), { 'stm/from': 0, 'stm/to': 10 });
});

test('leases: grant, time to live, renewal, revocation', async () => {
  const lease = client.lease(60, { autoKeepAlive: false });
  const id = await lease.grant();
  await lease.put('lease/a').value('1');
  await client.put('lease/b').value('2').lease(id);
  same('on the pair', (await client.get('lease/a').exec()).kvs[0].lease, id);
  const live = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
  same('granted', live.grantedTTL, '60');
  same('remaining is at most that', Number(live.TTL) >= 57 && Number(live.TTL) <= 60, true);
  same('keys', live.keys.map(String).sort(), ['lease/a', 'lease/b']);
  same('renewal', (await lease.keepaliveOnce()).TTL, '60');
  await lease.revoke();
  same('keys after it', await client.getAll().prefix('lease/').keys(), []);
  same('time to live after it', (await client.leaseClient.leaseTimeToLive({ ID: id })).TTL, '-1');
});

test('a renewed lease lives across a restart', async () => {
  const lease = client.lease(5);
  let lost = null;
  lease.on('lost', (error) => { lost = error; });
  await lease.put('lease/kept').value('v');
  await server('restart');
  let renewals = 0;
  lease.on('keepaliveSucceeded', () => { renewals += 1; });
  await until('it is renewed', async () => renewals >= 2, 30);
  same('not lost', lost, null);
  same('the key', await client.get('lease/kept').string(), 'v');
  await lease.revoke();
  same('after revocation', await client.get('lease/kept').string(), null);
});

test('lease expiry removes keys', async () => {
  const lease = client.lease(1, { autoKeepAlive: false });
  await lease.put('lease/short').value('v');
  await until('the key goes with its lease', async () => !(await client.get('lease/short').exists()));
});

test('lock and election', async () => {
  const lock = client.lock('interop').ttl(20);
  await lock.acquire();
  const error = await client.lock('interop').ttl(20).acquire().then(() => null, (cause) => cause);
  same('second', error?.constructor.name, 'EtcdLockFailedError');
  await lock.release();
  same('within', await client.lock('interop').do(async () => 'held'), 'held');
  const election = client.election('interop', 20);
  const campaign = election.campaign('me');
  await new Promise((resolve, reject) => campaign.on('elected', resolve).on('error', reject));
  same('leader', await election.leader(), 'me');
  await campaign.resign();
  same('after resigning', await election.leader(), undefined);
});

/** Collects what a watcher says, as [kind, key, value, revision]. */
function collect(watcher) {
  const heard = [];
  for (const kind of ['put', 'delete']) {
    watcher.on(kind, (kv) => heard.push([kind, kv.key.toString(), kv.value.toString(), Number(kv.mod_revision)]));
  }
  return heard;
}

test('watch: prefix, history, filter, previous pair, cancel', async () => {
  const live = await client.watch().prefix('w/').create();
  const heard = collect(live);
  const first = Number((await client.put('w/a').value('1')).header.revision);
  await client.put('x/other').value('-');
  await client.put('w/b').value('2');
  await client.delete().key('w/a');
  const expected = [['put', 'w/a', '1', first], ['put', 'w/b', '2', first + 2], ['delete', 'w/a', '', first + 3]];
  await until('three events', async () => heard.length >= 3);
  same('live', heard, expected);
  const history = client.watch().prefix('w/').only('delete').withPreviousKV().startRevision(String(first)).watcher();
  const said = [];
  history.on('delete', (kv, previous) => said.push([kv.key.toString(), previous.value.toString()]));
  await until('one deletion', async () => said.length >= 1);
  same('from history', said, [['w/a', '1']]);
  await live.cancel();
  await history.cancel();
  await client.put('w/a').value('3');
  await client.delete().key('w/a');
  same('after cancel', [heard.length, said.length], [3, 1]);
});

test('watch survives a restart', async () => {
  const watcher = await client.watch().key('wr').create();
  const heard = collect(watcher);
  const first = Number((await client.put('wr').value('first')).header.revision);
  await until('the first event', async () => heard.length >= 1);
  await client.put('wr').value('before restart');
  await server('restart');
  // The first call after it may meet the old connection; a read is repeated without harm.
  await until('the server answers', () => client.get('wr').then(() => true, () => false), 30);
  await client.put('wr').value('after restart');
  await until('the event after it', async () => heard.some((event) => event[2] === 'after restart'), 30);
  same('each once', heard, [['put', 'wr', 'first', first], ['put', 'wr', 'before restart', first + 1],
    ['put', 'wr', 'after restart', first + 2]]);
  await watcher.cancel();
});

test('status and members', async () => {
  const { members } = await client.cluster.memberList({});
  same('members', members.map((member) => [member.name, member.clientURLs]), [['interop', [address]]]);
  const status = await client.maintenance.status();
  same('leader', status.leader, members[0].ID);
  same('size', Number(status.dbSize) > 0, true);
  same('version', status.version.split('.')[0], '3');
  same('alarms', (await client.maintenance.alarm({ action: 'Get' })).alarms, []);
});

test('errors: kinds and texts', async () => {
  const none = await refusal('etcdserver: key is not provided', client.kv.put({ key: Buffer.from(''), value: Buffer.from('v') }));
  same('its kind', none.constructor.name, 'GRPCInvalidArgumentError');
  await refusal('etcdserver: requested lease not found', client.put('k').value('v').lease('123456').exec());
  await refusal('etcdserver: mvcc: required revision is a future revision', client.get('k').revision(1000000).exec());
  await refusal('etcdserver: duplicate key given in txn request',
    client.if('none', 'Create', '==', 0).then(client.put('a').value('1'), client.put('a').value('2')).commit());
});

test('compaction, and reads and watches below it', async () => {
  const old = (await client.put('compact/k').value('old')).header.revision;
  const now = (await client.put('compact/k').value('new')).header.revision;
  await client.kv.compact({ revision: now, physical: true });
  await refusal('etcdserver: mvcc: required revision has been compacted', client.get('compact/k').revision(old).exec());
  same('read at', await client.get('compact/k').revision(now).string(), 'new');
  await refusal('etcdserver: mvcc: required revision has been compacted', client.kv.compact({ revision: old }));
  const watcher = client.watch().key('compact/k').startRevision(old).watcher();
  const ended = [];
  watcher.on('error', (error) => ended.push(error.message));
  watcher.on('end', () => ended.push('end'));
  await until('the watch ends', async () => ended.length > 0);
  // Not every server gives a reason besides the compacted revision, which this client does not show.
  same('why', ended[0].startsWith('Watcher canceled'), true);
});

await main();
