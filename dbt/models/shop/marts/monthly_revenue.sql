select
    to_char(ordered_on, 'YYYY-MM') || '-' || currency as monthly_revenue_id,
    to_char(ordered_on, 'YYYY-MM') as ordered_month,
    currency,
    sum(order_count) as order_count,
    sum(net_amount) as net_amount
from {{ ref('daily_revenue') }}
group by to_char(ordered_on, 'YYYY-MM'), currency
