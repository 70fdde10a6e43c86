"""Prometheus' own Python library: what `/metrics` says is what it can read."""

import collections
import math
import ssl
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from harness import TLS, URL, equal, main, test


def context():
    """Whom to trust and what to show, if the server speaks TLS."""
    if not TLS:
        return None
    made = ssl.create_default_context(cafile=TLS['ca_cert'])
    made.load_cert_chain(TLS['cert_cert'], TLS['cert_key'])
    return made


def scrape():
    with urllib.request.urlopen(f'{URL}/metrics', timeout=15, context=context()) as answer:
        equal('kind', answer.headers['Content-Type'].split(';')[:2], ['text/plain', ' version=0.0.4'])
        return list(text_string_to_metric_families(answer.read().decode()))


@test('every family is read, once, with its kind and a help text')
def _():
    families = scrape()
    equal('repeated', [key for key, count in collections.Counter((family.name, family.type) for family in families).items() if count > 1], [])
    equal('without help', [family.name for family in families if not family.documentation], [])
    equal('without a kind', [family.name for family in families if family.type not in ('counter', 'gauge', 'histogram', 'summary')], [])
    equal('many', len(families) > 50, True)


@test('no number stands twice')
def _():
    for family in scrape():
        seen = collections.Counter((sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples)
        equal(family.name, [key for key, count in seen.items() if count > 1], [])


@test('histograms add up')
def _():
    for family in scrape():
        if family.type != 'histogram':
            continue
        buckets, counts = collections.defaultdict(list), {}
        for sample in family.samples:
            labels = dict(sample.labels)
            bound = labels.pop('le', None)
            key = tuple(sorted(labels.items()))
            if sample.name.endswith('_bucket'):
                buckets[key].append((float(bound), sample.value))
            elif sample.name.endswith('_count'):
                counts[key] = sample.value
        equal(family.name, sorted(buckets), sorted(counts))
        for key, found in buckets.items():
            equal(f'{family.name}: order', found, sorted(found))
            equal(f'{family.name}: growth', [count for _, count in found], sorted(count for _, count in found))
            equal(f'{family.name}: the last', found[-1], (math.inf, counts[key]))


@test('what dashboards and rules for etcd read is there')
def _():
    names = {sample.name for family in scrape() for sample in family.samples}
    wanted = ['etcd_server_has_leader', 'etcd_server_leader_changes_seen_total', 'etcd_server_proposals_committed_total',
              'etcd_server_proposals_applied_total', 'etcd_server_proposals_pending', 'etcd_server_proposals_failed_total',
              'etcd_server_quota_backend_bytes', 'etcd_disk_wal_fsync_duration_seconds_bucket',
              'etcd_disk_backend_commit_duration_seconds_bucket', 'etcd_mvcc_db_total_size_in_bytes',
              'etcd_mvcc_db_total_size_in_use_in_bytes', 'etcd_network_client_grpc_received_bytes_total',
              'etcd_network_client_grpc_sent_bytes_total', 'process_resident_memory_bytes']
    equal('missing', [name for name in wanted if name not in names], [])


main()
