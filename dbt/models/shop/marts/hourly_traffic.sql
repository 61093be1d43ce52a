{{ config(
    materialized='incremental',
    unique_key='started_hour',
    incremental_strategy='merge',
    on_schema_change='append_new_columns'
) }}

select
    date_trunc('hour', started_at) as started_hour,
    count(*) as session_count,
    sum(event_count) as event_count,
    count_if(is_converted) as converted_count
from {{ ref('fct_sessions') }}
{{ only_recent('started_at', here='started_hour') }}
group by date_trunc('hour', started_at)
