select
    to_char(first_ordered_on, 'YYYY-MM') as cohort_month,
    count(*) as customer_count,
    sum(order_count) as order_count,
    sum(net_amount) as net_amount
from {{ ref('customer_value') }}
group by to_char(first_ordered_on, 'YYYY-MM')
