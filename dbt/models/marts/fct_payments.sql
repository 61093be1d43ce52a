{{ config(
    materialized='incremental',
    unique_key='payment_id',
    incremental_strategy='merge',
    on_schema_change='append_new_columns'
) }}

select
    payment_id,
    order_id,
    payment_method,
    payment_status,
    amount,
    fx_rate,
    paid_at,
    updated_at
from {{ ref('stg_shop__payments') }}
{{ only_recent('updated_at') }}
