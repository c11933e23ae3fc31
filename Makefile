# Every command installs what it needs (Debian; Rust is expected: https://rustup.rs).
CARGO = cargo
# For `make bench`: --only ROW, --runs N.
BENCH =
# For `make image`.
IMAGE = ghcr.io/mailferry/mailferry:$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# Tests that mostly wait for a cluster: many at a time, whatever the number of cores. All others are busy.
WAITING = $(filter operator e2e,$(TESTS))
BUSY = $(filter-out $(WAITING),$(TESTS))
TESTS = $(basename $(notdir $(wildcard tests/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs)))

ROOT = $(if $(filter 0,$(shell id -u)),root)

# The end-to-end tests need a node: with a kubelet and the rights to run one (root's, CAP_SYS_ADMIN) none may be skipped.
# `make test E2E_REQUIRED=` lets them be.
KUBELET = $(if $(E2E_KUBECONFIG),,$(if $(KUBEBUILDER_ASSETS),$(wildcard $(KUBEBUILDER_ASSETS)/kubelet),built))
E2E_REQUIRED ?= $(if $(and $(ROOT),$(KUBELET)),$(shell [ $$((0x$$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) >> 21 & 1)) = 0 ] || echo 1))

# Runs tests so that one without an end is named and ends after so many seconds. An end-to-end test may wait for others.
LIMITED = TEST_LIMIT=$(1) $(CARGO) --config "target.'cfg(all())'.runner='$(CURDIR)/scripts/with-time-limit.sh'" test

.PHONY: help test lint cargo-test image chart readme docs deny demo demo-cluster bench bench-operator

help:
	@echo 'make test    all tests and checks'
	@echo 'make lint    formatting and clippy'
	@echo 'make docs    writes crds/ and docs/fields.md anew, and what the chart takes from them'
	@echo 'make chart   writes what the Helm chart takes from elsewhere: definitions, policies, the table of its values'
	@echo 'make deny    licences, sources and known vulnerabilities of the dependencies'
	@echo 'make image   builds the container image without a registry, and checks it (Linux, as root)'
	@echo 'make demo    moves a mailbox between two local mail servers and compares both sides'
	@echo 'make demo-cluster   the same by the operator, on a Kubernetes that runs for as long as it takes (as root)'
	@echo 'make bench   measures against mbsync and a plain copier, writes docs/benchmarks.md'
	@echo 'make bench-operator   measures the operator with ten thousand mailboxes, writes docs/benchmarks-operator.md'

test: lint cargo-test readme deny

lint:
	scripts/install.sh test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# As root the end-to-end tests run, with the image that is shipped.
cargo-test: $(ROOT:root=image)
	scripts/install.sh test
	scripts/kubernetes.sh
	$(call LIMITED,600) --workspace --locked --no-fail-fast --lib --bins $(patsubst %,--test %,$(BUSY))
	$(call LIMITED,600) --workspace --locked --doc
	$(ROOT:root=E2E_ARCHIVE=$(CURDIR)/target/image/mailferry.tar) E2E_REQUIRED=$(E2E_REQUIRED) RUST_TEST_THREADS=12 \
	  $(call LIMITED,1500) --workspace --locked --no-fail-fast $(patsubst %,--test %,$(WAITING))

image:
	scripts/install.sh image
	scripts/image.sh $(IMAGE) target/image/mailferry.tar
	scripts/check-image.sh target/image/mailferry.tar

chart:
	MAILFERRY_WRITE=yes $(CARGO) test --workspace --locked --test chart generated

# By way of a test: `cargo build` would build the dependencies again, without what tests add to their features.
readme:
	$(CARGO) test --workspace --locked --no-run --test manifests
	scripts/check-readme.sh

docs:
	$(CARGO) test --workspace --locked --no-run --test crds
	target/debug/mailferry crds --write crds
	MAILFERRY_WRITE=yes $(CARGO) test --workspace --locked --test crds the_page_of_fields_is_fresh
	$(MAKE) chart

deny:
	scripts/install.sh deny
	scripts/deny.sh

demo:
	scripts/demo.sh

demo-cluster:
	scripts/demo-cluster.sh

bench:
	scripts/install.sh bench
	$(CARGO) bench --locked --bench migrate -- $(BENCH)

bench-operator:
	scripts/install.sh test
	scripts/kubernetes.sh
	$(CARGO) bench --locked --bench scale -- $(BENCH)
