# Every command a person needs; `make` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENVS := $(or $(SLUICE_VENVS),$(CURDIR)/.venvs)
LOCKED := airflow dbt dbt-1.9 singer tap-postgres target-snowflake local test test-airflow lint browser audit
export PYTHONPATH := $(CURDIR)
export PYTHONDONTWRITEBYTECODE :=
PRODUCTION := airflow dbt singer tap-postgres target-snowflake
SOURCES = $(wildcard include/sources/*.yml)
# The sample's tests, where `make remove-shop` has not taken them away.
SHOP := $(wildcard tests/shop)
ADOPT := $(wildcard tests/shop/test_make_it_yours.py)
SCALE_OUT := $(wildcard tests/shop/test_scale_out.py)
PAGES := $(wildcard tests/shop/test_pages_in_airflow.py)
LINEAGE := $(wildcard tests/shop/test_lineage.py)
CHAOS_ONLY := $(addprefix tests/journeys/test_,dbt_tasks.py dbt_stress.py task_per.py) $(wildcard tests/shop/test_build_shop_changes.py)
GONE = $(error the sample shop was removed, and this test with it)
LOCAL := $(VENVS)/airflow/bin/python -m scripts.local
# Packages of the dbt project, where a fresh clone has none yet; git does not keep them.
DBT := $(or $(SLUICE_DBT_PROJECT),dbt)
PACKAGES = $(if $(wildcard $(DBT)/packages.yml $(DBT)/dependencies.yml),$(if $(wildcard $(DBT)/dbt_packages),,$(VENVS)/dbt/bin/dbt deps --quiet --project-dir $(DBT) --profiles-dir $(DBT)))
SBOM := $(or $(OUT),.local/sbom)
IF_INSTALLED := test -x $(VENVS)/airflow/bin/python || { echo "nothing is installed"; exit 0; };

.PHONY: adopt chaos scale-out lineage image-sizes help install demo up down status dbt pictures test test-pages check audit sbom image deploy new-source remove-shop source-schema edges edges-diff corpus build-changed bench-demo bench-graph bench-el bench-dbt bench-page lock clean

help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

install: ## Make the Python environments under .venvs/
	@scripts/install.sh $(PRODUCTION) local
	@$(PACKAGES)

demo: ## See the whole pipeline run on this machine; again: the shop's next day
	@began=$$(date +%s); $(MAKE) --no-print-directory install && $(LOCAL) demo --began $$began

up: install ## Start Airflow's UI, the source and the warehouse on this machine
	@$(LOCAL) up

down: ## Stop what `make up` started
	@$(IF_INSTALLED) $(LOCAL) down

status: ## Say what runs
	@$(IF_INSTALLED) $(LOCAL) status

dbt: ## Run dbt by hand, on make up's warehouse or an account's: ARGS="run --select fct_orders"
	@scripts/install.sh dbt
	@$(VENVS)/dbt/bin/python -m scripts.dbt_by_hand $(ARGS)

pictures: ## Take docs/images/ anew, of a shop that has lived for some days; about 15 minutes
	@scripts/install.sh $(PRODUCTION) local browser
	@$(VENVS)/browser/bin/python -m scripts.pictures --out docs/images

test: ## Run every test on real parts
	@scripts/install.sh $(LOCKED)
	@$(VENVS)/test/bin/python -m pytest $(SHOP) tests/journeys tests $(addprefix --ignore=,tests/dags $(CHAOS_ONLY) $(SCALE_OUT) $(LINEAGE) $(ADOPT) $(PAGES)) -n 2 --dist loadfile --no-loadscope-reorder
	@$(VENVS)/test-airflow/bin/python -m pytest tests/dags

chaos: ## Kill every part: POINTS=56 of a load, HISTORIES=90 of a table, KILLS=20 of dbt on MODELS=250; SEED=1
	@scripts/install.sh $(LOCKED)
	@SLUICE_EVERY_WAY=1 SLUICE_CHAOS_POINTS=$(or $(POINTS),56) SLUICE_HISTORIES=$(or $(HISTORIES),90) SLUICE_CHAOS_SEED=$(or $(SEED),1) \
		SLUICE_STRESS_MODELS=$(or $(MODELS),250) SLUICE_STRESS_KILLS=$(or $(KILLS),20) \
		$(VENVS)/test/bin/python -m pytest tests/journeys/test_kill_anywhere.py tests/journeys/test_any_history.py tests/test_dbt_equivalence.py $(wildcard tests/shop/test_shop_equivalence.py) tests/test_dbt_results.py $(CHAOS_ONLY)

scale-out: ## Run it on two Celery workers that share no disk, and kill one; needs redis-server
	@command -v redis-server >/dev/null || { echo "scale-out: no redis-server on the PATH; install it (Debian: redis-server)" >&2; exit 1; }
	@scripts/install.sh celery dbt singer tap-postgres target-snowflake local test
	@$(VENVS)/test/bin/python -m pytest $(or $(SCALE_OUT),$(GONE))

lineage: ## Run it with Airflow's OpenLineage provider, and look at the events
	@scripts/install.sh openlineage dbt singer tap-postgres target-snowflake local test
	@$(VENVS)/test/bin/python -m pytest $(or $(LINEAGE),$(GONE))

image-sizes: ## Do the Dockerfile's steps here, and tell what each adds and takes
	@scripts/install.sh airflow
	@$(VENVS)/airflow/bin/python -m scripts.image_sizes

adopt: ## Do what docs/make-it-yours.md says, from a clone to a DAG of another source, and an update
	@scripts/install.sh $(LOCKED)
	@$(VENVS)/test/bin/python -m pytest $(or $(ADOPT),$(GONE))

test-pages: ## Look at the pages in Airflow's UI with Chromium; about 5 minutes
	@scripts/install.sh $(PRODUCTION) local browser
	@$(VENVS)/browser/bin/python -m pytest $(or $(PAGES),$(GONE))

check: ## Lint, types, stale generated files
	@scripts/install.sh dbt lint test-airflow
	@$(PACKAGES)
	@$(VENVS)/lint/bin/ruff check .
	@$(VENVS)/lint/bin/ruff format --check .
	@$(VENVS)/lint/bin/mypy --python-executable $(VENVS)/test-airflow/bin/python
	@$(VENVS)/lint/bin/yamllint -s .
	@$(VENVS)/lint/bin/hadolint --ignore DL3066 Dockerfile deploy/kubernetes/Dockerfile
	@$(VENVS)/lint/bin/kubernetes-validate --strict --quiet deploy/kubernetes/settings.yaml deploy/kubernetes/pods/*.yaml
	@$(VENVS)/lint/bin/check-jsonschema -q --builtin-schema vendor.compose-spec docker-compose.override.yml
	@$(VENVS)/lint/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(VENVS)/lint/bin/check-jsonschema -q --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(VENVS)/lint/bin/check-jsonschema -q --builtin-schema vendor.circle-ci .circleci/config.yml
	@$(VENVS)/lint/bin/jactionlint --strict-exit --shellcheck $(VENVS)/lint/bin/shellcheck --pyflakes=
	@$(VENVS)/lint/bin/shellcheck scripts/*.sh .ci/run
	@$(if $(SOURCES),$(VENVS)/lint/bin/check-jsonschema -q --schemafile include/sources/source.schema.json $(SOURCES))
	@$(VENVS)/lint/bin/sqlfluff lint dbt
	@$(VENVS)/dbt/bin/python -m scripts.generate_edges --check

audit: ## Ask for known weaknesses of all locked packages; requirements/audit.yml says which are borne
	@scripts/install.sh audit
	@$(VENVS)/audit/bin/python -m scripts.audit

sbom: ## Write a CycloneDX bill of materials of each environment to OUT=.local/sbom/
	@scripts/install.sh audit
	@mkdir -p $(SBOM)
	@for name in $(or $(NAMES),$(basename $(notdir $(wildcard requirements/*.in)))); do \
		PYTHONWARNINGS=ignore $(VENVS)/audit/bin/cyclonedx-py requirements requirements/$$name.txt --output-reproducible \
			--pyproject pyproject.toml --sv 1.6 --output-file $(SBOM)/$$name.cdx.json || exit; \
	done

image: ## Build the image with Docker: TAG=sluice FILE=Dockerfile
	@command -v docker >/dev/null || { echo "image: no docker on the PATH; install Docker's engine, and see that it runs" >&2; exit 1; }
	@docker build --tag $(or $(TAG),sluice) --file $(or $(FILE),Dockerfile) .

deploy: ## Deploy to Astro, with its CLI: ASTRO_DEPLOYMENT_ID, and ASTRO_API_TOKEN or astro login
	@command -v astro >/dev/null || { echo "deploy: no astro on the PATH; install Astro's CLI, then run the same command again" >&2; exit 1; }
	@astro deploy $(ASTRO_DEPLOYMENT_ID)

new-source: ## Propose include/sources/NAME.yml from a Postgres: NAME=crm ARGS="--schema sales"
	@scripts/install.sh singer tap-postgres
	@$(VENVS)/singer/bin/python -m scripts.new_source $(if $(NAME),--name $(NAME)) $(ARGS)

remove-shop: ## Take the sample shop out of this clone; in a merge: what that brought of it
	@scripts/install.sh dbt
	@$(VENVS)/dbt/bin/python -m scripts.remove_shop
	@$(MAKE) --no-print-directory edges
	@git add --all dags/edges

source-schema: ## Write include/sources/source.schema.json, for editors
	@scripts/install.sh singer
	@$(VENVS)/singer/bin/python -m include.extract_load.source_schema

edges: ## Write dags/edges/ from the dbt project
	@scripts/install.sh dbt
	@$(PACKAGES)
	@$(VENVS)/dbt/bin/python -m scripts.generate_edges

corpus: ## Write tests/fixtures/manifests/ anew, with several versions of dbt
	@scripts/install.sh dbt
	@$(VENVS)/dbt/bin/python -m scripts.corpus --uv $(or $(shell command -v uv),$(VENVS)/uv/bin/uv)
	@$(VENVS)/dbt/bin/python -m scripts.generate_edges --project-dir tests/fixtures/every_kind --out tests/fixtures/every_kind_edges

edges-diff: ## Say as Markdown what changed in the schedules since REV=main
	@scripts/install.sh dbt
	@$(PACKAGES)
	@$(VENVS)/dbt/bin/python -m scripts.generate_edges --diff $(or $(REV),main)

build-changed: ## Build what dbt/ changes since REV=main, in schemas of its own that are dropped again
	@scripts/install.sh dbt $(if $(SNOWFLAKE_ACCOUNT),,singer target-snowflake local)
	@$(PACKAGES)
	@$(VENVS)/dbt/bin/python -m scripts.build_changed --since $(or $(REV),main) $(if $(SCHEMA),--schema $(SCHEMA))

bench-demo: ## Measure make demo in fresh clones, first and second run, medians of RUNS=3
	@scripts/bench_demo.sh $(or $(RUNS),3)

bench-graph: ## Measure edges and DAG imports beside dbt and Cosmos: SIZES="100 300", RUNS=3
	@scripts/install.sh dbt bench
	@$(VENVS)/dbt/bin/python -m scripts.bench.graph --runs $(or $(RUNS),3) $(if $(SIZES),--sizes $(SIZES))

bench-el: ## Measure extract and load beside Meltano and dlt: SIZES="1000 100000", RUNS=3
	@scripts/install.sh singer tap-postgres target-snowflake local bench-meltano bench-dlt
	@$(VENVS)/local/bin/python -m scripts.bench.extract_load --runs $(or $(RUNS),3) $(if $(SIZES),--sizes $(SIZES))

bench-dbt: ## Measure dbt in Airflow beside Cosmos and others: SIZES="20 100", RUNS=3, WAYS="floor warm"
	@scripts/install.sh airflow dbt local bench-cosmos
	@$(VENVS)/bench-cosmos/bin/python -m scripts.bench.dbt_runs --runs $(or $(RUNS),3) \
		$(if $(SIZES),--sizes $(SIZES)) $(if $(WAYS),--ways $(WAYS)) $(ARGS)

bench-page: ## Measure the Pipeline page in Airflow's API server: RUNS=3, ARGS="--nodes 250"
	@scripts/install.sh airflow dbt local
	@$(VENVS)/airflow/bin/python -m scripts.bench.page --runs $(or $(RUNS),3) $(ARGS)

lock: ## Write requirements/*.txt anew from requirements/*.in: ARGS=--upgrade, ARGS=--upgrade-package=requests
	@scripts/lock.sh $(ARGS) $(LOCKED) celery openlineage bench bench-cosmos bench-meltano bench-dlt

clean: down ## Remove the local databases, spools and logs
	@rm -rf .local
