-- An order's quantity is the sum of its items' quantities.
select
    orders.order_id,
    orders.item_quantity,
    sum(items.quantity) as expected
from {{ ref('fct_orders') }} as orders
inner join {{ ref('fct_order_items') }} as items
    on orders.order_id = items.order_id
group by orders.order_id, orders.item_quantity
having orders.item_quantity <> sum(items.quantity)
