with source as (
    select * from {{ source('shop', 'web_events') }}
)

select
    event_id,
    customer_id,
    session_id,
    event_type,
    page_url,
    occurred_at
from source
