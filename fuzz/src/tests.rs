//! Every target over its seeds and over random changes of them: what can be had without
//! libFuzzer. `MUTATIONS` says how many changes of each seed, 2000 where it is not set.

use std::path::Path;

/// Xorshift: the same changes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    /// A few bytes changed, taken out, doubled or put in.
    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut data = seed.to_vec();
        for _ in 0..=self.next(4) {
            let at = self.next(data.len() + 1);
            let end = (at + 1 + self.next(8)).min(data.len());
            match self.next(6) {
                0 if at < data.len() => data[at] ^= 1 << self.next(8),
                1 if at < data.len() => data[at] = self.next(256) as u8,
                2 if at < data.len() => drop(data.drain(at..end)),
                3 if at < data.len() => {
                    let copy = data[at..end].to_vec();
                    let to = self.next(data.len() + 1);
                    data.splice(to..to, copy);
                }
                4 => data.truncate(at),
                _ => {
                    const SPECIAL: [u8; 16] = *b"\0\xff\x80\n\r\t \"\\*,=:{[|";
                    data.insert(at, SPECIAL[self.next(SPECIAL.len())]);
                }
            }
        }
        data
    }
}

fn run(target: &str, function: fn(&[u8])) {
    let mutations = std::env::var("MUTATIONS").ok().and_then(|set| set.parse().ok());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut seeds = 0;
    for seed in std::fs::read_dir(&dir).expect("every target has seeds") {
        let path = seed.expect("readable").path();
        let seed = std::fs::read(&path).expect("readable");
        function(&seed);
        seeds += 1;
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed.len() as u64);
        for number in 0..mutations.unwrap_or(2000) {
            let data = random.mutate(&seed);
            let held = std::panic::catch_unwind(|| function(&data));
            assert!(held.is_ok(), "{target}, change {number} of {}: {data:?}", path.display());
        }
    }
    assert!(seeds > 0, "{target} has no seeds");
}

#[test]
fn promises_hold_around_the_seeds() {
    run("quota_yaml", crate::quota_yaml);
    run("rate_limit_request", crate::rate_limit_request);
    run("xds_response", crate::xds_response);
    run("check_request", crate::check_request);
    run("api_key", crate::api_key);
    run("line_protocol", crate::line_protocol);
    run("line_protocol_oracle", crate::line_protocol_oracle);
    run("otlp_metrics", crate::otlp_metrics);
    run("otlp_events", crate::otlp_events);
    run("remote_write", crate::remote_write);
    run("datadog", crate::datadog);
    run("compressed_body", crate::compressed_body);
    run("grpc_frame", crate::grpc_frame);
    run("otlp_json", crate::otlp_json);
    run("journal_frame", crate::journal_frame);
    run("journal_envelope", crate::journal_envelope);
}
