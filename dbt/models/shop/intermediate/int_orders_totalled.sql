with items as (
    select
        order_id,
        sum(quantity) as item_quantity,
        sum(net_amount) as items_amount,
        sum(tax_amount) as tax_amount
    from {{ ref('int_order_items_priced') }}
    group by order_id
)

select
    orders.order_id,
    orders.customer_id,
    orders.address_id,
    orders.status,
    orders.currency,
    orders.discount,
    orders.ordered_at,
    orders.updated_at,
    coalesce(items.item_quantity, 0) as item_quantity,
    coalesce(items.tax_amount, 0) as tax_amount,
    greatest(coalesce(items.items_amount, 0) - orders.discount, 0) as net_amount,
    orders.status not in ('cancelled', 'returned') as is_revenue
from {{ ref('stg_shop__orders') }} as orders
left join items
    on orders.order_id = items.order_id
