with source as (
    select * from {{ source('shop', 'customers') }}
)

select
    customer_id,
    external_id,
    lower(email) as email,
    full_name,
    birth_date,
    coalesce(is_subscribed, false) as is_subscribed,
    lifetime_value,
    created_at,
    updated_at
from source
