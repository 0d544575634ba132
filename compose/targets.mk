# Targets that need Docker, and those that need a cluster. The Makefile includes this file.
#   make up SIMULATOR=1      with a stand-in for Safaricom
#   make down VOLUMES=1      forget the data too
#   make logs SERVICE=api    one service only
# An image that exists already: GATEWAY_IMAGE=registry.example.com/mpesa-gateway:1.2.3 make up

SIMULATOR  ?=
VOLUMES    ?=
SERVICE    ?=

COMPOSE = docker compose
ifneq ($(SIMULATOR),)
export COMPOSE_PROFILES := simulator
endif
# `down`, `ps` and `logs` mean every container of ours, whatever `up` was asked for.
EVERY = COMPOSE_PROFILES=simulator $(COMPOSE)
IMAGE = $(or $(GATEWAY_IMAGE),mpesa-gateway:dev)
# Evaluated only where they are used.
VERSION  = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# In one sentence, what is missing; silent when nothing is.
NEEDS_DOCKER = \
  command -v docker >/dev/null || { echo "Docker is needed and was not found: https://docs.docker.com/get-docker/ (without it, try 'make demo')."; exit 1; }; \
  docker version >/dev/null 2>&1 || { echo "Docker is installed, but its engine does not answer: start it, or set DOCKER_HOST."; exit 1; }
NEEDS_COMPOSE = $(NEEDS_DOCKER); \
  $(COMPOSE) version >/dev/null 2>&1 || { echo "Docker's plug-in 'docker compose' is needed and was not found: https://docs.docker.com/compose/install/"; exit 1; }; \
  test -f .env || { echo "There is no .env yet: run 'make setup' first."; exit 1; }

.PHONY: setup
setup: ## Write .env with generated secrets (an existing one stays)
	@./scripts/setup
	@command -v docker >/dev/null || echo "Docker was not found; 'make up' will need it: https://docs.docker.com/get-docker/"

.PHONY: up
up: ## Start API (8081), worker, Postgres (5433), Redis (6380); SIMULATOR=1 needs no Safaricom account
	@$(NEEDS_COMPOSE)
ifeq ($(GATEWAY_IMAGE),)
	@$(MAKE) --no-print-directory image
endif
	@$(COMPOSE) up --detach --no-build --wait --wait-timeout 180
	@./scripts/after-up

.PHONY: restart
restart: ## Restart API and worker with the settings of .env (SIMULATOR=1 as with up)
	@$(NEEDS_COMPOSE)
	@$(COMPOSE) up --detach --no-build --wait --wait-timeout 180 --force-recreate --no-deps $(or $(SERVICE),api worker)

.PHONY: down
down: ## Stop everything; the data stays (VOLUMES=1 removes it)
	@$(NEEDS_COMPOSE)
	@$(EVERY) down --remove-orphans $(if $(VOLUMES),--volumes)
	@$(if $(VOLUMES),true,echo "The payments stay in Docker's volumes; 'make down VOLUMES=1' removes them.")

.PHONY: ps
ps: ## What runs
	@$(NEEDS_COMPOSE)
	@$(EVERY) ps --all

.PHONY: logs
logs: ## Follow the logs (SERVICE=api for one)
	@$(NEEDS_COMPOSE)
	@$(EVERY) logs --follow --tail 100 $(SERVICE)

.PHONY: shell-api
shell-api: ## A shell in the API's container
	@$(NEEDS_COMPOSE)
	@$(COMPOSE) exec $$(test -t 0 || echo --no-TTY) api sh

.PHONY: shell-db
shell-db: ## psql in the database
	@$(NEEDS_COMPOSE)
	@$(COMPOSE) exec $$(test -t 0 || echo --no-TTY) postgres \
	  sh -c 'PGPASSWORD=$$POSTGRES_PASSWORD exec psql --host=127.0.0.1 --username=mpesa mpesa_gateway'

.PHONY: image
image: ## Build the image (GATEWAY_IMAGE names it, BASE_IMAGE its base)
	@$(NEEDS_DOCKER)
	@docker build --tag $(IMAGE) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(DOCKER_BUILD_FLAGS) .

.PHONY: chart
chart: ## Lint the Helm chart and package it into dist/
	@command -v helm >/dev/null || { echo "Helm is needed and was not found: https://helm.sh/docs/intro/install/"; exit 1; }
	@helm lint --strict charts/mpesa-gateway
	@helm package --destination dist charts/mpesa-gateway

.PHONY: e2e
e2e: $(VENV)/.dev ## Image, chart, operator, Compose and cluster tests (on kind, or the cluster in KUBECONFIG)
	@./scripts/e2e
