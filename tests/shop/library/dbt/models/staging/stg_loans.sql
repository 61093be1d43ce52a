select
    branch_no || '-' || loan_no as loan_id,
    branch_no,
    isbn,
    member_id,
    fee,
    lent_at,
    returned_at
from {{ source('library', 'loans') }}
