select
    date_trunc('hour', started_at) as started_hour,
    count(*) as session_count,
    sum(event_count) as event_count,
    count_if(is_converted) as converted_count
from {{ ref('fct_sessions') }}
group by date_trunc('hour', started_at)
