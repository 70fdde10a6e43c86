"""Python's etcd3 0.12: synchronous, with the messages of etcd 3.3. Its ranges take no limit and no revision."""

import queue

import etcd3
import grpc
from etcd3 import etcdrpc

from harness import HOST, PORT, TLS, URL, equal, main, refusal, server, test, wait_until

client = etcd3.client(host=HOST, port=PORT, timeout=10, **TLS)


def keys(pairs):
    return [meta.key.decode() for _, meta in pairs]


def raises(kinds, part, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except kinds as error:
        refusal(error, part)
        return error
    raise AssertionError(f'succeeded, but should fail with {part!r}')


@test('put and get')
def _():
    first = client.put('basic/a', '1')
    second = client.put('basic/a', b'\x00\xff', prev_kv=True)
    equal('one put is one revision', second.header.revision, first.header.revision + 1)
    equal('the previous pair', (second.prev_kv.key, second.prev_kv.value), (b'basic/a', b'1'))
    value, meta = client.get('basic/a')
    equal('value', value, b'\x00\xff')
    equal('key', meta.key, b'basic/a')
    equal('revisions', (meta.create_revision, meta.mod_revision, meta.version),
          (first.header.revision, second.header.revision, 2))
    equal('a missing key', client.get('basic/none'), (None, None))
    equal('serializable', client.get('basic/a', serializable=True)[0], b'\x00\xff')


@test('ranges: prefix, half open, from a key on, sorted')
def _():
    for key in ['r/a', 'r/b', 'r/c', 'r/d', 's/a']:
        client.put(key, 'v' + key)
    client.put('r/b', 'newest')
    equal('prefix', keys(client.get_prefix('r/')), ['r/a', 'r/b', 'r/c', 'r/d'])
    equal('values', [value for value, _ in client.get_prefix('r/')], [b'vr/a', b'newest', b'vr/c', b'vr/d'])
    equal('half open', keys(client.get_range('r/b', 'r/d')), ['r/b', 'r/c'])
    equal('from a key on', keys(client.get_range('r/d', b'\0'))[:2], ['r/d', 's/a'])
    equal('descending', keys(client.get_prefix('r/', sort_order='descend')), ['r/d', 'r/c', 'r/b', 'r/a'])
    equal('by revision of change', keys(client.get_prefix('r/', sort_order='ascend', sort_target='mod')),
          ['r/a', 'r/c', 'r/d', 'r/b'])
    equal('by version', keys(client.get_prefix('r/', sort_order='descend', sort_target='version'))[0], 'r/b')
    equal('keys only', [value for value, _ in client.get_prefix('r/', keys_only=True)], [b''] * 4)
    everything = keys(client.get_all())
    equal('all keys are in order', everything, sorted(everything))


@test('deletes')
def _():
    for key in ['d/a', 'd/b', 'd/c']:
        client.put(key, 'v')
    equal('one', client.delete('d/a'), True)
    equal('again', client.delete('d/a'), False)
    answer = client.delete('d/b', prev_kv=True, return_response=True)
    equal('with what was there', (answer.deleted, answer.prev_kvs[0].key, answer.prev_kvs[0].value), (1, b'd/b', b'v'))
    client.put('d/b', 'v')
    equal('prefix', client.delete_prefix('d/').deleted, 2)
    equal('left', keys(client.get_prefix('d/')), [])


@test('transactions: success and failure')
def _():
    txn = client.transactions
    client.put('txn/k', '1')
    compare = [txn.value('txn/k') == '1', txn.version('txn/k') > 0, txn.create('txn/none') == 0]
    done, answers = client.transaction(compare=compare, success=[txn.put('txn/k', '2'), txn.get('txn/k')],
                                       failure=[txn.delete('txn/k')])
    equal('success', done, True)
    equal('a step sees the one before it', answers[1][0][0], b'2')
    done, answers = client.transaction(compare=compare, success=[txn.put('txn/k', '3')],
                                       failure=[txn.get('txn/k'), txn.delete('txn/k')])
    equal('failure', done, False)
    equal('what the failure branch read', answers[0][0][0], b'2')
    equal('what it deleted', client.get('txn/k'), (None, None))
    equal('first writer wins', client.put_if_not_exists('txn/k', 'x'), True)
    equal('second does not', client.put_if_not_exists('txn/k', 'y'), False)
    equal('replace', client.replace('txn/k', 'x', 'z'), True)
    equal('replace of another value', client.replace('txn/k', 'x', 'w'), False)
    equal('value', client.get('txn/k')[0], b'z')


@test('transactions within a transaction')
def _():
    txn = client.transactions
    client.put('nest/k', '1')
    inner = txn.txn(compare=[txn.value('nest/k') == '2'], success=[txn.put('nest/in', 'a')],
                    failure=[txn.put('nest/in', 'b')])
    done, _answers = client.transaction(compare=[txn.version('nest/k') == 1], success=[inner, txn.put('nest/out', 'c')],
                                        failure=[])
    equal('outer', done, True)
    equal('written inside', client.get('nest/in')[0], b'b')
    equal('written outside', client.get('nest/out')[0], b'c')
    equal('in one revision', client.get('nest/in')[1].mod_revision, client.get('nest/out')[1].mod_revision)


@test('leases: grant, time to live, renewal, revocation')
def _():
    lease = client.lease(60)
    equal('ttl', lease.ttl, 60)
    client.put('lease/a', '1', lease=lease)
    client.put('lease/b', '2', lease=lease.id)
    equal('on the pair', client.get('lease/a')[1].lease_id, lease.id)
    equal('granted', lease.granted_ttl, 60)
    equal('remaining is at most that', 57 <= lease.remaining_ttl <= 60, True)
    equal('keys', sorted(lease.keys), [b'lease/a', b'lease/b'])
    equal('renewal', [answer.TTL for answer in lease.refresh()], [60])
    lease.revoke()
    equal('keys after it', keys(client.get_prefix('lease/')), [])
    equal('time to live after it', lease.remaining_ttl, -1)
    equal('renewal of a lease that is gone', [answer.TTL for answer in lease.refresh()], [0])
    chosen = client.lease(60, lease_id=424242)
    equal('a chosen id', chosen.id, 424242)
    raises(Exception, 'lease already exists', client.lease, 60, lease_id=424242)
    chosen.revoke()


@test('lease expiry removes keys')
def _():
    lease = client.lease(1)
    client.put('lease/short', 'v', lease=lease)
    wait_until('the key goes with its lease', lambda: client.get('lease/short') == (None, None))
    equal('time to live after it', lease.remaining_ttl, -1)


@test('a lock excludes')
def _():
    mine, other = client.lock('interop', ttl=20), client.lock('interop', ttl=20)
    equal('first', mine.acquire(timeout=5), True)
    equal('second', other.acquire(timeout=0), False)
    equal('release', mine.release(), True)
    equal('then', other.acquire(timeout=5), True)
    other.release()


def watch(key, **kwargs):
    """A queue of what a watch says: (kind, key, value), or an error at its end."""
    heard = queue.Queue()

    def callback(said):
        if isinstance(said, Exception):
            heard.put(said)
            return
        for event in said.events:
            heard.put((type(event).__name__, event.key.decode(), event.value.decode(), event.mod_revision))

    return heard, client.add_watch_callback(key, callback, **kwargs)


def next_of(heard, seconds=15):
    try:
        return heard.get(timeout=seconds)
    except queue.Empty:
        raise AssertionError(f'no event within {seconds} s') from None


@test('watch: prefix, history, cancel')
def _():
    heard, watcher = watch('w/', range_end='w0')
    first = client.put('w/a', '1').header.revision
    client.put('x/other', '-')
    client.put('w/b', '2')
    client.delete('w/a')
    expected = [('PutEvent', 'w/a', '1', first), ('PutEvent', 'w/b', '2', first + 2), ('DeleteEvent', 'w/a', '', first + 3)]
    equal('live', [next_of(heard) for _ in range(3)], expected)
    client.cancel_watch(watcher)
    again, watcher = watch('w/', range_end='w0', start_revision=first)
    equal('from history', [next_of(again) for _ in range(3)], expected)
    client.cancel_watch(watcher)
    client.put('w/a', '3')
    client.put('w/a', '4')
    equal('after cancel', (heard.qsize(), again.qsize()), (0, 0))


@test('watch survives a restart')
def _():
    heard, watcher = watch('wr')
    first = client.put('wr', 'first').header.revision
    seen = [next_of(heard)]
    client.put('wr', 'before restart')
    server('restart')
    wait_until('the server answers', lambda: client.get('wr')[0] is not None)
    for value in ['after restart', 'end']:
        client.put('wr', value)
    # This client ends a watch with its connection; going on from the last revision seen is the caller's work. A proxy may
    # keep the connection.
    while seen[-1][2] != 'end':
        said = next_of(heard)
        if isinstance(said, Exception):
            equal('the error', isinstance(said, grpc.RpcError), True)
            holder = []
            wait_until('a new watch', lambda: holder.append(watch('wr', start_revision=seen[-1][3] + 1)) or True)
            heard, watcher = holder[-1]
        else:
            seen.append(said)
    values = ['first', 'before restart', 'after restart', 'end']
    equal('each once', seen, [('PutEvent', 'wr', value, first + at) for at, value in enumerate(values)])
    client.cancel_watch(watcher)


@test('status and members')
def _():
    members = list(client.members)
    equal('members', [(member.name, list(member.client_urls)) for member in members],
          [('interop', [URL])])
    status = client.status()
    equal('leader', status.leader.id, members[0].id)
    equal('size', status.db_size > 0, True)
    equal('version', status.version.split('.')[0], '3')
    equal('alarms', list(client.list_alarms()), [])


@test('errors: kinds and texts')
def _():
    everything = (Exception,)
    raises(everything, 'etcdserver: key is not provided', client.put, '', 'v')
    raises(everything, 'etcdserver: requested lease not found', client.put, 'k', 'v', lease=123456)
    raises(everything, 'etcdserver: requested lease not found', client.revoke_lease, 123456)
    raises(everything, 'etcdserver: duplicate key given in txn request', client.transaction, compare=[],
           success=[client.transactions.put('a', '1'), client.transactions.put('a', '2')], failure=[])
    future = etcdrpc.RangeRequest(key=b'k', revision=1000000)
    error = raises(grpc.RpcError, 'etcdserver: mvcc: required revision is a future revision', client.kvstub.Range, future)
    equal('its code', error.code(), grpc.StatusCode.OUT_OF_RANGE)


@test('compaction, and reads and watches below it')
def _():
    old = client.put('compact/k', 'old').header.revision
    new = client.put('compact/k', 'new').header.revision
    client.compact(new, physical=True)
    below = etcdrpc.RangeRequest(key=b'compact/k', revision=old)
    raises(grpc.RpcError, 'etcdserver: mvcc: required revision has been compacted', client.kvstub.Range, below)
    at = etcdrpc.RangeRequest(key=b'compact/k', revision=new)
    equal('read at', client.kvstub.Range(at).kvs[0].value, b'new')
    raises(Exception, 'etcdserver: mvcc: required revision has been compacted', client.compact, old)
    heard, _watcher = watch('compact/k', start_revision=old)
    said = next_of(heard)
    equal('the watch ends with', (type(said).__name__, said.compacted_revision), ('RevisionCompactedError', new))


main()
