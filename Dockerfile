# The Astro image, and the same environments as on a laptop, made by the same script.
# A tag without -base would copy the whole project before anything below, and so have each new model
# make every environment anew.
FROM astrocrpublic.azurecr.io/runtime:3.3-8-base
WORKDIR /usr/local/airflow

# What the other tags do by themselves: system packages, and below Airflow's own environment.
USER root
COPY packages.txt .
RUN /usr/local/bin/install-system-packages
RUN mkdir -p .local .venvs requirements scripts && chown astro:0 .local .venvs requirements scripts
USER astro

# A layer for each environment: a deploy sends those whose locked file has changed.
ENV SLUICE_COMPILE=1 UV_NO_CACHE=1
COPY --chown=astro:0 scripts/install.sh scripts/
COPY --chown=astro:0 requirements/tap-postgres.* requirements/
RUN scripts/install.sh tap-postgres
COPY --chown=astro:0 requirements/target-snowflake.* requirements/
RUN scripts/install.sh target-snowflake
COPY --chown=astro:0 requirements/singer.* requirements/
RUN scripts/install.sh singer
COPY --chown=astro:0 requirements/dbt.* requirements/
RUN scripts/install.sh dbt

# After them: one more provider for Airflow makes none of them anew.
USER root
COPY requirements.txt .
RUN /usr/local/bin/install-python-dependencies
USER astro

# How soon tasks follow each other: docs/tune.md. A variable of the deployment goes before these.
ENV AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME=0.25 AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL=2

# The project: all that a new model makes anew. Where dags/edges/ is stale there is no image.
COPY --chown=astro:0 . .
RUN .venvs/dbt/bin/python -m scripts.generate_edges --check
