select
    order_id,
    count(*) as payment_count,
    sum(case when payment_status = 'settled' then amount else 0 end) as settled_amount,
    max(paid_at) as last_paid_at
from {{ ref('stg_shop__payments') }}
group by order_id
