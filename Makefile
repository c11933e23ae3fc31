# Every command installs what it needs (Debian; Rust is expected: https://rustup.rs).
CARGO = cargo
# For `make bench`: --only ROW, --runs N.
BENCH =
# For `make fuzz`: the compiler, which must be a nightly one, and the seconds for each target.
NIGHTLY ?= nightly
FUZZ_SECONDS = 60
# For `make install`: as root for all users, else where cargo puts programs, which is on PATH where Rust is.
PREFIX = $(if $(ROOT),/usr/local,$(or $(CARGO_HOME),$(HOME)/.cargo))
DESTDIR =
# For `make image`.
IMAGE = ghcr.io/mailferry/mailferry:$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# Tests that need Kubernetes. Of these, some mostly wait for it: many at a time, whatever the number of cores.
CLUSTER = $(filter chart gitops import monitoring,$(TESTS))
WAITING = $(filter operator e2e,$(TESTS))
# All others need mail servers, or nothing.
MAIL = $(filter-out $(CLUSTER) $(WAITING),$(TESTS))
TESTS = $(basename $(notdir $(wildcard tests/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs)))

ROOT = $(if $(filter 0,$(shell id -u)),root)

# Something for CAP_SYS_ADMIN.
ADMIN = $(shell [ $$((0x$$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) >> 21 & 1)) = 0 ] || echo 1)

# The end-to-end tests need a node: with a kubelet and the rights to run one (root's, CAP_SYS_ADMIN) none may be skipped.
# `make test E2E_REQUIRED=` lets them be.
KUBELET = $(if $(E2E_KUBECONFIG),,$(if $(KUBEBUILDER_ASSETS),$(wildcard $(KUBEBUILDER_ASSETS)/kubelet),built))
E2E_REQUIRED ?= $(if $(and $(ROOT),$(KUBELET)),$(ADMIN))
# Mail servers that run in namespaces of their own need that right, too.
SERVERS_REQUIRED ?= $(if $(ROOT),$(ADMIN))

# Runs tests so that one without an end is named and ends after so many seconds. An end-to-end test may wait for others.
LIMITED = TEST_LIMIT=$(1) $(CARGO) --config "target.'cfg(all())'.runner='$(CURDIR)/scripts/with-time-limit.sh'" test

.PHONY: help install test lint test-mail test-servers test-cluster image archive chart readme rustdoc docs deny fuzz demo demo-cluster bench bench-operator

help:
	@echo 'make install   builds mailferry and puts it into $(PREFIX)/bin, manual pages and completions below share/; PREFIX= names another place'
	@echo 'make test    all tests and checks'
	@echo 'make lint    formatting and clippy'
	@echo 'make test-mail      the tests that need no Kubernetes: units, and against mail servers'
	@echo 'make test-servers   between every two of several mail servers; make test-mail has those with Dovecot'
	@echo 'make test-cluster   the tests that need Kubernetes: operator, chart, monitoring; as root, with a node of its own'
	@echo 'make rustdoc the documentation of the code, without a warning'
	@echo 'make docs    writes crds/ and docs/fields.md anew, and what the chart takes from them'
	@echo 'make chart   writes what the Helm chart takes from elsewhere: definitions, policies, the table of its values'
	@echo 'make deny    licences, sources and known vulnerabilities of the dependencies'
	@echo 'make fuzz    gives any bytes to the parsers, a minute each (with a nightly Rust)'
	@echo 'make image   builds the container image without a registry, and checks it (Linux, as root)'
	@echo 'make archive builds the program that needs no library, and packs it as releases have it (Linux)'
	@echo 'make demo    moves a mailbox between two local mail servers and compares both sides'
	@echo 'make demo-cluster   the same by the operator, on a Kubernetes that runs for as long as it takes (as root)'
	@echo 'make bench   measures against mbsync and a plain copier, writes docs/benchmarks.md'
	@echo 'make bench-operator   measures the operator with ten thousand mailboxes, writes docs/benchmarks-operator.md'

install:
	scripts/install.sh build
	scripts/build.sh
	install -D -m 755 $(or $(CARGO_TARGET_DIR),target)/release/mailferry $(DESTDIR)$(PREFIX)/bin/mailferry
	scripts/install-plugin.sh $(DESTDIR)$(PREFIX)/bin
	scripts/install-help.sh $(or $(CARGO_TARGET_DIR),target)/release/mailferry $(DESTDIR)$(PREFIX)/share
	@echo 'installed $(DESTDIR)$(PREFIX)/bin/mailferry'
	@case :$$PATH: in *:$(PREFIX)/bin:*) ;; *) echo '$(PREFIX)/bin is not in your PATH' ;; esac

test: lint test-mail test-cluster readme rustdoc deny

lint:
	scripts/install.sh lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

test-mail:
	scripts/install.sh mail servers
	scripts/mail-servers.sh
	SERVERS_REQUIRED=$(SERVERS_REQUIRED) $(call LIMITED,600) --workspace --locked --no-fail-fast --lib --bins $(patsubst %,--test %,$(MAIL))
	$(call LIMITED,600) --workspace --locked --doc

test-servers:
	scripts/install.sh servers
	scripts/mail-servers.sh
	SERVERS_REQUIRED=$(SERVERS_REQUIRED) $(call LIMITED,600) --workspace --locked --test servers -- --include-ignored

# As root the end-to-end tests run, with the image that is shipped.
test-cluster: $(ROOT:root=image)
	scripts/install.sh cluster
	scripts/kubernetes.sh
	$(call LIMITED,600) --workspace --locked --no-fail-fast $(patsubst %,--test %,$(CLUSTER))
	$(ROOT:root=E2E_ARCHIVE=$(CURDIR)/target/image/mailferry.tar) E2E_REQUIRED=$(E2E_REQUIRED) RUST_TEST_THREADS=12 \
	  $(call LIMITED,1500) --workspace --locked --no-fail-fast $(patsubst %,--test %,$(WAITING))

image:
	scripts/install.sh image
	scripts/image.sh $(IMAGE) target/image/mailferry.tar
	scripts/check-image.sh target/image/mailferry.tar

# What a release offers for download, and that it starts where nothing else is.
archive:
	scripts/install.sh dist
	rm -rf target/archive
	scripts/dist.sh target/archive/root
	scripts/archive.sh target/archive/root target/archive
	scripts/check-archive.sh target/archive/mailferry-*.tar.gz

chart:
	MAILFERRY_WRITE=yes $(CARGO) test --workspace --locked --test chart generated

# By way of a test: `cargo build` would build the dependencies again, without what tests add to their features.
readme:
	$(CARGO) test --workspace --locked --no-run --test manifests
	scripts/check-readme.sh

# Of private items too: it is for those who work on the code. What rustdoc complains of are links to nowhere, above all.
rustdoc:
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --workspace --no-deps --document-private-items --locked

docs:
	$(CARGO) test --workspace --locked --no-run --test crds
	target/debug/mailferry crds --write crds
	MAILFERRY_WRITE=yes $(CARGO) test --workspace --locked --test crds the_page_of_fields_is_fresh
	MAILFERRY_WRITE=yes $(CARGO) test --workspace --locked --test it the_published_schemas_are_fresh
	MAILFERRY_WRITE=yes $(CARGO) test --workspace --locked --test servers the_table_of_pairs_is_fresh
	$(MAKE) chart

deny:
	scripts/install.sh deny
	scripts/deny.sh

# With the dependencies that are shipped.
fuzz:
	scripts/install.sh fuzz
	cp Cargo.lock fuzz/Cargo.lock
	for target in $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))); do \
	  $(CARGO) +$(NIGHTLY) fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=20 || exit 1; \
	done

demo:
	scripts/demo.sh

demo-cluster:
	scripts/demo-cluster.sh

bench:
	scripts/install.sh bench
	$(CARGO) bench --profile dist --locked --bench migrate -- $(BENCH)

bench-operator:
	scripts/install.sh cluster
	scripts/kubernetes.sh
	$(CARGO) bench --profile dist --locked --bench scale -- $(BENCH)
