# Every command of the project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two processes: one runs the tests with the shared Kafka and Flink, the other the rest (tests/conftest.py groups them).
PARALLEL := --numprocesses=2 --dist=loadscope --no-loadscope-reorder
PEERS := tests/benchmarks/peers/requirements

.PHONY: help setup run demo test test-quick test-random test-hostile test-rules test-groups test-faults test-health test-docs test-kafka-security test-lost-state test-java test-newest-beam test-dist test-image test-terraform test-infra check format readme dashboards connectors release dist image audit infra-tools infra-tools-long bench bench-growth bench-job bench-ledger bench-misses bench-state bench-webhooks lock lock-jars lock-bench clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything the lock file names

$(STAMP): requirements/lock.txt requirements/installer.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python %d.%d found, 3.11 to 3.13 is needed; set PYTHON=…" % sys.version_info[:2])'
	@echo "Setting up $(VENV) (the first time it downloads about 200 MB)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/installer.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/lock.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

run: setup ## run the main job on its embedded default: bundled events, sample rules
	@$(BIN)/python -m pipeline --config=/dev/null $(ARGS)

demo: setup ## real Kafka and Flink on this machine with a load generator; Ctrl-C stops everything (RATE=200 MONITORING=1)
	@$(BIN)/python -m pipeline demo --rate=$(or $(RATE),200) $(if $(MONITORING),--monitoring) $(ARGS)

test: infra-tools setup test-java ## every test, with real Kafka and Flink where needed (Java 17, Maven, Terraform 1.11, kubectl 1.27)
	@$(BIN)/python -m pytest $(PARALLEL) --ignore=tests/docs/long --ignore=tests/health --ignore=tests/infra/plans --ignore=tests/integration/long --ignore=tests/packages/long --ignore=tests/image/long $(ARGS)

test-quick: setup ## in a minute and without Java: the tests of pipeline, transforms and runners that start no cluster and take no long
	@$(BIN)/python -m pytest $(PARALLEL) --hypothesis-profile=quick -m "not stack and not browser and not slow" tests/pipeline tests/runners tests/transforms $(ARGS)

test-random: setup ## hypothesis with other examples in each run, and all of them; what fails is printed so that it can be repeated
	@$(BIN)/python -m pytest $(PARALLEL) --hypothesis-profile=random -m "hypothesis and not stack" tests/pipeline tests/transforms $(ARGS)

test-hostile: setup ## 10,000 random edits of rules, records and answers, where `make test` tries 300
	@$(BIN)/python -m pytest tests/hostile --hostile_seeds=10000 --timeout=7200 $(ARGS)

test-rules: setup ## 100,000 random events of 1,000 users: what rules do, also through two kills on real Kafka and Flink, equals an oracle written from docs/rules.md
	@$(BIN)/python -m pytest tests/rules_oracle tests/integration/long/test_rules_oracle.py --oracle_events=100000 --timeout=14400 -s $(ARGS)

test-groups: setup ## 200,000 random events of 2,000 users: what groups pick, cap and suppress equals a model written from docs/rules.md, also on real Kafka and Flink
	@$(BIN)/python -m tests.transforms.domain.shard.test_groups_oracle
	@$(BIN)/python -m pytest tests/integration/long/test_groups_oracle.py --oracle_events=200000 --timeout=14400 -s $(ARGS)

test-faults: setup ## every fault on real Kafka, Flink with HA, S3; over an hour; writes docs/reliability.md (ARGS=--faults_seed=...)
	@$(BIN)/python -m pytest tests/faults --every_fault --faults_results=docs/measurements/faults.json $(ARGS)
	@$(BIN)/python -m tests.faults.report

test-health: setup ## each trouble of a job on real Kafka and Flink: verdict, cause, exit code; minutes; writes docs/measurements/health.md
	@$(BIN)/python -m pytest tests/health $(ARGS)

test-docs: setup ## what README and docs/ show, also what takes long: the demo, commands on a real Kafka
	@$(BIN)/python -m pytest tests/docs tests/test_readme.py $(ARGS)

test-kafka-security: setup ## a job, commands and the page on brokers with TLS, SCRAM, client certificates and ACLs; looks for secrets; 10 minutes
	@$(BIN)/python -m pytest tests/integration/long/test_kafka_security.py tests/integration/long/test_wrong_credentials.py $(ARGS)

test-lost-state: setup ## last week's savepoint, deleted objects of a checkpoint, a lost region: the commands of docs/incidents.md on a real job and moto's S3
	@$(BIN)/python -m pytest tests/integration/long/test_state_lost.py $(ARGS)

test-java: ## the connectors' own tests
	@command -v mvn >/dev/null || { echo "mvn not found: the connectors need Maven and Java 17"; exit 1; }
	@echo "Connectors: mvn verify"
	@mvn -q -B -f runners/flink/connectors/pom.xml verify

test-newest-beam: setup ## tests on the newest Beam that installs, and the main job on a real Flink with it; half an hour; writes docs/newest-beam.md
	@$(BIN)/python -m tests.newest_beam

test-dist: setup ## what `make dist` builds, installed elsewhere with each Python found, and launching on a Flink; writes docs/measurements/packages.md
	@$(BIN)/python -m pytest tests/packages $(ARGS)

test-image: image ## the main job in containers of `make image`, a killed TaskManager; root and podman; writes docs/measurements/image.md
	@$(BIN)/python -m pytest tests/image $(ARGS)

test-terraform: infra-tools setup ## the cluster's tests: Terraform with a mocked provider, a change of each input, what its nodes are given, Prometheus on alerts
	@$(BIN)/python -m pytest tests/infra $(ARGS)

test-infra: infra-tools-long setup ## the cluster's Terraform against moto, a real boot of its nodes; root, 20 minutes; writes docs/infrastructure-test.md
	@$(BIN)/python -m tests.infra.long $(ARGS)

infra-tools: ## have what tests of infra/ and the page need: Terraform, kubectl, shellcheck, cloud-init, Prometheus, Chromium; as root it installs Debian's packages
	@$(PYTHON) -m tests.infra.tools

infra-tools-long:
	@$(PYTHON) -m tests.infra.tools --long

check: setup ## formatting, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

readme: setup ## write the tables of options, metrics and Terraform inputs into README and docs, and the JSON Schemas
	@$(BIN)/python -m tests.readme
	@$(BIN)/python -m infra.readme

dashboards: setup ## draw docs/images/dashboard-*.png: the dashboards' panels over eight minutes of a real job (ARGS=--again)
	@$(BIN)/python -m tests.dashboards $(ARGS)

connectors: setup ## build the Flink connectors; prints where the jars lie
	@$(BIN)/python -m runners.flink.artifacts

dist: setup ## sdist, wheel, a wheel with the connectors' jars, the lock and checksums, in dist/; the same files for the same commit
	@$(BIN)/python -m infra.packages $(ARGS)

image: setup ## an image for all roles, in build/image, as podman and docker load it; root; installs Debian's mmdebstrap and buildah
	@$(PYTHON) -m tests.infra.tools --image
	@$(BIN)/python -m infra.image $(ARGS)

release: setup ## the artifacts that the nodes of a cluster boot with, in build/release (ARGS=--jar=... for more in lib/)
	@$(BIN)/python -m infra.release $(ARGS)

audit: setup ## known vulnerabilities of what the last release holds; says so if the database cannot be reached
	@$(BIN)/python -m infra.release.audit $(ARGS)

bench: setup ## this pipeline beside PyFlink, Quix Streams and a plain loop: tables, JSON, plots; over an hour, resumes (ARGS=--help)
	@$(BIN)/python -W ignore -m tests.benchmarks.peers $(ARGS)

bench-growth: setup ## how the cost of an event grows with users, history, rules, linger, bundles, slots; two hours, resumes (ARGS=--help)
	@$(BIN)/python -W ignore -m tests.benchmarks.growth $(ARGS)

bench-job: setup ## measure throughput, CPU per event and latency of the pipeline alone
	@$(BIN)/python -W ignore -m tests.benchmarks.main_job $(ARGS)

bench-ledger: setup ## measure what a ledger of deliveries costs webhooks: rate, CPU, latency; some minutes (ARGS=--write)
	@$(BIN)/python -W ignore -m tests.benchmarks.ledger $(ARGS)

bench-misses: setup ## measure what a new user costs a worker, also beside an earlier commit (ARGS="--before FOLDER")
	@$(BIN)/python -W ignore -m tests.benchmarks.misses $(ARGS)

bench-state: setup ## measure users in state: size, isolation from misses, a job's first new users, heavy users
	@$(BIN)/python -W ignore -m tests.benchmarks.user_state $(ARGS)

bench-webhooks: setup ## measure calls a second and CPU a call of webhooks, against plain urllib3
	@$(BIN)/python -W ignore -m tests.benchmarks.webhooks

lock: setup ## resolve requirements/*.txt anew
	@echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-emit-find-links --no-emit-index-url --custom-compile-command "make lock" - -o requirements/installer.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-find-links --no-emit-index-url --custom-compile-command "make lock" --extra dev pyproject.toml -o requirements/lock.txt
	@$(BIN)/python -m infra.release.requirements | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-find-links --no-emit-index-url --custom-compile-command "make lock" -c requirements/lock.txt - -o requirements/runtime.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-find-links --no-emit-index-url --custom-compile-command "make lock" -c requirements/lock.txt --extra ui --extra plot pyproject.toml -o requirements/all-extras.txt
	@echo setuptools | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-emit-find-links --no-emit-index-url --custom-compile-command "make lock" - -o requirements/build.txt

lock-jars: setup ## write the list of the jars that may come from a Maven repository anew
	@$(BIN)/python -m infra.release.jars

lock-bench: setup ## resolve the environments of the benchmark's peers anew
	@for name in pyflink quix plain; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-find-links --no-emit-index-url --custom-compile-command "make lock-bench" --override $(PEERS)/overrides.txt $(PEERS)/$$name.in -o $(PEERS)/$$name.txt || exit 1; done

clean: ## remove what was built here; the download cache stays
	@rm -rf $(VENV) build dist ./*.egg-info runners/flink/connectors/target .mypy_cache .pytest_cache .ruff_cache .hypothesis
