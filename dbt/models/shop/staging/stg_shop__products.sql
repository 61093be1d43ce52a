with source as (
    select * from {{ source('shop', 'products') }}
)

select
    product_id,
    supplier_id,
    sku,
    name as product_name,
    coalesce(category, 'unknown') as category,
    price,
    unit_cost,
    discontinued_on is not null as is_discontinued,
    updated_at
from source
