"""Python's etcd3gw 2.7: the API as JSON, over HTTP/1.1."""

import itertools
import os

from etcd3gw import exceptions
from etcd3gw.client import Etcd3Client

from harness import HOST, PASSWORD, PORT, TLS, URL, USER, equal, main, server, test, wait_until

# The library below would believe these more than what it is told.
for variable in ['REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE']:
    os.environ.pop(variable, None)

client = Etcd3Client(host=HOST, port=PORT, protocol=URL.split(':')[0], api_path='/v3/', timeout=15, **TLS)


def login(client):
    """The library knows no users: a token goes with each request of its session."""
    if USER:
        client.session.headers.pop('Authorization', None)
        answer = client.post(client.get_url('/auth/authenticate'), json={'name': USER, 'password': PASSWORD})
        client.session.headers['Authorization'] = answer['token']


login(client)


def keys(pairs):
    return [meta['key'].decode() for _, meta in pairs]


@test('the path of the API is found by the version')
def _():
    found = Etcd3Client(host=HOST, port=PORT, protocol=URL.split(':')[0], api_path=None, timeout=15, **TLS)
    equal('path', found.get_url('/kv/put'), f'{URL}/v3/kv/put')


@test('put, get and delete')
def _():
    equal('put', client.put('basic/a', b'\x00\xff'), True)
    equal('value', client.get('basic/a'), [b'\x00\xff'])
    value, meta = client.get('basic/a', metadata=True)[0]
    equal('with metadata', (value, meta['key'], meta['version']), (b'\x00\xff', b'basic/a', '1'))
    equal('a missing key', client.get('basic/none'), [])
    equal('delete', client.delete('basic/a'), True)
    equal('again', client.delete('basic/a'), False)


@test('ranges: prefix, sorted, limited, in the past')
def _():
    for key in ['r/a', 'r/b', 'r/c', 's/a']:
        client.put(key, 'v' + key)
    before = int(client.get('s/a', metadata=True)[0][1]['mod_revision'])
    client.put('r/b', 'newest')
    equal('prefix', keys(client.get_prefix('r/')), ['r/a', 'r/b', 'r/c'])
    equal('descending', keys(client.get_prefix('r/', sort_order='descend', sort_target='key')), ['r/c', 'r/b', 'r/a'])
    equal('by version', keys(client.get_prefix('r/', sort_order='descend', sort_target='version'))[0], 'r/b')
    equal('limited', len(client.get('r/', range_end='r0', limit=2)), 2)
    equal('in the past', client.get('r/b', revision=before), [b'vr/b'])
    equal('delete', client.delete_prefix('r/'), True)
    equal('left', client.get_prefix('r/'), [])


@test('transactions')
def _():
    equal('create', client.create('txn/k', '1'), True)
    equal('create once more', client.create('txn/k', '2'), False)
    equal('replace', client.replace('txn/k', '1', '3'), True)
    equal('replace of another value', client.replace('txn/k', '1', '4'), False)
    equal('value', client.get('txn/k'), [b'3'])


@test('leases')
def _():
    lease = client.lease(ttl=60)
    client.put('lease/a', 'v', lease=lease)
    equal('keys', lease.keys(), [b'lease/a'])
    equal('ttl', 55 <= lease.ttl() <= 60, True)
    equal('renewed', lease.refresh(), 60)
    equal('revoked', lease.revoke(), True)
    equal('gone with it', client.get('lease/a'), [])
    equal('renewed after its end', lease.refresh(), -1)


@test('a lock excludes')
def _():
    with client.lock('held', ttl=20) as lock:
        equal('held', lock.is_acquired(), True)
        equal('by another', client.lock('held', ttl=20).acquire(), False)
    again = client.lock('held', ttl=20)
    equal('free', again.acquire(), True)
    again.release()


@test('watches: live, from the past, a prefix')
def _():
    client.put('watch/past', '1')
    revision = int(client.get('watch/past', metadata=True)[0][1]['mod_revision'])
    client.put('watch/past', '2')
    events, cancel = client.watch('watch/past', start_revision=revision)
    seen = [event['kv']['value'] for event in itertools.islice(events, 2)]
    equal('from the past', seen, [b'1', b'2'])
    client.put('watch/past', '3')
    client.delete('watch/past')
    live = [(event.get('type', 'PUT'), event['kv'].get('value')) for event in itertools.islice(events, 2)]
    equal('live', live, [('PUT', b'3'), ('DELETE', None)])
    cancel()
    events, cancel = client.watch_prefix('watch/')
    client.put('watch/b', '4')
    equal('a prefix', next(events)['kv']['key'], b'watch/b')
    cancel()


@test('members and status')
def _():
    equal('members', len(client.members()), 1)
    equal('status', 'version' in client.status(), True)


@test('a refusal is an exception with the text')
def _():
    try:
        client.get('k', revision=1 << 40)
    except exceptions.Etcd3Exception as error:
        equal('text', 'required revision is a future revision' in str(error.detail_text), True)
    else:
        raise AssertionError('a read in the future succeeded')


@test('whoever does not say who they are is refused, if somebody asks')
def _():
    stranger = Etcd3Client(host=HOST, port=PORT, protocol=URL.split(':')[0], api_path='/v3/', timeout=15, **TLS)
    if not USER:
        equal('status', 'version' in stranger.status(), True)
        return
    try:
        stranger.get('k')
    except exceptions.Etcd3Exception as error:
        equal('text', 'user name is empty' in str(error.detail_text), True)
    else:
        raise AssertionError('a stranger was answered')


@test('a restart is survived')
def _():
    client.put('restart', 'before')
    server('restart')
    # A token need not outlive the member that gave it.
    wait_until('it lets in', lambda: login(client) is None)
    wait_until('it answers again', lambda: client.get('restart') == [b'before'])


main()
