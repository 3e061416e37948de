# Tidegate: `make run` starts the whole edge, `make test` tests everything, `make bench` measures it.

INSTALL := tests/parts/install.sh
.PHONY: run run-full demo test parts images audit cluster-check spire-check compliance bench bench-readme bench-gate lint fuzz help

help:
	@echo 'make run       the edge on embedded parts (memory, disk, file); REPLICAS=3 for three of each service'
	@echo 'make run-full  the edge on Redis, Apache Kafka and InfluxDB; KEYS=redis for keys in Redis'
	@echo 'make demo      a little load against a running make run: three tenants, four classes, one over its quota'
	@echo 'make test      all tests, on the real parts, which it installs where missing'
	@echo 'make images    the container images, without Docker, in target/images; PROGRAMS=target/debug for those'
	@echo 'make cluster-check  the chart on a real control plane of Kubernetes, which it builds: needs Go'
	@echo 'make spire-check    the chart'"'"'s edge on a real SPIRE, which it builds: needs Go, and root'
	@echo 'make compliance RECEIVER=program  the receiver tests of prometheus/compliance against the edge: needs'
	@echo '               them compiled to one program'
	@echo 'make audit     known vulnerabilities of what is linked, by the database of RustSec'
	@echo 'make bench     what it costs, in target/bench: 15 minutes, 5 with QUICK=1; ONLY=keys,overload runs'
	@echo '               these stages and keeps the figures of the others;'
	@echo '               PEER=program:port[:redis_port] measures a running server in the same rounds'
	@echo 'make bench-readme  puts the newest figures of each stage into tests/REFERENCE.md and README.md'
	@echo 'make bench-gate  instructions per decision against a baseline; ACCEPT=1 renews it'
	@echo 'make lint      format, clippy and cargo deny'
	@echo 'make fuzz      every fuzz target, each for TIME=60 seconds'

run:
	@$(INSTALL) toolchain envoy
	@echo 'building in release mode (some minutes the first time)'
	@cargo build --release --locked --workspace --bins --quiet
	@exec $${CARGO_TARGET_DIR:-target}/release/tidegate-edge $(if $(REPLICAS),--replicas $(REPLICAS))

run-full:
	@$(INSTALL) toolchain envoy redis influxdb kafka
	@echo 'building in release mode (some minutes the first time)'
	@cargo build --release --locked --workspace --bins --quiet
	@exec $${CARGO_TARGET_DIR:-target}/release/tidegate-edge --full $(if $(REPLICAS),--replicas $(REPLICAS))

demo:
	@$(INSTALL) toolchain
	@cargo build --release --locked --workspace --bins --quiet
	@exec $${CARGO_TARGET_DIR:-target}/release/tidegate-load demo

parts:
	@$(INSTALL) toolchain envoy redis influxdb victoria prometheus kafka chromium images

test: parts
	@echo 'building (some minutes the first time)'
	@cargo build --locked --workspace --bins --quiet
	@cargo test --locked --workspace --no-fail-fast
	@helm/validate.sh

# With every optimisation, unless PROGRAMS names a directory of programs that are built already.
PROGRAMS ?= $${CARGO_TARGET_DIR:-target}/dist
images:
	@$(INSTALL) toolchain images
	@case '$(origin PROGRAMS)' in file) echo 'building for images (a quarter of an hour the first time)' && \
		cargo build --profile dist --locked --workspace --exclude tests --bins --quiet ;; esac
	@images/build.sh $(PROGRAMS) $${CARGO_TARGET_DIR:-target}/images

# Not in `make test`: what they build takes longer than all the tests.
cluster-check:
	@$(INSTALL) toolchain
	@helm/cluster.sh

spire-check:
	@$(INSTALL) toolchain envoy redis influxdb kafka
	@cargo build --locked --workspace --bins --quiet
	@helm/spire.sh

compliance:
	@$(INSTALL) toolchain envoy
	@cargo build --locked --workspace --bins --quiet
	@tests/agents/compliance.sh $(RECEIVER)

# OFFLINE=1 takes the database as it lies in $CARGO_HOME/advisory-dbs.
audit:
	@$(INSTALL) deny
	@PATH="$${TIDEGATE_CACHE:-target/parts}/tools/bin:$$PATH" cargo-deny --locked $(if $(OFFLINE),--offline) check advisories

bench:
	@$(INSTALL) toolchain envoy redis influxdb kafka valgrind
	@echo 'building in release mode (some minutes the first time)'
	@cargo build --release --locked --workspace --bins --quiet
	@cargo build --release --locked --quiet --manifest-path tests/peers/line-protocol/Cargo.toml \
		--target-dir $${CARGO_TARGET_DIR:-target}/peers
	@LINE_PROTOCOL_PEER=$${CARGO_TARGET_DIR:-target}/peers/release/line-protocol-peer \
		$${CARGO_TARGET_DIR:-target}/release/tidegate-load bench $(if $(QUICK),--quick) \
		$(if $(ONLY),--only $(ONLY)) $(foreach peer,$(PEER),--peer $(peer))

bench-readme:
	@exec $${CARGO_TARGET_DIR:-target}/release/tidegate-load bench --readme $(if $(QUICK),--quick)

bench-gate:
	@$(INSTALL) toolchain valgrind
	@cargo build --release --locked -p ratelimit-svc -p tests --bins --quiet
	@exec $${CARGO_TARGET_DIR:-target}/release/tidegate-load gate $(if $(ACCEPT),--accept)

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo deny --locked check bans licenses sources

# Without a sanitizer, so that the stable toolchain does: nothing here is unsafe, and libFuzzer
# finds panics, broken promises, memory above 2 GiB and inputs that take 25 s.
TIME ?= 60
fuzz:
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	@cargo fuzz build --sanitizer none
	@set -e; for target in $$(cargo fuzz list); do \
		echo "== $$target"; \
		mkdir -p fuzz/corpus/$$target; \
		cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(TIME) -rss_limit_mb=2048 -timeout=25 -print_final_stats=1 -verbosity=0; \
	done
