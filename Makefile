# Tidegate: `make run` starts the whole edge, `make test` tests everything, `make bench` measures it.

INSTALL := tests/parts/install.sh
.PHONY: run run-full test parts bench bench-gate lint help

help:
	@echo 'make run       the edge on embedded parts (memory, disk, file)'
	@echo 'make run-full  the edge on Redis, Apache Kafka and InfluxDB'
	@echo 'make test      all tests, on the real parts, which it installs where missing'
	@echo 'make bench     what it costs, in target/bench: 15 minutes, 3 with QUICK=1'
	@echo 'make bench-gate  instructions per decision against a baseline; ACCEPT=1 renews it'
	@echo 'make lint      format, clippy and cargo deny'

run:
	@$(INSTALL) toolchain envoy
	@echo 'building in release mode (some minutes the first time)'
	@cargo build --release --locked --workspace --bins --quiet
	@exec $${CARGO_TARGET_DIR:-target}/release/tidegate-edge

run-full:
	@$(INSTALL) toolchain envoy redis influxdb kafka
	@echo 'building in release mode (some minutes the first time)'
	@cargo build --release --locked --workspace --bins --quiet
	@exec $${CARGO_TARGET_DIR:-target}/release/tidegate-edge --full

parts:
	@$(INSTALL) toolchain envoy redis influxdb prometheus kafka

test: parts
	@echo 'building (some minutes the first time)'
	@cargo build --locked --workspace --bins --quiet
	@cargo test --locked --workspace --no-fail-fast
	@helm/validate.sh

bench:
	@$(INSTALL) toolchain redis influxdb kafka
	@echo 'building in release mode (some minutes the first time)'
	@cargo build --release --locked --workspace --bins --quiet
	@cargo build --release --locked --quiet --manifest-path tests/peers/line-protocol/Cargo.toml \
		--target-dir $${CARGO_TARGET_DIR:-target}/peers
	@LINE_PROTOCOL_PEER=$${CARGO_TARGET_DIR:-target}/peers/release/line-protocol-peer \
		$${CARGO_TARGET_DIR:-target}/release/tidegate-load bench $(if $(QUICK),--quick)

bench-gate:
	@$(INSTALL) toolchain valgrind
	@cargo build --release --locked -p ratelimit-svc -p tests --bins --quiet
	@exec $${CARGO_TARGET_DIR:-target}/release/tidegate-load gate $(if $(ACCEPT),--accept)

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo deny --locked check bans licenses sources
