//! A real etcd as upstream: `ETCD_URL=http://127.0.0.1:2379 cargo test --lib copies::stock -- --ignored`. It writes below `jobs/` and
//! `other/`, and compacts.

use super::*;

#[tokio::test]
#[ignore = "needs an etcd that may be written to, in ETCD_URL"]
async fn a_stock_etcd_is_copied_to_the_byte() {
    let url = std::env::var("ETCD_URL").expect("ETCD_URL is the address of an etcd");
    let channel = Channel::from_shared(url.clone()).unwrap().connect().await.unwrap();
    let mut direct = KvClient::new(channel);
    let source = Arc::new(Endpoints::new([&url], &ConnectOptions::default()).unwrap());
    for streams in [true, false] {
        let mut settings = settings();
        settings.rules.streams = streams;
        let copies = Copies::start(source.clone(), settings);
        let copy = covered(&copies).await;
        for n in 0..300 {
            let room = if n % 3 == 0 { "other" } else { "jobs" };
            let key = b(&format!("{room}/{}", n % 7));
            if n % 5 == 4 {
                direct.delete_range(pb::DeleteRangeRequest { key, ..Default::default() }).await.unwrap();
            } else {
                direct.put(pb::PutRequest { key, value: b(&n.to_string()), ..Default::default() }).await.unwrap();
            }
            let request = pb::RangeRequest { limit: n % 4, sort_order: 2, ..range("jobs/", "jobs0") };
            let here =
                copies.range(&MetadataMap::new(), request.clone()).await.expect("answered here").expect("no error");
            assert_eq!(here.into_inner(), direct.range(request).await.unwrap().into_inner(), "{n}");
        }
        assert!(!copy.is_over());
        let revision = copy.revision().0;
        drop(copies);
        direct.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    }
}
