{{ config(
    materialized='incremental',
    unique_key='session_id',
    incremental_strategy='merge',
    on_schema_change='append_new_columns'
) }}

select
    session_id,
    customer_id,
    started_at,
    ended_at,
    event_count,
    cart_count,
    purchase_count,
    purchase_count > 0 as is_converted
from {{ ref('int_sessions') }}
{{ only_recent('ended_at') }}
