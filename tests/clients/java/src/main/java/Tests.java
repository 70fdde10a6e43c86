import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.ClientBuilder;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/** Java's jetcd against a henge member. */
public final class Tests {
    interface Body {
        void run(Client client) throws Exception;
    }

    record Test(String name, Body body) {}

    static ByteSequence bytes(String text) {
        return ByteSequence.from(text, StandardCharsets.UTF_8);
    }

    static <T> T await(CompletableFuture<T> future) throws Exception {
        return future.get(20, TimeUnit.SECONDS);
    }

    static void same(String what, Object actual, Object expected) {
        if (!expected.equals(actual)) {
            throw new AssertionError(what + ": expected " + expected + ", got " + actual);
        }
    }

    static void refused(String part, CompletableFuture<?> future) throws Exception {
        try {
            await(future);
        } catch (ExecutionException error) {
            if (String.valueOf(error.getMessage()).contains(part)) {
                return;
            }
            throw new AssertionError("expected a refusal with '" + part + "', got " + error.getMessage());
        }
        throw new AssertionError("expected a refusal with '" + part + "'");
    }

    static String keys(GetResponse response) {
        return response.getKvs().stream().map(kv -> kv.getKey().toString()).collect(Collectors.joining(" "));
    }

    /** Runs server.sh: start, stop or restart. */
    static void server(String command) throws Exception {
        Process process = new ProcessBuilder(System.getenv("INTEROP_SERVER"), command).inheritIO().start();
        same("server.sh " + command, process.waitFor(), 0);
    }

    static Client connect() throws Exception {
        String scheme = System.getenv("INTEROP_SCHEME");
        ClientBuilder builder = Client.builder().endpoints(scheme + "://" + System.getenv("INTEROP_ENDPOINT"));
        String ca = System.getenv("INTEROP_CACERT");
        if (ca != null) {
            File certificate = new File(System.getenv("INTEROP_CERT"));
            File key = new File(System.getenv("INTEROP_KEY"));
            builder.sslContext(context -> context.trustManager(new File(ca)).keyManager(certificate, key));
        }
        String user = System.getenv("INTEROP_USER");
        if (user != null) {
            builder.user(bytes(user)).password(bytes(System.getenv("INTEROP_PASSWORD")));
        }
        return builder.build();
    }

    static final List<Test> TESTS = List.of(
        new Test("a put is read back, with its revisions", client -> {
            KV kv = client.getKVClient();
            long first = await(kv.put(bytes("kv/a"), bytes("1"))).getHeader().getRevision();
            PutOption withPrevious = PutOption.builder().withPrevKV().build();
            same("previous", await(kv.put(bytes("kv/a"), bytes("2"), withPrevious)).getPrevKv().getValue(), bytes("1"));
            GetResponse now = await(kv.get(bytes("kv/a")));
            same("value", now.getKvs().get(0).getValue(), bytes("2"));
            same("version", now.getKvs().get(0).getVersion(), 2L);
            GetResponse then = await(kv.get(bytes("kv/a"), GetOption.builder().withRevision(first).build()));
            same("value then", then.getKvs().get(0).getValue(), bytes("1"));
            refused("required revision is a future revision",
                kv.get(bytes("kv/a"), GetOption.builder().withRevision(1L << 40).build()));
        }),
        new Test("ranges sort, limit and count", client -> {
            KV kv = client.getKVClient();
            for (String name : List.of("a", "b", "c", "d")) {
                await(kv.put(bytes("range/" + name), bytes(name)));
            }
            GetOption.Builder all = GetOption.builder().isPrefix(true);
            same("ascending", keys(await(kv.get(bytes("range/"), all.build()))), "range/a range/b range/c range/d");
            GetOption last = GetOption.builder().isPrefix(true).withLimit(1)
                .withSortField(GetOption.SortTarget.MOD).withSortOrder(GetOption.SortOrder.DESCEND).build();
            GetResponse newest = await(kv.get(bytes("range/"), last));
            same("the newest", keys(newest), "range/d");
            same("more", newest.isMore(), true);
            same("count", newest.getCount(), 4L);
            DeleteOption prefix = DeleteOption.builder().isPrefix(true).build();
            same("deleted", await(kv.delete(bytes("range/"), prefix)).getDeleted(), 4L);
        }),
        new Test("a transaction takes the branch that its compares choose", client -> {
            KV kv = client.getKVClient();
            await(kv.put(bytes("txn/a"), bytes("1")));
            for (boolean holds : new boolean[] {true, false}) {
                TxnResponse answer = await(kv.txn()
                    .If(new Cmp(bytes("txn/a"), Cmp.Op.EQUAL, CmpTarget.value(bytes("1"))))
                    .Then(Op.put(bytes("txn/a"), bytes("2"), PutOption.DEFAULT))
                    .Else(Op.get(bytes("txn/a"), GetOption.DEFAULT))
                    .commit());
                same("succeeded", answer.isSucceeded(), holds);
            }
            same("value", await(kv.get(bytes("txn/a"))).getKvs().get(0).getValue(), bytes("2"));
            refused("duplicate key given in txn request", kv.txn()
                .Then(Op.put(bytes("k"), bytes("1"), PutOption.DEFAULT), Op.put(bytes("k"), bytes("2"), PutOption.DEFAULT))
                .commit());
        }),
        new Test("a watch tells the past and the present, over a restart", client -> {
            KV kv = client.getKVClient();
            long first = await(kv.put(bytes("watch/0"), bytes("0"))).getHeader().getRevision();
            LinkedBlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
            WatchOption options = WatchOption.builder().isPrefix(true).withRevision(first).withPrevKV(true).build();
            try (Watch.Watcher watcher =
                    client.getWatchClient().watch(bytes("watch/"), options, reply -> events.addAll(reply.getEvents()))) {
                await(kv.put(bytes("watch/1"), bytes("1")));
                for (String expected : List.of("0", "1")) {
                    same("event", events.poll(20, TimeUnit.SECONDS).getKeyValue().getValue(), bytes(expected));
                }
                server("restart");
                await(kv.put(bytes("watch/1"), bytes("2")));
                WatchEvent event = events.poll(30, TimeUnit.SECONDS);
                same("after the restart", event.getKeyValue().getValue(), bytes("2"));
                same("what was there", event.getPrevKV().getValue(), bytes("1"));
                await(kv.delete(bytes("watch/1")));
                same("kind", events.poll(20, TimeUnit.SECONDS).getEventType(), WatchEvent.EventType.DELETE);
            }
        }),
        new Test("a lease is renewed, and its keys go with it", client -> {
            KV kv = client.getKVClient();
            long lease = await(client.getLeaseClient().grant(60)).getID();
            await(kv.put(bytes("lease/a"), bytes("1"), PutOption.builder().withLeaseId(lease).build()));
            same("renewed", await(client.getLeaseClient().keepAliveOnce(lease)).getTTL(), 60L);
            var told = await(client.getLeaseClient().timeToLive(lease, LeaseOption.builder().withAttachedKeys().build()));
            same("granted", told.getGrantedTTL(), 60L);
            same("keys", told.getKeys(), List.of(bytes("lease/a")));
            await(client.getLeaseClient().revoke(lease));
            same("left", await(kv.get(bytes("lease/a"))).getCount(), 0L);
            refused("requested lease not found", client.getLeaseClient().revoke(lease));
        }),
        new Test("a lock excludes, and an election has one leader", client -> {
            long one = await(client.getLeaseClient().grant(60)).getID();
            long two = await(client.getLeaseClient().grant(60)).getID();
            ByteSequence held = await(client.getLockClient().lock(bytes("lock"), one)).getKey();
            var waiting = client.getLockClient().lock(bytes("lock"), two);
            same("queue", await(client.getKVClient().get(held)).getCount(), 1L);
            same("done", waiting.isDone(), false);
            await(client.getLockClient().unlock(held));
            await(client.getLockClient().unlock(await(waiting).getKey()));

            var leader = await(client.getElectionClient().campaign(bytes("election"), one, bytes("me"))).getLeader();
            same("leader", await(client.getElectionClient().leader(bytes("election"))).getKv().getValue(), bytes("me"));
            await(client.getElectionClient().proclaim(leader, bytes("still me")));
            await(client.getElectionClient().resign(leader));
        }),
        new Test("users and roles", client -> {
            await(client.getAuthClient().userAdd(bytes("someone"), bytes("secret")));
            await(client.getAuthClient().roleAdd(bytes("role")));
            await(client.getAuthClient().userGrantRole(bytes("someone"), bytes("role")));
            same("roles", await(client.getAuthClient().userGet(bytes("someone"))).getRoles(), List.of("role"));
            await(client.getAuthClient().userDelete(bytes("someone")));
            await(client.getAuthClient().roleDelete(bytes("role")));
        }),
        new Test("the member tells of itself", client -> {
            same("members", await(client.getClusterClient().listMember()).getMembers().size(), 1);
            same("alarms", await(client.getMaintenanceClient().listAlarms()).getAlarms().size(), 0);
        }));

    public static void main(String[] arguments) {
        String suite = System.getenv("INTEROP_CLIENT");
        List<String> failed = new ArrayList<>();
        for (Test test : TESTS) {
            try (Client client = connect()) {
                test.body().run(client);
                System.out.println("ok   " + suite + "  " + test.name());
            } catch (Throwable error) {
                System.out.println("FAIL " + suite + "  " + test.name() + "\n     " + error);
                error.printStackTrace();
                failed.add(test.name());
            }
        }
        System.out.flush();
        // Threads of the client may still be there.
        Runtime.getRuntime().halt(failed.isEmpty() ? 0 : 1);
    }
}
