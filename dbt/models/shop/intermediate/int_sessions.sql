select
    session_id,
    max(customer_id) as customer_id,
    min(occurred_at) as started_at,
    max(occurred_at) as ended_at,
    count(*) as event_count,
    count_if(event_type = 'add_to_cart') as cart_count,
    count_if(event_type = 'purchase') as purchase_count
from {{ ref('stg_shop__web_events') }}
group by session_id
