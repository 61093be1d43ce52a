select
    orders.order_id,
    orders.customer_id,
    orders.address_id,
    orders.status,
    orders.currency,
    orders.item_quantity,
    orders.net_amount,
    orders.tax_amount,
    orders.is_revenue,
    coalesce(payments.settled_amount, 0) as settled_amount,
    payments.last_paid_at,
    cast(orders.ordered_at as date) as ordered_on,
    orders.ordered_at,
    orders.updated_at
from {{ ref('int_orders_totalled') }} as orders
left join {{ ref('int_payments_by_order') }} as payments
    on orders.order_id = payments.order_id
