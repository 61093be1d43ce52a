with source as (
    select * from {{ source('shop', 'orders') }}
)

select
    order_id,
    customer_id,
    address_id,
    status,
    "ORDER" as order_reference,
    currency,
    coalesce(discount, 0) as discount,
    ordered_at,
    updated_at
from source
