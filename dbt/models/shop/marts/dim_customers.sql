with orders as (
    select
        customer_id,
        count(*) as order_count,
        min(ordered_at) as first_ordered_at,
        max(ordered_at) as last_ordered_at
    from {{ ref('stg_shop__orders') }}
    group by customer_id
)

select
    customers.customer_id,
    customers.external_id,
    customers.full_name,
    customers.is_subscribed,
    addresses.country_code,
    countries.country_name,
    coalesce(orders.order_count, 0) as order_count,
    orders.first_ordered_at,
    orders.last_ordered_at,
    customers.created_at
from {{ ref('stg_shop__customers') }} as customers
left join {{ ref('int_customer_addresses') }} as addresses
    on customers.customer_id = addresses.customer_id
left join {{ ref('countries') }} as countries
    on addresses.country_code = countries.country_code
left join orders
    on customers.customer_id = orders.customer_id
