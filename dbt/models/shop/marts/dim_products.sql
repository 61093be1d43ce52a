with changes as (
    select
        product_id,
        count(*) - 1 as change_count
    from {{ ref('products_snapshot') }}
    group by product_id
)

select
    products.product_id,
    products.supplier_id,
    suppliers.supplier_name,
    products.sku,
    products.product_name,
    products.category,
    products.price,
    products.unit_cost,
    products.is_discontinued,
    coalesce(changes.change_count, 0) as change_count
from {{ ref('stg_shop__products') }} as products
left join {{ ref('stg_shop__suppliers') }} as suppliers
    on products.supplier_id = suppliers.supplier_id
left join changes
    on products.product_id = changes.product_id
