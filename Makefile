# What people type. Everything that needs namespaces needs root: sudo make demo, sudo make test.
# Cargo then still runs as the one who called sudo. What is missing is installed by apt.

.PHONY: help build deb demo demo-offload test labs test-vm test-package test-docker test-grpc test-full bench lint clean-host

help:
	@echo 'make build           release build'
	@echo 'make deb             Debian package of the release build, in target/deb'
	@echo 'sudo make demo       three routers with real FRR, our daemon on one; KEEP=1 leaves them up'
	@echo 'sudo make demo-offload  the same story with a switch that forwards in hardware, simulated in a VM'
	@echo 'sudo make test       all tests and labs, and the package (without sudo: those that need no root)'
	@echo 'sudo make labs       only the labs: all with FRR 10.3, some with 8.4 and the newest;'
	@echo '                     LABS="[SUITE/]NAME ..." for some, JOBS=1 to watch'
	@echo 'sudo make test-vm    what needs another kernel, in one VM: VRF, a simulated switch; VM="NAME ..." for some'
	@echo 'sudo make test-package  the package of the debug build: lintian; installed, upgraded, removed and purged in'
	@echo '                     clean Debian 12 and 13 that boot (part of test)'
	@echo 'sudo make test-docker  the compose lab of docker/, on an engine that runs or on one of its own'
	@echo 'sudo make test-grpc  routes over gRPC: labs with FRR 10.3 and the gRPC module, built for them the first time'
	@echo '                     (some minutes; part of test-full)'
	@echo 'sudo make test-full  tests, all labs with all three FRR and the restarts as often as before'
	@echo '                     a release, benches and fuzz targets built'
	@echo 'sudo make bench      routes into the kernel beside the raw limit, ip, BIRD and zebra; ROUTES=N, RUNS=N;'
	@echo '                     quicker with ONLY=ceiling,daemon,idle,answers,ip,bird,zebra (some of them)'
	@echo 'make lint            format, clippy, docs, shell scripts, licences and sources of dependencies'
	@echo 'sudo make clean-host remove what interrupted tests or KEEP=1 left behind'

build:
	@scripts/cargo build --release --locked

deb:
	@scripts/setup deb
	@scripts/deb

demo:
	@scripts/demo

demo-offload:
	@scripts/setup vm
	@[ -n "$$FRR_OFFLOAD" ] || scripts/cargo build --locked
	@tests/vm/run demo-offload

test:
	@scripts/setup
	@code=0; \
		tests/setup/run || code=1; \
		scripts/test-rust || code=1; \
		$(MAKE) --no-print-directory labs || code=1; \
		$(MAKE) --no-print-directory test-package || code=1; \
		$(MAKE) --no-print-directory test-vm || code=1; \
		exit $$code

# The labs use the debug build, with its overflow checks. FRR comes from cached root file systems,
# which scripts/frr-tree makes.
labs:
	@scripts/setup
	@[ -n "$$FRR_OFFLOAD" ] || scripts/cargo build --locked
	@FRR_OFFLOAD=$${FRR_OFFLOAD:-$${CARGO_TARGET_DIR:-target}/debug/frr-offload} tests/lab/run $(LABS)

# What the kernel of this machine may lack, in one boot of a VM which tests/vm makes.
test-vm:
	@scripts/setup vm
	@[ -n "$$FRR_OFFLOAD" ] || scripts/cargo build --locked
	@tests/vm/run $(VM)

test-package:
	@scripts/setup deb
	@[ -n "$$FRR_OFFLOAD" ] || scripts/cargo build --locked
	@tests/package/run $(SUITES)

# A fresh lab. Passed over, and said, where there is no engine and none can be started.
test-docker:
	@scripts/setup docker || true
	@[ -n "$$FRR_OFFLOAD" ] || scripts/cargo build --locked
	@export FRR_OFFLOAD=$${FRR_OFFLOAD:-$${CARGO_TARGET_DIR:-target}/debug/frr-offload}; \
		docker/lab down && docker/lab test || \
		{ code=$$?; [ $$code = 77 ] && echo 'SKIP  docker           the compose lab: see above' || exit $$code; }

# FRR's gRPC module is built once, by scripts/grpc-module. Passed over, and said, where that can't be.
test-grpc:
	@$(MAKE) --no-print-directory labs LABS=grpc/all

test-full:
	@scripts/setup
	@seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "PROPTEST_RNG_SEED=$$seed"; \
		PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=4000 scripts/test-rust
	@KILLS=20 ZEBRA_KILLS=10 FRR_RESTARTS=3 LAB_SECONDS=1200 \
		$(MAKE) --no-print-directory labs LABS='bookworm/all trixie/all sid/all grpc/all'
	@DIFFERENCE_SEED=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ') DIFFERENCE_PACKETS=1000000 DIFFERENCE_STEPS=400 LAB_SECONDS=7200 \
		$(MAKE) --no-print-directory test-vm VM=all
	@scripts/cargo bench --locked --no-run
	@if [ -f fuzz/Cargo.toml ]; then scripts/cargo check --manifest-path fuzz/Cargo.toml; fi

bench:
	@scripts/setup bench
	@scripts/bench $(ROUTES)

lint:
	@scripts/lint

clean-host:
	@scripts/clean-host
