-- Revenue by day adds up to the orders it is made of.
with by_day as (
    select sum(net_amount) as net_amount
    from {{ ref('daily_revenue') }}
),

by_order as (
    select sum(net_amount) as net_amount
    from {{ ref('fct_orders') }}
    where is_revenue
)

select
    by_day.net_amount as by_day,
    by_order.net_amount as by_order
from by_day
cross join by_order
where coalesce(by_day.net_amount, 0) <> coalesce(by_order.net_amount, 0)
