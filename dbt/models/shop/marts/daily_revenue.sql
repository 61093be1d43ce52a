select
    ordered_on || '-' || currency as daily_revenue_id,
    ordered_on,
    currency,
    count(*) as order_count,
    sum(net_amount) as net_amount,
    sum(tax_amount) as tax_amount
from {{ ref('fct_orders') }}
where is_revenue
group by ordered_on, currency
