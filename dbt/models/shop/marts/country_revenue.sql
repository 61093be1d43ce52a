select
    coalesce(addresses.country_code, '??') as country_code,
    coalesce(countries.region, 'unknown') as region,
    orders.currency,
    coalesce(addresses.country_code, '??') || '-' || orders.currency as country_revenue_id,
    count(*) as order_count,
    sum(orders.net_amount) as net_amount
from {{ ref('fct_orders') }} as orders
left join {{ ref('stg_shop__addresses') }} as addresses
    on orders.address_id = addresses.address_id
left join {{ ref('countries') }} as countries
    on addresses.country_code = countries.country_code
where orders.is_revenue
group by addresses.country_code, countries.region, orders.currency
