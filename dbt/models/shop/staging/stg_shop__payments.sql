with source as (
    select * from {{ source('shop', 'payments') }}
)

select
    payment_id,
    order_id,
    method as payment_method,
    status as payment_status,
    amount,
    fx_rate,
    paid_at,
    updated_at
from source
