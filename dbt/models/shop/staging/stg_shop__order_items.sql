with source as (
    select * from {{ source('shop', 'order_items') }}
)

select
    order_id || '-' || line_number as order_item_id,
    order_id,
    line_number,
    product_id,
    quantity,
    unit_price,
    coalesce(tax_rate, 0) as tax_rate,
    updated_at
from source
