select
    sessions.session_id,
    sessions.customer_id,
    customers.country_code,
    customers.order_count,
    sessions.is_converted
from {{ ref('fct_sessions') }} as sessions
inner join {{ ref('dim_customers') }} as customers
    on sessions.customer_id = customers.customer_id
