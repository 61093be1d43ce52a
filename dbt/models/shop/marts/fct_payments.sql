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
