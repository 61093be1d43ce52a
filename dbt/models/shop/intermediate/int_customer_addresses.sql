select
    customer_id,
    address_id,
    city,
    country_code
from {{ ref('stg_shop__addresses') }}
qualify row_number() over (
    partition by customer_id
    order by coalesce(is_primary, false) desc, address_id
) = 1
