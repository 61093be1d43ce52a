select
    orders.customer_id,
    customers.country_code,
    count(*) as order_count,
    sum(orders.net_amount) as net_amount,
    min(orders.ordered_on) as first_ordered_on,
    max(orders.ordered_on) as last_ordered_on
from {{ ref('fct_orders') }} as orders
inner join {{ ref('dim_customers') }} as customers
    on orders.customer_id = customers.customer_id
where orders.is_revenue
group by orders.customer_id, customers.country_code
