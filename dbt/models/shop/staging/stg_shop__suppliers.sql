with source as (
    select * from {{ source('shop', 'suppliers') }}
)

select
    supplier_id,
    name as supplier_name,
    country_code,
    rating,
    coalesce(active, true) as is_active,
    updated_at
from source
