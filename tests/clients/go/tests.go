// etcd's own Go client against a henge member.
package main

import (
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
)

var tests = []test{
	{"a put is read back, with its revisions", func(w world) {
		put := must(w.Put(w, "kv/a", "1"))
		again := must(w.Put(w, "kv/a", "2", clientv3.WithPrevKV()))
		same("previous value", string(again.PrevKv.Value), "1")
		kv := must(w.Get(w, "kv/a")).Kvs[0]
		same("value", string(kv.Value), "2")
		same("create revision", kv.CreateRevision, put.Header.Revision)
		same("version", kv.Version, 2)
		past := must(w.Get(w, "kv/a", clientv3.WithRev(put.Header.Revision)))
		same("value then", string(past.Kvs[0].Value), "1")
	}},
	{"ranges sort, limit, filter and count", func(w world) {
		for _, name := range []string{"a", "b", "c", "d"} {
			must(w.Put(w, "range/"+name, name))
		}
		keys := func(options ...clientv3.OpOption) (names string) {
			for _, kv := range must(w.Get(w, "range/", append(options, clientv3.WithPrefix())...)).Kvs {
				names += strings.TrimPrefix(string(kv.Key), "range/")
			}
			return names
		}
		same("ascending", keys(), "abcd")
		same("descending", keys(clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend)), "dcba")
		same("limited", keys(clientv3.WithLimit(2)), "ab")
		same("last created", keys(clientv3.WithLastCreate()...), "d")
		page := must(w.Get(w, "range/", clientv3.WithPrefix(), clientv3.WithLimit(3), clientv3.WithSerializable()))
		same("more", page.More, true)
		same("count", must(w.Get(w, "range/", clientv3.WithPrefix(), clientv3.WithCountOnly())).Count, 4)
		deleted := must(w.Delete(w, "range/b", clientv3.WithRange("range/d"), clientv3.WithPrevKV()))
		same("deleted", deleted.Deleted, 2)
		same("left", keys(clientv3.WithKeysOnly()), "ad")
	}},
	{"a range comes as a stream", func(w world) {
		value := strings.Repeat("x", 100_000)
		for number := range 40 {
			must(w.Put(w, fmt.Sprintf("stream/%02d", number), value))
		}
		stream := must(w.GetStream(w, "stream/", clientv3.WithPrefix()))
		whole := must(clientv3.GetStreamToGetResponse(stream))
		same("keys", len(whole.Kvs), 40)
		same("count", whole.Count, 40)
	}},
	{"a transaction takes the branch that its compares choose", func(w world) {
		must(w.Put(w, "txn/a", "1"))
		swap := func(old, value string) *clientv3.TxnResponse {
			return must(w.Txn(w).
				If(clientv3.Compare(clientv3.Value("txn/a"), "=", old)).
				Then(clientv3.OpPut("txn/a", value), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("txn/b", value)}, nil)).
				Else(clientv3.OpGet("txn/a")).Commit())
		}
		same("swapped", swap("1", "2").Succeeded, true)
		missed := swap("1", "3")
		same("swapped again", missed.Succeeded, false)
		same("found", string(missed.Responses[0].GetResponseRange().Kvs[0].Value), "2")
		same("nested", string(must(w.Get(w, "txn/b")).Kvs[0].Value), "2")
		_, err := w.Txn(w).Then(clientv3.OpPut("k", "1"), clientv3.OpPut("k", "2")).Commit()
		refused("etcdserver: duplicate key given in txn request", err)
	}},
	{"a watch goes on over a restart and misses nothing", func(w world) {
		first := must(w.Put(w, "watch/0", "0")).Header.Revision
		events := w.Watch(w, "watch/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithPrevKV())
		seen := 0
		await := func(upto int) {
			for seen <= upto {
				reply, open := <-events
				if !open || reply.Err() != nil {
					fail("the watch ended at %d: %v", seen, reply.Err())
				}
				for _, event := range reply.Events {
					same("event", string(event.Kv.Value), fmt.Sprint(seen))
					seen++
				}
			}
		}
		must(w.Put(w, "watch/1", "1"))
		await(1)
		server("restart")
		must(w.Put(w, "watch/2", "2"))
		await(2)
		server("stop")
		server("start")
		must(w.Put(w, "watch/3", "3"))
		await(3)
	}},
	{"a watch tells progress, filters, and says what is compacted", func(w world) {
		first := must(w.Put(w, "past", "1")).Header.Revision
		must(w.Put(w, "past", "2"))
		deletes := w.Watch(w, "past", clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
		same("created", (<-deletes).Created, true)
		must(w.Delete(w, "past"))
		last := must(w.Put(w, "past", "3")).Header.Revision
		same("only deletes", (<-deletes).Events[0].Type, mvccpb.DELETE)
		if err := w.RequestProgress(w); err != nil {
			fail("%v", err)
		}
		progress := <-deletes
		same("progress", progress.IsProgressNotify(), true)
		must(w.Compact(w, last, clientv3.WithCompactPhysical()))
		compacted := <-w.Watch(w, "past", clientv3.WithRev(first))
		same("compacted at", compacted.CompactRevision, last)
		_, err := w.Get(w, "past", clientv3.WithRev(first))
		refused("etcdserver: mvcc: required revision has been compacted", err)
	}},
	{"a lease is kept alive, and its keys go with it", func(w world) {
		lease := must(w.Grant(w, 2)).ID
		must(w.Put(w, "lease/a", "1", clientv3.WithLease(lease)))
		alive := must(w.KeepAlive(w, lease))
		until := time.Now().Add(5 * time.Second)
		for time.Now().Before(until) {
			if reply, open := <-alive; !open || reply.TTL != 2 {
				fail("the lease is not kept alive: %v", reply)
			}
		}
		told := must(w.TimeToLive(w, lease, clientv3.WithAttachedKeys()))
		same("key", string(told.Keys[0]), "lease/a")
		events := w.Watch(w, "lease/a")
		must(w.Revoke(w, lease))
		same("gone", (<-events).Events[0].Type, mvccpb.DELETE)
		_, err := w.KeepAliveOnce(w, lease)
		refused("etcdserver: requested lease not found", err)

		short := must(w.Grant(w, 1)).ID
		expiring := w.Watch(w, "lease/b")
		must(w.Put(w, "lease/b", "1", clientv3.WithLease(short)))
		same("put", (<-expiring).Events[0].Type, mvccpb.PUT)
		same("expired", (<-expiring).Events[0].Type, mvccpb.DELETE)
	}},
	{"a mutex excludes, an election has one leader", func(w world) {
		one, two := must(concurrency.NewSession(w.Client, concurrency.WithTTL(5))), must(concurrency.NewSession(w.Client))
		defer two.Close()
		first, second := concurrency.NewMutex(one, "mutex"), concurrency.NewMutex(two, "mutex")
		if err := first.Lock(w); err != nil {
			fail("%v", err)
		}
		same("try", second.TryLock(w), concurrency.ErrLocked)
		got := make(chan error)
		go func() { got <- second.Lock(w) }()
		one.Close()
		same("lock after the first session", <-got, nil)

		election := concurrency.NewElection(two, "election")
		if err := election.Campaign(w, "me"); err != nil {
			fail("%v", err)
		}
		same("leader", string(must(election.Leader(w)).Kvs[0].Value), "me")
		same("observed", string((<-election.Observe(w)).Kvs[0].Value), "me")
		same("resigned", election.Resign(w), nil)
	}},
	{"the service's locks and the library's exclude each other", func(w world) {
		session := must(concurrency.NewSession(w.Client, concurrency.WithTTL(30)))
		defer session.Close()
		mutex := concurrency.NewMutex(session, "both")
		lease := must(w.Grant(w, 30)).ID
		reply, _, err := w.lockService("Lock", message("both", int64(lease)))
		same("lock", err, nil)
		key := second(reply)
		same("key", key, fmt.Sprintf("both/%x", lease))
		same("try", mutex.TryLock(w), concurrency.ErrLocked)
		got := make(chan error)
		go func() { got <- mutex.Lock(w) }()
		for must(w.Get(w, "both/", clientv3.WithPrefix(), clientv3.WithCountOnly())).Count < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		_, _, err = w.lockService("Unlock", message(key, 0))
		same("unlock", err, nil)
		same("lock after the service's", <-got, nil)

		type answer struct {
			key, fence string
			err        error
		}
		served := make(chan answer)
		go func() {
			reply, said, err := w.lockService("Lock", message("both", int64(lease)))
			served <- answer{second(reply), strings.Join(said.Get("henge-create-revision"), ""), err}
		}()
		for must(w.Get(w, "both/", clientv3.WithPrefix(), clientv3.WithCountOnly())).Count < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		same("unlock", mutex.Unlock(w), nil)
		last := <-served
		same("lock after the library's", last.err, nil)
		kv := must(w.Get(w, last.key)).Kvs[0]
		if last.fence != "" { // etcd leaves it to the client to read it
			same("fence", last.fence, fmt.Sprint(kv.CreateRevision))
		}
	}},
	{"software transactional memory settles conflicts", func(w world) {
		must(w.Put(w, "stm", ""))
		done := make(chan error)
		for range 4 {
			go func() {
				for range 5 {
					_, err := concurrency.NewSTM(w.Client, func(stm concurrency.STM) error {
						stm.Put("stm", stm.Get("stm")+"x")
						return nil
					}, concurrency.WithAbortContext(w))
					if err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range 4 {
			same("conflicts", <-done, nil)
		}
		same("steps", len(must(w.Get(w, "stm")).Kvs[0].Value), 20)
	}},
	{"a namespace and a mirror see their keys", func(w world) {
		inside := namespace.NewKV(w.KV, "space/")
		must(inside.Put(w, "a", "1"))
		same("outside", string(must(w.Get(w, "space/a")).Kvs[0].Key), "space/a")
		same("inside", string(must(inside.Get(w, "a")).Kvs[0].Key), "a")
		syncer := mirror.NewSyncer(w.Client, "space/", 0)
		base, errors := syncer.SyncBase(w)
		same("mirrored", string((<-base).Kvs[0].Key), "space/a")
		for err := range errors {
			fail("%v", err)
		}
		updates := syncer.SyncUpdates(w)
		must(inside.Put(w, "b", "2"))
		same("update", string((<-updates).Events[0].Kv.Key), "space/b")
	}},
	{"the member tells of itself", func(w world) {
		status := must(w.Status(w, w.Endpoints()[0]))
		same("leader", status.Leader, status.Header.MemberId)
		same("learner", status.IsLearner, false)
		members := must(w.MemberList(w)).Members
		same("members", len(members), 1)
		same("id", members[0].ID, status.Header.MemberId)
		if must(w.HashKV(w, w.Endpoints()[0], 0)).Hash == 0 {
			fail("no hash")
		}
		same("alarms", len(must(w.AlarmList(w)).Alarms), 0)
		must(w.Defragment(w, w.Endpoints()[0]))
	}},
}
