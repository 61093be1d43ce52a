select
    category,
    sum(net_amount) as net_amount,
    sum(net_amount) / nullif(sum(sum(net_amount)) over (), 0) as share
from {{ ref('product_performance') }}
group by category
