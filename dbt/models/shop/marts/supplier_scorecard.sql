select
    suppliers.supplier_id,
    suppliers.supplier_name,
    suppliers.rating,
    coalesce(sum(performance.quantity_sold), 0) as quantity_sold,
    coalesce(sum(performance.net_amount), 0) as net_amount
from {{ ref('dim_suppliers') }} as suppliers
left join {{ ref('dim_products') }} as products
    on suppliers.supplier_id = products.supplier_id
left join {{ ref('product_performance') }} as performance
    on products.product_id = performance.product_id
group by suppliers.supplier_id, suppliers.supplier_name, suppliers.rating
