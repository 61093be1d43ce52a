select
    category,
    sum(net_amount) as net_amount,
    ratio_to_report(sum(net_amount)) over () as share
from {{ ref('product_performance') }}
group by category
