select
    items.order_item_id,
    items.order_id,
    items.product_id,
    products.category,
    items.quantity,
    items.net_amount,
    items.tax_amount,
    items.updated_at
from {{ ref('int_order_items_priced') }} as items
left join {{ ref('stg_shop__products') }} as products
    on items.product_id = products.product_id
