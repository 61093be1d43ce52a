select
    order_item_id,
    order_id,
    product_id,
    quantity,
    unit_price,
    tax_rate,
    cast(quantity * unit_price as number(18, 2)) as net_amount,
    cast(quantity * unit_price * tax_rate as number(18, 2)) as tax_amount,
    updated_at
from {{ ref('stg_shop__order_items') }}
