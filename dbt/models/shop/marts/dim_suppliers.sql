select
    suppliers.supplier_id,
    suppliers.supplier_name,
    suppliers.country_code,
    suppliers.rating,
    suppliers.is_active,
    count(products.product_id) as product_count
from {{ ref('stg_shop__suppliers') }} as suppliers
left join {{ ref('stg_shop__products') }} as products
    on suppliers.supplier_id = products.supplier_id
group by
    suppliers.supplier_id,
    suppliers.supplier_name,
    suppliers.country_code,
    suppliers.rating,
    suppliers.is_active
