with branches as (
    select sum(loan_count) as known from {{ ref('branches') }}
),

loans as (
    select count(*) as known from {{ ref('stg_loans') }}
)

select branches.known as lost
from branches
cross join loans
where branches.known != loans.known
