# Everything a developer runs, by one name each. `make help` lists it.

GO          ?= go
BIN         := bin/wgexpose
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X main.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# How long `make fuzz` spends on each target.
FUZZTIME ?= 10s
# What `make bench` is told: -quick, -only bulk,echo, -link, … (-help lists it).
BENCHFLAGS ?=
# Which benchmarks `make gobench` runs, and how often.
BENCH      ?= .
BENCHCOUNT ?= 1
# The systems that the code must build for, without cgo.
SYSTEMS := linux darwin windows

# Modules of their own, beside the main one.
MODULES := $(patsubst %/go.mod,%,$(wildcard */go.mod))

# A test that needs a program which is not there skips, unless this is 1.
export WGEXPOSE_REQUIRE_TOOLS

.DEFAULT_GOAL := help
.PHONY: help build man demo test race e2e e2e-faults e2e-faults-race bench bench-test gobench fuzz lint fmt

help: ## list these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/wgexpose
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/wgexpose

man: build ## write the manual pages to bin/man
	$(BIN) man bin/man

demo: build ## build, then run edge, agent and a web app on this machine
	$(BIN) demo

test: ## run the tests of the main module
	$(GO) test ./...

race: ## run the same tests under the race detector
	$(GO) test -race ./...

e2e: ## run the tests against real programs (ssh, curl, …), but for faults
	cd e2e && $(GO) test -timeout 15m -skip '^TestFaults$$' ./...

e2e-faults: ## break networks and processes in every way, and print the table (root; 45 min)
	cd e2e && WGEXPOSE_FAULTS=all $(GO) test -timeout 120m -count 1 -v -run '^TestFaults$$' .
	WGEXPOSE_STORM=500 $(GO) test -timeout 30m -count 1 -v -run '^TestStorm$$' ./internal/harness

e2e-faults-race: ## each of these faults once, under the race detector
	cd e2e && WGEXPOSE_E2E_RACE=1 $(GO) test -race -timeout 20m -count 1 -run '^TestFaults$$' .

bench: build ## measure against tun/netstack and plain TCP (BENCHFLAGS=-quick)
	cd bench && CGO_ENABLED=0 $(GO) build -o ../bin/bench .
	bin/bench $(BENCHFLAGS)

bench-test: ## run the tests of what measures
	cd bench && $(GO) test ./...

gobench: ## run the packages' own benchmarks (BENCH=regexp BENCHCOUNT=n)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCHCOUNT) ./...

fuzz: ## fuzz every target for FUZZTIME each (default 10s)
	@set -e; \
	for pkg in $$($(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' ./...); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$pkg"/*_test.go | awk '{print $$2}'); do \
			echo "fuzz $${pkg#$(CURDIR)/} $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg"; \
		done; \
	done

lint: ## gofmt, go vet for every system, staticcheck
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not gofmt'ed (make fmt):"; echo "$$files"; exit 1; fi
	@set -e; for os in $(SYSTEMS); do echo "vet $$os"; CGO_ENABLED=0 GOOS=$$os $(GO) vet ./...; done
	@set -e; for dir in $(MODULES); do echo "vet $$dir"; (cd $$dir && $(GO) vet ./...); done
	@set -e; for dir in . $(MODULES); do echo "staticcheck $$dir"; (cd $$dir && $(GO) run $(STATICCHECK) ./...); done

fmt: ## format the code
	gofmt -w .
