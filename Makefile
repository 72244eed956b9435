# What people type. Everything that needs namespaces needs root: sudo make demo, sudo make test.
# Cargo then still runs as the one who called sudo. What is missing is installed by apt.

.PHONY: help build demo test labs test-full bench lint clean-host

help:
	@echo 'make build           release build'
	@echo 'sudo make demo       three routers with real FRR, our daemon on one; KEEP=1 leaves them up'
	@echo 'sudo make test       all tests and labs (without sudo: those that need no root)'
	@echo 'sudo make labs       only the labs; LABS="NAME ..." for some, JOBS=1 to watch'
	@echo 'sudo make test-full  tests, labs with the FRR of this machine and of each root file system
	@echo '                     in FRR_TREES="DIR ...", benches and fuzz targets built'
	@echo 'sudo make bench      routes into the kernel beside the raw limit, ip, BIRD and zebra; ROUTES=N, RUNS=N;'
	@echo '                     quicker with ONLY=ceiling,daemon,idle,ip,bird,zebra (some of them)'
	@echo 'make lint            format, clippy, docs, shell scripts, licences of dependencies'
	@echo 'sudo make clean-host remove what interrupted tests or KEEP=1 left behind'

build:
	@scripts/cargo build --release --locked

demo:
	@scripts/demo

test:
	@scripts/setup
	@scripts/test-rust
	@$(MAKE) --no-print-directory labs

# The labs use the debug build, with its overflow checks.
labs:
	@scripts/setup
	@[ -n "$$FRR_OFFLOAD" ] || scripts/cargo build --locked
	@FRR_OFFLOAD=$${FRR_OFFLOAD:-$${CARGO_TARGET_DIR:-target}/debug/frr-offload} tests/lab/run $(LABS)

test-full:
	@scripts/setup
	@scripts/test-rust
	@code=0; for tree in / $(FRR_TREES); do FRR_TREE=$$tree $(MAKE) --no-print-directory labs || code=1; done; exit $$code
	@scripts/cargo bench --locked --no-run
	@if [ -f fuzz/Cargo.toml ]; then scripts/cargo check --manifest-path fuzz/Cargo.toml; fi

bench:
	@scripts/setup bench
	@scripts/bench $(ROUTES)

lint:
	@scripts/lint

clean-host:
	@scripts/clean-host
