# The Astro image, and the same environments as on a laptop, made by the same script.
FROM astrocrpublic.azurecr.io/runtime:3.3-8

# The environments change seldom: they come before the project, so a new model rebuilds in seconds.
USER root
COPY --chown=astro:0 requirements/ /usr/local/airflow/requirements/
COPY --chown=astro:0 scripts/install.sh /usr/local/airflow/scripts/install.sh
RUN mkdir -p /usr/local/airflow/.venvs && chown astro:0 /usr/local/airflow/.venvs
USER astro
ENV SLUICE_COMPILE=1
RUN /usr/local/airflow/scripts/install.sh dbt singer tap-postgres target-snowflake

COPY --chown=astro:0 . /usr/local/airflow/
