select
    status,
    count(*) as order_count,
    sum(net_amount) as net_amount
from {{ ref('fct_orders') }}
group by status
