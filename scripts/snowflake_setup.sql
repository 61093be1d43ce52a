-- What Sluice needs in a Snowflake account, with least privilege. docs/snowflake-setup.md tells how to
-- run it, as ACCOUNTADMIN. It may be run again. Change the names to yours, in all places.

-- Each kind of task has a role and a warehouse of its own; readers have no more than what is built.
create role if not exists LOADER;
create role if not exists TRANSFORMER;
create role if not exists READER;
grant role LOADER to role SYSADMIN;
grant role TRANSFORMER to role SYSADMIN;
grant role READER to role SYSADMIN;

create warehouse if not exists LOADING
  warehouse_size = xsmall auto_suspend = 60 auto_resume = true initially_suspended = true;
create warehouse if not exists TRANSFORMING
  warehouse_size = xsmall auto_suspend = 60 auto_resume = true initially_suspended = true;
grant usage on warehouse LOADING to role LOADER;
grant usage on warehouse TRANSFORMING to role TRANSFORMER;
grant usage on warehouse TRANSFORMING to role READER;

create database if not exists ANALYTICS;
grant usage on database ANALYTICS to role LOADER;
grant usage on database ANALYTICS to role TRANSFORMER;
grant usage on database ANALYTICS to role READER;

-- Load: one schema for each source file; its target_schema. Nothing else writes there.
create schema if not exists ANALYTICS.RAW_SHOP;
grant ownership on schema ANALYTICS.RAW_SHOP to role LOADER copy current grants;
grant usage on schema ANALYTICS.RAW_SHOP to role TRANSFORMER;
grant select on all tables in schema ANALYTICS.RAW_SHOP to role TRANSFORMER;
grant select on future tables in schema ANALYTICS.RAW_SHOP to role TRANSFORMER;

-- dbt: it makes the schemas of its models, one more for each that a model names.
grant create schema on database ANALYTICS to role TRANSFORMER;
create schema if not exists ANALYTICS.DBT;
grant ownership on schema ANALYTICS.DBT to role TRANSFORMER copy current grants;
grant usage on schema ANALYTICS.DBT to role READER;
grant select on all tables in schema ANALYTICS.DBT to role READER;
grant select on future tables in schema ANALYTICS.DBT to role READER;
grant select on all views in schema ANALYTICS.DBT to role READER;
grant select on future views in schema ANALYTICS.DBT to role READER;

-- So for each schema of dbt's that readers see: those that dbt_project.yml names.
create schema if not exists ANALYTICS.MARTS;
grant ownership on schema ANALYTICS.MARTS to role TRANSFORMER copy current grants;
grant usage on schema ANALYTICS.MARTS to role READER;
grant select on all tables in schema ANALYTICS.MARTS to role READER;
grant select on future tables in schema ANALYTICS.MARTS to role READER;
grant select on all views in schema ANALYTICS.MARTS to role READER;
grant select on future views in schema ANALYTICS.MARTS to role READER;

-- The user of Airflow's connection. It has no password: give it the public key.
create user if not exists SLUICE
  type = service default_role = TRANSFORMER default_warehouse = TRANSFORMING
  statement_timeout_in_seconds = 14400 abort_detached_query = true;
grant role LOADER to user SLUICE;
grant role TRANSFORMER to user SLUICE;
