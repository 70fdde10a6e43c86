"""Python's aetcd 1.0: asyncio, with the messages of etcd 3.5. Its ranges take no limit and no revision."""

import asyncio

import aetcd
from aetcd import rpc

from harness import HOST, PORT, URL, equal, main, refusal, server, test, wait_until_async

# Made by the first test, within the loop that all tests share.
client = None


def keys(kvs):
    return [kv.key.decode() for kv in kvs]


async def raises(part, awaitable):
    try:
        await awaitable
    except Exception as error:
        refusal(error, part)
        return error
    raise AssertionError(f'succeeded, but should fail with {part!r}')


@test('put and get')
async def _():
    global client
    client = aetcd.Client(host=HOST, port=PORT, timeout=10)
    await client.connect()
    first = await client.put(b'basic/a', b'1')
    second = await client.put(b'basic/a', b'\x00\xff', prev_kv=True)
    equal('one put is one revision', second.header.revision, first.header.revision + 1)
    equal('the previous pair', (second.prev_kv.key, second.prev_kv.value), (b'basic/a', b'1'))
    found = await client.get(b'basic/a')
    equal('pair', (found.key, found.value, found.version), (b'basic/a', b'\x00\xff', 2))
    equal('revisions', (found.create_revision, found.mod_revision), (first.header.revision, second.header.revision))
    equal('a missing key', await client.get(b'basic/none'), None)
    equal('serializable', (await client.get(b'basic/a', serializable=True)).value, b'\x00\xff')


@test('ranges: prefix, half open, from a key on, sorted')
async def _():
    for key in [b'r/a', b'r/b', b'r/c', b'r/d', b's/a']:
        await client.put(key, b'v' + key)
    await client.put(b'r/b', b'newest')
    found = await client.get_prefix(b'r/')
    equal('prefix', keys(found), ['r/a', 'r/b', 'r/c', 'r/d'])
    equal('count and more', (found.count, found.more), (4, False))
    equal('values', [kv.value for kv in found], [b'vr/a', b'newest', b'vr/c', b'vr/d'])
    equal('half open', keys(await client.get_range(b'r/b', b'r/d')), ['r/b', 'r/c'])
    equal('from a key on', keys(await client.get_range(b'r/d', b'\0'))[:2], ['r/d', 's/a'])
    equal('descending', keys(await client.get_prefix(b'r/', sort_order='descend')), ['r/d', 'r/c', 'r/b', 'r/a'])
    equal('by revision of change', keys(await client.get_prefix(b'r/', sort_order='ascend', sort_target='mod')),
          ['r/a', 'r/c', 'r/d', 'r/b'])
    equal('keys only', [kv.value for kv in await client.get_prefix(b'r/', keys_only=True)], [b''] * 4)
    everything = keys(await client.get_all())
    equal('all keys are in order', everything, sorted(everything))


@test('deletes')
async def _():
    for key in [b'd/a', b'd/b', b'd/c']:
        await client.put(key, b'v')
    equal('one', (await client.delete(b'd/a')).deleted, 1)
    equal('again', await client.delete(b'd/a'), None)
    gone = await client.delete(b'd/b', prev_kv=True)
    equal('with what was there', (gone.prev_kv.key, gone.prev_kv.value), (b'd/b', b'v'))
    await client.put(b'd/b', b'v')
    gone = await client.delete_prefix(b'd/', prev_kv=True)
    equal('prefix', (gone.deleted, keys(gone)), (2, ['d/b', 'd/c']))
    await client.put(b'd/x', b'v')
    equal('range', (await client.delete_range(b'd/x', b'd/y')).deleted, 1)
    equal('left', keys(await client.get_prefix(b'd/')), [])


@test('transactions: success and failure')
async def _():
    txn = client.transactions
    await client.put(b'txn/k', b'1')

    def compare():
        return [txn.value(b'txn/k') == b'1', txn.version(b'txn/k') > 0, txn.create(b'txn/none') == 0]

    done, answers = await client.transaction(compare=compare(), success=[txn.put(b'txn/k', b'2'), txn.get(b'txn/k')],
                                             failure=[txn.delete(b'txn/k')])
    equal('success', done, True)
    equal('a step sees the one before it', answers[1][0][0], b'2')
    done, answers = await client.transaction(compare=compare(), success=[txn.put(b'txn/k', b'3')],
                                             failure=[txn.get(b'txn/k'), txn.delete(b'txn/k')])
    equal('failure', done, False)
    equal('what the failure branch read', answers[0][0][0], b'2')
    equal('what it deleted', await client.get(b'txn/k'), None)
    await client.put(b'txn/k', b'x')
    equal('replace', await client.replace(b'txn/k', b'x', b'z'), True)
    equal('replace of another value', await client.replace(b'txn/k', b'x', b'w'), False)


@test('transactions within a transaction')
async def _():
    txn = client.transactions
    await client.put(b'nest/k', b'1')
    inner = aetcd.transactions.Txn(compare=[txn.value(b'nest/k') == b'2'], success=[txn.put(b'nest/in', b'a')],
                                   failure=[txn.put(b'nest/in', b'b')])
    done, _answers = await client.transaction(compare=[txn.version(b'nest/k') == 1],
                                              success=[inner, txn.put(b'nest/out', b'c')], failure=[])
    equal('outer', done, True)
    inside, outside = await client.get(b'nest/in'), await client.get(b'nest/out')
    equal('written', (inside.value, outside.value), (b'b', b'c'))
    equal('in one revision', inside.mod_revision, outside.mod_revision)


@test('leases: grant, time to live, renewal, revocation')
async def _():
    lease = await client.lease(60)
    equal('ttl', lease.ttl, 60)
    await client.put(b'lease/a', b'1', lease=lease)
    await client.put(b'lease/b', b'2', lease=lease.id)
    equal('on the pair', (await client.get(b'lease/a')).lease, lease.id)
    equal('granted', await lease.granted_ttl(), 60)
    equal('remaining is at most that', 57 <= await lease.remaining_ttl() <= 60, True)
    equal('keys', sorted(await lease.keys()), [b'lease/a', b'lease/b'])
    equal('renewal', (await lease.refresh()).TTL, 60)
    await lease.revoke()
    equal('keys after it', keys(await client.get_prefix(b'lease/')), [])
    equal('time to live after it', await lease.remaining_ttl(), -1)
    equal('renewal of a lease that is gone', (await lease.refresh()).TTL, 0)
    chosen = await client.lease(60, lease_id=424242)
    equal('a chosen id', chosen.id, 424242)
    error = await raises('', client.lease(60, lease_id=424242))
    equal('twice', type(error).__name__, 'DuplicateLeaseError')
    await chosen.revoke()


@test('lease expiry removes keys')
async def _():
    lease = await client.lease(1)
    await client.put(b'lease/short', b'v', lease=lease)

    async def gone():
        return await client.get(b'lease/short') is None

    await wait_until_async('the key goes with its lease', gone)
    equal('time to live after it', await lease.remaining_ttl(), -1)


@test('a lock excludes')
async def _():
    mine, other = client.lock(b'interop', ttl=20), client.lock(b'interop', ttl=20)
    equal('first', await mine.acquire(timeout=5), True)
    equal('second', await other.acquire(timeout=0.2), False)
    equal('release', await mine.release(), True)
    equal('then', await other.acquire(timeout=5), True)
    await other.release()


def plain(event):
    return (event.kind, event.kv.key.decode(), event.kv.value.decode(), event.kv.mod_revision)


async def events_of(watch, count):
    heard = []

    async def read():
        async for event in watch:
            heard.append(plain(event))
            if len(heard) == count:
                return

    try:
        await asyncio.wait_for(read(), 15)
    except asyncio.TimeoutError:
        raise AssertionError(f'expected {count} events within 15 s, got {heard}') from None
    return heard


@test('watch: prefix, history, filter, previous pair, cancel')
async def _():
    live = await client.watch_prefix(b'w/')
    first = (await client.put(b'w/a', b'1')).header.revision
    await client.put(b'x/other', b'-')
    await client.put(b'w/b', b'2')
    await client.delete(b'w/a')
    expected = [('PUT', 'w/a', '1', first), ('PUT', 'w/b', '2', first + 2), ('DELETE', 'w/a', '', first + 3)]
    equal('live', await events_of(live, 3), expected)
    history = await client.watch_prefix(b'w/', start_revision=first)
    equal('from history', await events_of(history, 3), expected)
    deletions = await client.watch_prefix(b'w/', start_revision=first, kind=aetcd.EventKind.DELETE, prev_kv=True)
    async for event in deletions:
        equal('the first deletion', plain(event), expected[2])
        equal('what it deleted', (event.prev_kv.key, event.prev_kv.value), (b'w/a', b'1'))
        break
    for watch in (live, history, deletions):
        await watch.cancel()


@test('watch survives a restart')
async def _():
    watch = await client.watch(b'wr')
    first = (await client.put(b'wr', b'first')).header.revision
    seen = await events_of(watch, 1)
    await client.put(b'wr', b'before restart')
    server('restart')

    async def answers():
        return await client.get(b'wr') is not None

    holder = []

    async def watch_again():
        holder.append(await client.watch(b'wr', start_revision=seen[-1][3] + 1))
        return True

    await wait_until_async('the server answers', answers)
    for value in [b'after restart', b'end']:
        await client.put(b'wr', value)
    # This client ends a watch with its connection; going on from the last revision seen is the caller's work. A proxy may
    # keep the connection.
    while seen[-1][2] != 'end':
        try:
            seen += await events_of(watch, 1)
        except aetcd.ClientError:
            await wait_until_async('a new watch', watch_again)
            watch = holder[-1]
    values = ['first', 'before restart', 'after restart', 'end']
    equal('each once', seen, [('PUT', 'wr', value, first + at) for at, value in enumerate(values)])
    await watch.cancel()


@test('status and members')
async def _():
    members = [member async for member in client.members()]
    equal('members', [(member.name, list(member.client_urls)) for member in members],
          [('interop', [URL])])
    status = await client.status()
    leader = status.leader
    equal('leader', getattr(leader, 'id', leader), members[0].id)
    equal('size', status.db_size > 0, True)
    equal('version', status.version.split('.')[0], '3')


@test('errors: kinds and texts')
async def _():
    error = await raises('etcdserver: key is not provided', client.put(b'', b'v'))
    equal('its kind', type(error).__name__, 'InvalidArgumentError')
    await raises('etcdserver: requested lease not found', client.put(b'k', b'v', lease=123456))
    await raises('etcdserver: requested lease not found', client.revoke_lease(123456))
    txn = client.transactions
    await raises('etcdserver: duplicate key given in txn request',
                 client.transaction(compare=[], success=[txn.put(b'a', b'1'), txn.put(b'a', b'2')], failure=[]))
    error = await raises('etcdserver: mvcc: required revision is a future revision',
                         client.kvstub.Range(rpc.RangeRequest(key=b'k', revision=1000000)))
    equal('its code', error.code(), rpc.StatusCode.OUT_OF_RANGE)


@test('compaction, and reads and watches below it')
async def _():
    old = (await client.put(b'compact/k', b'old')).header.revision
    new = (await client.put(b'compact/k', b'new')).header.revision
    await client.compact(new, physical=True)
    await raises('etcdserver: mvcc: required revision has been compacted',
                 client.kvstub.Range(rpc.RangeRequest(key=b'compact/k', revision=old)))
    at = await client.kvstub.Range(rpc.RangeRequest(key=b'compact/k', revision=new))
    equal('read at', at.kvs[0].value, b'new')
    await raises('etcdserver: mvcc: required revision has been compacted', client.compact(old))

    async def watch_below():
        async for _event in await client.watch(b'compact/k', start_revision=old):
            raise AssertionError('an event from below the compaction')

    error = await raises('compacted', asyncio.wait_for(watch_below(), 15))
    equal('the watch ends with', (type(error).__name__, error.compacted_revision), ('RevisionCompactedError', new))


main()
