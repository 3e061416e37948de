//! Quota files, control planes and requests of the rate-limit service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use prost::Message;
use proto::pb::envoy::service::discovery::v3::DiscoveryResponse;
use proto::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use ratelimit_svc::decide::conclude::{Evidence, conclude};
use ratelimit_svc::decide::hit::Mode;
use ratelimit_svc::decide::plan::plan;
use ratelimit_svc::decide::request::RequestError;
use ratelimit_svc::decide::settings::HeaderNames;
use ratelimit_svc::decide::settings::Settings;
use ratelimit_svc::diff::diff;
use ratelimit_svc::grpc::{answer, message};
use ratelimit_svc::limits::quotas::{Contents, Library, Quotas};
use ratelimit_svc::store::memory::Memory;
use ratelimit_svc::xds::resource;

const QUOTAS: &str = include_str!("quotas.yaml");

/// A moment that is the same in every run.
const NOW: Duration = Duration::from_secs(1_800_000_000);

fn read(text: &[u8]) -> (Library, Quotas, usize) {
    let contents: Contents = BTreeMap::from([(PathBuf::from("a.yaml"), Ok(text.to_vec()))]);
    let update = Library::new(false).update(&contents);
    (update.library, update.quotas, update.errors.len())
}

/// A quota file: read, refused or in force; read again it is the same.
pub fn quota_yaml(data: &[u8]) {
    let (_, quotas, errors) = read(data);
    assert_eq!(errors, usize::from(quotas.domains().is_empty()));
    for domain in quotas.domains() {
        for rule in domain.root.rules() {
            let entries: Vec<(&str, &str)> = rule
                .steps
                .iter()
                .map(|step| (&*step.key, step.value.as_deref().unwrap_or("any")))
                .collect();
            // A literal path finds a rule; patterns may be hidden by others.
            let literal = |text: &str| !text.contains('*');
            if entries.iter().all(|(key, value)| literal(key) && literal(value))
                && rule.steps.iter().all(|step| step.value.is_some())
            {
                assert!(domain.root.find(&entries).is_some(), "{}", rule.id);
            }
        }
    }
    let (_, again, _) = read(data);
    assert_eq!(diff(&quotas, &again), []);
}

/// The resources of a control plane, as far as what would be in force.
pub fn xds_response(data: &[u8]) {
    let Ok(response) = DiscoveryResponse::decode(data) else { return };
    let Ok(contents) = resource::contents(&response.resources) else { return };
    let update = Library::new(false).update(&contents);
    assert!(update.quotas.domains().len() <= contents.len());
}

/// A request through the whole decider in memory, one setting after the other. What is read by
/// hand is what prost reads.
pub fn rate_limit_request(data: &[u8]) {
    static IN_FORCE: LazyLock<Quotas> = LazyLock::new(|| {
        let (_, quotas, errors) = read(QUOTAS.as_bytes());
        assert_eq!(errors, 0, "the quotas of the target are good");
        quotas
    });
    static MEMORY: LazyLock<Memory> = LazyLock::new(|| Memory::new(4096));
    let wire = RateLimitRequest::decode(data);
    let request = match (message::read(data), &wire) {
        (Ok(request), Ok(_)) => request,
        (Err(RequestError::Malformed), Err(_)) => return,
        // A bound ends the reading before what may be broken further on.
        (Err(RequestError::TooManyDescriptors | RequestError::TooManyEntries), _) => return,
        (read, wire) => panic!("{read:?} and {wire:?}"),
    };
    let wire = wire.expect("read by both");
    assert_eq!((request.domain, request.hits_addend), (&*wire.domain, wire.hits_addend));
    for (read, wire) in request.descriptors.iter().zip(&wire.descriptors) {
        let entries = wire.entries.iter().map(|entry| (&*entry.key, &*entry.value));
        assert!(read.entries.iter().copied().eq(entries));
        assert_eq!(read.hits_addend, wire.hits_addend.map(|hits| hits.value));
        assert_eq!(read.is_negative_hits, wire.is_negative_hits);
        let limits = (read.limit_override, wire.limit);
        assert_eq!(limits.0.is_some(), limits.1.is_some());
        assert_eq!(
            limits.0.map(|limit| limit.requests_per_unit),
            limits.1.map(|limit| limit.requests_per_unit)
        );
    }
    for all_or_nothing in [false, true] {
        let settings = Settings {
            all_or_nothing,
            headers: Some(HeaderNames::default()),
            dynamic_metadata: all_or_nothing,
            ..Settings::default()
        };
        let Ok(plan) = plan(&request, &IN_FORCE, &settings, NOW.as_secs()) else { return };
        let mode = if all_or_nothing { Mode::AllOrNothing } else { Mode::CountAll };
        let counts = MEMORY.count_now(&plan.hits, mode, NOW);
        let counted = Evidence::Counts { hits: &plan.hits, counts: &counts, degraded: false };
        for found in [counted, Evidence::Bypass, Evidence::Deny] {
            let decision = conclude(&request, &plan, found, &settings, NOW.as_secs());
            let over = decision.statuses.iter().any(|status| status.over_limit);
            assert!(over || !decision.over_limit, "a refusal has a reason");
            let mut bytes = Vec::new();
            answer::write(decision, &mut bytes);
            let answer = RateLimitResponse::decode(&*bytes).expect("prost reads what is written");
            assert_eq!(answer.statuses.len(), wire.descriptors.len());
            assert!(answer.overall_code != 0);
        }
    }
}
