# torno: every target that people use carries a "##" help line.

SHELL       := /bin/bash
GO          ?= go
export CGO_ENABLED = 0
export GOFLAGS     = -buildvcs=false

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS      = -s -w -X main.version=$(VERSION)
FUZZTIME    ?= 10s
CACHE       := $(CURDIR)/.cache
GOLANGCI     = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.7.2

.PHONY: help build demo images test test-vm test-clients test-docker test-systemd dist test-dist bench soak fuzz lint race notice clean deps client-deps

help: ## show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/torno, bin/torno-guest and bin/torno-plugin-*
	$(GO) build -trimpath -ldflags='$(LDFLAGS)' -o bin/torno ./host
	$(GO) build -trimpath -ldflags='$(LDFLAGS)' -o bin/torno-guest ./guest
	@for p in plugins/*/; do $(GO) build -trimpath -ldflags='$(LDFLAGS)' -o bin/torno-plugin-$$(basename $$p) ./$$p || exit 1; done

deps: ## install what the demo and the tests need (apt, root or sudo), or say what is missing
	@.ci/deps

client-deps: deps ## install the real clients that the tests drive, under .cache
	@.ci/client-deps $(CACHE)

images: deps build ## get the VM's kernel and build its base image, where they are not there
	@bin/torno image build --if-missing

demo: deps build ## show the main job on this machine, end to end
	@bin/torno demo

test: deps client-deps images ## run every test: unit, fuzz (3 s each), scripts, attacks, real clients, VMs
	$(GO) vet ./...
	$(GO) test -timeout 40m ./...
	$(GO) -C .ci/tools/dist test ./...
	@$(MAKE) --no-print-directory fuzz FUZZTIME=3s
	$(GO) run ./.ci/notice -check

test-vm: client-deps images ## boot real VMs: missions, attacks from inside, the search of their memory
	$(GO) test -count=1 -timeout 15m -run 'TestVM' -v ./host

test-clients: client-deps build ## run the real clients alone (curl, git, Python, Node, claude)
	$(GO) test -count=1 -timeout 15m -run 'TestClient' -v ./host

dist: ## make deb, rpm and tar.gz for amd64 and arm64 in dist/, with SBOM and checksums, the same bytes each time
	$(GO) -C .ci/tools/dist run . -root $(CURDIR) -out $(CURDIR)/dist -version $(VERSION)

test-dist: deps ## build the packages twice; install, use, upgrade and remove them in root file systems (root; minutes)
	@.ci/deps dist
	TORNO_DIST=1 $(GO) -C .ci/tools/dist test -count=1 -timeout 40m -v ./...

test-docker: images ## run dockerd in a VM (builds an image of 600 MB; takes minutes)
	bin/torno image build --if-missing --name docker --include docker.io --include iptables
	TORNO_DOCKER=1 $(GO) test -count=1 -timeout 15m -run 'TestVMRootDocker' -v ./host

test-systemd: images ## run torno's units in a VM that systemd runs, and set its clock (builds an image of 330 MB; takes minutes)
	bin/torno image build --if-missing --name systemd --include systemd-sysv
	TORNO_SYSTEMD=1 $(GO) test -count=1 -timeout 15m -run 'TestVMSystemd' -v ./host

fuzz: ## fuzz every decoder for FUZZTIME each (default 10s)
	@.ci/fuzz $(FUZZTIME)

race: ## run the tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./...

bench: build ## measure the path beside nginx and httputil.ReverseProxy (root, nginx); BENCH=-quick for two minutes
	$(GO) build -trimpath -o bin/torno-bench ./bench
	bin/torno-bench $(BENCH)

soak: build ## hold the broker to what is promised under load and in trouble (root; half an hour); SOAK="-for 1m -kills 20"
	$(GO) build -trimpath -o bin/torno-bench ./bench
	cd .ci/tools/slowfs && $(GO) build -trimpath -o $(CURDIR)/bin/slowfs .
	bin/torno-bench soak $(SOAK)

lint: ## run golangci-lint with the list in .golangci.yml
	$(GO) run $(GOLANGCI) run ./...

notice: ## regenerate NOTICE from the modules that the binaries link
	$(GO) run ./.ci/notice

clean: ## remove what was built
	rm -rf bin dist .cache
