//! Replicas that are there and of little use: out of memory, frozen while they start, or only a name.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tests::edge::{Part, Parts, Patience, Service, Supervisor};
use tests::steady::{self, SteadyLoad};
use tests::wait::{DEADLINE, wait_for};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::replicas::healthy;
use crate::stage::Stage;

const PER_SECOND: u64 = 100;

async fn several(replicas: usize) -> Result<Stage> {
    Stage::with(Parts::Embedded, |options| {
        options.replicas = replicas;
        options.patience = Patience::ROLLING;
    })
    .await
}

/// One counter of Envoy's admin interface.
async fn counter(stage: &Stage, name: &str) -> Result<u64> {
    let page = format!("/stats?filter=^{name}$");
    let text = stage.admin(stage.edge.at.envoy_admin, &page).await?.text();
    let (_, value) = text.trim().split_once(": ").context(name.to_owned())?;
    Ok(value.parse()?)
}

/// A request whose body never ends: it holds memory of a gateway.
async fn unfinished(gateway: SocketAddr, tenant: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(gateway).await?;
    let request = format!(
        "POST /api/v2/write HTTP/1.1\r\nhost: gateway\r\nx-tidegate-tenant: t{tenant}\r\n\
         content-length: 1000\r\n\r\nm"
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_memory_is_in_use_costs_no_request() -> Result<()> {
    let mut stage = several(3).await?;
    let file = stage.edge.gateway_config();
    let small = "gateway:\n  memory_bytes_max: 1MiB\n  decoded_bytes_max: 256KiB\n";
    let text = std::fs::read_to_string(&file)?.replacen("gateway:\n", small, 1);
    std::fs::write(&file, text)?;
    let replica = &mut stage.edge.replicas_mut(Service::Gateway)[0];
    let (child, full) = (replica.child.take(), replica.listen);
    child.context("it runs")?.stop(DEADLINE).await;
    stage.edge.start_service(Service::Gateway).await?;
    healthy(&stage, Service::Gateway, 3).await?;
    let keys = steady::keys(&stage.edge, "acme").await?;

    let (mut held, mut refused) = (Vec::new(), 0);
    let url = format!("http://{full}/api/v2/write");
    // Two that come at once may both find too little room, and both go: so one refusal says nothing yet.
    let refusal = wait_for("its memory to be in use", DEADLINE, async || {
        held.push(unfinished(full, held.len()).await.ok()?);
        let probe = stage.http.post(&url, &[("x-tidegate-tenant", "probe")], "m f=1").await.ok()?;
        refused = if probe.status == 503 { refused + 1 } else { 0 };
        (refused == 10).then_some(probe)
    })
    .await?;
    assert_eq!(refusal.header("x-tidegate-try-another"), Some("replica"));
    let traffic = SteadyLoad::with_keys(&stage.edge, keys, PER_SECOND);
    traffic.go_on(200).await?;
    let noticed = traffic.finish().await?;
    assert_eq!(noticed.failures(), 0, "{:?}", noticed.failed);
    let retried = counter(&stage, "cluster.gateway.upstream_rq_retry_success").await?;
    assert!(retried > 10, "a third is refused there and taken elsewhere: {retried}");
    Ok(())
}

/// A part that was started again and hangs before it serves is not asked, and is once it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_hangs_at_its_start_costs_no_request() -> Result<()> {
    let mut stage = several(2).await?;
    let keys = steady::keys(&stage.edge, "acme").await?;
    for service in [Service::Authz, Service::Ratelimit, Service::Gateway] {
        healthy(&stage, service, 2).await?;
        let replica = &mut stage.edge.replicas_mut(service)[1];
        replica.child.take().context("it runs")?.stop(DEADLINE).await;
        stage.edge.spawn(service, 1)?;
        let child = stage.edge.child(Part::Replica(service, 1)).context("it was started")?;
        child.signal(Signal::STOP)?;
        healthy(&stage, service, 1).await?;
        let traffic = SteadyLoad::with_keys(&stage.edge, keys.clone(), PER_SECOND);
        traffic.go_on(200).await?;
        let noticed = traffic.finish().await?;
        assert_eq!(noticed.failures(), 0, "{}: {:?}", service.name(), noticed.failed);
        let child = stage.edge.child(Part::Replica(service, 1)).context("it was started")?;
        child.signal(Signal::CONT)?;
        healthy(&stage, service, 2).await?;
    }
    Ok(())
}

/// A name server on loopback that answers every question for an IPv4 address with the same list.
struct Names {
    address: SocketAddr,
    known: Arc<Mutex<Vec<Ipv4Addr>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Names {
    async fn start(known: &[Ipv4Addr]) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let known = Arc::new(Mutex::new(known.to_vec()));
        let shared = Arc::clone(&known);
        let task = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((bytes, from)) = socket.recv_from(&mut question).await {
                let known = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(answer) = answer(&question[..bytes], &known) {
                    // Who asks asks again.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Ok(Self { address, known, task })
    }

    fn set(&self, known: &[Ipv4Addr]) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known.to_vec();
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to a message with one question (RFC 1035 §4.1), valid for no time.
fn answer(question: &[u8], known: &[Ipv4Addr]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name = question.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let end = HEADER + name + 5;
    let asks_for_ipv4 = question.get(end - 4..end)? == [0, 1, 0, 1];
    let known = if asks_for_ipv4 { known } else { &[] };
    let mut answer = question[..2].to_vec();
    // A response without an error: one question, so many answers, nothing else.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::try_from(known.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(&question[HEADER..end]);
    for address in known {
        // The name of the question, an address, valid for 0 s, of four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

const ALIVE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const GONE: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 77), Ipv4Addr::new(127, 0, 0, 78)];

/// DNS goes on naming replicas that are gone, and names new ones that are not there yet.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_replicas_that_are_gone_cost_no_request() -> Result<()> {
    let mut stage = several(2).await?;
    let keys = steady::keys(&stage.edge, "acme").await?;
    let names = Names::start(&[GONE[0], ALIVE]).await?;
    let file = stage.edge.bootstrap_file();
    let mut text = std::fs::read_to_string(&file)?;
    for service in [Service::Authz, Service::Ratelimit, Service::Gateway] {
        for replica in stage.edge.replicas(service) {
            let port = replica.listen.port();
            let address = format!("address: \"127.0.0.1\", port_value: {port}}}");
            assert!(text.contains(&address), "{address}");
            let name = format!("address: \"{}.test\", port_value: {port}}}", service.name());
            text = text.replace(&address, &name);
        }
    }
    let refresh = "type: STRICT_DNS\n      dns_refresh_rate: 0.5s\n";
    text = text.replace("type: STRICT_DNS\n", refresh);
    text += &format!(
        "typed_dns_resolver_config:\n  name: envoy.network.dns_resolver.cares\n  typed_config:\n    \
         \"@type\": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig\n    \
         resolvers: [{{socket_address: {{address: 127.0.0.1, port_value: {}, protocol: UDP}}}}]\n    \
         dns_resolver_options: {{no_default_search_domain: true}}\n",
        names.address.port()
    );
    std::fs::write(&file, text)?;
    let mut supervisor = Supervisor::default();
    let before = stage.edge.child(Part::Envoy).map(tests::child::Child::pid);
    supervisor.poll(&mut stage.edge, |_| ());
    stage.edge.child(Part::Envoy).context("it runs")?.signal(Signal::KILL)?;
    wait_for("an Envoy that asks for names", DEADLINE, async || {
        supervisor.poll(&mut stage.edge, |_| ());
        (stage.edge.child(Part::Envoy).map(tests::child::Child::pid) != before).then_some(())
    })
    .await?;

    for known in [vec![GONE[0], ALIVE], vec![GONE[0], ALIVE, GONE[1]], vec![ALIVE, GONE[1]]] {
        names.set(&known);
        let hosts = known.len() * 2;
        for service in [Service::Authz, Service::Ratelimit, Service::Gateway] {
            let name = format!("cluster.{}.membership_total", service.name());
            wait_for("Envoy to know every name", DEADLINE, async || {
                (counter(&stage, &name).await.ok()? == hosts as u64).then_some(())
            })
            .await?;
            healthy(&stage, service, 2).await?;
        }
        let traffic = SteadyLoad::with_keys(&stage.edge, keys.clone(), PER_SECOND);
        traffic.go_on(150).await?;
        let noticed = traffic.finish().await?;
        assert_eq!(noticed.failures(), 0, "{known:?}: {:?}", noticed.failed);
    }
    Ok(())
}
