select
    products.product_id,
    products.product_name,
    products.category,
    coalesce(sum(items.quantity), 0) as quantity_sold,
    coalesce(sum(items.net_amount), 0) as net_amount
from {{ ref('dim_products') }} as products
left join {{ ref('fct_order_items') }} as items
    on products.product_id = items.product_id
group by products.product_id, products.product_name, products.category
