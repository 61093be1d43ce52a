with source as (
    select * from {{ source('shop', 'addresses') }}
)

select
    address_id,
    customer_id,
    city,
    postcode,
    country_code,
    "PRIMARY" as is_primary,
    latitude,
    longitude,
    updated_at
from source
