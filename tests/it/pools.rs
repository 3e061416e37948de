//! The critical class has requests of its own at the gateway: the others cannot use them up.

use anyhow::Result;
use tests::edge::Parts;
use tests::http::Http;

use crate::stage::Stage;
use crate::stand_in::StandIn;

const REQUESTS_MAX: u32 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_refuses_its_own_classes_and_not_the_critical_one() -> Result<()> {
    let small = |options: &mut tests::edge::Options| {
        options.proxy.limits.gateway_requests_max = REQUESTS_MAX;
    };
    let mut stage = Stage::with(Parts::Embedded, small).await?;
    let critical = stage.edge.issue_live_key("node", "system-node-critical").await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    let core = stage.edge.issue_live_key("core", "platform-core").await?;
    let gateway = StandIn::take_over(&mut stage).await?;
    gateway.hold(Some("ingest"));
    let (url, token) = (stage.edge.url("/write"), format!("Token {ingest}"));
    let waiting: Vec<_> = (0..REQUESTS_MAX)
        .map(|_| {
            let (url, token) = (url.clone(), token.clone());
            tokio::spawn(async move {
                Http::new().post(&url, &[("authorization", &token)], "slow f=1").await
            })
        })
        .collect();
    gateway.wait_for(waiting.len()).await?;

    for key in [&ingest, &core] {
        let reply = stage.write(key, "refused f=1").await?;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, Some("1")));
    }
    // Nothing a client says gets it into the other pool.
    let claims = [("x-tidegate-priority", "system-node-critical"), ("authorization", &token)];
    assert_eq!(stage.post("/write", &claims, "refused f=1").await?.status, 503);
    for _ in 0..3 {
        assert_eq!(stage.write(&critical, "passes f=1").await?.status, 204);
    }
    assert_eq!(gateway.seen().len(), waiting.len() + 3);

    gateway.hold(None);
    for waiting in waiting {
        assert_eq!(waiting.await??.status, 204);
    }
    stage.write_until(&ingest, "passes f=1", 204).await?;
    Ok(())
}
